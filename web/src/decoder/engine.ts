/**
 * The decoder itself: scenes and their memories, and the three graphs. It knows nothing of workers or of the network, so
 * it runs in Node too, where the tests compare it with Python.
 */

import type { InferenceSession, Tensor as OrtTensor, TypedTensor } from "onnxruntime-web";
import { batch, encodeObject, maskSize, type Batch, type Constants, type Known } from "./encode";
import { enlarge, type Size } from "./geometry";
import { obeyBoxes, obeyClicks, type BoxCells, type ClickCell } from "./obey";
import { MAPS, parseScene, type SceneFile } from "./scene";
import { parseTensors, tensor } from "./tensors";
import { DecoderError, type DecodedObject, type DecodeObject } from "./types";

const FORMAT = 2;
export const MAX_SCENES = 4; // about 16 MB each once prepared
const MAX_MEMORIES = 512; // of one scene, 64 KB each
const MAX_PASSING = 16; // of previews, which mostly come to nothing
const OBJECTS_PER_RUN = 8; // bounds memory; more objects go in several passes

/** The parts of onnxruntime-web that are used; which build of it is the caller's choice. */
export interface Runtime {
  InferenceSession: { create(model: Uint8Array, options: InferenceSession.SessionOptions): Promise<InferenceSession> };
  Tensor: typeof OrtTensor;
}

/** decoder.json, as far as it is read here. */
export interface Description extends Constants {
  version: number;
  weights: string;
  graphs: Record<string, { inputs: Record<string, { dtype: string; shape: (number | string)[] }> }>;
}

export const GRAPHS = ["prepare", "maps", "decode"] as const;
export type Graph = (typeof GRAPHS)[number];

type Feeds = Record<string, OrtTensor>;

interface Scene {
  file: SceneFile;
  prepared: Feeds;
  memories: Map<string, Float32Array>;
  passing: Map<string, Float32Array>;
}

/** What labels are chosen from: K names and their (K, D) embeddings. */
export interface Names {
  names: readonly string[];
  embeddings: Float32Array;
}

export class Engine {
  private readonly scenes = new Map<string, Scene>(); // the least recently used first
  private rounds = 0;

  private constructor(
    private readonly runtime: Runtime,
    private readonly description: Description,
    private readonly graphs: Record<Graph, InferenceSession>,
  ) {}

  /** Starts the graphs. `providers` are onnxruntime-web's names, in order of preference. */
  static async start(
    runtime: Runtime,
    description: Description,
    models: Record<Graph, Uint8Array>,
    providers: string[] = ["wasm"],
  ): Promise<Engine> {
    if (description.version !== FORMAT) {
      throw new DecoderError("unavailable", `decoder.json: expected version ${FORMAT}, got ${description.version}`);
    }
    const graphs = {} as Record<Graph, InferenceSession>;
    for (const name of GRAPHS) {
      graphs[name] = await runtime.InferenceSession.create(models[name], {
        executionProviders: providers,
        graphOptimizationLevel: "all",
        enableCpuMemArena: true,
        logSeverityLevel: 3,
      });
    }
    return new Engine(runtime, description, graphs);
  }

