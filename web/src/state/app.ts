/** The project: its photos and clips, and everything that the user can do to them. */

import { batch, computed, effect, signal, untracked } from "@preact/signals";
import * as api from "../api";
import type { LogEvent } from "../core/log";
import { paint } from "../core/mask";
import { fill } from "../core/outline";
import { decodeRle, emptyMask, encodeRle, type Mask } from "../core/rle";
import type { DecodedObject, DecodeObject, Point, Previous, Prompt, ReferencePrompt, Rle, VisualPrompt } from "../decoder/types";
import { Doc, type Region } from "./doc";
import * as engine from "./engine";
import { t } from "./i18n";
import { finalOf, finalRle, newObject, shapeOf, shapeOfMask, type Obj, type Shape } from "./objects";
import * as storage from "./storage";
import { failed, toast } from "./toasts";
import { sendVideo, Video } from "./video";

export type Item = { kind: "image"; key: string; doc: Doc } | { kind: "video"; key: string; video: Video };

export const items = signal<readonly Item[]>([]);
export const activeKey = signal<string | null>(null);
export const activeItem = computed(() => items.value.find((i) => i.key === activeKey.value) ?? null);
export const activeVideo = computed(() => (activeItem.value?.kind === "video" ? activeItem.value.video : null));
/** the photo or frame on the stage */
export const current = computed(() =>
  activeItem.value?.kind === "image" ? activeItem.value.doc : (activeVideo.value?.doc.value ?? null),
);
export const images = computed(() => items.value.flatMap((i) => (i.kind === "image" ? [i.doc] : [])));
/** files that are being read or sent before they can be shown */
export const loading = signal<{ name: string; share: number | null } | null>(null);
/** whether the project of this browser was read */
export const restored = signal(false);
/** another tab holds the project: nothing of this one is saved */
export const unsaved = signal(false);

// ---- adding ----------------------------------------------------------------------------------------------------------

const IMAGE = /\.(jpe?g|png|webp|bmp|gif|tiff?)$/i;
const VIDEO = /\.(mp4|mov|m4v|mkv|webm|avi)$/i;

export async function addFiles(files: readonly File[]): Promise<void> {
  const known = files.filter((f) => f.type.startsWith("image/") || f.type.startsWith("video/") || IMAGE.test(f.name) || VIDEO.test(f.name));
  if (known.length < files.length) {
    const other = files.find((f) => !known.includes(f));
    toast(t("notMedia", { name: other?.name ?? "", n: files.length - known.length }), "error");
  }
  let first = true;
  for (const file of known) {
    try {
      const isVideo = file.type.startsWith("video/") || VIDEO.test(file.name);
      const key = isVideo ? await addVideo(file) : await addImage(file, file.name);
      if (first) activeKey.value = key;
      first = false;
    } catch (error) {
      failed(error);
    }
  }
}

/** The photo's size as it is shown; the server turns what this browser cannot read into something it can. */
async function measure(blob: Blob, name: string): Promise<{ blob: Blob; width: number; height: number }> {
  const bitmap = await createImageBitmap(blob).catch(() => null);
  if (bitmap) {
    const { width, height } = bitmap;
    bitmap.close();
    return { blob, width, height };
  }
  loading.value = { name, share: 0 };
  try {
    const { image, width, height } = await api.uploadImage(blob, (share) => (loading.value = { name, share }));
    return { blob: await api.picture(image), width, height };
  } catch (error) {
    throw error instanceof api.ApiError ? new Error(`${name}: ${error.message}`) : error;
  } finally {
    loading.value = null;
  }
}

async function addImage(blob: Blob, name: string): Promise<string> {
  const photo = await measure(blob, name);
  const doc = new Doc(crypto.randomUUID(), name, photo.width, photo.height, photo.blob);
  adoptImage(doc);
  if (!unsaved.value) void storage.saveBlob(doc.key, doc.blob).catch(cannotSave);
  return doc.key;
}

function adoptImage(doc: Doc): void {
  items.value = [...items.value, { kind: "image", key: doc.key, doc }];
  autosave(doc);
}

