/** What unit tests need of a browser: storage and an address. */

import "fake-indexeddb/auto";
import { vi } from "vitest";

function storage(): Storage {
  const values = new Map<string, string>();
  return {
    get length() {
      return values.size;
    },
    clear: () => values.clear(),
    getItem: (key) => values.get(key) ?? null,
    key: (n) => [...values.keys()][n] ?? null,
    removeItem: (key) => void values.delete(key),
    setItem: (key, value) => void values.set(key, value),
  };
}

vi.stubGlobal("localStorage", storage());
vi.stubGlobal("sessionStorage", storage());
vi.stubGlobal("navigator", { language: "en-US" });
vi.stubGlobal("document", { baseURI: "http://seem.test/app/", documentElement: { dataset: {}, lang: "" } });
