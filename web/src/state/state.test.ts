import { describe, expect, it } from "vitest";
import { encodeRle, emptyMask, type Mask } from "../core/rle";
import { Doc } from "./doc";
import { en, t, zh } from "./i18n";
import { finalOf, finalRle, newObject, shapeOf } from "./objects";
import { language } from "./settings";
import * as storage from "./storage";
import { givenIds } from "./video";

function disk(width: number, height: number, radius: number, hole = 0): Mask {
  const mask = emptyMask(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const d = Math.hypot(x + 0.5 - width / 2, y + 0.5 - height / 2);
      if (d < radius && d >= hole) mask.data[y * width + x] = 1;
    }
  }
  return mask;
}

const RLE = encodeRle(disk(60, 40, 15, 3));
const make = (): Doc => new Doc("key", "a.jpg", 60, 40, new Blob(["photo"]));
const round = (id: number) => ({ event: "round" as const, objects: [{ id, prompts: [{ type: "click" as const, x: 1, y: 2 }] }] });

describe("objects", () => {
  it("have the mask as it was made while no knob is turned", () => {
    const shape = shapeOf(RLE);
    expect(finalRle(shape)).toBe(RLE);
    expect(finalOf(shape).corners).toEqual([]);
  });

  it("lose holes and corners by the knobs", () => {
    const before = finalOf(shapeOf(RLE)).area;
    expect(finalOf({ ...shapeOf(RLE), holes: 60 }).area).toBeGreaterThan(before + 20);
    const simple = finalOf({ ...shapeOf(RLE), holes: 60, tolerance: 2 });
    expect(simple.corners).toHaveLength(1);
    expect(simple.corners[0]!.length).toBeLessThan(16);
    expect(finalRle({ ...shapeOf(RLE), tolerance: 2 })).not.toEqual(RLE);
  });

  it("are what a moved outline says", () => {
    const square = { ...shapeOf(RLE), outline: [[[1, 1], [11, 1], [11, 6], [1, 6]]] as [number, number][][] };
    expect(finalOf(square)).toMatchObject({ area: 50, box: [1, 1, 11, 6] });
  });

  it("keep their knobs from round to round, but not a moved outline", () => {
    const before = { ...shapeOf(RLE), holes: 7, tolerance: 1, outline: [] };
    expect(shapeOf(RLE, before)).toMatchObject({ holes: 7, tolerance: 1, outline: null });
  });
});

