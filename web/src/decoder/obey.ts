/** Clicks and boxes are obeyed: src/seem/predict/obey.py has the same functions and says why. */

const REACH = 0.15;
const SMALLEST = 8;
const LIKENESS = 0.7;
const MARGIN = 3;
const RIDGE = 1e-2;
const EDGE = 2;
const MOST = 64;
const KEPT_FROM = 3;
const KEPT = 0.5;
const NEAR = 0.2;

export interface ClickCell {
  x: number;
  y: number;
  positive: boolean;
}

export interface Fine {
  /** channels x height x width, padded */
  data: Float32Array;
  channels: number;
  width: number;
  height: number;
}

/** x0, y0, x1, y1 in cells */
export type BoxCells = readonly [number, number, number, number];

/** Mask logits, height x width in rows, that stay nearer to the round before, the further they are from new clicks; changed in place. */
export function keepFar(logits: Float32Array, width: number, height: number, previous: Float32Array, clicks: readonly ClickCell[]): void {
  const before = clicks.length < KEPT_FROM ? 0 : area(previous);
  if (before === 0) return;
  const fresh = clicks.filter((c, i) => i === clicks.length - 1 || previous[c.y * width + c.x]! > 0 !== c.positive);
  const near = NEAR * Math.max(SMALLEST, Math.sqrt(Math.max(before, area(logits))));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let far = Infinity;
      for (const c of fresh) far = Math.min(far, (x - c.x) ** 2 + (y - c.y) ** 2);
      const p = y * width + x;
      logits[p]! += KEPT * (1 - Math.exp(-far / (2 * near ** 2))) * (previous[p]! - logits[p]!);
    }
  }
}

/** Mask logits, height x width in rows, that fall below zero half a cell outside every box; changed in place. */
export function obeyBoxes(logits: Float32Array, width: number, height: number, boxes: readonly BoxCells[]): void {
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let outside = Infinity;
      for (const [x0, y0, x1, y1] of boxes) {
        const sideways = Math.max(x0 - x - 0.5, x + 0.5 - x1, 0);
        const upright = Math.max(y0 - y - 0.5, y + 0.5 - y1, 0);
        outside = Math.min(outside, Math.hypot(sideways, upright));
      }
      if (outside > 0 && outside < Infinity) logits[y * width + x] = Math.min(logits[y * width + x]!, EDGE - 2 * EDGE * outside);
    }
  }
}

/**
 * Mask logits, height x width in rows, that agree with clicks; changed in place.
 * The fine features may be padded at the right and the bottom.
 */
export function obeyClicks(logits: Float32Array, width: number, height: number, fine: Fine, clicks: readonly ClickCell[]): void {
  const cells = lastOfEach(clicks.slice(-MOST), width);
  const sign = cells.map((c) => (c.positive ? 1 : -1));
  const there = cells.map((c, i) => logits[c.y * width + c.x]! * sign[i]!);
  if (there.every((value) => value > 0)) return;
  const missing = there.map((value, i) => Math.max(0, MARGIN - value) * sign[i]!);
  const scale = scales(fine, width, height);
  const reach = REACH * Math.max(SMALLEST, Math.sqrt(area(logits)));
  const surfaces = cells.map((cell) => surface(cell, width, height, fine, scale, reach));
  const between = surfaces.map((s, i) => cells.map((c, j) => s[c.y * width + c.x]! + (i === j ? RIDGE : 0)));
  const weights = solve(between, missing);
  surfaces.forEach((s, i) => {
    const weight = weights[i]!;
    for (let p = 0; p < logits.length; p++) logits[p]! += weight * s[p]!;
  });
}

/** Cells inside a mask. */
function area(logits: Float32Array): number {
  return logits.reduce((sum, value) => sum + (value > 0 ? 1 : 0), 0);
}

/** Of clicks in one cell the last counts. */
function lastOfEach(clicks: readonly ClickCell[], width: number): ClickCell[] {
  const last = new Map(clicks.map((click, i) => [click.y * width + click.x, i]));
  return [...last.values()].sort((a, b) => a - b).map((i) => clicks[i]!);
}

/** What each channel's squared differences are multiplied by: over its variance and the number of channels. */
function scales(fine: Fine, width: number, height: number): Float64Array {
  const n = width * height;
  const out = new Float64Array(fine.channels);
  for (let c = 0; c < fine.channels; c++) {
    let sum = 0;
    let squares = 0;
    for (let y = 0; y < height; y++) {
      const row = (c * fine.height + y) * fine.width;
      for (let x = 0; x < width; x++) {
        const value = fine.data[row + x]!;
        sum += value;
        squares += value * value;
      }
    }
    const deviation = Math.sqrt(Math.max(0, (squares - (sum * sum) / n) / (n - 1))) + 1e-6;
    out[c] = 1 / (deviation * deviation * fine.channels);
  }
  return out;
}

function surface(at: ClickCell, width: number, height: number, fine: Fine, scale: Float64Array, reach: number): Float32Array {
  const out = new Float32Array(width * height);
  for (let c = 0; c < fine.channels; c++) {
    const start = c * fine.height * fine.width;
    const here = fine.data[start + at.y * fine.width + at.x]!;
    const factor = scale[c]! / (2 * LIKENESS ** 2);
    for (let y = 0; y < height; y++) {
      const row = start + y * fine.width;
      for (let x = 0; x < width; x++) out[y * width + x]! += factor * (fine.data[row + x]! - here) ** 2;
    }
  }
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const far = ((x - at.x) ** 2 + (y - at.y) ** 2) / (2 * reach ** 2);
      out[y * width + x] = Math.exp(-far - out[y * width + x]!);
    }
  }
  return out;
}

/** Gaussian elimination with the largest pivot. */
function solve(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const n = right.length;
  const rows = matrix.map((row, i) => [...row, right[i]!]);
  for (let i = 0; i < n; i++) {
    const pivot = rows.reduce((best, row, j) => (j > i && Math.abs(row[i]!) > Math.abs(rows[best]![i]!) ? j : best), i);
    [rows[i], rows[pivot]] = [rows[pivot]!, rows[i]!];
    for (let j = i + 1; j < n; j++) {
      const factor = rows[j]![i]! / rows[i]![i]!;
      for (let k = i; k <= n; k++) rows[j]![k]! -= factor * rows[i]![k]!;
    }
  }
  const out = new Array<number>(n).fill(0);
  for (let i = n - 1; i >= 0; i--) {
    const known = out.reduce((sum, value, j) => (j > i ? sum + rows[i]![j]! * value : sum), 0);
    out[i] = (rows[i]![n]! - known) / rows[i]![i]!;
  }
  return out;
}
