"""Sentences about one object of a photo: RefCOCO's layout, and a plain JSON list with boxes.

RefCOCO, RefCOCO+ and RefCOCOg (Yu et al., arXiv 1608.00272) are a pickle `refs(SPLITTER).p` of plain lists and dicts
beside COCO's `instances.json`; the same as JSON is read too.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seem.data.coco import CocoFile
from seem.data.masks import segmentation_mask
from seem.data.records import IMAGE_SUFFIXES, Repairs, read_json
from seem.data.refcoco import read_refs, sentences_of
from seem.evaluation.datasets import Dataset, DatasetError


@dataclass(frozen=True)
class Expression:
    """One sentence and what it means.

    Attributes:
        key: unique in the data set.
        image: the photo's file.
        first: whether it is the first sentence about its object.
        size: (width, height) that mask and box are given in; a photo may be stored smaller.
        mask: reads the (H, W) bool mask; None where only the box is known.
        box: half-open (x0, y0, x1, y1).
    """

    key: str
    image: Path
    sentence: str
    first: bool
    size: tuple[int, int]
    mask: Callable[[], np.ndarray] | None = field(default=None, repr=False, compare=False)
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Expressions:
    """A data set of them, sentences on one photo side by side."""

    name: str
    items: tuple[Expression, ...]
    split: str | None = None

    def by_photo(self) -> dict[Path, list[Expression]]:
        photos: dict[Path, list[Expression]] = defaultdict(list)
        for item in self.items:
            photos[item.image].append(item)
        return photos


def from_names(dataset: Dataset) -> Expressions:
    """Each class that a photo shows once, its name as the sentence."""
    items = []
    for photo in dataset.photos:
        targets = photo.targets()
        count = Counter(t.name for t in targets)
        for t in targets:
            if t.name and count[t.name] == 1 and not t.crowd and t.mask.any():
                size = (t.mask.shape[1], t.mask.shape[0])
                items.append(Expression(t.key, photo.path, t.name, True, size, partial(_given, t.mask)))
    return Expressions(dataset.name, tuple(items))


def _given(mask: np.ndarray) -> np.ndarray:
    return mask


def open_expressions(path: str | Path, images: str | Path | None = None, split: str | None = None) -> Expressions:
    """Read a data set.

    Args:
        path: a folder with `refs(SPLITTER).p` and `instances.json`; such a file; or a JSON list of {"image_id",
            "sentence", "box_xyxy", "width", "height"}, box and size in pixels of the original photo.
        images: folder of the photos, or of folders with images/; by default searched beside the data. Photos are found
            by COCO's id in their names.
        split: of RefCOCO, "val" by default.

    Raises:
        DatasetError: names the file and the record that is wrong.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder")
    if path.is_dir():
        found = sorted(path.glob("refs(*).p")) or sorted(path.glob("refs(*).json")) or sorted(path.glob("*.json"))
        if len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise DatasetError(f"{path}: expected one refs(….).p or one JSON list of boxes, got {names}; name one")
        path = found[0]
    photos = _photos_by_id(path, Path(images) if images is not None else None)
    name = path.resolve().parent.name
    if path.name.startswith("refs("):
        split = split or "val"
        items = tuple(_read_refcoco(path, photos, split))
    else:
        items = tuple(_read_boxes(path, photos))
    if not items:
        raise DatasetError(f"{path}: no sentences to evaluate" + (f" with split {split!r}" if split else ""))
    return Expressions(name, items, split)


def _photos_by_id(path: Path, images: Path | None) -> dict[int, Path]:
    """Photos named by COCO's id, with or without COCO_train2014_ before it."""
    roots = [path.parent, path.parent.parent] if images is None else [images]
    found: dict[int, Path] = {}
    for root in roots:
        for folder in (root, root / "images", *sorted(root.glob("*/images")), *sorted(root.glob("*2014"))):
            for file in sorted(folder.glob("*")) if folder.is_dir() else ():
                match = re.fullmatch(r"(?:COCO_\w+_)?(\d{12})", file.stem)
                if match and file.suffix.lower() in IMAGE_SUFFIXES:
                    found.setdefault(int(match[1]), file)
    return found


