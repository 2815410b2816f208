"""The engine of a cluster: Ray Data reads, encodes and decodes; this process only writes what comes back.

    photos --read, encode (actors; a GPU or a core each)--> scenes --decode (actors, a core each)--> rows

With tiles one pool does both, since what of a large photo is encoded depends on what is asked of it.

Both pools grow while there is work and room, and shrink when there is not. Scenes wait in Ray's object store; when it
fills up, encoding waits for decoding, and decoding for this process. What a worker that died was doing is done again
elsewhere; a photo that comes back twice counts once (`Store.add`).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seem.batch.cache import SceneCache
from seem.batch.job import Item, Job, Row
from seem.batch.worker import Worker, error_row

BLOCK = 8  # photos that are one task: what is done again after a crash
MAX_BLOCKS = 20_000  # of a run; more make Ray's scheduler slow
LIGHT = 0.25  # of a core, for decoding prompts; everything and panoptic take a whole one


class _Actor:
    """A worker process with its own model."""

    def __init__(self, job: Job, folder: str, scenes_at: tuple[Path, int] | None) -> None:
        import torch

        import seem

        if os.path.isdir(folder):  # paths are told as the user gave them, relative to where the command runs
            os.chdir(folder)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1") or 1))
        model = seem.load(job.model, device=job.device)
        if model.weights != job.weights:
            raise RuntimeError(f"{job.model} has other weights on this node: {model.weights}, not {job.weights}")
        self.worker = Worker(job, model, None if scenes_at is None else SceneCache(*scenes_at))


class Encode(_Actor):
    """{"index", "source", "objects"} columns -> those, "scene" and "error", a photo at a time."""

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for index, source, objects in zip(batch["index"], batch["source"], batch["objects"], strict=True):
            loaded = self.worker.load(Item(int(index), str(source)))
            scene = b"" if loaded.error else self.worker.encode(loaded)
            yield {"index": [index], "source": [source], "objects": [objects], "scene": [scene],
                   "error": [loaded.error]}  # fmt: skip


class Decode(_Actor):
    """What `Encode` gives -> "row", JSON."""

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        from seem.predict.scene import Scene

        columns = (batch[name] for name in ("index", "source", "objects", "scene", "error"))
        for index, source, objects, scene, error in zip(*columns, strict=True):
            item = Item(int(index), str(source), json.loads(objects) if objects else None)
            if error:
                row = error_row(item, str(error))
            else:
                row = self.worker.decode(item, Scene.from_bytes(bytes(scene), self.worker.model))
            yield {"row": [json.dumps(row)]}


class Both(_Actor):
    """Columns as of `Encode` -> "row", JSON: encoded and decoded in one place."""

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for index, source, objects in zip(batch["index"], batch["source"], batch["objects"], strict=True):
            item = Item(int(index), str(source), json.loads(objects) if objects else None)
            yield {"row": [json.dumps(self.worker.work(self.worker.load(item)))]}


def run_ray(
    job: Job, items: Sequence[Item], scenes_at: tuple[Path, int] | None = None, workers: int | None = None
) -> Iterator[Row]:
    """Results in any order. Uses the cluster at ``RAY_ADDRESS``, or starts one on this machine."""
    import ray
    import ray.data

    if not items:
        return
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.verbose_stats_logs = False
    resources = ray.cluster_resources()
    gpu = job.device.startswith("cuda") or (job.device == "auto" and resources.get("GPU", 0) >= 1)
    encode_job, decode_job = replace(job, device="cuda" if gpu else "cpu"), replace(job, device="cpu")
    rows = [
        {"index": i.index, "source": i.source, "objects": json.dumps(i.objects) if i.objects else ""} for i in items
    ]
    blocks = min(MAX_BLOCKS, -(-len(rows) // BLOCK))
    most = workers or _fitting(resources, gpu)
    share = LIGHT if job.kind == "prompts" else 1
    data = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        Both if job.in_windows else Encode, batch_size=None, concurrency=(1, most),
        fn_constructor_args=(encode_job, os.getcwd(), scenes_at), num_gpus=1 if gpu else None,
        num_cpus=None if gpu else 1,
    )  # fmt: skip
    if not job.in_windows:
        data = data.map_batches(
            Decode, batch_size=None, concurrency=(1, most), num_cpus=share,
            fn_constructor_args=(decode_job, os.getcwd(), None),
        )  # fmt: skip
    for batch in data.iter_batches(batch_size=None, prefetch_batches=0):
        for text in batch["row"]:
            yield json.loads(str(text))


def _fitting(resources: dict[str, float], gpu: bool) -> int:
    """How many that encode fit at once."""
    return max(1, int(resources.get("GPU", 0)) if gpu else int(resources.get("CPU", 1)))
