/** One photo, or one frame of a video, with its objects and their history. */

import { computed, signal, type ReadonlySignal } from "@preact/signals";
import * as history from "../core/history";
import type { LogEvent, PromptLog } from "../core/log";
import type { View } from "../core/view";
import type { Obj, Shape } from "./objects";

/** A step of the history: the objects after it, and what led there (null: nothing that a log would tell). */
export interface Step {
  readonly objects: readonly Obj[];
  readonly event: LogEvent | null;
}

export type Stage = "waiting" | "sending" | "encoding" | "fetching" | "ready" | "failed";

export interface Region {
  id: number;
  name: string;
  score: number | null;
  rle: import("../decoder/types").Rle;
}

const STEPS = 100; // that can be undone; older ones stay in the log

export class Doc {
  /** "sha256:…" of the pixels, null until the server has said it */
  readonly digest = signal<string | null>(null);
  readonly stage = signal<Stage>("waiting");
  /** of the current stage, 0..1; null if unknown */
  readonly share = signal<number | null>(null);
  readonly failure = signal("");
  readonly selected = signal<number | null>(null);
  readonly history = signal(history.start<Step>({ objects: [], event: null }));
  /** prompts that wait for their mask */
  readonly pending = signal(0);
  /** masks that are being looked at from close up */
  readonly zooming = signal(0);
  readonly regions = signal<readonly Region[] | null>(null);
  /** its pixels for drawing, while it is on the stage */
  readonly picture = signal<ImageBitmap | null>(null);
  view: View | null = null;
  /** the session in which the server has this photo */
  session: string | null = null;
  /** events of steps that are too old to be undone */
  archived: LogEvent[] = [];
  /** rounds run one after another */
  private last: Promise<unknown> = Promise.resolve();
  private ids = 0;

  readonly objects: ReadonlySignal<readonly Obj[]> = computed(() => this.history.value.present.objects);
  readonly active: ReadonlySignal<Obj | null> = computed(
    () => this.objects.value.find((o) => o.id === this.selected.value) ?? null,
  );

  constructor(
    readonly key: string,
    readonly name: string,
    readonly width: number,
    readonly height: number,
    readonly blob: Blob,
  ) {}

  find(id: number): Obj | undefined {
    return this.objects.value.find((o) => o.id === id);
  }

  /** A number that no object of this photo had. */
  newId(): number {
    return ++this.ids;
  }

  usedId(id: number): void {
    this.ids = Math.max(this.ids, id);
  }

  /** Run when everything before is done. */
  enqueue<T>(work: () => Promise<T>): Promise<T> {
    this.pending.value++;
    const run = this.last.then(work).finally(() => this.pending.value--);
    this.last = run.catch(() => undefined);
    return run;
  }

  commit(objects: readonly Obj[], event: LogEvent | null): void {
    const [kept, dropped] = history.trim(history.push(this.history.value, { objects, event }), STEPS);
    this.archived.push(...dropped.flatMap((step) => step.event ?? []));
    this.history.value = kept;
  }

  /** Replace or add one object as a step that can be undone. */
  put(object: Obj, event: LogEvent | null): void {
    const objects = this.objects.value;
    const known = objects.some((o) => o.id === object.id);
    this.commit(known ? objects.map((o) => (o.id === object.id ? object : o)) : [...objects, object], event);
  }

  /** Replace one object in the present step. */
  amend(object: Obj): void {
    const objects = this.objects.value.map((o) => (o.id === object.id ? object : o));
    this.history.value = history.amend(this.history.value, { ...this.history.value.present, objects });
  }

  /** Whether an object still has this shape. */
  has(id: number, shape: Shape): boolean {
    return this.find(id)?.shape === shape;
  }

  /** An object's mask gave way to a finer one of the same round: in every step that has it, so that undo meets no other. */
  refine(id: number, shape: Shape, finer: Partial<Obj>): void {
    const refined = (step: Step): Step => ({
      ...step,
      objects: step.objects.map((o) => (o.id === id && o.shape === shape ? { ...o, ...finer } : o)),
    });
    const { past, present, future } = this.history.value;
    this.history.value = { past: past.map(refined), present: refined(present), future: future.map(refined) };
  }

  remove(id: number): void {
    if (!this.find(id)) return;
    this.commit(
      this.objects.value.filter((o) => o.id !== id),
      { event: "remove", id },
    );
    if (this.selected.value === id) this.selected.value = null;
  }

  undo(): void {
    this.history.value = history.undo(this.history.value);
    this.keepSelection();
  }

  redo(): void {
    this.history.value = history.redo(this.history.value);
    this.keepSelection();
  }

  private keepSelection(): void {
    if (this.selected.value !== null && !this.find(this.selected.value)) {
      this.selected.value = this.objects.value.at(-1)?.id ?? null;
    }
  }

  /** What led to the masks as they are now; what was undone is not in it. */
  log(): PromptLog {
    const { past, present } = this.history.value;
    const events = [...this.archived, ...[...past, present].flatMap((step) => step.event ?? [])];
    return { version: 1, image: this.digest.value ?? "", events };
  }

  // ---- saved ---------------------------------------------------------------------------------------------------------

  toRecord(): DocRecord {
    const { key, name, width, height, ids, archived } = this;
    const { past, present } = this.history.value;
    return { key, name, width, height, ids, archived, digest: this.digest.value, steps: [...past, present] };
  }

  static fromRecord(record: DocRecord, blob: Blob): Doc {
    const doc = new Doc(record.key, record.name, record.width, record.height, blob);
    // Handles of rounds belong to a decoder that is gone; the masks themselves take their place.
    const steps = record.steps.map((s) => ({ ...s, objects: s.objects.map((o) => ({ ...o, memory: null })) }));
    const present = steps.at(-1) ?? { objects: [], event: null };
    doc.history.value = { past: steps.slice(0, -1), present, future: [] };
    doc.archived = record.archived;
    doc.ids = record.ids;
    doc.digest.value = record.digest;
    doc.selected.value = present.objects.at(-1)?.id ?? null;
    return doc;
  }
}

export interface DocRecord {
  key: string;
  name: string;
  width: number;
  height: number;
  ids: number;
  archived: LogEvent[];
  digest: string | null;
  steps: Step[];
}
