"""Sizes, coordinates, run lengths and polygons."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from seem import geometry
from seem.geometry import ImageGeometry, encoded_size, mask_iou, padded_size
from seem.model.config import ImageConfig

LONG = ImageConfig()
SHORT = ImageConfig(resize="short", target=512)
CAPPED = ImageConfig(resize="short", target=800, max=1333)
SAM_VIT = ImageConfig(target=1024, pad_to=1024)

masks = st_numpy.arrays(bool, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=12))


# ---- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "size", "encoded", "padded"),
    [
        (LONG, (640, 480), (512, 384), (512, 384)),
        (LONG, (481, 321), (512, 342), (512, 352)),
        (LONG, (321, 481), (342, 512), (352, 512)),
        (LONG, (1, 1), (512, 512), (512, 512)),
        (LONG, (10_000, 1), (512, 1), (512, 32)),
        (SHORT, (640, 480), (682, 512), (704, 512)),  # 682.67 is floored, as torchvision does
        (SHORT, (480, 640), (512, 682), (512, 704)),
        (SHORT, (100_000, 1), (8192, 512), (8192, 512)),
        (CAPPED, (640, 480), (1067, 800), (1088, 800)),
        (CAPPED, (1000, 300), (1333, 400), (1344, 416)),
        (SAM_VIT, (500, 375), (1024, 768), (1024, 1024)),
    ],
)
def test_sizes(config: ImageConfig, size: tuple[int, int], encoded: tuple[int, int], padded: tuple[int, int]) -> None:
    assert encoded_size(size, config) == encoded
    assert padded_size(encoded, config) == padded
    sizes = ImageGeometry.of(size, config)
    assert (sizes.original, sizes.encoded, sizes.padded) == (size, encoded, padded)
    assert sizes.mask_size == (math.ceil(encoded[1] / 4), math.ceil(encoded[0] / 4))


def test_configs_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"ImageConfig.resize: expected .*, got 'wide'"):
        encoded_size((4, 4), ImageConfig(resize="wide"))
    with pytest.raises(ValueError, match=r"ImageConfig.pad_to: expected at least 512, got 100"):
        padded_size((512, 300), ImageConfig(pad_to=100))
    with pytest.raises(ValueError, match="bilinear"):
        geometry.resize_image(np.zeros((4, 4, 3), np.uint8), (2, 2), "nearest")


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([LONG, SHORT, CAPPED]))
def test_corners_map_to_corners(width: int, height: int, config: ImageConfig) -> None:
    sizes = ImageGeometry.of((width, height), config)
    corners = sizes.to_encoded(np.array([[0, 0], [width, height]]))
    assert corners.dtype == np.float32
    assert corners[0].tolist() == [0, 0]
    assert corners[1] == pytest.approx(sizes.encoded, rel=1e-6)
    assert all(p >= e >= 1 for p, e in zip(sizes.padded, sizes.encoded, strict=True))


# ---- masks to and from the network --------------------------------------------------------------------------------


def plane(sizes: ImageGeometry) -> torch.Tensor:
    """Logits that are the x coordinate (encoded pixels) of the cell's centre."""
    height, width = sizes.mask_size
    return (torch.arange(width) * 4 + 2.0).expand(height, width).clone()


@pytest.mark.parametrize(
    "size", [(512, 384), (640, 480), (481, 321), (321, 481), (2000, 33), (100, 90), (5, 3), (1, 1)]
)
def test_upsample_is_exact_to_a_fraction_of_a_pixel(size: tuple[int, int]) -> None:
    """A plane comes back as the same plane, wherever the encoded size is no multiple of 4."""
    sizes = ImageGeometry.of(size, LONG)
    large = sizes.upsample(plane(sizes))
    assert tuple(large.shape) == (size[1], size[0])
    expected = (np.arange(size[0]) + 0.5) * sizes.encoded[0] / size[0]
    inner = (expected > 2) & (expected < sizes.mask_size[1] * 4 - 2)
    assert large[0].numpy()[inner] == pytest.approx(expected[inner], abs=2e-3)