export async function addSample(id: string): Promise<void> {
  const sample = engine.info.value?.samples.find((s) => s.id === id);
  if (!sample) return;
  const name = `${sample.id}.jpg`;
  const known = images.value.find((d) => d.name === name && d.width === sample.width && d.height === sample.height);
  try {
    activeKey.value = known?.key ?? (await addImage(await api.samplePicture(sample.url), name));
  } catch (error) {
    failed(error);
  }
}

async function addVideo(file: File): Promise<string> {
  loading.value = { name: file.name, share: 0 };
  try {
    const about = await sendVideo(file, (share) => {
      loading.value = { name: file.name, share: share < 1 ? share : null };
    });
    const { width, height, frames, fps } = about;
    const video = new Video(crypto.randomUUID(), file.name, width, height, frames, fps, file);
    video.uploaded(about.video);
    adoptVideo(video);
    await video.show(0);
    if (!unsaved.value) void storage.saveBlob(video.key, file).catch(cannotSave);
    return video.key;
  } finally {
    loading.value = null;
  }
}

function adoptVideo(video: Video): void {
  items.value = [...items.value, { kind: "video", key: video.key, video }];
  autosaveVideo(video);
}

export function removeItem(key: string): void {
  const at = items.value.findIndex((i) => i.key === key);
  const item = items.value[at];
  if (!item) return;
  if (item.kind === "video") void item.video.forget();
  items.value = items.value.filter((i) => i.key !== key);
  if (activeKey.value === key) activeKey.value = (items.value[at] ?? items.value[at - 1])?.key ?? null;
  void storage.drop(key).catch(() => undefined);
}

export function step(by: number): void {
  const at = items.value.findIndex((i) => i.key === activeKey.value);
  const next = items.value[at + by];
  if (next) activeKey.value = next.key;
}

/** The photo on the stage is made ready, then the next one, so that it is there when it is wanted. */
effect(() => {
  const doc = current.value;
  if (!doc || !restored.value || !engine.backend.value) return; // and again when another decoder takes over
  untracked(() => void makeReady(doc));
});

async function makeReady(doc: Doc): Promise<void> {
  try {
    await engine.ensureScene(doc);
    const next = images.value[images.value.indexOf(doc) + 1];
    if (next?.stage.value === "waiting") await engine.ensureScene(next);
  } catch {
    // the stage shows the failure, with a button to try again
  }
}

// ---- rounds ----------------------------------------------------------------------------------------------------------

const digestDoc = (digest: string): Doc | undefined => images.value.find((d) => d.digest.value === digest);

function masksOf(doc: Doc): (id: number) => Previous | null {
  return (id) => {
    const o = doc.find(id);
    return o ? { rle: o.shape.rle } : null;
  };
}

/** What the next round reads: an empty mask that no round made is nothing to remember. */
function previousOf(o: Obj | undefined): Previous | null {
  if (!o) return null;
  return o.memory ?? (decodeRle(o.shape.rle).data.includes(1) ? { rle: o.shape.rle } : null);
}

export const isPositive = (p: Prompt): boolean => !("positive" in p) || p.positive !== false;

/** A mask of the model's as the object it now is. */
function afterRound(id: number, before: Obj | undefined, prompts: readonly Prompt[], found: DecodedObject): Obj {
  const { width, height, mask: data, box, area } = found;
  const shape = shapeOfMask({ width, height, data }, { box, area }, before?.shape);
  return {
    ...(before ?? newObject(id, shape.rle)),
    prompts,
    label: found.label ?? before?.label ?? null,
    labelScore: found.label === null ? (before?.labelScore ?? null) : found.labelScore,
    score: found.score,
    memory: found.memory,
    shape,
  };
}

/**
 * A round's mask gives way to the one from close up, when that is there. What comes in between, a newer prompt, undo, a
 * brush, wins; if the server cannot be asked, the mask stays.
 */
async function lookCloser(doc: Doc, made: Obj, asked: DecodeObject, first: DecodedObject): Promise<void> {
  doc.zooming.value++;
  try {
    const found = await engine.zoomed(doc, asked, first, () => doc.has(made.id, made.shape));
    if (!found || !doc.has(made.id, made.shape)) return;
    const { label, labelScore, score, memory, shape } = afterRound(made.id, made, made.prompts, found);
    doc.refine(made.id, made.shape, { label, labelScore, score, memory, shape });
  } finally {
    doc.zooming.value--;
  }
}

