/** Who decodes, and that it has what it needs: photos at the server, scenes in the decoder. */

import { signal } from "@preact/signals";
import * as api from "../api";
import { DecoderError, type DecodedObject, type DecodeObject, type Decoder, type DecoderInfo, type How, type Window } from "../decoder/types";
import { decoded, RemoteDecoder } from "../remote";
import type { Doc } from "./doc";
import { ownNames, zoom } from "./settings";
import * as storage from "./storage";

export const info = signal<api.Info | null>(null);
export const backend = signal<DecoderInfo | null>(null);
/** why the server decodes, "" while this device does */
export const whyRemote = signal("");
/** milliseconds that the last round took to its mask */
export const lastMs = signal<number | null>(null);

let decoder: Decoder | null = null;
let starting: Promise<Decoder> | null = null;

export const isLocal = (): boolean => backend.value !== null && backend.value.backend !== "server";

async function startLocal(): Promise<void> {
  const forced = new URLSearchParams(location.search).get("decoder");
  if (forced === "server") throw new Error("?decoder=server");
  if (!info.value?.decoder.available) throw new DecoderError("unavailable", "the server has no decoder to send");
  const { createDecoder } = await import("../decoder");
  const local = createDecoder({
    baseUrl: api.base,
    fetch: api.sessionFetch,
    ...(forced === "wasm" ? { backend: "wasm" as const } : {}),
  });
  try {
    const about = await local.init();
    decoder?.close(); // handles of another decoder are gone: rounds go on from their masks
    decoder = local;
    starting = Promise.resolve(local);
    [backend.value, whyRemote.value] = [about, ""];
  } catch (error) {
    local.close();
    throw error;
  }
}

function switchToServer(why: string): Decoder {
  decoder?.close();
  const remote = new RemoteDecoder();
  whyRemote.value = why;
  backend.value = { backend: "server", threads: 0, bytes: 0 };
  decoder = remote;
  starting = Promise.resolve(remote);
  return remote;
}

const LOOK_EACH = 4; // seconds between questions whether the server has made its decoder
const LOOKS = 75;

/** The browser's decoder or, where there is none, the server; a server that is still making it is asked again. */
export function startDecoder(): Promise<Decoder> {
  starting ??= startLocal().then(
    () => startDecoder(),
    (error: unknown) => {
      if (info.value && !info.value.decoder.available) void localLater();
      return switchToServer(error instanceof Error ? error.message : String(error));
    },
  );
  return starting;
}

async function localLater(): Promise<void> {
  for (let looked = 0; looked < LOOKS; looked++) {
    await new Promise((done) => setTimeout(done, LOOK_EACH * 1000));
    const now = await api.info().catch(() => null);
    if (!now?.decoder.available) continue;
    info.value = now;
    try {
      await startLocal();
    } catch (error) {
      whyRemote.value = error instanceof Error ? error.message : String(error);
    }
    return;
  }
}

/** Names that labels are chosen from. */
export function names(): readonly string[] {
  return ownNames.value.length > 0 ? ownNames.value : (info.value?.vocabulary ?? []);
}

/** null: the model's own vocabulary. */
export const vocabulary = (): readonly string[] | null => (ownNames.value.length > 0 ? ownNames.value : null);

// ---- photos and scenes -----------------------------------------------------------------------------------------------

const uploads = new Map<Doc, Promise<string>>();
const scenes = new Map<Doc, Promise<void>>();

/** The server has this photo; returns its digest. */
export function ensureImage(doc: Doc): Promise<string> {
  const digest = doc.digest.value;
  if (digest !== null && doc.session !== null && doc.session === api.currentSession()) return Promise.resolve(digest);
  let upload = uploads.get(doc);
  if (!upload) {
    upload = send(doc).finally(() => uploads.delete(doc));
    uploads.set(doc, upload);
  }
  return upload;
}

async function send(doc: Doc): Promise<string> {
  const limit = info.value?.limits["body_bytes"];
  if (limit !== undefined && doc.blob.size > limit) {
    const mb = (bytes: number): string => (bytes / (1 << 20)).toFixed(1);
    throw new api.ApiError(413, "too_large", `${doc.name}: ${mb(doc.blob.size)} MB, this server takes ${mb(limit)} MB`);
  }
  const shown = doc.stage.value !== "ready";
  if (shown) [doc.stage.value, doc.share.value] = ["sending", 0];
  const { image } = await api.uploadImage(doc.blob, (share) => {
    if (!shown) return;
    [doc.stage.value, doc.share.value] = share < 1 ? ["sending", share] : ["encoding", null];
  });
  doc.session = api.currentSession();
  doc.digest.value = image;
  return image;
}

/** Call the server about a photo; send the photo first, and again if the server has forgotten it. */
export async function withImage<T>(doc: Doc, call: (digest: string) => Promise<T>): Promise<T> {
  try {
    return await call(await ensureImage(doc));
  } catch (error) {
    if (!api.mustUpload(error)) throw error;
    doc.session = null;
    return call(await ensureImage(doc));
  }
}

