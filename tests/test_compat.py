"""Tools written for SAM run on SEEM: the shapes, dtypes and conventions of `segment_anything.SamPredictor`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seem.compat import SamPredictor
from seem.geometry import mask_iou
from seem.predict.model import Model
from tests.conftest import BLUE_BOX, RED_BOX, box_mask


@pytest.fixture
def predictor(model: Model, photo: np.ndarray) -> SamPredictor:
    result = SamPredictor(model)
    result.set_image(photo)
    return result


def test_points(predictor: SamPredictor) -> None:
    masks, scores, logits = predictor.predict(point_coords=np.array([[40, 50]]), point_labels=np.array([1]))
    assert (masks.shape, masks.dtype) == ((3, 120, 160), bool)
    assert (scores.shape, scores.dtype) == ((3,), np.float32)
    assert (logits.shape, logits.dtype) == ((3, 256, 256), np.float32)
    assert mask_iou(masks[1], box_mask(RED_BOX)) > 0.85


def test_one_mask(predictor: SamPredictor) -> None:
    masks, scores, logits = predictor.predict(box=np.array(BLUE_BOX), multimask_output=False)
    assert (masks.shape, scores.shape, logits.shape) == ((1, 120, 160), (1,), (1, 256, 256))
    assert mask_iou(masks[0], box_mask(BLUE_BOX)) > 0.85
    assert (logits[0, 192:] < 0).all()  # the image's 160 x 120 take 256 x 192 of the low-resolution logits


def test_logits(predictor: SamPredictor) -> None:
    points = {"point_coords": np.array([[40, 50]]), "point_labels": np.array([1])}
    masks, _, _ = predictor.predict(**points)
    logits, _, _ = predictor.predict(**points, return_logits=True)
    assert logits.dtype == np.float32
    assert np.array_equal(logits > 0, masks)


def test_mask_input_is_the_memory(predictor: SamPredictor) -> None:
    points = {"point_coords": np.array([[40.5, 50.0]]), "point_labels": np.array([1])}
    _, scores, logits = predictor.predict(**points)
    best = logits[[scores.argmax()]]
    with_memory, _, _ = predictor.predict(**points, mask_input=best, multimask_output=False, return_logits=True)
    without, _, _ = predictor.predict(**points, multimask_output=False, return_logits=True)
    assert not np.array_equal(with_memory, without)
    alone, _, _ = predictor.predict(mask_input=best, multimask_output=False)
    assert mask_iou(alone[0], box_mask(RED_BOX)) > 0.8


def test_background_points(predictor: SamPredictor) -> None:
    coords = np.array([[40, 50], [110, 40], [5, 5]], np.float32)
    masks, _, _ = predictor.predict(coords, np.array([1, 1, 0]), multimask_output=False)
    assert not masks[0, 5, 5]


def test_points_outside_move_to_the_border(predictor: SamPredictor) -> None:
    a = predictor.predict(np.array([[160.0, 130.0]]), np.array([1]))[2]
    b = predictor.predict(np.array([[159, 119]]), np.array([1]))[2]
    assert np.array_equal(a, b)


def test_bgr(predictor: SamPredictor, photo: np.ndarray) -> None:
    rgb = predictor.predict(np.array([[40, 50]]), np.array([1]))[0]
    predictor.set_image(photo[..., ::-1], image_format="BGR")
    assert np.array_equal(predictor.predict(np.array([[40, 50]]), np.array([1]))[0], rgb)


def test_state(predictor: SamPredictor, photo: np.ndarray) -> None:
    assert predictor.is_image_set
    assert (predictor.original_size, predictor.input_size) == ((120, 160), (768, 1024))
    assert predictor.device == torch.device("cpu")
    predictor.reset_image()
    assert not predictor.is_image_set
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict(np.array([[40, 50]]), np.array([1]))


def test_tensors(predictor: SamPredictor) -> None:
    """What tools that batch boxes do: `transform`, then `predict_torch`."""
    boxes = predictor.transform.apply_boxes_torch(torch.tensor([RED_BOX, BLUE_BOX]), (120, 160))
    masks, scores, logits = predictor.predict_torch(None, None, boxes=boxes, multimask_output=False)
    assert (masks.shape, masks.dtype, scores.shape, logits.shape) == (
        (2, 1, 120, 160),
        torch.bool,
        (2, 1),
        (2, 1, 256, 256),
    )
    assert mask_iou(masks[1, 0].numpy(), box_mask(BLUE_BOX)) > 0.85
    points = predictor.transform.apply_coords_torch(torch.tensor([[[40.0, 50.0], [0, 0]]]), (120, 160))
    one, _, _ = predictor.predict_torch(points, torch.tensor([[1, -1]]), multimask_output=False)
    assert mask_iou(one[0, 0].numpy(), box_mask(RED_BOX)) > 0.85
    assert predictor.transform.apply_boxes(np.array([RED_BOX]), (120, 160)).tolist() == [[128, 192, 384, 448]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "prompts: expected at least one prompt"),
        ({"point_coords": np.zeros((1, 3)), "point_labels": np.ones(1)}, "point_coords: expected finite (N, 2) xy"),
        ({"point_coords": np.full((1, 2), np.nan), "point_labels": np.ones(1)}, "point_coords: expected finite"),
        ({"point_coords": np.zeros((1, 2))}, "point_labels: expected shape (1,)"),
        ({"point_coords": np.zeros((1, 2)), "point_labels": np.ones(2)}, "point_labels: expected shape (1,), got (2,)"),
        ({"point_coords": np.zeros((1, 2)), "point_labels": np.array([3])}, "point_labels: expected 0 or 1, got [3]"),
        ({"point_coords": np.zeros((1, 2)), "point_labels": np.zeros(1)}, "got only negative ones"),
        ({"box": np.zeros(3)}, "box: expected (4,) XYXY, got shape (3,)"),
        ({"box": np.zeros(4)}, "Box: expected x0 < x1"),
        ({"box": np.array([900, 900, 950, 950])}, "expected a box that overlaps"),
        ({"mask_input": np.zeros((256, 256))}, "mask_input: expected shape (1, 256, 256), got (256, 256)"),
    ],
)
def test_refused(predictor: SamPredictor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        predictor.predict(**options)
    assert message in str(caught.value)


def test_images_that_are_refused(predictor: SamPredictor, photo: np.ndarray) -> None:
    with pytest.raises(ValueError, match="image_format"):
        predictor.set_image(photo, image_format="HSV")
    with pytest.raises(TypeError, match="image: expected a uint8 array"):
        predictor.set_image("photo.jpg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="point_coords: expected points"):
        predictor.predict_torch(None, None)
