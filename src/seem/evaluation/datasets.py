"""Photos with masks, from the layouts that people have: plain folders, DAVIS, PASCAL VOC, SBD, COCO's instance JSON.

`open_dataset` finds out which. Photos come in a fixed order, masks are read when asked for, and whatever is wrong is a
`DatasetError` that names the file and the record.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seem import geometry

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
FOLDERS = (  # photos, masks
    ("images", "masks"),  # GrabCut, Berkeley
    ("img", "gt"),  # DAVIS and COCO_MVal as RITM ships them
    ("data_GT", "boundary_GT"),  # GrabCut as published
    ("JPEGImages/480p", "Annotations/480p"),  # DAVIS as published
    ("JPEGImages", "SegmentationObject"),  # PASCAL VOC
)
IGNORE_BAND = 128  # of a 0/255 mask
IGNORE_INDEX = 255  # of a mask of instance numbers
MAX_INSTANCES = 100  # distinct numbers in one mask file; more is a grey picture


class DatasetError(ValueError):
    """A file or record of a data set that cannot be used; the message names both."""


@dataclass(frozen=True, eq=False)
class Target:
    """One annotated object.

    Attributes:
        key: unique in the data set and the same on every run.
        mask: (H, W) bool.
        name: its class; None where the data set has no names.
        ignore: (H, W) bool, pixels that count neither way; None if there are none.
        crowd: a region of many objects that were not told apart.
    """

    key: str
    mask: np.ndarray = field(repr=False)
    name: str | None = None
    ignore: np.ndarray | None = field(default=None, repr=False)
    crowd: bool = False


@dataclass(frozen=True)
class Photo:
    """One image file and a function that reads its targets."""

    key: str
    path: Path
    read: Callable[[], list[Target]] = field(repr=False, compare=False)
    sequence: str = ""  # of a video

    def targets(self, size: tuple[int, int] | None = None) -> list[Target]:
        """Its objects, crowds among them.

        Args:
            size: (width, height) of the image as decoded, to check the masks against.

        Raises:
            DatasetError: unreadable, or of another size than the image.
        """
        targets = self.read()
        for target in targets:
            height, width = target.mask.shape
            if size is not None and (width, height) != tuple(size):
                raise DatasetError(f"{self.path}: object {target.key}: expected a mask of {size[0]}x{size[1]} as the "
                                   f"image, got {width}x{height}")  # fmt: skip
        return targets


@dataclass(frozen=True)
class Dataset:
    """Photos in order. `names` are the classes of the data set, empty where objects have none."""

    name: str
    photos: Sequence[Photo]
    names: tuple[str, ...] = ()
    split: str | None = None

    def first(self, limit: int | None) -> Dataset:
        """The first `limit` photos."""
        return self if limit is None else Dataset(self.name, self.photos[:limit], self.names, self.split)


def open_dataset(
    path: str | Path,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    only: Collection[str] | None = None,
) -> Dataset:
    """Read the index of a data set.

    Args:
        path: a folder with photos and masks in one of the layouts of `FOLDERS`; a folder with a COCO instances JSON; or
            such a JSON file.
        images: where a COCO file's images are, if not beside it.
        split: value of the `split` field that a COCO file's images may carry; "all" for every image. By default the
            one that starts with "val" where there is one.
        only: keys or ids of the photos to use, for instance a development split; then `split` is "all" by default.

    Raises:
        DatasetError: no such layout, an unreadable index, or nothing left to evaluate.
    """
    root = Path(path)
    if not root.exists():
        raise DatasetError(f"{root}: no such file or folder")
    index = root if root.is_file() else _coco_index(root)
    if index is not None:
        dataset = _open_coco(index, images, split or ("all" if only is not None else None))
    else:
        dataset = _open_folder(root)
    photos = dataset.photos
    if only is not None:
        wanted = {str(key).lstrip("0") for key in only}
        photos = [p for p in photos if p.key.lstrip("0") in wanted]
    if not photos:
        raise DatasetError(f"{root}: no photos to evaluate" + (f" with split {split!r}" if split else ""))
    return Dataset(dataset.name, photos, dataset.names, dataset.split)


def read_only(path: str | Path, dataset: str | Path) -> list[str]:
    """Photo keys from a JSON file: a list, or lists by the data set's folder name (benchmarks/dev_split.json)."""
    data = _read_json(Path(path))
    if isinstance(data, dict):
        name = Path(dataset).resolve().name
        if name not in data:
            raise DatasetError(f"{path}: expected an entry {name!r}, got {', '.join(map(str, data))[:200]}")
        data = data[name]
    if not isinstance(data, list) or not all(isinstance(key, (str, int)) for key in data):
        raise DatasetError(f"{path}: expected a list of photo names or ids")
    return [str(key) for key in data]


