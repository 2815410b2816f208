"""Large images: the same answers as a scene where one window is enough, and no seams where it is not."""

from __future__ import annotations

import json
from inspect import isfunction, signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seem
from seem.geometry import ImageGeometry, mask_iou
from seem.images import ImageError, load_image
from seem.model.config import ImageConfig
from seem.model.seem import ObjectQueries
from seem.predict.instances import NMS_IOU
from seem.predict.model import Model
from seem.predict.panoptic import assemble
from seem.predict.session import Session
from seem.predict.tiles import (
    OVERLAP,
    Piece,
    TiledScene,
    TiledSegmentation,
    assemble_pieces,
    keep_distinct,
    overlap,
    pyramid,
)
from seem.prompts import Box, Click, Mask, Polygon, Reference, Scribble, Text
from seem.vocabulary import Category
from tests.fakes import WEIGHTS, FakeFeatures, FakeNetwork
from tests.test_images import png_header

WIDTH, HEIGHT, TILE = 640, 480, 160
RED, BLUE, GREEN, TINY = (100, 90, 200, 190), (420, 300, 470, 350), (260, 20, 600, 60), (330, 222, 342, 234)
COLOURS = {RED: (240, 10, 10), BLUE: (10, 10, 240), GREEN: (10, 240, 10), TINY: (240, 240, 10)}


class WholeNetwork(FakeNetwork):
    """One query per colour, not cut in halves."""

    def decode_objects(self, features: FakeFeatures) -> ObjectQueries:
        logits = 6.0 - 40.0 * (features.colours - self.palette[:, :, None, None]).square().sum(1)
        scores = (logits > 0).flatten(1).sum(1).clamp(max=4) / 4 * 0.9
        return ObjectQueries(logits, self.embed_masks(features, (logits > 0).float()), scores)