/** `decode` can be called for this photo. */
export function ensureScene(doc: Doc): Promise<void> {
  let work = scenes.get(doc);
  if (!work) {
    work = prepare(doc)
      .then(() => {
        doc.stage.value = "ready";
        doc.failure.value = "";
      })
      .catch((error: unknown) => {
        doc.stage.value = "failed";
        doc.failure.value = error instanceof Error ? error.message : String(error);
        throw error;
      })
      .finally(() => scenes.delete(doc));
    scenes.set(doc, work);
  }
  return work;
}

async function prepare(doc: Doc): Promise<void> {
  const by = await startDecoder();
  if (!isLocal()) {
    await ensureImage(doc);
    return;
  }
  const known = doc.digest.value;
  if (known !== null && by.hasScene(known)) return;
  const stored = known === null ? undefined : await storage.loadScene(sceneName(known)).catch(() => undefined);
  if (known !== null && stored) {
    await by.loadScene(known, stored);
    return;
  }
  const bytes = await withImage(doc, (digest) => {
    if (doc.stage.value !== "ready") [doc.stage.value, doc.share.value] = ["fetching", 0];
    return api.scene(digest, (share) => (doc.share.value = share));
  });
  const digest = doc.digest.value;
  if (digest === null) throw new Error("scene: no digest");
  await storage.saveScene(sceneName(digest), bytes.slice(0)).catch(() => undefined); // a full disk costs only the cache
  await by.loadScene(digest, bytes);
}

const sceneName = (digest: string): string => `${digest} ${info.value?.weights ?? ""}`;

// ---- rounds ----------------------------------------------------------------------------------------------------------

const TRIES = 4;

/**
 * One round. What the decoder has lost is brought back; if it cannot go on, the server takes over.
 *
 * @param masks gives an object's mask where the handle of its last round is not known any more
 * @param others photos that references point to, by digest
 */
export async function decode(
  doc: Doc,
  objects: DecodeObject[],
  masks: (id: number) => DecodeObject["previous"],
  others: (digest: string) => Doc | undefined,
): Promise<DecodedObject[]> {
  let listed: readonly string[] | null = names();
  let round = objects;
  const began = performance.now();
  for (let tried = 1; ; tried++) {
    const by = await startDecoder();
    await ensureScene(doc);
    try {
      if (!isLocal()) await sendReferences(round, others);
      const found = isLocal()
        ? await decodeHere(by, doc, round, listed, others)
        : await by.decode(doc.digest.value ?? "", round, listed, how());
      lastMs.value = performance.now() - began;
      return found;
    } catch (error) {
      if (!(error instanceof DecoderError) || error.code === "invalid" || tried >= TRIES) throw error;
      if (error.code === "no_memory") round = round.map((o) => ({ ...o, previous: masks(o.id) ?? null }));
      else if (error.code === "no_scene") doc.session = isLocal() ? doc.session : null;
      else if (error.code === "unavailable") {
        switchToServer(error.message);
        round = round.map((o) => ({ ...o, previous: masks(o.id) ?? null }));
      } else if (!needsServer(round) && listed?.length) {
        listed = null; // only the label needed the server: better no label than no mask
      } else {
        await api.whenOnline();
        await sendReferences(round, others, true);
      }
    }
  }
}

/**
 * A phrase, or a region of another photo, by itself: which of all dogs is "the dog on the left", how sure it is that a phrase
 * is meant, and what looks most like the region, is told from the regions of the whole photo, by the text encoder and by
 * looking closer. All are the server's, so it answers, as Python does.
 */
function isLookedFor({ prompts, previous }: DecodeObject): boolean {
  const type = prompts[0]?.type;
  return previous == null && prompts.length === 1 && (type === "text" || type === "reference");
}

type Others = (digest: string) => Doc | undefined;

async function decodeHere(
  by: Decoder,
  doc: Doc,
  objects: DecodeObject[],
  listed: readonly string[] | null,
  others: Others,
): Promise<DecodedObject[]> {
  const rest = objects.filter((o) => !isLookedFor(o));
  const [lookedFor, decodedHere] = await Promise.all([
    Promise.all(objects.filter(isLookedFor).map((o) => lookFor(by, doc, o, listed, others))),
    rest.length > 0 ? by.decode(doc.digest.value ?? "", rest, listed, how()) : [],
  ]);
  const found = new Map([...lookedFor, ...decodedHere].map((o) => [o.id, o]));
  return objects.flatMap(({ id }) => found.get(id) ?? []);
}

