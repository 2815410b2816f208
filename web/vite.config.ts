import { defaultClientConditions } from "vite";
import { defineConfig } from "vitest/config";

// The page is served by `seem serve` from inside the Python package; `npm run dev` talks to a server on the default port.
const server = process.env["SEEM_SERVER"] ?? "http://127.0.0.1:8000";
const isolation = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export default defineConfig({
  base: "./",
  build: {
    outDir: "../src/seem/serving/static",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // the content security policy allows no data: scripts or workers
    modulePreload: { polyfill: false },
  },
  worker: { format: "es" },
  // onnxruntime-web without its glue inlined: its threads start from that file, not from our worker's
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  server: { headers: isolation, proxy: { "/v1": server, "/health": server } },
  preview: { headers: isolation },
  test: { include: ["src/**/*.test.ts"], environment: "node", setupFiles: ["src/testing.ts"] },
});
