/**
 * The prompt log: what led to the masks of one image, as the Python package's `Session.log` writes it. "set" is the
 * page's own event, for masks that no prompt made: painted, kept from a list, or imported.
 */

import type { Prompt, Rle } from "../decoder/types";

export type LogEvent =
  | { event: "round"; objects: { id: number; prompts: Prompt[] }[] }
  | { event: "remove"; id: number }
  | { event: "undo" }
  | { event: "redo" }
  | { event: "set"; objects: { id: number; rle: Rle }[] };

export interface PromptLog {
  version: 1;
  image: string;
  events: LogEvent[];
}

const TYPES = new Set(["click", "box", "scribble", "polygon", "mask", "text", "reference"]);

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

function isId(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0;
}

function isRle(value: unknown): boolean {
  const { size, counts } = record(value);
  return Array.isArray(size) && size.length === 2 && size.every(isId) && (typeof counts === "string" || Array.isArray(counts));
}

function isEvent(value: unknown): boolean {
  const event = record(value);
  const objects = Array.isArray(event["objects"]) ? event["objects"].map(record) : [];
  switch (event["event"]) {
    case "round":
      return (
        objects.length > 0 &&
        objects.every(
          ({ id, prompts }) =>
            isId(id) &&
            Array.isArray(prompts) &&
            prompts.length > 0 &&
            prompts.every((p) => TYPES.has(String(record(p)["type"]))),
        )
      );
    case "set":
      return objects.length > 0 && objects.every(({ id, rle }) => isId(id) && isRle(rle));
    case "remove":
      return isId(event["id"]);
    default:
      return event["event"] === "undo" || event["event"] === "redo";
  }
}

/** A log from a file. Throws an Error whose message says what is wrong. */
export function parseLog(text: string): PromptLog {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("log: expected JSON");
  }
  const { version, image, events } = record(value);
  if (version !== 1 || typeof image !== "string" || !Array.isArray(events)) {
    throw new Error('log: expected {"version": 1, "image", "events"}');
  }
  const bad = events.findIndex((event) => !isEvent(event));
  if (bad >= 0) throw new Error(`log.events[${bad}]: expected a round, remove, undo, redo or set`);
  return { version: 1, image, events: events as LogEvent[] };
}
