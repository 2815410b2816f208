/**
 * Zooming in, as `seem.predict.tiles` does for photos: an object is looked at again in a window of the photo around what was
 * found, as soon as its outline is what counts. Windows are half-open, in pixels of the photo.
 */

import { decodeRle, encodeRle, extent as maskExtent, type Mask } from "../core/rle";
import { clipPolygon, clipPolyline, roundEven, spansArea, type Size } from "./geometry";
import { DecoderError, type Prompt, type Rle, type Window } from "./types";

const STRIDE = 4; // encoded pixels for a cell
const TILE = 1024;
const [TINY, ZOOMED] = [8, 4]; // what is less than 1/8 of its window is looked at again, in one 4 times its size or more
const [ENLARGED, SMALLEST] = [4, 32]; // encoded pixels for a pixel, at most; and a window's side, at least
const [ROOM_AROUND, CLOSE] = [0.25, 0.75]; // of an object's longer side around it, and most of a window's side to zoom in
const ZOOM_FROM = 3; // clicks of an object, from which on its outline counts; anything drawn counts at once
const AGREED = 0.3; // a zoomed window counts if its IoU with the first is at least that
const FAR = -20; // the logit of what a window does not show
const SAMPLES = 96; // points a side, at which two masks are compared

const f32 = Math.fround;

/** A mask that was decoded in a window. */
export interface Seen {
  window: Window;
  /** of the window as the network saw it */
  encoded: Size;
  /** cells of stride 4 of the encoded window, row by row */
  logits: Float32Array;
  /** of the mask in pixels of the photo, null if it is empty */
  box: Window | null;
}

export interface Photo {
  size: Size;
  encoded: Size;
}

export type Memory = Seen | { rle: Rle };

/** Decodes prompts in coordinates of a window; null if the window's scene is not here. */
export type Look<T extends Seen> = (window: Window, prompts: Prompt[], memory: Memory | null) => Promise<T | null>;

// ---- windows --------------------------------------------------------------------------------------------------------

export const wholeOf = ({ width, height }: Size): Window => [0, 0, width, height];

export const same = (a: Window, b: Window): boolean => a.every((v, i) => v === b[i]);

const sizeOf = ([x0, y0, x1, y1]: Window): Size => ({ width: x1 - x0, height: y1 - y0 });

const length = (window: Window): number => Math.max(window[2] - window[0], window[3] - window[1]);

const holds = (a: Window, b: Window): boolean => a[0] <= b[0] && a[1] <= b[1] && a[2] >= b[2] && a[3] >= b[3];

function union(a: Window, b: Window): Window {
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
}

/** Pixels of the smallest window's side. */
const closest = ({ encoded }: Photo): number =>
  Math.max(Math.floor(Math.max(encoded.width, encoded.height) / ENLARGED), SMALLEST);

/** A box with room around it, as far as the photo goes; null if that is not much less than a window. */
export function near(box: Window, window: Window, photo: Photo): Window | null {
  const { width, height } = photo.size;
  const room = Math.max(ROOM_AROUND * length(box), (closest(photo) - length(box)) / 2);
  const around: Window = [
    Math.max(0, Math.trunc(box[0] - room)),
    Math.max(0, Math.trunc(box[1] - room)),
    Math.min(width, Math.ceil(box[2] + room)),
    Math.min(height, Math.ceil(box[3] + room)),
  ];
  return length(around) <= CLOSE * length(window) ? around : null;
}

/** A window of a side, or the whole photo, that shows a box best. */
export function square(box: Window, side: number, photo: Photo): Window {
  const { width, height } = photo.size;
  if (side >= Math.max(width, height)) return wholeOf(photo.size);
  const grid = Math.max(Math.floor(side / 4), 1);
  const start = (a: number, b: number, most: number): number =>
    Math.min(Math.max(roundEven(((a + b) / 2 - side / 2) / grid) * grid, 0), Math.max(most - side, 0));
  const [x, y] = [start(box[0], box[2], width), start(box[1], box[3], height)];
  return [x, y, Math.min(x + side, width), Math.min(y + side, height)];
}

/** The side of the window in which a tiny object is looked at. */
function nearer(box: Window, photo: Photo): number {
  let side = Math.max(TILE, photo.size.width, photo.size.height);
  while (side >= 2 * Math.max(ZOOMED * length(box), closest(photo))) side = Math.floor(side / 2);
  return side;
}

