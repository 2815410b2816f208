"""Finding in one photo what is shown in another: pairs of photos of one class, or of one video.

A data set with names gives pairs of photos that each hold the only instance of a class; a folder of videos gives each
sequence's first frame and later ones of it.
"""

from __future__ import annotations

import random
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seem import geometry
from seem.evaluation import metrics
from seem.evaluation.datasets import Dataset, DatasetError, Photo, Target
from seem.evaluation.text import LARGE
from seem.prompts import Box, Mask, Reference

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.scene import Scene

Row = dict[str, Any]
PAIRS = 500
FRAMES = 20  # later frames of each video
PROMPTS = ("mask", "box")
_SCENES = 16  # encoded photos kept at a time


def evaluate(
    model: Model, dataset: Dataset, *, prompt: str = "mask", pairs: int = PAIRS, seed: int = 0
) -> Iterator[Row]:
    """Rows of {"image" (searched), "key", "reference" (shown), "name", "area", "iou", "score"}.

    Args:
        prompt: what marks the object in the first photo, one of `PROMPTS`.
        pairs: of photos, at most; drawn evenly from all ordered pairs.
        seed: of the draw.
    """
    if prompt not in PROMPTS:
        raise ValueError(f"prompt: expected {' or '.join(PROMPTS)}, got {prompt!r}")
    drawn = _video_pairs(dataset) if not dataset.names else _class_pairs(dataset, pairs, seed)
    if not drawn:
        raise DatasetError(f"{dataset.name}: expected two photos that each hold the only object of a class, or a video")
    scenes: OrderedDict[str, Scene] = OrderedDict()
    for (shown, example), (photo, target) in drawn:
        there, here = _scene(model, scenes, shown), _scene(model, scenes, photo)
        for each, truth in ((there, example), (here, target)):
            if truth.mask.shape != (each.size[1], each.size[0]):
                raise DatasetError(f"object {truth.key}: expected a mask of {each.size[0]}x{each.size[1]} as the image")
        result = here.segment(Reference(there, mark(example.mask, prompt)))
        yield {
            "image": photo.key,
            "key": f"{example.key} -> {target.key}",
            "reference": shown.key,
            "name": target.name or photo.sequence,
            "area": round(float(target.mask.mean()), 6),
            "iou": round(metrics.masked_iou(result.mask, target.mask, target.ignore), 5),
            "score": round(float(result.score), 5),
        }


Pair = tuple[tuple[Photo, Target], tuple[Photo, Target]]


def _class_pairs(dataset: Dataset, pairs: int, seed: int) -> list[Pair]:
    only: dict[str, list[tuple[Photo, Target]]] = defaultdict(list)
    for photo in dataset.photos:
        targets = [t for t in photo.targets() if t.crowd or t.mask.any()]
        for target in targets:
            if target.name is not None and not target.crowd and sum(t.name == target.name for t in targets) == 1:
                only[target.name].append((photo, target))
    every = [(a, b) for same in only.values() for a in same for b in same if a is not b]
    chosen = random.Random(seed).sample(range(len(every)), min(pairs, len(every)))
    return [every[i] for i in sorted(chosen)]


def _video_pairs(dataset: Dataset) -> list[Pair]:
    videos: dict[str, list[Photo]] = defaultdict(list)
    for photo in dataset.photos:
        if photo.sequence:
            videos[photo.sequence].append(photo)
    pairs: list[Pair] = []
    for frames in videos.values():
        first = _single(frames[0])
        later = np.unique(np.linspace(1, len(frames) - 1, min(FRAMES, len(frames) - 1)).round().astype(int))
        for photo in [frames[i] for i in later.tolist()]:
            target = _single(photo)
            if first is not None and target is not None:
                pairs.append(((frames[0], first), (photo, target)))
    return pairs


def _single(photo: Photo) -> Target | None:
    targets = [t for t in photo.targets() if t.mask.any()]
    return targets[0] if len(targets) == 1 else None


def _scene(model: Model, scenes: OrderedDict[str, Scene], photo: Photo) -> Scene:
    if photo.key not in scenes:
        scenes[photo.key] = model.encode(photo.path)
    scenes.move_to_end(photo.key)
    while len(scenes) > _SCENES:
        scenes.popitem(last=False)
    return scenes[photo.key]


def mark(mask: np.ndarray, prompt: str) -> Mask | Box:
    """What shows the object in the first photo, of a kind of `PROMPTS`."""
    if prompt == "mask":
        return Mask(mask)
    box = geometry.box_of(mask)
    assert box is not None, "an example has at least one pixel"
    return Box(*box)


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """{"iou", "iou_large", "found" (IoU of 0.5 or more), "names" (if there are few), "calibration"}."""
    names: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        names[row["name"]].append(row["iou"])
    return {
        "iou": metrics.mean(r["iou"] for r in rows),
        "iou_large": metrics.mean(r["iou"] for r in rows if r["area"] >= LARGE),
        "found": metrics.mean(r["iou"] >= 0.5 for r in rows),
        "names": {name: metrics.mean(ious) for name, ious in sorted(names.items())} if len(names) <= 20 else {},
        "calibration": metrics.calibration([r["score"] for r in rows], [r["iou"] for r in rows]),
    }
