"""Naming one object: class names, other words for them, names of what is not there, and words for places.

"text": classes with exactly one instance in a photo; the IoU of the best `find` result at the default threshold, 0 if
there is none. Also what `segment(Text)` gives, which always answers. "position": classes with two or more instances,
phrases such as "the dog on the left" where the annotation makes plain which one is meant.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seem.evaluation import metrics
from seem.evaluation.datasets import Dataset, DatasetError, Target
from seem.prompts import Text

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.scene import Scene

SYNONYMS = {
    "couch": "sofa",
    "car": "automobile",
    "dog": "puppy",
    "bicycle": "bike",
    "cat": "kitten",
    "airplane": "plane",
    "tv": "television",
    "cell phone": "mobile phone",
    "refrigerator": "fridge",
    "motorcycle": "motorbike",
    "donut": "doughnut",
    "horse": "pony",
    "person": "human",
    "boat": "ship",
    "truck": "lorry",
    "dining table": "table",
    "laptop": "notebook computer",
    "potted plant": "houseplant",
    "cup": "mug",
    "backpack": "rucksack",
}
"""20 COCO names and another word for each."""

LARGE = 0.01  # share of the image from which an object counts as large
ABSENT = 5  # names per photo that are not in it

PHRASES = {
    "left": "the {} on the left",
    "right": "the {} on the right",
    "top": "the {} at the top",
    "bottom": "the {} at the bottom",
    "largest": "the largest {}",
    "smallest": "the smallest {}",
    "nearest": "the nearest {}",
}
MARGIN = 0.08  # of the image's side between centres, for a place to be plain
RATIO = 1.5  # of areas, for a size to be plain

Row = dict[str, Any]


def evaluate(model: Model, dataset: Dataset, *, seed: int = 0) -> Iterator[Row]:
    """Rows of four kinds, told apart by "kind": "name" (and its synonym), "absent", "position".

    name: {"name", "area", "iou", "segment_iou", "score", "synonym_iou"} · absent: {"name", "found"} · position:
    {"name", "word", "area", "iou", "right", "instances"}. All have "image" and "key".
    """
    if not dataset.names:
        raise DatasetError(f"{dataset.name}: expected a data set with class names, such as a COCO file")
    for photo in dataset.photos:
        scene = model.encode(photo.path)
        targets = [t for t in photo.targets(scene.size) if t.crowd or t.mask.any()]
        for name, instances in _by_name(targets).items():
            if len(instances) == 1:
                yield {"image": photo.key, **_name_row(scene, name, instances[0])}
            else:
                for row in _position_rows(scene, name, instances):
                    yield {"image": photo.key, **row}
        present = {t.name for t in targets}
        for name in absent_names(dataset.names, present, photo.key, seed):
            found = len(scene.find(name))
            yield {"image": photo.key, "key": f"{photo.key}#no {name}", "kind": "absent", "name": name, "found": found}


def _by_name(targets: Sequence[Target]) -> dict[str, list[Target]]:
    """Instances by class; a class that also has a crowd in the photo is left out: nobody knows how many there are."""
    crowded = {t.name for t in targets if t.crowd}
    names = Counter(t.name for t in targets if t.name is not None and t.name not in crowded)
    return {name: [t for t in targets if t.name == name] for name in names}


def absent_names(names: Sequence[str], present: set[str | None], photo: str, seed: int) -> list[str]:
    """`ABSENT` names that the photo does not show; the same ones for a photo in any subset of the data."""
    rng = np.random.default_rng((seed, zlib.crc32(photo.encode())))
    others = [n for n in names if n not in present]
    return [others[i] for i in rng.permutation(len(others))[:ABSENT]]


def _name_row(scene: Scene, name: str, target: Target) -> Row:
    always = scene.segment(Text(name))
    row = {
        "key": target.key,
        "kind": "name",
        "name": name,
        "area": round(float(target.mask.mean()), 6),
        "iou": _found_iou(scene, name, target),
        "segment_iou": round(metrics.masked_iou(always.mask, target.mask), 5),
        "score": round(float(always.score), 5),
    }
    if name in SYNONYMS:
        row["synonym_iou"] = _found_iou(scene, SYNONYMS[name], target)
    return row


def _found_iou(scene: Scene, name: str, target: Target) -> float:
    found = scene.find(name)
    return round(metrics.masked_iou(found[0].mask, target.mask), 5) if found else 0.0


# ---- places -------------------------------------------------------------------------------------------------------


def _position_rows(scene: Scene, name: str, instances: Sequence[Target]) -> Iterator[Row]:
    for word, index in plain_words([t.mask for t in instances]).items():
        mask = scene.segment(Text(PHRASES[word].format(name))).mask
        ious = [metrics.masked_iou(mask, t.mask) for t in instances]
        yield {
            "key": f"{instances[index].key} {word}",
            "kind": "position",
            "name": name,
            "word": word,
            "area": round(float(instances[index].mask.mean()), 6),
            "iou": round(ious[index], 5),
            "right": bool(ious[index] > 0 and ious[index] == max(ious)),
            "instances": len(instances),
        }


def plain_words(masks: Sequence[np.ndarray]) -> dict[str, int]:
    """Which words of `PHRASES` pick out one of two or more masks beyond doubt: word -> index.

    Places need centres `MARGIN` of the image's side apart, sizes an area `RATIO` times the next one's; the nearest is
    the largest if it also stands lowest.
    """
    height, width = masks[0].shape
    rows, columns = zip(*(np.nonzero(mask) for mask in masks), strict=True)
    values = {
        "left": [-float(x.mean()) / width for x in columns],
        "right": [float(x.mean()) / width for x in columns],
        "top": [-float(y.mean()) / height for y in rows],
        "bottom": [float(y.mean()) / height for y in rows],
        "largest": [float(np.log(len(x))) for x in columns],
        "smallest": [-float(np.log(len(x))) for x in columns],
    }
    found = {}
    for word, value in values.items():
        order = np.argsort(value)
        gap = value[order[-1]] - value[order[-2]]
        if gap > (np.log(RATIO) if word in ("largest", "smallest") else MARGIN):
            found[word] = int(order[-1])
    if "largest" in found and found["largest"] == int(np.argmax([y.max() for y in rows])):
        found["nearest"] = found["largest"]
    return found


# ---- figures ------------------------------------------------------------------------------------------------------


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """{"n", "iou", "iou_large", "found", "segment_iou", "false_positive", "synonyms", "position", "calibration"}."""
    kinds: dict[str, list[Row]] = {"name": [], "absent": [], "position": []}
    for row in rows:
        kinds[row["kind"]].append(row)
    named, large = kinds["name"], [r for r in kinds["name"] if r["area"] >= LARGE]
    other = [r for r in named if "synonym_iou" in r]
    return {
        "n": len(named),
        "n_large": len(large),
        "iou": metrics.mean(r["iou"] for r in named),
        "iou_large": metrics.mean(r["iou"] for r in large),
        "found": metrics.mean(r["iou"] >= 0.5 for r in named),
        "found_large": metrics.mean(r["iou"] >= 0.5 for r in large),
        "segment_iou": metrics.mean(r["segment_iou"] for r in named),
        "segment_iou_large": metrics.mean(r["segment_iou"] for r in large),
        "false_positive": metrics.mean(r["found"] > 0 for r in kinds["absent"]),
        "synonyms": {
            "n": len(other),
            "iou_name": metrics.mean(r["iou"] for r in other),
            "iou_synonym": metrics.mean(r["synonym_iou"] for r in other),
        },
        "position": _position_figures(kinds["position"]),
        "calibration": metrics.calibration([r["score"] for r in named], [r["segment_iou"] for r in named]),
    }


def _position_figures(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "n": len(rows),
        "right": metrics.mean(r["right"] for r in rows),
        "right_large": metrics.mean(r["right"] for r in rows if r["area"] >= LARGE),
        "chance": metrics.mean(1 / r["instances"] for r in rows),
        "iou": metrics.mean(r["iou"] for r in rows),
        "words": {word: metrics.mean(r["right"] for r in rows if r["word"] == word) for word in PHRASES},
    }
