/** What lies around the photo: top bar, tools, their options, the photos, messages. */

import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import * as api from "../api";
import * as app from "../state/app";
import * as engine from "../state/engine";
import { t } from "../state/i18n";
import { dismiss, toasts } from "../state/toasts";
import * as tools from "../state/tools";
import { IconButton, useObjectUrl } from "./common";
import { pick, pickFolder } from "./files";
import { Icon, toolIcon } from "./icons";
import { polygon } from "./stage/draft";
import { closePolygon } from "./stage/Stage";

export function TopBar() {
  const doc = app.current.value;
  const history = doc?.history.value;
  return (
    <header class="top">
      <h1 class="brand">
        <img src="./icon.svg" alt="" width={26} height={26} />
        <span>seem</span>
      </h1>
      <AddMenu />
      <div class="group">
        <IconButton icon="undo" label={t("undo")} shortcut="Control+Z" onClick={app.undo} disabled={!history?.past.length} testid="undo" />
        <IconButton icon="redo" label={t("redo")} shortcut="Control+Shift+Z" onClick={app.redo} disabled={!history?.future.length} testid="redo" />
      </div>
      <div class="group zoom">
        <IconButton icon="minus" label={t("zoomOut")} shortcut="-" onClick={() => tools.wishView("out")} disabled={!doc} />
        <IconButton icon="fit" label={t("zoomFit")} shortcut="0" onClick={() => tools.wishView("fit")} disabled={!doc} testid="zoom-fit" />
        <IconButton icon="plus" label={t("zoomIn")} shortcut="+" onClick={() => tools.wishView("in")} disabled={!doc} />
      </div>
      <span class="spring" />
      <Status />
      <button type="button" class="primary" disabled={!doc} onClick={() => (tools.dialog.value = "export")} data-testid="export">
        <Icon name="export" />
        <span class="wide-only">{t("export")}</span>
        <span class="narrow-label">{t("export")}</span>
      </button>
      <IconButton icon="settings" label={t("settings")} onClick={() => (tools.dialog.value = "settings")} testid="settings" />
      <IconButton icon="help" label={t("help")} shortcut="?" onClick={() => (tools.dialog.value = "help")} testid="help" />
      <IconButton
        icon="list"
        class="narrow-only"
        label={t("objectsPanel")}
        pressed={tools.panelOpen.value}
        onClick={() => (tools.panelOpen.value = !tools.panelOpen.value)}
        testid="panel-toggle"
      />
    </header>
  );
}

