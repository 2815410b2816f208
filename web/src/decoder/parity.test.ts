/**
 * The other half of tests/export/test_web.py: that test writes a folder with a model, scenes and rounds of prompts, runs
 * this file with SEEM_PARITY naming the folder, and compares what it finds in out.json with Python's own answers.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "vitest";
import { encodeRle } from "../core/rle";
import { encodeObject, referenceKey, type Known } from "./encode";
import { Engine, GRAPHS, type Description, type Graph } from "./engine";
import { parseScene } from "./scene";
import type { DecodeObject, ReferencePrompt } from "./types";

interface Job {
  scenes: Record<string, string>; // digest -> file
  phrases: Record<string, { sentence: number[]; tokens: number[] }>;
  regions: { prompt: ReferencePrompt; tokens: number[]; embedding: number[] }[];
  names: { names: string[]; embeddings: number[] };
  /** an object's `previous` is the number of the round whose only result it reads, or {rle} */
  rounds: { image: string; objects: (DecodeObject & { after?: number })[]; zoom?: boolean }[];
  /** windows that are wanted to zoom: "digest@x0,y0,x1,y1" -> file */
  windows: Record<string, string>;
}

const folder = process.env["SEEM_PARITY"];

test.skipIf(folder === undefined)("decodes what Python recorded", { timeout: 600_000 }, async () => {
  const read = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(join(folder!, name)));
  const text = (name: string): unknown => JSON.parse(readFileSync(join(folder!, name), "utf8"));
  const ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  const models = Object.fromEntries(GRAPHS.map((name) => [name, read(`${name}.onnx`)])) as Record<Graph, Uint8Array>;
  const description = text("decoder.json") as Description;
  const engine = await Engine.start(ort, description, models);
  await engine.tryOut();

  const job = text("job.json") as Job;
  const f32 = (values: number[]): Float32Array => Float32Array.from(values);
  const known: Known = {
    phrase: (phrase) => {
      const { sentence, tokens } = job.phrases[phrase]!;
      return { sentence: f32(sentence), tokens: f32(tokens) };
    },
    region: (prompt) => {
      const found = job.regions.find((region) => referenceKey(region.prompt) === referenceKey(prompt))!;
      return { tokens: f32(found.tokens), embedding: f32(found.embedding) };
    },
  };
  const names = { names: job.names.names, embeddings: f32(job.names.embeddings) };
  for (const [digest, file] of Object.entries(job.scenes)) await engine.loadScene(digest, read(file).buffer);

  const memories: (string | null)[] = [];
  const out: unknown[] = [];
  for (const { image, objects, zoom = false } of job.rounds) {
    const scene = parseScene(read(job.scenes[image]!).buffer);
    const asked = objects.map(({ after, ...object }) => (after === undefined ? object : { ...object, previous: memories[after]! }));
    let found = await engine.decode(image, asked, known, names, { zoom });
    for (let wants = found[0]!.wants; wants; wants = found[0]!.wants) {
      await engine.loadWindow(image, wants, read(job.windows[`${image}@${wants.join(",")}`]!).buffer);
      found = await engine.decode(image, asked, known, names, { zoom });
    }
    memories.push(found[0]!.memory);
    out.push(
      found.map(({ mask, width, height, ...rest }, i) => {
        const memory = (): Float32Array => new Float32Array();
        const { points, kinds, drawn } = encodeObject(asked[i]!, scene, description, known, memory);
        const rle = encodeRle({ width, height, data: mask });
        return { ...rest, rle, points, kinds, drawn: drawn && Array.from(drawn) };
      }),
    );
  }
  writeFileSync(join(folder!, "out.json"), JSON.stringify(out));
});
