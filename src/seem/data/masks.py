"""Masks as data sets store them: polygons, run lengths, grey and palette pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seem import geometry
from seem.data.records import Header, Object, RecordError, Rules, make_region
from seem.images import FORMATS

IGNORE_BAND = 128  # of a 0/255 mask: the unsure rim of the object
SUPERSAMPLING = 4


def polygon_mask(polygons: Iterable[object], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool of a COCO polygon list: pixels whose centre lies in one, all touched ones if there is none.

    `size` is (width, height). Raises ValueError for a polygon that is not x, y of three or more finite points.
    """
    rings = []
    for flat in polygons:
        points = np.asarray(flat, np.float64)
        if points.ndim != 1 or len(points) % 2 or len(points) < 6 or not np.isfinite(points).all():
            raise ValueError(f"segmentation: expected x, y of 3 or more points, got {str(flat)[:40]}")
        rings.append(points.reshape(-1, 2))
    mask = np.zeros((size[1], size[0]), bool)
    if not rings:
        return mask
    every = np.concatenate(rings)
    x0, y0 = np.floor(every.min(0)).clip(0, size).astype(int)
    x1, y1 = np.ceil(every.max(0)).clip(0, size).astype(int)
    if x1 <= x0 or y1 <= y0:
        return mask
    rings = [ring - (x0, y0) for ring in rings]
    part = mask[y0:y1, x0:x1]
    for ring in rings:
        part |= geometry.rasterise_polygon(ring, (x1 - x0, y1 - y0))
    if not part.any():
        part[:] = _touched(rings, part.shape)
    return mask


def _touched(rings: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """(h, w) bool of the pixels that polygons too small to hold a centre lie on."""
    fine = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), bool)
    for ring in rings:
        fine |= geometry.rasterise_polygon(ring * SUPERSAMPLING, (fine.shape[1], fine.shape[0]))
    return np.asarray(fine.reshape(shape[0], SUPERSAMPLING, shape[1], SUPERSAMPLING).any((1, 3)))


def segmentation_mask(stated: object, size: tuple[int, int], note: Callable[[str], None]) -> np.ndarray:
    """(H, W) bool of what stands under "segmentation" in COCO files; empty if nothing usable does.

    Args:
        stated: run lengths, which keep their own size; polygons, also flat, as points, or as the values of a dict;
            None or nothing.
        size: (width, height) of the image that polygons lie on.
        note: told what was repaired.

    Raises:
        TypeError, ValueError: neither of these, or run lengths that do not add up.
    """
    if isinstance(stated, Mapping) and "counts" in stated:
        return geometry.rle_decode({"size": stated.get("size"), "counts": stated["counts"]})
    if isinstance(stated, Mapping):
        note("polygons in a dict: its values taken")
        stated = [ring for value in stated.values() for ring in (value if _depth(value) > 1 else [value])]
    if stated is not None and not isinstance(stated, list):
        raise TypeError(f"segmentation: expected polygons or run lengths, got {str(stated)[:40]}")
    rings = stated or []
    if rings and _depth(rings) == 1:
        note("one flat polygon: taken as a list of one")
        rings = [rings]
    return polygon_mask([ring for flat in rings if (ring := _ring(flat, note)) is not None], size)


def _depth(value: object) -> int:
    """Of nested lists, along their first items."""
    depth = 0
    while isinstance(value, list):
        depth, value = depth + 1, value[0] if value else None
    return depth


def _ring(flat: object, note: Callable[[str], None]) -> list[float] | None:
    """A polygon that can be filled, perhaps mended; None if it cannot be."""
    if not isinstance(flat, list):
        raise TypeError(f"segmentation: expected lists of x, y, got {str(flat)[:40]}")
    values: list[Any] = flat
    if _depth(flat) == 2:
        note("a polygon of points instead of numbers: flattened")
        values = [v for point in flat for v in (point if isinstance(point, list) else [None])]
    if any(v is None or (isinstance(v, float) and not np.isfinite(v)) for v in values):
        note("a polygon with null or NaN: left out")
        return None
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        raise ValueError(f"segmentation: expected numbers, got {str(values)[:40]}")
    if len(values) % 2 and len(values) > 6:
        note("a polygon of odd length: its last number left out")
        values = values[:-1]
    if len(values) < 6:
        note("a polygon of fewer than 3 points: left out")
        return None
    return values


# ---- pictures -----------------------------------------------------------------------------------------------------


def read_numbers(path: Path) -> np.ndarray:
    """(H, W) of a mask picture: palette indices and 16-bit numbers as they are, everything else as grey.

    Raises:
        RecordError: missing or broken.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return np.array(image if image.mode in ("P", "I;16", "I") else image.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RecordError(f"{path}: not a readable mask: {error}") from None


def fit(path: Path, pixels: np.ndarray, header: Header) -> np.ndarray:
    """A mask as its photo is seen: turned with it if it was drawn on the stored photo.

    Raises:
        RecordError: of another size than the photo; names the mask file.
    """
    height, width = pixels.shape[:2]
    if (width, height) == header.size:
        return pixels
    if (width, height) == header.stored:
        return header.as_seen(pixels)
    raise RecordError(f"{path}: {width}x{height}, its photo is {header.size[0]}x{header.size[1]}")


def split_rim(values: np.ndarray) -> np.ndarray:
    """The object of a trimap 0 / 128 / 255: of the rim, what lies nearer to the inside than to the outside."""
    inside: np.ndarray = values == 255
    rim: np.ndarray = values == IGNORE_BAND
    if not rim.any():
        return inside
    if not inside.any() or not (values == 0).any():
        return np.logical_or(inside, rim)
    from scipy.ndimage import distance_transform_edt

    nearer: np.ndarray = distance_transform_edt(~inside) <= distance_transform_edt(values != 0)
    return np.logical_or(inside, rim & nearer)


def label_map_objects(
    path: Path, pixels: np.ndarray, names: Mapping[int, str], rules: Rules
) -> tuple[list[Object | None], np.ndarray]:
    """A region per name in a picture of class numbers, and (H, W) bool where it says nothing: 0.

    Raises:
        RecordError: a number without a name; names the mask file.
    """
    masks: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    for value in np.unique(pixels).tolist():
        if value == 0:
            continue
        if value not in names:
            raise RecordError(f"{path}: value {value} has no name; expected 0 or one of {len(names)} known values")
        name = rules.display(names[value])
        masks[name] = masks[name] | (pixels == value) if name in masks else pixels == value
        kinds[name] = rules.kind_of(names[value])  # by the data set's own spelling
    return [make_region(mask, name, kinds[name]) for name, mask in masks.items()], pixels == 0


def read_names(path: Path, values: Any) -> dict[int, str]:
    """Class numbers and names from a list (numbered from 1) or an object of number -> name."""
    if isinstance(values, list):
        values = {str(i): name for i, name in enumerate(values, 1)}
    try:
        return {int(number): str(name) for number, name in values.items()}
    except (AttributeError, ValueError):
        raise RecordError(f"{path}: expected a list of names, or numbers with names, got {str(values)[:60]}") from None
