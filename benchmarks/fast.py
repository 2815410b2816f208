"""What cheaper arithmetic gains and costs: every precision of `seem.load`, compiled kernels, batches.

    python -m benchmarks.fast PHOTO [--data $SEEM_DATA/grabcut --limit 20] [--only bfloat16 …] [--rounds 9] [--compile]

Encoding is timed for all variants in turns, in one process, so that other load on the machine falls on all of them;
what counts is the ratio of the medians to float32, in seconds of the processor, which other work disturbs least. So is
decoding, one click and 24 at once, with the decoder in bfloat16 and compiled, though `seem.load` leaves it alone. With
--data the standard robot clicks on the first photos: NoC, and the IoU of the first click's mask with float32's; with
--dev on those of the development split only. ``ONEDNN_MAX_CPU_ISA=AVX2_VNNI python -m …`` makes a server's CPU behave
like a laptop's. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
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
from seem.evaluation.datasets import open_dataset, read_only
from seem.geometry import mask_iou
from seem.predict.precision import PRECISIONS, has_bfloat16_units

BATCH, MANY = 4, 24


Times = dict[str, list[tuple[float, float]]]  # of each task: (seconds that passed, seconds of the processor)


def timed(tasks: dict[str, Callable[[], Any]], rounds: int) -> Times:
    """All tasks in turns; the first two turns warm up."""
    seconds: Times = {name: [] for name in tasks}
    for turn in range(rounds + 2):
        for name, task in tasks.items():
            began, busy = time.perf_counter(), time.process_time()
            task()
            if turn > 1:
                seconds[name].append((time.perf_counter() - began, time.process_time() - busy))
    return seconds


def summary(seconds: Times, base: str) -> dict[str, dict[str, float]]:
    """Median milliseconds, and the ratio of the processor's to those of one of them."""
    medians = {name: np.median(np.array(values), axis=0) * 1000 for name, values in seconds.items()}
    return {
        name: {"ms": round(passed, 1), "processor_ms": round(busy, 1), "ratio": round(busy / medians[base][1], 3)}
        for name, (passed, busy) in medians.items()
    }


def encoding(models: dict[str, seem.Model], image: np.ndarray, rounds: int) -> dict[str, Any]:
    """Of every variant, and of a batch, per image."""
    tasks: dict[str, Callable[[], Any]] = {n: lambda m=m: m.encode(image) for n, m in models.items()}
    for name in [n for n in ("float32", "bfloat16") if n in models]:
        model = models[name]
        tasks[f"{name}, batch of {BATCH}"] = lambda model=model: model.encode_batch([image] * BATCH, BATCH)
    seconds = timed(tasks, rounds)
    parts = {name: BATCH if "batch" in name else 1 for name in tasks}
    return summary({n: [(a / parts[n], b / parts[n]) for a, b in v] for n, v in seconds.items()}, "float32")


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


def losses(models: dict[str, seem.Model], data: Path, limit: int, dev: bool) -> dict[str, Any]:
    """NoC of each variant on the same photos, and how far the first masks are from float32's."""
    opened = open_dataset(data, only=read_only(Path(__file__).with_name("dev_split.json"), data) if dev else None)
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
            "objects": len(rows),
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
    parser.add_argument("--only", nargs="*", default=[p for p in PRECISIONS if p != "auto"], help="float32 and these")
    parser.add_argument("--dev", action="store_true", help="of the development split")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="also torch.compile: some minutes more")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    image = seem.load_image(args.photo)
    models = {p: seem.load(device="cpu", precision=p) for p in dict.fromkeys(("float32", *args.only))}
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
        "load": round(os.getloadavg()[0], 1),
        "bfloat16_units": has_bfloat16_units(torch.device("cpu")),
        "isa_limit": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "encode": encoding(models, image, args.rounds),
        "decode": decoding(image, args.rounds, args.compile),
    }
    if args.compile:
        result["first_encode_seconds"] = first
    if args.data is not None:
        result["loss"] = losses(
            {n: m for n, m in models.items() if "compiled" not in n}, args.data, args.limit, args.dev
        )
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
