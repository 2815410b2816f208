"""`seem.pipeline`: the keys and types of transformers' pipelines, for one image and for several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import seem
from seem.geometry import mask_iou
from seem.predict.model import Model
from tests.conftest import BLUE_BOX, RED_BOX, box_mask

NAMES: list[Any] = ["red", "blue", "green", ("grey", "stuff")]


def test_masks_without_a_prompt(model: Model, photo: np.ndarray) -> None:
    result = seem.pipeline("mask-generation", model)(photo, points_per_side=8)
    assert set(result) == {"masks", "scores"}
    assert len(result["masks"]) == len(result["scores"]) > 1
    assert all(m.dtype == bool and m.shape == (120, 160) for m in result["masks"])
    assert result["scores"] == sorted(result["scores"], reverse=True)
    assert max(mask_iou(m, box_mask(RED_BOX)) for m in result["masks"]) > 0.8


def test_panoptic_instance_and_semantic(model: Model, photo: np.ndarray) -> None:
    pipe = seem.pipeline("image-segmentation", model)
    panoptic = pipe(photo, vocabulary=NAMES)
    assert all(set(found) == {"label", "score", "mask"} for found in panoptic)
    by_name = {found["label"]: found for found in panoptic}
    assert {"red", "blue", "grey"} <= set(by_name)
    mask = by_name["red"]["mask"]
    assert (type(mask), mask.mode, mask.size) == (Image.Image, "L", (160, 120))
    assert mask_iou(np.asarray(mask) == 255, box_mask(RED_BOX)) > 0.8
    assert 0 < by_name["red"]["score"] <= 1
    instance = pipe(photo, vocabulary=NAMES, subtask="instance")
    assert [f["label"] for f in instance] == [f["label"] for f in panoptic if f["label"] != "grey"]
    semantic = pipe(photo, vocabulary=NAMES, subtask="semantic")
    assert len({f["label"] for f in semantic}) == len(semantic) == len(by_name)
    assert {f["score"] for f in semantic} == {None}
    covered = sum((np.asarray(f["mask"]) > 0).astype(int) for f in semantic)
    assert np.array_equal(covered, model.encode(photo).panoptic(NAMES).map > 0)


def test_detection_by_names(model: Model, photo: np.ndarray) -> None:
    found = seem.pipeline("zero-shot-object-detection", model)(photo, candidate_labels=["blue", "red"], threshold=0.1)
    assert [f["score"] for f in found] == sorted((f["score"] for f in found), reverse=True)
    boxes = {f["label"]: tuple(f["box"].values()) for f in reversed(found)}
    assert list(found[0]["box"]) == ["xmin", "ymin", "xmax", "ymax"]
    assert boxes["red"] == pytest.approx(RED_BOX, abs=3)
    assert boxes["blue"] == pytest.approx(BLUE_BOX, abs=3)


def test_several_images_give_several_results(model: Model, photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    pipe = seem.pipeline("image-segmentation", model)
    one = pipe(photo, vocabulary=NAMES)
    for images in ([photo, str(tmp_path / "photo.png")], (photo, Image.fromarray(photo))):
        results = pipe(images, vocabulary=NAMES)
        assert [[f["label"] for f in r] for r in results] == [[f["label"] for f in one]] * 2


def test_the_model_is_loaded_by_name(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(seem, "load", lambda *args, **options: asked.append((*args, options)) or model)
    assert seem.pipeline("mask-generation").model is model
    seem.pipeline("mask-generation", "other", "cpu", precision="auto")
    assert asked == [("seem-tiny", "auto", {}), ("other", "cpu", {"precision": "auto"})]


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda m: seem.pipeline("image-classification", m), ValueError, "task: expected one of mask-generation, "),
        (lambda m: seem.pipeline("mask-generation", m, precision="auto"), ValueError, "model: expected a name or file"),
        (lambda m: seem.pipeline("mask-generation", m, "cpu"), ValueError, "model: expected a name or file"),
        (lambda m: seem.pipeline("image-segmentation", m)(np.zeros((8, 8, 3), np.uint8), subtask="all"), ValueError,
         "subtask: expected one of panoptic"),
        (lambda m: seem.pipeline("image-segmentation", m)("none.jpg"), ValueError, "none.jpg"),
        (lambda m: seem.pipeline("zero-shot-object-detection", m)(np.zeros((8, 8, 3), np.uint8), candidate_labels="a"),
         TypeError, "candidate_labels: expected a list of names, got str"),
    ],
)  # fmt: skip
def test_bad_use(model: Model, make: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make(model)
