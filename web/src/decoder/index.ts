/** The decoder for the page: a worker that decodes, and here what it cannot do itself, the questions to the server. */

import { phraseOf, referenceKey, type Phrase, type Region } from "./encode";
import { GRAPHS, type Description, type Graph, type Names } from "./engine";
import type { Answer, Calls, Embeddings, Kind } from "./messages";
import { parseTensors, tensor } from "./tensors";
import {
  DecoderError,
  type DecodedObject,
  type DecodeObject,
  type Decoder,
  type DecoderInfo,
  type DecoderOptions,
  type How,
  type ReferencePrompt,
  type Window,
} from "./types";

const MAX_KNOWN = 2000; // phrases, and regions, whose embeddings are kept
const TEXTS_PER_CALL = 256;

export function createDecoder(options: DecoderOptions): Decoder {
  return new LocalDecoder(options);
}

interface Waiting {
  resolve: (value: unknown) => void;
  reject: (error: DecoderError) => void;
}

class LocalDecoder implements Decoder {
  private worker: Worker | null = null;
  private started: Promise<DecoderInfo> | null = null;
  private closed = false;
  private calls = 0;
  private readonly waiting = new Map<number, Waiting>();
  private readonly scenes = new Set<string>();
  private readonly phrases = new Map<string, Phrase>();
  private readonly regions = new Map<string, Region>();
  private named: { key: string; value: Names } | null = null;
  private sent: Names | null = null;
  private last: Promise<unknown> = Promise.resolve();
  private readonly fetch: typeof fetch;

  constructor(private readonly options: DecoderOptions) {
    this.fetch = options.fetch ?? ((input, init) => fetch(input, init));
  }

  init(): Promise<DecoderInfo> {
    return (this.started ??= this.start());
  }

  async loadScene(digest: string, bytes: ArrayBuffer): Promise<void> {
    await this.init();
    const dropped = await this.call("load", { digest, bytes }, [bytes]);
    this.scenes.add(digest);
    for (const old of dropped) this.scenes.delete(old);
  }

  async loadWindow(digest: string, window: Window, bytes: ArrayBuffer): Promise<void> {
    await this.call("window", { digest, window, bytes }, [bytes]);
  }

  hasScene(digest: string): boolean {
    return this.scenes.has(digest);
  }

  decode(
    digest: string,
    objects: DecodeObject[],
    names?: readonly string[] | null,
    how: How = {},
  ): Promise<DecodedObject[]> {
    // What is asked of the server may take its time; a later call must not overtake.
    const result = this.last.then(() => this.decodeNow(digest, objects, names ?? [], how));
    this.last = result.catch(() => undefined);
    return result;
  }

  keep(digest: string, memory: string): void {
    void this.call("keep", { digest, handle: memory }).catch(() => undefined);
  }

  async adopt(digest: string, bytes: ArrayBuffer): Promise<string> {
    await this.init();
    return this.call("adopt", { digest, bytes }, [bytes]);
  }

  forget(digest: string): void {
    if (this.scenes.delete(digest)) void this.call("forget", { digest }).catch(() => undefined);
  }

  close(): void {
    this.closed = true;
    this.stop("the decoder was closed");
  }

  private async decodeNow(
    digest: string,
    objects: DecodeObject[],
    names: readonly string[],
    how: How,
  ): Promise<DecodedObject[]> {
    await this.init();
    if (!this.scenes.has(digest)) throw new DecoderError("no_scene", `expected a loaded scene, got ${digest.slice(0, 15)}…`);
    const labels = names.length > 0 ? await this.names(names) : null;
    const embeddings = await this.embeddings(objects);
    const same = labels === this.sent; // embeddings of a vocabulary need not be copied for each click
    this.sent = labels;
    return this.call("decode", { digest, objects, embeddings, names: same ? "same" : labels, how });
  }

  // ---- the worker ---------------------------------------------------------------------------------------------------

  private async start(): Promise<DecoderInfo> {
    if (this.closed) throw new DecoderError("unavailable", "the decoder was closed");
    if (typeof Worker === "undefined" || typeof WebAssembly === "undefined") {
      throw new DecoderError("unavailable", "this browser has no workers or no WebAssembly");
    }
    const files = await Promise.all([...GRAPHS.map((name) => this.file(`${name}.onnx`)), this.file("decoder.json")]);
    const description = JSON.parse(new TextDecoder().decode(files.pop())) as Description;
    const models = Object.fromEntries(GRAPHS.map((name, i) => [name, files[i]!])) as Record<Graph, Uint8Array>;
    const bytes = files.reduce((sum, file) => sum + file.byteLength, 0);
    this.worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    this.worker.onmessage = (event: MessageEvent<Answer>) => this.answered(event.data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.stop(event.message || "the decoder's worker failed");
    };
    const { threads = null, backend = null } = this.options;
    const info = await this.call("start", { description, models, threads, backend });
    return { ...info, bytes: info.bytes + bytes };
  }

