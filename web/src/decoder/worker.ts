/** The worker: one call after the other, in the order in which they came. */

import { phraseOf, referenceKey, type Known } from "./encode";
import type { Engine, Names } from "./engine";
import type { Answer, Ask, Calls, Embeddings, Kind } from "./messages";
import { startEngine } from "./runtime";
import { DecoderError } from "./types";

let engine: Engine | null = null;
let names: Names | null = null;
let last: Promise<void> = Promise.resolve();

self.onmessage = (event: MessageEvent<Ask>): void => {
  last = last.then(() => answer(event.data));
};

async function answer(message: Ask): Promise<void> {
  const { call } = message;
  try {
    const value = await handle(message);
    const masks = message.kind === "decode" ? (value as Calls["decode"]["answer"]).map((found) => found.mask.buffer) : [];
    send({ call, ok: true, value }, masks);
  } catch (error) {
    const code = error instanceof DecoderError ? error.code : "unavailable";
    send({ call, ok: false, code, message: error instanceof Error ? error.message : String(error) });
  }
}

function send(message: Answer, transfer: Transferable[] = []): void {
  self.postMessage(message, { transfer });
}

async function handle(message: Ask): Promise<Calls[Kind]["answer"]> {
  if (message.kind === "start") {
    const { description, models, threads, backend } = message.ask;
    const started = await startEngine(description, models, threads, backend);
    engine = started.engine;
    const resources = performance.getEntriesByType("resource") as PerformanceResourceTiming[];
    const runtime = resources.reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0);
    return { ...started.info, bytes: runtime };
  }
  if (!engine) throw new DecoderError("unavailable", "decoder: expected init first");
  switch (message.kind) {
    case "load":
      return engine.loadScene(message.ask.digest, message.ask.bytes);
    case "window":
      await engine.loadWindow(message.ask.digest, message.ask.window, message.ask.bytes);
      return null;
    case "decode": {
      const { digest, objects, embeddings, how } = message.ask;
      if (message.ask.names !== "same") names = message.ask.names;
      return engine.decode(digest, objects, lookup(embeddings), names, how);
    }
    case "adopt":
      return engine.adopt(message.ask.digest, message.ask.bytes);
    case "keep":
      engine.keep(message.ask.digest, message.ask.handle);
      return null;
    case "forget":
      engine.forget(message.ask.digest);
      return null;
  }
}

export function lookup({ phrases, regions }: Embeddings): Known {
  const found = <T>(value: T | undefined, what: string): T => {
    if (value === undefined) throw new DecoderError("invalid", `${what}: expected its embedding, got none`);
    return value;
  };
  return {
    phrase: (text) => found(phrases.get(phraseOf(text)), text),
    region: (prompt) => found(regions.get(referenceKey(prompt)), "reference"),
  };
}
