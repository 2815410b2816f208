/**
 * The decoder itself: scenes and their memories, and the three graphs. It knows nothing of workers or of the network, so
 * it runs in Node too, where the tests compare it with Python.
 */

import type { InferenceSession, Tensor as OrtTensor, TypedTensor } from "onnxruntime-web";
import { batch, encodeObject, maskSize, type Batch, type Constants, type Encoded, type Known } from "./encode";
import { enlarge, type Size } from "./geometry";
import { keepFar, obeyBoxes, obeyClicks, type BoxCells, type ClickCell } from "./obey";
import { MAPS, parseScene, type SceneFile } from "./scene";
import { parseTensors, tensor } from "./tensors";
import { DecoderError, type DecodedObject, type DecodeObject, type How, type Prompt, type Window } from "./types";
import { localPrompts, same, seenFrom, wholeOf, zoomIn, type Look, type Memory, type Seen } from "./zoom";

const FORMAT = 2;
export const MAX_SCENES = 4; // about 16 MB each once prepared
const MAX_WINDOWS = 4; // of all photos
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

/** A photo, or a window of one, ready for the decoder. */
interface View {
  file: SceneFile;
  prepared: Feeds;
}

interface Scene extends View {
  memories: Map<string, Seen>;
  passing: Map<string, Seen>;
}

/** What one object looks like in a window. */
interface Found extends Seen {
  /** of the window's pixels, row by row */
  mask: Uint8Array;
  area: number;
  score: number;
  label: string | null;
  labelScore: number | null;
}

/** What labels are chosen from: K names and their (K, D) embeddings. */
export interface Names {
  names: readonly string[];
  embeddings: Float32Array;
}

