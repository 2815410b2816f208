import { describe, expect, it } from "vitest";

import { keepFar, obeyBoxes, obeyClicks, type BoxCells, type Fine } from "./obey";
import expected from "./obey.json";

/** What tests/predict/test_obey.py computes on the same numbers, which it writes here when it is told to. */
describe("obeyClicks", () => {
  const { width, height, channels, cases } = expected;
  const wave = (n: number, step: number): Float32Array => Float32Array.from({ length: n }, (_, i) => 4 * Math.sin(i * step));
  const padded: Fine = { data: new Float32Array(channels * (height + 1) * (width + 2)), channels, width: width + 2, height: height + 1 };
  const inner = wave(channels * height * width, 0.37);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      const row = inner.subarray((c * height + y) * width, (c * height + y + 1) * width);
      padded.data.set(row, (c * padded.height + y) * padded.width);
    }
  }

  it.each(cases)("agrees with Python: %#", ({ clicks, logits }) => {
    const found = wave(width * height, 0.113);
    obeyClicks(found, width, height, padded, clicks);
    logits.forEach((value, i) => expect(found[i]!).toBeCloseTo(value, 3));
    for (const { x, y, positive } of clicks) expect(found[y * width + x]! > 0).toBe(positive);
  });

  it.each(expected.boxes)("agrees with Python on boxes: %#", ({ boxes, logits }) => {
    const found = wave(width * height, 0.113);
    obeyBoxes(found, width, height, boxes as unknown as BoxCells[]);
    logits.forEach((value, i) => expect(found[i]!).toBeCloseTo(value, 3));
  });

  it.each(expected.kept)("agrees with Python on what stays: %#", ({ clicks, logits }) => {
    const found = wave(width * height, 0.113);
    keepFar(found, width, height, wave(width * height, 0.071), clicks);
    logits.forEach((value, i) => expect(found[i]!).toBeCloseTo(value, 3));
  });

  it("leaves what agrees alone", () => {
    const before = wave(width * height, 0.113);
    const after = before.slice();
    obeyClicks(after, width, height, padded, [{ x: 3, y: 0, positive: before[3]! > 0 }]);
    expect(after).toEqual(before);
  });
});
