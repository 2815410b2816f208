/**
 * Prompts in pixels of the photo -> the arrays that the decoder's graphs take: the counterpart of
 * `seem.predict.encoding`, `seem.prompts.check` and `SEEM.batch`.
 */

import { decodeRle } from "../core/rle";
import {
  alongLine,
  clipPolygon,
  clipPolyline,
  fillPolygon,
  interiorPoints,
  shrinkMask,
  spansArea,
  type Grid,
  type Size,
} from "./geometry";
import type { SceneFile } from "./scene";
import { DecoderError, type DecodeObject, type Point, type Prompt, type Rle, type VisualPrompt } from "./types";

const MAX_PROMPTS = 1000;
const MAX_POINTS = 10_000;
const STRIDE = 4;
export const NONE = -1;
const [NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT] = [0, 1, 2, 3] as const;

/** What decoder.json says of the model. */
export interface Constants {
  dim: number;
  joint_dim: number;
  /** points that one prompt contributes at most */
  max_points: number;
  mask_logit: number;
  /** rows of an object that remembers */
  memory_tokens: number;
}

/** An embedded phrase: what POST /v1/text gives for it. */
export interface Phrase {
  sentence: Float32Array;
  /** word tokens, one row after the other */
  tokens: Float32Array;
}

/** An embedded region of another image. */
export interface Region {
  tokens: Float32Array;
  embedding: Float32Array;
}

/** What is known of texts and references that prompts name. */
export interface Known {
  phrase(text: string): Phrase;
  region(prompt: Prompt & { type: "reference" }): Region;
}

/** One object, ready for the decoder. Coordinates are pixels of the encoded image; maps are cells of stride 4. */
export interface Encoded {
  points: Point[];
  kinds: number[];
  drawn: Float32Array | null;
  previous: Float32Array | null;
  /** rows of extra tokens: words, then references */
  tokens: Float32Array[];
  text: Float32Array | null;
  references: Float32Array[];
}

/** White space as the text encoder reads it. */
export function phraseOf(text: string): string {
  return text.split(/\s+/u).filter(Boolean).join(" ");
}

export function referenceKey(prompt: Prompt & { type: "reference" }): string {
  return JSON.stringify([prompt.image, prompt.prompt]);
}

export function maskSize(scene: SceneFile): Size {
  return { width: Math.ceil(scene.encoded.width / STRIDE), height: Math.ceil(scene.encoded.height / STRIDE) };
}

/** Checks one object's prompts and maps them to the encoded image. Throws a DecoderError that names what is wrong. */
export function encodeObject(
  object: DecodeObject,
  scene: SceneFile,
  constants: Constants,
  known: Known,
  memory: (handle: string) => Float32Array,
): Encoded {
  const { prompts } = object;
  if (prompts.length === 0 || prompts.length > MAX_PROMPTS) {
    throw invalid(`object ${object.id}`, `1 to ${MAX_PROMPTS} prompts`, prompts.length);
  }
  const previous = object.previous == null ? null : previousLogits(object.previous, scene, constants, memory);
  if (!previous && prompts.every((p) => "positive" in p && p.positive === false)) {
    throw invalid(`object ${object.id}`, "a positive prompt, or previous", "only negative ones");
  }
  const visual: Visual[] = [];
  const out: Encoded = { points: [], kinds: [], drawn: null, previous, tokens: [], text: null, references: [] };
  const sentences: Float32Array[] = [];
  const regions: Region[] = [];
  for (const prompt of prompts) {
    if (prompt.type === "text") {
      if (phraseOf(prompt.text) === "") throw invalid("text", "a phrase", JSON.stringify(prompt.text));
      const phrase = known.phrase(phraseOf(prompt.text));
      sentences.push(phrase.sentence);
      out.tokens.push(...rows(phrase.tokens, constants.dim));
    } else if (prompt.type === "reference") {
      regions.push(known.region(prompt));
    } else {
      visual.push(...visualPrompts(prompt, scene));
    }
  }
  for (const region of regions) {
    out.tokens.push(...rows(region.tokens, constants.dim));
    out.references.push(region.embedding);
  }
  if (sentences.length > 0) out.text = mean(sentences);
  for (const item of visual) addPoints(item, scene.encoded, constants.max_points, out);
  out.drawn = densePrompt(visual, scene.encoded, constants.mask_logit);
  return out;
}

// ---- spatial prompts ------------------------------------------------------------------------------------------------

/** `VisualPrompt` of Python: in continuous pixels of the encoded image. */
interface Visual {
  kind: "click" | "box" | "scribble" | "polygon" | "mask";
  positive: boolean;
  points: Point[];
  /** the inside of a polygon or mask at the encoded size */
  region: Grid | null;
}