  /** One round on a made-up scene, so that a runtime that cannot do it says so before the first click. */
  async tryOut(): Promise<void> {
    const side = 64;
    const size = { width: side, height: side };
    const maps = {} as SceneFile["maps"];
    for (const name of MAPS) {
      const shape = this.description.graphs["prepare"]!.inputs[name]!.shape.map((s) => resolve(s, side / 16));
      const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i));
      maps[name] = { shape, data };
    }
    const file: SceneFile = { image: "", weights: "", original: size, encoded: size, padded: size, maps };
    const scene: Scene = { file, prepared: await this.prepare(file), memories: new Map(), passing: new Map() };
    const click: DecodeObject = { id: 0, prompts: [{ type: "click", x: 8, y: 8 }] };
    const nothing: Known = { phrase: unknown, region: unknown };
    const encoded = encodeObject(click, file, this.description, nothing, unknown);
    for (const previous of [null, new Float32Array(side ** 2 / 16).fill(1)]) {
      const outputs = await this.run(scene, batch([{ ...encoded, previous }], file, this.description), null);
      if (!values(outputs["logits"]!).every(Number.isFinite)) {
        throw new DecoderError("unavailable", "the decoder gave no numbers on this device");
      }
    }
  }

  /** Reads a scene and runs what the image alone decides; returns digests of scenes that had to go. */
  async loadScene(digest: string, bytes: ArrayBuffer): Promise<string[]> {
    const file = parseScene(bytes);
    if (file.weights !== this.description.weights) {
      throw new DecoderError("invalid", `scene: expected one of ${this.description.weights}, got ${file.weights}`);
    }
    const prepared = await this.prepare(file);
    const before = this.scenes.get(digest);
    const memories = before?.memories ?? new Map<string, Float32Array>();
    const passing = before?.passing ?? new Map<string, Float32Array>();
    this.scenes.delete(digest);
    this.scenes.set(digest, { file, prepared, memories, passing });
    const dropped: string[] = [];
    for (const old of this.scenes.keys()) {
      if (this.scenes.size <= MAX_SCENES) break;
      this.scenes.delete(old);
      dropped.push(old);
    }
    return dropped;
  }

  /** A round that was made elsewhere: a file with its logits, stride 4 of the encoded image -> its handle. */
  adopt(digest: string, bytes: ArrayBuffer): string {
    const scene = this.scenes.get(digest);
    if (!scene) throw new DecoderError("no_scene", `expected a loaded scene, got ${digest.slice(0, 15)}…`);
    const { shape, data } = tensor(parseTensors(bytes, "round"), "logits", "round");
    const { width, height } = maskSize(scene.file);
    if (shape.length !== 2 || shape[0] !== height || shape[1] !== width) {
      throw new DecoderError("invalid", `round: expected logits of ${height} x ${width}, got ${shape.join(" x ")}`);
    }
    return this.remember(scene.memories, MAX_MEMORIES, data);
  }

  /** A preview was accepted: its memory stays. */
  keep(digest: string, handle: string): void {
    const scene = this.scenes.get(digest);
    const logits = scene?.passing.get(handle);
    if (!scene || !logits) return;
    scene.passing.delete(handle);
    scene.memories.set(handle, logits);
  }

  forget(digest: string): void {
    this.scenes.delete(digest);
  }

  /** One round of any number of objects; of a preview only the last few memories are kept, until `keep` says more. */
  async decode(
    digest: string,
    objects: readonly DecodeObject[],
    known: Known,
    names: Names | null,
    preview = false,
  ): Promise<DecodedObject[]> {
    const began = performance.now();
    const scene = this.scenes.get(digest);
    if (!scene) throw new DecoderError("no_scene", `expected a loaded scene, got ${digest.slice(0, 15)}…`);
    this.scenes.delete(digest);
    this.scenes.set(digest, scene);
    const memory = (handle: string): Float32Array => {
      const logits = scene.memories.get(handle) ?? scene.passing.get(handle);
      if (!logits) throw new DecoderError("no_memory", `previous: expected a memory of this image, got ${handle}`);
      return logits;
    };
    const encoded = objects.map((object) => encodeObject(object, scene.file, this.description, known, memory));
    const results: DecodedObject[] = [];
    for (let start = 0; start < objects.length; start += OBJECTS_PER_RUN) {
      const part = batch(encoded.slice(start, start + OBJECTS_PER_RUN), scene.file, this.description);
      const outputs = await this.run(scene, part, names);
      for (let i = 0; i < part.count; i++) {
        results.push(this.result(scene, outputs, i, objects[start + i]!, names, preview));
      }
    }
    const ms = performance.now() - began;
    for (const result of results) result.ms = ms;
    return results;
  }

  private async prepare(file: SceneFile): Promise<Feeds> {
    const feeds: Feeds = {};
    for (const name of MAPS) feeds[name] = this.float(file.maps[name].data, file.maps[name].shape);
    return this.graphs.prepare.run(feeds);
  }

  private async run(scene: Scene, b: Batch, names: Names | null): Promise<Feeds> {
    const { prepared, file } = scene;
    const { dim, joint_dim: joint } = this.description;
    const [h4, w4] = [file.padded.height / 4, file.padded.width / 4];
    const n = b.count;
    const shared = { previous: this.float(b.previous, [n, h4, w4]), text: this.float(b.text, [n, joint]) };
    const rows = b.has_previous.includes(1) ? this.description.memory_tokens : 1; // a memory that nobody has is one row
    const memories = Float32Array.from({ length: n * rows }, (_, i) => b.has_previous[Math.floor(i / rows)]!);
    let [stream, first] = [prepared["stream"]!, prepared["first"]!];
    const which = new Int32Array(n);
    if (b.needsMaps) {
      const added = await this.graphs.maps.run({
        stream,
        first,
        joint: prepared["joint"]!,
        ...shared,
        has_previous: this.float(b.has_previous, [n]),
        drawn: this.float(b.drawn, [n, h4, w4]),
        has_drawn: this.float(b.has_drawn, [n]),
        has_text: this.float(b.has_text, [n]),
        references: this.float(b.references, [n, b.referenceCount, joint]),
        has_reference: this.float(b.has_reference, [n, b.referenceCount]),
      });
      [stream, first] = [added["prompted_stream"]!, added["prompted_first"]!];
      which.forEach((_, i) => (which[i] = i));
    }
    return this.graphs.decode.run({
      ...prepared,
      ...shared,
      has_memory: this.float(memories, [n, rows]),
      stream,
      first,
      which: this.whole(which, [n]),
      size: this.whole(Int32Array.of(file.encoded.height, file.encoded.width), [2]),
      points: this.float(b.points, [n, b.pointCount, 2]),
      kinds: this.whole(b.kinds, [n, b.pointCount]),
      tokens: this.float(b.tokens, [n, b.tokenCount, dim]),
      has_token: this.float(b.has_token, [n, b.tokenCount]),
      names: names ? this.float(names.embeddings, [names.names.length, joint]) : this.float(new Float32Array(joint), [1, joint]),
    });
  }

  private result(
    scene: Scene,
    outputs: Feeds,
    i: number,
    object: DecodeObject,
    names: Names | null,
    preview: boolean,
  ): DecodedObject {
    const { file } = scene;
    const { id } = object;
    const cells = maskSize(file);
    const padded = { width: file.padded.width / 4, height: file.padded.height / 4 };
    const logits = crop(values(outputs["logits"]!), i, padded, cells);
    const { shape, data } = file.maps.fine;
    const fine = { data, channels: shape[1]!, height: shape[2]!, width: shape[3]! };
    obeyBoxes(logits, cells.width, cells.height, boxCells(object, file));
    obeyClicks(logits, cells.width, cells.height, fine, clickCells(object, file));
    const { width, height } = file.original;
    const mask = new Uint8Array(width * height);
    enlarge(logits, cells, file.encoded, file.original, mask);
    const found = outline(mask, width, height);
    let label: string | null = null;
    let labelScore: number | null = null;
    if (names) {
      const k = names.names.length;
      const row = values(outputs["probabilities"]!).subarray(i * k, (i + 1) * k);
      const best = row.reduce((at, value, j) => (value > row[at]! ? j : at), 0);
      label = names.names[best]!;
      labelScore = row[best]!;
    }
    const memory = preview
      ? this.remember(scene.passing, MAX_PASSING, logits)
      : this.remember(scene.memories, MAX_MEMORIES, logits);
    return { id, width, height, mask, ...found, score: values(outputs["score"]!)[i]!, label, labelScore, memory, ms: 0 };
  }

  private remember(memories: Map<string, Float32Array>, most: number, logits: Float32Array): string {
    const handle = `m${++this.rounds}`;
    memories.set(handle, logits);
    for (const old of memories.keys()) {
      if (memories.size <= most) break;
      memories.delete(old);
    }
    return handle;
  }

  private float(data: Float32Array, dims: readonly number[]): TypedTensor<"float32"> {
    return new this.runtime.Tensor("float32", data, dims);
  }

  private whole(data: Int32Array, dims: readonly number[]): TypedTensor<"int32"> {
    return new this.runtime.Tensor("int32", data, dims);
  }
}

