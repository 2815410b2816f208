"""Which layout a data set is in, and its records: one door to all readers. docs/data.md shows the layouts."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seem.data import ade20k
from seem.data.ade20k import read_ade20k
from seem.data.coco import photo_folders, read_coco
from seem.data.coco_panoptic import read_panoptic
from seem.data.folders import read_masks
from seem.data.lvis import read_coco_with_lvis, read_lvis
from seem.data.records import IMAGE_SUFFIXES, Record, RecordError, Repairs, Rules
from seem.data.refcoco import read_refcoco
from seem.data.voc import read_voc

LAYOUTS = ("coco", "coco-panoptic", "lvis", "coco+lvis", "refcoco", "voc", "ade20k", "folders")
INDEX = {"coco": "instances*.json", "coco-panoptic": "panoptic_*.json", "lvis": "lvis_*.json"}
TELLING = {b'"segments_info"': "coco-panoptic", b'"neg_category_ids"': "lvis", b'"ref_id"': "refcoco"}
ALL, TRAIN = "all", "train"
EXPECTED = (
    "COCO, panoptic or LVIS JSON, RefCOCO's refs, VOC's JPEGImages/ and SegmentationObject/, ADE20K's images/ and "
    "annotations/, or images/ beside masks/"
)


def read_dataset(
    path: str | Path,
    layout: str = "auto",
    split: str | None = None,
    *,
    name: str | None = None,
    images: str | Path | None = None,
    rules: Rules | None = None,
    repairs: Repairs | None = None,
) -> Iterator[Record]:
    """Records of a data set in any of `LAYOUTS`.

    Args:
        path: its folder, or its JSON file (of RefCOCO: its file of refs).
        layout: "auto" finds out (`find_layout`).
        split: "train", "val" …; "all" for everything. By default the part to train on, where there are parts.
        name: of the set; the folder's unless given.
        images: where the photos of a JSON file lie, if not beside it.
        rules: what the layout does not say.
        repairs: is told what was put right.

    Raises:
        RecordError: no such layout or part, a file or record that cannot be used, or nothing to read.
    """
    root = Path(path)
    if not root.exists():
        raise RecordError(f"{root}: no such file or folder")
    found = find_layout(root) if layout == "auto" else layout
    if found is None:
        raise RecordError(f"{root}: expected {EXPECTED}")
    if found not in LAYOUTS:
        raise RecordError(f"layout: expected auto, {', '.join(LAYOUTS)}, got {layout!r}")
    rules, repairs = rules or default_rules(found), repairs if repairs is not None else Repairs()
    records = _read(root, found, split, name or _name(root), Path(images) if images else None, rules, repairs)
    return _some(records, root, split)


def _read(
    root: Path, layout: str, split: str | None, name: str, images: Path | None, rules: Rules, repairs: Repairs
) -> Iterator[Record]:
    if layout == "folders":
        return read_masks(name, root, rules)
    if layout == "voc":
        lists = root / "ImageSets/Segmentation/train.txt"
        return read_voc(name, root, split or (TRAIN if lists.is_file() else ALL), rules, repairs)
    if layout == "ade20k":
        training = root / "annotations" / ade20k.SPLITS[TRAIN]
        return read_ade20k(name, root, split or (TRAIN if training.is_dir() else ALL), rules)
    if layout == "refcoco":
        refs = root if root.is_file() else _one(_refs(root), root, None)
        index = refs.parent / "instances.json"
        return read_refcoco(name, refs, index, images or photo_folders(index), split or TRAIN, rules, repairs)
    index, rules = _index(root, layout, split, rules)
    places = images or photo_folders(index)
    if layout == "coco":
        return read_coco(name, index, places, rules, repairs)
    if layout == "lvis":
        return read_lvis(name, index, places, rules, repairs)
    if layout == "coco+lvis":
        lvis, _ = _index(root, "lvis", split, rules)
        return read_coco_with_lvis(name, index, lvis, places, rules, repairs)
    return read_panoptic(name, index, places, None, rules, repairs)


def _some(records: Iterator[Record], root: Path, split: str | None) -> Iterator[Record]:
    empty = True
    for record in records:
        empty = False
        yield record
    if empty:
        raise RecordError(f"{root}: no photo" + (f" of split {split!r}" if split else ""))


def default_rules(layout: str) -> Rules:
    """What is known of a layout's names."""
    return ade20k.RULES if layout == "ade20k" else Rules()


# ---- finding out --------------------------------------------------------------------------------------------------


def find_layout(path: Path) -> str | None:
    """The layout of a folder or file; None if it is none.

    Of a folder with several JSON files the instances are meant; "coco-panoptic", "lvis" or "coco+lvis" must be said.
    """
    if path.is_file():
        return _layout_of_file(path)
    if not path.is_dir():
        return None
    if _refs(path):
        return "refcoco"
    if (path / "JPEGImages").is_dir() and (path / "SegmentationObject").is_dir():
        return "voc"
    for layout, pattern in INDEX.items():
        if _indexes(path, pattern, None):
            return layout
    if (path / "images").is_dir() and _has_pictures(path / "annotations"):
        return "ade20k"
    if (path / "images").is_dir() and (path / "masks").is_dir():
        return "folders"
    found = {_layout_of_file(p) for p in _indexes(path, "*.json", None)} - {None}
    return found.pop() if len(found) == 1 else None


def _layout_of_file(path: Path) -> str | None:
    if path.suffix in (".p", ".pkl", ".pickle"):
        return "refcoco"
    if path.suffix != ".json":
        return None
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file: COCO's reader says what is wrong with it
            return "coco"
        with content:
            telling = (layout for key, layout in TELLING.items() if content.find(key) >= 0)
            return next(telling, "coco" if content.find(b'"annotations"') >= 0 else None)


def _has_pictures(folder: Path) -> bool:
    return any(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.rglob("*")) if folder.is_dir() else False


def _refs(root: Path) -> list[Path]:
    return sorted([*root.glob("refs*.p"), *root.glob("refs*.json")])


def _indexes(root: Path, pattern: str, split: str | None) -> list[Path]:
    """JSON files of the first place that has any: the folder, annotations/, or a folder of the split (Roboflow's)."""
    for place in (root, root / "annotations", root / (split or TRAIN)):
        if found := sorted(place.glob(pattern)):
            return found
    return []


def _index(root: Path, layout: str, split: str | None, rules: Rules) -> tuple[Path, Rules]:
    """The JSON file of a split, and rules that keep the split's images where the file holds several."""
    if root.is_file():
        found = [root]
    else:
        pattern = INDEX["coco" if layout == "coco+lvis" else layout]
        found = _indexes(root, pattern, split) or [
            p for p in _indexes(root, "*.json", split) if _layout_of_file(p) == layout
        ]
    index = _one(found, root, split or TRAIN)
    if split in (None, ALL) or split in index.stem or split == index.parent.name:
        return index, rules
    keep = rules.keep

    def in_split(image: Mapping[str, Any]) -> bool:
        return str(image.get("split", "")).startswith(str(split)) and keep(image)

    return index, replace(rules, keep=in_split)


def _one(found: list[Path], root: Path, split: str | None) -> Path:
    named = [p for p in found if split is not None and split in p.stem] if len(found) > 1 else found
    if len(named) != 1:
        got = ", ".join(p.name for p in found) or "none"
        raise RecordError(f"{root}: expected one index" + (f" for {split!r}" if split else "") + f", got {got}")
    return named[0]


def _name(root: Path) -> str:
    folder = root.parent if root.is_file() else root
    return (folder.parent if folder.name == "annotations" else folder).resolve().name
