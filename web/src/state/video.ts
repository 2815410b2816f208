/** A clip: its frames as photos, the masks that were tracked through it, and what the user gave on which frame. */

import { batch, computed, signal, type ReadonlySignal } from "@preact/signals";
import * as api from "../api";
import type { Prompt } from "../decoder/types";
import { Doc } from "./doc";
import { info } from "./engine";
import { finalRle, newObject, shapeOf, type Obj } from "./objects";
import { openPicture } from "./pictures";
import type { VideoRecord } from "./storage";

const SHOWN = 60; // frames without prompts that are kept
const HELD = 2; // clips that a server takes of a session, unless it says otherwise

export interface Upload {
  id: string;
  session: string | null;
}

const held: Video[] = []; // clips that the server has, the least recently used first

function drop(video: Video): void {
  if (held.includes(video)) held.splice(held.indexOf(video), 1);
}

function hold(video: Video): void {
  drop(video);
  held.push(video);
}

/** Sends a clip; where the server keeps no more of them, the one that was not used for longest goes. */
export async function sendVideo(blob: Blob, progress: (share: number) => void): Promise<api.VideoInfo> {
  const most = info.value?.limits["videos_per_session"] ?? HELD;
  while (held.length >= most) await held[0]?.forget();
  return api.uploadVideo(blob, progress);
}

export class Video {
  /** the frame that is wanted, and the one on the stage: the same as soon as the wanted one's picture is there */
  readonly frame = signal(0);
  readonly shown = signal(0);
  readonly doc = signal<Doc | null>(null);
  readonly moving = computed(() => this.frame.value !== this.shown.value);
  readonly tracked = signal<ReadonlyMap<number, readonly api.Segment[]>>(new Map());
  /** frames done of the running track, null while none runs */
  readonly tracking = signal<number | null>(null);
  readonly playing = signal(false);
  /** frames on which the user gave something */
  readonly given: ReadonlySignal<readonly number[]>;
  private readonly docs = signal<ReadonlyMap<number, Doc>>(new Map());
  private stopper: AbortController | null = null;
  /** where the server has it */
  readonly upload = signal<Upload | null>(null);
  private wanted = 0;
  private arrival: Promise<void> = Promise.resolve();

  constructor(
    readonly key: string,
    readonly name: string,
    readonly width: number,
    readonly height: number,
    readonly frames: number,
    readonly fps: number,
    readonly blob: Blob,
  ) {
    this.given = computed(() => [...this.docs.value].filter(([, d]) => givenIds(d).size > 0).map(([n]) => n));
  }

  /** `id` of an upload that this session just made. */
  uploaded(id: string): void {
    this.upload.value = { id, session: api.currentSession() };
    hold(this);
  }

  private async server(): Promise<string> {
    const { id, session } = this.upload.value ?? {};
    if (id === undefined || session !== api.currentSession()) {
      drop(this);
      this.uploaded((await sendVideo(this.blob, () => undefined)).video);
    } else {
      hold(this);
    }
    return this.upload.value?.id ?? "";
  }

  /** The server need not keep it; it is sent again if it is wanted again. */
  async forget(): Promise<void> {
    this.stop();
    drop(this);
    const { id, session } = this.upload.value ?? {};
    this.upload.value = null;
    if (id !== undefined && session === api.currentSession()) await api.removeVideo(id).catch(() => undefined);
  }

  private async ask<T>(call: (id: string) => Promise<T>): Promise<T> {
    try {
      return await call(await this.server());
    } catch (error) {
      if (!api.mustUpload(error)) throw error;
      this.upload.value = null;
      return call(await this.server());
    }
  }

  // ---- frames --------------------------------------------------------------------------------------------------------

  /** Puts a frame on the stage; until its picture is there, the one before stays, with its objects and its number. */
  show(n: number): Promise<void> {
    this.frame.value = Math.max(0, Math.min(this.frames - 1, Math.round(n)));
    return (this.arrival = this.turn(this.frame.value, ++this.wanted));
  }

  private async turn(frame: number, ticket: number): Promise<void> {
    try {
      const doc = this.docs.value.get(frame) ?? (await this.open(frame));
      if (ticket !== this.wanted) return; // another frame was asked for meanwhile
      await openPicture(doc);
      if (ticket !== this.wanted) return;
      const before = this.doc.value;
      if (before && before !== doc) {
        doc.view = before.view;
        if (before.selected.value !== null && doc.find(before.selected.value)) doc.selected.value = before.selected.value;
      }
      batch(() => ([this.doc.value, this.shown.value] = [doc, frame]));
    } catch (error) {
      if (ticket === this.wanted) this.frame.value = this.shown.value;
      throw error;
    }
  }

  /** The frame that a prompt given now belongs to: the one that was asked for, which may still be on its way. */
  async arrived(): Promise<Doc | null> {
    for (let awaited = 0; awaited !== this.wanted; ) {
      awaited = this.wanted;
      await this.arrival.catch(() => undefined);
    }
    return this.doc.value;
  }

  /** Stops playing at the frame that is on the stage. */
  pause(): void {
    if (!this.playing.value) return;
    this.playing.value = false;
    this.wanted++;
    this.frame.value = this.shown.value;
  }

  private async open(frame: number): Promise<Doc> {
    const blob = await this.ask((id) => api.frame(id, frame));
    const known = this.docs.value.get(frame);
    if (known) return known;
    const doc = new Doc(`${this.key}#${frame}`, `${this.name} · ${frame}`, this.width, this.height, blob);
    this.fill(doc, frame);
    this.keep(frame, doc);
    return doc;
  }

