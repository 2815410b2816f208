"""Polygons and run lengths of COCO files, against geometry, exact areas and pycocotools."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import binary_dilation

from seem import geometry
from seem.data.masks import polygon_mask, read_numbers, segmentation_mask, split_rim
from seem.data.records import RecordError

masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda shape: arrays(bool, shape))


def silent(what: str) -> None:
    raise AssertionError(f"repaired: {what}")


def area_of(points: np.ndarray) -> float:
    x, y = points.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def test_polygon_mask() -> None:
    assert polygon_mask([[1, 1, 3, 1, 3, 3, 1, 3]], (5, 5)).sum() == 4
    assert polygon_mask([[0, 0, 4, 0, 4, 2, 0, 2], [0, 1, 4, 1, 4, 4, 0, 4]], (4, 4)).all()  # a union
    assert polygon_mask([[1.1, 1.1, 1.6, 1.1, 1.6, 1.6, 1.1, 1.6]], (5, 5)).sum() == 1  # small, but not lost
    assert not polygon_mask([[9, 9, 12, 9, 12, 12]], (5, 5)).any()
    assert not polygon_mask([], (5, 5)).any()
    with pytest.raises(ValueError, match="expected x, y of 3 or more points"):
        polygon_mask([[1, 2, 3, 4]], (5, 5))


@settings(max_examples=40, deadline=None)
@given(masks)
def test_round_trips(mask: np.ndarray) -> None:
    """Run lengths, packed or not, and exact polygons (holes as slits) give the mask back."""
    size = (mask.shape[1], mask.shape[0])
    for compressed in (True, False):
        assert (segmentation_mask(geometry.rle_encode(mask, compressed), size, silent) == mask).all()
    polygons: Any = [ring.ravel().tolist() for ring in geometry.mask_to_polygons(mask, tolerance=0)]
    assert (segmentation_mask(polygons, size, silent) == mask).all()


@settings(max_examples=40, deadline=None)
@given(masks)
def test_run_lengths_agree_with_pycocotools(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    stated = {"size": theirs["size"], "counts": theirs["counts"].decode(), "extra": 1}
    assert (segmentation_mask(stated, (1, 1), silent) == mask).all()
    ours = geometry.rle_encode(mask)
    assert (coco.decode({"size": ours["size"], "counts": ours["counts"].encode()}) == mask).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 9), st.floats(5, 30), st.integers(0, 10**6))
def test_polygons_agree_with_pycocotools(corners: int, radius: float, seed: int) -> None:
    """On star shapes they differ only beside the outline, and the area is the exact one to a quarter pixel along it."""
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    points = 40 + radius * rng.uniform(0.4, 1, (corners, 1)) * np.stack([np.cos(angle), np.sin(angle)], 1)
    flat = points.ravel().tolist()
    ours = segmentation_mask([flat], (80, 80), silent)
    theirs = coco.decode(coco.merge(coco.frPyObjects([flat], 80, 80))).astype(bool)
    ring = np.concatenate([points, points[:1]])
    touched = np.zeros((80, 80), bool)
    x, y = np.floor(np.concatenate([np.linspace(a, b, 200) for a, b in pairwise(ring)])).astype(int).T
    touched[y, x] = True  # theirs is rounded to a fifth of a pixel: one pixel more to each side
    assert not ((ours != theirs) & ~binary_dilation(touched, np.ones((3, 3)))).any()
    outline = float(np.linalg.norm(np.diff(ring, axis=0), axis=1).sum())
    if area_of(points) > outline:  # of slivers every touched pixel is kept
        assert abs(int(ours.sum()) - area_of(points)) <= 1 + 0.25 * outline


def test_rim_is_halved() -> None:
    values = np.zeros((9, 9), np.uint8)
    values[:, :3], values[:, 3:7] = 255, 128
    assert split_rim(values)[4].tolist() == [True] * 5 + [False] * 4


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "1"])
def test_numbers_of_a_picture(mode: str, tmp_path: Path) -> None:
    values = np.array([[0, 1], [2, 200]], np.uint16)
    if mode == "I;16":
        Image.fromarray(values * 200).save(tmp_path / "a.png")
        assert read_numbers(tmp_path / "a.png").tolist() == (values * 200).tolist()
        return
    image = Image.fromarray(values.astype(np.uint8))
    if mode == "P":
        image = image.convert("P")
        image.putdata(values.ravel().tolist())
    (image.convert("1", dither=Image.Dither.NONE) if mode == "1" else image).save(tmp_path / "a.png")
    assert read_numbers(tmp_path / "a.png").tolist() == ([[0, 0], [0, 255]] if mode == "1" else values.tolist())


def test_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(RecordError, match=r"a\.png: not a readable mask"):
        read_numbers(tmp_path / "a.png")
