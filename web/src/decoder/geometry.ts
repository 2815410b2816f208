/**
 * Lines, polygons and masks on their way from the photo to the network: the counterpart of `seem.geometry` and
 * `seem.model.visual_sampler`, written to give the same numbers, so that a prompt means the same here and in Python.
 */

import type { Point } from "./types";

export interface Size {
  width: number;
  height: number;
}

/** A binary image, row by row, 1 inside. */
export interface Grid extends Size {
  data: Uint8Array;
}

const f32 = Math.fround;

/** Half to even, as numpy rounds. */
export function roundEven(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  if (rest !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}

// ---- clipping -------------------------------------------------------------------------------------------------------

function clamp(x: number, low: number, high: number): number {
  return x < low ? low : x > high ? high : x;
}

/** Whether the vertices do not all lie on one line. */
export function spansArea(points: readonly Point[]): boolean {
  if (points.length < 3) return false;
  const largest = Math.max(1, ...points.map(([x, y]) => Math.max(Math.abs(x), Math.abs(y))));
  const [ox, oy] = points[0]!;
  const offset = points.map(([x, y]): Point => [x / largest - ox / largest, y / largest - oy / largest]);
  let far: Point = [0, 0];
  let farthest = -1;
  for (const p of offset) {
    const d = p[0] ** 2 + p[1] ** 2;
    if (d > farthest) [far, farthest] = [p, d];
  }
  const cross = Math.max(...offset.map(([x, y]) => Math.abs(x * far[1] - y * far[0])));
  return cross > 1e-12 * farthest;
}

/** The part of a polygon inside [0, width] × [0, height] (Sutherland-Hodgman); empty if there is none. */
export function clipPolygon(points: readonly Point[], size: Size): Point[] {
  let ring = points.map(([x, y]): Point => [clamp(x, -1e9, 1e9), clamp(y, -1e9, 1e9)]);
  const sides: [0 | 1, number, 1 | -1][] = [
    [0, 0, 1],
    [0, size.width, -1],
    [1, 0, 1],
    [1, size.height, -1],
  ];
  for (const [axis, bound, keep] of sides) {
    const out: Point[] = [];
    ring.forEach((p, i) => {
      const q = ring[(i + 1) % ring.length]!;
      const inside = (p[axis] - bound) * keep >= 0;
      if (inside) out.push(p);
      if (inside !== (q[axis] - bound) * keep >= 0) {
        const t = (bound - p[axis]) / (q[axis] - p[axis]);
        const at: Point = [p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])];
        at[axis] = bound;
        out.push(at);
      }
    });
    ring = out;
  }
  return ring;
}

/** The pieces of a line inside [0, width] × [0, height], each of one point or more (Liang-Barsky). */
export function clipPolyline(points: readonly Point[], size: Size): Point[][] {
  const upper = [size.width, size.height] as const;
  const line = points.map(([x, y]): Point => [clamp(x, -1e9, 1e9), clamp(y, -1e9, 1e9)]);
  const inside = line.map((p) => p[0] >= 0 && p[0] <= upper[0] && p[1] >= 0 && p[1] <= upper[1]);
  if (inside.every(Boolean)) return [line];
  const pieces: Point[][] = [];
  let joined = false; // whether the piece before this step goes on
  for (let i = 0; i + 1 < line.length; i++) {
    const [from, to] = [line[i]!, line[i + 1]!];
    let enter = inside[i] ? 0 : -Infinity;
    let leave = inside[i + 1] ? 1 : Infinity;
    const still = from[0] === to[0] && from[1] === to[1];
    for (const axis of [0, 1] as const) {
      const step = to[axis] - from[axis];
      const within = from[axis] >= 0 && from[axis] <= upper[axis];
      const a = step === 0 ? (within ? -Infinity : Infinity) : (0 - from[axis]) / step;
      const b = step === 0 ? (within ? Infinity : -Infinity) : (upper[axis] - from[axis]) / step;
      if (!inside[i]) enter = Math.max(enter, Math.min(a, b), 0);
      if (!inside[i + 1]) leave = Math.min(leave, Math.max(a, b), 1);
      if (step === 0 && !within) [enter, leave] = [Infinity, -Infinity];
    }
    if (!(enter < leave)) {
      joined = false;
      continue;
    }
    const at = (t: number, axis: 0 | 1): number => clamp(from[axis] + t * (to[axis] - from[axis]), 0, upper[axis]);
    const first: Point = [at(enter, 0), at(enter, 1)];
    const last: Point = inside[i + 1] ? to : [at(leave, 0), at(leave, 1)];
    if (first[0] === last[0] && first[1] === last[1] && !still) {
      joined = false;
      continue;
    }
    if (joined && inside[i]) pieces[pieces.length - 1]!.push(last);
    else pieces.push([first, last]);
    joined = true;
  }
  return pieces;
}

