/** Short messages that go by themselves. */

import { signal } from "@preact/signals";

export interface Toast {
  id: number;
  text: string;
  kind: "info" | "error";
}

const SECONDS = 6;
let count = 0;

export const toasts = signal<readonly Toast[]>([]);

export function toast(text: string, kind: Toast["kind"] = "info"): void {
  const id = ++count;
  toasts.value = [...toasts.value.filter((t) => t.text !== text), { id, text, kind }].slice(-4);
  setTimeout(() => dismiss(id), SECONDS * 1000);
}

export function dismiss(id: number): void {
  toasts.value = toasts.value.filter((t) => t.id !== id);
}

export function failed(error: unknown): void {
  toast(error instanceof Error ? error.message : String(error), "error");
}
