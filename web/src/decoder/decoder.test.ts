import { describe, expect, it } from "vitest";
import { encodeRle } from "../core/rle";
import { batch, encodeObject, phraseOf, type Constants, type Known } from "./encode";
import { alongLine, clipPolygon, clipPolyline, enlarge, evenSubset, fillPolygon, interiorPoints, roundEven, shrinkMask, spansArea } from "./geometry";
import { parseScene, type SceneFile } from "./scene";
import { parseTensors } from "./tensors";
import { DecoderError, type DecodeObject, type Point, type Prompt } from "./types";

const rows = (data: Uint8Array, width: number): string[] =>
  Array.from({ length: data.length / width }, (_, y) => [...data.subarray(y * width, (y + 1) * width)].map((v) => ".#"[v]!).join(""));
const grid = (...lines: string[]) => ({
  width: lines[0]!.length,
  height: lines.length,
  data: Uint8Array.from(lines.join(""), (c) => (c === "#" ? 1 : 0)),
});

describe("geometry, as Python has it", () => {
  it("rounds halves to even", () => {
    expect([0.5, 1.5, 2.5, 2.4999, 3].map(roundEven)).toEqual([0, 2, 2, 2, 3]);
  });

  it("fills polygons with the pixels that Pillow draws", () => {
    expect(rows(fillPolygon([[1.5, 1.5], [6.5, 1.5], [6.5, 4.5], [1.5, 4.5]], { width: 8, height: 6 }).data, 8)).toEqual([
      "........",
      ".######.",
      ".######.",
      ".######.",
      ".######.",
      "........",
    ]);
    const triangle = fillPolygon([[3, 1.5], [20.5, 7.5], [9.5, 21.5]], { width: 24, height: 24 });
    expect(rows(triangle.data, 24).slice(1, 5)).toEqual([
      "..#.....................",
      "..####..................",
      "...######...............",
      "...#########............",
    ]);
  });

  it("clips polygons and lines to the photo", () => {
    const size = { width: 10, height: 10 };
    expect(clipPolygon([[-5, 2], [5, 2], [5, 8], [-5, 8]], size)).toEqual([[0, 2], [5, 2], [5, 8], [0, 8]]);
    expect(clipPolygon([[20, 2], [30, 2], [30, 8]], size)).toEqual([]);
    expect(clipPolyline([[-5, 5], [15, 5], [15, 8], [5, 8]], size)).toEqual([[[0, 5], [10, 5]], [[10, 8], [5, 8]]]);
    expect(clipPolyline([[11, 11]], size)).toEqual([]);
    expect(spansArea([[0, 0], [1, 1], [2, 2]])).toBe(false);
    expect(spansArea([[0, 0], [1, 1], [2, 0]])).toBe(true);
  });

  it("spreads points evenly", () => {
    expect(evenSubset([0, 1, 2, 3, 4, 5, 6], 4)).toEqual([0, 2, 4, 6]);
    expect(alongLine([[0, 0], [20, 0]], 32)).toEqual([[0, 0], [5, 0], [10, 0], [15, 0], [20, 0]]);
    expect(alongLine([[3, 4]], 32)).toEqual([[3, 4]]);
    expect(interiorPoints(grid("####", "####", "####", "####"), 4)).toEqual([[0.5, 1.5], [2.5, 1.5], [0.5, 3.5], [2.5, 3.5]]);
    expect(interiorPoints(grid("...."), 4)).toEqual([]);
  });

  it("shrinks masks by cover, and never to nothing", () => {
    expect(rows(shrinkMask(grid("##..", "##..", "....", "...."), { width: 2, height: 2 }).data, 2)).toEqual(["#.", ".."]);
    expect(rows(shrinkMask(grid("....", "....", "....", "...#"), { width: 2, height: 2 }).data, 2)).toEqual(["..", ".#"]);
  });

  it("enlarges logits bilinearly and leaves out what lies beyond the photo", () => {
    const out = new Uint8Array(8 * 4);
    enlarge(Float32Array.of(1, -1, 1, -1), { width: 2, height: 2 }, { width: 8, height: 7 }, { width: 8, height: 4 }, out);
    expect(rows(out, 8)).toEqual(["####....", "####....", "####....", "####...."]);
  });
});

