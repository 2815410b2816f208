"""Closer looks (`seem.model.closer_look`): the photo that a scene keeps for them, and which regions get one.

The photo is a JPEG, also in memory: a tenth of the pixels' size, and a scene that was saved or sent answers as one that
was not.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from seem.model.image_input import normalised
from seem.model.seem import join_queries
from seem.predict.instances import distinct, find_instances, largest_piece, match_phrase

if TYPE_CHECKING:
    from torch import Tensor

    from seem.model.seem import SEEM, ImageFeatures, ObjectQueries

LONGEST = 1024  # pixels: twice what the first look sees
QUALITY = 95
SAME, REGIONS = 0.8, 100  # IoU from which two regions of an image are the same, and how many are looked at
LIKELY = 12  # object queries that are looked at for a phrase in a hurry
PHOTO = "photo"  # the tensor of a scene's file


def keep_photo(network: SEEM, pixels: np.ndarray) -> bytes | None:
    """(H, W, 3) uint8 as a JPEG of at most `LONGEST` pixels a side; None for a network without a closer look."""
    return None if network.closer_look is None else make_photo(pixels)


def make_photo(pixels: np.ndarray) -> bytes:
    """What `keep_photo` keeps."""
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def open_photo(network: SEEM, photo: bytes | None) -> Tensor | None:
    """(3, H, W) as the encoder wants it; None if there is no photo, or no closer look.

    Raises ValueError for bytes that `keep_photo` did not make.
    """
    if photo is None or network.closer_look is None:
        return None
    return read_photo(network, photo)


def read_photo(network: SEEM, photo: bytes) -> Tensor:
    """(3, H, W) of what `make_photo` made; ValueError as `open_photo`."""
    try:
        image = Image.open(io.BytesIO(photo), formats=("JPEG",))
        if max(image.size) > LONGEST:
            raise ValueError(f"photo: expected at most {LONGEST} pixels a side, got {image.size[0]}x{image.size[1]}")
        pixels = np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"photo: expected a JPEG, got: {error}") from None
    return normalised(pixels, network.config.image, network.device)


def look_closer(network: SEEM, features: ImageFeatures, photo: bytes | None, regions: ObjectQueries) -> ObjectQueries:
    """The same regions, with what a closer look says of them, if there is one to take."""
    opened = open_photo(network, photo)
    if opened is None:
        return regions
    return replace(network.look_closer(features, opened, regions), whole=largest_piece(regions.logits > 0))


def see_regions(network: SEEM, features: ImageFeatures, photo: bytes | None) -> ObjectQueries:
    """All regions of an image; with a closer look the surest, none nearly twice."""
    found = network.regions(features)
    if photo is None or network.closer_look is None:
        return found
    return look_closer(network, features, photo, found.take(distinct(found.logits, found.scores, 0.0, SAME)[:REGIONS]))


def see_phrase(
    network: SEEM, features: ImageFeatures, photo: bytes | None, phrase: str, regions: ObjectQueries | None
) -> ObjectQueries:
    """The regions that a phrase may name; with a closer look what it gives by itself first.

    Args:
        regions: all of the image, of `see_regions`; None: of the object queries the likeliest, which is quicker.
    """
    if photo is None or network.closer_look is None:
        return network.propose(features, phrase)
    heat = network.shows(features, phrase)
    prompted = network.prompted(features, phrase, heat)
    if regions is not None:
        found = network.shown(heat, [look_closer(network, features, photo, prompted), regions])
        return replace(found, asked=len(prompted.logits))
    queries = network.shown(heat, [network.decode_objects(features)])
    likely = find_instances(queries, match_phrase(network, queries, phrase).scores, 0.0, LIKELY, nested=True)
    both = join_queries([prompted, queries.take(likely)])
    return network.shown(heat, [look_closer(network, features, photo, both)])


def pack_photo(photo: bytes | None) -> dict[str, Tensor]:
    """As a tensor of a scene's file."""
    return {} if photo is None else {PHOTO: torch.frombuffer(bytearray(photo), dtype=torch.uint8)}


def unpack_photo(tensors: dict[str, Tensor], network: SEEM) -> bytes | None:
    """Take it out of a file's tensors, of which nothing is trusted. Raises ValueError."""
    packed = tensors.pop(PHOTO, None)
    if packed is None:
        return None
    if packed.dtype != torch.uint8 or packed.ndim != 1:
        raise ValueError(f"scene: expected the photo's bytes, got {packed.dtype} of {tuple(packed.shape)}")
    photo = packed.numpy().tobytes()
    try:
        open_photo(network, photo)
    except ValueError as error:
        raise ValueError(f"scene: {error}") from None
    return photo
