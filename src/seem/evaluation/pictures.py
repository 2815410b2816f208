"""The best, median and worst rows of a task as pictures, for the report.

A row says which photo and object it is about; its answer is made again, since the same prompts give the same mask. The
answer is tinted blue, the truth outlined in green.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from seem import geometry
from seem.evaluation import ablation, composition, find, interactive, panoptic, reference, referring
from seem.evaluation.datasets import Dataset, Target
from seem.evaluation.expressions import Expressions
from seem.evaluation.robot import Robot
from seem.images import load_image
from seem.predict.panoptic import Panoptic, PanopticSegment
from seem.predict.render import draw
from seem.prompts import Box, Mask, Prompt, Reference, Text

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.scene import Scene

Row = dict[str, Any]
EACH = 3  # pictures of the best, the median and the worst
CLICKS = 3  # rounds that an interactive picture shows
_BLUE = (38, 132, 255)
_TINT = 0.5


@dataclass(frozen=True)
class Picture:
    """One card of the report: pictures side by side and a line about them."""

    images: Sequence[Image.Image] = field(repr=False)
    caption: str = ""


Show = Callable[[Row], Picture]


def choose(task: str, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """{"worst", "median", "best"}: up to `EACH` different rows each, by how good they are; {} for tasks without."""
    quality = _QUALITY.get(task)
    if quality is None:
        return {}
    rows = _photos(rows) if task == "panoptic" else rows
    judged = [(q, i) for i, row in enumerate(rows) if (q := quality(row)) is not None]
    order = [rows[i] for _, i in sorted(judged)]
    share = min(EACH, -(-len(order) // 3))
    worst, rest = order[:share], order[share:]
    best, rest = rest[::-1][:share], rest[: max(len(rest) - share, 0)]
    start = max(len(rest) - share, 0) // 2
    return {"worst": worst, "median": rest[start : start + share], "best": best}


def _photos(rows: Sequence[Row]) -> list[Row]:
    """Panoptic rows of one photo, all its classes, as one."""
    counts: dict[str, dict[str, float]] = {}
    for row in rows:
        total = counts.setdefault(row["image"], dict.fromkeys(row["segments"], 0))
        for key, value in row["segments"].items():
            total[key] += value
    return [{"image": image, "key": image, "segments": total} for image, total in counts.items()]


def tinted(
    image: object, answer: np.ndarray | None, truth: np.ndarray | None, prompts: Sequence[Prompt] = ()
) -> Image.Image:
    """A photo with an answer, the true outline and prompts."""
    pixels = load_image(image)
    if answer is not None and answer.any():
        pixels = pixels.copy()
        pixels[answer] = np.rint(pixels[answer] * (1 - _TINT) + np.array(_BLUE) * _TINT).astype(np.uint8)
    outline = [Mask(truth)] if truth is not None and truth.any() else []
    return draw(pixels, [], [*outline, *(p for p in prompts if not isinstance(p, Mask))])


# ---- which rows are good --------------------------------------------------------------------------------------------


def iou_after(curve: Sequence[float], clicks: int) -> float:
    """IoU after so many clicks of a curve that may have ended before."""
    return curve[min(clicks, len(curve)) - 1]


def _label_quality(row: Row) -> float:
    return float(row["probability"] if row["names"][0] == row["name"] else -row["probability"])


def _gain(row: Row) -> float:
    return iou_after(row["with"]["iou"], CLICKS) - iou_after(row["without"]["iou"], CLICKS)


def _panoptic_quality(row: Row) -> float | None:
    quality = panoptic.panoptic_quality([row])
    return None if quality is None else quality[0]


_QUALITY: dict[str, Callable[[Row], float | None]] = {
    "interactive": lambda row: iou_after(row["iou"], CLICKS),
    "ablation": _gain,
    "text": lambda row: row["iou"] if row["kind"] == "name" else None,
    "find": lambda row: find.pooled_precision([row]),
    "label": _label_quality,
    "reference": lambda row: row["iou"],
    "composition": lambda row: row["both"],
    "panoptic": _panoptic_quality,
    "referring": lambda row: row["iou"],
    "video": lambda row: row["j"],
}


def qualities(task: str, rows: Sequence[Row]) -> list[float]:
    """How good each row is that says so, for the histogram."""
    judge = _QUALITY.get(task)
    return [] if judge is None else [q for row in rows if (q := judge(row)) is not None]


# ---- what they look like --------------------------------------------------------------------------------------------


class Shower:
    """Makes a row's picture: one method per task, by its name.

    Args:
        model: None where answers were read from files.
        data: what was evaluated.
        settings: of the run.
    """

    def __init__(self, task: str, model: Model | None, data: Dataset | Expressions, settings: dict[str, Any]) -> None:
        self._task = task
        self._model = model
        self._data = data
        self._settings = settings

    def __call__(self, row: Row) -> Picture:
        made: Picture = getattr(self, f"_{self._task}")(row)
        return made

    def _scene(self, key: str) -> tuple[Path, Scene, list[Target]]:
        assert self._model is not None and isinstance(self._data, Dataset)
        photo = self._data.photo(key)
        scene = self._model.encode(photo.path)
        return photo.path, scene, photo.targets(scene.size)

    def _object(self, row: Row) -> tuple[Path, Scene, Target]:
        path, scene, targets = self._scene(row["image"])
        return path, scene, next(t for t in targets if t.key == row["key"])

    def _clicked(self, path: Path, scene: Scene, target: Target, robot: Robot, memory: bool = True) -> Image.Image:
        first = interactive.first_prompt(self._settings["prompt"], target.mask, robot)
        stop = interactive.STOP[self._settings["robot"]]
        played = itertools.islice(interactive.rounds(scene, target, robot, first, stop, memory), CLICKS)
        prompts, result, *_ = list(played)[-1]
        return tinted(path, result.mask, target.mask, prompts)

    def _interactive(self, row: Row) -> Picture:
        path, scene, target = self._object(row)
        image = self._clicked(path, scene, target, interactive.make_robot(self._settings["robot"], target))
        clicks = min(CLICKS, len(row["iou"]))
        return Picture(
            [image], f"{row['key']}: IoU {iou_after(row['iou'], CLICKS):.2f} after {_count(clicks, 'round')}"
        )

    def _ablation(self, row: Row) -> Picture:
        path, scene, target = self._object(row)
        part = self._settings["part"]
        pair = []
        for way in ablation.WAYS:
            negatives = way == "with" or part != "negatives"
            robot = Robot(target.mask, target.ignore, negatives=negatives)
            pair.append(self._clicked(path, scene, target, robot, memory=way == "with" or part != "memory"))
        values = [iou_after(row[way]["iou"], CLICKS) for way in ablation.WAYS]
        return Picture(pair, f"{row['key']}: IoU {values[0]:.2f} with, {values[1]:.2f} without {part}")

    def _text(self, row: Row) -> Picture:
        path, scene, target = self._object(row)
        found = scene.find(row["name"], limit=1)
        image = tinted(path, found[0].mask if found else None, target.mask, [Text(row["name"])])
        return Picture([image], f"{row['key']}: IoU {row['iou']:.2f}" + ("" if found else ", nothing found"))

    def _find(self, row: Row) -> Picture:
        path, scene, targets = self._scene(row["image"])
        found = scene.find(row["name"])
        truth = _union([t.mask for t in targets if t.name == row["name"] and not t.crowd])
        image = tinted(path, _union([f.mask for f in found]), truth, [Text(row["name"])])
        return Picture([image], f"{row['image']}: {len(found)} found of {row['instances']}")

    def _label(self, row: Row) -> Picture:
        path, _, target = self._object(row)
        said = f"{row['names'][0]} {row['probability']:.2f}"
        return Picture([tinted(path, None, target.mask)], f"{row['key']}: {row['name']}, answered {said}")

    def _reference(self, row: Row) -> Picture:
        assert self._model is not None
        shown, there, examples = self._scene(row["reference"])
        path, here, targets = self._scene(row["image"])
        shown_key, found_key = row["key"].split(" -> ")
        example = next(t for t in examples if t.key == shown_key)
        target = next(t for t in targets if t.key == found_key)
        result = here.segment(Reference(there, reference.mark(example.mask, self._settings["prompt"])))
        pair = [tinted(shown, None, example.mask), tinted(path, result.mask, target.mask)]
        return Picture(pair, f"{row['key']}: {row['name']}, IoU {row['iou']:.2f}")

    def _composition(self, row: Row) -> Picture:
        path, scene, target = self._object(row)
        prompts = composition.prompts_for(row["name"], target)
        image = tinted(path, scene.segment(*prompts).mask, target.mask, prompts)
        values = ", ".join(f"{way} {row[way]:.2f}" for way in composition.WAYS)
        return Picture([image], f"{row['key']}: IoU {values}")

    def _panoptic(self, row: Row) -> Picture:
        assert isinstance(self._data, Dataset)
        path, scene, targets = self._scene(row["image"])
        answer = scene.panoptic(vocabulary=panoptic.vocabulary(self._data))
        pair = [draw(path, _as_panoptic(targets, self._data, scene)), draw(path, answer)]
        return Picture(pair, f"{row['key']}: truth, and answer of quality {_panoptic_quality(row) or 0:.2f}")

    def _referring(self, row: Row) -> Picture:
        assert self._model is not None and isinstance(self._data, Expressions)
        item = next(i for i in self._data.items if i.key == row["key"])
        scene = self._model.encode(item.image)
        mask = scene.segment(Text(item.sentence), label=False).mask
        known: list[Prompt] = [] if item.box is None else [Box(*referring.scaled_box(item, scene.size))]
        truth = None if item.mask is None else item.mask()
        image = tinted(item.image, mask, truth, [*known, Text(item.sentence)])
        return Picture([image], f"“{item.sentence}”: IoU {row['iou']:.2f}")

    def _video(self, row: Row) -> Picture:
        assert isinstance(self._data, Dataset)
        worst = row["worst"]
        photo = self._data.photo(worst["frame"])
        image = tinted(photo.path, geometry.rle_decode(worst["mask"]), geometry.rle_decode(worst["truth"]))
        return Picture([image], f"{row['key']}: J {row['j']:.2f}, F {row['f']:.2f}; its worst frame {photo.path.stem}")


def _as_panoptic(targets: Sequence[Target], dataset: Dataset, scene: Scene) -> Panoptic:
    truth = panoptic.Truth.of(targets, void=bool(dataset.stuff), size=scene.size)
    ids = {key: i for i, key in enumerate(truth.names, start=1)}
    table = np.zeros(int(truth.map.max()) + 1, np.int32)
    table[list(ids)] = list(ids.values())
    found = table[truth.map]
    segments = tuple(
        PanopticSegment(
            i, truth.names[key], 1.0, truth.names[key] not in dataset.stuff, int(np.count_nonzero(found == i))
        )
        for key, i in ids.items()
    )
    return Panoptic(found, segments, scene.digest)


def _union(masks: Sequence[np.ndarray]) -> np.ndarray | None:
    return np.logical_or.reduce(masks) if masks else None


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
