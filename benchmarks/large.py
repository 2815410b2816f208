"""Time and peak memory of a large image: opened, clicked, searched, divided into regions.

    python -m benchmarks.large PHOTOS [--side 10000] [--tile 1024] [--panoptic-tile 2048] [--threads 1]

The photos of a folder are laid side by side, over and over, into one JPEG of SIDE x SIDE pixels. Every step reports its
seconds, how many windows were encoded so far, and the most memory (resident, of the whole process) up to its end; the
time of a step on a busy machine says little, its processor seconds more. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CELL = 500  # pixels of a photo's side in the picture
GIB = 1 << 30


def make_picture(photos: Path, side: int, out: Path) -> None:
    """Photos of a folder, each CELL x CELL, row by row."""
    paths = sorted(p for p in photos.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    cells = [Image.open(p).convert("RGB").resize((CELL, CELL)) for p in paths]
    picture = Image.new("RGB", (side, side))
    count = -(-side // CELL)
    for i in range(count * count):
        picture.paste(cells[(i + i // count) % len(cells)], (i % count * CELL, i // count * CELL))
    picture.save(out, "JPEG", quality=90)


def peak() -> float:
    """GiB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used * (1 if sys.platform == "darwin" else 1024) / GIB


def measure(file: Path, side: int, tile: int, panoptic_tile: int, threads: int) -> dict[str, Any]:
    import torch

    import seem

    torch.set_num_threads(threads)
    model = seem.load(device="cpu")
    steps: dict[str, Any] = {"model loaded": {"peak_gib": round(peak(), 2)}}

    def step(name: str, work: Callable[[], Any], scene: Any = None) -> Any:
        began, busy = time.perf_counter(), time.process_time()
        result = work()
        steps[name] = {
            "seconds": round(time.perf_counter() - began, 2),
            "processor_seconds": round(time.process_time() - busy, 2),
            "peak_gib": round(peak(), 2),
        }
        if scene is not None:
            steps[name]["windows_encoded"] = scene.encoded
        print(name, steps[name], file=sys.stderr, flush=True)
        return result

    scene = step("opened", lambda: model.encode_large(file, tile=tile))
    at = seem.Click(side // 2 + 120, side // 2 + 130)
    first = step("first click", lambda: scene.segment(at), scene)
    step("next click there", lambda: scene.segment(at, seem.Click(side // 2 + 10, side // 2 + 10, positive=False),
                                                   previous=first), scene)  # fmt: skip
    step("the whole mask", lambda: first.mask.sum(), scene)
    found = step("find", lambda: scene.find("cat", quick=True), scene)
    del scene
    if not panoptic_tile:
        return {"side": side, "tile": tile, "threads": threads, "found": len(found), "steps": steps}
    scene = step("opened again", lambda: model.encode_large(file, tile=panoptic_tile))
    result = step("panoptic", lambda: scene.panoptic(), scene)
    return {
        "side": side,
        "tile": tile,
        "panoptic_tile": panoptic_tile,
        "windows": [len(level) for level in scene.levels],
        "threads": threads,
        "found": len(found),
        "segments": len(result.segments),
        "covered": round(float(np.mean(result.map > 0)), 3),
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--panoptic-tile", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make is not None:
        make_picture(args.photos, args.side, args.make)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.jpg"
        command = [sys.executable, "-m", "benchmarks.large", str(args.photos), "--side", str(args.side)]
        subprocess.run([*command, "--make", str(file)], check=True)  # its memory is not ours
        found = measure(file, args.side, args.tile, args.panoptic_tile, args.threads)
    json.dump(found, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