def test_upsample_keeps_leading_dimensions() -> None:
    sizes = ImageGeometry.of((100, 50), LONG)
    logits = torch.randn(2, 3, *sizes.mask_size)
    large = sizes.upsample(logits)
    assert tuple(large.shape) == (2, 3, 50, 100)
    assert torch.equal(large[1, 2], sizes.upsample(logits[1, 2]))


@given(st.integers(1, 900), st.integers(1, 900))
def test_upsample_gives_every_size(width: int, height: int) -> None:
    sizes = ImageGeometry.of((width, height), ImageConfig(target=64))
    assert tuple(sizes.upsample(plane(sizes)).shape) == (height, width)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_no_mask_is_lost_on_the_way_in(width: int, height: int, data: st.DataObject) -> None:
    mask = np.zeros((height, width), bool)
    mask[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = True
    sizes = ImageGeometry.of((width, height), ImageConfig(target=64))
    encoded = sizes.mask_to_encoded(mask)
    assert encoded.shape == (sizes.encoded[1], sizes.encoded[0])
    assert encoded.any()
    assert not sizes.mask_to_encoded(np.zeros_like(mask)).any()
    assert sizes.mask_to_encoded(np.ones_like(mask)).all()


# ---- boxes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "box"),
    [([], None), ([(0, 0)], (0, 0, 1, 1)), ([(2, 1), (4, 3)], (1, 2, 4, 5)), ([(9, 9)], (9, 9, 10, 10))],
)
def test_box_of(pixels: list[tuple[int, int]], box: Any) -> None:
    mask = np.zeros((10, 10), bool)
    for y, x in pixels:
        mask[y, x] = True
    assert geometry.box_of(mask) == box


def test_mask_iou() -> None:
    a, b = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 0]], bool)
    assert mask_iou(a, b) == pytest.approx(1 / 3)
    assert mask_iou(a & b & ~a, ~a & a) == 1


# ---- run lengths --------------------------------------------------------------------------------------------------


@given(masks, st.booleans())
def test_rle_is_lossless(mask: np.ndarray, compressed: bool) -> None:
    rle = geometry.rle_encode(mask, compressed)
    assert rle["size"] == list(mask.shape)
    assert np.array_equal(geometry.rle_decode(rle), mask)


@given(masks)
def test_rle_is_coco_s(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = geometry.rle_encode(mask)
    assert ours["counts"] == theirs["counts"].decode()
    assert np.array_equal(geometry.rle_decode(theirs), mask)


def test_rle_of_large_runs() -> None:
    mask = np.zeros((2000, 1500), bool)
    mask[700:1500, 300:900] = True
    mask[0, 0] = mask[-1, -1] = True
    assert np.array_equal(geometry.rle_decode(geometry.rle_encode(mask)), mask)
    assert len(geometry.rle_encode(mask)["counts"]) < 4000


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (None, "rle: expected"),
        ({"size": [2, 2]}, "rle: expected"),
        ({"size": [2, 2], "counts": "13", "extra": 1}, "rle: expected"),
        ({"size": [2], "counts": "13"}, "rle.size: expected [height, width], got [2]"),
        ({"size": [2, -2], "counts": "13"}, "rle.size: expected [height, width]"),
        ({"size": [2, 2.0], "counts": "13"}, "rle.size: expected [height, width]"),
        ({"size": [True, 2], "counts": "13"}, "rle.size: expected [height, width]"),
        ({"size": [20_000, 20_000], "counts": [400_000_000]}, "rle.size: expected at most 100000000 pixels"),
        ({"size": [2, 2], "counts": [1, 2]}, "add up to 4, got a sum of 3"),
        ({"size": [2, 2], "counts": [1, 4]}, "add up to 4, got a sum of 5"),
        ({"size": [2, 2], "counts": []}, "add up to 4"),
        ({"size": [2, 2], "counts": [-1, 5]}, "rle.counts: expected whole numbers from 0 to 4"),
        ({"size": [2, 2], "counts": [1.0, 3]}, "rle.counts: expected whole numbers from 0 to 4"),
        ({"size": [2, 2], "counts": [0] * 50}, "rle.counts: expected at most 10 runs, got 50"),
        ({"size": [2, 2], "counts": 4}, "rle.counts: expected a string or a list, got 4"),
        ({"size": [2, 2], "counts": ""}, "rle.counts: expected COCO's compressed counts"),
        ({"size": [2, 2], "counts": "1\x00"}, "rle.counts: expected COCO's compressed counts"),
        ({"size": [2, 2], "counts": "1é"}, "rle.counts: expected COCO's compressed counts"),
        ({"size": [2, 2], "counts": "1P"}, "rle.counts: expected COCO's compressed counts"),  # ends in mid-number
        ({"size": [2, 2], "counts": "PPPPPPPPP0"}, "rle.counts: expected COCO's compressed counts"),
        ({"size": [2, 2], "counts": "1" * 500}, "rle.counts: expected at most 10 runs"),
        ({"size": [2, 2], "counts": "O5"}, "add up to 4"),  # a negative count
    ],
)
def test_rle_that_is_refused(rle: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        geometry.rle_decode(rle)
    assert message in str(caught.value)


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
def test_any_counts_give_a_mask_or_an_error(counts: str) -> None:
    with contextlib.suppress(ValueError):
        assert geometry.rle_decode({"size": [5, 7], "counts": counts}).shape == (5, 7)


# ---- polygons and lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1, 1), (4, 1), (4, 3), (1, 3)], [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)]),
        ([(1.5, 1.5), (2.6, 1.5), (2.6, 2.6), (1.5, 2.6)], [(1, 1), (2, 1), (1, 2), (2, 2)]),
        ([(1.6, 1.6), (2.4, 1.6), (2.4, 2.4), (1.6, 2.4)], []),  # holds no pixel centre
        ([(-9, -9), (99, -9), (99, 2), (-9, 2)], [(x, y) for y in (0, 1) for x in range(6)]),
    ],
)
def test_rasterise_polygon(points: list[tuple[float, float]], expected: list[tuple[int, int]]) -> None:
    mask = geometry.rasterise_polygon(np.array(points, float), (6, 5))
    assert [(int(x), int(y)) for y, x in np.argwhere(mask)] == expected