def _photo(path: Path, label: str, photos: dict[int, Path], image_id: Any) -> Path:
    if not isinstance(image_id, int) or image_id not in photos:
        raise DatasetError(f"{path}: {label}: no photo of image_id {image_id!r}; say where with --images")
    return photos[image_id]


# ---- boxes --------------------------------------------------------------------------------------------------------


def _read_boxes(path: Path, photos: dict[int, Path]) -> Iterator[Expression]:
    records = read_json(path)
    if not isinstance(records, list):
        raise DatasetError(f"{path}: expected a list of sentences with boxes")
    seen: set[tuple[Any, ...]] = set()
    for position, record in enumerate(records):
        label = f"record {position}"
        try:
            sentence, box = str(record["sentence"]), tuple(float(v) for v in record["box_xyxy"])
            size = (int(record["width"]), int(record["height"]))
            image_id = record["image_id"]
        except (TypeError, KeyError, ValueError):
            expected = "image_id, sentence, box_xyxy, width and height"
            raise DatasetError(f"{path}: {label}: expected {expected}, got {str(record)[:80]}") from None
        if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]) or not sentence.strip():
            raise DatasetError(f"{path}: {label}: expected a sentence and a box x0 < x1, y0 < y1, got {box}")
        first = (image_id, box) not in seen
        seen.add((image_id, box))
        yield Expression(
            f"{image_id}#{position}", _photo(path, label, photos, image_id), sentence, first, size, box=box
        )


# ---- RefCOCO ------------------------------------------------------------------------------------------------------


def _read_refcoco(path: Path, photos: dict[int, Path], split: str) -> Iterator[Expression]:
    refs, repairs = read_refs(path), Repairs()
    file = CocoFile.read(path.parent / "instances.json", repairs)
    annotations = {str(a["id"]): a for found in file.annotations.values() for a in found}
    if not all(isinstance(r, dict) for r in refs):
        raise DatasetError(f"{path}: expected a list of references")
    splits = sorted({str(r.get("split")) for r in refs})
    if split not in splits:
        raise DatasetError(f"{path}: no reference has split {split!r}; got {', '.join(splits)}")
    for ref in refs:
        if ref.get("split") != split:
            continue
        label = f"reference {ref.get('ref_id')}"
        image, annotation = file.images.get(str(ref.get("image_id"))), annotations.get(str(ref.get("ann_id")))
        if image is None or annotation is None:
            raise DatasetError(f"{path}: {label}: ann_id {ref.get('ann_id')} or its image is not in {file.path.name}")
        photo, size = _photo(path, label, photos, ref["image_id"]), _size(file.path, image)
        mask = _mask_reader(file.path, annotation, size)
        for position, text in enumerate(sentences_of(path, label, ref)):
            yield Expression(f"{ref['image_id']}#{ref['ref_id']}.{position}", photo, text, position == 0, size, mask)


def _size(index: Path, image: dict[str, Any]) -> tuple[int, int]:
    try:
        return int(image["width"]), int(image["height"])
    except (TypeError, KeyError, ValueError):
        raise DatasetError(f"{index}: image {image['id']}: expected a width and a height") from None


def _mask_reader(index: Path, annotation: dict[str, Any], size: tuple[int, int]) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        try:
            mask = segmentation_mask(annotation.get("segmentation"), size, lambda _: None)
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{index}: annotation {annotation['id']}: {error}") from None
        if mask.shape != (size[1], size[0]) or not mask.any():
            raise DatasetError(f"{index}: annotation {annotation['id']}: expected a mask of {size[0]}x{size[1]}")
        return mask

    return read
