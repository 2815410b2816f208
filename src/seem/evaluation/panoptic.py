"""Everything in the photo at once: panoptic quality, instance average precision and semantic IoU.

Two ways of asking for everything: `instances` (overlapping masks, down to low scores: what average precision is made
for), and `panoptic` (one segment per pixel: panoptic quality, and the names of pixels). A data set of
COCO's panoptic layout has things and stuff, and pixels that nobody knows. One of instances has things only: what is not
annotated is background, and where instances overlap, the smaller one lies on top.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from seem.evaluation import metrics
from seem.evaluation.datasets import Dataset, DatasetError, Target
from seem.vocabulary import COCO_PANOPTIC_NAMES, VocabularyLike

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.panoptic import Panoptic
    from seem.predict.scene import Scene

Row = dict[str, Any]
THRESHOLD = 0.05
LIMIT = 100  # results per photo, as published models are measured
IOUS = tuple(k / 100 for k in range(50, 100, 5))  # COCO's


def scope(dataset: Dataset) -> str:
    """What the figures are about."""
    return "things and stuff" if dataset.stuff else "things only"


def evaluate(model: Model, dataset: Dataset) -> Iterator[Row]:
    """Rows of one photo and class that is there or was answered.

    {"image", "key", "name", "stuff", "segments": counts of matched, surplus and missed ones, "pixels": {"both",
    "answer", "truth"}, and for things "instances", "score" and "outcome": for each of `IOUS` a list over the results}.
    """
    names = class_names(dataset)
    for photo in dataset.photos:
        scene = model.encode(photo.path)
        targets = [t for t in photo.targets(scene.size) if t.mask.any()]
        truth = Truth.of(targets, void=bool(dataset.stuff), size=scene.size)
        answer = scene.panoptic(vocabulary=vocabulary(dataset))
        counts = truth.match(answer, names)
        found = _instances(scene, vocabulary(dataset), {name for name in names if name not in dataset.stuff})
        for name in names:
            of_name = [t for t in targets if t.name == name]
            if not of_name and name not in counts and name not in found:
                continue
            row: Row = {"image": photo.key, "key": f"{photo.key}#{name}", "name": name, "stuff": name in dataset.stuff}
            row["segments"] = asdict(counts.get(name, metrics.SegmentCounts()))
            row["pixels"] = truth.pixels(answer, name)
            yield row if row["stuff"] else {**row, **_detections(found.get(name, []), of_name)}


def class_names(dataset: Dataset) -> list[str]:
    """Each class once. Raises DatasetError if there is none."""
    if not dataset.names:
        raise DatasetError(f"{dataset.name}: expected a data set with class names, such as a COCO file")
    return list(dict.fromkeys(dataset.names))


def vocabulary(dataset: Dataset) -> VocabularyLike | None:
    """What `panoptic` is asked for: COCO's own names if these are among them."""
    if set(dataset.names) <= set(COCO_PANOPTIC_NAMES):
        return None
    return [(name, "stuff" if name in dataset.stuff else "thing") for name in class_names(dataset)]


@dataclass(frozen=True)
class Truth:
    """What a photo shows, one segment per pixel.

    Attributes:
        map: (H, W) int64, a target's place in the list from 1; 0 is none.
        names: of every id.
        crowds: ids that are crowds.
        void: (H, W) bool, pixels that nobody knows.
    """

    map: np.ndarray
    names: dict[int, str]
    crowds: frozenset[int]
    void: np.ndarray

    @staticmethod
    def of(targets: Sequence[Target], void: bool, size: tuple[int, int]) -> Truth:
        """Paint the targets, crowds first, then the largest; `void` says that what none covers is unknown."""
        ids = np.zeros((size[1], size[0]), np.int64)
        order = sorted(range(len(targets)), key=lambda i: (not targets[i].crowd, -np.count_nonzero(targets[i].mask)))
        for i in order:
            ids[targets[i].mask] = i + 1
        names = {i + 1: t.name for i, t in enumerate(targets) if t.name is not None and (ids == i + 1).any()}
        crowds = frozenset(i for i in names if targets[i - 1].crowd)
        return Truth(ids, names, crowds, (ids == 0) & void)

    def match(self, answer: Panoptic, names: Sequence[str]) -> dict[str, metrics.SegmentCounts]:
        """Counts by class; answers of other names than the data set's say nothing."""
        segments = {s.id: s.label for s in answer.segments if s.label in names}
        return metrics.match_segments(answer.map, segments, self.map, self.names, self.crowds, self.void)

    def pixels(self, answer: Panoptic, name: str) -> dict[str, int]:
        there = np.isin(self.map, [i for i, n in self.names.items() if n == name])
        said = np.isin(answer.map, [s.id for s in answer.segments if s.label == name]) & ~self.void
        areas = {"both": there & said, "answer": said, "truth": there}
        return {key: int(np.count_nonzero(mask)) for key, mask in areas.items()}