// ---- filling --------------------------------------------------------------------------------------------------------

/**
 * Pixels of a polygon, as `fill_polygon` has Pillow draw them: vertices go to whole pixels, rows are filled between pairs
 * of crossings, and where two edges meet in a flat corner, it reaches as far as the edges do on the row beside it.
 */
export function fillPolygon(points: readonly Point[], size: Size): Grid {
  const { width, height } = size;
  const data = new Uint8Array(width * height);
  const row = (y: number, from: number, to: number): void => {
    const [a, b] = [Math.max(0, from), Math.min(width - 1, to)];
    if (a <= b && y >= 0 && y < height) data.fill(1, y * width + a, y * width + b + 1);
  };
  const edges: Edge[] = [];
  let top = height - 1;
  let bottom = 0;
  const ring = points.map(([x, y]): Point => [Math.trunc(x - 0.5), Math.trunc(y - 0.5)]);
  ring.forEach(([x0, y0], i) => {
    const [x1, y1] = ring[(i + 1) % ring.length]!;
    if (i === ring.length - 1 && x0 === x1 && y0 === y1) return; // closed already
    top = Math.min(top, y0, y1);
    bottom = Math.max(bottom, y0, y1);
    if (y0 === y1) row(y0, Math.min(x0, x1), Math.max(x0, x1));
    else edges.push({ x0, y0, low: Math.min(y0, y1), high: Math.max(y0, y1), slope: f32((x1 - x0) / (y1 - y0)) });
  });
  for (let y = Math.max(0, top); y <= bottom; y++) {
    const crossings: number[] = [];
    edges.forEach((edge, i) => {
      if (y < edge.low || y > edge.high) return;
      const x = edgeAt(edge, y);
      if (y === edge.high && y < bottom) crossings.push(x, x); // a row belongs to one of two edges in a chain
      else if ((y === edge.low || y === edge.high) && edge.slope !== 0) crossings.push(corner(edges, i, y, x));
      else crossings.push(x);
    });
    crossings.sort((a, b) => a - b);
    for (let i = 1; i < crossings.length; i += 2) {
      row(y, Math.floor(crossings[i - 1]! + 0.5), Math.ceil(crossings[i]! - 0.5));
    }
  }
  return { ...size, data };
}

interface Edge {
  x0: number;
  y0: number;
  low: number;
  high: number;
  slope: number;
}

function edgeAt(edge: Edge, y: number): number {
  return f32(f32((y - edge.y0) * edge.slope) + edge.x0);
}

/** Where an edge that ends on row `y` at `x` meets an earlier one there, and both come from one side: how far it goes. */
function corner(edges: readonly Edge[], i: number, y: number, x: number): number {
  const edge = edges[i]!;
  const next = y === edge.high ? y - 1 : y + 1;
  for (const other of edges.slice(0, i)) {
    if ((y !== other.low && y !== other.high) || other.slope === 0) continue;
    if (Math.round(x) !== Math.round(edgeAt(other, y)) || next < other.low || next > other.high) continue;
    const [a, b] = [edgeAt(edge, next), edgeAt(other, next)];
    if (x > a + 1 && x > b + 1) return Math.round(Math.max(a, b)) + 1;
    if (x < a - 1 && x < b - 1) return Math.round(Math.min(a, b)) - 1;
    return x;
  }
  return x;
}