# ---- folders ------------------------------------------------------------------------------------------------------


def _open_folder(root: Path) -> Dataset:
    for image_dir, mask_dir in FOLDERS:
        photos_at, masks_at = root / image_dir, root / mask_dir
        if photos_at.is_dir() and masks_at.is_dir():
            return Dataset(root.resolve().name, _pair_files(photos_at, masks_at))
    if (root / "img").is_dir() and (root / "inst").is_dir():
        val = _listed(root / "val.txt")
        return Dataset(root.resolve().name, _pair_files(root / "img", root / "inst", (".mat",), val))
    known = ", ".join(f"{a}/ + {b}/" for a, b in FOLDERS)
    raise DatasetError(f"{root}: expected {known}, img/ + inst/ or a COCO instances JSON")


def _listed(path: Path) -> set[str] | None:
    return set(path.read_text().split()) if path.is_file() else None


def _pair_files(
    photos_at: Path, masks_at: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES, only: set[str] | None = None
) -> list[Photo]:
    """Photos that have a mask file of the same name, or several of it and #1, _2 …; folders below are sequences."""
    images = {p.relative_to(photos_at).with_suffix("").as_posix(): p for p in _files(photos_at, IMAGE_SUFFIXES)}
    masks: dict[str, list[Path]] = defaultdict(list)
    for path in _files(masks_at, suffixes):
        key = path.relative_to(masks_at).with_suffix("").as_posix()
        if key not in images:
            key = re.sub(r"[#_-]\d+$", "", key)
        if key not in images:
            raise DatasetError(f"{path}: no photo of this name in {photos_at}")
        masks[key].append(path)
    return [
        Photo(key, images[key], _folder_reader(key, masks[key]), Path(key).parent.as_posix().removeprefix("."))
        for key in sorted(masks)
        if only is None or key in only
    ]


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and not p.name.startswith("."))


def _folder_reader(key: str, paths: Sequence[Path]) -> Callable[[], list[Target]]:
    def read() -> list[Target]:
        found = [part for path in paths for part in read_mask_file(path)]
        keys = [key] if len(found) == 1 else [f"{key}#{i}" for i in range(len(found))]
        return [Target(name, mask, ignore=ignore) for name, (mask, ignore) in zip(keys, found, strict=True)]

    return read


def read_mask_file(path: Path) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """(mask, ignored pixels or None) of every object in a mask file.

    A grey picture of 0, 255 and perhaps 128 (ignore) is one object; a colour picture is one object where it is not
    black; a palette picture, other numbers, and SBD's .mat hold an object per number, 255 being ignored.
    """
    if path.suffix.lower() == ".mat":
        return _split_numbers(path, _read_sbd(path))
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.array(image)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: not a readable mask: {error}") from None
    if mode in ("RGB", "RGBA", "LA"):
        grey = pixels[..., : 3 if mode.startswith("RGB") else 1].max(-1)
        return [(grey > 0, None)]
    if mode == "1":
        return [(pixels.astype(bool), None)]
    values = set(np.unique(pixels).tolist())
    if values <= {0, IGNORE_BAND, 255}:
        ignore = pixels == IGNORE_BAND
        return [(pixels == 255, ignore if ignore.any() else None)]
    return _split_numbers(path, pixels)


def _split_numbers(path: Path, pixels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray | None]]:
    numbers = [n for n in np.unique(pixels).tolist() if n not in (0, IGNORE_INDEX)]
    if len(numbers) > MAX_INSTANCES or pixels.ndim != 2:
        expected = f"0, {IGNORE_BAND} and 255, or at most {MAX_INSTANCES} instance numbers"
        raise DatasetError(f"{path}: expected {expected}, got {len(numbers)} values")
    ignore = pixels == IGNORE_INDEX
    return [(pixels == n, ignore if ignore.any() else None) for n in numbers]


def _read_sbd(path: Path) -> np.ndarray:
    from scipy.io import loadmat

    try:
        return np.asarray(loadmat(path)["GTinst"][0, 0]["Segmentation"])
    except Exception as error:
        raise DatasetError(f"{path}: expected SBD's GTinst.Segmentation: {error}") from None


# ---- COCO ---------------------------------------------------------------------------------------------------------


def _coco_index(root: Path) -> Path | None:
    for folder in (root, root / "annotations"):
        found = sorted(folder.glob("instances*.json"))
        if len(found) > 1:
            names = ", ".join(p.name for p in found)
            raise DatasetError(f"{folder}: expected one instances*.json, got {names}; name one")
        if found:
            return found[0]
    return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not readable as JSON: {error}") from None


