/** Everything the user has, kept in IndexedDB: photos, objects with their history, videos; and scenes, which are only a cache. */

import { openDB, type DBSchema, type IDBPDatabase } from "idb";
import type { DocRecord } from "./doc";

export interface VideoRecord {
  key: string;
  name: string;
  width: number;
  height: number;
  frames: number;
  fps: number;
  /** where the server had it, for as long as the session lasts */
  upload?: { id: string; session: string | null } | null;
  /** frames that were shown or prompted, with their objects */
  docs: { frame: number; record: DocRecord }[];
  /** tracked masks by frame; run lengths as the server sent them */
  tracked: [number, import("../api").Segment[]][];
}

export interface Listed {
  kind: "image" | "video";
  key: string;
}

interface Project {
  items: Listed[];
  active: string | null;
}

interface Schema extends DBSchema {
  project: { key: "project"; value: Project };
  docs: { key: string; value: DocRecord };
  videos: { key: string; value: VideoRecord };
  blobs: { key: string; value: { blob: Blob } };
  scenes: { key: string; value: { bytes: ArrayBuffer; used: number }; indexes: { used: number } };
}

const SCENES = 24; // up to 4 MB each

let opened: Promise<IDBPDatabase<Schema>> | null = null;

function database(): Promise<IDBPDatabase<Schema>> {
  opened ??= openDB<Schema>("seem", 1, {
    upgrade(db) {
      db.createObjectStore("project");
      db.createObjectStore("docs", { keyPath: "key" });
      db.createObjectStore("videos", { keyPath: "key" });
      db.createObjectStore("blobs");
      db.createObjectStore("scenes").createIndex("used", "used");
    },
  });
  return opened;
}

export async function loadProject(): Promise<Project> {
  return (await (await database()).get("project", "project")) ?? { items: [], active: null };
}

export async function saveProject(project: Project): Promise<void> {
  await (await database()).put("project", project, "project");
}

export async function loadDoc(key: string): Promise<DocRecord | undefined> {
  return (await database()).get("docs", key);
}

export async function saveDoc(record: DocRecord): Promise<void> {
  await (await database()).put("docs", record);
}

export async function loadVideo(key: string): Promise<VideoRecord | undefined> {
  return (await database()).get("videos", key);
}

export async function saveVideo(record: VideoRecord): Promise<void> {
  await (await database()).put("videos", record);
}

export async function loadBlob(key: string): Promise<Blob | undefined> {
  return (await (await database()).get("blobs", key))?.blob;
}

export async function saveBlob(key: string, blob: Blob): Promise<void> {
  await (await database()).put("blobs", { blob }, key);
}

export async function drop(key: string): Promise<void> {
  const db = await database();
  await Promise.all([db.delete("docs", key), db.delete("videos", key), db.delete("blobs", key)]);
}

/** Scenes are named by the photo's digest and the weights that made them. */
export async function loadScene(name: string): Promise<ArrayBuffer | undefined> {
  const db = await database();
  const found = await db.get("scenes", name);
  if (found) await db.put("scenes", { ...found, used: Date.now() }, name);
  return found?.bytes;
}

export async function saveScene(name: string, bytes: ArrayBuffer): Promise<void> {
  const db = await database();
  await db.put("scenes", { bytes, used: Date.now() }, name);
  const names = await db.getAllKeysFromIndex("scenes", "used");
  await Promise.all(names.slice(0, Math.max(0, names.length - SCENES)).map((old) => db.delete("scenes", old)));
}