/** The mask cells of an object's clicks. */
function clickCells(object: DecodeObject, file: SceneFile): ClickCell[] {
  const { width, height } = maskSize(file);
  const cell = (value: number, from: number, to: number, cells: number): number =>
    Math.min(cells - 1, Math.max(0, Math.floor(((Math.floor(value) + 0.5) * to) / from / 4)));
  return object.prompts.flatMap((p) =>
    p.type === "click"
      ? [
          {
            x: cell(p.x, file.original.width, file.encoded.width, width),
            y: cell(p.y, file.original.height, file.encoded.height, height),
            positive: p.positive ?? true,
          },
        ]
      : [],
  );
}

/** Boxes that the mask must not leave: none where something else that is drawn, or a click, says that it does. */
function boxCells(object: DecodeObject, file: SceneFile): BoxCells[] {
  const boxes = object.prompts.flatMap((p) => (p.type === "box" ? [p.xyxy] : []));
  const leaves = object.prompts.some((p) => {
    if (p.type === "click") {
      const [x, y] = [Math.floor(p.x) + 0.5, Math.floor(p.y) + 0.5];
      return (p.positive ?? true) && !boxes.some(([x0, y0, x1, y1]) => x0 <= x && x <= x1 && y0 <= y && y <= y1);
    }
    return p.type === "mask" || ((p.type === "scribble" || p.type === "polygon") && (p.positive ?? true));
  });
  if (leaves) return [];
  const [across, down] = [file.encoded.width / file.original.width / 4, file.encoded.height / file.original.height / 4];
  return boxes.map(([x0, y0, x1, y1]) => [x0 * across, y0 * down, x1 * across, y1 * down]);
}

