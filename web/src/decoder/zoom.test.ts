import { describe, expect, it } from "vitest";
import { extent } from "../core/rle";
import { enlarge } from "./geometry";
import type { Prompt, Window } from "./types";
import expected from "./zoom.json";
import { agreement, isCut, near, seenFrom, square, zoomIn, type Memory, type Seen } from "./zoom";

type Disk = [number, number, number];

const TARGET = 160; // of the encoded image's longer side

function encodedSize(width: number, height: number) {
  const factor = TARGET / Math.max(width, height);
  const side = (v: number): number => Math.max(1, Math.floor(v * factor + 0.5));
  return { width: side(width), height: side(height) };
}

/** What tests/predict/test_zoomed_photo.py has a network see: a disk, from -20 to 20. */
function see(window: Window, [x, y, radius]: Disk): Seen {
  const size = { width: window[2] - window[0], height: window[3] - window[1] };
  const encoded = encodedSize(size.width, size.height);
  const [dx, dy] = [4 / (encoded.width / size.width), 4 / (encoded.height / size.height)];
  const [columns, rows] = [Math.ceil(encoded.width / 4), Math.ceil(encoded.height / 4)];
  const logits = Float32Array.from({ length: columns * rows }, (_, i) => {
    const [cx, cy] = [window[0] + ((i % columns) + 0.5) * dx, window[1] + (Math.floor(i / columns) + 0.5) * dy];
    return Math.min(20, Math.max(-20, radius - Math.hypot(cx - x, cy - y)));
  });
  return { window, encoded, logits, box: null };
}

function checksum(logits: Float32Array): number {
  return logits.reduce((sum, v, i) => sum + (v * i) / logits.length, 0) / logits.length;
}

describe("zooming in goes where Python goes", () => {
  it.each(expected)("$name", async (journey) => {
    const [width, height] = journey.photo as [number, number];
    const whole: Window = [0, 0, width, height];
    const photo = { size: { width, height }, encoded: encodedSize(width, height) };
    let before: Seen | null = null;
    for (const [n, prompts] of journey.rounds.entries()) {
      const told = journey.expected[n]!;
      const looks: { window: Window; prompts: Prompt[]; memory: number | null }[] = [];
      const look = (window: Window, local: Prompt[], memory: Memory | null): Promise<Seen> => {
        const seen = see(window, (window.join() === whole.join() ? journey.disk : (journey.closer ?? journey.disk)) as Disk);
        const read = memory && "window" in memory ? checksum(seenFrom(memory, window, seen.encoded)) : null;
        looks.push({ window, prompts: local, memory: read });
        seen.box = boxOf(seen);
        return Promise.resolve(seen);
      };
      const { found, wants }: { found: Seen | null; wants: Window | null } = await zoomIn(prompts as Prompt[], before, photo, look);
      expect(wants).toBeNull();
      expect(looks.map((l) => l.window)).toEqual(told.journey.map((l) => l.window));
      looks.forEach((l, i) => {
        const there = told.journey[i]!;
        expect(l.prompts).toMatchObject(there.prompts);
        if (there.memory === null) expect(l.memory).toBeNull();
        else expect(l.memory).toBeCloseTo(there.memory, 2);
      });
      expect(found!.window).toEqual(told.window);
      expect(found!.box).toEqual(told.box);
      before = found;
    }
  });
});

/** Of the mask at the photo's pixels. */
function boxOf({ window, encoded, logits }: Seen): Window | null {
  const [w, h] = [window[2] - window[0], window[3] - window[1]];
  const mask = new Uint8Array(w * h);
  enlarge(logits, { width: Math.ceil(encoded.width / 4), height: Math.ceil(encoded.height / 4) }, encoded, { width: w, height: h }, mask);
  const { box } = extent({ width: w, height: h, data: mask });
  return box && [box[0] + window[0], box[1] + window[1], box[2] + window[0], box[3] + window[1]];
}

describe("a window that is not here", () => {
  const photo = { size: { width: 640, height: 480 }, encoded: { width: 160, height: 120 } };
  const box: Prompt[] = [{ type: "box", xyxy: [100, 90, 200, 190] }];
  const whole: Window = [0, 0, 640, 480];
  const onlyWhole = (window: Window): Promise<Seen | null> => {
    const seen = see(window, [150, 140, 50]);
    return Promise.resolve(window[2] === 640 ? { ...seen, box: boxOf(seen) } : null);
  };

  it("is wanted, and what was found so far is there", async () => {
    const { found, wants } = await zoomIn(box, null, photo, onlyWhole);
    expect(found!.window).toEqual(whole);
    expect(wants).toEqual([75, 65, 225, 215]);
  });

  it("may be the first one", async () => {
    const seen = see([75, 65, 225, 215], [150, 140, 50]);
    const { found, wants } = await zoomIn(box, { ...seen, box: boxOf(seen) }, photo, onlyWhole);
    expect(found).toBeNull();
    expect(wants).toEqual([75, 65, 225, 215]);
  });

  it("says so of a mask of another photo", async () => {
    const mask: Prompt[] = [{ type: "mask", rle: { size: [2, 2], counts: [0, 4] } }];
    await expect(zoomIn(mask, null, photo, onlyWhole)).rejects.toMatchObject({ code: "invalid" });
  });
});

describe("windows", () => {
  const photo = { size: { width: 1000, height: 600 }, encoded: { width: 512, height: 307 } };

  it("lie around a box, as far as the photo goes, and are not much less than nothing", () => {
    expect(near([0, 0, 40, 40], [0, 0, 1000, 600], photo)).toEqual([0, 0, 84, 84]); // 128 pixels is the least that is seen
    expect(near([100, 100, 300, 200], [0, 0, 1000, 600], photo)).toEqual([50, 50, 350, 250]);
    expect(near([100, 100, 700, 500], [0, 0, 1000, 600], photo)).toBeNull();
    expect(square([100, 100, 200, 200], 2000, photo)).toEqual([0, 0, 1000, 600]);
    expect(square([960, 10, 1000, 50], 256, photo)).toEqual([744, 0, 1000, 256]);
  });

  it("know what they cut", () => {
    const seen = see([100, 100, 200, 200], [150, 150, 40]);
    expect(isCut(seen, photo.size)).toBe(false);
    expect(isCut(see([100, 100, 200, 200], [150, 150, 60]), photo.size)).toBe(true);
    expect(isCut(see([0, 100, 200, 300], [0, 200, 60]), photo.size)).toBe(false); // the photo ends there
  });

  it("agree where they show the same", () => {
    const small = see([100, 100, 200, 200], [150, 150, 30]);
    expect(agreement(small, see([0, 0, 1000, 600], [150, 150, 30]))).toBeGreaterThan(0.85);
    expect(agreement(small, see([100, 100, 200, 200], [150, 150, 15]))).toBeCloseTo(0.25, 1);
    expect(agreement(small, see([0, 0, 1000, 600], [700, 300, 30]))).toBe(0);
  });
});