Found = list[tuple[float, np.ndarray]]


def _instances(scene: Scene, asked: VocabularyLike | None, names: Collection[str]) -> dict[str, Found]:
    """The photo's best instances by name, best first; those of other names than the data set's say nothing."""
    found: dict[str, Found] = defaultdict(list)
    for result in scene.instances(asked, THRESHOLD, LIMIT):
        if result.label in names:
            found[str(result.label)].append((result.score, result.mask))
    return found


def _detections(found: Found, targets: Sequence[Target]) -> dict[str, Any]:
    truths, crowds = [t.mask for t in targets if not t.crowd], [t.mask for t in targets if t.crowd]
    return {
        "instances": len(truths),
        "score": [round(float(score), 5) for score, _ in found],
        "outcome": metrics.match_detections([mask for _, mask in found], truths, crowds, IOUS),
    }


# ---- figures ------------------------------------------------------------------------------------------------------


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """{"n" (photos), "pq", "sq", "rq", "miou": {"all", "things", "stuff"}, "ap", "ap50", "ap75", "classes",
    "instances"}; panoptic figures are means over the classes that the photos show or that were answered, the others
    over the classes that they show."""
    of_class: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_class[row["name"]].append(row)
    stuff = {name: each[0]["stuff"] for name, each in of_class.items()}
    groups = {
        "all": list(of_class),
        "things": [name for name in of_class if not stuff[name]],
        "stuff": [name for name in of_class if stuff[name]],
    }
    if not groups["stuff"]:
        groups = {"things": groups["things"]}
    quality = {name: panoptic_quality(each) for name, each in of_class.items()}
    pixels = {name: _pixel_iou(each) for name, each in of_class.items()}
    precision = [_precisions(of_class[name]) for name in groups["things"]]
    at = {f"ap{round(100 * iou)}": metrics.mean(p[i] for p in precision) for i, iou in enumerate(IOUS)}

    def mean_quality(part: int) -> dict[str, float | None]:
        return {
            group: metrics.mean(q[part] for q in (quality[n] for n in names) if q is not None)
            for group, names in groups.items()
        }

    return {
        "n": len({r["image"] for r in rows}),
        "pq": mean_quality(0),
        "sq": mean_quality(1),
        "rq": mean_quality(2),
        "ap": metrics.mean(at.values()),
        "ap50": at["ap50"],
        "ap75": at["ap75"],
        "miou": {group: metrics.mean(pixels[n] for n in names) for group, names in groups.items()},
        "classes": len(of_class),
        "instances": sum(r.get("instances", 0) for r in rows),
    }


def panoptic_quality(rows: Sequence[Row]) -> tuple[float, float, float] | None:
    """(panoptic, segmentation, recognition quality) of rows taken together; None without any segment."""
    hits, wrong, missed = (sum(r["segments"][key] for r in rows) for key in ("hits", "wrong", "missed"))
    if not hits + wrong + missed:
        return None
    segmentation = sum(r["segments"]["iou"] for r in rows) / hits if hits else 0.0
    recognition = hits / (hits + wrong / 2 + missed / 2)
    return segmentation * recognition, segmentation, recognition


def _pixel_iou(rows: Sequence[Row]) -> float | None:
    both, answer, truth = (sum(r["pixels"][key] for r in rows) for key in ("both", "answer", "truth"))
    return both / (answer + truth - both) if truth else None


def _precisions(rows: Sequence[Row]) -> list[float | None]:
    """Average precision of one class at each of `IOUS`; None where the photos do not show it."""
    scores = [s for r in rows for s in r["score"]]
    instances = sum(r["instances"] for r in rows)
    return [
        metrics.average_precision(scores, [o for r in rows for o in r["outcome"][i]], instances)
        for i in range(len(IOUS))
    ]