function visualPrompts(prompt: VisualPrompt, scene: SceneFile): Visual[] {
  const { original, encoded } = scene;
  const scale = [encoded.width / original.width, encoded.height / original.height] as const;
  const toEncoded = ([x, y]: Point): Point => [Math.fround(x * scale[0]), Math.fround(y * scale[1])];
  const image = `the image of ${original.width}x${original.height}`;
  const positive = !("positive" in prompt) || prompt.positive !== false;
  switch (prompt.type) {
    case "click": {
      const { x, y } = prompt;
      if (!(x >= 0 && x < original.width && y >= 0 && y < original.height)) {
        throw invalid("click", `a pixel of ${image}`, `(${x}, ${y})`);
      }
      const points = [toEncoded([Math.floor(x) + 0.5, Math.floor(y) + 0.5])];
      return [{ kind: "click", positive, points, region: null }];
    }
    case "box": {
      const [x0, y0, x1, y1] = prompt.xyxy;
      const [a, b] = [Math.max(x0, 0), Math.max(y0, 0)];
      const [c, d] = [Math.min(x1, original.width), Math.min(y1, original.height)];
      if (!(a < c && b < d)) throw invalid("box", `a box that overlaps ${image}`, String(prompt.xyxy));
      return [{ kind: "box", positive: true, points: [toEncoded([a, b]), toEncoded([c, d])], region: null }];
    }
    case "scribble": {
      checkPoints("scribble", prompt.points, 1);
      const pieces = clipPolyline(prompt.points, original);
      if (pieces.length === 0) throw invalid("scribble", `a line that enters ${image}`, "none of it inside");
      return pieces.map((piece) => ({ kind: "scribble", positive, points: piece.map(toEncoded), region: null }));
    }
    case "polygon": {
      checkPoints("polygon", prompt.points, 3);
      const inside = clipPolygon(prompt.points, original);
      if (!spansArea(inside)) throw invalid("polygon", `a polygon that overlaps ${image}`, "none of it inside");
      const points = inside.map(toEncoded);
      return [{ kind: "polygon", positive, points, region: fillPolygon(points, encoded) }];
    }
    case "mask":
      return [{ kind: "mask", positive: true, points: [], region: encodedMask("mask", prompt.rle, scene) }];
  }
}

function checkPoints(name: string, points: readonly Point[], least: number): void {
  const bad = points.some(([x, y]) => !Number.isFinite(x) || !Number.isFinite(y));
  if (bad || points.length < least || points.length > MAX_POINTS) {
    throw invalid(`${name}.points`, `${least} to ${MAX_POINTS} finite points`, bad ? "others" : points.length);
  }
}

