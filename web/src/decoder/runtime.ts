/**
 * onnxruntime-web, the smallest build that does the job: wasm with SIMD and threads; with a GPU, the build that has WebGPU
 * too. Its files come from this page's own folder, and only those of the build that is used are fetched.
 */

import wasmGlue from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmBinary from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import gpuGlue from "onnxruntime-web/ort-wasm-simd-threaded.jspi.mjs?url";
import gpuBinary from "onnxruntime-web/ort-wasm-simd-threaded.jspi.wasm?url";
import type { Env } from "onnxruntime-web";
import { Engine, type Description, type Graph, type Runtime } from "./engine";
import type { DecoderInfo } from "./types";

const MAX_THREADS = 4;

type Models = Record<Graph, Uint8Array>;

export async function startEngine(
  description: Description,
  models: Models,
  wanted: number | null,
  backend: "webgpu" | "wasm" | null,
): Promise<{ engine: Engine; info: DecoderInfo }> {
  const threads = crossOriginIsolated ? (wanted ?? ownThreads(navigator.hardwareConcurrency || 1)) : 1;
  if (backend !== "wasm" && (await hasGpu(backend === "webgpu"))) {
    try {
      const runtime = await import("onnxruntime-web/jspi");
      configure(runtime.env, threads, gpuGlue, gpuBinary);
      return await started(runtime, "webgpu", threads, description, models);
    } catch (error) {
      console.warn("seem: WebGPU failed, decoding with wasm", error);
    }
  }
  const runtime = await import("onnxruntime-web/wasm");
  configure(runtime.env, threads, wasmGlue, wasmBinary);
  return started(runtime, "wasm", threads, description, models);
}

/**
 * One core is left to the page and to whatever else runs: threads of a graph wait for each other at each of its 460 nodes,
 * so that one of them without a core holds up all.
 */
function ownThreads(cores: number): number {
  return Math.max(1, Math.min(MAX_THREADS, cores - 1));
}

function configure(env: Env, threads: number, mjs: string, wasm: string): void {
  env.wasm.wasmPaths = { mjs: absolute(mjs), wasm: absolute(wasm) };
  env.wasm.numThreads = threads;
  env.wasm.proxy = false; // this is a worker already
  env.logLevel = "error";
}

const absolute = (url: string): string => new URL(url, import.meta.url).href;

async function started(
  runtime: Runtime,
  backend: "webgpu" | "wasm",
  threads: number,
  description: Description,
  models: Models,
): Promise<{ engine: Engine; info: DecoderInfo }> {
  const engine = await Engine.start(runtime, description, models, [backend]);
  await engine.tryOut();
  return { engine, info: { backend, threads, bytes: 0 } };
}

/** A GPU: a software one is slower than wasm, unless it is asked for. The build that uses it needs promises in wasm. */
async function hasGpu(any: boolean): Promise<boolean> {
  if (!("Suspending" in WebAssembly)) return false;
  const gpu = (navigator as { gpu?: { requestAdapter(o: object): Promise<Adapter | null> } }).gpu;
  try {
    const adapter = await gpu?.requestAdapter({ powerPreference: "high-performance" });
    return adapter != null && (any || !(adapter.isFallbackAdapter ?? adapter.info?.isFallbackAdapter ?? false));
  } catch {
    return false;
  }
}

interface Adapter {
  isFallbackAdapter?: boolean;
  info?: { isFallbackAdapter?: boolean };
}
