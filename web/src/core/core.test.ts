import { describe, expect, it } from "vitest";
import type { Point } from "../decoder/types";
import * as history from "./history";
import { parseLog } from "./log";
import { clean, iou, paint } from "./mask";
import { fill, nearestVertex, simplify, trace } from "./outline";
import { decodeRle, emptyMask, encodeRle, extent, type Mask } from "./rle";
import { fit, keepInSight, pinch, toPhoto, toScreen, zoom } from "./view";

function draw(...rows: string[]): Mask {
  const width = rows[0]!.length;
  return { width, height: rows.length, data: Uint8Array.from(rows.join(""), (c) => (c === "#" ? 1 : 0)) };
}

function show(mask: Mask): string[] {
  return Array.from({ length: mask.height }, (_, y) =>
    Array.from(mask.data.subarray(y * mask.width, (y + 1) * mask.width), (v) => (v ? "#" : ".")).join(""),
  );
}

function random(width: number, height: number, seed: number): Mask {
  const mask = emptyMask(width, height);
  let state = seed;
  for (let i = 0; i < mask.data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    mask.data[i] = state >>> 31;
  }
  return mask;
}

const RING = draw("......", ".####.", ".#..#.", ".#..#.", ".####.", "......");

describe("rle", () => {
  // What pycocotools.mask.encode gives for the same masks.
  it.each([
    [RING, "742M000000035"],
    [draw("..", ".."), "4"],
    [draw("##", "##"), "04"],
  ])("is COCO's", (mask, counts) => {
    expect(encodeRle(mask)).toEqual({ size: [mask.height, mask.width], counts: counts });
    expect(decodeRle(encodeRle(mask))).toEqual(mask);
  });

  it("survives any mask, and long runs", () => {
    for (let seed = 1; seed < 20; seed++) {
      const mask = random(17, 9, seed);
      expect(decodeRle(encodeRle(mask)).data).toEqual(mask.data);
    }
    const wide = emptyMask(900, 700);
    wide.data.fill(1, 100_000, 400_000);
    expect(iou(decodeRle(encodeRle(wide)), wide)).toBe(1);
  });

  it("refuses runs that do not fit", () => {
    expect(() => decodeRle({ size: [2, 2], counts: [1, 4] })).toThrow(/reach over/);
    expect(() => decodeRle({ size: [2, 2], counts: [1, 2] })).toThrow(/3 of 4/);
    expect(() => decodeRle({ size: [2, 2], counts: "~" })).toThrow(/no run length/);
  });

  it("knows the box", () => {
    expect(extent(RING)).toEqual({ box: [1, 1, 5, 5], area: 12 });
    expect(extent(emptyMask(3, 2))).toEqual({ box: null, area: 0 });
  });
});

describe("outlines", () => {
  it("trace the outside and the hole", () => {
    const loops = trace(RING);
    expect(loops).toHaveLength(2);
    expect(loops[0]).toHaveLength(4);
    expect(loops[1]).toHaveLength(4);
  });

  it("fill to the same mask", () => {
    for (let seed = 1; seed < 20; seed++) {
      const mask = random(13, 11, seed);
      expect(fill(trace(mask), 13, 11).data).toEqual(mask.data);
    }
  });

  it("simplify within the tolerance", () => {
    const circle: Point[] = Array.from({ length: 200 }, (_, i) => [
      50 + 40 * Math.cos((i / 100) * Math.PI),
      50 + 40 * Math.sin((i / 100) * Math.PI),
    ]);
    const few = simplify(circle, 2);
    expect(few.length).toBeLessThan(30);
    expect(iou(fill([few], 100, 100), fill([circle], 100, 100))).toBeGreaterThan(0.93);
    expect(simplify(circle, 0)).toEqual(circle);
    expect(simplify([[0, 0], [9, 0], [9, 1], [0, 1]], 5)).toEqual([]);
  });

  it("find the vertex at hand", () => {
    const loops: Point[][] = [[[0, 0], [10, 0], [10, 10]]];
    expect(nearestVertex(loops, [9, 1], 3)).toEqual({ loop: 0, vertex: 1 });
    expect(nearestVertex(loops, [5, 5], 3)).toBeNull();
  });
});

