"""The photo that a scene keeps for a closer look: small enough to be kept, sharp enough to look closer at.

It is a JPEG, also in memory: a tenth of the pixels' size, and a scene that was saved or sent answers as one that was
not.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from seem.model.image_input import normalised

if TYPE_CHECKING:
    from torch import Tensor

    from seem.model.seem import SEEM

LONGEST = 1024  # pixels: twice what the first look sees
QUALITY = 95


def keep_photo(network: SEEM, pixels: np.ndarray) -> bytes | None:
    """(H, W, 3) uint8 as a JPEG of at most `LONGEST` pixels a side; None for a network without a closer look."""
    if getattr(network, "closer_look", None) is None:
        return None
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def open_photo(network: SEEM, photo: bytes | None) -> Tensor | None:
    """(3, H, W) as the encoder wants it; None if there is no photo, or no closer look.

    Raises ValueError for bytes that `keep_photo` did not make.
    """
    if photo is None or getattr(network, "closer_look", None) is None:
        return None
    try:
        image = Image.open(io.BytesIO(photo), formats=("JPEG",))
        if max(image.size) > LONGEST:
            raise ValueError(f"photo: expected at most {LONGEST} pixels a side, got {image.size[0]}x{image.size[1]}")
        pixels = np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"photo: expected a JPEG, got: {error}") from None
    return normalised(pixels, network.config.image, network.device)