/** Pixels that a mask covers by half or more; if none is, all that it touches, so never empty. */
export function shrinkMask(mask: Grid, size: Size): Grid {
  const cover = boxResize(mask, size);
  const data = new Uint8Array(size.width * size.height);
  let any = false;
  for (let i = 0; i < data.length; i++) {
    if (cover[i]! >= 128) {
      data[i] = 1;
      any = true;
    }
  }
  if (!any) {
    mask.data.forEach((value, i) => {
      if (value === 0) return;
      const y = Math.floor((Math.floor(i / mask.width) * size.height) / mask.height);
      const x = Math.floor(((i % mask.width) * size.width) / mask.width);
      data[y * size.width + x] = 1;
    });
  }
  return { ...size, data };
}

const BITS = 22; // of the fixed point in which Pillow resizes 8-bit images

/** A mask of 0 and 255 resized by averaging, first along rows and then along columns, rounded after each. */
function boxResize(mask: Grid, size: Size): Uint8Array {
  let { data } = mask;
  if (size.width !== mask.width) data = boxRows(data, 255, mask.width, mask.height, size.width);
  else data = data.map((v) => (v === 0 ? 0 : 255));
  if (size.height !== mask.height) {
    data = transpose(data, size.width, mask.height);
    data = boxRows(data, 1, mask.height, size.width, size.height);
    data = transpose(data, size.height, size.width);
  }
  return data;
}

function transpose(data: Uint8Array, width: number, height: number): Uint8Array {
  const out = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) out[x * height + y] = data[y * width + x]!;
  return out;
}

function boxRows(data: Uint8Array, unit: number, width: number, rows: number, target: number): Uint8Array {
  const out = new Uint8Array(target * rows);
  const scale = width / target;
  const support = 0.5 * Math.max(scale, 1);
  const shrink = 1 / Math.max(scale, 1);
  for (let x = 0; x < target; x++) {
    const centre = (x + 0.5) * scale;
    const from = Math.max(0, Math.trunc(centre - support + 0.5));
    const to = Math.min(width, Math.trunc(centre + support + 0.5));
    const weights: number[] = [];
    let sum = 0;
    for (let i = from; i < to; i++) {
      const at = (i - centre + 0.5) * shrink;
      const w = at > -0.5 && at <= 0.5 ? 1 : 0;
      weights.push(w);
      sum += w;
    }
    const fixed = weights.map((w) => (w === 0 || sum === 0 ? 0 : Math.trunc((w / sum) * 2 ** BITS + 0.5)));
    for (let row = 0; row < rows; row++) {
      let total = 2 ** (BITS - 1);
      for (let i = from; i < to; i++) total += (data[row * width + i] === 0 ? 0 : unit * data[row * width + i]!) * fixed[i - from]!;
      out[row * target + x] = Math.min(255, Math.floor(total / 2 ** BITS));
    }
  }
  return out;
}

// ---- points ---------------------------------------------------------------------------------------------------------

/** At most `count` of the points, evenly spaced in their order. */
export function evenSubset<T>(points: readonly T[], count: number): T[] {
  if (points.length <= count) return [...points];
  const step = (points.length - 1) / (count - 1);
  return Array.from({ length: count }, (_, i) => points[roundEven(i === count - 1 ? points.length - 1 : i * step)]!);
}

