"""To FiftyOne and supervision and back: the same masks."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from seem.friends.detections import from_fiftyone, from_supervision, to_fiftyone
from seem.predict.scene import Scene
from seem.predict.segmentation import to_supervision
from seem.prompts import Box, Click, Mask, Text
from tests.conftest import BLUE_BOX, RED_BOX, box_mask

RED, BLUE = Click(40, 50), Click(110, 40)


@dataclass
class Detection:
    """As much of `fiftyone.Detection` as is used: the package brings a database server, too much for a test."""

    label: str
    bounding_box: list[float]
    mask: np.ndarray | None = None
    confidence: float | None = None


@dataclass
class Detections:
    detections: list[Detection] = field(default_factory=list)


@pytest.fixture
def fiftyone(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package itself where it is installed."""
    try:
        import fiftyone
    except ImportError:
        fiftyone: Any = ModuleType("fiftyone")  # type: ignore[no-redef]
        fiftyone.Detection, fiftyone.Detections = Detection, Detections
        monkeypatch.setitem(sys.modules, "fiftyone", fiftyone)
    return fiftyone


# ---- FiftyOne -----------------------------------------------------------------------------------------------------


def test_results_to_fiftyone_and_back(scene: Scene, fiftyone: ModuleType) -> None:
    results = scene.segment_all([[RED], [BLUE]])
    labels = to_fiftyone(results)
    assert isinstance(labels, fiftyone.Detections)
    for result, found in zip(results, labels.detections, strict=True):
        assert (found.label, found.confidence) == (result.label, result.score)
        x, y, w, h = found.bounding_box
        assert result.box == pytest.approx((160 * x, 120 * y, 160 * (x + w), 120 * (y + h)))
        assert found.mask.shape == (result.box[3] - result.box[1], result.box[2] - result.box[0])  # type: ignore[index]
    for result, prompts in zip(results, from_fiftyone(labels, scene.size), strict=True):
        (prompt,) = prompts
        assert isinstance(prompt, Mask) and np.array_equal(prompt.array, result.mask)


def test_panoptic_to_fiftyone(scene: Scene, fiftyone: ModuleType) -> None:
    whole = scene.panoptic(["red", "blue", "green", ("grey", "stuff")])
    back = from_fiftyone(to_fiftyone(whole), scene.size)
    assert len(back) == len(whole.segments) > 2
    for segment, (prompt,) in zip(whole.segments, back, strict=True):
        assert isinstance(prompt, Mask) and np.array_equal(prompt.array, whole.mask(segment.id))


def test_empty_masks_are_left_out(scene: Scene, fiftyone: ModuleType) -> None:
    nothing = scene.segment(RED, Click(41, 51, positive=False), label=False)
    results = [scene.segment(RED), nothing] if not nothing.area else [scene.segment(RED)]
    assert len(to_fiftyone(results).detections) == 1
    assert to_fiftyone([]).detections == []


def test_boxes_without_masks_are_box_prompts(scene: Scene) -> None:
    share = [RED_BOX[0] / 160, RED_BOX[1] / 120, 40 / 160, 40 / 120]
    ((prompt,),) = from_fiftyone(Detections([Detection("red", share)]), scene.size)
    assert isinstance(prompt, Box)
    assert (prompt.x0, prompt.y0, prompt.x1, prompt.y1) == pytest.approx(RED_BOX)


def test_fiftyone_that_does_not_fit() -> None:
    tall = Detections([Detection("red", [0.5, 0.5, 0.5, 0.5], np.ones((70, 80), bool))])
    with pytest.raises(ValueError, match=r"detections\[0\]\.mask: expected one inside an image of 160x120"):
        from_fiftyone(tall, (160, 120))
    with pytest.raises(TypeError, match=r"expected fiftyone\.Detections, got list"):
        from_fiftyone([], (160, 120))


def test_without_fiftyone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(ImportError, match="pip install fiftyone"):
        to_fiftyone([scene.segment(RED)])


# ---- supervision --------------------------------------------------------------------------------------------------


@dataclass
class Boxes:
    """What a detector gives: `supervision.Detections` without masks."""

    xyxy: np.ndarray
    mask: np.ndarray | None = None


def test_boxes_become_masks(scene: Scene) -> None:
    objects = from_supervision(Boxes(np.array([RED_BOX, BLUE_BOX], np.float32)))  # type: ignore[arg-type]
    results = scene.segment_all(objects)
    assert [r.label for r in scene.segment_all(objects, vocabulary=["red", "blue"])] == ["red", "blue"]
    assert results[0].box == pytest.approx(RED_BOX, abs=3)


def test_an_empty_mask_falls_back_to_its_box() -> None:
    masks = np.stack([box_mask(RED_BOX), np.zeros((120, 160), bool)])
    first, second = from_supervision(Boxes(np.array([RED_BOX, BLUE_BOX]), masks))  # type: ignore[arg-type]
    assert isinstance(first[0], Mask) and isinstance(second[0], Box)


def test_round_trip_through_supervision(scene: Scene) -> None:
    pytest.importorskip("supervision")
    results = scene.segment_all([[RED], [Text("blue")]])
    for result, (prompt,) in zip(results, from_supervision(to_supervision(results)), strict=True):
        assert isinstance(prompt, Mask) and np.array_equal(prompt.array, result.mask)
    assert from_supervision(to_supervision([])) == []


def test_no_detections() -> None:
    with pytest.raises(TypeError, match=r"expected supervision\.Detections, got list"):
        from_supervision([])  # type: ignore[arg-type]
