"""Several images through the encoders at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import torch

from seem.geometry import ImageGeometry
from seem.images import ImageError, digest, load_image
from seem.model.image_input import network_input
from seem.model.pixel_decoder import PixelMaps
from seem.model.seem import SEEM
from seem.predict.closer import keep_photo
from seem.predict.scene import Scene

if TYPE_CHECKING:
    from seem.predict.model import Model


def encode_batch(model: Model, images: Sequence[object], batch_size: int) -> list[Scene]:
    """See `Model.encode_batch`. Only images that are padded to one size can share a batch."""
    if isinstance(images, str | bytes) or not isinstance(images, Sequence | np.ndarray):
        raise TypeError(f"images: expected a list of images, got {type(images).__name__}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: expected a whole number from 1, got {batch_size!r}")
    pixels = [_load(model, i, image) for i, image in enumerate(images)]
    network = model.network
    if batch_size == 1 or not isinstance(network, SEEM):  # official variants encode one at a time
        return [model.encode(each) for each in pixels]
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, each in enumerate(pixels):
        groups[ImageGeometry.of((each.shape[1], each.shape[0]), network.config.image).padded].append(i)
    scenes: dict[int, Scene] = {}
    for group in groups.values():
        for start in range(0, len(group), batch_size):
            chosen = group[start : start + batch_size]
            scenes |= zip(chosen, _encode_together(model, network, [pixels[i] for i in chosen]), strict=True)
    return [scenes[i] for i in range(len(pixels))]


def _load(model: Model, i: int, image: object) -> np.ndarray:
    try:
        return load_image(image, model.max_pixels)
    except ImageError as error:
        raise ImageError(f"images[{i}]: {error}") from error
    except TypeError as error:
        raise TypeError(f"images[{i}]: {error}") from error


def _encode_together(model: Model, network: SEEM, pixels: Sequence[np.ndarray]) -> list[Scene]:
    config = network.config.image
    values, sizes = zip(*(network_input(each, config, model.device) for each in pixels), strict=True)
    with torch.no_grad():
        maps = network.encode_maps(torch.cat(values))
        parts = zip(*(getattr(maps, f.name).split(1) for f in fields(PixelMaps)), strict=True)
        features = [network.project(PixelMaps(*part), size) for part, size in zip(parts, sizes, strict=True)]
    geometries = [ImageGeometry.of((each.shape[1], each.shape[0]), config) for each in pixels]
    return [
        Scene(network, each, geometry, digest(image), model.weights, keep_photo(network, image))
        for each, geometry, image in zip(features, geometries, pixels, strict=True)
    ]
