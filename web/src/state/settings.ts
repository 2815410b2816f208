/** What the user chose, kept in this browser. */

import { effect, signal, type Signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";
export type Language = "en" | "zh";

function kept<T>(name: string, initial: T, valid: (value: unknown) => boolean): Signal<T> {
  let first = initial;
  try {
    const text = localStorage.getItem(`seem.${name}`);
    const value: unknown = text === null ? undefined : JSON.parse(text);
    if (valid(value)) first = value as T;
  } catch {
    // storage is off or holds something else: the default will do
  }
  const setting = signal(first);
  effect(() => {
    try {
      localStorage.setItem(`seem.${name}`, JSON.stringify(setting.value));
    } catch {
      // storage is off: the setting lasts as long as the page
    }
  });
  return setting;
}

export const theme = kept<Theme>("theme", "auto", (v) => v === "auto" || v === "light" || v === "dark");
export const language = kept<Language>(
  "language",
  navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en",
  (v) => v === "en" || v === "zh",
);
/** Show what a click would give while the pointer rests. */
export const preview = kept("preview", true, (v) => typeof v === "boolean");
/** Outline objects in windows of their own, once their outline is what counts. */
export const zoom = kept("zoom", true, (v) => typeof v === "boolean");
/** Names that labels are chosen from; empty: the model's own. */
export const ownNames = kept<string[]>("names", [], (v) => Array.isArray(v) && v.every((n) => typeof n === "string"));

effect(() => {
  document.documentElement.dataset["theme"] = theme.value;
  document.documentElement.lang = language.value === "zh" ? "zh-CN" : "en";
});