/** One more round of a photo's selected object, or the first of a new one. */
export async function prompt(doc: Doc, ...added: Prompt[]): Promise<void> {
  const active = doc.active.value;
  if (active?.locked) return toast(t("isLocked", { name: nameOf(active) }));
  const fresh = doc.selected.value === null;
  if (fresh && !added.some(isPositive)) return toast(t("startPositive"));
  const id = doc.selected.value ?? doc.newId();
  doc.selected.value = id; // the next prompt belongs to it, also if this one still waits for its mask
  try {
    await doc.enqueue(() => round(doc, id, added));
  } catch (error) {
    if (doc.selected.value === id && !doc.find(id)) doc.selected.value = null;
    failed(error);
  }
}

async function round(doc: Doc, id: number, added: Prompt[]): Promise<void> {
  const before = doc.find(id);
  const prompts = [...(before?.prompts ?? []), ...added];
  const asked = { id, prompts, previous: previousOf(before) };
  const seen = await engine.foreseen(doc, asked);
  const found = seen ?? (await engine.decode(doc, [asked], masksOf(doc), digestDoc))[0];
  if (!found) throw new Error("decode: no mask");
  const now = doc.find(id); // its name or colour may have changed meanwhile
  if (before && !now) return; // it was removed
  const made = afterRound(id, now, prompts, found);
  doc.put(made, { event: "round", objects: [{ id, prompts: added }] });
  if (found.wants) void lookCloser(doc, made, asked, found);
}

/** The selected object's mask if these prompts were given, without giving them; if they are given next, it is there. */
export async function previewOf(doc: Doc, added: Prompt[]): Promise<Mask | null> {
  const active = doc.active.value;
  if (active?.locked || !doc.digest.value) return null;
  const prompts = [...(active?.prompts ?? []), ...added];
  if (!active && !added.some(isPositive)) return null;
  const id = active?.id ?? 0;
  const found = await engine.previewRound(doc, { id, prompts, previous: previousOf(active ?? undefined) });
  return found ? { width: found.width, height: found.height, data: found.mask } : null;
}

// ---- masks that no prompt made ---------------------------------------------------------------------------------------

function setEvent(...objects: { id: number; rle: Rle }[]): LogEvent {
  return { event: "set", objects };
}

/** Brush or eraser on the selected object; a brush without one starts an object. */
export function stroke(doc: Doc, points: readonly Point[], width: number, inside: boolean): void {
  if (points.length === 0) return;
  const active = doc.active.value;
  if (active?.locked) return toast(t("isLocked", { name: nameOf(active) }));
  if (!active && !inside) return toast(t("eraseWhat"));
  const before = active ? finalOf(active.shape).mask : emptyMask(doc.width, doc.height);
  const rle = encodeRle(paint(before, points, width, inside));
  const id = active?.id ?? doc.newId();
  const shape: Shape = { ...shapeOf(rle), tolerance: 0 };
  doc.put({ ...(active ?? newObject(id, rle)), shape, memory: null }, setEvent({ id, rle }));
  doc.selected.value = id;
  if (!active) void suggest(doc, [id]);
}

/** Corners of the selected object's outline were moved. */
export function reshape(doc: Doc, outline: readonly (readonly Point[])[]): void {
  const active = doc.active.value;
  if (!active || active.locked) return;
  const rle = encodeRle(fill(outline, doc.width, doc.height));
  const shape: Shape = { ...active.shape, rle, outline };
  doc.put({ ...active, shape, memory: null }, setEvent({ id: active.id, rle }));
}

/** Masks from a list become objects. */
export function keep(doc: Doc, found: readonly Region[], names: "user" | "model"): void {
  if (found.length === 0) return;
  const objects = found.map((region): Obj => {
    const o = newObject(doc.newId(), region.rle);
    return { ...o, score: region.score, ...(names === "user" ? { name: region.name } : { label: region.name }) };
  });
  doc.commit([...doc.objects.value, ...objects], setEvent(...objects.map((o) => ({ id: o.id, rle: o.shape.rle }))));
  doc.selected.value = objects.at(-1)?.id ?? null;
}

