/** What the touch-up tools and the clean-up knobs do to a mask. Nothing here changes its argument. */

import type { Point } from "../decoder/types";
import { distance } from "./outline";
import type { Mask } from "./rle";

/** A stroke of a round brush painted into a copy of the mask, or rubbed out of it. */
export function paint(mask: Mask, points: readonly Point[], width: number, inside: boolean): Mask {
  const data = mask.data.slice();
  const radius = Math.max(0.5, width / 2);
  const value = inside ? 1 : 0;
  for (let k = 0; k < points.length; k++) {
    const a = points[Math.max(0, k - 1)]!;
    const b = points[k]!;
    const x0 = Math.max(0, Math.floor(Math.min(a[0], b[0]) - radius));
    const x1 = Math.min(mask.width - 1, Math.ceil(Math.max(a[0], b[0]) + radius));
    const y0 = Math.max(0, Math.floor(Math.min(a[1], b[1]) - radius));
    const y1 = Math.min(mask.height - 1, Math.ceil(Math.max(a[1], b[1]) + radius));
    for (let y = y0; y <= y1; y++) {
      for (let x = x0; x <= x1; x++) {
        if (distance([x + 0.5, y + 0.5], a, b) <= radius) data[y * mask.width + x] = value;
      }
    }
  }
  return { ...mask, data };
}

/**
 * Fill holes and drop specks of up to that many pixels. Neighbours share a side; a hole does not touch the photo's
 * border; the largest region always stays.
 */
export function clean(mask: Mask, holes: number, specks: number): Mask {
  if (holes <= 0 && specks <= 0) return mask;
  const data = mask.data.slice();
  if (specks > 0) {
    const regions = components(mask, 1);
    const largest = regions.reduce((best, region) => Math.max(best, region.pixels.length), 0);
    for (const { pixels } of regions) {
      if (pixels.length <= specks && pixels.length < largest) for (const i of pixels) data[i] = 0;
    }
  }
  if (holes > 0) {
    for (const { pixels, border } of components({ ...mask, data }, 0)) {
      if (!border && pixels.length <= holes) for (const i of pixels) data[i] = 1;
    }
  }
  return { ...mask, data };
}

interface Region {
  pixels: number[];
  /** touches the photo's border */
  border: boolean;
}

function components(mask: Mask, value: 0 | 1): Region[] {
  const { width, height, data } = mask;
  const seen = new Uint8Array(width * height);
  const is = (i: number): boolean => (data[i] === 0 ? 0 : 1) === value && seen[i] === 0;
  const regions: Region[] = [];
  for (let start = 0; start < data.length; start++) {
    if (!is(start)) continue;
    const pixels = [start];
    let border = false;
    seen[start] = 1;
    for (let k = 0; k < pixels.length; k++) {
      const i = pixels[k]!;
      const x = i % width;
      const y = (i - x) / width;
      if (x === 0 || y === 0 || x === width - 1 || y === height - 1) border = true;
      const near = [x > 0 ? i - 1 : i, x < width - 1 ? i + 1 : i, y > 0 ? i - width : i, y < height - 1 ? i + width : i];
      for (const j of near) {
        if (is(j)) {
          seen[j] = 1;
          pixels.push(j);
        }
      }
    }
    regions.push({ pixels, border });
  }
  return regions;
}

export function iou(a: Mask, b: Mask): number {
  let both = 0;
  let any = 0;
  for (let i = 0; i < a.data.length; i++) {
    both += a.data[i]! & b.data[i]!;
    any += a.data[i]! | b.data[i]!;
  }
  return any === 0 ? 1 : both / any;
}