describe("touch-up", () => {
  it("paints and rubs out without changing the mask given", () => {
    const empty = emptyMask(9, 5);
    const stroke = paint(empty, [[1.5, 2.5], [7.5, 2.5]], 1, true);
    expect(show(stroke)[2]).toBe(".#######.");
    expect(extent(empty).area).toBe(0);
    expect(extent(paint(stroke, [[4.5, 2.5]], 3, false)).area).toBe(4);
  });

  it("fills holes, drops specks, keeps the largest region", () => {
    const mask = draw("#......", "..####.", "..#..#.", "..####.", ".......");
    expect(show(clean(mask, 2, 0))[2]).toBe("..####.");
    expect(show(clean(mask, 1, 0))).toEqual(show(mask));
    expect(show(clean(mask, 0, 1))[0]).toBe(".......");
    expect(extent(clean(mask, 0, 1000)).area).toBe(10);
  });

  it("takes an open bay for no hole", () => {
    const bay = draw("###", "#.#", "#.#");
    expect(show(clean(bay, 100, 0))).toEqual(show(bay));
  });
});

describe("history", () => {
  it("goes back and forth, and forgets what was undone", () => {
    let h = history.push(history.push(history.start(0), 1), 2);
    h = history.undo(h);
    expect(h.present).toBe(1);
    expect(history.redo(h).present).toBe(2);
    expect(history.push(h, 3).future).toEqual([]);
    expect(history.undo(history.start(0)).present).toBe(0);
    expect(history.redo(history.start(0)).present).toBe(0);
    expect(history.undo(history.amend(h, 9)).present).toBe(0);
  });

  it("trims the oldest", () => {
    const h = [1, 2, 3].reduce((all, n) => history.push(all, n), history.start(0));
    const [kept, dropped] = history.trim(h, 2);
    expect(dropped).toEqual([0]);
    expect(kept.past).toEqual([1, 2]);
    expect(kept.present).toBe(3);
  });
});

describe("view", () => {
  const view = { scale: 2, x: 10, y: -4 };
  it("maps there and back", () => {
    expect(toScreen(view, toPhoto(view, [31, 17]))).toEqual([31, 17]);
  });
  it("zooms around the pointer", () => {
    const closer = zoom(view, 3, [50, 60], 0.1);
    expect(closer.scale).toBe(6);
    const [before, after] = [toPhoto(view, [50, 60]), toPhoto(closer, [50, 60])];
    expect(after[0]).toBeCloseTo(before[0]);
    expect(after[1]).toBeCloseTo(before[1]);
    expect(zoom(view, 1e-6, [0, 0], 0.5).scale).toBe(0.5);
  });
  it("fits the photo in the middle", () => {
    const v = fit({ width: 400, height: 100 }, { width: 232, height: 232 }, 16);
    expect(v).toEqual({ scale: 0.5, x: 16, y: 91 });
  });
  it("keeps some of the photo in sight", () => {
    const lost = keepInSight({ scale: 1, x: 5000, y: -5000 }, { width: 100, height: 100 }, { width: 300, height: 200 });
    expect(lost).toEqual({ scale: 1, x: 252, y: -52 });
  });
  it("pinches", () => {
    const v = pinch({ scale: 1, x: 0, y: 0 }, [[0, 0], [10, 0]], [[5, 5], [25, 5]], 0.1);
    expect(v.scale).toBe(2);
    expect(toScreen(v, [5, 0])).toEqual([15, 5]);
  });
});

describe("log", () => {
  const good = { version: 1, image: "sha256:0", events: [{ event: "round", objects: [{ id: 1, prompts: [{ type: "click", x: 1, y: 2 }] }] }, { event: "undo" }] };
  it("reads what it should", () => expect(parseLog(JSON.stringify(good))).toEqual(good));
  it.each([
    ["{", /JSON/],
    ["[]", /version/],
    [JSON.stringify({ ...good, version: 2 }), /version/],
    [JSON.stringify({ ...good, events: [{ event: "round", objects: [] }] }), /events\[0\]/],
    [JSON.stringify({ ...good, events: [{ event: "undo" }, { event: "set", objects: [{ id: 1, rle: {} }] }] }), /events\[1\]/],
  ])("says what is wrong: %s", (text, message) => expect(() => parseLog(text)).toThrow(message));
});
