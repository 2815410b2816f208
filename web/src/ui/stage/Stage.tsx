/** The photo: looks at it, and turns pointer and keyboard into prompts. */

import { effect, untracked, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { nearestVertex } from "../../core/outline";
import { decodeRle, type Mask } from "../../core/rle";
import { fit, keepInSight, pan, pinch, toPhoto, zoom, type View } from "../../core/view";
import type { Point, Prompt } from "../../decoder/types";
import * as app from "../../state/app";
import type { Doc, Region } from "../../state/doc";
import { ensureScene, isLocal } from "../../state/engine";
import { t } from "../../state/i18n";
import { finalOf } from "../../state/objects";
import { openPicture } from "../../state/pictures";
import { preview as previewOn } from "../../state/settings";
import * as tools from "../../state/tools";
import { toast } from "../../state/toasts";
import { polygon } from "./draft";
import { NEGATIVE, Painter, POSITIVE, type Draft } from "./painter";


const PREVIEW_MS = 90; // between two previews
const SLACK = 8; // pixels that a click may move
const ROUND = 12; // pixels around a polygon's first corner that close it

/** One canvas for all photos and frames: what comes while another one is put on it is neither lost nor given to the wrong one. */
export function Stage({ doc }: { doc: Doc }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const surface = useRef<Surface | null>(null);
  // Layout effects run before the browser takes the next event; an effect after painting would leave a gap.
  useLayoutEffect(() => {
    const made = new Surface(canvas.current!, doc);
    surface.current = made;
    return () => made.close();
  }, []);
  useLayoutEffect(() => surface.current?.show(doc), [doc]);
  const preparing = doc.stage.value !== "ready" || doc.picture.value === null;
  const busy = preparing || doc.pending.value > 0 || (app.activeVideo.value?.moving.value ?? false);
  return (
    <div class="stage">
      <canvas
        ref={canvas}
        tabIndex={0}
        role="application"
        aria-label={t("stageLabel")}
        aria-busy={busy}
        data-zooming={doc.zooming.value > 0}
        data-testid="stage"
        data-tool={tools.tool.value}
      />
      <Preparing doc={doc} />
    </div>
  );
}

function Preparing({ doc }: { doc: Doc }) {
  const stage = doc.stage.value;
  if (stage === "ready") return doc.pending.value > 0 ? <Working /> : null;
  if (stage === "failed") {
    return (
      <div class="preparing" role="alert">
        <span>
          {t("failedToPrepare")} {doc.failure.value}
        </span>
        <button type="button" onClick={() => void ensureScene(doc).catch(() => undefined)}>
          {t("retry")}
        </button>
      </div>
    );
  }
  const share = doc.share.value;
  return (
    <div class="preparing" role="status">
      <span>{t(stage)}</span>
      <progress aria-label={t(stage)} max={1} {...(share === null ? {} : { value: share })} />
    </div>
  );
}

const PATIENCE_MS = 200;

/** A moving bar, for what takes longer than a click does: moving it takes from the decoder's time. */
function Working() {
  const long = useSignal(false);
  useEffect(() => {
    const timer = setTimeout(() => (long.value = true), PATIENCE_MS);
    return () => clearTimeout(timer);
  }, []);
  return long.value ? <div class="working" role="presentation" /> : null;
}

/** What the canvas needs to be worked on. */
class Surface {
  private readonly painter: Painter;
  private readonly pointers = new Map<number, Point>();
  private readonly undo: (() => void)[] = [];
  private readonly unwatch: (() => void)[] = []; // of the photo that is shown
  private next: Doc | null = null; // is shown when the stroke that is being drawn has ended
  private target: Doc | Promise<Doc | null>; // the stroke's
  private view: View = { scale: 1, x: 0, y: 0 };
  private fitted = true;
  private frame = 0;
  private draft: Draft | null = null;
  private positive = true;
  private mode: "idle" | "pan" | "draw" | "pinch" | "corner" = "idle";
  private start: Point = [0, 0];
  private pressed: Point = [0, 0]; // on the photo
  private pointer: Point | null = null; // on the photo
  private cursor: Point | null = null;
  private space = false;
  private preview: Mask | null = null;
  private previewAt: Point | null = null;
  private previewTimer = 0;
  private hovered: Region | null = null;
  private corners: Point[][] | null = null;
  private held: { loop: number; vertex: number } | null = null;

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private doc: Doc,
  ) {
    this.target = doc;
    this.painter = new Painter(canvas);
    this.painter.labelOf = app.nameOf;
    this.listen();
    const resized = new ResizeObserver(() => this.resize());
    resized.observe(canvas);
    this.undo.push(() => resized.disconnect());
    this.watch();
    this.begin();
  }

  close(): void {
    for (const undo of [...this.undo, ...this.unwatch]) undo();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.previewTimer);
    polygon.value = null;
  }

  /** Another photo or frame; under a stroke that the pointer is drawing, when that has ended. */
  show(doc: Doc): void {
    this.next = doc === this.doc ? null : doc;
    if (this.pointers.size === 0 || this.mode === "idle") this.turn();
  }

  private turn(): void {
    const { doc, next } = this;
    if (!next) return;
    this.next = null;
    for (const undo of this.unwatch.splice(0)) undo();
    this.doc = next;
    this.cancel();
    this.left();
    polygon.value = null;
    if (doc.width !== next.width || doc.height !== next.height) this.cursor = null;
    this.begin();
    this.draw();
  }

  private begin(): void {
    [this.view, this.fitted] = this.doc.view ? [this.doc.view, false] : [fit(this.doc, this.size()), true];
    this.watchDoc();
  }

  private listen(): void {
    const on = <K extends keyof HTMLElementEventMap>(name: K, handler: (event: HTMLElementEventMap[K]) => void): void => {
      this.canvas.addEventListener(name, handler, { passive: false });
      this.undo.push(() => this.canvas.removeEventListener(name, handler));
    };
    on("pointerdown", (e) => this.down(e));
    on("pointermove", (e) => this.move(e));
    on("pointerup", (e) => this.up(e));
    on("pointercancel", (e) => this.lost(e));
    on("pointerleave", () => this.left());
    on("wheel", (e) => this.wheel(e));
    on("dblclick", () => this.closePolygon());
    on("contextmenu", (e) => e.preventDefault());
    on("keydown", (e) => this.key(e));
    on("keyup", (e) => e.key === " " && this.setSpace(false));
    on("blur", () => {
      this.cursor = null;
      this.setSpace(false);
      this.request();
    });
  }

  private watchDoc(): void {
    const { doc } = this;
    this.unwatch.push(
      effect(() => {
        void [doc.history.value, doc.selected.value, doc.regions.value, doc.picture.value];
        this.corners = null;
        this.preview = null;
        this.request();
      }),
      effect(() => {
        if (doc.picture.value !== null) return;
        untracked(() => void openPicture(doc).catch(() => toast(t("failedToPrepare"), "error")));
      }),
      effect(() => {
        if (tools.tool.value !== "everything" || doc.regions.value !== null || doc.stage.value !== "ready") return;
        untracked(() => void app.findRegions(doc));
      }),
    );
  }

  private watch(): void {
    this.undo.push(
      effect(() => {
        void [polygon.value, tools.width.value, tools.include.value];
        this.preview = null;
        this.request();
      }),
      effect(() => {
        const tool = tools.tool.value;
        untracked(() => this.toolChosen(tool));
      }),
    );
    let seen = tools.viewWish.peek().n;
    this.undo.push(
      effect(() => {
        const { wish, n } = tools.viewWish.value;
        if (n === seen) return;
        seen = n;
        if (wish === "fit") this.refit();
        else this.zoomBy(wish === "in" ? 1.4 : 1 / 1.4, this.middle());
      }),
    );
  }

  private toolChosen(tool: tools.Tool): void {
    this.cancel();
    this.preview = this.hovered = null;
    if (tool !== "polygon") polygon.value = null;
    if (tool === "corners") this.askForCorners();
    this.canvas.style.cursor = tool === "pan" ? "grab" : tool === "brush" || tool === "eraser" ? "none" : "crosshair";
    this.request();
  }

  private askForCorners(): void {
    const active = this.doc.active.peek();
    if (active && finalOf(active.shape).corners.length === 0) toast(t("simplifyFirst"));
  }

  // ---- view ----------------------------------------------------------------------------------------------------------

  private size(): { width: number; height: number } {
    return { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
  }

  private middle(): Point {
    const { width, height } = this.size();
    return [width / 2, height / 2];
  }

  private resize(): void {
    const { width, height } = this.size();
    if (width === 0 || height === 0) return;
    this.canvas.width = Math.round(width * devicePixelRatio);
    this.canvas.height = Math.round(height * devicePixelRatio);
    if (this.fitted) this.view = fit(this.doc, this.size());
    this.draw();
  }

  private refit(): void {
    this.fitted = true;
    this.doc.view = null;
    this.view = fit(this.doc, this.size());
    this.request();
  }

  private setView(view: View): void {
    this.fitted = false;
    this.view = keepInSight(view, this.doc, this.size());
    this.doc.view = this.view;
    this.request();
  }

  private zoomBy(factor: number, at: Point): void {
    this.setView(zoom(this.view, factor, at, this.least()));
  }

  private least(): number {
    return Math.min(0.5 * fit(this.doc, this.size()).scale, 1);
  }

  private wheel(event: WheelEvent): void {
    event.preventDefault();
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? event.deltaY * 33 : event.deltaY;
    this.zoomBy(Math.exp(-Math.max(-120, Math.min(120, pixels)) * (event.ctrlKey ? 0.01 : 0.002)), this.at(event));
  }

  private at(event: MouseEvent): Point {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // ---- drawing -------------------------------------------------------------------------------------------------------

  private request(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  private draw(): void {
    const tool = tools.tool.peek();
    const ringed = tool === "brush" || tool === "eraser" || tool === "scribble";
    const at = this.cursor ?? this.pointer;
    const drawn = polygon.peek();
    const draft: Draft | null = drawn ? { kind: "polygon", ...drawn, at } : this.draft;
    this.painter.draw({
      doc: this.doc,
      bitmap: this.doc.picture.peek(),
      view: this.view,
      draft,
      preview: this.preview,
      regions: tool === "everything" ? this.doc.regions.peek() : null,
      hovered: tool === "everything" ? this.hovered : null,
      corners: tool === "corners" ? this.currentCorners() : null,
      ring: ringed && at && this.mode !== "pan" ? { at, width: this.strokeWidth() } : null,
      cursor: this.cursor,
    });
    this.canvas.dataset["view"] = JSON.stringify(this.view);
  }

  private currentCorners(): Point[][] {
    const active = this.doc.active.peek();
    if (!active) return [];
    this.corners ??= finalOf(active.shape).corners.map((loop) => loop.map(([x, y]): Point => [x, y]));
    return this.corners;
  }

  private strokeWidth(): number {
    return Math.max(1, tools.width.peek() / this.view.scale);
  }

  // ---- pointers ------------------------------------------------------------------------------------------------------

  private down(event: PointerEvent): void {
    this.canvas.focus({ preventScroll: true });
    this.cursor = null;
    try {
      this.canvas.setPointerCapture(event.pointerId);
    } catch {
      // a synthetic event has no pointer to capture
    }
    this.pointers.set(event.pointerId, this.at(event));
    if (this.pointers.size === 2) {
      this.cancel();
      this.mode = "pinch";
      return;
    }
    if (this.pointers.size > 2) return;
    this.start = this.at(event);
    if (event.button === 1 || this.space || tools.tool.value === "pan") {
      this.mode = "pan";
      this.canvas.style.cursor = "grabbing";
      return;
    }
    if (event.button !== 0 && event.button !== 2) return;
    const other = event.button === 2 || event.altKey;
    this.press(toPhoto(this.view, this.start), tools.include.value !== other);
  }

  private move(event: PointerEvent): void {
    const at = this.at(event);
    const known = this.pointers.get(event.pointerId);
    this.pointer = toPhoto(this.view, at);
    if (known) {
      if (this.mode === "pinch") return this.pinched(event.pointerId, at);
      if (this.mode === "pan") this.setView(pan(this.view, at[0] - known[0], at[1] - known[1]));
      this.pointers.set(event.pointerId, at);
      const points = event.getCoalescedEvents().map((e) => toPhoto(this.view, this.at(e)));
      this.drag(points.length > 0 ? points : [this.pointer]);
    } else if (event.pointerType !== "touch") {
      this.hover(event.altKey);
    }
    this.request();
  }

  private pinched(id: number, at: Point): void {
    const [first, second] = [...this.pointers.keys()];
    if (first === undefined || second === undefined) return;
    const get = (key: number): Point => this.pointers.get(key) ?? at;
    const before: [Point, Point] = [get(first), get(second)];
    this.pointers.set(id, at);
    this.setView(pinch(this.view, before, [get(first), get(second)], this.least()));
  }

  private up(event: PointerEvent): void {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.mode === "pinch") {
      if (this.pointers.size === 0) this.mode = "idle";
      return this.turn();
    }
    if (this.mode === "pan") {
      this.mode = "idle";
      this.turn();
      this.canvas.style.cursor = tools.tool.value === "pan" ? "grab" : "crosshair";
      return;
    }
    const at = this.at(event);
    const moved = Math.hypot(at[0] - this.start[0], at[1] - this.start[1]);
    this.release(toPhoto(this.view, at), moved);
    this.turn();
  }

  private lost(event: PointerEvent): void {
    this.pointers.delete(event.pointerId);
    this.cancel();
    this.turn();
  }

  private left(): void {
    this.pointer = null;
    this.hovered = this.preview = this.previewAt = null;
    clearTimeout(this.previewTimer);
    this.previewTimer = 0;
    this.request();
  }

  // ---- what tools do -------------------------------------------------------------------------------------------------

  /** Does something to the photo or frame that the stroke was meant for. */
  private give(act: (doc: Doc) => void): void {
    if (this.target instanceof Promise) void this.target.then((doc) => doc && act(doc));
    else act(this.target);
  }

  private inside([x, y]: Point): boolean {
    return x >= 0 && y >= 0 && x < this.doc.width && y < this.doc.height;
  }

  private clamp([x, y]: Point): Point {
    return [Math.max(0, Math.min(this.doc.width, x)), Math.max(0, Math.min(this.doc.height, y))];
  }

  private press(at: Point, positive: boolean): void {
    const video = app.activeVideo.peek();
    video?.pause();
    this.target = video?.moving.peek() ? video.arrived() : this.doc;
    this.positive = positive;
    this.pressed = at;
    this.mode = "draw";
    this.preview = null;
    const colour = positive ? POSITIVE : NEGATIVE;
    switch (tools.tool.value) {
      case "box":
        this.draft = { kind: "box", from: this.clamp(at), to: this.clamp(at) };
        break;
      case "scribble":
        this.draft = { kind: "line", points: [at], width: this.strokeWidth(), colour };
        break;
      case "brush":
      case "eraser": {
        const paint = tools.tool.value === "brush" ? (this.doc.active.value?.colour ?? POSITIVE) : NEGATIVE;
        this.draft = { kind: "line", points: [at], width: this.strokeWidth(), colour: paint };
        break;
      }
      case "corners":
        this.held = nearestVertex(this.currentCorners(), at, ROUND / this.view.scale);
        this.mode = this.held ? "corner" : "idle";
        break;
      case "click":
        // A finger needs a tenth of a second to let go: the mask is begun meanwhile.
        if (this.target === this.doc && this.inside(at)) void app.previewOf(this.doc, [clickAt(at, positive)]);
        break;
      default:
        break;
    }
    this.request();
  }

  private drag(points: Point[]): void {
    const last = points.at(-1)!;
    if (this.mode === "corner" && this.held && this.corners) {
      this.corners[this.held.loop]![this.held.vertex] = this.clamp(last);
      return;
    }
    if (this.mode !== "draw" || !this.draft) return;
    if (this.draft.kind === "box") this.draft.to = this.clamp(last);
    if (this.draft.kind === "line") {
      const line = this.draft.points;
      for (const p of points) {
        const before = line.at(-1)!;
        if (Math.hypot(p[0] - before[0], p[1] - before[1]) * this.view.scale >= 2) line.push(p);
      }
    }
  }

  /** `moved`: how far the pointer went on the screen. */
  private release(at: Point, moved: number): void {
    const { draft, mode, positive } = this;
    this.draft = null;
    this.mode = "idle";
    this.request();
    if (mode === "corner" && this.corners) {
      this.held = null;
      if (moved > 0) app.reshape(this.doc, this.corners);
      return;
    }
    if (mode !== "draw") return;
    switch (tools.tool.value) {
      case "click":
        if (moved <= SLACK) this.click(this.pressed, positive);
        break;
      case "polygon":
        if (moved <= SLACK) this.corner(at, positive);
        break;
      case "everything":
        if (moved <= SLACK) this.give((doc) => void this.pick(doc, at));
        break;
      default:
        if (draft) this.finish(draft, positive);
    }
  }

  private click(at: Point, positive: boolean): void {
    if (this.inside(at)) this.give((doc) => void app.prompt(doc, clickAt(at, positive)));
  }

  private finish(draft: Draft, positive: boolean): void {
    if (draft.kind === "box") {
      const [x0, x1] = [draft.from[0], draft.to[0]].sort((a, b) => a - b) as [number, number];
      const [y0, y1] = [draft.from[1], draft.to[1]].sort((a, b) => a - b) as [number, number];
      if (x1 - x0 < 1 || y1 - y0 < 1) return;
      const xyxy = [x0, y0, x1, y1].map((v) => Math.round(v * 100) / 100) as [number, number, number, number];
      return this.give((doc) => void app.prompt(doc, { type: "box", xyxy }));
    }
    if (draft.kind !== "line" || !draft.points.some((p) => this.inside(p))) return;
    const tool = tools.tool.value;
    const { points, width } = draft;
    if (tool === "scribble") this.give((doc) => void app.prompt(doc, this.scribble(points, width, positive)));
    else this.give((doc) => app.stroke(doc, points, width, tool === "brush"));
  }

  private scribble(points: Point[], width: number, positive: boolean): Prompt {
    const rounded = points.map(([x, y]): Point => [Math.round(x * 10) / 10, Math.round(y * 10) / 10]);
    return { type: "scribble", points: rounded, width: Math.max(1, Math.round(width * 10) / 10), positive };
  }

  private corner(at: Point, positive: boolean): void {
    const drawn = polygon.value;
    const first = drawn?.points[0];
    const last = drawn?.points.at(-1);
    const near = (p: Point | undefined): boolean =>
      p !== undefined && Math.hypot(p[0] - at[0], p[1] - at[1]) * this.view.scale <= ROUND;
    if (drawn && drawn.points.length >= 3 && near(first)) return this.closePolygon();
    if (near(last)) return; // the second half of a double click
    polygon.value = { points: [...(drawn?.points ?? []), this.clamp(at)], positive: drawn?.positive ?? positive };
  }

  private closePolygon(): void {
    if (tools.tool.value === "polygon") closePolygon();
  }

  private async pick(doc: Doc, at: Point): Promise<void> {
    if (doc.regions.peek() === null) await app.findRegions(doc); // the click came before they were found
    const regions = doc.regions.peek();
    if (regions === null || !this.inside(at)) return;
    const region = regionAt(doc, at);
    if (!region) return toast(t("noRegion"));
    app.keep(doc, [region], "model");
    doc.regions.value = regions.filter((r) => r !== region);
    this.hovered = null;
  }

  private regionUnder(at: Point): Region | null {
    return this.inside(at) ? regionAt(this.doc, at) : null;
  }

  private cancel(): void {
    this.draft = null;
    this.held = this.corners = null;
    this.mode = "idle";
    this.request();
  }

  // ---- hovering ------------------------------------------------------------------------------------------------------

  private hover(alt: boolean): void {
    const at = this.pointer;
    if (!at) return;
    if (tools.tool.value === "everything") this.hovered = this.regionUnder(at);
    if (tools.tool.value !== "click" || !previewOn.value || !isLocal() || !this.inside(at)) {
      this.preview = null;
      return;
    }
    this.previewAt = at;
    const positive = tools.include.value !== alt;
    this.previewTimer ||= window.setTimeout(() => void this.look(positive), PREVIEW_MS);
  }

  /** Where a preview is wanted; null while something is drawn. */
  private resting(): Point | null {
    return this.mode === "idle" ? this.previewAt : null;
  }

  private async look(positive: boolean): Promise<void> {
    const at = this.resting();
    if (!at) return void (this.previewTimer = 0);
    const { doc } = this;
    const before = doc.history.peek();
    const mask = await app.previewOf(doc, [clickAt(at, positive)]);
    this.previewTimer = 0;
    const now = this.resting();
    if (now === null || this.doc !== doc || doc.history.peek() !== before) return;
    this.preview = mask;
    this.request();
    const moved = Math.hypot(now[0] - at[0], now[1] - at[1]);
    if (mask && moved >= 1) this.previewTimer = window.setTimeout(() => void this.look(positive), PREVIEW_MS);
  }

  // ---- keyboard ------------------------------------------------------------------------------------------------------

  private key(event: KeyboardEvent): void {
    const arrows: Record<string, Point> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const way = arrows[event.key];
    if (way && !event.ctrlKey && !event.metaKey && !event.altKey) {
      this.moveCursor(way, event.shiftKey ? 1 : 10);
    } else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) {
      this.act(event.shiftKey || event.altKey);
    } else if (event.key === "Escape" && (this.draft || this.mode !== "idle" || polygon.value)) {
      polygon.value = null;
      this.cancel();
    } else if (event.key === " ") {
      this.setSpace(true);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  private setSpace(held: boolean): void {
    if (held === this.space) return;
    this.space = held;
    this.canvas.style.cursor = held ? "grab" : "crosshair";
  }

  private moveCursor([dx, dy]: Point, step: number): void {
    const from = this.cursor ?? [Math.floor(this.doc.width / 2) + 0.5, Math.floor(this.doc.height / 2) + 0.5];
    const started = this.cursor !== null;
    const x = from[0] + (started ? dx * step : 0);
    const y = from[1] + (started ? dy * step : 0);
    this.cursor = [Math.max(0.5, Math.min(this.doc.width - 0.5, x)), Math.max(0.5, Math.min(this.doc.height - 0.5, y))];
    this.drag([this.cursor]);
    if (tools.tool.value === "everything") this.hovered = this.regionUnder(this.cursor);
    this.request();
  }

  private act(exclude: boolean): void {
    if (!this.cursor) return this.moveCursor([0, 0], 0);
    const positive = tools.include.value !== exclude;
    const strokes = ["box", "scribble", "brush", "eraser", "corners"].includes(tools.tool.value);
    const drawn = polygon.value?.points.at(-1);
    if (tools.tool.value === "polygon" && drawn && drawn[0] === this.cursor[0] && drawn[1] === this.cursor[1]) {
      return this.closePolygon();
    }
    if (this.mode === "draw" || this.mode === "corner") return this.release(this.cursor, strokes ? 1 : 0);
    this.press(this.cursor, positive);
    if (!strokes) this.release(this.cursor, 0);
  }
}

function clickAt([x, y]: Point, positive: boolean): Prompt {
  return { type: "click", x: Math.floor(x), y: Math.floor(y), positive };
}

/** The polygon that is being drawn becomes a prompt. */
export function closePolygon(): void {
  const drawn = polygon.value;
  const doc = app.current.value;
  if (!doc || !drawn || drawn.points.length < 3) return;
  polygon.value = null;
  const points = drawn.points.map(([x, y]): Point => [Math.round(x * 10) / 10, Math.round(y * 10) / 10]);
  void app.prompt(doc, { type: "polygon", points, positive: drawn.positive });
}

const masks = new WeakMap<Region, { data: Uint8Array; area: number }>();

function regionMask(region: Region): { data: Uint8Array; area: number } {
  let known = masks.get(region);
  if (!known) {
    const { data } = decodeRle(region.rle);
    known = { data, area: data.reduce((sum, v) => sum + v, 0) };
    masks.set(region, known);
  }
  return known;
}

/** The smallest region there. */
function regionAt(doc: Doc, [x, y]: Point): Region | null {
  const i = Math.floor(y) * doc.width + Math.floor(x);
  let best: Region | null = null;
  let least = Infinity;
  for (const region of doc.regions.peek() ?? []) {
    const { data, area } = regionMask(region);
    if (data[i] && area < least) [best, least] = [region, area];
  }
  return best;
}
