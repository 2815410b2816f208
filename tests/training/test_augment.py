"""A photo and its masks are changed alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seem.training.augment import PADDING, AugmentConfig, augment

quick = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
GEOMETRY = replace(AugmentConfig.none(), flip=0.5, crop=0.6, scale=(0.3, 2.0))


def painted(width: int, height: int, box: tuple[int, int, int, int]) -> tuple[Image.Image, np.ndarray]:
    """A white box on black, and its mask."""
    mask = np.zeros((height, width), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return Image.fromarray(np.repeat(mask[:, :, None] * np.uint8(255), 3, 2)), mask


@quick
@given(st.integers(40, 90), st.integers(40, 90), seeds, st.sampled_from([None, (64, 64), (50, 80)]))
def test_a_painted_object_and_its_mask_stay_aligned(
    width: int, height: int, seed: int, size: tuple[int, int] | None
) -> None:
    image, mask = painted(width, height, (12, 8, 30, 33))
    result = augment(image, [mask], np.random.default_rng(seed), replace(GEOMETRY, size=size))
    pixels = np.asarray(result.image)
    assert result.masks[0].shape == pixels.shape[:2]
    assert size is None or result.image.size == size
    white = (pixels[:, :, 0] > 127) & ~(pixels == PADDING).all(-1)
    np.testing.assert_array_equal(white, result.masks[0])


@quick
@given(st.integers(5, 70), st.integers(5, 40), seeds, st.sampled_from([0.5, 1.0, 2.0]))
def test_a_marked_pixel_follows(x: int, y: int, seed: int, scale: float) -> None:
    """Without a cut the way of a point is known: scaled, then mirrored in what is shown."""
    image, mask = painted(80, 50, (x - 2, y - 2, x + 2, y + 2))
    config = replace(AugmentConfig.none(), flip=0.5, scale=(scale, scale), size=(160, 100))
    result = augment(image, [mask], np.random.default_rng(seed), config)
    scale *= 2  # the canvas is twice the photo
    assert result.scale == pytest.approx(scale)
    ys, xs = np.nonzero(result.masks[0])
    if scale <= 2:  # all of it is seen
        expected = x * scale
        expected = 80 * scale - expected if result.flipped else expected
        assert xs.mean() + 0.5 == pytest.approx(expected, abs=0.6)
        assert ys.mean() + 0.5 == pytest.approx(y * scale, abs=0.6)
    elif len(xs):
        assert np.ptp(xs) < 4 * scale + 1


def test_flip_alone_is_the_mirror() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    mask = pixels[:, :, 0] > 99
    result = augment(Image.fromarray(pixels), [mask], np.random.default_rng(0), replace(AugmentConfig.none(), flip=1.0))
    assert result.flipped
    np.testing.assert_array_equal(np.asarray(result.image), pixels[:, ::-1])
    np.testing.assert_array_equal(result.masks[0], mask[:, ::-1])


def test_none_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    result = augment(Image.fromarray(pixels), [pixels[:, :, 1] > 50], np.random.default_rng(3), AugmentConfig.none())
    np.testing.assert_array_equal(np.asarray(result.image), pixels)
    np.testing.assert_array_equal(result.masks[0], pixels[:, :, 1] > 50)
    assert (result.flipped, result.scale) == (False, 1.0)


def test_small_scale_pads_right_and_below() -> None:
    image, mask = painted(40, 40, (0, 0, 40, 40))
    result = augment(image, [mask], np.random.default_rng(0), replace(AugmentConfig.none(), scale=(0.5, 0.5)))
    pixels = np.asarray(result.image)
    assert (pixels[:20, :20] == 255).all()
    assert (pixels[20:] == PADDING).all() and (pixels[:, 20:] == PADDING).all()
    assert result.masks[0].sum() == 400


def test_what_vanishes_is_empty() -> None:
    image, mask = painted(60, 60, (0, 0, 2, 2))
    config = replace(AugmentConfig.none(), scale=(3, 3))
    results = [augment(image, [mask, ~mask], np.random.default_rng(s), config) for s in range(20)]
    assert any(not r.masks[0].any() for r in results)
    assert all(len(r.masks) == 2 and r.masks[1].any() for r in results)


def test_colour_leaves_the_geometry() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
    config = replace(AugmentConfig(), flip=0, crop=1, scale=(1, 1))
    result = augment(Image.fromarray(pixels), [pixels[:, :, 0] > 99], rng, config)
    np.testing.assert_array_equal(result.masks[0], pixels[:, :, 0] > 99)
    difference = np.abs(np.asarray(result.image).astype(int) - pixels).mean()
    assert 1 < difference < 60


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "RGB"])
def test_any_mode_becomes_rgb(mode: str) -> None:
    result = augment(Image.new(mode, (20, 10)), [], np.random.default_rng(0), AugmentConfig())
    assert result.image.mode == "RGB"


def test_the_generator_decides() -> None:
    image, mask = painted(50, 40, (5, 5, 20, 20))
    one, two = (augment(image, [mask], np.random.default_rng(7), AugmentConfig()) for _ in range(2))
    assert one.image.tobytes() == two.image.tobytes()
    assert one.scale == two.scale


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flip": 1.5}, "flip: expected 0..1, got 1.5"),
        ({"hue": 0.7}, "hue: expected 0..0.5"),
        ({"crop": 0}, "crop: expected more than 0"),
        ({"scale": (0, 1)}, "scale: expected"),
        ({"scale": (2, 1)}, "scale: expected"),
        ({"size": (0, 4)}, "size: expected"),
    ],
)
def test_config_refuses(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**fields)


def test_a_mask_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"masks\[1\]: expected shape \(10, 20\) as the image, got \(20, 10\)"):
        augment(Image.new("RGB", (20, 10)), [np.zeros((10, 20), bool), np.zeros((20, 10), bool)],
                np.random.default_rng(0), AugmentConfig())  # fmt: skip