function encodedMask(name: string, rle: Rle, scene: SceneFile): Grid {
  const { width, height } = scene.original;
  if (rle.size[0] !== height || rle.size[1] !== width) {
    throw invalid(name, `a mask of ${width}x${height}`, `${rle.size[1]}x${rle.size[0]}`);
  }
  let mask: Grid;
  try {
    mask = decodeRle(rle);
  } catch (error) {
    throw new DecoderError("invalid", `${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!mask.data.includes(1)) throw invalid(name, "at least one pixel inside", "an empty mask");
  return shrinkMask(mask, scene.encoded);
}

function addPoints(item: Visual, encoded: Size, count: number, out: Encoded): void {
  let { points } = item;
  if (item.kind === "box") {
    out.points.push(...points);
    out.kinds.push(TOP_LEFT, BOTTOM_RIGHT);
    return;
  }
  if (item.kind === "scribble") points = alongLine(points, count);
  if (item.region) {
    const inside = interiorPoints({ ...item.region, ...encoded }, Math.floor(count / 2));
    points = inside.length > 0 ? inside : points.slice(0, 1);
  }
  out.points.push(...points);
  out.kinds.push(...points.map(() => (item.positive ? POSITIVE : NEGATIVE)));
}

/** Polygons and masks as one map of logits at stride 4, or null if none of them is positive. */
function densePrompt(items: readonly Visual[], encoded: Size, logit: number): Float32Array | null {
  const regions = items.filter((item) => item.region !== null);
  if (!regions.some((item) => item.positive)) return null;
  const signs = new Int8Array(encoded.width * encoded.height).fill(-1);
  for (const positive of [true, false]) {
    for (const item of regions) {
      if (item.positive !== positive) continue;
      item.region!.data.forEach((value, i) => {
        if (value !== 0) signs[i] = positive ? 1 : -1;
      });
    }
  }
  return poolSigns(signs, encoded, logit);
}

function poolSigns(signs: Int8Array, encoded: Size, logit: number): Float32Array {
  const [w, h] = [Math.ceil(encoded.width / STRIDE), Math.ceil(encoded.height / STRIDE)];
  const sums = new Int32Array(w * h).fill(-STRIDE * STRIDE); // beyond the image it is outside
  for (let y = 0, i = 0; y < encoded.height; y++) {
    const row = Math.floor(y / STRIDE) * w;
    for (let x = 0; x < encoded.width; x++, i++) if (signs[i] === 1) sums[row + (x >> 2)]! += 2;
  }
  return Float32Array.from(sums, (sum) => (sum / (STRIDE * STRIDE)) * logit);
}

function previousLogits(
  previous: NonNullable<DecodeObject["previous"]>,
  scene: SceneFile,
  constants: Constants,
  memory: (handle: string) => Float32Array,
): Float32Array {
  if (typeof previous === "string") return memory(previous);
  const { data } = encodedMask("previous", previous.rle, scene);
  return poolSigns(Int8Array.from(data, (v) => (v === 0 ? -1 : 1)), scene.encoded, constants.mask_logit);
}

// ---- several objects as arrays --------------------------------------------------------------------------------------

/** Inputs of the graphs by name; what is not there is zeros, and flags say so. */
export interface Batch {
  count: number;
  /** whether any object has a drawn map, memory, text or reference: then the graph "maps" is needed */
  needsMaps: boolean;
  pointCount: number;
  tokenCount: number;
  referenceCount: number;
  points: Float32Array;
  kinds: Int32Array;
  tokens: Float32Array;
  has_token: Float32Array;
  drawn: Float32Array;
  has_drawn: Float32Array;
  previous: Float32Array;
  has_previous: Float32Array;
  text: Float32Array;
  has_text: Float32Array;
  references: Float32Array;
  has_reference: Float32Array;
}

export function batch(objects: readonly Encoded[], scene: SceneFile, constants: Constants): Batch {
  const n = objects.length;
  const { dim, joint_dim: joint } = constants;
  const [w4, h4] = [scene.padded.width / STRIDE, scene.padded.height / STRIDE];
  const cells = maskSize(scene);
  const longest = (lengths: number[]): number => Math.max(1, ...lengths);
  const pointCount = longest(objects.map((o) => o.points.length));
  const tokenCount = longest(objects.map((o) => o.tokens.length));
  const referenceCount = longest(objects.map((o) => o.references.length));
  const out: Batch = {
    count: n,
    needsMaps: objects.some((o) => o.drawn !== null || o.previous !== null || o.text !== null || o.references.length > 0),
    pointCount,
    tokenCount,
    referenceCount,
    points: new Float32Array(n * pointCount * 2),
    kinds: new Int32Array(n * pointCount).fill(NONE),
    tokens: new Float32Array(n * tokenCount * dim),
    has_token: new Float32Array(n * tokenCount),
    drawn: new Float32Array(n * h4 * w4),
    has_drawn: new Float32Array(n),
    previous: new Float32Array(n * h4 * w4),
    has_previous: new Float32Array(n),
    text: new Float32Array(n * joint),
    has_text: new Float32Array(n),
    references: new Float32Array(n * referenceCount * joint),
    has_reference: new Float32Array(n * referenceCount),
  };
  objects.forEach((object, i) => {
    out.points.set(object.points.flat(), i * pointCount * 2);
    out.kinds.set(object.kinds, i * pointCount);
    object.tokens.forEach((row, t) => {
      out.tokens.set(row, (i * tokenCount + t) * dim);
      out.has_token[i * tokenCount + t] = 1;
    });
    object.references.forEach((row, r) => {
      out.references.set(row, (i * referenceCount + r) * joint);
      out.has_reference[i * referenceCount + r] = 1;
    });
    if (object.text) {
      out.text.set(object.text, i * joint);
      out.has_text[i] = 1;
    }
    for (const name of ["drawn", "previous"] as const) {
      const map = object[name];
      if (!map) continue;
      for (let y = 0; y < cells.height; y++) {
        out[name].set(map.subarray(y * cells.width, (y + 1) * cells.width), (i * h4 + y) * w4);
      }
      out[`has_${name}`][i] = 1;
    }
  });
  return out;
}

// ---- values ---------------------------------------------------------------------------------------------------------

function rows(flat: Float32Array, width: number): Float32Array[] {
  return Array.from({ length: flat.length / width }, (_, i) => flat.subarray(i * width, (i + 1) * width));
}

function mean(vectors: readonly Float32Array[]): Float32Array {
  return vectors[0]!.map((_, i) => vectors.reduce((sum, v) => sum + v[i]!, 0) / vectors.length);
}

function invalid(name: string, expected: string, got: string | number): DecoderError {
  return new DecoderError("invalid", `${name}: expected ${expected}, got ${got}`);
}
