"""What cheaper arithmetic gains and costs: every precision of `seem.load`, compiled kernels, batches.

    python -m benchmarks.fast PHOTO [--data $SEEM_DATA/grabcut --limit 20] [--threads 1] [--rounds 9] [--compile]

Encoding is timed for all variants in turns, in one process, so that other load on the machine falls on all of them;
what counts is the ratio of the medians to float32. So is decoding, one click and 24 at once, with the decoder in
bfloat16 and compiled, though `seem.load` leaves it alone. With --data the standard robot clicks on the first photos:
NoC, and the IoU of the first click's mask with float32's. ``ONEDNN_MAX_CPU_ISA=AVX2_VNNI python -m …`` makes a server's
CPU behave like a laptop's. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import seem
from seem.evaluation import interactive
from seem.evaluation.datasets import open_dataset
from seem.geometry import mask_iou
from seem.predict.precision import PRECISIONS, has_bfloat16_units

BATCH, MANY = 4, 24


def timed(tasks: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each task, all in turns; the first two turns warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 2):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            if turn > 1:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def summary(seconds: dict[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Median milliseconds and the ratio to one of them."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {n: {"ms": round(1000 * m, 1), "ratio": round(m / medians[base], 3)} for n, m in medians.items()}


def encoding(models: dict[str, seem.Model], image: np.ndarray, rounds: int) -> dict[str, Any]:
    """Of every variant, and of a batch, per image."""
    tasks: dict[str, Callable[[], Any]] = {n: lambda m=m: m.encode(image) for n, m in models.items()}
    for name in ("float32", "bfloat16"):
        model = models[name]
        tasks[f"{name}, batch of {BATCH}"] = lambda model=model: model.encode_batch([image] * BATCH, BATCH)
    seconds = timed(tasks, rounds)
    return summary({n: [s / BATCH if "batch" in n else s for s in v] for n, v in seconds.items()}, "float32")


def decoding(image: np.ndarray, rounds: int, compiled: bool) -> dict[str, Any]:
    """One click and many, with the decoder as it is, under bfloat16, and compiled."""
    model = seem.load(device="cpu")
    scene = model.encode(image)
    width, height = scene.size
    objects = [[seem.Click((i + 0.5) * width / MANY, height / 2)] for i in range(MANY)]

    def task(scene: seem.Scene, objects: list[list[seem.Click]], half: bool) -> Callable[[], Any]:
        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
                scene.segment_all(objects, label=False)

        return run

    result = {}
    for name, chosen in (("click", objects[:1]), (f"{MANY} clicks", objects)):
        tasks = {"float32": task(scene, chosen, False), "bfloat16": task(scene, chosen, True)}
        if compiled:
            other = seem.load(device="cpu")
            other.network.prompt_decoder.compile()
            tasks["float32, compiled"] = task(other.encode(image), chosen, False)
        result[name] = summary(timed(tasks, rounds), "float32")
    return result


def losses(models: dict[str, seem.Model], data: Path, limit: int) -> dict[str, Any]:
    """NoC of each variant on the same photos, and how far the first masks are from float32's."""
    opened = open_dataset(data)
    dataset = replace(opened, photos=opened.photos[:limit])
    first: dict[str, list[np.ndarray]] = {}
    result: dict[str, Any] = {"photos": len(dataset.photos)}
    for name, model in models.items():
        first[name], rows = [], []
        for scene, target, row in interactive.objects(model, dataset):
            robot = interactive.make_robot("standard", target)
            click = interactive.first_prompt("click", target.mask, robot)
            first[name].append(scene.segment(click, label=False).mask)
            rows.append(row | {"robot": "standard"} | interactive.segment_with_robot(scene, target, robot, click))
        figures = interactive.figures(rows)
        agreement = [mask_iou(a, b) for a, b in zip(first[name], first["float32"], strict=True)]
        result[name] = {
            "noc": figures["noc"],
            "iou_at": {k: figures["iou_at"][k] for k in ("1", "3")},
            "iou_with_float32": {"mean": round(float(np.mean(agreement)), 5), "least": round(min(agreement), 5)},
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="also torch.compile: some minutes more")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    image = seem.load_image(args.photo)
    models = {p: seem.load(device="cpu", precision=p) for p in PRECISIONS if p != "auto"}
    if args.compile:
        compiled = {p: seem.load(device="cpu", precision=p, compile=True) for p in ("float32", "bfloat16")}
        first = {}
        for name, model in compiled.items():
            began = time.perf_counter()
            model.encode(image)
            first[name] = round(time.perf_counter() - began, 1)
        models |= {f"{name}, compiled": model for name, model in compiled.items()}
    result: dict[str, Any] = {
        "photo": args.photo.name,
        "threads": args.threads,
        "rounds": args.rounds,
        "bfloat16_units": has_bfloat16_units(torch.device("cpu")),
        "isa_limit": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "encode": encoding(models, image, args.rounds),
        "decode": decoding(image, args.rounds, args.compile),
    }
    if args.compile:
        result["first_encode_seconds"] = first
    if args.data is not None:
        result["loss"] = losses({n: m for n, m in models.items() if "compiled" not in n}, args.data, args.limit)
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
