/**
 * The server's HTTP contract. Sessions are opened when first needed and again when the server has forgotten them; a
 * server that does not answer is asked again until it does, so callers see slowness, not failure.
 */

import { signal } from "@preact/signals";
import type { DecodeObject, Prompt, Rle, Window } from "./decoder/types";

export interface Info {
  version: string;
  model: string;
  weights: string;
  vocabulary: string[];
  things: string[];
  limits: Record<string, number>;
  decoder: { available: boolean };
  samples: { id: string; name: string; url: string; width: number; height: number }[];
}

export interface Uploaded {
  image: string;
  width: number;
  height: number;
}

export interface Segment {
  id: number;
  mask_rle: Rle;
  score: number | null;
  label: string | null;
  label_score: number | null;
  box: [number, number, number, number] | null;
  area: number;
}

export interface VideoInfo {
  video: string;
  width: number;
  height: number;
  frames: number;
  fps: number;
}

export interface ExportObject {
  id: number;
  name: string;
  mask_rle: Rle;
  score?: number;
}

export interface ExportImage {
  image: string | null;
  file_name: string;
  width: number;
  height: number;
  objects: ExportObject[];
}

export type ExportFormat = "coco" | "yolo" | "labelme" | "masks" | "cutout" | "project";

/** The server said no, and why. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

/** Whether the server answers; false shows a banner, and `whenOnline` resolves when it does again. */
export const online = signal(true);
/** Set while the server wants a bearer token that we do not have. */
export const tokenWanted = signal(false);

const BUSY_TRIES = 6;
const WAITS = [0.5, 1, 2, 4, 8, 15]; // seconds between looking whether a lost server is back

export const base = new URL(".", document.baseURI).href.replace(/\/$/, "");

const sleep = (seconds: number): Promise<void> => new Promise((done) => setTimeout(done, seconds * 1000));

let waiters: (() => void)[] = [];
let watching = false;
let tries = 0;
let wake: (() => void) | null = null;

export function whenOnline(): Promise<void> {
  return online.value ? Promise.resolve() : new Promise((done) => waiters.push(done));
}

/** Look now instead of after the pause. */
export function retryNow(): void {
  tries = 0;
  wake?.();
}

export function lostServer(): void {
  online.value = false;
  if (!watching) void watch();
}

