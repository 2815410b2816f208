/** Draws the photo, masks, prompts and whatever is being drawn, onto one canvas. */

import { trace } from "../../core/outline";
import { rgb } from "../../core/palette";
import { decodeRle, extent, type Mask } from "../../core/rle";
import { toScreen, type View } from "../../core/view";
import type { Point, Prompt } from "../../decoder/types";
import type { Doc, Region } from "../../state/doc";
import { finalOf, type Obj } from "../../state/objects";

export const POSITIVE = "#12b754";
export const NEGATIVE = "#e82d2d";

export type Draft =
  | { kind: "box"; from: Point; to: Point }
  | { kind: "line"; points: Point[]; width: number; colour: string }
  | { kind: "polygon"; points: Point[]; positive: boolean; at: Point | null };

export interface Scene {
  doc: Doc;
  bitmap: ImageBitmap | null;
  view: View;
  draft: Draft | null;
  preview: Mask | null;
  /** the region under the pointer, and all of them, while they can be picked */
  regions: readonly Region[] | null;
  hovered: Region | null;
  /** corners that can be dragged, as they are now */
  corners: readonly (readonly Point[])[] | null;
  /** brush ring around the pointer, in pixels of the photo */
  ring: { at: Point; width: number } | null;
  /** the keyboard's cursor */
  cursor: Point | null;
}

interface Stencil {
  mask: Mask;
  box: readonly [number, number, number, number] | null;
  outline: Path2D;
  /** in the colour in which it was drawn last */
  tint: { colour: string; canvas: OffscreenCanvas } | null;
}

const STENCILS = 80;
const stencils = new Map<object, Stencil>(); // least recently used first

/** A mask's pixels inside its box, and its outline. */
function stencil(key: object, made: () => Cut): Stencil {
  let found = stencils.get(key);
  stencils.delete(key);
  found ??= cut(made());
  stencils.set(key, found);
  const oldest = stencils.keys().next().value;
  if (stencils.size > STENCILS && oldest) stencils.delete(oldest);
  return found;
}

/** A mask, and its box where that is known. */
interface Cut {
  mask: Mask;
  box?: Stencil["box"];
}

function cut({ mask, box = extent(mask).box }: Cut): Stencil {
  const outline = new Path2D();
  for (const loop of trace(mask)) {
    loop.forEach(([x, y], i) => (i === 0 ? outline.moveTo(x, y) : outline.lineTo(x, y)));
    outline.closePath();
  }
  return { mask, box, outline, tint: null };
}

function tinted(piece: Stencil, colour: string): OffscreenCanvas | null {
  if (!piece.box) return null;
  if (piece.tint?.colour === colour) return piece.tint.canvas;
  const [x0, y0, x1, y1] = piece.box;
  const { data, width } = piece.mask;
  const image = new ImageData(x1 - x0, y1 - y0);
  const pixels = new Uint32Array(image.data.buffer);
  const [r, g, b] = rgb(colour);
  const pixel = new Uint32Array(Uint8Array.of(r, g, b, 255).buffer)[0]!;
  for (let y = y0, to = 0; y < y1; y++) {
    for (let from = y * width + x0, end = y * width + x1; from < end; from++, to++) if (data[from] !== 0) pixels[to] = pixel;
  }
  const canvas = new OffscreenCanvas(x1 - x0, y1 - y0);
  canvas.getContext("2d")?.putImageData(image, 0, 0);
  piece.tint = { colour, canvas };
  return canvas;
}

/** Photo, other objects and regions: what stays the same while the chosen object is worked on. */
interface Background {
  bitmap: ImageBitmap | null;
  view: View;
  size: string;
  regions: readonly Region[] | null;
  objects: readonly Obj[];
}

function same(a: Background, b: Background): boolean {
  return (
    a.bitmap === b.bitmap &&
    a.view === b.view &&
    a.size === b.size &&
    a.regions === b.regions &&
    a.objects.length === b.objects.length &&
    a.objects.every((o, i) => o.shape === b.objects[i]!.shape && o.colour === b.objects[i]!.colour)
  );
}

type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

function onPhoto(c: Context, { scale, x, y }: View): void {
  const ratio = devicePixelRatio;
  c.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
}

function object(c: Context, o: Obj, view: View, alpha: number, line: number): void {
  mask(c, o.shape, () => finalOf(o.shape), o.colour, view, alpha, line);
}

