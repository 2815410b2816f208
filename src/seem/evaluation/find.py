"""Every instance of a name: average precision of `find` on classes with two or more instances in a photo.

Average precision is that of a ranking, so results down to a low score count, as with any detector. What a user gets at
`find`'s default threshold is precision and recall, and the average precision that is left there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from seem.evaluation import metrics
from seem.evaluation.datasets import Dataset, DatasetError
from seem.predict.instances import DEFAULT_THRESHOLD

if TYPE_CHECKING:
    from seem.predict.model import Model

Row = dict[str, Any]
IOU = 0.5  # from which a result is one of the instances
LEAST = 0.02  # score from which results count for average precision


def evaluate(model: Model, dataset: Dataset, *, zoom: bool = False) -> Iterator[Row]:
    """Rows of {"image", "key", "name", "instances", "score", "outcome"}, one per photo and class; the last two are
    lists over the results from a score of `LEAST`. With zoom as by `Model.encode_large`."""
    if not dataset.names:
        raise DatasetError(f"{dataset.name}: expected a data set with class names, such as a COCO file")
    for photo in dataset.photos:
        scene = model.encode_large(photo.path, zoom=True) if zoom else model.encode(photo.path)
        targets = [t for t in photo.targets(scene.size) if t.mask.any()]
        for name in dict.fromkeys(t.name for t in targets if t.name is not None):
            truths = [t.mask for t in targets if t.name == name and not t.crowd]
            crowds = [t.mask for t in targets if t.name == name and t.crowd]
            if len(truths) < 2:
                continue
            found = scene.find(name, threshold=LEAST)
            yield {
                "image": photo.key,
                "key": f"{photo.key}#{name}",
                "name": name,
                "instances": len(truths),
                "score": [round(float(f.score), 5) for f in found],
                "outcome": metrics.match_detections([f.mask for f in found], truths, crowds, (IOU,))[0],
            }


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """{"ap50" (mean over classes), "ap50_pooled" (all classes as one), "instances", "classes"} of all results, and
    {"recall", "precision", "ap50_default"} of those that `find` gives by default."""
    sure = [_at_default(row) for row in rows]
    hits = sum(r["outcome"].count(metrics.TRUE) for r in sure)
    wrong = sum(r["outcome"].count(metrics.FALSE) for r in sure)
    instances = sum(r["instances"] for r in rows)
    return {
        "ap50": _class_mean(rows),
        "ap50_pooled": pooled_precision(rows),
        "ap50_default": _class_mean(sure),
        "recall": hits / instances if instances else None,
        "precision": hits / (hits + wrong) if hits + wrong else None,
        "instances": instances,
        "classes": len({row["name"] for row in rows}),
    }


def _at_default(row: Row) -> Row:
    pairs = [(s, o) for s, o in zip(row["score"], row["outcome"], strict=True) if s >= DEFAULT_THRESHOLD]
    return {**row, "score": [s for s, _ in pairs], "outcome": [o for _, o in pairs]}


def _class_mean(rows: Sequence[Row]) -> float | None:
    of_class: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_class[row["name"]].append(row)
    return metrics.mean(pooled_precision(each) for each in of_class.values())


def pooled_precision(rows: Sequence[Row]) -> float | None:
    """Average precision of rows with "score", "outcome" and "instances", taken together."""
    scores = [s for r in rows for s in r["score"]]
    outcomes = [o for r in rows for o in r["outcome"]]
    return metrics.average_precision(scores, outcomes, sum(r["instances"] for r in rows))