  private stop(why: string): void {
    this.worker?.terminate();
    this.worker = null;
    this.scenes.clear();
    for (const { reject } of this.waiting.values()) reject(new DecoderError("unavailable", why));
    this.waiting.clear();
  }

  private call<K extends Kind>(kind: K, ask: Calls[K]["ask"], transfer: Transferable[] = []): Promise<Calls[K]["answer"]> {
    const { worker } = this;
    if (!worker) return Promise.reject(new DecoderError("unavailable", "the decoder does not run"));
    const call = ++this.calls;
    return new Promise<Calls[K]["answer"]>((resolve, reject) => {
      this.waiting.set(call, { resolve: resolve as Waiting["resolve"], reject });
      worker.postMessage({ call, kind, ask }, transfer);
    });
  }

  private answered(answer: Answer): void {
    const waiting = this.waiting.get(answer.call);
    this.waiting.delete(answer.call);
    if (answer.ok) waiting?.resolve(answer.value);
    else waiting?.reject(new DecoderError(answer.code, answer.message));
  }

  // ---- questions to the server --------------------------------------------------------------------------------------

  private async file(name: string): Promise<Uint8Array> {
    return new Uint8Array(await this.ask(`/v1/decoder/${name}`));
  }

  private async ask(path: string, body?: unknown): Promise<ArrayBuffer> {
    const init: RequestInit =
      body === undefined
        ? {}
        : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    let response: Response;
    try {
      response = await this.fetch(this.options.baseUrl + path, init);
    } catch (error) {
      throw new DecoderError("network", `the server does not answer: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (!response.ok) {
      const answer = (await response.json().catch(() => null)) as { error?: { message?: string } } | null;
      throw new DecoderError("network", answer?.error?.message ?? `the server answered ${response.status} to ${path}`);
    }
    return response.arrayBuffer();
  }

  private async embeddings(objects: readonly DecodeObject[]): Promise<Embeddings> {
    const prompts = objects.flatMap((object) => object.prompts);
    const texts = [...new Set(prompts.flatMap((p) => (p.type === "text" ? [phraseOf(p.text)] : [])))].filter(Boolean);
    await this.learn(texts);
    const references = prompts.filter((p) => p.type === "reference");
    const regions = new Map<string, Region>();
    for (const prompt of references) regions.set(referenceKey(prompt), await this.region(prompt));
    return { phrases: new Map(texts.map((text) => [text, this.phrases.get(text)!])), regions };
  }

  private async names(names: readonly string[]): Promise<Names> {
    const key = JSON.stringify(names);
    if (this.named?.key !== key) {
      const found = await this.sentences(names);
      const width = found[0]!.length;
      const embeddings = new Float32Array(names.length * width);
      found.forEach((sentence, i) => embeddings.set(sentence, i * width));
      this.named = { key, value: { names: [...names], embeddings } };
    }
    return this.named.value;
  }

  private async sentences(texts: readonly string[]): Promise<Float32Array[]> {
    await this.learn(texts);
    return texts.map((text) => this.phrases.get(text)!.sentence);
  }

  /** Embeddings of the phrases that are not known yet. */
  private async learn(texts: readonly string[]): Promise<void> {
    const known = new Map(texts.flatMap((text) => (this.phrases.has(text) ? [[text, this.phrases.get(text)!]] : [])));
    const missing = [...new Set(texts)].filter((text) => !known.has(text));
    for (let start = 0; start < missing.length; start += TEXTS_PER_CALL) {
      const part = missing.slice(start, start + TEXTS_PER_CALL);
      const file = parseTensors(await this.ask("/v1/text", { texts: part }), "text");
      const [sentence, tokens, mask] = ["sentence", "tokens", "mask"].map((name) => tensor(file, name, "text"));
      const [, length = 0, dim = 0] = tokens!.shape;
      const joint = sentence!.shape[1] ?? 0;
      part.forEach((text, i) => {
        const rows: number[] = [];
        for (let t = 0; t < length; t++) {
          const at = (i * length + t) * dim;
          if (mask!.data[i * length + t]! > 0) rows.push(...tokens!.data.subarray(at, at + dim));
        }
        known.set(text, { sentence: sentence!.data.slice(i * joint, (i + 1) * joint), tokens: Float32Array.from(rows) });
      });
    }
    for (const [text, phrase] of known) keep(this.phrases, text, phrase);
  }

  private async region(prompt: ReferencePrompt): Promise<Region> {
    const key = referenceKey(prompt);
    let region = this.regions.get(key);
    if (!region) {
      const path = `/v1/images/${prompt.image}/reference`;
      const file = parseTensors(await this.ask(path, { prompts: [prompt.prompt] }), "reference");
      region = { tokens: tensor(file, "tokens", "reference").data, embedding: tensor(file, "embedding", "reference").data };
    }
    keep(this.regions, key, region);
    return region;
  }
}

/** Puts a value last; the first ones go when there are too many. */
function keep<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
  for (const old of map.keys()) {
    if (map.size <= MAX_KNOWN) break;
    map.delete(old);
  }
}
