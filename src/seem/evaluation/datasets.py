"""Photos with masks, from the layouts that people have: plain folders, DAVIS, PASCAL VOC, SBD, COCO's instances and
panoptic JSON.

`open_dataset` finds out which. Photos come in a fixed order, masks are read when asked for, and whatever is wrong is a
`DatasetError` that names the file and the record.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seem import geometry
from seem.vocabulary import COCO_PANOPTIC

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
FOLDERS = (  # photos, masks
    ("images", "masks"),  # GrabCut, Berkeley
    ("img", "gt"),  # DAVIS and COCO_MVal as RITM ships them
    ("data_GT", "boundary_GT"),  # GrabCut as published
    ("JPEGImages/480p", "Annotations/480p"),  # DAVIS as published
    ("JPEGImages", "SegmentationObject"),  # PASCAL VOC
)
LISTS = ("", "ImageSets/Segmentation", "ImageSets/2017", "ImageSets/2016", "ImageSets/480p")  # of SPLIT.txt
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
        number: its value in a mask file of numbers, the same in every frame of a video.
    """

    key: str
    mask: np.ndarray = field(repr=False)
    name: str | None = None
    ignore: np.ndarray | None = field(default=None, repr=False)
    crowd: bool = False
    number: int = 1


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
    """Photos in order.

    Attributes:
        name: of its folder.
        names: its classes; empty where objects have none.
        stuff: those of the classes that are stuff; then every pixel is annotated, or unknown.
        split: the part that was chosen, if there are parts.
    """

    name: str
    photos: Sequence[Photo]
    names: tuple[str, ...] = ()
    stuff: frozenset[str] = frozenset()
    split: str | None = None

    def first(self, limit: int | None) -> Dataset:
        """The first `limit` photos."""
        return replace(self, photos=self.photos[:limit])

    def photo(self, key: str) -> Photo:
        """The photo of a key. Raises KeyError."""
        for photo in self.photos:
            if photo.key == key:
                return photo
        raise KeyError(key)


def open_dataset(
    path: str | Path,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    only: Collection[str] | None = None,
) -> Dataset:
    """Read the index of a data set.

    Args:
        path: a folder with photos and masks in one of the layouts of `FOLDERS`; a folder with a COCO instances or
            panoptic JSON; or such a JSON file.
        images: where a COCO file's images are, if not beside it.
        split: value of the `split` field that a COCO file's images may carry, or the name of a folder's list (PASCAL
            VOC's and DAVIS's ImageSets, SBD's val.txt; "2016/val" says which of several); "all" for every image. By
            default the one that starts with "val" where there is one.
        only: keys or ids of the photos to use, for instance a development split; then `split` is "all" by default.

    Raises:
        DatasetError: no such layout, an unreadable index, or nothing left to evaluate.
    """
    root = Path(path)
    if not root.exists():
        raise DatasetError(f"{root}: no such file or folder")
    split = split or ("all" if only is not None else None)
    index = root if root.is_file() else _coco_index(root)
    dataset = _open_folder(root, split) if index is None else _open_coco(index, images, split)
    photos = dataset.photos
    if only is not None:
        wanted = {str(key).lstrip("0") for key in only}
        photos = [p for p in photos if p.key.lstrip("0") in wanted]
    if not photos:
        raise DatasetError(f"{root}: no photos to evaluate" + (f" with split {split!r}" if split else ""))
    return replace(dataset, photos=photos)


def read_only(path: str | Path, dataset: str | Path) -> list[str]:
    """Photo keys from a JSON file: a list, or lists by the data set's folder name (benchmarks/dev_split.json)."""
    data = read_json(Path(path))
    if isinstance(data, dict):
        name = Path(dataset).resolve().name
        if name not in data:
            raise DatasetError(f"{path}: expected an entry {name!r}, got {', '.join(map(str, data))[:200]}")
        data = data[name]
    if not isinstance(data, list) or not all(isinstance(key, (str, int)) for key in data):
        raise DatasetError(f"{path}: expected a list of photo names or ids")
    return [str(key) for key in data]


