"""The weights that ship, on the photos that ship: does a person get what they asked for?

Truth here is drawn by hand and coarse, so the bars are low; the benchmarks measure quality.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import seem
from seem.checkpoints import CheckpointError, registry

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"


@pytest.fixture(scope="module")
def model() -> seem.Model:
    return seem.load("seem-tiny", device="cpu")


@pytest.fixture(scope="module")
def coins(model: seem.Model) -> seem.Scene:
    return model.encode(PHOTOS / "coins.jpg")


@pytest.fixture(scope="module")
def cat(model: seem.Model) -> seem.Scene:
    return model.encode(PHOTOS / "cat.jpg")


def disc(size: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    ys, xs = np.mgrid[: size[1], : size[0]]
    return np.hypot(xs + 0.5 - x, ys + 0.5 - y) <= radius


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


COIN = (347, 187, 31)  # the large one at the right

PROMPTS: dict[str, list[seem.Prompt]] = {
    "click": [seem.Click(347, 187)],
    "box": [seem.Box(315, 155, 379, 219)],
    "scribble": [seem.Scribble(((332, 180), (347, 190), (362, 195)))],
    "polygon": [seem.Polygon(((320, 170), (347, 158), (374, 172), (374, 204), (347, 216), (320, 204)))],
    "mask": [seem.Mask(disc((384, 303), 347, 187, 24))],
    "click and box": [seem.Click(347, 187), seem.Box(315, 155, 379, 219)],
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_every_visual_prompt_finds_the_coin(coins: seem.Scene, kind: str) -> None:
    result = coins.segment(*PROMPTS[kind])
    assert iou(result.mask, disc(coins.size, *COIN)) > 0.75
    assert 0.5 < result.score <= 1


def test_a_negative_click_takes_away(coins: seem.Scene) -> None:
    both = coins.segment(seem.Box(315, 85, 379, 219))
    one = coins.segment(seem.Box(315, 85, 379, 219), seem.Click(337, 124, positive=False), previous=both)
    assert not one.mask[124, 337]


def test_several_objects_are_the_same_as_one_by_one(coins: seem.Scene) -> None:
    objects = [[seem.Click(347, 187)], [seem.Click(46, 260)], [seem.Text("coin")]]
    together = coins.segment_all(objects)
    for prompts, result in zip(objects, together, strict=True):
        alone = coins.segment(*prompts)
        assert np.abs(alone.logits - result.logits).max() < 1e-2
    assert not (together[0].mask & together[1].mask).any()


def test_the_same_prompt_gives_the_same_bits(model: seem.Model, coins: seem.Scene) -> None:
    again = model.encode(PHOTOS / "coins.jpg")
    a, b = coins.segment(seem.Click(347, 187)), again.segment(seem.Click(347, 187))
    assert np.array_equal(a.logits, b.logits)
    assert a.to_json() == b.to_json()


def test_names(cat: seem.Scene) -> None:
    clicked = cat.segment(seem.Click(200, 150), seem.Click(430, 60, positive=False))
    assert clicked.label == "cat"
    assert cat.label(clicked.mask, vocabulary=["dog", "cat", "car"], top=1)[0][0] == "cat"
    found = cat.find("cat")
    assert found, "the cat is found by its name"
    assert iou(found[0].mask, clicked.mask) > 0.6
    assert cat.find("train") == []


def test_a_sentence_is_about_its_subject(cat: seem.Scene) -> None:
    word, sentence = (cat.segment(seem.Text(text)) for text in ("cat", "the cat that is not sitting on a sofa"))
    assert np.array_equal(word.mask, sentence.mask) and sentence.score <= word.score


def test_words_above_several_names(cat: seem.Scene) -> None:
    assert iou(cat.find("animals")[0].mask, cat.find("cat")[0].mask) > 0.9
    assert cat.find("vehicle") == []


def test_in_a_hurry_only_what_the_text_points_at_is_looked_at(
    model: seem.Model, cat: seem.Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, known = model.encode(PHOTOS / "cat.jpg"), cat.find("cat")[0]

    def regions(features: object) -> None:
        raise AssertionError("all regions were computed")

    monkeypatch.setattr(model.network, "regions", regions)
    quick = fresh.find("cat", quick=True)
    assert iou(quick[0].mask, known.mask) > 0.75
    with pytest.raises(AssertionError, match="all regions"):
        fresh.find("cat")


def test_memory_is_read(coins: seem.Scene) -> None:
    first = coins.segment(seem.Click(347, 187))
    again = coins.segment(seem.Click(347, 187), previous=first)
    assert not np.array_equal(first.logits, again.logits)
    assert iou(again.mask, disc(coins.size, *COIN)) > 0.75


def test_a_region_of_another_photo(model: seem.Model, coins: seem.Scene) -> None:
    small = model.encode(np.asarray(seem.load_image(PHOTOS / "coins.jpg"))[:150])
    result = coins.segment(seem.Reference(small, seem.Click(334, 42)))
    assert result.mask.any()


def test_what_looks_like_a_region_of_another_photo(model: seem.Model, cat: seem.Scene) -> None:
    """The same cat, mirrored and darker, also where only a box marks it."""
    pixels = np.asarray(seem.load_image(PHOTOS / "cat.jpg"))
    other = model.encode((pixels[:, ::-1] * 0.7).astype(np.uint8))
    known = cat.find("cat")[0]
    assert known.box is not None
    x0, y0, x1, y1 = known.box
    width = cat.size[0]
    for example in (seem.Mask(known.mask[:, ::-1]), seem.Box(width - x1, y0, width - x0, y1)):
        assert iou(cat.segment(seem.Reference(other, example)).mask, known.mask) > 0.6


def test_panoptic_covers_what_it_names(cat: seem.Scene) -> None:
    result = cat.panoptic()
    assert sorted(s.id for s in result.segments) == sorted(i for i in np.unique(result.map).tolist() if i)
    for segment in result.segments:
        assert segment.area == (result.map == segment.id).sum() > 0


def test_a_scene_survives_the_disk(model: seem.Model, coins: seem.Scene, tmp_path: Path) -> None:
    coins.save(tmp_path / "coins.scene")
    assert (tmp_path / "coins.scene").stat().st_size < 4e6
    loaded = seem.Scene.load(tmp_path / "coins.scene", model)
    a, b = coins.segment(seem.Click(347, 187)), loaded.segment(seem.Click(347, 187))
    assert iou(a.mask, b.mask) > 0.98


def test_the_download_stays_small() -> None:
    files = [p for p in registry.WEIGHTS.iterdir() if p.suffix == ".safetensors"]
    assert sum(p.stat().st_size for p in files) < 60e6
    assert set(json.loads((registry.WEIGHTS / "sha256.json").read_text())) == {p.name for p in files}


def test_changed_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for file in registry.WEIGHTS.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "seem-tiny.safetensors").open("r+b") as f:
        f.seek(-1, 2)
        f.write(b"\x55")
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    monkeypatch.setattr(registry, "_verified", set())
    with pytest.raises(CheckpointError, match="not the file that was shipped"):
        seem.load("seem-tiny")