describe("files", () => {
  const file = (header: object, body: number): ArrayBuffer => {
    const text = new TextEncoder().encode(JSON.stringify(header));
    const bytes = new Uint8Array(8 + text.length + body);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
    bytes.set(text, 8);
    return bytes.buffer;
  };

  it("reads half precision", () => {
    const bytes = file({ x: { dtype: "F16", shape: [4], data_offsets: [0, 8] } }, 8);
    new Uint16Array(bytes.slice(0)); // alignment must not matter
    const view = new DataView(bytes, bytes.byteLength - 8);
    [0x3c00, 0xc000, 0x0001, 0x7bff].forEach((bits, i) => view.setUint16(2 * i, bits, true));
    expect([...parseTensors(bytes, "file").tensors.get("x")!.data]).toEqual([1, -2, 2 ** -24, 65504]);
  });

  it.each([
    ["nothing", new ArrayBuffer(3)],
    ["a length beyond the end", new Uint8Array([255, 255, 0, 0, 0, 0, 0, 0, 1]).buffer],
    ["no JSON", new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0, 65]).buffer],
    ["a tensor beyond the end", file({ x: { dtype: "F32", shape: [4], data_offsets: [0, 16] } }, 4)],
    ["a strange type", file({ x: { dtype: "F8", shape: [4], data_offsets: [0, 4] } }, 4)],
  ])("refuses %s", (_, bytes) => {
    expect(() => parseTensors(bytes, "file")).toThrow(DecoderError);
  });

  it("refuses a scene without a header", () => {
    expect(() => parseScene(file({}, 0))).toThrow(/no scene header/);
  });
});