def test_rasterise_polygon_is_even_odd() -> None:
    twice = np.array([(0, 0), (9, 0), (9, 9), (0, 9), (0, 0), (3, 3), (6, 3), (6, 6), (3, 6), (3, 3)], float)
    mask = geometry.rasterise_polygon(twice, (9, 9))
    assert mask.sum() == 81 - 9
    assert not mask[4, 4]


def test_rasterise_a_disk() -> None:
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    mask = geometry.rasterise_polygon(np.stack([50 + 30 * np.cos(angle), 40 + 30 * np.sin(angle)], 1), (100, 80))
    assert mask.sum() == pytest.approx(np.pi * 30**2, rel=0.01)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 3.0])
@given(mask=masks)
def test_polygons_of_any_mask(mask: np.ndarray, tolerance: float) -> None:
    polygons = geometry.mask_to_polygons(mask, tolerance)
    size = (mask.shape[1], mask.shape[0])
    assert bool(polygons) == bool(mask.any())
    again = np.zeros_like(mask)
    for polygon in polygons:
        assert len(polygon) >= 3
        assert ((polygon >= 0) & (polygon <= size)).all()
        again ^= geometry.rasterise_polygon(polygon, size)
    if tolerance == 0:
        assert np.array_equal(again, mask)


def ring_mask() -> np.ndarray:
    y, x = np.mgrid[:200, :300] + 0.5
    outer, hole = (x - 140) ** 2 + (y - 100) ** 2 < 80**2, (x - 150) ** 2 + (y - 90) ** 2 < 30**2
    result: np.ndarray = outer & ~hole
    return result


def test_polygons_are_short_and_close() -> None:
    polygons = geometry.mask_to_polygons(ring_mask())
    assert len(polygons) == 1
    assert len(polygons[0]) < 120
    again = geometry.rasterise_polygon(polygons[0], (300, 200))
    assert mask_iou(again, ring_mask()) > 0.985
    assert not again[90, 150]


def test_polygons_of_a_hole_survive_coco() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    flat = [polygon.ravel().tolist() for polygon in geometry.mask_to_polygons(ring_mask())]
    decoded = coco.decode(coco.merge(coco.frPyObjects(flat, 200, 300))).astype(bool)
    assert mask_iou(decoded, ring_mask()) > 0.97


