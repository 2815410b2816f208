"""What a result converts to."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seem import geometry
from seem.predict.scene import Scene
from seem.predict.segmentation import segments_to_json, to_supervision
from seem.prompts import Click, Mask, prompt_from_json


def test_rle_goes_back_in_as_a_prompt(scene: Scene) -> None:
    r = scene.segment(Click(40, 50))
    assert np.array_equal(geometry.rle_decode(r.to_rle()), r.mask)
    assert np.array_equal(geometry.rle_decode(r.to_rle(compressed=False)), r.mask)
    assert prompt_from_json({"type": "mask", "rle": r.to_rle()}) == Mask(r.mask)


def test_polygons(scene: Scene) -> None:
    r = scene.segment(Click(40, 50))
    again = np.zeros_like(r.mask)
    for polygon in r.to_polygons(tolerance=0):
        again ^= geometry.rasterise_polygon(polygon, (160, 120))
    assert np.array_equal(again, r.mask)
    assert sum(map(len, r.to_polygons())) < sum(map(len, r.to_polygons(0)))


def test_png(scene: Scene, tmp_path: Path) -> None:
    r = scene.segment(Click(40, 50))
    data = r.to_png(tmp_path / "mask.png")
    assert (tmp_path / "mask.png").read_bytes() == data
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(pixels, r.mask * np.uint8(255))


def test_box_and_area(scene: Scene) -> None:
    r = scene.segment(Click(40, 50))
    assert r.box is not None
    x0, y0, x1, y1 = r.box
    assert r.area == r.mask[y0:y1, x0:x1].sum() == r.mask.sum()
    assert r.mask[y0].any()
    assert r.mask[:, x1 - 1].any()


def test_json(scene: Scene) -> None:
    r = scene.segment(Click(40, 50))
    document = json.loads(json.dumps(segments_to_json(scene.size, [r])))
    assert document["image"] == {"width": 160, "height": 120}
    (segment,) = document["segments"]
    assert set(segment) == {"mask_rle", "score", "label", "label_score", "box", "area"}
    assert np.array_equal(geometry.rle_decode(segment["mask_rle"]), r.mask)
    assert segment["box"] == list(r.box or ())


def test_an_empty_mask(scene: Scene) -> None:
    first = scene.segment(Click(40, 50))
    r = scene.segment(Click(40, 50), *[Click(40, 50, positive=False)] * 3, previous=first)
    assert r.area == 0
    assert r.box is None
    assert r.to_polygons() == []
    assert r.to_json()["box"] is None
    assert geometry.rle_decode(r.to_rle()).sum() == 0


def test_supervision(scene: Scene) -> None:
    supervision = pytest.importorskip("supervision")
    results = scene.segment_all([[Click(40, 50)], [Click(110, 40)]])
    detections = to_supervision(results)
    assert isinstance(detections, supervision.Detections)
    assert detections.mask.shape == (2, 120, 160)
    assert detections.data["class_name"].tolist() == [r.label for r in results]
    assert len(results[0].to_supervision()) == 1
    assert len(to_supervision([])) == 0
    assert len(scene.panoptic(["red"]).to_supervision()) == 1


def test_supervision_that_is_missing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        scene.segment(Click(40, 50)).to_supervision()
    with pytest.raises(ImportError, match="pip install supervision"):
        scene.panoptic(["red"]).to_supervision()