describe("prompts", () => {
  const constants: Constants = { dim: 2, joint_dim: 3, max_points: 32, mask_logit: 8, memory_tokens: 8 };
  const scene: SceneFile = {
    image: "",
    weights: "",
    original: { width: 100, height: 60 },
    encoded: { width: 50, height: 30 },
    padded: { width: 64, height: 32 },
    maps: {} as SceneFile["maps"],
  };
  const known: Known = {
    phrase: (text) => ({ sentence: Float32Array.of(text.length, 0, 0), tokens: Float32Array.of(1, 2, 3, 4) }),
    region: () => ({ tokens: Float32Array.of(5, 6), embedding: Float32Array.of(7, 8, 9) }),
  };
  const encode = (prompts: Prompt[], previous: DecodeObject["previous"] = null) =>
    encodeObject({ id: 1, prompts, previous }, scene, constants, known, () => new Float32Array(13 * 8).fill(2));

  it("maps clicks and boxes to the encoded image", () => {
    const found = encode([
      { type: "click", x: 10.7, y: 20, positive: false },
      { type: "box", xyxy: [-4, 0, 40, 99] },
    ]);
    expect(found.points).toEqual([[5.25, 10.25], [0, 0], [20, 30]]);
    expect(found.kinds).toEqual([0, 2, 3]);
    expect(found.drawn).toBeNull();
  });

  it("turns polygons into points and a map, in which holes win", () => {
    const square = (a: number, b: number): Point[] => [[a, a], [b, a], [b, b], [a, b]];
    const found = encode([
      { type: "polygon", points: square(8, 40) },
      { type: "polygon", points: square(17, 31), positive: false },
    ]);
    expect(found.drawn).toHaveLength(13 * 8);
    expect(found.drawn![1 * 13 + 1]).toBe(8);
    expect(found.drawn![2 * 13 + 2]).toBe(-8);
    expect(found.drawn![7 * 13 + 12]).toBe(-8);
    expect(new Set(found.kinds)).toEqual(new Set([0, 1]));
  });

  it("reads masks, as a prompt and as memory", () => {
    const data = new Uint8Array(100 * 60);
    for (let y = 0; y < 16; y++) data.fill(1, y * 100, y * 100 + 8);
    const rle = encodeRle({ width: 100, height: 60, data });
    const found = encode([{ type: "mask", rle }], { rle });
    expect(Array.from(found.drawn!)).toEqual(Array.from(found.previous!));
    expect([found.drawn![0], found.drawn![13], found.drawn![26], found.drawn![1]]).toEqual([8, 8, -8, -8]);
    expect(encode([{ type: "click", x: 0, y: 0, positive: false }], "m1").previous![0]).toBe(2);
  });

  it("collects words and references", () => {
    const found = encode([
      { type: "text", text: " a   b " },
      { type: "text", text: "abcde" },
      { type: "reference", image: "sha256:0", prompt: { type: "click", x: 1, y: 1 } },
    ]);
    expect(phraseOf(" a \n b ")).toBe("a b");
    expect(found.tokens.map((row) => [...row])).toEqual([[1, 2], [3, 4], [1, 2], [3, 4], [5, 6]]);
    expect([...found.text!]).toEqual([4, 0, 0]);
    expect(found.references.map((row) => [...row])).toEqual([[7, 8, 9]]);
  });

  it("fills objects up to the same lengths and says what is there", () => {
    const click: Prompt = { type: "click", x: 1, y: 1 };
    const b = batch([encode([click, click]), encode([{ type: "text", text: "x" }], "m1")], scene, constants);
    expect([...b.kinds]).toEqual([1, 1, -1, -1]);
    expect([...b.has_token]).toEqual([0, 0, 1, 1]);
    expect([[...b.has_text], [...b.has_previous], [...b.has_drawn], [...b.has_reference]]).toEqual([[0, 1], [0, 1], [0, 0], [0, 0]]);
    expect(b.needsMaps).toBe(true);
    expect(b.previous[16 * 8 + 12]).toBe(2);
    expect(b.previous[16 * 8 + 13]).toBe(0); // beyond the image
    expect(batch([encode([click])], scene, constants).needsMaps).toBe(false);
  });

  it.each<[string, Prompt[], RegExp]>([
    ["no prompt", [], /1 to 1000 prompts/],
    ["only negative ones", [{ type: "click", x: 1, y: 1, positive: false }], /only negative/],
    ["a click outside", [{ type: "click", x: 100, y: 1 }], /click: expected a pixel/],
    ["a click nowhere", [{ type: "click", x: NaN, y: 1 }], /click/],
    ["a box outside", [{ type: "box", xyxy: [100, 0, 120, 10] }], /box/],
    ["an empty scribble", [{ type: "scribble", points: [] }], /scribble.points/],
    ["a scribble outside", [{ type: "scribble", points: [[-9, -9], [-1, -5]] }], /scribble/],
    ["a flat polygon", [{ type: "polygon", points: [[1, 1], [2, 2], [3, 3]] }], /polygon/],
    ["an infinite polygon", [{ type: "polygon", points: [[1, 1], [2, Infinity], [3, 3]] }], /polygon.points/],
    ["a mask of another size", [{ type: "mask", rle: { size: [2, 2], counts: [4] } }], /mask of 100x60/],
    ["an empty mask", [{ type: "mask", rle: { size: [60, 100], counts: [6000] } }], /at least one pixel/],
    ["broken runs", [{ type: "mask", rle: { size: [60, 100], counts: [1, 2] } }], /mask: /],
    ["an empty text", [{ type: "text", text: "  " }], /text/],
  ])("refuses %s", (_, prompts, message) => {
    expect(() => encode(prompts)).toThrow(message);
  });
});