export class Engine {
  private readonly scenes = new Map<string, Scene>(); // the least recently used first
  private readonly windows = new Map<string, View>(); // by `windowKey`, the least recently used first
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
    const scene: View = { file, prepared: await this.prepare(file) };
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
    const view = await this.open(bytes);
    const before = this.scenes.get(digest);
    const memories = before?.memories ?? new Map<string, Seen>();
    const passing = before?.passing ?? new Map<string, Seen>();
    this.scenes.delete(digest);
    this.scenes.set(digest, { ...view, memories, passing });
    const dropped: string[] = [];
    for (const old of this.scenes.keys()) {
      if (this.scenes.size <= MAX_SCENES) break;
      this.forget(old);
      dropped.push(old);
    }
    return dropped;
  }

  /** The scene of a window of a loaded photo; the least recently used ones are dropped. */
  async loadWindow(digest: string, window: Window, bytes: ArrayBuffer): Promise<void> {
    this.scene(digest);
    const view = await this.open(bytes);
    const { width, height } = view.file.original;
    if (width !== window[2] - window[0] || height !== window[3] - window[1]) {
      throw new DecoderError("invalid", `window: expected the scene of ${window.join(",")}, got one of ${width}x${height}`);
    }
    this.windows.set(windowKey(digest, window), view);
    for (const old of this.windows.keys()) {
      if (this.windows.size <= MAX_WINDOWS) break;
      this.windows.delete(old);
    }
  }

  /** A round that was made elsewhere: a file with its logits, stride 4 of the encoded image -> its handle. */
  adopt(digest: string, bytes: ArrayBuffer): string {
    const scene = this.scene(digest);
    const { shape, data } = tensor(parseTensors(bytes, "round"), "logits", "round");
    const { width, height } = maskSize(scene.file);
    if (shape.length !== 2 || shape[0] !== height || shape[1] !== width) {
      throw new DecoderError("invalid", `round: expected logits of ${height} x ${width}, got ${shape.join(" x ")}`);
    }
    const { original, encoded } = scene.file;
    const mask = new Uint8Array(original.width * original.height);
    enlarge(data, { width, height }, encoded, original, mask);
    const { box } = outline(mask, original.width, original.height);
    return this.remember(scene.memories, MAX_MEMORIES, { window: wholeOf(original), encoded, logits: data, box });
  }

  /** A preview was accepted: its memory stays. */
  keep(digest: string, handle: string): void {
    const scene = this.scenes.get(digest);
    const seen = scene?.passing.get(handle);
    if (!scene || !seen) return;
    scene.passing.delete(handle);
    scene.memories.set(handle, seen);
  }

  forget(digest: string): void {
    this.scenes.delete(digest);
    for (const key of this.windows.keys()) if (key.startsWith(digest)) this.windows.delete(key);
  }

  /**
   * One round of any number of objects; of a preview only the last few memories are kept, until `keep` says more. To zoom, it
   * wants windows: a result that does is of the whole photo, or of the window before.
   */
  async decode(
    digest: string,
    objects: readonly DecodeObject[],
    known: Known,
    names: Names | null,
    how: How = {},
  ): Promise<DecodedObject[]> {
    const began = performance.now();
    const scene = this.scene(digest);
    this.scenes.delete(digest);
    this.scenes.set(digest, scene);
    const ask = { digest, scene, known, names };
    const results: DecodedObject[] = [];
    if (how.zoom) {
      for (const object of objects) results.push(await this.zoom(ask, object, how));
    } else {
      const whole = wholeOf(scene.file.original);
      const found = await this.look(ask, scene, whole, objects.map((object) => ({ object, memory: memoryOf(scene, object) })));
      results.push(...found.map((each, i) => this.result(scene, each, objects[i]!.id, how)));
    }
    const ms = performance.now() - began;
    for (const result of results) result.ms = ms;
    return results;
  }

  private async zoom(ask: Question, object: DecodeObject, how: How): Promise<DecodedObject> {
    const { digest, scene } = ask;
    const { original, encoded } = scene.file;
    const whole = wholeOf(original);
    const memory = memoryOf(scene, object);
    const look: Look<Found> = async (window, prompts, before) => {
      const view = same(window, whole) ? scene : this.window(digest, window);
      return view && (await this.look(ask, view, window, [{ object: { id: object.id, prompts }, memory: before }]))[0]!;
    };
    const { found, wants } = await zoomIn(object.prompts, memory, { size: original, encoded }, look);
    const shown = found ?? (await this.lookFromHere(object.prompts, memory, whole, look));
    return { ...this.result(scene, shown, object.id, how), wants };
  }

  /** A mask at once, though not from as close as it will be: in the window of the round before, else of the whole photo. */
  private async lookFromHere(prompts: Prompt[], memory: Memory | null, whole: Window, look: Look<Found>): Promise<Found> {
    if (memory && "window" in memory && localPrompts(prompts, memory.window).length > 0) {
      const before = await look(memory.window, localPrompts(prompts, memory.window), memory);
      if (before) return before;
    }
    return (await look(whole, prompts, memory))!;
  }

  /** One round of objects whose prompts are in coordinates of a window. */
  private async look(ask: Question, view: View, window: Window, asked: readonly Asked[]): Promise<Found[]> {
    const { known, names } = ask;
    const { file } = view;
    const encoded = asked.map(({ object, memory }) => {
      const previous = memory && "window" in memory ? "seen" : memory;
      const seen = (): Float32Array => seenFrom(memory as Seen, window, file.encoded);
      return encodeObject({ ...object, previous }, file, this.description, known, seen);
    });
    const found: Found[] = [];
    for (let start = 0; start < asked.length; start += OBJECTS_PER_RUN) {
      const part = batch(encoded.slice(start, start + OBJECTS_PER_RUN), file, this.description);
      const outputs = await this.run(view, part, names);
      for (let i = 0; i < part.count; i++) found.push(this.found(view, window, outputs, i, asked[start + i]!.object, encoded[start + i]!, names));
    }
    return found;
  }

  private scene(digest: string): Scene {
    const scene = this.scenes.get(digest);
    if (!scene) throw new DecoderError("no_scene", `expected a loaded scene, got ${digest.slice(0, 15)}…`);
    return scene;
  }

  /** A window that is loaded, which is now the most recently used one. */
  private window(digest: string, window: Window): View | null {
    const key = windowKey(digest, window);
    const view = this.windows.get(key);
    if (!view) return null;
    this.windows.delete(key);
    this.windows.set(key, view);
    return view;
  }

  private async open(bytes: ArrayBuffer): Promise<View> {
    const file = parseScene(bytes);
    if (file.weights !== this.description.weights) {
      throw new DecoderError("invalid", `scene: expected one of ${this.description.weights}, got ${file.weights}`);
    }
    return { file, prepared: await this.prepare(file) };
  }

  private async prepare(file: SceneFile): Promise<Feeds> {
    const feeds: Feeds = {};
    for (const name of MAPS) feeds[name] = this.float(file.maps[name].data, file.maps[name].shape);
    return this.graphs.prepare.run(feeds);
  }

  private async run(view: View, b: Batch, names: Names | null): Promise<Feeds> {
    const { prepared, file } = view;
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

  private found(
    view: View,
    window: Window,
    outputs: Feeds,
    i: number,
    object: DecodeObject,
    { previous }: Encoded,
    names: Names | null,
  ): Found {
    const { file } = view;
    const cells = maskSize(file);
    const padded = { width: file.padded.width / 4, height: file.padded.height / 4 };
    const logits = crop(values(outputs["logits"]!), i, padded, cells);
    const { shape, data } = file.maps.fine;
    const fine = { data, channels: shape[1]!, height: shape[2]!, width: shape[3]! };
    const clicks = clickCells(object, file);
    if (previous && endsWithClick(object)) keepFar(logits, cells.width, cells.height, previous, clicks);
    obeyBoxes(logits, cells.width, cells.height, boxCells(object, file));
    obeyClicks(logits, cells.width, cells.height, fine, clicks);
    const { width, height } = file.original;
    const mask = new Uint8Array(width * height);
    enlarge(logits, cells, file.encoded, file.original, mask);
    const { box, area } = outline(mask, width, height);
    let label: string | null = null;
    let labelScore: number | null = null;
    if (names) {
      const k = names.names.length;
      const row = values(outputs["probabilities"]!).subarray(i * k, (i + 1) * k);
      const best = row.reduce((at, value, j) => (value > row[at]! ? j : at), 0);
      label = names.names[best]!;
      labelScore = row[best]!;
    }
    const [x, y] = window;
    const placed: Window | null = box && [box[0] + x, box[1] + y, box[2] + x, box[3] + y];
    const score = values(outputs["score"]!)[i]!;
    return { window, encoded: file.encoded, logits, box: placed, mask, area, score, label, labelScore };
  }

  /** A window's result as one of the photo. */
  private result(scene: Scene, found: Found, id: number, { preview }: How): DecodedObject {
    const { width, height } = scene.file.original;
    const { window, encoded, logits, box, area, score, label, labelScore } = found;
    const seen = { window, encoded, logits, box };
    const memory = preview
      ? this.remember(scene.passing, MAX_PASSING, seen)
      : this.remember(scene.memories, MAX_MEMORIES, seen);
    return { id, width, height, mask: placed(found, scene.file.original), box, area, score, label, labelScore, memory, ms: 0 };
  }

  private remember(memories: Map<string, Seen>, most: number, seen: Seen): string {
    const handle = `m${++this.rounds}`;
    memories.set(handle, seen);
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

/** What all looks of one call share. */
interface Question {
  digest: string;
  scene: Scene;
  known: Known;
  names: Names | null;
}

/** An object without `previous`, and what it is instead. */
interface Asked {
  object: DecodeObject;
  memory: Memory | null;
}

const windowKey = (digest: string, window: Window): string => `${digest}@${window.join(",")}`;

function memoryOf(scene: Scene, { previous }: DecodeObject): Memory | null {
  if (typeof previous !== "string") return previous ?? null;
  const seen = scene.memories.get(previous) ?? scene.passing.get(previous);
  if (!seen) throw new DecoderError("no_memory", `previous: expected a memory of this image, got ${previous}`);
  return seen;
}

/** A window's mask on the whole photo. */
function placed({ mask, window }: Found, photo: Size): Uint8Array {
  if (same(window, wholeOf(photo))) return mask;
  const out = new Uint8Array(photo.width * photo.height);
  const width = window[2] - window[0];
  for (let y = window[1], from = 0; y < window[3]; y++, from += width) {
    out.set(mask.subarray(from, from + width), y * photo.width + window[0]);
  }
  return out;
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

/** Whether a click is the last thing that was said of where an object is. */
function endsWithClick({ prompts }: DecodeObject): boolean {
  const last = prompts.findLast((p) => p.type !== "text" && p.type !== "reference");
  return last?.type === "click";
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
