/** The tool at hand and how it is set. */

import { signal } from "@preact/signals";
import type { Key } from "./i18n";

export type Tool =
  | "click"
  | "box"
  | "scribble"
  | "polygon"
  | "brush"
  | "eraser"
  | "text"
  | "reference"
  | "everything"
  | "corners"
  | "pan";

export interface ToolInfo {
  tool: Tool;
  key: string;
  name: Key;
  hint: Key;
}

export const TOOLS: readonly ToolInfo[] = [
  { tool: "click", key: "c", name: "toolClick", hint: "hintClick" },
  { tool: "box", key: "b", name: "toolBox", hint: "hintBox" },
  { tool: "scribble", key: "s", name: "toolScribble", hint: "hintScribble" },
  { tool: "polygon", key: "p", name: "toolPolygon", hint: "hintPolygon" },
  { tool: "text", key: "t", name: "toolText", hint: "hintText" },
  { tool: "reference", key: "r", name: "toolReference", hint: "hintReference" },
  { tool: "everything", key: "e", name: "toolEverything", hint: "hintEverything" },
  { tool: "brush", key: "d", name: "toolBrush", hint: "hintBrush" },
  { tool: "eraser", key: "x", name: "toolEraser", hint: "hintEraser" },
  { tool: "corners", key: "v", name: "toolCorners", hint: "hintCorners" },
  { tool: "pan", key: "m", name: "toolPan", hint: "hintPan" },
];

export const tool = signal<Tool>("click");
/** what a tap or the left button means; the right button and Alt mean the opposite */
export const include = signal(true);
/** of scribbles, brush and eraser, in pixels of the screen */
export const width = signal(16);

export const MAX_WIDTH = 120;

export function setWidth(value: number): void {
  width.value = Math.max(2, Math.min(MAX_WIDTH, Math.round(value)));
}

export type Dialog = "none" | "export" | "help" | "reference" | "names" | "settings";
export const dialog = signal<Dialog>("none");
/** the objects list on a narrow screen */
export const panelOpen = signal(false);
/** bumped to put the cursor into the text box */
export const focusText = signal(0);
/** the object whose name is being edited */
export const renaming = signal<number | null>(null);
/** what the stage should do with its view */
export const viewWish = signal<{ wish: "fit" | "in" | "out"; n: number }>({ wish: "fit", n: 0 });

export function wishView(wish: "fit" | "in" | "out"): void {
  viewWish.value = { wish, n: viewWish.value.n + 1 };
}

export function choose(next: Tool): void {
  tool.value = next;
  if (next === "text") focusText.value++;
  if (next === "reference") dialog.value = "reference";
}
