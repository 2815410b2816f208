"""COCO instances JSON (Lin et al., arXiv 1405.0312), as published and as tools and people write it."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from seem.data.masks import segmentation_mask
from seem.data.records import (
    IMAGE_SUFFIXES,
    Box,
    Header,
    Object,
    Record,
    RecordError,
    Repairs,
    Rules,
    make_object,
    make_record,
    make_region,
    read_header,
    read_json,
)

Entry = dict[str, Any]  # of the JSON file
YEAR_PREFIX = re.compile(r"COCO_[a-z]+\d{4}_")  # COCO 2014's photos have it, 2017's are the same without


def read_coco(
    name: str,
    index: Path,
    images: Path | Sequence[Path],
    rules: Rules | None = None,
    repairs: Repairs | None = None,
) -> Iterator[Record]:
    """Records of a COCO instances JSON: polygons, run lengths, boxes without masks, and crowds.

    Args:
        name: of the set; ids are "NAME/FILE".
        index: the JSON file.
        images: folder, or folders, that its `file_name`s may lie in.
        repairs: is told what was put right; docs/data.md lists it.

    Raises:
        RecordError: names the file and the image or annotation that is wrong.
    """
    repairs = repairs if repairs is not None else Repairs()
    file = CocoFile.read(index, repairs)
    for _, record in coco_records(name, file, PhotoFinder(images), rules or Rules(), repairs):
        yield record


def coco_records(
    name: str, file: CocoFile, finder: PhotoFinder, rules: Rules, repairs: Repairs
) -> Iterator[tuple[str, Record]]:
    """(image id, record) of every image that the rules keep."""
    for photo in file.photos(finder, rules, repairs):
        objects = file.objects(photo, rules, repairs)
        made = photo.record(name, objects, rules)
        yield photo.key, made | ({"coco_id": photo.entry["id"]} if rules.human_boxes else {})


@dataclass(frozen=True)
class CocoPhoto:
    """One image entry with its file.

    Attributes:
        key: the entry's id as text.
        stem: what the record is called, unique in the data set.
        turned: annotations lie on the stored photo, not on the photo as it is seen.
    """

    key: str
    entry: Entry
    path: Path
    stem: str
    header: Header
    turned: bool

    def record(
        self,
        name: str,
        objects: Sequence[Object | None],
        rules: Rules,
        annotated: Sequence[str] | None = None,
        ignore: np.ndarray | None = None,
    ) -> Record:
        return make_record(
            name,
            self.stem,
            self.path,
            self.header.size,
            objects,
            complete=rules.complete,
            dev=rules.dev(self.entry),
            annotated=annotated,
            ignore=ignore,
        )


class CocoShape(NamedTuple):
    """One annotation, as the photo is seen."""

    entry: Entry
    label: str  # for messages
    mask: np.ndarray  # (H, W) bool, perhaps empty
    box: Box | None
    category: str | None  # id, as text
    crowd: bool


@dataclass(frozen=True)
class CocoFile:
    """The index, checked: images by id, their annotations, names by category id. Ids are compared as text."""

    path: Path
    images: dict[str, Entry]
    annotations: dict[str, list[Entry]]
    categories: dict[str, Entry]

    @classmethod
    def read(cls, index: Path, repairs: Repairs) -> CocoFile:
        data = read_json(index)
        names = ("images", "annotations", "categories")
        if not isinstance(data, dict) or not all(isinstance(data.get(part), list) for part in names):
            raise RecordError(f"{index}: expected COCO's images, annotations and categories")
        images = _by_id(index, "image", data["images"], repairs, same="file_name")
        categories = _by_id(index, "category", data["categories"], repairs, same="name")
        _check_names(index, categories, repairs)
        return cls(index, images, _by_image(index, data["annotations"], images, categories, repairs), categories)

    def name(self, category: str) -> str:
        return str(self.categories[category]["name"])

    def photos(self, finder: PhotoFinder, rules: Rules, repairs: Repairs) -> Iterator[CocoPhoto]:
        """Every image that the rules keep, its file found and its size checked."""
        stems: set[str] = set()
        for key, path in self.paths(finder, rules, repairs):
            stem = finder.stem(path)
            stem = stem if stem not in stems else stem + path.suffix
            stems.add(stem)
            yield self.photo(key, path, stem, repairs)

    def paths(self, finder: PhotoFinder, rules: Rules, repairs: Repairs) -> Iterator[tuple[str, Path]]:
        """(id, file) of every image that the rules keep; no file is opened."""
        of_path: dict[Path, str] = {}
        for key, entry in self.images.items():
            if not rules.keep(entry):
                continue
            label = f"image {key}"
            try:
                path, found_by = finder.find(_file_name(entry))
            except ValueError as error:
                raise RecordError(f"{self.path}: {label}: {error}") from None
            if found_by:
                repairs.note(found_by, label)
            if path in of_path:
                raise RecordError(f"{self.path}: {label}: {path} is image {of_path[path]} already")
            of_path[path] = key
            yield key, path

    def photo(self, key: str, path: Path, stem: str, repairs: Repairs) -> CocoPhoto:
        """The image of an id, its size checked against the file's header."""
        entry, header = self.images[key], read_header(path)
        turned = self._frame(f"image {key}", entry, header, repairs, path)
        return CocoPhoto(key, entry, path, stem, header, turned)

    def _frame(self, label: str, entry: Entry, header: Header, repairs: Repairs, path: Path) -> bool:
        """Whether annotations lie on the photo as stored, going by the size that is stated."""
        stated = (_side(entry.get("width")), _side(entry.get("height")))
        if None in stated:
            repairs.note("no width or height: read from the file", label)
            return False
        if stated == header.size:
            return False
        if stated == header.stored:
            repairs.note("annotated before the EXIF rotation: turned", label)
            return True
        size = header.size
        raise RecordError(f"{self.path}: {label}: {stated[0]}x{stated[1]} stated, {path} is {size[0]}x{size[1]}")

    # ---- objects --------------------------------------------------------------------------------------------------

    def shapes(self, photo: CocoPhoto, repairs: Repairs) -> Iterator[CocoShape]:
        """What is annotated on a photo, once each, in the file's order."""
        seen: set[str] = set()
        for a in self.annotations.get(photo.key, ()):
            label = f"annotation {a.get('id')} of image {photo.key}"
            content = repr([a.get(k) for k in ("category_id", "segmentation", "bbox", "phrases")])
            if content in seen:
                repairs.note("the same annotation twice: one left out", label)
                continue
            seen.add(content)
            try:
                mask, box = self._shape(a, photo, label, repairs)
                yield CocoShape(a, label, mask, box, as_key(a.get("category_id")), _flag(a.get("iscrowd")))
            except (TypeError, ValueError) as error:
                raise RecordError(f"{self.path}: {label}: {error}") from None

    def objects(self, photo: CocoPhoto, rules: Rules, repairs: Repairs) -> list[Object | None]:
        """The shapes as a record has them; regions of stuff are joined."""
        objects: list[Object | None] = []
        joined: dict[str, np.ndarray] = {}
        for entry, label, mask, box, category, crowd in self.shapes(photo, repairs):
            try:
                quality = entry.get("teacher_score")
                quality = None if quality is None else float(quality)
                phrases = _phrases(entry.get("phrases"))
            except (TypeError, ValueError) as error:
                raise RecordError(f"{self.path}: {label}: {error}") from None
            name = rules.display(self.name(category)) if category is not None else None
            kind = rules.kind if name is None else rules.kind_of(name)
            if not mask.any():
                repairs.note("no mask: its box kept" if box and name else "no mask and no box: left out", label)
            elif name is not None and (rules.semantic or kind == "stuff"):
                joined[name] = joined[name] | mask if name in joined else mask
                continue
            elif not rules.human_boxes:
                box = None
            made = make_object(mask, name, kind, box, crowd=crowd, quality=quality)
            objects.append(made | {"phrases": phrases} if made is not None and phrases else made)
        return objects + [make_region(mask, name, rules.kind_of(name)) for name, mask in joined.items()]

    def _shape(self, a: Entry, photo: CocoPhoto, label: str, repairs: Repairs) -> tuple[np.ndarray, Box | None]:
        """The mask and the box, as the photo is seen."""
        header = photo.header
        frame = header.stored if photo.turned else header.size
        stated = a.get("segmentation")
        mask = segmentation_mask(stated, frame, lambda what: repairs.note(what, label))
        size = (mask.shape[1], mask.shape[0])
        if size not in (frame, header.stored):
            raise ValueError(f"segmentation is {size[0]}x{size[1]}, the image {frame[0]}x{frame[1]}")
        if stated and isinstance(stated, list) and not mask.any():
            repairs.note("polygons that cover nothing of the photo", label)
        box = _box(a.get("bbox"), frame)
        if box is None and a.get("bbox") not in (None, []):
            repairs.note("bbox that is no x, y, width, height in the photo: left out", label)
        if photo.turned:
            box = header.box_as_seen(box) if box else None
        if photo.turned or size != frame:
            mask = header.as_seen(mask)
        if size != frame:
            repairs.note("run lengths from before the EXIF rotation: turned", label)
        return mask, box


