/** Masks as outlines and back: pixel borders traced, simplified, filled. Even-odd: a hole is an outline of its own. */

import type { Point } from "../decoder/types";
import { emptyMask, type Mask } from "./rle";

// Directions of a walk along pixel borders with the inside on the right hand: right, down, left, up.
const DX = [1, 0, -1, 0] as const;
const DY = [0, 1, 0, -1] as const;
// The two pixels ahead of a corner, right and left of the way.
const RIGHT_X = [0, -1, -1, 0] as const;
const RIGHT_Y = [0, 0, -1, -1] as const;
const LEFT_X = [0, 0, -1, -1] as const;
const LEFT_Y = [-1, 0, 0, -1] as const;

/** Every border of a mask as a closed outline of whole-numbered corners; regions that touch at a corner are apart. */
export function trace(mask: Mask): Point[][] {
  const { width, height, data } = mask;
  const seen = new Uint8Array(width * height); // pixels whose upper border was walked
  const inside = (x: number, y: number): boolean =>
    x >= 0 && y >= 0 && x < width && y < height && data[y * width + x] !== 0;
  const loops: Point[][] = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = y * width + x;
      if (data[i] === 0 || seen[i] !== 0 || (y > 0 && data[i - width] !== 0)) continue;
      loops.push(walk(x, y, width, inside, seen));
    }
  }
  return loops;
}

function walk(
  startX: number,
  startY: number,
  width: number,
  inside: (x: number, y: number) => boolean,
  seen: Uint8Array,
): Point[] {
  const points: Point[] = [];
  let x = startX;
  let y = startY;
  let direction = 0;
  do {
    if (direction === 0) seen[y * width + x] = 1;
    x += DX[direction]!;
    y += DY[direction]!;
    const right = inside(x + RIGHT_X[direction]!, y + RIGHT_Y[direction]!);
    const left = inside(x + LEFT_X[direction]!, y + LEFT_Y[direction]!);
    let next = direction;
    if (!right) next = (direction + 1) % 4;
    else if (left) next = (direction + 3) % 4;
    if (next !== direction) points.push([x, y]);
    direction = next;
  } while (x !== startX || y !== startY || direction !== 0);
  return points;
}

/** Douglas and Peucker's line simplification for a closed outline; what has no area left is dropped (returns []). */
export function simplify(loop: readonly Point[], tolerance: number): Point[] {
  if (tolerance <= 0 || loop.length < 4) return loop.length < 3 ? [] : [...loop];
  let far = 0;
  let best = -1;
  const [ax, ay] = loop[0]!;
  for (let i = 1; i < loop.length; i++) {
    const d = (loop[i]![0] - ax) ** 2 + (loop[i]![1] - ay) ** 2;
    if (d > best) [best, far] = [d, i];
  }
  const first = thin(loop.slice(0, far + 1), tolerance);
  const second = thin([...loop.slice(far), loop[0]!], tolerance);
  const points = [...first.slice(0, -1), ...second.slice(0, -1)];
  return points.length < 3 ? [] : points;
}

function thin(line: readonly Point[], tolerance: number): Point[] {
  const keep = new Uint8Array(line.length);
  keep[0] = keep[line.length - 1] = 1;
  const stack: [number, number][] = [[0, line.length - 1]];
  for (let span = stack.pop(); span; span = stack.pop()) {
    const [from, to] = span;
    let worst = tolerance;
    let at = -1;
    for (let i = from + 1; i < to; i++) {
      const d = distance(line[i]!, line[from]!, line[to]!);
      if (d > worst) [worst, at] = [d, i];
    }
    if (at < 0) continue;
    keep[at] = 1;
    stack.push([from, at], [at, to]);
  }
  return line.filter((_, i) => keep[i] === 1);
}

/** From a point to a segment. */
export function distance(p: Point, a: Point, b: Point): number {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const length = dx * dx + dy * dy;
  const t = length === 0 ? 0 : Math.max(0, Math.min(1, ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / length));
  return Math.hypot(p[0] - a[0] - t * dx, p[1] - a[1] - t * dy);
}

/** Pixels whose centre lies inside an odd number of the outlines. */
export function fill(loops: readonly (readonly Point[])[], width: number, height: number): Mask {
  const mask = emptyMask(width, height);
  const crossings: number[][] = Array.from({ length: height }, () => []);
  for (const loop of loops) {
    for (let i = 0; i < loop.length; i++) {
      const [x0, y0] = loop[i]!;
      const [x1, y1] = loop[(i + 1) % loop.length]!;
      if (y0 === y1) continue;
      const [top, bottom] = y0 < y1 ? [y0, y1] : [y1, y0];
      for (let y = Math.max(0, Math.ceil(top - 0.5)); y < Math.min(height, Math.ceil(bottom - 0.5)); y++) {
        crossings[y]!.push(x0 + ((y + 0.5 - y0) / (y1 - y0)) * (x1 - x0));
      }
    }
  }
  for (let y = 0; y < height; y++) {
    const row = crossings[y]!.sort((a, b) => a - b);
    for (let k = 0; k + 1 < row.length; k += 2) {
      const from = Math.max(0, Math.ceil(row[k]! - 0.5));
      const to = Math.min(width, Math.ceil(row[k + 1]! - 0.5));
      if (to > from) mask.data.fill(1, y * width + from, y * width + to);
    }
  }
  return mask;
}

/** The nearest vertex within `reach`, or null. */
export function nearestVertex(
  loops: readonly (readonly Point[])[],
  point: Point,
  reach: number,
): { loop: number; vertex: number } | null {
  let found: { loop: number; vertex: number } | null = null;
  let best = reach;
  loops.forEach((loop, l) =>
    loop.forEach((p, v) => {
      const d = Math.hypot(p[0] - point[0], p[1] - point[1]);
      if (d <= best) [best, found] = [d, { loop: l, vertex: v }];
    }),
  );
  return found;
}
