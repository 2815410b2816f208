"""What `seem finetune` gains on the first 100 photos of weizmann_horses, and what it costs on GrabCut.

    python -m benchmarks.finetune $SEEM_DATA --out runs/horses [--model FILE] [--steps 150] [--mix DATA]

Writes the photos as a COCO file, calls `seem.training.finetune.finetune` with its defaults, and measures GrabCut with
the standard robot before and after. Prints one JSON document: the report of the fine-tune, and GrabCut's figures with
the paired bootstrap interval of their differences. A fine-tune that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import seem
from seem import geometry
from seem.evaluation import interactive
from seem.evaluation.compare import compare
from seem.evaluation.datasets import open_dataset
from seem.evaluation.results import Results
from seem.training.finetune import FinetuneConfig, finetune

PHOTOS = 100
FIGURES = ("iou_at.1", "iou_at.3", "iou_at.5", "noc.85", "noc.90", "noc.95")


def write_coco(horses: Path, out: Path) -> Path:
    """The first photos by name as COCO JSON: run lengths, the category "horse"."""
    images, annotations = [], []
    for i, photo in enumerate(sorted((horses / "images").iterdir())[:PHOTOS]):
        mask = np.asarray(Image.open(horses / "masks" / f"{photo.stem}.png").convert("L")) > 127
        images.append({"id": i, "file_name": photo.name, "width": mask.shape[1], "height": mask.shape[0]})
        rle = geometry.rle_encode(mask)
        annotations.append({"id": i, "image_id": i, "category_id": 1, "segmentation": rle, "iscrowd": 0})
    out.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "horse"}]})
    )
    return out


def measure(model: str, grabcut: Path) -> Results:
    dataset = open_dataset(grabcut)
    rows = list(interactive.evaluate(seem.load(model), dataset, prompt="click"))
    return Results("interactive", model, dataset.name, {"prompt": "click", "robot": "standard"}, rows, "", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="seem-tiny")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--keep", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--mix", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    given = {k: getattr(args, k) for k in ("steps", "learning_rate", "keep", "seed") if getattr(args, k) is not None}
    config = replace(FinetuneConfig(), **given)
    horses = args.data / "weizmann_horses"
    started = time.monotonic()
    report: dict[str, Any] = finetune(
        horses / "images", write_coco(horses, args.out / "horses.json"), args.out, args.model, config, mix=args.mix
    )
    report["seconds"] = round(time.monotonic() - started)
    before, after = (measure(m, args.data / "grabcut") for m in (args.model, str(args.out / "model.safetensors")))
    figures = compare(before, after)["figures"]
    print(json.dumps({"settings": given, "horses": report, "grabcut": {k: figures[k] for k in FIGURES}}))


if __name__ == "__main__":
    main()