// ---- prompts --------------------------------------------------------------------------------------------------------

/** Whether prompts say so much of an object that its outline is what is left to tell. */
export function isOutlined(prompts: readonly Prompt[]): boolean {
  const clicks = prompts.filter((p) => p.type === "click").length;
  return clicks >= ZOOM_FROM || prompts.some((p) => ["box", "scribble", "polygon", "mask"].includes(p.type));
}

/** The pixels that a prompt covers; null for what is nowhere on this photo. */
export function extentOf(prompt: Prompt, size: Size): Window | null {
  const { width, height } = size;
  if (prompt.type === "mask") return maskExtent(decodeMask(prompt.rle, size)).box;
  let points: readonly (readonly [number, number])[];
  if (prompt.type === "click") points = [[prompt.x, prompt.y]];
  else if (prompt.type === "scribble" || prompt.type === "polygon") points = prompt.points;
  else if (prompt.type === "box") points = [[prompt.xyxy[0], prompt.xyxy[1]], [prompt.xyxy[2], prompt.xyxy[3]]];
  else return null;
  const span = (values: number[], most: number): [number, number] => {
    const low = Math.min(Math.max(Math.floor(Math.min(...values)), 0), most - 1);
    return [low, Math.min(Math.max(Math.ceil(Math.max(...values)), low + 1), most)];
  };
  const [x0, x1] = span(points.map(([x]) => x), width);
  const [y0, y1] = span(points.map(([, y]) => y), height);
  return [x0, y0, x1, y1];
}

function decodeMask(rle: Rle, { width, height }: Size): Mask {
  try {
    if (rle.size[0] === height && rle.size[1] === width) return decodeRle(rle);
  } catch (error) {
    throw new DecoderError("invalid", `mask: ${error instanceof Error ? error.message : String(error)}`);
  }
  throw new DecoderError("invalid", `mask: expected a mask of ${width}x${height}, got ${rle.size[1]}x${rle.size[0]}`);
}

/** Prompts in coordinates of a window; what lies outside it is left out. */
export function localPrompts(prompts: readonly Prompt[], window: Window): Prompt[] {
  return prompts.flatMap((prompt) => local(prompt, window) ?? []);
}

function local(prompt: Prompt, window: Window): Prompt | null {
  const [x, y] = window;
  const size = sizeOf(window);
  const { width, height } = size;
  switch (prompt.type) {
    case "click": {
      const moved = { ...prompt, x: prompt.x - x, y: prompt.y - y };
      return moved.x >= 0 && moved.x < width && moved.y >= 0 && moved.y < height ? moved : null;
    }
    case "box": {
      const [x0, y0, x1, y1] = prompt.xyxy;
      const [a, b, c, d] = [Math.max(x0 - x, 0), Math.max(y0 - y, 0), Math.min(x1 - x, width), Math.min(y1 - y, height)];
      return a < c && b < d ? { ...prompt, xyxy: [a, b, c, d] } : null;
    }
    case "scribble":
    case "polygon": {
      const points = prompt.points.map(([px, py]): [number, number] => [px - x, py - y]);
      const enters = prompt.type === "scribble" ? clipPolyline(points, size).length > 0 : spansArea(clipPolygon(points, size));
      return enters ? { ...prompt, points } : null;
    }
    case "mask": {
      const mask = decodeRle(prompt.rle);
      const data = new Uint8Array(width * height);
      for (let row = 0; row < height; row++) {
        const from = (y + row) * mask.width + x;
        data.set(mask.data.subarray(from, from + width), row * width);
      }
      return data.includes(1) ? { type: "mask", rle: encodeRle({ width, height, data }) } : null;
    }
    default:
      return prompt;
  }
}

// ---- masks ----------------------------------------------------------------------------------------------------------

/** Mask logits of a part of a window, readable at any pixel of the photo: `Piece` of Python. */
interface Piece extends Size {
  logits: Float32Array;
  /** in pixels of the photo, of the first cell's centre */
  origin: [number, number];
  /** pixels from one cell to the next */
  pitch: [number, number];
  /** the pixels for which it says anything */
  bounds: Window;
}

