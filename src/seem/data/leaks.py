"""Photos of a test set that hide in a training set, found by thumbnails.

A thumbnail is 16 x 16 grey, normalised; copies that were rescaled, compressed again or mirrored correlate above 0.99,
while different photos rarely reach 0.95.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 16
THRESHOLD = 0.985


@dataclass(frozen=True)
class Leak:
    """A training photo that looks like a test photo."""

    train: str
    test: str
    correlation: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def thumbnail(path: Path) -> np.ndarray:
    """(256,) float32 of mean 0 and length 1 (all zeros for a photo of one colour). Raises ValueError if unreadable."""
    try:
        with Image.open(path) as image:
            image.draft("L", (4 * SIDE, 4 * SIDE))
            small = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image: {error}") from None
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def find_leaks(train: Mapping[str, Path], test: Mapping[str, Path], threshold: float = THRESHOLD) -> list[Leak]:
    """Every training photo that is a test photo, perhaps rescaled or mirrored, with its nearest test photo.

    Args:
        train, test: photos by key.
        threshold: the correlation from which two photos count as one.
    """
    if not train or not test:
        return []
    keys, tests = list(train), list(test)
    known = _thumbnails([test[k] for k in tests])
    mirrored = known.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(len(known), -1)
    found = _thumbnails([train[k] for k in keys])
    correlation = np.maximum(found @ known.T, found @ mirrored.T)
    nearest = correlation.argmax(1)
    best = correlation[np.arange(len(keys)), nearest]
    return [Leak(keys[i], tests[nearest[i]], round(float(best[i]), 4)) for i in np.flatnonzero(best > threshold)]


def _thumbnails(paths: Sequence[Path]) -> np.ndarray:
    return np.stack([thumbnail(p) for p in paths])
