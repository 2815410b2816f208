/** Photos and clips from the file window, a drop or the clipboard. */

import * as app from "../state/app";
import { failed } from "../state/toasts";
import { pickFiles } from "./common";

const ACCEPT = "image/*,video/*,.mkv,.tif,.tiff";

export const add = (files: File[]): void => void app.addFiles(files).catch(failed);

export async function pick(): Promise<void> {
  add(await pickFiles(ACCEPT, { many: true }));
}

export async function pickFolder(): Promise<void> {
  const files = await pickFiles("", { many: true, folder: true });
  add(inOrder(files.filter((f) => /^(image|video)\//.test(f.type))));
}

function inOrder(files: File[]): File[] {
  return files.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
}

/** Files of a drop; folders are opened. */
export async function dropped(transfer: DataTransfer): Promise<File[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files: File[] = [];
  for (const entry of entries) await walk(entry, files);
  return inOrder(files.filter((f) => /^(image|video)\//.test(f.type)));
}

async function walk(entry: FileSystemEntry, files: File[]): Promise<void> {
  if (entry instanceof FileSystemFileEntry) {
    files.push(await new Promise<File>((done, fail) => entry.file(done, fail)));
  } else if (entry instanceof FileSystemDirectoryEntry) {
    const reader = entry.createReader();
    for (;;) {
      const part = await new Promise<FileSystemEntry[]>((done, fail) => reader.readEntries(done, fail));
      if (part.length === 0) return;
      for (const child of part) await walk(child, files);
    }
  }
}

export function pasted(transfer: DataTransfer): File[] {
  return [...transfer.files].map((file, i) => {
    const plain = file.name === "image.png" || !file.name;
    const stamp = new Date().toISOString().slice(0, 19).replaceAll(":", "");
    return plain ? new File([file], `pasted-${stamp}${i ? `-${i}` : ""}.png`, { type: file.type }) : file;
  });
}
