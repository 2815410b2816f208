/**
 * What the page and a decoder say to each other. `createDecoder` (./index.ts) runs the model's prompt decoder in a Web
 * Worker on this machine; the page's remote decoder asks the server and has the same interface.
 *
 * Coordinates are (x, y) in pixels of the photo as it is shown, origin top left; pixel (i, j) covers [i, i+1) × [j, j+1).
 * Prompts are the JSON of the server's and of Python's `to_json`.
 */

export type Point = [number, number];

export interface ClickPrompt {
  type: "click";
  x: number;
  y: number;
  /** true by default */
  positive?: boolean;
}

/** Half-open: x0 <= x < x1, y0 <= y < y1. What reaches over the photo's border is cut. */
export interface BoxPrompt {
  type: "box";
  xyxy: [number, number, number, number];
}

export interface ScribblePrompt {
  type: "scribble";
  points: Point[];
  /** brush width in pixels of the photo, 5 by default */
  width?: number;
  positive?: boolean;
}

export interface PolygonPrompt {
  type: "polygon";
  points: Point[];
  positive?: boolean;
}

/** A part of the photo, half-open: x0, y0, x1, y1 in whole pixels. */
export type Window = [number, number, number, number];

/** COCO run lengths, column by column; compressed ("counts" a string) or not. `size` is [height, width]. */
export interface Rle {
  size: [number, number];
  counts: string | number[];
}

export interface MaskPrompt {
  type: "mask";
  rle: Rle;
}

export interface TextPrompt {
  type: "text";
  text: string;
}

export type VisualPrompt = ClickPrompt | BoxPrompt | ScribblePrompt | PolygonPrompt | MaskPrompt;

/** A region of another image of this session: "find here what is shown there". */
export interface ReferencePrompt {
  type: "reference";
  /** "sha256:…" of the other image */
  image: string;
  prompt: VisualPrompt;
}

export type Prompt = VisualPrompt | TextPrompt | ReferencePrompt;

/**
 * The mask of the round before, which the model reads as memory: the `memory` of an earlier result of the same image,
 * or any mask of the photo's size.
 */
export type Previous = string | { rle: Rle };

export interface DecodeObject {
  id: number;
  /** all prompts of this object so far, at least one; only negative ones need `previous` */
  prompts: Prompt[];
  previous?: Previous | null;
}

export interface DecodedObject {
  id: number;
  width: number;
  height: number;
  /** height * width bytes, 1 inside, row by row; the caller's to keep */
  mask: Uint8Array;
  /** half-open [x0, y0, x1, y1] of the mask, null if it is empty */
  box: [number, number, number, number] | null;
  /** pixels inside */
  area: number;
  /** predicted IoU, 0..1 */
  score: number;
  /** the likeliest of the names that were given, null without any */
  label: string | null;
  labelScore: number | null;
  /**
   * Give it as `previous` in the object's next round; works until the scene is forgotten (or very many rounds later).
   * null: give the mask.
   */
  memory: string | null;
  /**
   * Of a decoder on this machine that is to zoom: a window that it has to see first. `loadWindow`, and ask the same again for a
   * finer mask.
   */
  wants?: Window | null;
  /** milliseconds that the whole call took where it was computed */
  ms: number;
}

export interface DecoderInfo {
  backend: "webgpu" | "wasm" | "server";
  threads: number;
  /** bytes fetched to get here, runtime and model together */
  bytes: number;
}

export interface How {
  /** its memory goes soon, unless `keep` is called */
  preview?: boolean;
  /** outline objects in windows of their own, once their outline is what counts */
  zoom?: boolean;
}

export interface Decoder {
  /** Fetch and start everything. Rejects if this browser cannot; then the server has to decode. Idempotent. */
  init(): Promise<DecoderInfo>;
  /** `bytes` is what GET /v1/images/{digest}/scene sent; it is transferred, so the caller loses it. */
  loadScene(digest: string, bytes: ArrayBuffer): Promise<void>;
  /** Whether `decode` can be called for this image; the least recently used scenes are dropped. */
  hasScene(digest: string): boolean;
  /**
   * One round of one or several objects. Phrases, names and references that are not known yet are asked from the server
   * first, once. Calls are answered in order. `names`: what labels are chosen from; null or [] for no labels.
   */
  decode(digest: string, objects: DecodeObject[], names?: readonly string[] | null, how?: How): Promise<DecodedObject[]>;
  /** A window's scene: `bytes` is what GET /v1/images/{digest}/scene?window= sent; the least recently used ones are dropped. */
  loadWindow?(digest: string, window: Window, bytes: ArrayBuffer): Promise<void>;
  /** A preview was accepted as the round. */
  keep?(digest: string, memory: string): void;
  /** Take a round that the server made as one of this decoder's: `bytes` of its logits -> its memory. */
  adopt?(digest: string, bytes: ArrayBuffer): Promise<string>;
  /** Drop a scene and the memories of its masks. */
  forget(digest: string): void;
  /** Stop the worker; pending calls reject. */
  close(): void;
}

export interface DecoderOptions {
  /** where the server is, "" for the page's own origin */
  baseUrl: string;
  /** adds the session's header or a bearer token; `fetch` by default */
  fetch?: typeof fetch;
  /** wasm threads; by default the number of cores less one, up to 4, 1 where the page is not cross-origin isolated */
  threads?: number;
  /** "wasm" leaves WebGPU alone, "webgpu" takes even one in software */
  backend?: "webgpu" | "wasm";
}

/** Why a call failed. `message` is one line for the user. */
export type DecoderErrorCode =
  /** a prompt or argument is wrong: the message names it, what was expected and what came */
  | "invalid"
  /** the scene is not (or no longer) loaded: fetch it, `loadScene`, and try again */
  | "no_scene"
  /** `previous` names a memory that is gone; give the mask instead */
  | "no_memory"
  /** the server did not answer, or refused */
  | "network"
  /** the runtime could not start, or stopped: use the server */
  | "unavailable";

export class DecoderError extends Error {
  constructor(
    readonly code: DecoderErrorCode,
    message: string,
  ) {
    super(message);
    this.name = "DecoderError";
  }
}
