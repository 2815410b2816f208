"""What tiles do for the masks of a large image: IoU after clicks on objects of known masks in mosaics of photos.

    python -m benchmarks.mosaic COCO_FOLDER [--mosaics 10] [--grid 3] [--objects 5] [--tile 1024] [--split dev]

A mosaic is GRID x GRID photos at their own resolution, each in a cell of the largest one's size. The standard robot
clicks three times on each of a few objects, drawn with seed 0, of at least 64 pixels:

    alone            `encode` of the object's photo: what there is to win back
    whole            `encode` of the mosaic
    tiles            `encode_large` of the mosaic
    tiles, no zoom   the same, not zooming in on tiny objects

Prints one JSON document: mean IoU after 1 and 3 clicks by the object's size, and processor seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import seem
from seem.evaluation import interactive
from seem.evaluation.datasets import Dataset, Photo, Target, open_dataset, read_only

CLICKS = 3
LEAST_AREA = 64
SIZES = {"small": 32, "medium": 96, "large": 10**9}  # sqrt(area) in pixels below which an object is called so, as COCO
NO_CLOSER = 10**9  # what is less than 1/this of its window is looked at again


def make_mosaic(photos: list[Photo], grid: int) -> tuple[np.ndarray, list[tuple[int, int]], list[np.ndarray]]:
    """(H, W, 3) uint8, where each photo's corner (x, y) lies, and the photos' pixels."""
    pixels = [seem.load_image(photo.path) for photo in photos]
    height, width = (max(p.shape[k] for p in pixels) for k in (0, 1))
    mosaic = np.full((grid * height, grid * width, 3), 128, np.uint8)
    corners = [(i % grid * width, i // grid * height) for i in range(grid * grid)]
    for (x, y), part in zip(corners, pixels, strict=True):
        mosaic[y : y + part.shape[0], x : x + part.shape[1]] = part
    return mosaic, corners, pixels


def clicked(scene: Any, mask: np.ndarray) -> tuple[list[float], float]:
    """IoU after each of `CLICKS` clicks, the last repeated where the robot is content; processor seconds."""
    target = Target("", mask)
    robot = interactive.make_robot("standard", target)
    first = interactive.first_prompt("click", mask, robot)
    began = time.process_time()
    found = interactive.rounds(scene, target, robot, first, interactive.STOP["standard"])
    ious = [iou for _, _, iou, _ in itertools.islice(found, CLICKS)]
    return ious + ious[-1:] * (CLICKS - len(ious)), time.process_time() - began


def placed(mask: np.ndarray, corner: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """A photo's mask in the mosaic."""
    whole = np.zeros(shape[:2], bool)
    whole[corner[1] : corner[1] + mask.shape[0], corner[0] : corner[0] + mask.shape[1]] = mask
    return whole


def measure(dataset: Dataset, mosaics: int, grid: int, objects: int, tile: int) -> list[dict[str, Any]]:
    """A row for each object: the root of its area, and of each way to look at it the IoUs and the seconds."""
    rng = np.random.default_rng(0)
    model = seem.load(device="cpu")
    rows = []
    for number in range(mosaics):
        chosen = [dataset.photos[i] for i in rng.choice(len(dataset.photos), grid * grid, replace=False)]
        mosaic, corners, pixels = make_mosaic(chosen, grid)
        every = [(i, t.mask) for i, photo in enumerate(chosen) for t in photo.targets()
                 if not t.crowd and t.mask.sum() >= LEAST_AREA]  # fmt: skip
        whole, tiled = model.encode(mosaic), model.encode_large(mosaic, tile=tile)
        plain = model.encode_large(mosaic, tile=tile)
        for k in rng.permutation(len(every))[:objects]:
            i, mask = every[k]
            there = placed(mask, corners[i], mosaic.shape)
            row: dict[str, Any] = {
                "side": float(np.sqrt(mask.sum())),
                "alone": clicked(model.encode(pixels[i]), mask),
                "whole": clicked(whole, there),
                "tiles": clicked(tiled, there),
            }
            with patch("seem.predict.tiles.TINY", NO_CLOSER):
                row["tiles, no zoom"] = clicked(plain, there)
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)  # so that a run that is cut off was not for nothing
        print(f"{number + 1}/{mosaics} mosaics, {mosaic.shape[1]}x{mosaic.shape[0]}", file=sys.stderr, flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of some objects: how many, and mean IoU after 1 and 3 clicks and median seconds of each way."""
    result: dict[str, Any] = {"objects": len(rows)}
    for way in ("alone", "whole", "tiles", "tiles, no zoom") if rows else ():
        ious = np.array([row[way][0] for row in rows])
        result[way] = {
            "iou_at_1": round(float(ious[:, 0].mean()), 3),
            "iou_at_3": round(float(ious[:, 2].mean()), 3),
            "processor_seconds": round(float(np.median([row[way][1] for row in rows])), 2),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--mosaics", type=int, default=10)
    parser.add_argument("--grid", type=int, default=3)
    parser.add_argument("--objects", type=int, default=5, help="of each mosaic")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    only = read_only(Path(__file__).with_name("dev_split.json"), args.data) if args.split == "dev" else None
    dataset = open_dataset(args.data, only=only, split=None if only else args.split)
    rows = measure(dataset, args.mosaics, args.grid, args.objects, args.tile)
    result: dict[str, Any] = {"data": args.data.name, "split": args.split, "mosaics": args.mosaics, "grid": args.grid}
    result |= {"tile": args.tile, "all": summary(rows)}
    least = 0.0
    for name, side in SIZES.items():
        result[name] = summary([row for row in rows if least <= row["side"] < side])
        least = side
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