# ---- folders ------------------------------------------------------------------------------------------------------


def _open_folder(root: Path, split: str | None) -> Dataset:
    name, (chosen, listed) = root.resolve().name, _listed(root, split)
    for image_dir, mask_dir in FOLDERS:
        photos_at, masks_at = root / image_dir, root / mask_dir
        if photos_at.is_dir() and masks_at.is_dir():
            return Dataset(name, _pair_files(photos_at, masks_at, only=listed), split=chosen)
    if (root / "img").is_dir() and (root / "inst").is_dir():
        return Dataset(name, _pair_files(root / "img", root / "inst", (".mat",), listed), split=chosen)
    known = ", ".join(f"{a}/ + {b}/" for a, b in FOLDERS)
    raise DatasetError(f"{root}: expected {known}, img/ + inst/ or a COCO JSON")


def _listed(root: Path, split: str | None) -> tuple[str | None, set[str] | None]:
    """The list's name and its entries, keys of photos or of sequences; (None, None) for everything."""
    if split == "all":
        return split, None
    for folder in (*LISTS, "ImageSets"):
        path = root / folder / f"{split or 'val'}.txt"
        if path.is_file():
            entries = path.read_text(encoding="utf-8").split()
            return split or "val", {re.sub(r"^/?\w+/480p/|\.\w+$", "", entry) for entry in entries}
    if split is not None:
        raise DatasetError(f"{root}: expected a list {split}.txt, in it or in its ImageSets/")
    return None, None


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
        if only is None or key in only or Path(key).parent.as_posix() in only
    ]


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and not p.name.startswith("."))


def _folder_reader(key: str, paths: Sequence[Path]) -> Callable[[], list[Target]]:
    def read() -> list[Target]:
        found = [part for path in paths for part in read_mask_file(path)]
        keys = [key] if len(found) == 1 else [f"{key}#{i}" for i in range(len(found))]
        return [Target(k, mask, ignore=ignore, number=n) for k, (n, mask, ignore) in zip(keys, found, strict=True)]

    return read


def read_mask_file(path: Path) -> list[tuple[int, np.ndarray, np.ndarray | None]]:
    """(number, mask, ignored pixels or None) of every object in a mask file.

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
        return [(1, grey > 0, None)]
    if mode == "1":
        return [(1, pixels.astype(bool), None)]
    values = set(np.unique(pixels).tolist())
    if values <= {0, IGNORE_BAND, 255}:
        ignore = pixels == IGNORE_BAND
        return [(1, pixels == 255, ignore if ignore.any() else None)]
    return _split_numbers(path, pixels)


def _split_numbers(path: Path, pixels: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray | None]]:
    numbers = [n for n in np.unique(pixels).tolist() if n not in (0, IGNORE_INDEX)]
    if len(numbers) > MAX_INSTANCES or pixels.ndim != 2:
        expected = f"0, {IGNORE_BAND} and 255, or at most {MAX_INSTANCES} instance numbers"
        raise DatasetError(f"{path}: expected {expected}, got {len(numbers)} values")
    ignore = pixels == IGNORE_INDEX
    return [(n, pixels == n, ignore if ignore.any() else None) for n in numbers]


def _read_sbd(path: Path) -> np.ndarray:
    from scipy.io import loadmat

    try:
        return np.asarray(loadmat(path)["GTinst"][0, 0]["Segmentation"])
    except Exception as error:
        raise DatasetError(f"{path}: expected SBD's GTinst.Segmentation: {error}") from None


# ---- COCO ---------------------------------------------------------------------------------------------------------


def _coco_index(root: Path) -> Path | None:
    """The one instances JSON of a folder, else its one panoptic JSON."""
    for pattern in ("instances*.json", "panoptic*.json"):
        for folder in (root, root / "annotations"):
            found = sorted(folder.glob(pattern))
            if len(found) > 1:
                names = ", ".join(p.name for p in found)
                raise DatasetError(f"{folder}: expected one {pattern}, got {names}; name one")
            if found:
                return found[0]
    return None


def read_json(path: Path) -> Any:
    """The document in a file. Raises DatasetError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not readable as JSON: {error}") from None


