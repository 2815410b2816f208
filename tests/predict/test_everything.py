"""Everything mode: each thing once, named and scored, without specks; `seem everything` and `--tiles`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seem
from seem.cli import main
from seem.geometry import mask_iou, rle_decode
from seem.predict.everything import clean
from seem.predict.model import Model
from seem.predict.scene import Scene
from tests.conftest import BLUE_BOX, RED_BOX, box_mask, green_mask, make_photo
from tests.fakes import WEIGHTS, FakeNetwork
from tests.predict.test_tiles import WholeNetwork
from tests.tiny import tiny_model


def test_each_thing_is_found_once_and_named(scene: Scene) -> None:
    found = scene.everything(12, vocabulary=["red", "blue", "green", "grey"], overlap=0.5)
    for truth, name in ((box_mask(RED_BOX), "red"), (box_mask(BLUE_BOX), "blue"), (green_mask(), "green")):
        (hit,) = [r for r in found if mask_iou(r.mask, truth) > 0.8]
        assert hit.label == name
    scores = [r.score for r in found]
    assert scores == sorted(scores, reverse=True)


def test_masks_are_those_of_clicks(scene: Scene) -> None:
    best = scene.everything(12, min_area=0)[0]
    own = [r for x in range(5, 160, 5) for r in scene.candidates(seem.Click(x, 50))]
    assert max(mask_iou(best.mask, r.mask) for r in own) > 0.95
    assert np.array_equal(best.mask, scene.everything(12, min_area=0)[0].mask)


def test_filters_leave_out_what_they_say(scene: Scene) -> None:
    loose = scene.everything(8, threshold=0.0, stability=0.0, overlap=1.0, min_area=0)
    assert all(r.score >= 0.5 for r in scene.everything(8, threshold=0.5))
    assert len(scene.everything(8, threshold=0.0, stability=0.0, overlap=0.5, min_area=0)) < len(loose)
    assert all(r.area >= 900 for r in scene.everything(8, min_area=1500))
    assert len(scene.everything(8, limit=2)) == 2
    assert all(r.label is None for r in scene.everything(4, label=False))


def test_specks_and_holes_are_cleaned() -> None:
    logits = torch.full((12, 12), -3.0)
    logits[1:9, 1:9] = 3
    logits[4, 4] = -2  # a hole
    logits[10, 10] = 2  # a speck
    found = clean(logits, 4) > 0
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[1:9, 1:9] = True
    assert torch.equal(found, expected)
    alone = torch.full((6, 6), -1.0)
    alone[2, 2] = 1
    assert (clean(alone, 9) > 0).sum() == 1  # the largest island stays


def test_the_real_network(photo: np.ndarray) -> None:
    scene = Model(tiny_model(), WEIGHTS).encode(photo)
    found = scene.everything(3, threshold=0.0, stability=0.0, min_area=0, limit=5)
    assert found and all(r.label and r.embedding.ndim == 1 for r in found)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"points_per_side": 0}, ValueError, "points_per_side: expected 1 to 128"),
        ({"points_per_side": 2.0}, TypeError, "points_per_side"),
        ({"threshold": 2}, ValueError, "threshold"),
        ({"stability": "x"}, TypeError, "stability"),
        ({"min_area": -1}, ValueError, "min_area"),
        ({"limit": 0}, ValueError, "limit"),
    ],
)
def test_bad_numbers(scene: Scene, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scene.everything(**options)  # type: ignore[arg-type]


# ---- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(seem, "load", lambda name, device="auto": Model(FakeNetwork(), WEIGHTS))  # type: ignore[arg-type]
    Image.fromarray(make_photo()).save("photo.png")
    return tmp_path


def test_the_command_writes_a_picture_masks_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--points", "10", "--overlap", "0.5", "--out", "all.png", "--mask-out", "numbers.png", "--json"]
    assert main(["everything", "photo.png", *args]) == 0
    segments = json.loads(capsys.readouterr().out)["segments"]
    assert max(mask_iou(rle_decode(s["mask_rle"]), box_mask(RED_BOX)) for s in segments) > 0.8
    assert Image.open("all.png").size == (160, 120)
    assert int(np.asarray(Image.open("numbers.png")).max()) <= len(segments)


@pytest.mark.parametrize("command", [
    ["segment", "--click", "40,50"], ["find", "--text", "red"], ["panoptic", "--vocabulary", "red,blue"],
    ["everything", "--points", "6"],
])  # fmt: skip
def test_tiles_are_an_option_of_every_question(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    model = Model(WholeNetwork(), WEIGHTS)  # type: ignore[arg-type]
    monkeypatch.setattr(seem, "load", lambda name, device="auto": model)
    assert main([command[0], "photo.png", *command[1:], "--tiles", "80", "--json"]) == 0
    segments = json.loads(capsys.readouterr().out)["segments"]
    assert max(mask_iou(rle_decode(s["mask_rle"]), box_mask(RED_BOX)) for s in segments) > 0.8


def test_a_tile_that_is_too_small_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "photo.png", "--click", "40,50", "--tiles", "3"]) == 2
    assert capsys.readouterr().err == "seem: --tiles: tile: expected a whole number of pixels from 64, got 3\n"