/** A size of a shape: a number, or a symbol, which may be multiplied ("4*h16"); all symbols are cells of stride 16. */
function resolve(size: number | string, cells: number): number {
  if (typeof size === "number") return size;
  const factor = size.includes("*") ? Number(size.split("*")[0]) : 1;
  return factor * cells;
}

function unknown(): never {
  throw new DecoderError("invalid", "expected nothing that needs looking up");
}

function values(tensor: OrtTensor): Float32Array {
  return tensor.data as Float32Array;
}

function crop(all: Float32Array, i: number, padded: Size, cells: Size): Float32Array {
  const out = new Float32Array(cells.width * cells.height);
  const base = i * padded.width * padded.height;
  for (let y = 0; y < cells.height; y++) {
    out.set(all.subarray(base + y * padded.width, base + y * padded.width + cells.width), y * cells.width);
  }
  return out;
}

/** Box and number of the pixels inside. */
function outline(mask: Uint8Array, width: number, height: number): Pick<DecodedObject, "box" | "area"> {
  let [x0, y0, x1, y1, area] = [width, height, -1, -1, 0];
  for (let y = 0; y < height; y++) {
    const row = mask.subarray(y * width, (y + 1) * width);
    const left = row.indexOf(1);
    if (left < 0) continue;
    const right = row.lastIndexOf(1);
    for (let x = left; x <= right; x++) area += row[x]!;
    x0 = Math.min(x0, left);
    x1 = Math.max(x1, right);
    y0 = Math.min(y0, y);
    y1 = y;
  }
  return { box: area > 0 ? [x0, y0, x1 + 1, y1 + 1] : null, area };
}