async function lookFor(
  by: Decoder,
  doc: Doc,
  object: DecodeObject,
  listed: readonly string[] | null,
  others: Others,
): Promise<DecodedObject> {
  const began = performance.now();
  const ask = { id: object.id, prompts: object.prompts, previous: null };
  const answer = (): Promise<DecodedObject> =>
    withImage(doc, async (digest) => {
      const [found] = (await api.segment(digest, [ask], listed?.length ? listed : null)).segments;
      if (!found) throw new Error("segment: no mask");
      const kept = api.roundMemory(digest, found.round).then((bytes) => by.adopt?.(digest, bytes) ?? null);
      return decoded(found, await kept.catch(() => null), performance.now() - began); // without it, the mask itself is read
    });
  if (object.prompts[0]?.type !== "reference") return answer();
  await sendReferences([object], others);
  try {
    return await answer();
  } catch (error) {
    if (!api.mustUpload(error)) throw error;
    await sendReferences([object], others, true); // what the server forgot was the other photo
    return answer();
  }
}

// ---- zooming in ------------------------------------------------------------------------------------------------------

const how = (): How => ({ zoom: zoom.value });

const MAX_WINDOWS = 8; // that one mask may want to see
const windows = new Map<string, Promise<void>>(); // on their way

/**
 * A round again, with the windows that its answer wanted; null where that came to nothing, and the answer stays.
 *
 * @param wanted whether the answer is still of use
 */
export async function zoomed(
  doc: Doc,
  object: DecodeObject,
  first: DecodedObject,
  wanted: () => boolean = () => true,
): Promise<DecodedObject | null> {
  let found = first;
  try {
    for (let seen = 0; found.wants && seen < MAX_WINDOWS; seen++) {
      await ensureWindow(doc, found.wants);
      if (!wanted() || !decoder || !isLocal()) return null;
      const [again] = await decoder.decode(doc.digest.value ?? "", [object], names(), how());
      if (!again) return null;
      found = again;
    }
  } catch {
    return null; // the server is away or full, or the photo is gone: the mask is as good as it was
  }
  return found === first ? null : found;
}

/** The decoder has the scene of a window, if the server can be asked for it. */
function ensureWindow(doc: Doc, window: Window): Promise<void> {
  const key = `${doc.key}@${window.join(",")}`;
  let work = windows.get(key);
  if (!work) {
    work = fetchWindow(doc, window).finally(() => windows.delete(key));
    windows.set(key, work);
  }
  return work;
}

async function fetchWindow(doc: Doc, window: Window): Promise<void> {
  if (!api.online.value) throw new api.ApiError(0, "offline", "the server does not answer");
  const bytes = await withImage(doc, (digest) => api.windowScene(digest, window));
  await decoder?.loadWindow?.(doc.digest.value ?? "", window, bytes);
}

function needsServer(objects: DecodeObject[]): boolean {
  return objects.some((o) => o.prompts.some((p) => p.type === "text" || p.type === "reference"));
}

async function sendReferences(
  objects: DecodeObject[],
  others: (digest: string) => Doc | undefined,
  again = false,
): Promise<void> {
  for (const prompt of objects.flatMap((o) => o.prompts)) {
    if (prompt.type !== "reference") continue;
    const other = others(prompt.image);
    if (!other) throw new DecoderError("invalid", "reference: its photo is not in this project any more");
    if (again) other.session = null;
    await ensureImage(other);
  }
}

interface Foresight {
  doc: Doc;
  asked: string;
  found: Promise<DecodedObject | null>;
  done: boolean;
}

let foresight: Foresight | null = null;

/** Everything that the mask and its name depend on. */
const question = ({ prompts, previous }: DecodeObject): string => JSON.stringify([prompts, previous, names(), zoom.value]);

/** What a round would give, if that can be told at once: null if the decoder is busy, away or has no scene. */
export async function previewRound(doc: Doc, object: DecodeObject): Promise<DecodedObject | null> {
  const digest = doc.digest.value;
  const asked = question(object);
  if (foresight?.doc === doc && foresight.asked === asked) return foresight.found;
  const busy = (foresight !== null && !foresight.done) || doc.pending.value > 0;
  if (busy || !decoder || !isLocal() || digest === null || !decoder.hasScene(digest)) return null;
  const found = decoder.decode(digest, [object], names(), { ...how(), preview: true }).then(
    (all) => all[0] ?? null,
    () => null, // a preview that fails is no preview; the click itself will say why
  );
  const mine: Foresight = (foresight = { doc, asked, found, done: false });
  void found.then(() => (mine.done = true));
  return found;
}

/** The round, if its preview was just made or is being made. */
export async function foreseen(doc: Doc, object: DecodeObject): Promise<DecodedObject | null> {
  const mine = foresight;
  if (mine?.doc !== doc || mine.asked !== question(object)) return null;
  const began = performance.now();
  const result = await mine.found;
  if (foresight === mine) foresight = null;
  if (!result) return null;
  if (result.memory !== null) decoder?.keep?.(doc.digest.value ?? "", result.memory);
  lastMs.value = performance.now() - began;
  return result;
}