def as_key(value: object) -> str | None:
    """An id as text, so that 7, 7.0 and "7" are one; None for what is no id.

    >>> as_key(7), as_key("7"), as_key(7.0), as_key(None)
    ('7', '7', '7', None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    return str(value).strip() or None


def entry_of(index: Path, part: str, position: int, entry: object, key: str) -> str:
    """The id under `key`, as text. Raises RecordError naming the entry."""
    found = as_key(entry.get(key)) if isinstance(entry, dict) else None
    if found is None:
        own = as_key(entry.get("id")) if isinstance(entry, dict) else None
        label = f"{part} {own}" if own is not None else f"{part} number {position}"
        raise RecordError(f"{index}: {label}: expected an object with {key!r}, got {str(entry)[:60]}")
    return found


def _by_id(index: Path, part: str, entries: list[Any], repairs: Repairs, same: str) -> dict[str, Entry]:
    """Entries by id; a second one of an id must say the same."""
    found: dict[str, Entry] = {}
    for position, entry in enumerate(entries):
        key = entry_of(index, part, position, entry, "id")
        if isinstance(entry["id"], str):
            repairs.note(f"{part} id written as text", f"{part} {key}")
        if key in found:
            if found[key].get(same) != entry.get(same):
                raise RecordError(
                    f"{index}: {part} {key}: the id is there twice, with {same} {found[key].get(same)!r} and "
                    f"{entry.get(same)!r}"
                )
            repairs.note(f"{part} entry twice: one left out", f"{part} {key}")
            continue
        found[key] = entry
    return found


def _check_names(index: Path, categories: Mapping[str, Entry], repairs: Repairs) -> None:
    first: dict[str, str] = {}
    for key, entry in categories.items():
        name = entry.get("name")
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or not str(name).strip():
            raise RecordError(f"{index}: category {key}: expected a name, got {name!r}")
        if first.setdefault(str(name).strip().lower(), key) != key:
            repairs.note("two categories of one name: taken as one", f"category {key}")


def _by_image(
    index: Path,
    annotations: list[Any],
    images: Mapping[str, Entry],
    categories: Mapping[str, Entry],
    repairs: Repairs,
) -> dict[str, list[Entry]]:
    """Annotations of each image, their references checked."""
    found: dict[str, list[Entry]] = defaultdict(list)
    ids: set[str] = set()
    for position, a in enumerate(annotations):
        image = entry_of(index, "annotation", position, a, "image_id")
        own, panoptic = as_key(a.get("id")), "segments_info" in a  # a panoptic annotation has neither id nor category
        label = f"annotation {own}" if own is not None else f"annotation number {position}"
        if own is None:
            a["id"] = f"number {position}"
            if not panoptic:
                repairs.note("annotation without an id", label)
        elif own in ids:
            repairs.note("annotation id twice: both kept", label)
        ids.add(own or "")
        category = as_key(a.get("category_id"))
        if category is None and a.get("category_id") is None:
            if not panoptic:
                repairs.note("annotation without a category: an object without a name", label)
        elif category not in categories:
            known = ", ".join(list(categories)[:5]) + (", …" if len(categories) > 5 else "")
            raise RecordError(
                f"{index}: {label}: category_id {a['category_id']} is not among the categories ({known}); "
                "are they counted from another number?"
            )
        if image in images:
            found[image].append(a)
        else:
            repairs.note("annotation of an image that is not listed: left out", label)
    if annotations and not found:
        raise RecordError(f"{index}: no annotation's image_id is among the images; first: {annotations[0]['image_id']}")
    return found


def _side(value: object) -> int | None:
    try:
        side = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return side if side > 0 else None


def _flag(value: object) -> bool:
    """iscrowd: missing and null are no."""
    if value in (None, 0, "0", "", "false", "False"):
        return False
    if value in (1, "1", "true", "True"):
        return True
    raise ValueError(f"iscrowd: expected 0 or 1, got {value!r}")


def _phrases(stated: object) -> list[str]:
    """Sentences that mean this object."""
    if stated is None:
        return []
    if not isinstance(stated, list) or not all(isinstance(p, str) for p in stated):
        raise ValueError(f"phrases: expected a list of sentences, got {str(stated)[:60]}")
    return [p.strip() for p in stated if p.strip()]


def _box(stated: object, size: tuple[int, int]) -> Box | None:
    """x, y, width, height -> half-open and clipped to (width, height); None if nothing is left."""
    try:
        x, y, w, h = (float(v) for v in stated)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    if not all(math.isfinite(v) for v in (x, y, w, h)):
        return None
    box = max(x, 0.0), max(y, 0.0), min(x + w, float(size[0])), min(y + h, float(size[1]))
    return box if box[0] < box[2] and box[1] < box[3] else None


def _file_name(entry: Entry) -> str:
    """`file_name`, or where LVIS has none, the end of its coco_url: "train2017/000000000009.jpg"."""
    stated = entry.get("file_name")
    if stated is None and isinstance(entry.get("coco_url"), str):
        return "/".join(PurePosixPath(entry["coco_url"]).parts[-2:])
    if not isinstance(stated, str) or not stated.strip():
        raise ValueError(f"expected a file_name, got {stated!r}")
    return stated


# ---- photos -------------------------------------------------------------------------------------------------------


class PhotoFinder:
    """Finds what `file_name` means in folders, and nowhere else.

    In this order: the path as it stands; without its first folders, drive or host; without 2014's prefix; the one file
    below the first folder whose name is the same but for upper and lower case and the way accents are written.
    """

    def __init__(self, folders: Path | Sequence[Path]) -> None:
        self.folders = [folders] if isinstance(folders, Path) else list(folders)
        self._names: dict[str, list[Path]] | None = None

    def find(self, stated: str) -> tuple[Path, str]:
        """The file, and how it was found if `stated` does not say so itself. Raises ValueError."""
        outside = Path(stated).is_absolute() or ".." in PurePosixPath(stated).parts
        for place in [] if outside else self.folders:
            if (place / stated).is_file():
                return place / stated, ""
        windows = PureWindowsPath(stated)  # understands both slashes
        parts = [p for p in windows.parts if p not in (windows.anchor, "..")]
        for i in range(len(parts)):
            for place in self.folders:
                if (place / "/".join(parts[i:])).is_file():
                    return place / "/".join(parts[i:]), "file_name of another folder: found by its end"
        base = parts[-1] if parts else ""
        for place in self.folders:
            if YEAR_PREFIX.match(base) and (place / YEAR_PREFIX.sub("", base)).is_file():
                return place / YEAR_PREFIX.sub("", base), "file_name of COCO 2014: found without its prefix"
        found = self._all_names().get(_plain(base), [])
        if len(found) > 1:
            raise ValueError(f"{stated!r} may be {found[0]} or {found[1]}")
        if not found:
            raise ValueError(f"{stated!r} is not in {', '.join(map(str, self.folders))}")
        return found[0], "file_name spelt otherwise or in a folder below: found by its name"

    def stem(self, path: Path) -> str:
        """The path in its folder, without suffix."""
        place = next((f for f in self.folders if path.is_relative_to(f)), path.parent)
        return path.relative_to(place).with_suffix("").as_posix()

    def _all_names(self) -> dict[str, list[Path]]:
        if self._names is None:
            self._names = defaultdict(list)
            for path in sorted(self.folders[0].rglob("*")) if self.folders else []:
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    self._names[_plain(path.name)].append(path)
        return self._names


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def photo_folders(index: Path) -> list[Path]:
    """Where a JSON file's photos may lie: images/ or a folder of COCO's, beside it or one up; or beside it directly."""
    part = re.sub(r"^(instances|panoptic)_", "", index.stem)
    roots = [index.parent] + ([index.parent.parent] if index.parent.name == "annotations" else [])
    parts = dict.fromkeys((part, "train2017", "val2017", "train2014", "val2014"))
    places = [
        root / f for root in roots for f in ("images", *(f"{above}{p}" for above in ("images/", "") for p in parts))
    ]
    return [p for p in places if p.is_dir()] + roots
