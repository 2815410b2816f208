"""A word and a click together, against each alone and against adding up what each alone says.

Classes with two or more instances in a photo: the name does not say which one, and a click does not say how much of
it. The ensemble is the paper's baseline: the product of the two masks' probabilities, normalised, which is the sum of
their logits.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seem.evaluation import metrics
from seem.evaluation.datasets import Dataset, DatasetError, Target
from seem.evaluation.robot import Robot
from seem.evaluation.text import LARGE
from seem.prompts import Click, Text

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.segmentation import Segmentation

Row = dict[str, Any]
WAYS = ("both", "text", "click", "ensemble")


def evaluate(model: Model, dataset: Dataset, *, seed: int = 0) -> Iterator[Row]:
    """Rows of {"image", "key", "name", "area", "instances", "both", "text", "click", "ensemble"}: IoUs with one
    instance of each photo and class, drawn with `seed`."""
    if not dataset.names:
        raise DatasetError(f"{dataset.name}: expected a data set with class names, such as a COCO file")
    for photo in dataset.photos:
        scene = model.encode(photo.path)
        targets = [t for t in photo.targets(scene.size) if not t.crowd and t.mask.any()]
        for name in dict.fromkeys(t.name for t in targets if t.name is not None):
            instances = [t for t in targets if t.name == name]
            if len(instances) < 2:
                continue
            rng = np.random.default_rng((seed, zlib.crc32(f"{photo.key}#{name}".encode())))
            target = instances[int(rng.integers(len(instances)))]
            word, click = prompts_for(name, target)
            results = {"both": scene.segment(word, click), "text": scene.segment(word), "click": scene.segment(click)}
            masks = {way: result.mask for way, result in results.items()}
            masks["ensemble"] = _ensemble(results["text"], results["click"])
            yield {
                "image": photo.key,
                "key": target.key,
                "name": name,
                "area": round(float(target.mask.mean()), 6),
                "instances": len(instances),
                **{way: round(metrics.masked_iou(masks[way], target.mask), 5) for way in WAYS},
            }


def prompts_for(name: str, target: Target) -> tuple[Text, Click]:
    """The name, and the robot's first click."""
    click = Robot(target.mask).next_click()
    assert click is not None, "an object has at least one pixel"
    return Text(name), click


def _ensemble(a: Segmentation, b: Segmentation) -> np.ndarray:
    import torch

    return (a.geometry.upsample(torch.tensor(a.logits + b.logits)) > 0).numpy()


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """{"iou": {way: mean}, "iou_large", "gain": {other way: {"mean", "low", "high"}}}; gains are of both over the
    other, with a paired bootstrap interval of 95 % over photos."""
    large = [r for r in rows if r["area"] >= LARGE]

    def gain(way: str) -> dict[str, float]:
        return metrics.mean_interval([r["both"] - r[way] for r in rows], [r["image"] for r in rows])

    return {
        "iou": {way: metrics.mean(r[way] for r in rows) for way in WAYS},
        "iou_large": {way: metrics.mean(r[way] for r in large) for way in WAYS},
        "gain": {way: gain(way) for way in WAYS[1:]} if rows else {},
    }
