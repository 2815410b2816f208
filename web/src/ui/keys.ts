/** Keys that work everywhere but in text fields and windows. */

import * as app from "../state/app";
import { failed } from "../state/toasts";
import * as tools from "../state/tools";

type Action = () => void;

function active(): { id: number; visible: boolean; locked: boolean } | null {
  return app.current.value?.active.value ?? null;
}

function withActive(act: (o: { id: number; visible: boolean; locked: boolean }) => void): Action {
  return () => {
    const o = active();
    if (o) act(o);
  };
}

function selectStep(by: number): void {
  const doc = app.current.value;
  if (!doc || doc.objects.value.length === 0) return;
  const objects = doc.objects.value;
  const at = objects.findIndex((o) => o.id === doc.selected.value);
  const next = at < 0 ? (by > 0 ? 0 : objects.length - 1) : (at + by + objects.length) % objects.length;
  doc.selected.value = objects[next]?.id ?? null;
}

function stepAlong(by: number): void {
  const video = app.activeVideo.value;
  if (video) void video.show(video.frame.value + by).catch(failed);
  else app.step(by);
}

const PLAIN: Record<string, Action> = {
  n: app.newOne,
  escape: app.newOne,
  delete: withActive((o) => app.remove(o.id)),
  backspace: withActive((o) => app.remove(o.id)),
  h: withActive((o) => app.change(o.id, { visible: !o.visible })),
  l: withActive((o) => app.change(o.id, { locked: !o.locked })),
  f2: withActive((o) => void (tools.renaming.value = o.id)),
  i: () => void (tools.include.value = !tools.include.value),
  "[": () => tools.setWidth(tools.width.value / 1.25),
  "]": () => tools.setWidth(tools.width.value * 1.25 + 0.5),
  "+": () => tools.wishView("in"),
  "=": () => tools.wishView("in"),
  "-": () => tools.wishView("out"),
  "0": () => tools.wishView("fit"),
  "?": () => void (tools.dialog.value = "help"),
  j: () => selectStep(1),
  k: () => selectStep(-1),
  pagedown: () => app.step(1),
  pageup: () => app.step(-1),
  ".": () => stepAlong(1),
  ",": () => stepAlong(-1),
  ...Object.fromEntries(tools.TOOLS.map(({ tool, key }) => [key, () => tools.choose(tool)])),
};

const WITH_CTRL: Record<string, Action> = {
  z: app.undo,
  y: app.redo,
  "shift+z": app.redo,
  e: () => void (tools.dialog.value = "export"),
};

const FIELD = "input, textarea, select, dialog, [contenteditable]";

export function onKey(event: KeyboardEvent): void {
  const target = event.target;
  if (event.defaultPrevented || (target instanceof Element && target.closest(FIELD))) return;
  if (tools.dialog.value !== "none") return;
  const key = event.key.toLowerCase();
  const ctrl = event.ctrlKey || event.metaKey;
  const act = ctrl ? WITH_CTRL[event.shiftKey ? `shift+${key}` : key] : event.altKey ? undefined : PLAIN[key];
  if (!act || (app.current.value === null && key !== "?")) return;
  event.preventDefault();
  act();
}
