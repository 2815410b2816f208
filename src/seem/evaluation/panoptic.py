"""Everything in the photo at once: instance average precision, and panoptic quality of things.

Two ways of asking for all instances of all names of the data set: `find` with each name (overlapping masks, down to low
scores: what average precision is made for), and `panoptic` (one segment per pixel). Objects are the data set's
instances; regions that are crowds count neither way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seem.evaluation import metrics
from seem.evaluation.datasets import Dataset, DatasetError, Target
from seem.vocabulary import COCO_THING_NAMES

if TYPE_CHECKING:
    from seem.predict.model import Model

Row = dict[str, Any]
FIND_THRESHOLD = 0.05
FIND_LIMIT = 100  # results per photo, as COCO counts
IOU = 0.5
WAYS = ("find", "panoptic")


def evaluate(model: Model, dataset: Dataset) -> Iterator[Row]:
    """Rows of {"image", "key", "name", "instances", "find", "panoptic"}, one per photo and class that is there or was
    answered; the last two are {"score", "outcome", "iou"}, lists over the results."""
    if not dataset.names:
        raise DatasetError(f"{dataset.name}: expected a data set with class names, such as a COCO file")
    names = list(dict.fromkeys(dataset.names))
    vocabulary = None if set(names) <= set(COCO_THING_NAMES) else names
    for photo in dataset.photos:
        scene = model.encode(photo.path)
        targets = [t for t in photo.targets(scene.size) if t.mask.any()]
        every = [(r.score, name, r) for name in names for r in scene.find(name, threshold=FIND_THRESHOLD)]
        every.sort(key=lambda result: -result[0])
        whole = scene.panoptic(vocabulary=vocabulary)
        answers = {
            "find": [(score, name, result.mask) for score, name, result in every[:FIND_LIMIT]],
            "panoptic": [(s.score, s.label, whole.map == s.id) for s in whole.segments if s.label in names],
        }
        for name in names:
            of_name = [t for t in targets if t.name == name]
            matched = {way: _match(answers[way], name, of_name) for way in WAYS}
            instances = sum(not t.crowd for t in of_name)
            if instances or any(m["score"] for m in matched.values()):
                row = {"image": photo.key, "key": f"{photo.key}#{name}", "name": name, "instances": instances}
                yield {**row, **matched}


def _match(answers: Sequence[tuple[float, str, np.ndarray]], name: str, targets: Sequence[Target]) -> dict[str, Any]:
    found = sorted((a for a in answers if a[1] == name), key=lambda a: -a[0])
    truths, crowds = [t.mask for t in targets if not t.crowd], [t.mask for t in targets if t.crowd]
    outcome, iou = metrics.match_detections([mask for _, _, mask in found], truths, crowds, IOU)
    return {
        "score": [round(float(score), 5) for score, _, _ in found],
        "outcome": outcome,
        "iou": [round(v, 5) for v in iou],
    }


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """{"n" (photos), "ap50" of find, "panoptic_ap50", "pq_things", "sq_things", "rq_things", "classes", "instances"};
    means over the classes that the photos show."""
    of_class: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_class[row["name"]].append(row)
    shown = [each for each in of_class.values() if any(r["instances"] for r in each)]
    quality = [_panoptic_quality(each) for each in shown]
    return {
        "n": len({r["image"] for r in rows}),
        "ap50": metrics.mean(_ap(each, "find") for each in shown),
        "panoptic_ap50": metrics.mean(_ap(each, "panoptic") for each in shown),
        "pq_things": metrics.mean(sq * rq for sq, rq in quality),
        "sq_things": metrics.mean(sq for sq, _ in quality),
        "rq_things": metrics.mean(rq for _, rq in quality),
        "classes": len(shown),
        "instances": sum(r["instances"] for r in rows),
    }


def _ap(rows: Sequence[Row], way: str) -> float | None:
    scores = [s for r in rows for s in r[way]["score"]]
    outcomes = [o for r in rows for o in r[way]["outcome"]]
    return metrics.average_precision(scores, outcomes, sum(r["instances"] for r in rows))


def _panoptic_quality(rows: Sequence[Row]) -> tuple[float, float]:
    """(segmentation, recognition quality) of one class (Kirillov et al., arXiv 1801.00868)."""
    outcomes = [o for r in rows for o in r["panoptic"]["outcome"]]
    overlap = sum(v for r in rows for v in r["panoptic"]["iou"])
    hits, wrong = outcomes.count(metrics.TRUE), outcomes.count(metrics.FALSE)
    missed = sum(r["instances"] for r in rows) - hits
    return overlap / hits if hits else 0.0, hits / (hits + wrong / 2 + missed / 2)
