"""Panoptic results: one segment per pixel, names of one's own, and the rule that puts masks together."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from seem import geometry
from seem.geometry import ImageGeometry, mask_iou
from seem.predict.panoptic import assemble
from seem.predict.scene import Scene
from seem.vocabulary import Category
from tests.conftest import BLUE_BOX, RED_BOX, box_mask

SIZES = ImageGeometry((8, 4), (32, 16), (32, 32))  # 4 encoded pixels, so one logit, per pixel: no interpolation
DOG, GRASS, SKY = Category("dog"), Category("grass", is_thing=False), Category("sky", is_thing=False)


def logits(*columns: range, strength: float = 9.0) -> torch.Tensor:
    out = torch.full((len(columns), 4, 8), -strength)
    for i, inside in enumerate(columns):
        out[i, :, list(inside)] = strength
    return out


def test_a_pixel_goes_to_the_best_mask() -> None:
    found, segments = assemble(logits(range(0, 5), range(3, 8)), [0, 0], [0.6, 0.9], [DOG], SIZES, overlap=0)
    assert found[0].tolist() == [2, 2, 2, 1, 1, 1, 1, 1]
    assert [(s.id, s.score, s.area) for s in segments] == [(1, 0.9, 20), (2, 0.6, 12)]
    assert found.dtype == np.int32


def test_a_mask_that_is_mostly_hidden_is_dropped() -> None:
    found, segments = assemble(logits(range(0, 5), range(3, 8)), [0, 0], [0.6, 0.9], [DOG], SIZES, overlap=0.8)
    assert found[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert len(segments) == 1


def test_stuff_is_merged_and_things_are_not() -> None:
    masks = logits(range(0, 2), range(6, 8), range(2, 4), range(4, 6))
    found, segments = assemble(masks, [1, 1, 0, 0], [0.9, 0.8, 0.7, 0.6], [DOG, GRASS], SIZES)
    assert found[0].tolist() == [1, 1, 2, 2, 3, 3, 1, 1]
    assert [(s.label, s.is_thing, s.score) for s in segments] == [
        ("grass", False, 0.9),
        ("dog", True, 0.7),
        ("dog", True, 0.6),
    ]


def test_something_else_takes_its_pixels_to_nothing() -> None:
    masks, categories = logits(range(0, 4), range(4, 8)), [DOG, None]
    found, segments = assemble(masks, [0, 1], [0.6, 0.9], categories, SIZES)
    assert found[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    found, segments = assemble(masks, [0, 1], [0.6, 0.9], categories, SIZES, fill=True)
    assert found[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert (segments[1].label, segments[1].is_thing, segments[1].score) == ("others", False, 0.9)


def test_nothing_at_all() -> None:
    found, segments = assemble(torch.zeros(0, 4, 8), [], [], [DOG], SIZES)
    assert not found.any()
    assert segments == ()
    found, segments = assemble(torch.zeros(0, 4, 8), [], [], [DOG], SIZES, fill=True)
    assert [(s.label, s.area) for s in segments] == [("others", 32)]


def test_equal_scores_are_settled_by_order() -> None:
    found, segments = assemble(logits(range(0, 8), range(0, 8)), [0, 1], [0.5, 0.5], [DOG, SKY], SIZES)
    assert (found == 1).all()
    assert [s.label for s in segments] == ["dog"]


# ---- a scene ------------------------------------------------------------------------------------------------------


def test_panoptic(scene: Scene) -> None:
    p = scene.panoptic(["red", "blue", ("grey", "stuff")])
    by_name = {s.label: s for s in p.segments}
    assert set(by_name) == {"red", "blue", "grey"}
    assert mask_iou(p.mask(by_name["red"].id), box_mask(RED_BOX)) > 0.8
    assert mask_iou(p.mask(by_name["blue"].id), box_mask(BLUE_BOX)) > 0.8
    assert (by_name["grey"].is_thing, by_name["red"].is_thing) == (False, True)
    assert {s.id for s in p.segments} == set(np.unique(p.map)) - {0}
    assert all(s.area == (p.map == s.id).sum() for s in p.segments)
    assert p.map[90, 110] == 0  # the green disk has no name here
    assert np.array_equal(p.map, scene.panoptic(["red", "blue", ("grey", "stuff")]).map)
    with pytest.raises(KeyError, match="segment_id"):
        p.mask(99)


def test_background_adds_others(scene: Scene) -> None:
    p = scene.panoptic(["red"], background=True)
    assert (p.map > 0).all()
    assert [s.label for s in p.segments] == ["red", "others"]
    with pytest.raises(ValueError, match="others"):
        scene.panoptic(["red", "others"], background=True)


def test_the_default_vocabulary_is_coco(scene: Scene) -> None:
    p = scene.panoptic(threshold=0)
    assert all(s.category_id is not None for s in p.segments)


@pytest.mark.parametrize("options", [{"threshold": 2}, {"overlap": -1}, {"threshold": "0.5"}, {"vocabulary": [3]}])
def test_panoptic_refuses(scene: Scene, options: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError), match="expected"):
        scene.panoptic(**options)  # type: ignore[arg-type]


def test_png_is_coco_s(scene: Scene) -> None:
    p = scene.panoptic(["red", "blue"])
    pixels = np.asarray(Image.open(io.BytesIO(p.to_png()))).astype(int)
    assert np.array_equal(pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2], p.map)


def test_json(scene: Scene) -> None:
    p = scene.panoptic(["red", ("grey", "stuff")])
    document = json.loads(json.dumps(p.to_json()))
    assert document["image"] == {"width": 160, "height": 120}
    for entry, segment in zip(document["segments"], p.segments, strict=True):
        assert entry["label"] == segment.label
        assert entry["category_id"] is None
        assert np.array_equal(geometry.rle_decode(entry["mask_rle"]), p.mask(segment.id))
