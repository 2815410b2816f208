"""A photo and its masks, changed alike: flip, crop, large-scale jitter (Ghiasi et al., arXiv 2012.07177) and colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

PADDING = (124, 116, 104)  # the mean colour, which the network's own zero padding stands for


@dataclass(frozen=True)
class AugmentConfig:
    """What may happen to a photo. `none()` leaves it as it is.

    Attributes:
        flip: probability of mirroring left and right.
        crop: a window is kept whose sides are at least this share of the photo's; 1 keeps all.
        scale: the window is resized by a factor drawn evenly from this range, relative to where it just fits, then
            cut at random or padded right and below.
        size: (width, height) of the result; None: that of the window.
        brightness, contrast, saturation: factors are drawn from 1 - x .. 1 + x.
        hue: shift in -x .. x turns of the colour circle.

    Raises:
        ValueError: a value outside its range.
    """

    flip: float = 0.5
    crop: float = 0.7
    scale: tuple[float, float] = (0.1, 2.0)
    size: tuple[int, int] | None = None
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02

    def __post_init__(self) -> None:
        for name, most in (("flip", 1), ("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name}: expected 0..{most}, got {getattr(self, name)}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop: expected more than 0, at most 1, got {self.crop}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale: expected (least, most) above 0, got {self.scale}")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"size: expected (width, height) or None, got {self.size}")

    @classmethod
    def none(cls) -> AugmentConfig:
        """No change at all, bit for bit."""
        return cls(flip=0, crop=1, scale=(1, 1), brightness=0, contrast=0, saturation=0, hue=0)


class Augmented(NamedTuple):
    """The result; an object that fell outside, or became too small to see, has an empty mask."""

    image: Image.Image
    masks: list[np.ndarray]  # (h, w) bool of the image's size
    flipped: bool  # then "left" in an expression means "right": `expressions.flip_expression`
    scale: float  # result pixels per pixel of the photo


class _Placement(NamedTuple):
    """Which part of the photo lands where: the box ``source`` fills ``shown`` pixels at the canvas' top left."""

    source: tuple[float, float, float, float]
    shown: tuple[int, int]
    canvas: tuple[int, int]
    flipped: bool

    def apply(self, image: Image.Image, padding: int | tuple[int, ...]) -> Image.Image:
        # Pillow's resize averages over what a pixel covers, so that a small object does not flicker away
        part = image.resize(self.shown, Image.Resampling.BILINEAR, box=self.source)
        if self.flipped:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.shown == self.canvas:
            return part
        canvas = Image.new(image.mode, self.canvas, padding)
        canvas.paste(part, (0, 0))
        return canvas


def augment(
    image: Image.Image, masks: Sequence[np.ndarray], rng: np.random.Generator, config: AugmentConfig
) -> Augmented:
    """Change a photo and its masks with the same geometry.

    Args:
        image: the photo; the result is RGB.
        masks: (h, w) bool each, of the photo's size.
        rng: decides everything that the config leaves open.

    Raises:
        ValueError: a mask of another size; names its index.
    """
    for i, mask in enumerate(masks):
        if mask.shape != (image.height, image.width):
            raise ValueError(f"masks[{i}]: expected shape {(image.height, image.width)} as the image, got {mask.shape}")
    placement, scale = _place(image.size, rng, config)
    changed = [np.asarray(placement.apply(Image.fromarray(mask.astype(np.uint8) * 255), 0)) > 127 for mask in masks]
    # colour first: padding keeps its own
    photo = placement.apply(_recolour(image.convert("RGB"), rng, config), PADDING)
    return Augmented(photo, changed, placement.flipped, scale)


def _place(size: tuple[int, int], rng: np.random.Generator, config: AugmentConfig) -> tuple[_Placement, float]:
    whole = np.array(size)
    window = np.maximum(1, np.rint(whole * rng.uniform(config.crop, 1, 2))).astype(int)
    corner = rng.integers(0, whole - window + 1)
    canvas = window if config.size is None else np.array(config.size)
    scale = float(rng.uniform(*config.scale) * (canvas / window).min())
    scaled = np.maximum(1, np.rint(window * scale)).astype(int)
    shown = np.minimum(scaled, canvas)
    x0, y0 = corner + rng.integers(0, scaled - shown + 1) / scaled * window
    w, h = shown / scaled * window
    source = (float(x0), float(y0), float(min(x0 + w, size[0])), float(min(y0 + h, size[1])))
    flipped = bool(rng.random() < config.flip)
    return _Placement(source, (int(shown[0]), int(shown[1])), (int(canvas[0]), int(canvas[1])), flipped), scale


def _recolour(image: Image.Image, rng: np.random.Generator, config: AugmentConfig) -> Image.Image:
    for strength, enhance in (
        (config.brightness, ImageEnhance.Brightness),
        (config.contrast, ImageEnhance.Contrast),
        (config.saturation, ImageEnhance.Color),
    ):
        if strength > 0:
            image = enhance(image).enhance(float(rng.uniform(1 - strength, 1 + strength)))
    if config.hue > 0:
        hue, saturation, value = image.convert("HSV").split()
        turned = np.asarray(hue) + np.uint8(round(rng.uniform(-config.hue, config.hue) * 256) % 256)
        image = Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
    return image
