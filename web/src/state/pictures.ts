/** Photos as pixels for drawing: those that are or were just now on the stage. */

import type { Doc } from "./doc";

const KEPT = 4;
const opened = new Map<Doc, Promise<void>>(); // the least recently wanted first

/** Resolves when `doc.picture` is there; it stays until enough others were opened. */
export function openPicture(doc: Doc): Promise<void> {
  const known = opened.get(doc);
  opened.delete(doc);
  const work = known ?? read(doc);
  opened.set(doc, work);
  for (const old of opened.keys()) {
    if (opened.size <= KEPT) break;
    opened.delete(old);
    old.picture.peek()?.close();
    old.picture.value = null;
  }
  return work;
}

function read(doc: Doc): Promise<void> {
  const work: Promise<void> = createImageBitmap(doc.blob).then(
    (made) => {
      if (opened.get(doc) === work) doc.picture.value = made;
      else made.close();
    },
    (error: unknown) => {
      if (opened.get(doc) === work) opened.delete(doc);
      throw error;
    },
  );
  return work;
}