async function watch(): Promise<void> {
  watching = true;
  tries = 0;
  while (!online.value) {
    const pause = WAITS[Math.min(tries++, WAITS.length - 1)] ?? 1;
    await Promise.race([sleep(pause), new Promise<void>((done) => (wake = done))]);
    try {
      const answer = await fetch(`${base}/health/ready`, { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (answer.ok) online.value = true;
    } catch {
      // still away
    }
  }
  watching = false;
  const released = waiters;
  waiters = [];
  for (const done of released) done();
}

// ---- sessions --------------------------------------------------------------------------------------------------------

const SESSION = "seem.session";
const TOKEN = "seem.token";

let opening: Promise<string> | null = null;
let bearer = sessionStorage.getItem(TOKEN) ?? "";

export const currentSession = (): string | null => sessionStorage.getItem(SESSION);

export function useToken(token: string): void {
  bearer = token.trim();
  sessionStorage.setItem(TOKEN, bearer);
  tokenWanted.value = false;
}

function headers(session: string | null, more: HeadersInit | undefined): Headers {
  const all = new Headers(more);
  if (bearer) all.set("Authorization", `Bearer ${bearer}`);
  if (session !== null) all.set("X-Seem-Session", session);
  return all;
}

function openSession(): Promise<string> {
  const known = currentSession();
  if (known !== null) return Promise.resolve(known);
  opening ??= send("/v1/sessions", { method: "POST" }, null)
    .then((answer) => answer.json() as Promise<{ session: string }>)
    .then(({ session }) => {
      sessionStorage.setItem(SESSION, session);
      return session;
    })
    .finally(() => (opening = null));
  return opening;
}

/** The session that a request used is gone; the images it held have to be sent again. */
function forgetSession(session: string): void {
  if (currentSession() === session) sessionStorage.removeItem(SESSION);
}

// ---- requests --------------------------------------------------------------------------------------------------------

async function failure(answer: Response): Promise<ApiError> {
  let code = "error";
  let message = `${answer.status} ${answer.statusText}`.trim();
  try {
    const body = (await answer.json()) as { error?: { code?: string; message?: string } };
    code = body.error?.code ?? code;
    message = body.error?.message ?? message;
  } catch {
    // not JSON: the status has to do
  }
  return new ApiError(answer.status, code, message);
}

/**
 * One request; waits while the server is busy and, unless `patient` is false, while it is away. Throws ApiError for
 * every answer that is not a success; its status is 0 if there was none.
 */
async function send(path: string, init: RequestInit, session: string | null, patient = true): Promise<Response> {
  for (let busy = 0; ; ) {
    if (!online.value && !patient) throw new ApiError(0, "offline", "the server does not answer");
    await whenOnline();
    let answer: Response;
    try {
      answer = await fetch(base + path, { ...init, headers: headers(session, init.headers) });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      lostServer();
      continue;
    }
    if (answer.ok || answer.status === 304) return answer;
    if (answer.status === 502 || answer.status === 504) {
      lostServer(); // a proxy in front of a server that is away
      continue;
    }
    if ((answer.status === 503 || answer.status === 429) && busy++ < BUSY_TRIES) {
      await sleep(Math.min(10, Number(answer.headers.get("Retry-After") ?? 1) || 1));
      continue;
    }
    const error = await failure(answer);
    if (error.status === 401 && error.code === "token") tokenWanted.value = true;
    throw error;
  }
}

const sessionLost = (error: unknown): boolean =>
  error instanceof ApiError && error.status === 401 && error.code === "session";

/** Whether an image or video has to be sent again before the server can answer about it. */
export const mustUpload = (error: unknown): boolean => error instanceof ApiError && error.status === 404;

/** A request of this page's session; a new one if the server does not know it any more. */
export async function request(path: string, init: RequestInit = {}, patient = true): Promise<Response> {
  const session = await openSession();
  try {
    return await send(path, init, session, patient);
  } catch (error) {
    if (!sessionLost(error)) throw error;
    forgetSession(session);
    return send(path, init, await openSession(), patient);
  }
}

async function ask<T>(path: string, init?: RequestInit): Promise<T> {
  return (await request(path, init)).json() as Promise<T>;
}

function post(body: unknown, signal?: AbortSignal): RequestInit {
  const init: RequestInit = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  if (signal) init.signal = signal;
  return init;
}

/** `fetch` for the local decoder, whose addresses all start with `base`: opens sessions, waits for a busy server. */
export const sessionFetch: typeof fetch = async (input, init) => {
  const url = input instanceof Request ? input.url : String(input);
  try {
    return await request(url.slice(base.length), init, false);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const { status, code, message } = error;
    return Response.json({ error: { code, message } }, { status: status || 503 });
  }
};

// ---- calls -----------------------------------------------------------------------------------------------------------

export async function info(): Promise<Info> {
  return (await send("/v1/info", {}, null)).json() as Promise<Info>;
}

export const samplePicture = async (url: string): Promise<Blob> => (await send(url, {}, null)).blob();

/** Any bytes, with progress 0..1 while they leave. */
export async function upload<T>(path: string, body: Blob, progress: (share: number) => void): Promise<T> {
  const session = await openSession();
  await whenOnline();
  return new Promise<T>((done, fail) => {
    const sender = new XMLHttpRequest();
    sender.open("POST", base + path);
    headers(session, { "Content-Type": body.type || "application/octet-stream" }).forEach((value, name) =>
      sender.setRequestHeader(name, value),
    );
    sender.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    sender.onerror = () => {
      lostServer();
      fail(new ApiError(0, "offline", "the server does not answer"));
    };
    sender.onload = () => {
      if (sender.status >= 200 && sender.status < 300) return done(JSON.parse(sender.responseText) as T);
      const answer = new Response(sender.responseText, { status: sender.status, statusText: sender.statusText });
      const wait = Number(sender.getResponseHeader("Retry-After") ?? 1) || 1;
      void failure(answer).then((error) => {
        if (sessionLost(error)) forgetSession(session);
        if (error.code === "token") tokenWanted.value = true;
        fail(Object.assign(error, { wait }));
      });
    };
    sender.send(body);
  });
}

/** Send until it arrives: over a lost server, a full queue, a forgotten session. */
export async function uploadSurely<T>(path: string, body: Blob, progress: (share: number) => void): Promise<T> {
  for (let tried = 0; ; tried++) {
    try {
      return await upload<T>(path, body, progress);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 0) continue;
      const lost = sessionLost(error);
      if (tried >= BUSY_TRIES || !(error.status === 503 || error.status === 429 || lost)) throw error;
      await sleep(lost ? 0 : Math.min(10, (error as ApiError & { wait?: number }).wait ?? 1));
    }
  }
}

export const uploadImage = (body: Blob, progress: (share: number) => void): Promise<Uploaded> =>
  uploadSurely<Uploaded>("/v1/images", body, progress);

export const useSample = (id: string): Promise<Uploaded> =>
  ask<Uploaded>(`/v1/images/sample/${encodeURIComponent(id)}`, { method: "POST" });

export const uploadVideo = (body: Blob, progress: (share: number) => void): Promise<VideoInfo> =>
  uploadSurely<VideoInfo>("/v1/videos", body, progress);

export const removeVideo = (id: string): Promise<Response> => request(`/v1/videos/${id}`, { method: "DELETE" }, false);

/** The bytes of a window's scene; does not wait for a server that is away. */
export const windowScene = async (digest: string, window: Window): Promise<ArrayBuffer> =>
  (await request(`/v1/images/${digest}/scene?window=${window.join(",")}`, {}, false)).arrayBuffer();

/** The scene's bytes, with progress 0..1. */
export async function scene(digest: string, progress: (share: number) => void): Promise<ArrayBuffer> {
  const answer = await request(`/v1/images/${digest}/scene`);
  const total = Number(answer.headers.get("Content-Length") ?? 0);
  const parts: Uint8Array[] = [];
  let length = 0;
  const reader = answer.body?.getReader();
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
    parts.push(part.value);
    length += part.value.length;
    if (total > 0) progress(Math.min(1, length / total));
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes.buffer;
}

export const picture = async (digest: string): Promise<Blob> => (await request(`/v1/images/${digest}/picture`)).blob();

export interface RoundObject extends Omit<DecodeObject, "previous"> {
  /** the mask of the round before, or the round's id that the server gave with it */
  previous: null | { rle: Rle } | { round: string };
}

/** `vocabulary`: names that labels are chosen from; null for no labels. `zoom`: outline objects in windows of their own. */
export const segment = (
  digest: string,
  objects: RoundObject[],
  vocabulary: readonly string[] | null,
  zoom = false,
): Promise<{ segments: (Segment & { round: string })[] }> =>
  ask(`/v1/images/${digest}/segment`, post({ objects, vocabulary, label: vocabulary !== null, zoom }));

/** The memory that a round's answer left behind. */
export const roundMemory = async (digest: string, round: string): Promise<ArrayBuffer> =>
  (await request(`/v1/images/${digest}/rounds/${round}`)).arrayBuffer();

export const find = (digest: string, text: string, threshold?: number): Promise<{ segments: Segment[] }> =>
  ask(`/v1/images/${digest}/find`, post({ text, ...(threshold === undefined ? {} : { threshold }) }));

export const panoptic = (digest: string, vocabulary: readonly string[] | null): Promise<{ segments: Segment[] }> =>
  ask(`/v1/images/${digest}/panoptic`, post(vocabulary ? { vocabulary } : {}));

export const label = (
  digest: string,
  mask: Rle,
  vocabulary: readonly string[] | null,
): Promise<{ labels: { name: string; probability: number }[][] }> =>
  ask(`/v1/images/${digest}/label`, post({ mask_rle: mask, top: 5, ...(vocabulary ? { vocabulary } : {}) }));

export async function exported(format: ExportFormat, images: ExportImage[]): Promise<{ blob: Blob; name: string }> {
  const answer = await request("/v1/export", post({ format, images }));
  return { blob: await answer.blob(), name: fileName(answer, `seem-${format}`) };
}

export const imported = (coco: unknown): Promise<{ images: Omit<ExportImage, "image">[] }> =>
  ask("/v1/import", post(coco));

export const frame = async (video: string, n: number): Promise<Blob> =>
  (await request(`/v1/videos/${video}/frames/${n}`)).blob();

export interface TrackedFrame {
  frame: number;
  segments: Segment[];
}

/** Frame after frame as the server finds them; abort the signal to stop. */
export async function* track(
  video: string,
  prompts: Record<number, Record<number, Prompt[]>>,
  signal: AbortSignal,
): AsyncGenerator<TrackedFrame> {
  const answer = await request(`/v1/videos/${video}/track`, post({ prompts }, signal));
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
    const lines = (rest + part.value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (!line.trim()) continue;
      const value = JSON.parse(line) as TrackedFrame | { error: { code: string; message: string } };
      if ("error" in value) throw new ApiError(422, value.error.code, value.error.message);
      yield value;
    }
  }
}

export async function exportVideo(video: string, format: string): Promise<{ blob: Blob; name: string }> {
  const answer = await request(`/v1/videos/${video}/export?format=${encodeURIComponent(format)}`);
  return { blob: await answer.blob(), name: fileName(answer, `seem-video-${format}`) };
}

function fileName(answer: Response, fallback: string): string {
  const given = /filename="?([^";]+)"?/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1];
  const json = (answer.headers.get("Content-Type") ?? "").includes("json");
  return given ?? `${fallback}.${json ? "json" : "zip"}`;
}