def test_polygons_keep_small_regions() -> None:
    mask = np.zeros((20, 20), bool)
    mask[3, 4] = mask[10:12, 10:12] = True
    polygons = geometry.mask_to_polygons(mask, tolerance=5.0)
    assert polygons[0].tolist() == [[4, 3], [5, 3], [5, 4], [4, 4]]
    assert len(polygons) == 2


def test_polygons_of_noise_take_no_age() -> None:
    mask = np.random.default_rng(0).random((150, 150)) < 0.6
    again = np.zeros_like(mask)
    for polygon in geometry.mask_to_polygons(mask, 0):
        again ^= geometry.rasterise_polygon(polygon, (150, 150))
    assert np.array_equal(again, mask)


coordinates = st.floats(-50, 60, allow_nan=False)
rings = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=8)


@given(rings, st.integers(1, 20), st.integers(1, 20))
def test_clipping_a_polygon_changes_no_pixel(ring: list[tuple[float, float]], width: int, height: int) -> None:
    points = np.array(ring).round(3)
    clipped = geometry.clip_polygon(points, (width, height))
    whole = geometry.rasterise_polygon(points, (width, height))
    if len(clipped):
        assert ((clipped >= 0) & (clipped <= (width, height))).all()
        different = geometry.rasterise_polygon(clipped, (width, height)) ^ whole
        assert different.sum() <= 2  # a vertex on a pixel centre may round either way
    else:
        assert not whole.any()


@pytest.mark.parametrize(
    ("points", "pieces"),
    [
        ([(1, 1), (5, 5)], [[[1, 1], [5, 5]]]),
        ([(4, 4)], [[[4, 4]]]),
        ([(-4, 4)], []),
        ([(-5, 5), (5, 5)], [[[0, 5], [5, 5]]]),
        ([(-5, 5), (15, 5)], [[[0, 5], [10, 5]]]),
        ([(-5, 5), (5, 5), (5, -5), (8, -5), (8, 5)], [[[0, 5], [5, 5], [5, 0]], [[8, 0], [8, 5]]]),
        ([(-5, 1), (1, -5)], []),
        ([(4, 4), (4, 4)], [[[4, 4], [4, 4]]]),
        ([(20, 1), (30, 5)], []),
    ],
)
def test_clip_polyline(points: list[tuple[float, float]], pieces: list[list[list[float]]]) -> None:
    assert [piece.tolist() for piece in geometry.clip_polyline(np.array(points), (10, 10))] == pieces


@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=8))
def test_vertices_inside_survive_clipping(line: list[tuple[float, float]]) -> None:
    pieces = geometry.clip_polyline(np.array(line), (10, 10))
    kept = {tuple(point) for piece in pieces for point in piece.tolist()}
    for x, y in line:
        if 0 < x < 10 and 0 < y < 10:
            assert (x, y) in kept


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 20)), min_size=1, max_size=5), st.floats(0.1, 15))
def test_a_scribble_is_never_empty(points: list[tuple[float, float]], width: float) -> None:
    mask = geometry.rasterise_scribble(np.array(points), width, (30, 20))
    assert mask.shape == (20, 30)
    assert mask.any()


def test_a_scribble_is_as_wide_as_its_brush() -> None:
    mask = geometry.rasterise_scribble(np.array([(10, 50), (90, 50)]), 9, (100, 100))
    assert 8 <= mask[:, 50].sum() <= 10
    assert abs(np.argwhere(mask[:, 50]).mean() + 0.5 - 50) <= 0.75


@pytest.mark.parametrize(
    ("points", "spans"),
    [
        ([(0, 0), (1, 0), (0, 1)], True),
        ([(0, 0), (1, 1), (2, 2)], False),
        ([(5, 5), (5, 5), (5, 5)], False),
        ([(0, 0), (1e-3, 0), (0, 1e-3)], True),
        ([(0, 0), (1e300, 0), (0, 1e300)], True),
        ([(0, 0), (1, 1)], False),
    ],
)
def test_spans_area(points: list[tuple[float, float]], spans: bool) -> None:
    assert geometry.spans_area(np.array(points)) is spans