/** As numpy divides and floors: exact where the quotient is nearly whole. */
function floorDivide(a: number, b: number): number {
  const quotient = (a - (a % b)) / b;
  const floor = Math.floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

/** About `count` pixel centres of a mask, on an even grid; none only for an empty mask. */
export function interiorPoints(mask: Grid, count: number): Point[] {
  const { width, height, data } = mask;
  let total = 0;
  for (const value of data) total += value;
  if (total === 0) return [];
  const step = Math.max(1, Math.sqrt(total / count));
  const columns = Array.from({ length: width }, (_, x) => floorDivide(x, step));
  const cells = new Map<number, number[]>(); // pixels of each cell, in rows from the top
  for (let y = 0, i = 0; y < height; y++) {
    const row = floorDivide(y, step) * (width + 1);
    for (let x = 0; x < width; x++, i++) {
      if (data[i] === 0) continue;
      const key = row + columns[x]!;
      const known = cells.get(key);
      if (known) known.push(i);
      else cells.set(key, [i]);
    }
  }
  const keys = [...cells.keys()].sort((a, b) => a - b);
  const middle = keys.map((key): Point => {
    const pixels = cells.get(key)!;
    const i = pixels[Math.floor(pixels.length / 2)]!;
    return [(i % width) + 0.5, Math.floor(i / width) + 0.5];
  });
  return evenSubset(middle, count);
}

/** Points at equal arc length along a line, one for every 4 pixels, 2 to `count`; a single point stays. */
export function alongLine(points: readonly Point[], count: number): Point[] {
  if (points.length < 2) return [...points];
  const length = [0];
  for (let i = 1; i < points.length; i++) {
    const dx = f32(points[i]![0] - points[i - 1]![0]);
    const dy = f32(points[i]![1] - points[i - 1]![1]);
    length.push(f32(length[i - 1]! + f32(Math.sqrt(f32(f32(dx * dx) + f32(dy * dy))))));
  }
  const whole = length[length.length - 1]!;
  const n = Math.trunc(clamp(whole / 4, 2, count));
  const step = whole / (n - 1);
  let segment = 0;
  return Array.from({ length: n }, (_, k): Point => {
    const at = k === n - 1 ? whole : k * step;
    while (segment < points.length - 2 && length[segment + 1]! <= at) segment++;
    const [a, b] = [points[segment]!, points[segment + 1]!];
    const run = length[segment + 1]! - length[segment]!;
    if (at >= length[segment + 1]!) return [...b];
    const read = (axis: 0 | 1): number => f32(((b[axis] - a[axis]) / run) * (at - length[segment]!) + a[axis]);
    return [read(0), read(1)];
  });
}

// ---- back to the photo ----------------------------------------------------------------------------------------------

/**
 * Mask logits at stride 4 of the encoded image -> the photo's mask: enlarged bilinearly, then > 0, as `ImageGeometry.upsample`.
 * A pixel between four cells of one sign needs no arithmetic, and nearly all are.
 */
export function enlarge(logits: Float32Array, cells: Size, encoded: Size, photo: Size, out: Uint8Array): void {
  const columns = taps(cells.width, (4 * photo.width) / encoded.width, photo.width);
  const rows = taps(cells.height, (4 * photo.height) / encoded.height, photo.height);
  const runs = groups(columns);
  const w = cells.width;
  for (let y = 0; y < photo.height; y++) {
    const top = rows.low[y]! * w;
    const bottom = rows.high[y]! * w;
    const down = rows.weight[y]!;
    const base = y * photo.width;
    for (const [from, to] of runs) {
      const [left, right] = [columns.low[from]!, columns.high[from]!];
      const a = logits[top + left]!;
      const b = logits[top + right]!;
      const c = logits[bottom + left]!;
      const d = logits[bottom + right]!;
      const inside = (a > 0 ? 1 : 0) + (b > 0 ? 1 : 0) + (c > 0 ? 1 : 0) + (d > 0 ? 1 : 0);
      if (inside === 0) continue; // `out` starts as zeros
      if (inside === 4) {
        out.fill(1, base + from, base + to);
        continue;
      }
      for (let x = from; x < to; x++) {
        const across = columns.weight[x]!;
        const above = f32(f32(a * f32(1 - across)) + f32(b * across));
        const below = f32(f32(c * f32(1 - across)) + f32(d * across));
        if (f32(f32(above * f32(1 - down)) + f32(below * down)) > 0) out[base + x] = 1;
      }
    }
  }
}

interface Taps {
  low: Int32Array;
  high: Int32Array;
  weight: Float32Array;
}

/** For each output sample the two cells that it lies between, and how far towards the second. */
function taps(count: number, factor: number, size: number): Taps {
  const scale = f32(1 / factor);
  const [low, high, weight] = [new Int32Array(size), new Int32Array(size), new Float32Array(size)];
  for (let i = 0; i < size; i++) {
    const at = Math.max(0, f32(f32(scale * f32(i + 0.5)) - 0.5));
    low[i] = Math.min(Math.floor(at), count - 1);
    high[i] = Math.min(low[i]! + 1, count - 1);
    weight[i] = clamp(f32(at - low[i]!), 0, 1);
  }
  return { low, high, weight };
}

/** Runs of samples between the same two cells. */
function groups({ low }: Taps): [number, number][] {
  const runs: [number, number][] = [];
  let from = 0;
  for (let i = 1; i <= low.length; i++) {
    if (i === low.length || low[i] !== low[from]) {
      runs.push([from, i]);
      from = i;
    }
  }
  return runs;
}