function mask(c: Context, key: object, found: () => Cut, colour: string, view: View, alpha: number, line: number): void {
  const piece = stencil(key, found);
  const tint = tinted(piece, colour);
  if (tint && piece.box) {
    c.imageSmoothingEnabled = view.scale < 4;
    c.globalAlpha = alpha;
    c.drawImage(tint, piece.box[0], piece.box[1]);
    c.globalAlpha = 1;
  }
  c.lineJoin = "round";
  c.strokeStyle = "rgba(0,0,0,.5)";
  c.lineWidth = (line + 1.5) / view.scale;
  c.stroke(piece.outline);
  c.strokeStyle = colour;
  c.lineWidth = line / view.scale;
  c.stroke(piece.outline);
}

export class Painter {
  private readonly front: CanvasRenderingContext2D;
  private readonly back = new OffscreenCanvas(1, 1);
  private readonly behind: OffscreenCanvasRenderingContext2D;
  private drawn: Background | null = null;

  constructor(private readonly canvas: HTMLCanvasElement) {
    const [front, behind] = [canvas.getContext("2d"), this.back.getContext("2d")];
    if (!front || !behind) throw new Error("canvas: no 2d context");
    [this.front, this.behind] = [front, behind];
  }

  draw(scene: Scene): void {
    const { front: c, canvas } = this;
    const ratio = devicePixelRatio;
    const { view, doc } = scene;
    const active = doc.active.value;
    this.background(scene, doc.objects.value.filter((o) => o.visible && o !== active));
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, canvas.width, canvas.height);
    c.drawImage(this.back, 0, 0);
    onPhoto(c, view);
    if (active?.visible) object(c, active, view, 0.46, 2.5);
    const { hovered, preview } = scene;
    if (hovered) mask(c, hovered, () => ({ mask: decodeRle(hovered.rle) }), "#ffffff", view, 0.5, 2.5);
    if (preview) mask(c, preview, () => ({ mask: preview }), "#ffffff", view, 0.34, 1.5);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (active?.visible) for (const prompt of active.prompts) this.prompt(prompt, view);
    if (active?.visible && !scene.corners) this.name(active, view);
    if (hovered) this.pill(hovered.name, this.topOf(decodedExtent(hovered), view), "#11161f");
    if (scene.corners) this.corners(scene.corners, view, active?.colour ?? POSITIVE);
    if (scene.draft) this.draft(scene.draft, view);
    if (scene.ring) this.ring(scene.ring.at, (scene.ring.width * view.scale) / 2, view);
    if (scene.cursor) this.cross(toScreen(view, scene.cursor));
  }

  private background({ doc, bitmap, view, regions }: Scene, objects: readonly Obj[]): void {
    const { width, height } = this.canvas;
    const wanted: Background = { bitmap, view, size: `${width} ${height} ${devicePixelRatio}`, regions, objects };
    if (this.drawn && same(this.drawn, wanted)) return;
    this.drawn = wanted;
    const { behind: c, back } = this;
    [back.width, back.height] = [width, height]; // which clears it
    onPhoto(c, view);
    c.imageSmoothingEnabled = view.scale < 4;
    if (bitmap) c.drawImage(bitmap, 0, 0, doc.width, doc.height);
    for (const o of objects) object(c, o, view, 0.38, 1.5);
    for (const region of regions ?? []) {
      mask(c, region, () => ({ mask: decodeRle(region.rle) }), tone(region.id), view, 0.3, 1);
    }
  }

  labelOf: (o: Obj) => string = (o) => o.name;

  // ---- in pixels of the screen ---------------------------------------------------------------------------------------

  private prompt(prompt: Prompt, view: View): void {
    const colour = "positive" in prompt && prompt.positive === false ? NEGATIVE : POSITIVE;
    switch (prompt.type) {
      case "click":
        return this.click(toScreen(view, [prompt.x + 0.5, prompt.y + 0.5]), prompt.positive !== false);
      case "box": {
        const [x0, y0, x1, y1] = prompt.xyxy;
        return this.line([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], view, colour, 2, true);
      }
      case "scribble":
        return this.line(prompt.points, view, colour, Math.max(2, (prompt.width ?? 5) * view.scale), false, 0.75);
      case "polygon":
        return this.line(prompt.points, view, colour, 2, true);
      default:
        return; // a text, a mask or a reference has no place of its own here
    }
  }

  private line(points: readonly Point[], view: View, colour: string, width: number, closed: boolean, alpha = 1): void {
    const c = this.front;
    c.beginPath();
    points.forEach((p, i) => {
      const [x, y] = toScreen(view, p);
      if (i === 0) c.moveTo(x, y);
      else c.lineTo(x, y);
    });
    if (closed) c.closePath();
    else if (points.length === 1) c.lineTo(...toScreen(view, [points[0]![0] + 0.01, points[0]![1]]));
    c.lineJoin = c.lineCap = "round";
    c.globalAlpha = alpha;
    c.strokeStyle = "rgba(0,0,0,.5)";
    c.lineWidth = width + 2;
    c.stroke();
    c.strokeStyle = colour;
    c.lineWidth = width;
    c.stroke();
    c.globalAlpha = 1;
  }

  private click([x, y]: Point, positive: boolean): void {
    const c = this.front;
    c.beginPath();
    c.arc(x, y, 7, 0, 2 * Math.PI);
    c.fillStyle = positive ? POSITIVE : NEGATIVE;
    c.fill();
    c.lineWidth = 2;
    c.strokeStyle = "#fff";
    c.stroke();
    c.beginPath();
    c.moveTo(x - 3.5, y);
    c.lineTo(x + 3.5, y);
    if (positive) {
      c.moveTo(x, y - 3.5);
      c.lineTo(x, y + 3.5);
    }
    c.stroke();
  }

  private draft(draft: Draft, view: View): void {
    switch (draft.kind) {
      case "box": {
        const [[x0, y0], [x1, y1]] = [draft.from, draft.to];
        return this.line([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], view, POSITIVE, 2, true);
      }
      case "line":
        return this.line(draft.points, view, draft.colour, Math.max(2, draft.width * view.scale), false, 0.75);
      case "polygon": {
        const colour = draft.positive ? POSITIVE : NEGATIVE;
        this.line(draft.at ? [...draft.points, draft.at] : draft.points, view, colour, 2, false);
        for (const p of draft.points) this.knob(toScreen(view, p), colour);
      }
    }
  }

  private corners(loops: readonly (readonly Point[])[], view: View, colour: string): void {
    for (const loop of loops) {
      this.line(loop, view, colour, 1.5, true);
      for (const p of loop) this.knob(toScreen(view, p), colour);
    }
  }

  private knob([x, y]: Point, colour: string): void {
    const c = this.front;
    c.fillStyle = "#fff";
    c.strokeStyle = colour;
    c.lineWidth = 2;
    c.beginPath();
    c.rect(x - 4, y - 4, 8, 8);
    c.fill();
    c.stroke();
  }

  private ring(at: Point, radius: number, view: View): void {
    const c = this.front;
    const [x, y] = toScreen(view, at);
    for (const [colour, width] of [["rgba(0,0,0,.6)", 3], ["#fff", 1.5]] as const) {
      c.beginPath();
      c.arc(x, y, Math.max(2, radius), 0, 2 * Math.PI);
      c.strokeStyle = colour;
      c.lineWidth = width;
      c.stroke();
    }
  }

  private cross([x, y]: Point): void {
    const c = this.front;
    for (const [colour, width] of [["#000", 4], ["#fff", 2]] as const) {
      c.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]] as const) {
        c.moveTo(x + 4 * dx, y + 4 * dy);
        c.lineTo(x + 14 * dx, y + 14 * dy);
      }
      c.strokeStyle = colour;
      c.lineWidth = width;
      c.stroke();
    }
  }

  private topOf(box: readonly number[] | null, view: View): Point | null {
    return box ? toScreen(view, [(box[0]! + box[2]!) / 2, box[1]!]) : null;
  }

  private name(o: Obj, view: View): void {
    this.pill(this.labelOf(o), this.topOf(finalOf(o.shape).box, view), o.colour);
  }

  private pill(text: string, at: Point | null, colour: string): void {
    if (!at || !text) return;
    const c = this.front;
    c.font = "600 12px system-ui, sans-serif";
    const short = text.length > 40 ? `${text.slice(0, 39)}…` : text;
    const width = c.measureText(short).width + 16;
    const room = this.canvas.width / devicePixelRatio;
    const x = Math.max(4, Math.min(room - width - 4, at[0] - width / 2));
    const y = Math.max(4, at[1] - 28);
    c.beginPath();
    c.roundRect(x, y, width, 20, 10);
    c.fillStyle = colour;
    c.fill();
    c.fillStyle = ink(colour);
    c.textBaseline = "middle";
    c.fillText(short, x + 8, y + 10.5);
  }
}

/** Black or white, whichever can be read on the colour. */
export function ink(colour: string): string {
  const [r, g, b] = rgb(colour).map((v) => ((v / 255) ** 2.2)) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.2 ? "#0b0f17" : "#ffffff";
}

const TONES = ["#7dd3fc", "#fda4af", "#bef264", "#fcd34d", "#c4b5fd", "#5eead4", "#fdba74", "#f0abfc"];
const tone = (id: number): string => TONES[id % TONES.length]!;

const extents = new WeakMap<Region, readonly number[] | null>();

function decodedExtent(region: Region): readonly number[] | null {
  if (!extents.has(region)) extents.set(region, extent(decodeRle(region.rle)).box);
  return extents.get(region) ?? null;
}