function wholePiece({ window, encoded, logits }: Seen): Piece {
  const { width, height } = sizeOf(window);
  const pitch: [number, number] = [STRIDE / (encoded.width / width), STRIDE / (encoded.height / height)];
  const origin: [number, number] = [window[0] + pitch[0] / 2, window[1] + pitch[1] / 2];
  return { logits, width: Math.ceil(encoded.width / STRIDE), height: Math.ceil(encoded.height / STRIDE), origin, pitch, bounds: window };
}

/** Cropped to the mask, which is not empty, and a cell around it. */
function maskPiece(seen: Seen): Piece {
  const whole = wholePiece(seen);
  const { width, height, logits, origin, pitch } = whole;
  const data = Uint8Array.from(logits, (v) => (v > 0 ? 1 : 0));
  const [x0, y0, x1, y1] = maskExtent({ width, height, data }).box!;
  const [left, right] = [Math.max(x0 - 1, 0), Math.min(x1 + 1, width)];
  const [top, bottom] = [Math.max(y0 - 1, 0), Math.min(y1 + 1, height)];
  const inner = new Float32Array((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) inner.set(logits.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  const at = (axis: 0 | 1, cell: number): number => origin[axis] + cell * pitch[axis];
  const { window } = seen;
  const bounds: Window = [
    left === 0 ? window[0] : Math.trunc(at(0, left)),
    top === 0 ? window[1] : Math.trunc(at(1, top)),
    right === width ? window[2] : Math.ceil(at(0, right - 1)),
    bottom === height ? window[3] : Math.ceil(at(1, bottom - 1)),
  ];
  return { logits: inner, width: right - left, height: bottom - top, origin: [at(0, left), at(1, top)], pitch, bounds };
}

/** ys.length x xs.length logits at coordinates of the photo, bilinear. */
function readPiece(piece: Piece, xs: readonly number[], ys: readonly number[]): Float32Array {
  const { logits, width, height, origin, pitch, bounds } = piece;
  const taps = (values: readonly number[], axis: 0 | 1, count: number) =>
    values.map((at) => {
      const cell = Math.min(Math.max((at - origin[axis]) / pitch[axis], 0), count - 1);
      const before = Math.floor(cell);
      const there = at >= bounds[axis] && at <= bounds[axis === 0 ? 2 : 3];
      return { before, after: Math.min(before + 1, count - 1), share: f32(cell - before), there };
    });
  const [columns, rows] = [taps(xs, 0, width), taps(ys, 1, height)];
  const out = new Float32Array(xs.length * ys.length).fill(FAR);
  rows.forEach((row, r) => {
    if (!row.there) return;
    const down = (x: number): number =>
      f32(f32(logits[row.before * width + x]! * f32(1 - row.share)) + f32(logits[row.after * width + x]! * row.share));
    columns.forEach((column, c) => {
      if (!column.there) return;
      const [a, b] = [down(column.before), down(column.after)];
      out[r * xs.length + c] = f32(a * f32(1 - column.share)) + f32(b * column.share);
    });
  });
  return out;
}

/** What a mask looks like from another window, as logits of its cells: memory for a round there. */
export function seenFrom(seen: Seen, window: Window, encoded: Size): Float32Array {
  if (same(seen.window, window)) return seen.logits;
  const { width, height, origin, pitch } = wholePiece({ ...seen, window, encoded });
  const centres = (axis: 0 | 1, count: number): number[] => Array.from({ length: count }, (_, i) => origin[axis] + i * pitch[axis]);
  return readPiece(wholePiece(seen), centres(0, width), centres(1, height));
}

/** IoU of two masks, neither of them empty; of large ones at `SAMPLES`² points. */
export function agreement(a: Seen, b: Seen): number {
  const [first, second] = [maskPiece(a), maskPiece(b)];
  const box = union(first.bounds, second.bounds);
  const sample = (from: number, to: number): number[] => {
    const count = Math.min(to - from, SAMPLES);
    return Array.from({ length: count }, (_, i) => from + ((i + 0.5) * (to - from)) / count);
  };
  const [xs, ys] = [sample(box[0], box[2]), sample(box[1], box[3])];
  const [p, q] = [readPiece(first, xs, ys), readPiece(second, xs, ys)];
  let both = 0;
  let either = 0;
  p.forEach((value, i) => {
    both += value > 0 && q[i]! > 0 ? 1 : 0;
    either += value > 0 || q[i]! > 0 ? 1 : 0;
  });
  return both / Math.max(either, 1);
}

/** Whether a mask touches an edge at which the window, not the photo, ends. */
export function isCut({ window, encoded, logits }: Seen, { width, height }: Size): boolean {
  const [w, h] = [Math.ceil(encoded.width / STRIDE), Math.ceil(encoded.height / STRIDE)];
  const any = (count: number, at: (i: number) => number): boolean => {
    for (let i = 0; i < count; i++) if (logits[at(i)]! > 0) return true;
    return false;
  };
  return (
    (window[0] > 0 && any(h, (y) => y * w)) ||
    (window[1] > 0 && any(w, (x) => x)) ||
    (window[2] < width && any(h, (y) => y * w + w - 1)) ||
    (window[3] < height && any(w, (x) => (h - 1) * w + x))
  );
}

// ---- one object -----------------------------------------------------------------------------------------------------

/** An object on its way: where it is looked at, and what came of it. */
interface Item<T extends Seen> {
  prompts: readonly Prompt[];
  /** of its positive prompts on this photo */
  extent: Window | null;
  window: Window;
  memory: Memory | null;
  /** not to be looked at more closely because it is tiny */
  settled: boolean;
  /** the window is one that was zoomed into */
  zoomed: boolean;
  result: T | null;
}

/**
 * Decode an object in its window, until it wants no other one.
 *
 * @returns what was found so far, null if nothing was; and the window that is not here, null if none was missing
 */
export async function zoomIn<T extends Seen>(
  prompts: readonly Prompt[],
  memory: Memory | null,
  photo: Photo,
  look: Look<T>,
): Promise<{ found: T | null; wants: Window | null }> {
  const item = begin<T>(prompts, memory, photo);
  for (;;) {
    const found = await look(item.window, localPrompts(prompts, item.window), item.memory);
    if (!found) return { found: item.result, wants: item.window };
    if (!wantsMore(item, found, photo)) return { found: item.result, wants: null };
  }
}

function begin<T extends Seen>(prompts: readonly Prompt[], memory: Memory | null, photo: Photo): Item<T> {
  const whole = wholeOf(photo.size);
  const positive = prompts.filter((p) => !("positive" in p) || p.positive !== false);
  const extents = positive.map((p) => extentOf(p, photo.size)).filter((box) => box !== null);
  const seen = memory && "window" in memory ? memory : null;
  if (seen) extents.push(seen.box ?? seen.window);
  const extent = extents.length > 0 ? extents.reduce(union) : null;
  const item: Item<T> = { prompts, extent, window: whole, memory, settled: false, zoomed: false, result: null };
  if (!extent) return item;
  if (seen && holds(seen.window, extent)) {
    const close = isOutlined(prompts) ? near(extent, seen.window, photo) : null;
    return { ...item, window: close && localPrompts(prompts, close).length > 0 ? close : seen.window, settled: true };
  }
  return { ...item, settled: memory !== null && !seen };
}

/** Take a result, or leave it; whether the object is to be looked at once more, in another window. */
function wantsMore<T extends Seen>(item: Item<T>, result: T, photo: Photo): boolean {
  const { window } = item;
  const { box } = result;
  const cut = isCut(result, photo.size);
  if (item.zoomed) {
    // it counts if it shows the same object, and all of it
    if (box && !cut && agreement(item.result!, result) >= AGREED) item.result = result;
    return false;
  }
  item.result = result;
  if (!box) return false;
  const around = item.extent ? union(box, item.extent) : box;
  if (cut && !same(window, wholeOf(photo.size))) {
    item.settled = true;
    if (item.memory && !("window" in item.memory)) item.memory = null;
    item.window = square(around, 2 * length(window), photo);
    return true;
  }
  const next = closerWindow(item, box, around, photo);
  if (!next || localPrompts(item.prompts, next).length === 0) return false;
  [item.zoomed, item.memory, item.window] = [true, result, next];
  return true;
}

function closerWindow(item: Item<Seen>, box: Window, around: Window, photo: Photo): Window | null {
  if (isOutlined(item.prompts)) return near(around, item.window, photo);
  const [side, close] = [length(item.window), nearer(around, photo)];
  return item.settled || length(box) * TINY > side || close >= side ? null : square(around, close, photo);
}
