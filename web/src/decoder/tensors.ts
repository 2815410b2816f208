/** Safetensors files: a length, a JSON header, and raw little-endian values. */

import { DecoderError } from "./types";

export interface Tensor {
  shape: number[];
  data: Float32Array;
}

export interface TensorFile {
  metadata: Record<string, string>;
  tensors: Map<string, Tensor>;
}

const MAX_HEADER = 1 << 20;
const BYTES: Record<string, number> = { F32: 4, F16: 2, U8: 1, I8: 1, BOOL: 1, I32: 4, I64: 8 };

/** Every tensor as float32. Throws a DecoderError for anything that is not such a file. */
export function parseTensors(bytes: ArrayBuffer, what: string): TensorFile {
  const bad = (why: string): DecoderError => new DecoderError("invalid", `${what}: expected a safetensors file, got ${why}`);
  if (bytes.byteLength < 8) throw bad(`${bytes.byteLength} bytes`);
  const length = Number(new DataView(bytes).getBigUint64(0, true));
  if (length > Math.min(MAX_HEADER, bytes.byteLength - 8)) throw bad("no header");
  let header: Record<string, unknown>;
  try {
    header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length))) as Record<string, unknown>;
  } catch {
    throw bad("a header that is no JSON");
  }
  const tensors = new Map<string, Tensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets } = entry as { dtype?: string; shape?: number[]; data_offsets?: [number, number] };
    const size = BYTES[dtype ?? ""];
    if (dtype === undefined || size === undefined || !Array.isArray(shape) || !Array.isArray(data_offsets)) {
      throw bad(`${name} of type ${dtype ?? "none"}`);
    }
    const count = shape.reduce((a, b) => a * b, 1);
    const [from, to] = data_offsets;
    if (to - from !== count * size || 8 + length + to > bytes.byteLength) throw bad(`${name} of a wrong size`);
    const raw = bytes.slice(8 + length + from, 8 + length + to); // a copy is aligned
    tensors.set(name, { shape, data: toFloat(raw, dtype) });
  }
  return { metadata: (header["__metadata__"] ?? {}) as Record<string, string>, tensors };
}

function toFloat(raw: ArrayBuffer, dtype: string): Float32Array {
  switch (dtype) {
    case "F32":
      return new Float32Array(raw);
    case "F16":
      return halfToFloat(new Uint16Array(raw));
    case "I8":
      return Float32Array.from(new Int8Array(raw));
    case "I32":
      return Float32Array.from(new Int32Array(raw));
    case "I64":
      return Float32Array.from(new BigInt64Array(raw), Number);
    default:
      return Float32Array.from(new Uint8Array(raw));
  }
}

let halves: Float32Array | null = null;

function halfToFloat(values: Uint16Array): Float32Array {
  halves ??= Float32Array.from({ length: 65536 }, (_, bits) => halfValue(bits));
  const out = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) out[i] = halves[values[i]!]!;
  return out;
}

function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

export function tensor(file: TensorFile, name: string, what: string): Tensor {
  const found = file.tensors.get(name);
  if (!found) throw new DecoderError("invalid", `${what}: expected a tensor ${name}, got ${[...file.tensors.keys()].join(", ")}`);
  return found;
}
