/** What is known of one object, and its final mask. Objects never change; a change makes a new one. */

import { clean } from "../core/mask";
import { fill, simplify, trace } from "../core/outline";
import { colourOf } from "../core/palette";
import { decodeRle, encodeRle, extent, type Extent, type Mask } from "../core/rle";
import type { Point, Prompt, Rle } from "../decoder/types";

export interface Shape {
  /** as the model or the brush made it */
  readonly rle: Rle;
  /** holes and specks of up to that many pixels go */
  readonly holes: number;
  readonly specks: number;
  /** how far, in pixels, the simplified outline may lie from the mask's; 0: no simplification */
  readonly tolerance: number;
  /** an outline whose corners were moved; it decides the mask */
  readonly outline: readonly (readonly Point[])[] | null;
}

export interface Obj {
  readonly id: number;
  /** what the user calls it, "" until then */
  readonly name: string;
  /** what the model calls it */
  readonly label: string | null;
  readonly labelScore: number | null;
  readonly score: number | null;
  readonly colour: string;
  readonly visible: boolean;
  readonly locked: boolean;
  readonly prompts: readonly Prompt[];
  /** the decoder's handle of the last round, null if something else made the mask */
  readonly memory: string | null;
  readonly shape: Shape;
}

export interface Final extends Extent {
  mask: Mask;
  /** corners that can be moved; empty while nothing is simplified */
  corners: readonly (readonly Point[])[];
}

export function shapeOf(rle: Rle, before?: Shape): Shape {
  return { rle, holes: before?.holes ?? 0, specks: before?.specks ?? 0, tolerance: before?.tolerance ?? 0, outline: null };
}

/** Of a mask with its box and area; what is known of it is not worked out again. */
export function shapeOfMask(mask: Mask, known: Extent, before?: Shape): Shape {
  const shape = shapeOf(encodeRle(mask), before);
  if (shape.holes <= 0 && shape.specks <= 0 && shape.tolerance <= 0) keep(shape, { mask, corners: [], ...known });
  return shape;
}

export function newObject(id: number, rle: Rle): Obj {
  return {
    id,
    name: "",
    label: null,
    labelScore: null,
    score: null,
    colour: colourOf(id),
    visible: true,
    locked: false,
    prompts: [],
    memory: null,
    shape: shapeOf(rle),
  };
}

const CACHE_BYTES = 192 << 20;
const finals = new Map<Shape, Final>(); // least recently used first
let held = 0;

/** The mask after clean-up and simplification. */
export function finalOf(shape: Shape): Final {
  const known = finals.get(shape);
  if (known) {
    finals.delete(shape);
    finals.set(shape, known);
    return known;
  }
  return keep(shape, make(shape));
}

function keep(shape: Shape, made: Final): Final {
  finals.set(shape, made);
  held += made.mask.data.length;
  for (const [old, final] of finals) {
    if (held <= CACHE_BYTES || old === shape) break;
    finals.delete(old);
    held -= final.mask.data.length;
  }
  return made;
}

function make(shape: Shape): Final {
  const [height, width] = shape.rle.size;
  if (shape.outline) {
    const mask = fill(shape.outline, width, height);
    return { mask, corners: shape.outline, ...extent(mask) };
  }
  const mask = clean(decodeRle(shape.rle), shape.holes, shape.specks);
  if (shape.tolerance <= 0) return { mask, corners: [], ...extent(mask) };
  const corners = trace(mask)
    .map((loop) => simplify(loop, shape.tolerance))
    .filter((loop) => loop.length > 0);
  const simple = fill(corners, width, height);
  return { mask: simple, corners, ...extent(simple) };
}

/** Run lengths of the final mask. */
export function finalRle(shape: Shape): Rle {
  return shape.outline || shape.holes > 0 || shape.specks > 0 || shape.tolerance > 0
    ? encodeRle(finalOf(shape).mask)
    : shape.rle;
}
