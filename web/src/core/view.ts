/** Where the photo lies on the screen: screen = photo * scale + offset, in CSS pixels. */

import type { Point } from "../decoder/types";

export interface View {
  scale: number;
  x: number;
  y: number;
}

export interface Size {
  width: number;
  height: number;
}

export const MAX_SCALE = 40;

export function toPhoto(view: View, [x, y]: Point): Point {
  return [(x - view.x) / view.scale, (y - view.y) / view.scale];
}

export function toScreen(view: View, [x, y]: Point): Point {
  return [x * view.scale + view.x, y * view.scale + view.y];
}

/** The whole photo, centred, with a margin; never enlarged more than fourfold. */
export function fit(photo: Size, stage: Size, margin = 16): View {
  const room = { width: Math.max(1, stage.width - 2 * margin), height: Math.max(1, stage.height - 2 * margin) };
  const scale = Math.min(room.width / photo.width, room.height / photo.height, 4);
  return { scale, x: (stage.width - photo.width * scale) / 2, y: (stage.height - photo.height * scale) / 2 };
}

/** Zoom by a factor with one point of the screen held where it is. */
export function zoom(view: View, factor: number, [x, y]: Point, least: number): View {
  const scale = Math.min(MAX_SCALE, Math.max(least, view.scale * factor));
  const k = scale / view.scale;
  return { scale, x: x - (x - view.x) * k, y: y - (y - view.y) * k };
}

export function pan(view: View, dx: number, dy: number): View {
  return { ...view, x: view.x + dx, y: view.y + dy };
}

/** Keep at least `rest` pixels of the photo on the stage. */
export function keepInSight(view: View, photo: Size, stage: Size, rest = 48): View {
  const clamp = (offset: number, length: number, room: number): number =>
    Math.min(room - rest, Math.max(rest - length * view.scale, offset));
  return {
    ...view,
    x: clamp(view.x, photo.width, stage.width),
    y: clamp(view.y, photo.height, stage.height),
  };
}

/** Two fingers moved: their middle carries the photo, their distance scales it. */
export function pinch(view: View, before: [Point, Point], after: [Point, Point], least: number): View {
  const middle = ([a, b]: [Point, Point]): Point => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  const apart = ([a, b]: [Point, Point]): number => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
  const [from, to] = [middle(before), middle(after)];
  return zoom(pan(view, to[0] - from[0], to[1] - from[1]), apart(after) / apart(before), to, least);
}
