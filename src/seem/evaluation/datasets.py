"""Photos with masks, from the layouts that people have: plain folders, DAVIS, PASCAL VOC, SBD, COCO's instances and
panoptic JSON.

`open_dataset` finds out which. Photos come in a fixed order, masks are read when asked for, and whatever is wrong is a
`DatasetError` that names the file and the record. COCO's files and VOC's pictures are read by `seem.data`, as in
training; folders of masks here, because what is measured needs their ignored pixels, sequences and several objects.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seem import geometry
from seem.data import voc
from seem.data.coco import CocoFile, PhotoFinder, photo_folders
from seem.data.coco_panoptic import panoptic_names, segments
from seem.data.masks import IGNORE_BAND
from seem.data.records import IMAGE_SUFFIXES, RecordError, Repairs, Rules, find_photos, read_header, read_json

FOLDERS = (  # photos, masks
    ("images", "masks"),  # GrabCut, Berkeley
    ("img", "gt"),  # DAVIS and COCO_MVal as RITM ships them
    ("data_GT", "boundary_GT"),  # GrabCut as published
    ("JPEGImages/480p", "Annotations/480p"),  # DAVIS as published
    ("JPEGImages", "SegmentationObject"),  # PASCAL VOC
)
LISTS = ("", "ImageSets/Segmentation", "ImageSets/2017", "ImageSets/2016", "ImageSets/480p")  # of SPLIT.txt
IGNORE_INDEX = 255  # of a mask of instance numbers
MAX_INSTANCES = 100  # distinct numbers in one mask file; more is a grey picture


DatasetError = RecordError  # whoever reads: the message names the file and the record


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
        repairs: what had to be put right so far; masks are read, and mended, when they are asked for.
    """

    name: str
    photos: Sequence[Photo]
    names: tuple[str, ...] = ()
    stuff: frozenset[str] = frozenset()
    split: str | None = None
    repairs: Repairs = field(default_factory=Repairs, repr=False, compare=False)

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


def from_records(records: Sequence[Mapping[str, Any]], name: str) -> Dataset:
    """Training records (`seem.data.records`) as a data set: their objects with masks, regions and crowds as crowds."""
    names = sorted({o["name"] for r in records for o in r["objects"] if o.get("name")})
    photos = [Photo(str(r["id"]), Path(r["image"]), _record_reader(r)) for r in records]
    return Dataset(name, photos, tuple(names))


def _record_reader(record: Mapping[str, Any]) -> Callable[[], list[Target]]:
    def read() -> list[Target]:
        ignore = geometry.rle_decode(record["ignore"]) if record.get("ignore") else None
        return [
            Target(
                f"{record['id']}#{i}",
                geometry.rle_decode(o["rle"]),
                o.get("name"),
                ignore,
                crowd=bool(o.get("crowd") or o.get("semantic")),
            )
            for i, o in enumerate(record["objects"])
            if o.get("rle")
        ]

    return read


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
    if all((root / part).is_dir() for part in ("JPEGImages", "SegmentationObject", "SegmentationClass")):
        return _open_voc(root, listed, chosen)
    for image_dir, mask_dir in FOLDERS:
        photos_at, masks_at = root / image_dir, root / mask_dir
        if photos_at.is_dir() and masks_at.is_dir():
            return Dataset(name, _pair_files(photos_at, masks_at, only=listed), split=chosen)
    if (root / "img").is_dir() and (root / "inst").is_dir():
        return Dataset(name, _pair_files(root / "img", root / "inst", (".mat",), listed), split=chosen)
    known = ", ".join(f"{a}/ + {b}/" for a, b in FOLDERS)
    raise DatasetError(f"{root}: expected {known}, img/ + inst/ or a COCO JSON")


def _open_voc(root: Path, listed: set[str] | None, split: str | None) -> Dataset:
    """Instances with their names; void is ignored."""
    photos, repairs = find_photos(root / "JPEGImages"), Repairs()
    pictures = [stem for stem in find_photos(root / "SegmentationObject") if listed is None or stem in listed]

    def reader(stem: str) -> Reader:
        def read() -> list[Target]:
            numbers, _, names = voc.read_instances(root, stem, read_header(photos[stem]), repairs)
            ignore = numbers == voc.VOID
            found = [(n, name, numbers == n) for n, name in names.items()]
            keys = [stem] if len(found) == 1 else [f"{stem}#{i}" for i in range(len(found))]
            return [
                Target(key, mask, name, ignore if ignore.any() else None, number=n)
                for key, (n, name, mask) in zip(keys, found, strict=True)
            ]

        return read

    for stem in pictures:
        if stem not in photos:
            raise DatasetError(f"{root}: {stem}: no photo of this name in JPEGImages")
    found = [Photo(stem, photos[stem], reader(stem)) for stem in pictures]
    return Dataset(root.resolve().name, found, voc.NAMES, split=split, repairs=repairs)


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


def _open_coco(index: Path, images: str | Path | None, split: str | None) -> Dataset:
    repairs = Repairs()
    file = CocoFile.read(index, repairs)
    panoptic = any("segments_info" in a for found in file.annotations.values() for a in found)
    splits = sorted({str(entry["split"]) for entry in file.images.values() if "split" in entry})
    if split is None:
        split = next((s for s in splits if s.startswith("val")), "all")
    elif split != "all" and split not in splits:
        raise DatasetError(f"{index}: no image has split {split!r}; got {', '.join(splits) or 'none'}")
    rules = Rules(keep=lambda entry: split in ("all", str(entry.get("split"))))
    finder = PhotoFinder(Path(images) if images is not None else photo_folders(index))
    spelt = panoptic_names(file) if panoptic else {key: file.name(key) for key in file.categories}
    names = {key: rules.display(name) for key, name in spelt.items()}
    reader = _panoptic_reader if panoptic else _coco_reader
    photos = [
        Photo(key, path, reader(file, key, path, names, repairs)) for key, path in file.paths(finder, rules, repairs)
    ]
    stuff = {names[k] for k, c in file.categories.items() if not c.get("isthing", 1)} if panoptic else set()
    root = index.parent.parent if index.parent.name == "annotations" else index.parent
    used = tuple(dict.fromkeys(names.values()))
    return Dataset(root.resolve().name, photos, used, frozenset(stuff), split, repairs)


Reader = Callable[[], list[Target]]


def _coco_reader(file: CocoFile, key: str, path: Path, names: Mapping[str, str], repairs: Repairs) -> Reader:
    def read() -> list[Target]:
        shapes = list(file.shapes(file.photo(key, path, path.stem, repairs), repairs))
        count = Counter(str(s.entry["id"]) for s in shapes)
        return [
            Target(
                f"{key}#{s.entry['id']}" + (f".{i}" if count[str(s.entry["id"])] > 1 else ""),
                s.mask,
                names[s.category] if s.category is not None else None,
                crowd=s.crowd,
            )
            for i, s in enumerate(shapes)
        ]

    return read


def _panoptic_reader(file: CocoFile, key: str, path: Path, names: Mapping[str, str], repairs: Repairs) -> Reader:
    def read() -> list[Target]:
        photo = file.photo(key, path, path.stem, repairs)
        ids, found = segments(file, photo, file.path.with_suffix(""), repairs)
        return [Target(f"{key}#{s.number}", ids == s.number, names[s.category], crowd=s.crowd) for s in found]

    return read