def _open_coco(index: Path, images: str | Path | None, split: str | None) -> Dataset:
    data = read_json(index)
    lists = [data.get(part) if isinstance(data, dict) else None for part in ("images", "annotations", "categories")]
    if not all(isinstance(part, list) for part in lists):
        raise DatasetError(f"{index}: expected COCO's images, annotations and categories")
    if any(isinstance(a, dict) and "segments_info" in a for a in data["annotations"]):
        return _open_panoptic(index, images, data)
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
    return Dataset(_coco_name(index), photos, tuple(names.values()), split=split)


def _coco_name(index: Path) -> str:
    root = index.parent.parent if index.parent.name == "annotations" else index.parent
    return root.resolve().name


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
    beside = [
        root / "images",
        root,
        root.parent / "images",
        root.parent / re.sub("^(instances|panoptic)_", "", index.stem),
    ]
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


# ---- COCO panoptic: a PNG per photo whose colours are segment ids ---------------------------------------------------


_COCO_NAMES = {(c.coco_id, c.coco_name): c.name for c in COCO_PANOPTIC}  # "sky-other-merged" -> "sky"


def _open_panoptic(index: Path, images: str | Path | None, data: dict[str, Any]) -> Dataset:
    records, categories = (
        _by_id(index, data[key], name) for key, name in (("images", "image"), ("categories", "category"))
    )
    names, stuff = {}, set()
    for key, category in categories.items():
        name = str(_get(index, f"category {key}", category, "name"))
        names[key] = _COCO_NAMES.get((category["id"], name), name)
        if not category.get("isthing", 1):
            stuff.add(names[key])
    of_image: dict[str, dict[str, Any]] = {}
    for position, annotation in enumerate(data["annotations"]):
        label = f"annotation number {position}"
        if not isinstance(annotation, dict) or not isinstance(annotation.get("segments_info"), list):
            raise DatasetError(f"{index}: {label}: expected an object with segments_info")
        image = str(_get(index, label, annotation, "image_id"))
        if image not in records:
            raise DatasetError(f"{index}: {label}: image_id {image} is not among the images")
        for segment in annotation["segments_info"]:
            named = str(_get(index, f"{label}: segment", segment, "category_id"))
            if named not in names:
                raise DatasetError(f"{index}: {label}: category_id {named} is not among the categories")
        of_image[image] = annotation
    folder, maps = _image_folder(index, images, records), index.with_suffix("")
    photos = [
        Photo(key, folder / str(records[key]["file_name"]), _panoptic_reader(index, maps, annotation, names))
        for key, annotation in of_image.items()
    ]
    return Dataset(_coco_name(index), photos, tuple(names.values()), frozenset(stuff), split="all")


def _panoptic_reader(
    index: Path, maps: Path, annotation: dict[str, Any], names: dict[str, str]
) -> Callable[[], list[Target]]:
    def read() -> list[Target]:
        path = maps / str(_get(index, f"annotation of image {annotation['image_id']}", annotation, "file_name"))
        try:
            with Image.open(path) as image:
                colours = np.array(image.convert("RGB"), np.int64)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DatasetError(f"{path}: not a readable map of segments: {error}") from None
        ids = colours @ (1, 256, 65536)
        segments = {int(_get(index, f"{path.name}: segment", s, "id")): s for s in annotation["segments_info"]}
        for missing in sorted(set(np.unique(ids).tolist()) - {0} ^ set(segments)):
            raise DatasetError(f"{path}: segment {missing} is not in both the map and {index.name}")
        return [
            Target(
                f"{annotation['image_id']}#{key}",
                ids == key,
                names[str(segment["category_id"])],
                crowd=bool(segment.get("iscrowd", 0)),
            )
            for key, segment in segments.items()
        ]

    return read


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
