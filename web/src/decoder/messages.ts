/** What the page's side and the worker send each other. */

import type { Phrase, Region } from "./encode";
import type { Description, Graph, Names } from "./engine";
import type { DecodedObject, DecodeObject, DecoderErrorCode, DecoderInfo, How, Window } from "./types";

/** Embeddings that prompts of one call name. */
export interface Embeddings {
  phrases: Map<string, Phrase>;
  /** by `referenceKey` */
  regions: Map<string, Region>;
}

export interface Calls {
  start: {
    ask: { description: Description; models: Record<Graph, Uint8Array>; threads: number | null; backend: "webgpu" | "wasm" | null };
    answer: DecoderInfo;
  };
  load: { ask: { digest: string; bytes: ArrayBuffer }; answer: string[] };
  window: { ask: { digest: string; window: Window; bytes: ArrayBuffer }; answer: null };
  decode: {
    /** "same": those of the call before */
    ask: { digest: string; objects: DecodeObject[]; embeddings: Embeddings; names: Names | "same" | null; how: How };
    answer: DecodedObject[];
  };
  adopt: { ask: { digest: string; bytes: ArrayBuffer }; answer: string };
  keep: { ask: { digest: string; handle: string }; answer: null };
  forget: { ask: { digest: string }; answer: null };
}

export type Kind = keyof Calls;

export type Ask = { [K in Kind]: { call: number; kind: K; ask: Calls[K]["ask"] } }[Kind];

export type Answer =
  | { call: number; ok: true; value: Calls[Kind]["answer"] }
  | { call: number; ok: false; code: DecoderErrorCode; message: string };
