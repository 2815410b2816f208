/** Draws the photo, masks, prompts and whatever is being drawn, onto one canvas. */

import { trace } from "../../core/outline";
import { rgb } from "../../core/palette";
import { decodeRle, extent, type Mask } from "../../core/rle";
import { toScreen, type View } from "../../core/view";
import type { Point, Prompt } from "../../decoder/types";
import type { Doc, Region } from "../../state/doc";
import { finalOf, type Obj, type Shape } from "../../state/objects";

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
  tint: OffscreenCanvas | null;
  x: number;
  y: number;
  outline: Path2D;
}

const STENCILS = 80;
const stencils = new Map<object, Stencil>(); // least recently used first

/** A mask as a white picture of its box, and its outline. */
function stencil(key: object, mask: () => Mask): Stencil {
  let found = stencils.get(key);
  stencils.delete(key);
  found ??= cut(mask());
  stencils.set(key, found);
  const oldest = stencils.keys().next().value;
  if (stencils.size > STENCILS && oldest) stencils.delete(oldest);
  return found;
}

function cut(mask: Mask): Stencil {
  const outline = new Path2D();
  for (const loop of trace(mask)) {
    loop.forEach(([x, y], i) => (i === 0 ? outline.moveTo(x, y) : outline.lineTo(x, y)));
    outline.closePath();
  }
  const { box } = extent(mask);
  if (!box) return { tint: null, x: 0, y: 0, outline };
  const [x0, y0, x1, y1] = box;
  const image = new ImageData(x1 - x0, y1 - y0);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) {
      if (mask.data[y * mask.width + x]) pixels[(y - y0) * (x1 - x0) + x - x0] = 0xffffffff;
    }
  }
  const tint = new OffscreenCanvas(x1 - x0, y1 - y0);
  tint.getContext("2d")?.putImageData(image, 0, 0);
  return { tint, x: x0, y: y0, outline };
}

const coloured = new WeakMap<Stencil, { colour: string; canvas: OffscreenCanvas }>();

function inColour(piece: Stencil, colour: string): OffscreenCanvas | null {
  if (!piece.tint) return null;
  const known = coloured.get(piece);
  if (known?.colour === colour) return known.canvas;
  const canvas = new OffscreenCanvas(piece.tint.width, piece.tint.height);
  const context = canvas.getContext("2d");
  if (!context) return null;
  context.drawImage(piece.tint, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = colour;
  context.fillRect(0, 0, canvas.width, canvas.height);
  coloured.set(piece, { colour, canvas });
  return canvas;
}

export class Painter {
  private readonly context: CanvasRenderingContext2D;

  constructor(private readonly canvas: HTMLCanvasElement) {
    const context = canvas.getContext("2d");
    if (!context) throw new Error("canvas: no 2d context");
    this.context = context;
  }

  draw(scene: Scene): void {
    const { context: c, canvas } = this;
    const ratio = devicePixelRatio;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, canvas.width, canvas.height);
    const { view, doc } = scene;
    const photo = (): void => c.setTransform(view.scale * ratio, 0, 0, view.scale * ratio, view.x * ratio, view.y * ratio);
    photo();
    c.imageSmoothingEnabled = view.scale < 4;
    if (scene.bitmap) c.drawImage(scene.bitmap, 0, 0, doc.width, doc.height);
    const active = doc.active.value;
    for (const o of doc.objects.value) if (o.visible && o !== active) this.object(o, view, 0.38, 1.5);
    if (active?.visible) this.object(active, view, 0.46, 2.5);
    if (scene.regions) this.regions(scene.regions, scene.hovered, view);
    if (scene.preview) this.mask(scene.preview, () => scene.preview!, "#ffffff", view, 0.34, 1.5);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (active?.visible) for (const prompt of active.prompts) this.prompt(prompt, view);
    if (active?.visible && !scene.corners) this.name(active, view);
    if (scene.hovered) this.pill(scene.hovered.name, this.topOf(decodedExtent(scene.hovered), view), "#11161f");
    if (scene.corners) this.corners(scene.corners, view, active?.colour ?? POSITIVE);
    if (scene.draft) this.draft(scene.draft, view);
    if (scene.ring) this.ring(scene.ring.at, (scene.ring.width * view.scale) / 2, view);
    if (scene.cursor) this.cross(toScreen(view, scene.cursor));
  }

  labelOf: (o: Obj) => string = (o) => o.name;

  private object(o: Obj, view: View, alpha: number, line: number): void {
    this.mask(o.shape, () => finalOf(o.shape).mask, o.colour, view, alpha, line);
  }

  private mask(key: Shape | Mask | Region, mask: () => Mask, colour: string, view: View, alpha: number, line: number): void {
    const c = this.context;
    const piece = stencil(key, mask);
    const tint = inColour(piece, colour);
    if (tint) {
      c.globalAlpha = alpha;
      c.drawImage(tint, piece.x, piece.y);
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

  private regions(regions: readonly Region[], hovered: Region | null, view: View): void {
    for (const region of regions) {
      if (region === hovered) continue;
      this.mask(region, () => decodeRle(region.rle), tone(region.id), view, 0.3, 1);
    }
    if (hovered) this.mask(hovered, () => decodeRle(hovered.rle), "#ffffff", view, 0.5, 2.5);
  }

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
    const c = this.context;
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
    const c = this.context;
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
    const c = this.context;
    c.fillStyle = "#fff";
    c.strokeStyle = colour;
    c.lineWidth = 2;
    c.beginPath();
    c.rect(x - 4, y - 4, 8, 8);
    c.fill();
    c.stroke();
  }

  private ring(at: Point, radius: number, view: View): void {
    const c = this.context;
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
    const c = this.context;
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
    const c = this.context;
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