def _open_coco(index: Path, images: str | Path | None, split: str | None) -> Dataset:
    data = _read_json(index)
    lists = [data.get(part) if isinstance(data, dict) else None for part in ("images", "annotations", "categories")]
    if not all(isinstance(part, list) for part in lists):
        raise DatasetError(f"{index}: expected COCO's images, annotations and categories")
    records, annotations, categories = (_by_id(index, part, name) for part, name in zip(lists, _PARTS, strict=True))
    names = {key: str(_get(index, f"category {key}", c, "name")) for key, c in categories.items()}
    of_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for key, annotation in annotations.items():
        image = str(_get(index, f"annotation {key}", annotation, "image_id"))
        if image not in records:
            raise DatasetError(f"{index}: annotation {key}: image_id {image} is not among the images")
        category = str(_get(index, f"annotation {key}", annotation, "category_id"))
        if category not in names:
            raise DatasetError(f"{index}: annotation {key}: category_id {category} is not among the categories")
        of_image[image].append(annotation)
    splits = sorted({str(r["split"]) for r in records.values() if "split" in r})
    if split is None:
        split = next((s for s in splits if s.startswith("val")), "all")
    elif split != "all" and split not in splits:
        raise DatasetError(f"{index}: no image has split {split!r}; got {', '.join(splits) or 'none'}")
    folder = _image_folder(index, images, records)
    photos = [
        Photo(key, folder / Path(str(record["file_name"])), _coco_reader(index, record, of_image[key], names))
        for key, record in records.items()
        if split in ("all", str(record.get("split")))
    ]
    root = index.parent.parent if index.parent.name == "annotations" else index.parent
    return Dataset(root.resolve().name, photos, tuple(names.values()), split)


_PARTS = ("image", "annotation", "category")


def _by_id(index: Path, records: Any, part: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for position, record in enumerate(records):
        if not isinstance(record, dict) or not isinstance(record.get("id"), (int, str)):
            raise DatasetError(f"{index}: {part} number {position}: expected an object with an id")
        key = str(record["id"])
        if key in found:
            raise DatasetError(f"{index}: {part} {key}: the id is there twice")
        found[key] = record
    return found


def _get(index: Path, record: str, values: dict[str, Any], key: str) -> Any:
    if key not in values:
        raise DatasetError(f"{index}: {record}: no {key!r}")
    return values[key]


def _image_folder(index: Path, images: str | Path | None, records: dict[str, dict[str, Any]]) -> Path:
    for key, record in records.items():
        if not isinstance(record.get("file_name"), str):
            raise DatasetError(f"{index}: image {key}: no file_name")
    first = next((r["file_name"] for r in records.values()), "")
    root = index.parent
    beside = [root / "images", root, root.parent / "images", root.parent / index.stem.removeprefix("instances_")]
    folders = [Path(images)] if images is not None else beside
    for folder in folders:
        if (folder / first).is_file():
            return folder
    raise DatasetError(f"{index}: image file {first!r} is not in {', '.join(str(f) for f in folders)}")


def _coco_reader(
    index: Path, record: dict[str, Any], annotations: Iterable[dict[str, Any]], names: dict[str, str]
) -> Callable[[], list[Target]]:
    def read() -> list[Target]:
        targets = []
        for a in annotations:
            size = (_side(index, record, "width"), _side(index, record, "height"))
            try:
                mask = segmentation_mask(a.get("segmentation"), size)
            except (TypeError, ValueError) as error:
                raise DatasetError(f"{index}: annotation {a['id']}: {error}") from None
            key, name = f"{record['id']}#{a['id']}", names[str(a["category_id"])]
            targets.append(Target(key, mask, name, crowd=bool(a.get("iscrowd", 0))))
        return targets

    return read


def _side(index: Path, record: dict[str, Any], key: str) -> int:
    value = record.get(key)
    if not isinstance(value, int) or value < 1:
        raise DatasetError(f"{index}: image {record['id']}: expected a {key} of 1 or more, got {value!r}")
    return value


def segmentation_mask(segmentation: object, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool from COCO's polygons (their union) or run lengths; `size` is (width, height)."""
    if isinstance(segmentation, dict):
        return geometry.rle_decode(segmentation)
    if not isinstance(segmentation, list):
        raise TypeError(f"segmentation: expected polygons or run lengths, got {str(segmentation)[:40]}")
    mask = np.zeros((size[1], size[0]), bool)
    for flat in segmentation:
        points = np.asarray(flat, np.float64)
        if points.ndim != 1 or len(points) % 2 or len(points) < 6 or not np.isfinite(points).all():
            raise ValueError(f"segmentation: expected x, y of 3 or more points, got {str(flat)[:40]}")
        mask |= geometry.rasterise_polygon(points.reshape(-1, 2), size)
    return mask