export async function findAll(text: string): Promise<number> {
  const doc = current.value;
  if (!doc) return 0;
  try {
    const { segments } = await doc.enqueue(() => engine.withImage(doc, (digest) => api.find(digest, text)));
    keep(doc, segments.map((s) => ({ id: s.id, name: text, score: s.score, rle: s.mask_rle })), "user");
    toast(segments.length > 0 ? t("foundN", { n: segments.length, text }) : t("foundNone", { text }));
    return segments.length;
  } catch (error) {
    failed(error);
    return 0;
  }
}

const looking = new Map<Doc, Promise<void>>();

/** All regions of the photo, for picking. */
export function findRegions(doc: Doc): Promise<void> {
  const work = looking.get(doc) ?? lookForRegions(doc).finally(() => looking.delete(doc));
  looking.set(doc, work);
  return work;
}

async function lookForRegions(doc: Doc): Promise<void> {
  try {
    const { segments } = await doc.enqueue(() =>
      engine.withImage(doc, (digest) => api.panoptic(digest, engine.vocabulary())),
    );
    doc.regions.value = segments.map((s) => ({ id: s.id, name: s.label ?? "", score: s.score, rle: s.mask_rle }));
  } catch (error) {
    failed(error);
  }
}

/** Ask the model what objects are, where no round said it. */
async function suggest(doc: Doc, ids: number[]): Promise<void> {
  try {
    for (const id of ids) {
      const o = doc.find(id);
      if (!o || o.label !== null) continue;
      const rle = finalRle(o.shape);
      const { labels } = await engine.withImage(doc, (digest) => api.label(digest, rle, engine.vocabulary()));
      const best = labels[0]?.[0];
      const now = doc.find(id);
      if (best && now) doc.amend({ ...now, label: best.name, labelScore: best.probability });
    }
  } catch {
    // a name is a suggestion; without one the object keeps its number
  }
}

export async function candidates(doc: Doc, o: Obj): Promise<string[]> {
  if (!api.online.value) return [];
  try {
    const rle = finalRle(o.shape);
    const { labels } = await engine.withImage(doc, (digest) => api.label(digest, rle, engine.vocabulary()));
    return (labels[0] ?? []).map((l) => l.name);
  } catch {
    return [];
  }
}

// ---- objects ---------------------------------------------------------------------------------------------------------

export const nameOf = (o: Obj): string => o.name || o.label || t("objectN", { n: o.id });

type Meta = Partial<Pick<Obj, "name" | "colour" | "visible" | "locked">>;

/** Name and colour can be undone; what is hidden or locked cannot. */
export function change(id: number, meta: Meta): void {
  const doc = current.value;
  const o = doc?.find(id);
  if (!doc || !o) return;
  const next = { ...o, ...meta };
  if ("name" in meta || "colour" in meta) doc.put(next, null);
  else doc.amend(next);
  activeVideo.value?.everywhere(id, meta);
}

let knob: { id: number; doc: Doc } | null = null;

/** Clean-up and simplification; one drag of a knob is one step to undo. */
export function setShape(id: number, shape: Partial<Pick<Shape, "holes" | "specks" | "tolerance">>): void {
  const doc = current.value;
  const o = doc?.find(id);
  if (!doc || !o || o.locked) return;
  const next = { ...o, shape: { ...o.shape, ...shape, outline: null } };
  if (knob?.doc === doc && knob.id === id) doc.amend(next);
  else doc.put(next, null);
  knob = { id, doc };
}

export function knobReleased(): void {
  knob = null;
}

export function remove(id: number): void {
  const doc = current.value;
  const o = doc?.find(id);
  if (!doc || !o) return;
  if (o.locked) return toast(t("isLocked", { name: nameOf(o) }));
  if (activeVideo.value) activeVideo.value.removeEverywhere(id);
  else doc.remove(id);
}

export function newOne(): void {
  if (current.value) current.value.selected.value = null;
}

export function undo(): void {
  const doc = current.value;
  knobReleased();
  if (doc) void doc.enqueue(() => Promise.resolve(doc.undo()));
}

