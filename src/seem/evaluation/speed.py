"""How long a user waits: encoding, a click, the next click, and the first answer after a cold start; and peak memory.

Medians on this machine, in this process; the cold start is a process of its own, with everything but the disk's cache
cold. On a shared machine only ratios of two implementations in one run mean much: `benchmarks/latency.py`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seem.evaluation import metrics
from seem.images import load_image
from seem.prompts import Click

if TYPE_CHECKING:
    from seem.predict.model import Model

Row = dict[str, Any]
ROUNDS = 15

_COLD_START = """
import json, sys, time
began = time.perf_counter()
import seem
seem.load
imported = time.perf_counter()
model = seem.load(sys.argv[1], device=sys.argv[2])
loaded = time.perf_counter()
scene = model.encode(sys.argv[3])
scene.segment(seem.Click(scene.size[0] // 2, scene.size[1] // 2)).mask
done = time.perf_counter()
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
except ImportError:
    peak = None
print(json.dumps({"import": imported - began, "load": loaded - imported, "first_result": done - began,
                  "peak_bytes": peak}))
"""


def evaluate(model: Model, images: Sequence[Path], *, name: str, device: str, rounds: int = ROUNDS) -> Iterator[Row]:
    """Rows of {"image", "key", "encode_ms", "click_ms", "next_click_ms", "scene_bytes"}, medians over `rounds`
    turns, and one "cold start" with what `cold_start` gives.

    Args:
        images: photos, files.
        name, device: of the model, for the process that starts cold.
    """
    for path in images:
        yield {"image": str(path), "key": str(path), **_measure(model, load_image(path), rounds)}
    yield {"image": str(images[0]), "key": "cold start", **cold_start(name, device, images[0])}


def _measure(model: Model, image: np.ndarray, rounds: int) -> dict[str, Any]:
    scene = model.encode(image)
    click, other = Click(scene.size[0] // 2, scene.size[1] // 2), Click(0, 0, positive=False)
    first = scene.segment(click)
    tasks: dict[str, Callable[[], object]] = {
        "encode": lambda: model.encode(image),
        "click": lambda: scene.segment(click).mask,
        "next_click": lambda: scene.segment(click, other, previous=first).mask,
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
    medians = {f"{name}_ms": round(1000 * statistics.median(values), 2) for name, values in seconds.items()}
    return {**medians, "scene_bytes": len(scene.to_bytes())}


def cold_start(model: str, device: str, image: Path) -> dict[str, Any]:
    """{"import_ms", "load_ms", "first_result_ms" (from the start of the import), "peak_bytes"} of a fresh process.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    command = [sys.executable, "-c", _COLD_START, model, device, str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"cold start: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    found = json.loads(done.stdout)
    times = {f"{name}_ms": round(1000 * found[name], 1) for name in ("import", "load", "first_result")}
    return {**times, "peak_bytes": found["peak_bytes"]}


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Medians over the photos, and the cold start's values; whatever a row measured, by its name."""
    names = dict.fromkeys(key for row in rows for key in row if key not in ("image", "key"))
    return {name: metrics.median(r[name] for r in rows if r.get(name) is not None) for name in names}
