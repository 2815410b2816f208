/** A scene as the server sends it: four maps of an encoded photo, and its sizes. */

import type { Size } from "./geometry";
import { parseTensors, type Tensor } from "./tensors";
import { DecoderError } from "./types";

const VERSION = 1;
export const MAPS = ["embedding", "semantic", "middle", "fine"] as const;
const STRIDES = { embedding: 16, semantic: 16, middle: 8, fine: 4 } as const;

export interface SceneFile {
  /** "sha256:…" of the photo's pixels */
  image: string;
  /** "sha256:…" of the model that encoded it */
  weights: string;
  original: Size;
  encoded: Size;
  padded: Size;
  maps: Record<(typeof MAPS)[number], Tensor>;
}

/** Throws a DecoderError that says what is wrong with it. */
export function parseScene(bytes: ArrayBuffer): SceneFile {
  const file = parseTensors(bytes, "scene");
  let header: Record<string, unknown>;
  try {
    header = JSON.parse(file.metadata["seem.scene"] ?? "") as Record<string, unknown>;
  } catch {
    throw new DecoderError("invalid", "scene: expected a file that Scene.save wrote, got no scene header");
  }
  if (header["version"] !== VERSION) {
    throw new DecoderError("invalid", `scene: expected format version ${VERSION}, got ${String(header["version"])}`);
  }
  const padded = size(header["padded"], "padded");
  const maps = {} as SceneFile["maps"];
  for (const name of MAPS) {
    const found = file.tensors.get(name);
    const [h, w] = [padded.height / STRIDES[name], padded.width / STRIDES[name]];
    if (found?.shape.length !== 4 || found.shape[2] !== h || found.shape[3] !== w) {
      throw new DecoderError("invalid", `scene.${name}: expected (1, …, ${h}, ${w}), got ${String(found?.shape)}`);
    }
    maps[name] = found;
  }
  return {
    image: String(header["image"]),
    weights: String(header["weights"]),
    original: size(header["original"], "original"),
    encoded: size(header["encoded"], "encoded"),
    padded,
    maps,
  };
}

function size(value: unknown, name: string): Size {
  const good = Array.isArray(value) && value.length === 2 && value.every((s) => Number.isInteger(s) && (s as number) > 0);
  if (!good) throw new DecoderError("invalid", `scene.${name}: expected [width, height], got ${String(value)}`);
  const [width, height] = value as [number, number];
  return { width, height };
}
