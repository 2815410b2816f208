import { defaultClientConditions } from "vite";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

// The page is served by `seem serve` from inside the Python package; `npm run dev` talks to a server on the default port.
const server = process.env["SEEM_SERVER"] ?? "http://127.0.0.1:8000";
const isolation = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** The runtime's .wasm files are 31 MB, and 8 MB as gzip: only that is kept, and the server sends it as it is. */
function packedRuntime(): Plugin {
  let folder = "";
  return {
    name: "packed-runtime",
    apply: "build",
    configResolved: (config) => void (folder = join(config.root, config.build.outDir, config.build.assetsDir)),
    closeBundle() {
      for (const name of readdirSync(folder).filter((n) => n.endsWith(".wasm"))) {
        writeFileSync(join(folder, `${name}.gz`), gzipSync(readFileSync(join(folder, name)), { level: 9 }));
        rmSync(join(folder, name));
      }
    },
  };
}

export default defineConfig({
  plugins: [packedRuntime()],
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
