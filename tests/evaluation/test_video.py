from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seem import geometry
from seem.evaluation import video
from seem.evaluation.datasets import DatasetError, open_dataset
from seem.predict.model import Model
from seem.predict.segmentation import Segmentation
from seem.prompts import Mask


class FakeTracker:
    """`track` as a model has it: each frame is segmented with the first frame's mask, moved by nothing."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def track(
        self, frames: Sequence[Path], prompts: Mapping[int, list[Mask]], *, start: int = 0
    ) -> Iterator[dict[int, Segmentation]]:
        assert start == 0
        for frame in frames:
            scene = self.model.encode(frame)
            yield {number: scene.segment(*given) for number, given in prompts.items()}


def test_a_tracker_is_given_the_first_masks_and_judged_by_the_rest(model: Model, davis: Path) -> None:
    dataset = open_dataset(davis)
    videos = video.sequences(dataset)
    rows = list(video.evaluate(video.tracked(FakeTracker(model)), videos))
    assert [(r["key"], r["frames"]) for r in rows] == [
        ("squares#1", 2),
        ("squares#2", 2),
    ]  # of 4 frames, the inner ones
    moving, still = rows
    assert moving["j"] > 0.85 and moving["f"] > 0.9
    assert still["floor_j"] == still["floor_f"] == 1.0
    assert moving["floor_j"] == pytest.approx((36 / 44 + 32 / 48) / 2, abs=1e-4)  # 40 wide, moved by 4 and by 8
    assert moving["floor_f"] < 1.0
    figures = video.figures(rows)
    assert figures["j"] == pytest.approx((moving["j"] + still["j"]) / 2)
    assert figures["jf"] == pytest.approx((figures["j"] + figures["f"]) / 2)
    assert list(figures["videos"]) == ["squares"]


def test_a_folder_of_masks(davis: Path, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions"
    shutil.copytree(davis / "Annotations/480p", predictions)
    videos = video.sequences(open_dataset(davis))
    rows = list(video.evaluate(video.stored(predictions), videos))
    assert [(r["j"], r["f"]) for r in rows] == [(1.0, 1.0), (1.0, 1.0)]
    Image.fromarray(np.full((120, 160), 2, np.uint8)).save(predictions / "squares/00001.png")
    rows = list(video.evaluate(video.stored(predictions), videos))
    assert (rows[0]["each_j"], rows[0]["each_f"]) == ([0.0, 1.0], [0.0, 1.0])  # object 1 is not in that file
    assert rows[0]["worst"]["frame"] == "squares/00001" and not geometry.rle_decode(rows[0]["worst"]["mask"]).any()
    assert rows[1]["each_j"][0] == pytest.approx(1600 / 19200, abs=1e-4)
    (predictions / "squares/00003.png").unlink()
    with pytest.raises(DatasetError, match=r"00003\.png: expected a mask of every frame"):
        list(video.evaluate(video.stored(predictions), videos))


def test_limits_and_lists(davis: Path) -> None:
    (davis / "ImageSets/2017").mkdir(parents=True)
    (davis / "ImageSets/2017/val.txt").write_text("squares\n")
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(davis / kind / "480p/squares", davis / kind / "480p/other")
    assert list(video.sequences(open_dataset(davis))) == ["squares"]
    assert list(video.sequences(open_dataset(davis, split="all"))) == ["other", "squares"]
    assert list(video.sequences(open_dataset(davis, split="2017/val"))) == ["squares"]
    assert [len(v) for v in video.sequences(open_dataset(davis, split="all"), limit=1, frames=3).values()] == [3]
    (davis / "ImageSets/2016").mkdir()
    (davis / "ImageSets/2016/test.txt").write_text(
        "/JPEGImages/480p/other/00001.jpg /Annotations/480p/other/00001.png\n"
    )
    assert [p.key for p in open_dataset(davis, split="test").photos] == ["other/00001"]


def test_what_is_no_video(davis: Path, folder: Path, model: Model) -> None:
    with pytest.raises(DatasetError, match="expected a folder of frames per video"):
        video.sequences(open_dataset(folder))
    with pytest.raises(DatasetError, match="video squares: expected 3 frames or more, got 2"):
        video.sequences(open_dataset(davis), frames=2)
    with pytest.raises(DatasetError, match="no such folder"):
        video.stored(davis / "nothing")
    with pytest.raises(ValueError, match="model: expected one that tracks"):
        video.tracked(object())
    short = video.tracked(type("Short", (), {"track": lambda *_, start: iter([])})())
    with pytest.raises(DatasetError, match="expected an answer for each of 4 frames, got 0"):
        list(video.evaluate(short, video.sequences(open_dataset(davis))))
    for frame in (davis / "Annotations/480p/squares").iterdir():
        Image.fromarray(np.zeros((120, 160), np.uint8)).save(frame)
    with pytest.raises(DatasetError, match=r"00000\.jpg: expected an object in the first frame of video squares"):
        list(video.evaluate(video.stored(davis / "Annotations/480p"), video.sequences(open_dataset(davis))))
