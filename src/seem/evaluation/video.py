"""Following the objects of a video's first frame: DAVIS's J, F and J&F.

J is the IoU of the masks, F the agreement of their contours (`metrics.contour_accuracy`). The true masks of the first
frame are given; the first and the last frame do not count, as in DAVIS's own evaluation. Means are over the frames of
an object, then over objects. "floor" is what one gets for copying the first masks.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seem import geometry
from seem.evaluation import metrics
from seem.evaluation.datasets import Dataset, DatasetError, Photo, read_mask_file
from seem.prompts import Mask

Row = dict[str, Any]
Masks = dict[int, np.ndarray]  # object's number -> (H, W) bool


Answers = Callable[[Sequence[Photo], Masks], Iterator[Masks]]


def tracked(model: object) -> Answers:
    """What a model answers, given the first frame's masks. Raises ValueError for one without `track`."""
    track = getattr(model, "track", None)
    if track is None:
        raise ValueError(f"model: expected one that tracks, got {model!r}")

    def answer(frames: Sequence[Photo], first: Masks) -> Iterator[Masks]:
        given = {number: [Mask(mask)] for number, mask in first.items()}
        for results in track([frame.path for frame in frames], given, start=0):
            yield {number: result.mask for number, result in results.items()}

    return answer


def stored(folder: Path) -> Answers:
    """What lies in a folder: SEQUENCE/FRAME.png, numbered as the annotation; an object that is missing is empty."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")

    def answer(frames: Sequence[Photo], first: Masks) -> Iterator[Masks]:
        for frame in frames:
            path = folder / f"{frame.key}.png"
            if not path.is_file():
                raise DatasetError(f"{path}: expected a mask of every frame, there is none")
            yield {number: mask for number, mask, _ in read_mask_file(path)}

    return answer


def sequences(dataset: Dataset, limit: int | None = None, frames: int | None = None) -> dict[str, list[Photo]]:
    """The first `limit` videos, and the first `frames` of each. Raises DatasetError for one that is no video."""
    videos: dict[str, list[Photo]] = defaultdict(list)
    for photo in dataset.photos:
        if photo.sequence:
            videos[photo.sequence].append(photo)
    if not videos:
        raise DatasetError(f"{dataset.name}: expected a folder of frames per video, as in DAVIS")
    chosen = {name: photos[:frames] for name, photos in list(videos.items())[:limit]}
    for name, photos in chosen.items():
        if len(photos) < 3:
            raise DatasetError(f"{dataset.name}: video {name}: expected 3 frames or more, got {len(photos)}")
    return chosen


def evaluate(answers: Answers, videos: Mapping[str, Sequence[Photo]]) -> Iterator[Row]:
    """Rows of one object of one video.

    {"image" (the video), "key", "frames", "j", "f" (means), "floor_j", "floor_f", "each_j", "each_f" (a value per frame
    that counts), "worst": {"frame", "mask", "truth"} (where J is least, run lengths), "seconds_per_frame"}
    """
    for name, frames in videos.items():
        first = _masks(frames[0])
        if not first:
            raise DatasetError(f"{frames[0].path}: expected an object in the first frame of video {name}")
        scores = {number: _Scores() for number in first}
        began, seconds = time.perf_counter(), 0.0
        count = 0
        for count, (frame, answer) in enumerate(zip(frames, answers(frames, first), strict=False), start=1):
            seconds += time.perf_counter() - began
            if 1 < count < len(frames):
                truth, empty = _masks(frame), np.zeros_like(next(iter(first.values())))
                for number, score in scores.items():
                    guess, right = answer.get(number, empty), truth.get(number, empty)
                    if guess.shape != right.shape:
                        raise DatasetError(
                            f"{frame.key}: object {number}: expected masks of {_size(right)}, got {_size(guess)}"
                        )
                    score.add(frame.key, guess, right, first[number])
            began = time.perf_counter()
        if count != len(frames):
            raise DatasetError(f"video {name}: expected an answer for each of {len(frames)} frames, got {count}")
        for number, score in scores.items():
            row = {"image": name, "key": f"{name}#{number}", "frames": len(score.j), **score.row()}
            yield row | {"seconds_per_frame": round(seconds / len(frames), 4)}


@dataclass
class _Scores:
    """One object's values over the frames that count."""

    j: list[float] = field(default_factory=list)
    f: list[float] = field(default_factory=list)
    floor: list[tuple[float, float]] = field(default_factory=list)
    worst: dict[str, Any] = field(default_factory=dict)

    def add(self, frame: str, guess: np.ndarray, truth: np.ndarray, first: np.ndarray) -> None:
        j = metrics.masked_iou(guess, truth)
        if not self.j or j < min(self.j):
            self.worst = {"frame": frame, "mask": geometry.rle_encode(guess), "truth": geometry.rle_encode(truth)}
        self.j.append(j)
        self.f.append(metrics.contour_accuracy(guess, truth))
        self.floor.append((metrics.masked_iou(first, truth), metrics.contour_accuracy(first, truth)))

    def row(self) -> Row:
        floor = np.mean(self.floor, 0).tolist()
        return {
            "j": round(float(np.mean(self.j)), 5),
            "f": round(float(np.mean(self.f)), 5),
            "floor_j": round(floor[0], 5),
            "floor_f": round(floor[1], 5),
            "each_j": [round(v, 4) for v in self.j],
            "each_f": [round(v, 4) for v in self.f],
            "worst": self.worst,
        }


def _masks(frame: Photo) -> Masks:
    return {target.number: target.mask for target in frame.targets() if target.mask.any()}


def _size(mask: np.ndarray) -> str:
    return f"{mask.shape[1]}x{mask.shape[0]}"


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """{"j", "f", "jf", "floor": {"j", "f", "jf"}, "videos": {name: jf} (if there are few), "seconds_per_frame"}."""
    videos: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        videos[row["image"]].append((row["j"] + row["f"]) / 2)
    return {
        "j": metrics.mean(r["j"] for r in rows),
        "f": metrics.mean(r["f"] for r in rows),
        "jf": metrics.mean((r["j"] + r["f"]) / 2 for r in rows),
        "floor": {
            "j": metrics.mean(r["floor_j"] for r in rows),
            "f": metrics.mean(r["floor_f"] for r in rows),
            "jf": metrics.mean((r["floor_j"] + r["floor_f"]) / 2 for r in rows),
        },
        "videos": {name: metrics.mean(each) for name, each in sorted(videos.items())} if len(videos) <= 40 else {},
        "seconds_per_frame": metrics.median(r["seconds_per_frame"] for r in rows),
    }
