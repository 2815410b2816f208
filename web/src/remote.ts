/** The decoder's interface with the server doing the work, for browsers that cannot run the decoder themselves. */

import * as api from "./api";
import { decodeRle } from "./core/rle";
import {
  DecoderError,
  type DecodedObject,
  type DecodeObject,
  type Decoder,
  type DecoderInfo,
  type How,
  type Rle,
} from "./decoder/types";

interface Memory {
  round: string;
  rle: Rle;
}

const MEMORIES = 2000; // run lengths, a few kilobytes each

/** The server's answer as a decoder's. */
export function decoded(found: api.Segment, memory: string | null, ms: number): DecodedObject {
  const mask = decodeRle(found.mask_rle);
  const { id, box, area, label } = found;
  const { width, height, data } = mask;
  return { id, width, height, mask: data, box, area, score: found.score ?? 0, label, labelScore: found.label_score, memory, ms };
}

export class RemoteDecoder implements Decoder {
  private readonly memories = new Map<string, Memory>();
  private count = 0;

  init(): Promise<DecoderInfo> {
    return Promise.resolve({ backend: "server", threads: 0, bytes: 0 });
  }

  /** The server has the scene already. */
  loadScene(): Promise<void> {
    return Promise.resolve();
  }

  hasScene(): boolean {
    return true;
  }

  async decode(
    digest: string,
    objects: DecodeObject[],
    names?: readonly string[] | null,
    { zoom = false }: How = {},
  ): Promise<DecodedObject[]> {
    const began = performance.now();
    const vocabulary = names?.length ? names : null;
    let answer: Awaited<ReturnType<typeof api.segment>>;
    try {
      answer = await api.segment(digest, objects.map((o) => this.round(o, false)), vocabulary, zoom);
    } catch (error) {
      if (!(error instanceof api.ApiError)) throw error;
      if (error.status === 404) throw new DecoderError("no_scene", error.message);
      if (error.status !== 409) throw new DecoderError(error.status === 422 ? "invalid" : "network", error.message);
      answer = await api.segment(digest, objects.map((o) => this.round(o, true)), vocabulary, zoom); // its round is forgotten
    }
    const ms = performance.now() - began;
    return answer.segments.map((found) =>
      decoded(found, this.remember(digest, { round: found.round, rle: found.mask_rle }), ms),
    );
  }

  forget(digest: string): void {
    for (const key of this.memories.keys()) if (key.startsWith(digest)) this.memories.delete(key);
  }

  close(): void {
    this.memories.clear();
  }

  private remember(digest: string, memory: Memory): string {
    const key = `${digest}#${++this.count}`;
    this.memories.set(key, memory);
    const oldest = this.memories.keys().next().value;
    if (this.memories.size > MEMORIES && oldest !== undefined) this.memories.delete(oldest);
    return key;
  }

  private round({ previous, ...object }: DecodeObject, masks: boolean): api.RoundObject {
    if (typeof previous !== "string") return { ...object, previous: previous ?? null };
    const memory = this.memories.get(previous);
    if (!memory) throw new DecoderError("no_memory", "previous: this round is not kept any more");
    return { ...object, previous: masks ? { rle: memory.rle } : { round: memory.round } };
  }
}
