"""Naming a given mask: how often the true name is the first, or among the first five, of the data set's names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from seem.evaluation import metrics
from seem.evaluation.datasets import Dataset, DatasetError
from seem.evaluation.text import LARGE

if TYPE_CHECKING:
    from seem.predict.model import Model

Row = dict[str, Any]
TOP = 5


def evaluate(model: Model, dataset: Dataset) -> Iterator[Row]:
    """Rows of {"image", "key", "name", "area", "names" (the five likeliest), "probability" (of the first)}."""
    if len(dataset.names) < 2:
        raise DatasetError(f"{dataset.name}: expected a data set with two or more class names, such as a COCO file")
    vocabulary = list(dict.fromkeys(dataset.names))
    for photo in dataset.photos:
        scene = model.encode(photo.path)
        for target in photo.targets(scene.size):
            if target.crowd or not target.mask.any():
                continue
            ranked = scene.label(target.mask, vocabulary=vocabulary, top=min(TOP, len(vocabulary)))
            yield {
                "image": photo.key,
                "key": target.key,
                "name": target.name,
                "area": round(float(target.mask.mean()), 6),
                "names": [name for name, _ in ranked],
                "probability": round(float(ranked[0][1]), 5),
            }


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """{"top1", "top5", "top1_large", "top1_classes" (mean over classes), "confidence", "wrong" (common mistakes)}."""
    hits: dict[str, list[bool]] = {}
    wrong: dict[str, int] = {}
    for row in rows:
        hit = row["names"][0] == row["name"]
        hits.setdefault(row["name"], []).append(hit)
        if not hit:
            pair = f"{row['name']} -> {row['names'][0]}"
            wrong[pair] = wrong.get(pair, 0) + 1
    return {
        "top1": metrics.mean(h for each in hits.values() for h in each),
        "top5": metrics.mean(r["name"] in r["names"] for r in rows),
        "top1_large": metrics.mean(r["names"][0] == r["name"] for r in rows if r["area"] >= LARGE),
        "top1_classes": metrics.mean(metrics.mean(each) for each in hits.values()),
        "confidence": metrics.mean(r["probability"] for r in rows),
        "wrong": dict(sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:10]),
    }