function AddMenu() {
  const open = useSignal(false);
  const menu = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const away = (event: Event): void => {
      if (event.target instanceof Node && !menu.current?.contains(event.target)) open.value = false;
    };
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, []);
  const choose = (act: () => Promise<void>) => () => {
    open.value = false;
    void act();
  };
  return (
    <div
      class="menu"
      ref={menu}
      onKeyDown={(event) => {
        if (event.key === "Escape") open.value = false;
      }}
    >
      <button type="button" aria-expanded={open.value} aria-label={t("add")} onClick={() => (open.value = !open.value)} data-testid="add">
        <Icon name="plus" />
        <span class="wide-only">{t("addMenu")}</span>
      </button>
      {open.value && (
        <div class="menu-list">
          <button type="button" onClick={choose(pick)}>{t("addFiles")}</button>
          <button type="button" onClick={choose(pickFolder)}>{t("addFolder")}</button>
          {engine.info.value?.samples.map((s) => (
            <button type="button" key={s.id} onClick={choose(() => app.addSample(s.id))}>
              {s.name}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

/** Who decodes, and how long the last round took. */
function Status() {
  const by = engine.backend.value;
  if (!by) return <span class="status" data-testid="backend">{engine.info.value ? t("starting") : t("loadingInfo")}</span>;
  const server = by.backend === "server";
  const long = server
    ? t("remoteLong", { why: engine.whyRemote.value })
    : t("localLong", { backend: by.backend, n: by.threads });
  const ms = engine.lastMs.value;
  return (
    <button
      type="button"
      class={`status ${server ? "server" : "local"}`}
      title={long}
      onClick={() => (tools.dialog.value = "settings")}
      data-testid="backend"
      data-backend={by.backend}
      data-ms={ms === null ? undefined : Math.round(ms)}
    >
      <span class="dot" />
      {server ? t("remote") : t("local")}
      {ms !== null && <span class="ms">{Math.round(ms)} ms</span>}
    </button>
  );
}

export function ToolRail() {
  const chosen = tools.tool.value;
  return (
    <nav class="rail" aria-label={t("tools")}>
      {tools.TOOLS.map(({ tool, key, name }) => (
        <button
          key={tool}
          type="button"
          aria-pressed={chosen === tool}
          aria-keyshortcuts={key.toUpperCase()}
          title={`${t(name)} (${key.toUpperCase()})`}
          onClick={() => tools.choose(tool)}
          data-testid={`tool-${tool}`}
        >
          <Icon name={toolIcon(tool)} />
          <span>{t(name)}</span>
        </button>
      ))}
    </nav>
  );
}

const SIGNED = new Set<tools.Tool>(["click", "scribble", "polygon"]);
const WIDE = new Set<tools.Tool>(["scribble", "brush", "eraser"]);

export function OptionsBar() {
  const tool = tools.tool.value;
  const info = tools.TOOLS.find((i) => i.tool === tool);
  return (
    <div class="options">
      {SIGNED.has(tool) && <SignToggle />}
      {WIDE.has(tool) && <WidthKnob />}
      {tool === "polygon" && polygon.value && (
        <div class="group">
          <button type="button" class="primary" disabled={polygon.value.points.length < 3} onClick={closePolygon}>
            {t("finish")}
          </button>
          <button type="button" onClick={() => (polygon.value = null)}>{t("cancel")}</button>
        </div>
      )}
      {tool === "text" && <TextTool />}
      {tool === "everything" && <RegionsTool />}
      {tool === "reference" && (
        <button type="button" class="primary" onClick={() => (tools.dialog.value = "reference")} data-testid="reference-open">
          {t("choosePhoto")}
        </button>
      )}
      {info && <p class="hint" title={t(info.hint)}>{t(info.hint)}</p>}
    </div>
  );
}

function SignToggle() {
  const on = tools.include.value;
  return (
    <div class="switch" role="group" aria-label={t("pointerMeans")}>
      <button type="button" class="plus" aria-pressed={on} onClick={() => (tools.include.value = true)} data-testid="include">
        <Icon name="plus" />
        {t("include")}
      </button>
      <button type="button" class="minus" aria-pressed={!on} onClick={() => (tools.include.value = false)} data-testid="exclude">
        <Icon name="minus" />
        {t("exclude")}
      </button>
    </div>
  );
}

function WidthKnob() {
  return (
    <label class="knob">
      {t("width")}
      <input
        type="range"
        min={2}
        max={tools.MAX_WIDTH}
        value={tools.width.value}
        onInput={(event) => tools.setWidth(Number(event.currentTarget.value))}
      />
      <output>{tools.width.value}</output>
    </label>
  );
}

function TextTool() {
  const text = useSignal("");
  const field = useRef<HTMLInputElement>(null);
  const wish = tools.focusText.value;
  useLayoutEffect(() => field.current?.focus(), [wish]); // before the next key, which belongs into it
  const said = text.value.trim();
  const one = (): void => {
    const doc = app.current.value;
    if (doc && said) void app.prompt(doc, { type: "text", text: said });
  };
  const all = (): void => void (said && app.findAll(said));
  return (
    <form
      class="text-tool"
      onSubmit={(event) => {
        event.preventDefault();
        one();
      }}
    >
      <input
        ref={field}
        type="text"
        maxLength={200}
        aria-label={t("textLabel")}
        placeholder={t("textPlaceholder")}
        value={text.value}
        onInput={(event) => (text.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            all();
          }
          if (event.key === "Escape") event.currentTarget.blur();
        }}
        data-testid="text"
      />
      <button type="submit" class="primary" disabled={!said} data-testid="text-this">{t("textThis")}</button>
      <button type="button" disabled={!said} onClick={all} data-testid="text-all">{t("textAll")}</button>
    </form>
  );
}

function RegionsTool() {
  const doc = app.current.value;
  if (!doc) return null;
  const regions = doc.regions.value;
  const busy = doc.pending.value > 0;
  return (
    <div class="group">
      <span class="count" role="status" data-testid="regions">
        {busy ? t("looking") : regions ? t("regions", { n: regions.length }) : ""}
      </span>
      <button
        type="button"
        class="primary"
        disabled={!regions?.length}
        onClick={() => {
          if (regions) app.keep(doc, regions, "model");
          doc.regions.value = [];
        }}
        data-testid="keep-all"
      >
        {t("keepAll")}
      </button>
      <button type="button" disabled={busy} onClick={() => void app.findRegions(doc)} data-testid="look-again">{t("lookAgain")}</button>
    </div>
  );
}

// ---- photos ----------------------------------------------------------------------------------------------------------

export function Strip() {
  const items = app.items.value;
  const at = items.findIndex((i) => i.key === app.activeKey.value);
  return (
    <section class="strip" aria-label={t("photos")}>
      <IconButton icon="left" label={t("previous")} shortcut="PageUp" onClick={() => app.step(-1)} disabled={at <= 0} />
      <ul>
        {items.map((item) => (
          <Thumb key={item.key} item={item} />
        ))}
      </ul>
      <IconButton icon="right" label={t("next")} shortcut="PageDown" onClick={() => app.step(1)} disabled={at >= items.length - 1} />
    </section>
  );
}

function Thumb({ item }: { item: app.Item }) {
  const chosen = item.key === app.activeKey.value;
  const name = item.kind === "image" ? item.doc.name : item.video.name;
  const count = item.kind === "image" ? item.doc.objects.value.length : item.video.given.value.length;
  const ready = item.kind === "video" || item.doc.stage.value === "ready";
  const remove = (): void => {
    if (count === 0 || confirm(t("removeSure", { name, n: count }))) app.removeItem(item.key);
  };
  return (
    <li class={`thumb ${chosen ? "chosen" : ""} ${ready ? "ready" : ""}`}>
      <button type="button" class="thumb-open" aria-current={chosen ? "true" : undefined} title={name} onClick={() => (app.activeKey.value = item.key)}>
        {item.kind === "image" ? <Picture blob={item.doc.blob} name={name} /> : <Clip name={name} />}
        {count > 0 && <span class="badge">{count}</span>}
      </button>
      <IconButton icon="close" label={t("removePhoto", { name })} onClick={remove} class="thumb-close" />
    </li>
  );
}

export function Picture({ blob, name }: { blob: Blob; name: string }) {
  return <img src={useObjectUrl(blob)} alt={name} loading="lazy" decoding="async" />;
}

function Clip({ name }: { name: string }) {
  return (
    <>
      <Icon name="play" />
      <span class="visually-hidden">{name}</span>
    </>
  );
}

// ---- messages --------------------------------------------------------------------------------------------------------

export function Banners() {
  return (
    <>
      {!api.online.value && (
        <div class="banner" role="alert" data-testid="offline">
          <span>{engine.isLocal() ? t("offlineLocal") : t("offline")}</span>
          <button type="button" onClick={api.retryNow}>{t("retryNow")}</button>
        </div>
      )}
      {app.unsaved.value && <div class="banner" role="status">{t("otherTab")}</div>}
      {app.loading.value && (
        <div class="banner quiet" role="status">
          <span>{app.loading.value.name}</span>
          <progress aria-label={app.loading.value.name} max={1} {...(app.loading.value.share === null ? {} : { value: app.loading.value.share })} />
        </div>
      )}
    </>
  );
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite" data-testid="toasts">
      {toasts.value.map((message) => (
        <div class={`toast ${message.kind}`} key={message.id}>
          <span>{message.text}</span>
          <IconButton icon="close" label={t("dismiss")} onClick={() => dismiss(message.id)} />
        </div>
      ))}
    </div>
  );
}
