"""Pictures: the right size, drawn where they should be, the photo left alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import seem
from seem.predict.model import Model
from seem.predict.render import NEGATIVE, PALETTE, POSITIVE
from seem.predict.scene import Scene
from seem.prompts import Box, Click, Mask, Polygon, Prompt, Reference, Scribble, Text
from tests.conftest import box_mask
from tests.fakes import WEIGHTS, FakeConfig, FakeNetwork


def test_the_mask_is_tinted_and_the_rest_is_the_photo(scene: Scene, photo: np.ndarray) -> None:
    r = scene.segment(Click(40, 50))
    before = photo.copy()
    picture = seem.draw(photo, r)
    assert (picture.size, picture.mode) == ((160, 120), "RGB")
    assert np.array_equal(photo, before)
    pixels = np.asarray(picture).astype(int)
    assert np.array_equal(pixels[100:, :60], photo[100:, :60])
    inside = pixels[50, 40] - photo[50, 40].astype(int)
    assert inside[2] > 50  # the first colour is blue


def prompts(scene: Scene) -> list[Prompt]:
    return [
        Click(0, 0),
        Click(159, 119, positive=False),
        Box(-10, 5, 400, 100),
        Scribble([(5, 5), (80, 100)]),
        Scribble([(30, 30)], positive=False, width=40),
        Polygon([(-50, 10), (100, 10), (50, 300)]),
        Mask(box_mask((0, 0, 160, 120))),
        Text("a phrase that is longer than the picture is wide, by far"),
        Reference(scene, Click(3, 4)),
    ]


def test_prompts_are_drawn_and_cut_at_the_border(scene: Scene, photo: np.ndarray) -> None:
    r = scene.segment(Click(40, 50))
    for prompt in prompts(scene):
        picture = seem.draw(photo, r, [prompt])
        changed = not np.array_equal(picture, seem.draw(photo, r))
        assert changed == (not isinstance(prompt, (Reference, Mask)))
    assert seem.draw(photo, r, prompts(scene)).size == (160, 120)


@pytest.mark.parametrize(("positive", "colour"), [(True, POSITIVE), (False, NEGATIVE)])
def test_clicks_say_what_they_mean(
    scene: Scene, photo: np.ndarray, positive: bool, colour: tuple[int, int, int]
) -> None:
    pixels = np.asarray(seem.draw(photo, [], [Click(80, 60, positive)])).astype(int)
    assert np.abs(pixels[57, 84] - colour).max() < 60
    assert pixels[60, 80].min() > 200  # the sign is white


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 30), (1500, 900)])
def test_any_size(size: tuple[int, int]) -> None:
    photo = np.full((size[1], size[0], 3), 250, np.uint8)
    scene = Model(FakeNetwork(FakeConfig()), WEIGHTS).encode(photo)  # type: ignore[arg-type]
    r = scene.segment(Click(0, 0))
    assert r.area == size[0] * size[1]
    assert seem.draw(photo, [r] * 4, [Click(0, 0), Text("white")]).size == size
    assert seem.draw(photo, scene.panoptic(["white"], background=True)).size == size


def test_panoptic(scene: Scene, photo: np.ndarray) -> None:
    p = scene.panoptic(["red", "blue", ("grey", "stuff")], background=True)
    pixels = np.asarray(seem.draw(Image.fromarray(photo), p)).astype(int)
    assert pixels.shape == photo.shape
    assert not np.array_equal(pixels, photo)


def test_nothing_to_draw(photo: np.ndarray) -> None:
    assert np.array_equal(np.asarray(seem.draw(photo, [])), photo)


def test_a_photo_of_another_size_is_refused(scene: Scene, photo: np.ndarray) -> None:
    for result in (scene.segment(Click(40, 50)), scene.panoptic(["red"])):
        with pytest.raises(ValueError, match="image: expected 160x120 as the result, got 80x120"):
            seem.draw(photo[:, ::2], result)


def test_colours_differ() -> None:
    colours = np.array(PALETTE, int)
    distance = np.abs(colours[:, None] - colours[None]).sum(-1) + 999 * np.eye(len(colours), dtype=int)
    assert distance.min() > 60