export function redo(): void {
  const doc = current.value;
  knobReleased();
  if (doc) void doc.enqueue(() => Promise.resolve(doc.redo()));
}

// ---- references ------------------------------------------------------------------------------------------------------

export async function promptReference(doc: Doc, other: Doc, prompts: VisualPrompt[]): Promise<void> {
  try {
    const image = await engine.ensureImage(other);
    await prompt(doc, ...prompts.map((p): ReferencePrompt => ({ type: "reference", image, prompt: p })));
  } catch (error) {
    failed(error);
  }
}

// ---- logs ------------------------------------------------------------------------------------------------------------

/** Does again what a log says, as one series of steps. */
export async function replay(events: readonly LogEvent[]): Promise<void> {
  const doc = current.value;
  if (!doc) return;
  await doc.enqueue(async () => {
    for (const event of events) await apply(doc, event);
  });
}

async function apply(doc: Doc, event: LogEvent): Promise<void> {
  switch (event.event) {
    case "undo":
      return doc.undo();
    case "redo":
      return doc.redo();
    case "remove":
      return doc.remove(event.id);
    case "set": {
      const changed = event.objects.map(({ id, rle }) => {
        decodeRle(rle); // throws if it is none
        doc.usedId(id);
        return { ...(doc.find(id) ?? newObject(id, rle)), shape: shapeOf(rle), memory: null };
      });
      return mergeObjects(doc, changed, event);
    }
    case "round": {
      const asked = event.objects.map(({ id, prompts }) => {
        const before = doc.find(id);
        doc.usedId(id);
        return { id, prompts: [...(before?.prompts ?? []), ...prompts], previous: previousOf(before) };
      });
      const first = await engine.decode(doc, asked, masksOf(doc), digestDoc);
      const found: DecodedObject[] = [];
      for (const [i, each] of first.entries()) found.push((await engine.zoomed(doc, asked[i]!, each)) ?? each);
      const changed = found.map((f, i) => afterRound(f.id, doc.find(f.id), asked[i]?.prompts ?? [], f));
      return mergeObjects(doc, changed, event);
    }
  }
}

function mergeObjects(doc: Doc, changed: readonly Obj[], event: LogEvent): void {
  const byId = new Map(changed.map((o) => [o.id, o]));
  const kept = doc.objects.value.map((o) => byId.get(o.id) ?? o);
  const added = changed.filter((o) => !doc.find(o.id));
  doc.commit([...kept, ...added], event);
  doc.selected.value = changed.at(-1)?.id ?? null;
}

// ---- export and import -----------------------------------------------------------------------------------------------

function exportImages(docs: readonly Doc[]): api.ExportImage[] {
  const taken = new Set<string>();
  return docs.map((doc) => {
    let name = doc.name;
    const dot = name.lastIndexOf(".") > 0 ? name.lastIndexOf(".") : name.length;
    for (let n = 2; taken.has(name.toLowerCase()); n++) name = `${doc.name.slice(0, dot)}-${n}${doc.name.slice(dot)}`;
    taken.add(name.toLowerCase());
    const objects = doc.objects.value.map((o) => ({
      id: o.id,
      name: nameOf(o),
      mask_rle: finalRle(o.shape),
      ...(o.score === null ? {} : { score: o.score }),
    }));
    return { image: doc.digest.value, file_name: name, width: doc.width, height: doc.height, objects };
  });
}

/** The file that the server makes of these photos' objects. Two formats hold the photos too, so those are sent first. */
export async function exportDocs(format: api.ExportFormat, docs: readonly Doc[]): Promise<{ blob: Blob; name: string }> {
  if (format === "cutout" || format === "project") for (const doc of docs) await engine.ensureImage(doc);
  try {
    return await api.exported(format, exportImages(docs));
  } catch (error) {
    if (!api.mustUpload(error)) throw error;
    for (const doc of docs) {
      doc.session = null;
      await engine.ensureImage(doc);
    }
    return api.exported(format, exportImages(docs));
  }
}

