/** COCO run lengths of binary masks: column by column, starting with the pixels outside. */

import type { Rle } from "../decoder/types";

export interface Mask {
  width: number;
  height: number;
  /** height * width bytes, row by row, 1 inside */
  data: Uint8Array;
}

/** Box (half-open) and number of the pixels inside. */
export interface Extent {
  box: [number, number, number, number] | null;
  area: number;
}

export function emptyMask(width: number, height: number): Mask {
  return { width, height, data: new Uint8Array(width * height) };
}

/** Run lengths in column order; the first run is outside. */
function runs(mask: Mask): number[] {
  const { width, height, data } = mask;
  const counts: number[] = [];
  let value = 0;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, i = x; y < height; y++, i += width) {
      const bit = data[i] === 0 ? 0 : 1;
      if (bit === value) {
        length++;
      } else {
        counts.push(length);
        value = bit;
        length = 1;
      }
    }
  }
  counts.push(length);
  return counts;
}

/** COCO's text form: differences to the run two before, five bits a character, low ones first. */
function compress(counts: readonly number[]): string {
  const codes: number[] = [];
  for (let i = 0; i < counts.length; i++) {
    let x = counts[i]!;
    if (i > 2) x -= counts[i - 2]!;
    let more = true;
    while (more) {
      let c = x & 31;
      x >>= 5;
      more = (c & 16) !== 0 ? x !== -1 : x !== 0;
      if (more) c |= 32;
      codes.push(c + 48);
    }
  }
  let text = "";
  for (let i = 0; i < codes.length; i += 4096) text += String.fromCharCode(...codes.slice(i, i + 4096));
  return text;
}

function expand(text: string): number[] {
  const counts: number[] = [];
  let at = 0;
  while (at < text.length) {
    let x = 0;
    let shift = 0;
    let more = true;
    while (more) {
      if (at >= text.length) throw new Error("rle.counts: ends in the middle of a number");
      const c = text.charCodeAt(at++) - 48;
      if (c < 0 || c > 63) throw new Error("rle.counts: a character that is no run length");
      x |= (c & 31) << shift;
      more = (c & 32) !== 0;
      shift += 5;
      if (!more && (c & 16) !== 0) x |= -1 << shift;
    }
    if (counts.length > 2) x += counts[counts.length - 2]!;
    counts.push(x);
  }
  return counts;
}

export function encodeRle(mask: Mask): Rle {
  return { size: [mask.height, mask.width], counts: compress(runs(mask)) };
}

/** Throws if the runs do not fill the size exactly. */
export function decodeRle(rle: Rle): Mask {
  const [height, width] = rle.size;
  const counts = typeof rle.counts === "string" ? expand(rle.counts) : rle.counts;
  const mask = emptyMask(width, height);
  const { data } = mask;
  let at = 0;
  let value = 0;
  for (const count of counts) {
    if (count < 0 || at + count > width * height) throw new Error(`rle: runs reach over ${width} x ${height} pixels`);
    if (value === 1) {
      let x = Math.floor(at / height);
      let y = at - x * height;
      for (let k = 0; k < count; k++) {
        data[y * width + x] = 1;
        if (++y === height) {
          y = 0;
          x++;
        }
      }
    }
    at += count;
    value = 1 - value;
  }
  if (at !== width * height) throw new Error(`rle: runs fill ${at} of ${width * height} pixels`);
  return mask;
}

export function extent(mask: Mask): Extent {
  const { width, height, data } = mask;
  let x0 = width;
  let x1 = -1;
  let y0 = -1;
  let y1 = -1;
  let area = 0;
  for (let y = 0; y < height; y++) {
    const row = y * width;
    let found = false;
    for (let x = 0; x < width; x++) {
      if (data[row + x] === 0) continue;
      found = true;
      area++;
      if (x < x0) x0 = x;
      if (x > x1) x1 = x;
    }
    if (found) {
      if (y0 < 0) y0 = y;
      y1 = y;
    }
  }
  return { box: area > 0 ? [x0, y0, x1 + 1, y1 + 1] : null, area };
}
