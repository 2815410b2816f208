"""What a photo of a collection costs on one core, part by part, and what it takes on disk.

    python -m benchmarks.batch PHOTOS [--photos 12] [--rounds 2] [--threads 1] [--jobs text quick click panoptic …]

Runs the very steps of `seem batch` on a folder's photos: reading, encoding, opening the saved scene, the answer to each
kind of question, and what the one process that writes pays for a row of it. Prints one JSON document: mean processor
seconds of each part, which other work on the machine changes little, photos an hour of one core from them, and bytes of
a scene and of a photo's results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

import seem
from seem.batch.formats import CocoWriter
from seem.batch.job import Item, Job
from seem.batch.listing import list_photos
from seem.batch.store import Store
from seem.batch.worker import Worker
from seem.predict.scene import Scene

JOBS: dict[str, dict[str, Any]] = {
    "text": {"kind": "prompts", "objects": [{"id": 1, "prompts": [{"type": "text", "text": "dog"}]}]},
    "quick": {
        "kind": "prompts",
        "objects": [{"id": 1, "prompts": [{"type": "text", "text": "dog"}]}],
        "options": {"quick": True},
    },
    "click": {"kind": "prompts", "objects": [{"id": 1, "prompts": [{"type": "click", "x": 60, "y": 60}]}]},
    "panoptic": {"kind": "panoptic"},
    "everything": {"kind": "everything"},
}


def store_seconds(text: str, panoptic: bool, photos: int = 2000) -> float:
    """Processor seconds of a row that comes as JSON, until its shard is written as COCO's; no photo is in it."""
    names = {s["label"] for s in json.loads(text)["segments"]}
    writer = CocoWriter([{"id": i, "name": name} for i, name in enumerate(sorted(names))], panoptic, masks=False)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "out", {}, writer, 500)
        with store:
            store.plan(str(i) for i in range(photos))
            began = time.process_time()
            for i in range(photos):
                store.add(json.loads(text) | {"index": i})
            return (time.process_time() - began) / photos


def measure(folder: Path, photos: int, rounds: int, threads: int, jobs: list[str]) -> dict[str, Any]:
    torch.set_num_threads(threads)
    model = seem.load(device="cpu")
    workers = {
        name: Worker(Job(model="", weights=model.weights, **job), model) for name, job in JOBS.items() if name in jobs
    }
    first = next(iter(workers.values()))
    seconds: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, list[int]] = defaultdict(list)
    texts: dict[str, str] = {}

    def timed(name: str, work: Any) -> Any:
        began = time.process_time()
        result = work()
        seconds[name].append(time.process_time() - began)
        return result

    sources = list_photos([str(folder)])[:photos]
    model.encode(sources[0]).segment(seem.Text("dog"))  # warms up
    for turn in range(rounds):
        for index, source in enumerate(sources):
            item = Item(index, source)
            loaded = timed("read", lambda item=item: first.load(item))
            data = timed("encode", lambda loaded=loaded: first.encode(loaded))
            sizes["scene"].append(len(data))
            timed("open", lambda data=data: Scene.from_bytes(data, model))
            for name, worker in workers.items():
                if turn and name in ("panoptic", "everything"):
                    continue  # long, and steady
                scene = Scene.from_bytes(data, model)  # nothing that another job found out
                row = timed(name, lambda worker=worker, item=item, scene=scene: worker.decode(item, scene))
                texts[name] = json.dumps(row)
                sizes[name].append(len(texts[name]))
        print(f"round {turn + 1}/{rounds}", file=sys.stderr, flush=True)
    mean = {name: sum(values) / len(values) for name, values in seconds.items()}
    base = mean["read"] + mean["encode"] + mean["open"]
    return {
        "photos": len(sources),
        "threads": threads,
        "processor_seconds": {name: round(value, 4) for name, value in mean.items()},
        "photos_per_core_hour": {name: round(3600 / (base + mean[name])) for name in jobs},
        "photos_per_core_hour_scene_known": {
            name: round(3600 / (mean["read"] + mean["open"] + mean[name])) for name in jobs
        },
        "writer_processor_seconds": {
            name: round(store_seconds(text, name == "panoptic"), 6) for name, text in texts.items()
        },
        "bytes": {name: round(sum(values) / len(values)) for name, values in sizes.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    args = parser.parse_args()
    json.dump(measure(args.folder, args.photos, args.rounds, args.threads, args.jobs), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