/** Objects of a COCO file onto the photos of the same names. Returns how many objects came, and what fitted nowhere. */
export async function importCoco(text: string): Promise<{ objects: number; missing: string[] }> {
  const { images: found } = await api.imported(JSON.parse(text) as unknown);
  const missing: string[] = [];
  let objects = 0;
  for (const image of found) {
    const base = (path: string): string => path.split("/").at(-1) ?? path;
    const doc = images.value.find(
      (d) => base(d.name) === base(image.file_name) && d.width === image.width && d.height === image.height,
    );
    if (!doc) {
      missing.push(image.file_name);
      continue;
    }
    objects += image.objects.length;
    const regions = image.objects.map((o) => ({ id: o.id, name: o.name, score: o.score ?? null, rle: o.mask_rle }));
    keep(doc, regions, "user");
  }
  return { objects, missing };
}

// ---- autosave --------------------------------------------------------------------------------------------------------

let warned = false;

function cannotSave(error: unknown): void {
  if (warned) return;
  warned = true;
  toast(`${t("cannotSave")} ${error instanceof Error ? error.message : ""}`.trim(), "error");
}

const dirty = new Map<string, () => Promise<void>>();
let timer = 0;

function later(key: string, save: () => Promise<void>): void {
  if (unsaved.value) return;
  dirty.set(key, save);
  timer ||= window.setTimeout(() => void flush(), 80);
}

/** Write what changed. */
export async function flush(): Promise<void> {
  clearTimeout(timer);
  timer = 0;
  const work = [...dirty.values()];
  dirty.clear();
  await Promise.all(work.map((save) => save().catch(cannotSave)));
}

function isKept(key: string): boolean {
  return items.value.some((i) => i.key === key);
}

function autosave(doc: Doc): void {
  effect(() => {
    void [doc.history.value, doc.digest.value];
    later(doc.key, () => (isKept(doc.key) ? storage.saveDoc(doc.toRecord()) : Promise.resolve()));
  });
}

function autosaveVideo(video: Video): void {
  effect(() => {
    void [video.given.value, video.tracked.value, video.upload.value];
    later(video.key, () => (isKept(video.key) ? storage.saveVideo(video.toRecord()) : Promise.resolve()));
  });
}

function watchProject(): void {
  effect(() => {
    const project = { items: items.value.map(({ kind, key }) => ({ kind, key })), active: activeKey.value };
    later("project", () => storage.saveProject(project));
  });
  const now = (): void => void flush();
  document.addEventListener("visibilitychange", now);
  window.addEventListener("pagehide", now);
}

/** One tab at a time owns the project. */
async function own(): Promise<boolean> {
  if (!("locks" in navigator)) return true;
  return new Promise((done) => {
    const signal = AbortSignal.timeout(3000); // a page that is being reloaded lets go within this
    navigator.locks
      .request("seem.project", { signal }, () => {
        done(true);
        return new Promise<never>(() => undefined); // held until the page closes
      })
      .catch(() => done(false));
  });
}

export async function restore(): Promise<void> {
  try {
    unsaved.value = !(await own());
    if (!unsaved.value) {
      const project = await storage.loadProject();
      for (const item of project.items) await restoreItem(item);
      batch(() => (activeKey.value = isKept(project.active ?? "") ? project.active : (items.value[0]?.key ?? null)));
      watchProject();
      void navigator.storage.persist();
    }
  } catch (error) {
    cannotSave(error);
  } finally {
    restored.value = true;
  }
}

async function restoreItem({ kind, key }: storage.Listed): Promise<void> {
  const blob = await storage.loadBlob(key);
  if (!blob) return;
  if (kind === "image") {
    const record = await storage.loadDoc(key);
    if (record) adoptImage(Doc.fromRecord(record, blob));
    return;
  }
  const record = await storage.loadVideo(key);
  if (!record) return;
  const { name, width, height, frames, fps } = record;
  const video = new Video(key, name, width, height, frames, fps, blob);
  items.value = [...items.value, { kind: "video", key, video }];
  // Its frames need the server; nothing is saved over the record until they are back.
  void video
    .restore(record)
    .then(() => video.show(record.docs[0]?.frame ?? 0))
    .then(() => autosaveVideo(video))
    .catch(failed);
}