  private keep(frame: number, doc: Doc): void {
    const docs = new Map(this.docs.value).set(frame, doc);
    const idle = [...docs].filter(([n, d]) => n !== this.frame.value && d !== this.doc.value && !givenIds(d).size);
    for (const [n] of idle.slice(0, Math.max(0, idle.length - SHOWN))) docs.delete(n);
    this.docs.value = docs;
  }

  /** The tracked masks as a frame's objects, beside those that the user gave on it. */
  private fill(doc: Doc, frame: number): void {
    const mine = givenIds(doc);
    const found = (this.tracked.value.get(frame) ?? []).filter((s) => !mine.has(s.id) && s.area > 0);
    const known = this.identities();
    const objects: Obj[] = found.map((s) => {
      const like = doc.find(s.id) ?? known.get(s.id) ?? newObject(s.id, s.mask_rle);
      return { ...like, score: s.score, prompts: [], memory: null, shape: shapeOf(s.mask_rle, like.shape) };
    });
    doc.usedId(Math.max(0, ...known.keys()));
    const all = [...doc.objects.value.filter((o) => mine.has(o.id)), ...objects].sort((a, b) => a.id - b.id);
    doc.history.value = { ...doc.history.value, present: { ...doc.history.value.present, objects: all } };
    doc.selected.value ??= all[0]?.id ?? null;
  }

  /** Each object once, for its name and colour. */
  private identities(): Map<number, Obj> {
    const known = new Map<number, Obj>();
    for (const doc of this.docs.value.values()) for (const o of doc.objects.value) known.set(o.id, o);
    return known;
  }

  /** A name, a colour, or that it is hidden, holds on every frame. */
  everywhere(id: number, change: Partial<Pick<Obj, "name" | "colour" | "visible" | "locked">>): void {
    for (const doc of this.docs.value.values()) {
      const o = doc.find(id);
      if (o && doc !== this.doc.value) doc.amend({ ...o, ...change });
    }
  }

  removeEverywhere(id: number): void {
    for (const doc of this.docs.value.values()) doc.remove(id);
    const left = [...this.tracked.value].map(([n, found]) => [n, found.filter((s) => s.id !== id)] as const);
    this.tracked.value = new Map(left);
  }

  // ---- tracking ------------------------------------------------------------------------------------------------------

  /** What the user accepted on each frame, as masks: exactly what was seen goes on. */
  private prompts(): Record<number, Record<number, Prompt[]>> {
    const all: Record<number, Record<number, Prompt[]>> = {};
    for (const [frame, doc] of this.docs.value) {
      for (const id of givenIds(doc)) {
        const o = doc.find(id);
        if (o) (all[frame] ??= {})[id] = [{ type: "mask", rle: finalRle(o.shape) }];
      }
    }
    return all;
  }

  async track(): Promise<void> {
    const prompts = this.prompts();
    this.stopper?.abort();
    const stopper = (this.stopper = new AbortController());
    this.tracking.value = 0;
    const tracked = new Map(this.tracked.value);
    try {
      await this.ask(async (id) => {
        for await (const { frame, segments } of api.track(id, prompts, stopper.signal)) {
          tracked.set(frame, segments);
          this.tracked.value = new Map(tracked);
          this.tracking.value = (this.tracking.value ?? 0) + 1;
          this.refresh(frame);
        }
      });
    } catch (error) {
      if (!stopper.signal.aborted) throw error;
    } finally {
      if (this.stopper === stopper) [this.stopper, this.tracking.value] = [null, null];
    }
  }

  stop(): void {
    this.stopper?.abort();
  }

  private refresh(frame: number): void {
    const doc = this.docs.value.get(frame);
    if (doc) this.fill(doc, frame);
  }

  export(format: string): Promise<{ blob: Blob; name: string }> {
    return this.ask((id) => api.exportVideo(id, format));
  }

  async play(): Promise<void> {
    if (this.playing.value) return this.pause();
    this.playing.value = true;
    if (this.frame.value >= this.frames - 1) await this.show(0);
    const on = (): boolean => this.playing.value;
    while (on() && this.frame.value < this.frames - 1) {
      const began = performance.now();
      await this.show(this.frame.value + 1);
      const rest = 1000 / (this.fps || 25) - (performance.now() - began);
      await new Promise((done) => setTimeout(done, Math.max(0, rest)));
    }
    this.playing.value = false;
  }

  // ---- saved ---------------------------------------------------------------------------------------------------------

  toRecord(): VideoRecord {
    const { key, name, width, height, frames, fps } = this;
    const docs = [...this.docs.value].filter(([, d]) => givenIds(d).size > 0);
    const tracked = [...this.tracked.value].map(([n, s]) => [n, [...s]] as [number, api.Segment[]]);
    const upload = this.upload.value;
    return { key, name, width, height, frames, fps, upload, docs: docs.map(([frame, d]) => ({ frame, record: d.toRecord() })), tracked };
  }

  /** Frames with prompts come back when they are shown; their pictures are asked from the server again. */
  async restore(record: VideoRecord): Promise<void> {
    this.tracked.value = new Map(record.tracked);
    this.upload.value = record.upload ?? null;
    for (const { frame, record: saved } of record.docs) {
      const doc = Doc.fromRecord(saved, await this.ask((id) => api.frame(id, frame)));
      this.keep(frame, doc);
    }
  }
}

/** Objects of a frame that the user made or changed there. */
export function givenIds(doc: Doc): Set<number> {
  const ids = new Set<number>();
  const { past, present } = doc.history.value;
  for (const { event } of [...past, present]) {
    if (event?.event === "round" || event?.event === "set") for (const o of event.objects) ids.add(o.id);
  }
  for (const event of doc.archived) if (event.event === "round" || event.event === "set") for (const o of event.objects) ids.add(o.id);
  return new Set([...ids].filter((id) => present.objects.some((o) => o.id === id)));
}