describe("a photo", () => {
  it("undoes, redoes, and keeps the selection sensible", () => {
    const doc = make();
    doc.put(newObject(doc.newId(), RLE), round(1));
    doc.put(newObject(doc.newId(), RLE), round(2));
    doc.selected.value = 2;
    doc.undo();
    expect(doc.objects.value.map((o) => o.id)).toEqual([1]);
    expect(doc.selected.value).toBe(1);
    doc.redo();
    expect(doc.objects.value.map((o) => o.id)).toEqual([1, 2]);
    doc.remove(1);
    expect(doc.find(1)).toBeUndefined();
    expect(doc.newId()).toBe(3); // a number is never used twice
  });

  it("takes a finer mask into every step that has the mask it is finer than, and into no other", () => {
    const doc = make();
    const coarse = newObject(doc.newId(), RLE);
    doc.put(coarse, round(1));
    doc.put({ ...coarse, name: "dog" }, null);
    const finer = shapeOf(encodeRle(disk(60, 40, 16)));
    doc.refine(1, coarse.shape, { shape: finer, memory: "m2" });
    expect(doc.find(1)).toMatchObject({ shape: finer, memory: "m2", name: "dog" });
    doc.undo();
    expect(doc.find(1)).toMatchObject({ shape: finer, name: "" });
    doc.refine(1, coarse.shape, { shape: coarse.shape }); // it comes too late: the mask is another by now
    expect(doc.has(1, finer)).toBe(true);
    doc.redo();
    expect(doc.has(1, finer)).toBe(true);
    expect(doc.log().events).toEqual([round(1)]);
  });

  it("tells in its log what led to the present, however long ago, and nothing that was undone", () => {
    const doc = make();
    doc.digest.value = "sha256:0";
    for (let id = 1; id <= 130; id++) doc.put(newObject(id, RLE), round(id));
    doc.put(newObject(1, RLE), null); // a new name is no event
    doc.undo();
    doc.undo();
    const log = doc.log();
    expect(log.events).toHaveLength(129);
    expect(log.events[0]).toEqual(round(1));
    expect(doc.history.value.past.length).toBeLessThanOrEqual(100);
  });

  it("comes back from its record, without handles of a decoder that is gone", () => {
    const doc = make();
    doc.put({ ...newObject(doc.newId(), RLE), memory: "handle", name: "dog" }, round(1));
    doc.put({ ...newObject(doc.newId(), RLE), memory: "other" }, round(2));
    const again = Doc.fromRecord(structuredClone(doc.toRecord()), new Blob());
    expect(again.objects.value.map((o) => [o.id, o.memory])).toEqual([[1, null], [2, null]]);
    expect(again.find(1)?.name).toBe("dog");
    expect(again.log()).toEqual(doc.log());
    again.undo();
    expect(again.objects.value).toHaveLength(1);
    expect(again.newId()).toBe(3);
  });

  it("runs rounds one after another, also after one that failed", async () => {
    const doc = make();
    const order: number[] = [];
    const slow = doc.enqueue(async () => {
      await new Promise((done) => setTimeout(done, 5));
      order.push(1);
      throw new Error("no");
    });
    const fast = doc.enqueue(() => Promise.resolve(order.push(2)));
    expect(doc.pending.value).toBe(2);
    await expect(slow).rejects.toThrow("no");
    await fast;
    expect(order).toEqual([1, 2]);
    expect(doc.pending.value).toBe(0);
  });

  it("knows what the user gave on it", () => {
    const doc = make();
    doc.put(newObject(4, RLE), null); // tracked
    doc.put(newObject(5, RLE), round(5));
    expect([...givenIds(doc)]).toEqual([5]);
    doc.undo();
    expect(givenIds(doc).size).toBe(0);
  });
});

describe("storage", () => {
  it("gives back what it got", async () => {
    const doc = make();
    doc.put(newObject(1, RLE), round(1));
    await storage.saveDoc(doc.toRecord());
    await storage.saveProject({ items: [{ kind: "image", key: "key" }], active: "key" });
    expect(await storage.loadDoc("key")).toEqual(doc.toRecord());
    expect((await storage.loadProject()).active).toBe("key");
    await storage.drop("key");
    expect(await storage.loadDoc("key")).toBeUndefined();
  });

  it("keeps the scenes that were used last", async () => {
    for (let n = 0; n < 30; n++) {
      await storage.saveScene(`scene ${n}`, new ArrayBuffer(n));
      await new Promise((done) => setTimeout(done, 2)); // the clock has milliseconds
      if (n > 0) await storage.loadScene("scene 0");
    }
    expect((await storage.loadScene("scene 29"))?.byteLength).toBe(29);
    expect(await storage.loadScene("scene 1")).toBeUndefined();
    expect(await storage.loadScene("scene 0")).toBeDefined();
  });
});

describe("words", () => {
  const holes = (text: string): string[] => [...text.matchAll(/\{\w+\}/g)].map(String).sort();
  it.each(Object.keys(en) as (keyof typeof en)[])("%s says the same in both languages", (key) => {
    expect(zh[key].trim()).not.toBe("");
    expect(holes(zh[key])).toEqual(holes(en[key]));
  });

  it("are filled in", () => {
    language.value = "en";
    expect(t("frameOf", { n: 2, all: 9 })).toBe("Frame 2 of 9");
    language.value = "zh";
    expect(t("frameOf", { n: 2, all: 9 })).toBe("第 2 帧,共 9 帧");
    language.value = "en";
  });
});
