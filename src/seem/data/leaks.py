"""Photos that are in two sets, found by thumbnails: a test set's in a training set, or in two parts of one's own.

    find_leaks(photos_of(train_folder), photos_of(test_folder))
    find_leaks(*map(photos_of, split(records)))

A thumbnail is 16 x 16 grey, normalised; copies that were rescaled, compressed again or mirrored correlate above 0.99,
while different photos rarely reach 0.95.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from seem.data.records import IMAGE_SUFFIXES, Record, RecordError
from seem.images import FORMATS

SIDE = 16
THRESHOLD = 0.985
CHUNK = 4096  # photos compared at once


@dataclass(frozen=True)
class Leak:
    """A training photo that looks like a test photo."""

    train: str
    test: str
    correlation: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def thumbnail(path: Path) -> np.ndarray:
    """(256,) float32 of mean 0 and length 1 (all zeros for a photo of one colour). Raises RecordError if unreadable."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft("L", (4 * SIDE, 4 * SIDE))
            seen = ImageOps.exif_transpose(image.convert("L"))
            small = np.asarray(seen.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RecordError(f"{path}: not a readable image: {error}") from None
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def photos_of(source: Path | Iterable[Record]) -> dict[str, Path]:
    """Photos by key: of records by their ids, of a folder and the folders in it by their paths.

    Raises:
        RecordError: no such folder.
    """
    if not isinstance(source, Path):
        return {str(r["id"]): Path(r["image"]) for r in source}
    if not source.is_dir():
        raise RecordError(f"{source}: no such folder")
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    return {p.relative_to(source).as_posix(): p for p in found}


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
    leaks = []
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        found = _thumbnails([train[k] for k in part])
        correlation = np.maximum(found @ known.T, found @ mirrored.T)
        nearest = correlation.argmax(1)
        best = correlation[np.arange(len(part)), nearest]
        leaks += [Leak(part[i], tests[nearest[i]], round(float(best[i]), 4)) for i in np.flatnonzero(best > threshold)]
    return leaks


def _thumbnails(paths: Sequence[Path]) -> np.ndarray:
    return np.stack([thumbnail(p) for p in paths])