def box_mask(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Grey, with a square across seams, one inside a tile, a bar that is longer than two tiles, and a speck."""
    rng = np.random.default_rng(0)
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.int16)
    for box, colour in COLOURS.items():
        pixels[box_mask(box)] = colour
    return (pixels + rng.integers(-4, 5, pixels.shape, np.int16)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def model() -> Model:
    return Model(WholeNetwork(), WEIGHTS)  # type: ignore[arg-type]


@pytest.fixture
def tiled(model: Model, picture: np.ndarray) -> TiledScene:
    return model.encode_large(picture, tile=TILE)


# ---- windows ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(64, 700))
def test_every_level_covers_the_image_and_neighbours_overlap(width: int, height: int, tile: int) -> None:
    levels = pyramid((width, height), tile)
    assert levels[-1] == [(0, 0, width, height)]
    for k, windows in enumerate(levels[:-1]):
        side = tile << k
        for axis, length in ((0, width), (1, height)):
            starts = sorted({w[axis] for w in windows})
            assert starts[0] == 0 and max(w[axis + 2] for w in windows) == length
            assert all(b - a <= side - int(side * OVERLAP) for a, b in pairwise(starts))
        assert all(w[2] - w[0] == min(side, width) and w[3] - w[1] == min(side, height) for w in windows)


@settings(max_examples=25)
@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 50), st.integers(0, 50), st.integers(0, 9))
def test_a_piece_reads_as_the_whole_mask_does(width: int, height: int, x: int, y: int, seed: int) -> None:
    sizes = ImageGeometry.of((width, height), ImageConfig(target=64))
    logits = np.random.default_rng(seed).normal(size=sizes.mask_size).astype(np.float32)
    logits[:2], logits[:, :3] = -1, -1  # so that something is cropped away
    window = (x, y, x + width, y + height)
    expected = sizes.upsample(torch.tensor(logits)).numpy()
    assert np.allclose(Piece.whole(logits, window, sizes).pixels(window), expected, atol=1e-4)
    if (logits > 0).any():
        found = Piece.of(logits, window, sizes).pixels(window)
        sure = np.abs(expected) > 1e-4
        assert np.array_equal((found > 0)[sure], (expected > 0)[sure])


def test_masks_of_two_windows_are_compared_where_they_lie() -> None:
    sizes = ImageGeometry.of((64, 64), ImageConfig(target=64))
    square = np.full((16, 16), -9.0, np.float32)
    square[4:12, 4:12] = 9
    here, there = Piece.of(square, (0, 0, 64, 64), sizes), Piece.of(square, (16, 0, 80, 64), sizes)
    assert overlap(here, here) == (1, 1)
    iou, inside = overlap(here, there)
    assert iou == pytest.approx(1 / 3, abs=0.06) and inside == pytest.approx(1 / 2, abs=0.06)
    far = Piece.of(square, (200, 0, 264, 64), sizes)
    assert keep_distinct([here, there, far, here], [0.5, 0.6, 0.7, 0.8], 0.5) == [3, 2, 1]
    assert keep_distinct([here, there, far, here], [0.5, 0.6, 0.7, 0.8], 0.3) == [3, 2]


# ---- one window ---------------------------------------------------------------------------------------------------


def test_one_window_is_the_scene_bit_for_bit(model: Model, picture: np.ndarray) -> None:
    scene, large = model.encode(picture), model.encode_large(picture, tile=WIDTH)
    click, box = Click(150, 140), Box(410, 290, 480, 360)
    first, other = scene.segment(click), large.segment(click)
    pairs = [
        (first, other),
        (scene.segment(click, Click(3, 3, positive=False), previous=first),
         large.segment(click, Click(3, 3, positive=False), previous=other)),
        *zip(scene.segment_all([[click], [box]]), large.segment_all([[click], [box]]), strict=True),
        *zip(scene.find("red"), large.find("red"), strict=True),
        *zip(scene.instances(), large.instances(), strict=True),
        *zip(scene.everything(6), large.everything(6), strict=True),
    ]  # fmt: skip
    for a, b in pairs:
        assert np.array_equal(a.logits, b.logits) and (a.score, a.label) == (b.score, b.label)
        assert np.array_equal(a.mask, b.mask)
    assert np.array_equal(scene.panoptic().map, large.panoptic().map)
    assert scene.label(first.mask) == large.label(other.mask)
    assert large.digest == scene.digest and large.size == scene.size


# ---- prompts ------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.sampled_from([RED, BLUE, GREEN]), st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_a_click_gives_the_whole_object_wherever_seams_are(box: tuple[int, int, int, int], u: float, v: float) -> None:
    tiled = shared_scene()
    x, y = box[0] + u * (box[2] - box[0]), box[1] + v * (box[3] - box[1])
    result = tiled.segment(Click(x, y))
    assert mask_iou(result.mask, box_mask(box)) > 0.85
    assert result.area == result.mask.sum()
    assert result.box is not None and max(np.abs(np.subtract(result.box, box))) <= 6


_shared: list[TiledScene] = []


def shared_scene() -> TiledScene:
    """One scene for all examples of a property."""
    if not _shared:
        rng = np.random.default_rng(0)
        pixels = np.full((HEIGHT, WIDTH, 3), 128, np.int16)
        for box, colour in COLOURS.items():
            pixels[box_mask(box)] = colour
        pixels = (pixels + rng.integers(-4, 5, pixels.shape, np.int16)).clip(0, 255)
        _shared.append(Model(WholeNetwork(), WEIGHTS).encode_large(pixels.astype(np.uint8), tile=TILE))  # type: ignore[arg-type]
    return _shared[0]


def test_every_kind_of_prompt_lies_where_it_was_drawn(tiled: TiledScene) -> None:
    line = [(430, 310), (460, 340)]
    triangle = [(425, 305), (465, 305), (425, 345)]
    for prompt in (Box(*BLUE), Scribble(line), Polygon(triangle), Mask(box_mask(BLUE)), Reference(tiled, Box(*BLUE))):
        result = tiled.segment(prompt)
        assert mask_iou(result.mask, box_mask(BLUE)) > 0.85, prompt


def test_a_region_of_a_large_image_is_a_prompt_for_a_photo(
    tiled: TiledScene, model: Model, picture: np.ndarray
) -> None:
    other = model.encode(picture[250:400, 380:540])
    found = other.segment(tiled.reference(Reference(tiled, Box(*BLUE))))
    assert mask_iou(found.mask, box_mask(BLUE)[250:400, 380:540]) > 0.85


def test_text_is_looked_for_in_all_windows(tiled: TiledScene) -> None:
    assert mask_iou(tiled.segment(Text("blue")).mask, box_mask(BLUE)) > 0.85
    (found,) = tiled.find("blue")
    assert mask_iou(found.mask, box_mask(BLUE)) > 0.85 and found.label == "blue"
    (bar,) = tiled.find("green")  # longer than a tile: only a coarse level sees it whole
    assert mask_iou(bar.mask, box_mask(GREEN)) > 0.8
    assert tiled.find("zebra") == []


def test_a_tiny_object_is_looked_at_closely_and_its_window_is_kept(model: Model, picture: np.ndarray) -> None:
    tiled = model.encode_large(picture, tile=320)
    result = tiled.segment(Click(336, 228))
    coarse = model.encode(picture).segment(Click(336, 228))
    assert isinstance(result, TiledSegmentation)
    assert result.window[2] - result.window[0] < 320
    assert mask_iou(result.mask, box_mask(TINY)) > max(0.85, mask_iou(coarse.mask, box_mask(TINY)) + 0.1)
    before = tiled.encoded
    again = tiled.segment(Click(337, 229), previous=result)
    assert tiled.encoded == before
    assert isinstance(again, TiledSegmentation) and again.window == result.window


# ---- zoom ---------------------------------------------------------------------------------------------------------

CLICKS = (Click(150, 140), Click(110, 100), Click(190, 180))  # on the red square, which is not tiny


@pytest.fixture
def zoomed(model: Model, picture: np.ndarray) -> TiledScene:
    return model.encode_large(picture, zoom=True)


def test_the_third_click_zooms_in_and_later_ones_cost_no_encoding(
    model: Model, zoomed: TiledScene, picture: np.ndarray
) -> None:
    scene = model.encode(picture)
    one, two = zoomed.segment(CLICKS[0]), zoomed.segment(*CLICKS[:2])
    assert np.array_equal(one.mask, scene.segment(CLICKS[0]).mask) and zoomed.encoded == 1
    three = zoomed.segment(*CLICKS, previous=two)
    assert isinstance(three, TiledSegmentation) and zoomed.encoded == 2
    x0, y0, x1, y1 = three.window
    assert x0 < RED[0] < RED[2] < x1 and y0 < RED[1] < RED[3] < y1 and x1 - x0 < WIDTH / 2
    coarse = scene.segment(*CLICKS, previous=scene.segment(*CLICKS[:2]))
    assert mask_iou(three.mask, box_mask(RED)) > max(0.9, mask_iou(coarse.mask, box_mask(RED)))
    four = zoomed.segment(*CLICKS, Click(60, 140, positive=False), previous=three)
    assert isinstance(four, TiledSegmentation) and four.window == three.window and zoomed.encoded == 2


@pytest.mark.parametrize(
    ("prompts", "zooms"),
    [
        ([Box(*RED)], True),
        ([Scribble(((120, 110), (180, 170)))], True),
        ([Polygon(((100, 90), (200, 90), (200, 190), (100, 190)))], True),
        ([Mask(box_mask(RED))], True),
        ([Text("red"), *CLICKS], True),
        ([Text("red")], False),  # which thing is meant counts, not yet its outline
        ([Text("red"), CLICKS[0]], False),
        (list(CLICKS[:2]), False),
        ([Box(20, 20, 620, 460)], False),  # it leaves no room
    ],
    ids=lambda value: "+".join(type(p).__name__ for p in value) if isinstance(value, list) else str(value),
)
def test_what_is_zoomed_into(zoomed: TiledScene, prompts: list[Any], zooms: bool) -> None:
    result = zoomed.segment(*prompts)
    assert isinstance(result, TiledSegmentation) and (result.window != (0, 0, WIDTH, HEIGHT)) == zooms
    if zooms:
        assert mask_iou(result.mask, box_mask(RED)) > 0.9
        assert zoomed.label(result, vocabulary=["red", "blue"])[0][0] == "red"


def test_a_window_in_which_no_prompt_lies_is_none(model: Model, zoomed: TiledScene, picture: np.ndarray) -> None:
    """A mask that was found elsewhere, and clicks that say only what does not belong to it."""
    elsewhere = [Click(x, 470, positive=False) for x in (600, 610, 620)]
    result = zoomed.segment(*elsewhere, previous=model.encode(picture).segment(CLICKS[0]))
    assert isinstance(result, TiledSegmentation) and result.window == (0, 0, WIDTH, HEIGHT)
    again = zoomed.segment(*elsewhere, previous=result)
    assert isinstance(again, TiledSegmentation) and again.window == (0, 0, WIDTH, HEIGHT)


def test_what_was_seen_in_a_window_is_drawn_on_the_whole_picture(zoomed: TiledScene, picture: np.ndarray) -> None:
    result = zoomed.segment(Box(*RED))
    drawn = np.asarray(seem.draw(picture, result))
    changed = (drawn != picture).any(-1)
    assert drawn.shape == picture.shape and changed[RED[1] + 20 : RED[3] - 20, RED[0] + 20 : RED[2] - 20].all()
    assert not changed[400:, 500:].any()
    with pytest.raises(ValueError, match="expected 640x480 as the result"):
        seem.draw(picture[:100], result)


def test_a_zoomed_scene_answers_the_rest_as_a_scene(model: Model, zoomed: TiledScene, picture: np.ndarray) -> None:
    scene = model.encode(picture)
    for a, b in zip(scene.instances(), zoomed.instances(), strict=True):
        assert np.array_equal(a.mask, b.mask)
    assert np.array_equal(scene.panoptic().map, zoomed.panoptic().map)
    grown = zoomed.segment(*CLICKS, previous=zoomed.find("red")[0])  # what a scene answered is remembered
    assert mask_iou(grown.mask, box_mask(RED)) > 0.9


def test_what_a_text_finds_is_outlined_in_a_window_and_keeps_its_name_and_score(
    model: Model, zoomed: TiledScene, picture: np.ndarray
) -> None:
    (plain,), (near,) = model.encode(picture).find("red"), zoomed.find("red")
    assert isinstance(near, TiledSegmentation) and zoomed.encoded == 2
    assert near.window[2] - near.window[0] < WIDTH / 2
    assert mask_iou(near.mask, box_mask(RED)) > mask_iou(plain.mask, box_mask(RED))
    assert (near.score, near.score_kind, near.label) == (plain.score, "match", "red")
    assert zoomed.find("red", limit=1)[0].box == near.box and zoomed.find("a name that nothing has") == []


def test_parts_that_become_the_same_object_are_found_once(model: Model, zoomed: TiledScene) -> None:
    found = zoomed.find("red", threshold=0.0)
    for i, one in enumerate(found):
        for other in found[:i]:
            assert mask_iou(one.mask, other.mask) < NMS_IOU


def test_zoomed_sessions_replay_and_files_remember_it(model: Model, zoomed: TiledScene, picture: np.ndarray) -> None:
    session = zoomed.session()
    for click in CLICKS:
        result = session.add(1, click)
    assert isinstance(result, TiledSegmentation) and result.window[2] - result.window[0] < WIDTH / 2
    again = Session.replay(model.encode_large(picture, zoom=True), session.log())  # type: ignore[arg-type]
    assert np.array_equal(again.objects[1].result.mask, result.mask)
    loaded = TiledScene.from_bytes(zoomed.to_bytes(), model, picture)
    assert isinstance(found := loaded.segment(*CLICKS), TiledSegmentation) and found.window == result.window


def test_rounds_remember_and_sessions_work(tiled: TiledScene) -> None:
    session = tiled.session()
    first = session.add(1, Click(150, 140))
    second = session.add(1, Click(5, 470, positive=False))  # far outside the window: says nothing about it
    assert mask_iou(first.mask, second.mask) > 0.95
    session.undo()
    assert np.array_equal(session.objects[1].result.mask, first.mask)
    grown = tiled.segment(Click(440, 320), Click(150, 140), previous=first)
    assert isinstance(grown, TiledSegmentation)
    assert grown.window[0] <= RED[0] and grown.window[2] >= BLUE[2]


def test_several_objects_share_the_decodes_of_their_windows(tiled: TiledScene) -> None:
    objects = [[Click(150, 140)], [Click(440, 320)], [Click(160, 150)]]
    together = tiled.segment_all(objects)
    assert max(tiled._network.calls) >= 2  # type: ignore[attr-defined]
    for prompts, result in zip(objects, together, strict=True):
        assert np.allclose(result.logits, tiled.segment(*prompts).logits, atol=1e-4)


def test_labels(tiled: TiledScene) -> None:
    assert tiled.label(box_mask(RED))[0][0]
    assert tiled.label(tiled.segment(Click(150, 140)), vocabulary=["red", "blue"])[0][0] == "red"
    assert tiled.label(box_mask(BLUE), vocabulary=["red", "blue"])[0][0] == "blue"


def test_bad_prompts_are_told_as_by_a_scene(tiled: TiledScene, model: Model, picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected 0 <= x < 640"):
        tiled.segment(Click(640, 3))
    with pytest.raises(ValueError, match="only negative ones"):
        tiled.segment(Click(3, 3, positive=False))
    with pytest.raises(ValueError, match="expected a result of this image"):
        tiled.segment(Click(3, 3), previous=model.encode_large(picture[:, ::-1], tile=TILE).segment(Click(3, 3)))
    with pytest.raises(ValueError, match="tile: expected"):
        model.encode_large(picture, tile=8)
    with pytest.raises(ValueError, match="limit"):
        tiled.find("red", limit=0)


# ---- without prompts ------------------------------------------------------------------------------------------------


def test_panoptic_has_no_cuts(tiled: TiledScene) -> None:
    found = tiled.panoptic(["red", "blue", "green", ("grey", "stuff")])
    assert sorted(s.label for s in found.segments) == ["blue", "green", "grey", "red"]
    for segment in found.segments:
        box = {"red": RED, "blue": BLUE, "green": GREEN}.get(segment.label)
        if box is not None:
            assert mask_iou(found.mask(segment.id), box_mask(box)) > 0.85
        assert segment.area == found.mask(segment.id).sum()
    filled = tiled.panoptic(["red"], background=True)
    assert {s.label for s in filled.segments} == {"red", "others"} and (filled.map > 0).all()


def test_instances_are_whole_and_there_once(tiled: TiledScene) -> None:
    found = tiled.instances(["red", "blue", "green"], threshold=0.3)
    for name, box in (("red", RED), ("blue", BLUE)):
        assert [mask_iou(r.mask, box_mask(box)) > 0.85 for r in found if r.label == name] == [True], name
    assert [r.label for r in tiled.instances(["red", "blue", "green"], threshold=0.3, limit=1)] == [found[0].label]


def test_it_answers_all_that_a_scene_answers(tiled: TiledScene) -> None:
    """With the same arguments and defaults; but no masks from elsewhere, and its file needs the image beside it."""
    asked = [name for name, value in vars(seem.Scene).items() if isfunction(value) and not name.startswith("_")]
    asked = [name for name in asked if name not in ("given", "to_bytes")]
    assert len(asked) > 8
    for name in asked:
        expected, got = (signature(getattr(kind, name)).parameters for kind in (seem.Scene, TiledScene))
        shapes = [[(p.name, p.kind, p.default) for p in parameters.values()] for parameters in (expected, got)]
        assert shapes[0] == shapes[1], name


def test_everything_finds_each_thing_once(tiled: TiledScene) -> None:
    found = tiled.everything(8, overlap=0.5)
    for box in (RED, BLUE):
        assert sum(mask_iou(r.mask, box_mask(box)) > 0.5 for r in found) == 1, box


@settings(max_examples=15)
@given(st.integers(0, 50))
def test_pieces_are_put_together_by_the_rule_of_a_scene(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = ImageGeometry.of((50, 40), ImageConfig(target=64))
    coarse = torch.from_numpy(rng.normal(size=(6, 1, 4, 5)).astype(np.float32) * 3)
    logits = torch.nn.functional.interpolate(coarse, sizes.mask_size, mode="bilinear")[:, 0]
    names = [Category("dog"), Category("sky", is_thing=False), None]
    classes, scores = rng.integers(0, 3, 6).tolist(), rng.uniform(0.3, 1, 6).round(3).tolist()
    for fill in (False, True):
        expected, segments = assemble(logits, classes, scores, names, sizes, 0.5, fill, remainders=1)
        window = (0, 0, 50, 40)
        pieces = [Piece.whole(x.numpy(), window, sizes) for x in logits]
        found = assemble_pieces(pieces, classes, scores, names, (50, 40), 0.5, fill, 1, "sha256:0")
        if [s.label for s in found.segments] == [s.label for s in segments]:
            assert (found.map != expected).mean() < 0.01  # ties at a border are rounded differently
        else:  # a region that is just about hidden
            assert abs(len(found.segments) - len(segments)) <= 1


# ---- memory -------------------------------------------------------------------------------------------------------


def test_a_small_budget_gives_the_same_bits(model: Model, picture: np.ndarray) -> None:
    large, small = model.encode_large(picture, tile=TILE), model.encode_large(picture, tile=TILE, cache_bytes=60_000)
    for box in COLOURS:
        click = Click((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        assert np.array_equal(large.segment(click).logits, small.segment(click).logits)
    assert small._bytes <= 60_000 and small.encoded > len(small._scenes)


# ---- saved or sent ------------------------------------------------------------------------------------------------


def test_save_and_load(model: Model, tiled: TiledScene, picture: np.ndarray, tmp_path: Path) -> None:
    clicks = [[Click((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)] for box in (RED, BLUE)]
    first = tiled.segment_all(clicks)
    tiled.save(tmp_path / "large.scene")
    again = seem.TiledScene.load(tmp_path / "large.scene", model, picture)
    assert (again.size, again.digest, again.weights, again.levels) == (
        tiled.size,
        tiled.digest,
        tiled.weights,
        tiled.levels,
    )
    for a, b in zip(first, again.segment_all(clicks), strict=True):
        assert mask_iou(a.mask, b.mask) > 0.99
    assert again.encoded == 0  # nothing that was known is encoded again
    assert again.to_bytes() == tiled.to_bytes()
    assert [r.label for r in again.find("green")] == ["green"]  # in windows that the file does not hold
    assert again.encoded > 0


def test_a_loaded_scene_keeps_its_budget(model: Model, tiled: TiledScene, picture: np.ndarray) -> None:
    tiled.find("red")
    small = seem.TiledScene.from_bytes(tiled.to_bytes(), model, picture, cache_bytes=60_000)
    assert 0 < len(small._scenes) < len(tiled._scenes) and small._bytes <= 60_000


def test_a_scene_that_nothing_was_asked_of(model: Model, tiled: TiledScene, picture: np.ndarray) -> None:
    again = seem.TiledScene.from_bytes(tiled.to_bytes(), model, picture)
    assert mask_iou(again.segment(Click(150, 140)).mask, box_mask(RED)) > 0.85


def test_files_that_are_refused(model: Model, tiled: TiledScene, picture: np.ndarray) -> None:
    tiled.segment(Click(150, 140))
    data = tiled.to_bytes()
    tensors = safetensors.torch.load(data)
    header = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["seem.scene"])

    def changed(**changes: Any) -> bytes:
        return safetensors.torch.save(tensors, {"seem.scene": json.dumps(header | changes)})

    def other(tensors: dict[str, Any]) -> bytes:
        return safetensors.torch.save(tensors, {"seem.scene": json.dumps(header)})

    cases: list[tuple[bytes, str]] = [
        (b"", "expected a safetensors file"),
        (data[: len(data) // 2], "scene: expected"),
        (model.encode(picture).to_bytes(), "expected a file of TiledScene.save, got a file of Scene.save"),
        (changed(version=2), "expected format version 1, got 2"),
        (changed(weights="sha256:other"), "expected one of the weights"),
        (changed(original=[10**6, 10**6]), "of at most 1000000000 pixels"),
        (changed(tile=8), "expected a tile of 64 pixels or more, got 8"),
        (changed(tile="160"), "expected a tile of 64 pixels"),
        (changed(tile=True), "expected a tile of 64 pixels"),
        (changed(windows=None), "of windows in 640x480, got None"),
        (changed(windows=[[0, 0, 641, 9]]), "of windows in 640x480, got [[0, 0, 641, 9]]"),
        (changed(windows=[[5, 0, 5, 9]]), "of windows in 640x480"),
        (changed(windows=[*header["windows"], [0, 0, 64, 64]]), "expected this model's features"),
        (changed(windows=[]), "expected tensors of 0 windows"),
        (changed(windows=[[0, 0, 64, 32]] * len(header["windows"])), "expected this model's features"),
        (other({"colours": tensors["0/colours"]}), "expected tensors of"),
        (other({**tensors, "-1/colours": tensors["0/colours"].clone()}), "expected tensors of"),
        (other({**tensors, "0/more": tensors["0/colours"].clone()}), "expected this model's features"),
        (other({**tensors, "0/colours": tensors["0/colours"] * float("nan")}), "expected this model's features"),
    ]
    for broken, message in cases:
        with pytest.raises(ValueError, match="scene: expected") as caught:
            seem.TiledScene.from_bytes(broken, model, picture)
        assert message in str(caught.value)
    with pytest.raises(ValueError, match=r"expected a file of Scene\.save, got a file of TiledScene.save"):
        seem.Scene.from_bytes(data, model)
    with pytest.raises(ValueError, match="image: expected the one of the scene"):
        seem.TiledScene.from_bytes(data, model, picture[:, ::-1])
    with pytest.raises(ImageError):
        seem.TiledScene.from_bytes(data, model, "missing.png")


def test_more_pixels_than_pillow_allows_if_the_caller_says_so() -> None:
    huge = png_header(20_000, 20_000)
    with pytest.raises(ImageError, match="more than Pillow opens"):
        load_image(huge)
    with pytest.raises(ImageError, match="truncated or broken"):
        load_image(huge, max_pixels=1_000_000_000)
    with pytest.raises(ImageError, match="expected at most 300000000 pixels"):
        load_image(huge, max_pixels=300_000_000)
