"""PASCAL VOC segmentation (Everingham et al., IJCV 2010): palette pictures of classes and of instances.

JPEGImages/STEM.jpg, SegmentationClass/STEM.png (1 to 20, 0 background, 255 void), SegmentationObject/STEM.png (1, 2, …)
and ImageSets/Segmentation/{train,val,trainval}.txt.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from seem.data.masks import fit, read_numbers
from seem.data.records import (
    Header,
    Record,
    RecordError,
    Repairs,
    Rules,
    find_photos,
    make_object,
    make_record,
    read_header,
)

VOID = 255
NAMES = (  # by class number, spelt as COCO does
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv",
)  # fmt: skip


def read_voc(
    name: str, root: Path, split: str = "train", rules: Rules | None = None, repairs: Repairs | None = None
) -> Iterator[Record]:
    """Records of the photos of a list, or of all that have an instance picture; void is ignored.

    Args:
        name: of the set; ids are "NAME/STEM".
        root: the folder with JPEGImages/, for instance VOC2012.
        split: a file of ImageSets/Segmentation; "all" for every instance picture.

    Raises:
        RecordError: names the list, photo or picture that is wrong.
    """
    rules, repairs = rules or Rules(), repairs if repairs is not None else Repairs()
    photos = find_photos(root / "JPEGImages")
    stems = _stems(root, split)
    for stem in stems:
        if stem not in photos:
            raise RecordError(f"{root}: {stem}: no photo of this name in JPEGImages")
        header = read_header(photos[stem])
        instances, classes, named = read_instances(root, stem, header, repairs)
        objects = [
            make_object(instances == n, rules.display(name), rules.kind_of(rules.display(name)))
            for n, name in named.items()
        ]
        unknown = (instances == VOID) | (classes == VOID) | ((instances == 0) & (classes != 0))
        yield make_record(
            name,
            stem,
            photos[stem],
            header.size,
            objects,
            complete=rules.complete,
            dev=rules.dev({"stem": stem, "stems": stems}),
            annotated=[rules.display(n) for n in NAMES],
            ignore=unknown,
        )


def _stems(root: Path, split: str) -> list[str]:
    lists = root / "ImageSets/Segmentation"
    if split == "all":
        return sorted(find_photos(root / "SegmentationObject"))
    try:
        stems = (lists / f"{split}.txt").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        found = ", ".join(sorted(p.stem for p in lists.glob("*.txt"))) or "none"
        raise RecordError(f"{lists}: no list {split}.txt; got {found}") from None
    return list(dict.fromkeys(stems))


def read_instances(
    root: Path, stem: str, header: Header, repairs: Repairs
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """(H, W) instance numbers and (H, W) class numbers of a photo, and the instances' names.

    An instance is named as most of its pixels are in the class picture.
    """
    instances, classes = (_picture(root / f"Segmentation{part}", stem, header) for part in ("Object", "Class"))
    names = {
        int(n): _name(root / "SegmentationObject" / f"{stem}.png", classes[instances == n], int(n), repairs)
        for n in np.unique(instances).tolist()
        if n not in (0, VOID)
    }
    return instances, classes, names


def _picture(folder: Path, stem: str, header: Header) -> np.ndarray:
    path = folder / f"{stem}.png"
    return fit(path, read_numbers(path), header)


def _name(path: Path, classes: np.ndarray, number: int, repairs: Repairs) -> str:
    values, counts = np.unique(classes, return_counts=True)
    named = np.isin(values, range(1, len(NAMES) + 1))
    if not named.any():
        raise RecordError(f"{path}: instance {number} has no class in SegmentationClass")
    if named.sum() > 1:
        repairs.note("instance of two classes: the larger part taken", f"{path.stem} instance {number}")
    return NAMES[int(values[named][counts[named].argmax()]) - 1]
