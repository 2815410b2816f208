"""COCO panoptic (Kirillov et al., arXiv 1801.00868): a JSON file, and a PNG a photo whose colours are segment ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from seem.data.coco import CocoFile, CocoPhoto, PhotoFinder, as_key
from seem.data.masks import fit
from seem.data.records import Header, Object, Record, RecordError, Repairs, Rules, make_object
from seem.vocabulary import COCO_PANOPTIC

NAMES = {c.coco_name: c.name for c in COCO_PANOPTIC}  # COCO's spelling -> ours


def read_panoptic(
    name: str,
    index: Path,
    images: Path | Sequence[Path],
    segments_at: Path | None = None,
    rules: Rules | None = None,
    repairs: Repairs | None = None,
) -> Iterator[Record]:
    """Records of a panoptic JSON: things, stuff joined by name, crowds; pixels of no segment are ignored.

    Args:
        name: of the set; ids are "NAME/FILE".
        index: the JSON file.
        images: folder, or folders, that the photos may lie in.
        segments_at: folder of the PNG files; a folder beside the index, named as it is, unless given.

    Raises:
        RecordError: names the file and the image or segment that is wrong.
    """
    rules, repairs = rules or Rules(), repairs if repairs is not None else Repairs()
    file = CocoFile.read(index, repairs)
    names = {key: rules.display(name) for key, name in panoptic_names(file).items()}
    for photo in file.photos(PhotoFinder(images), rules, repairs):
        ids, found = segments(file, photo, segments_at or index.with_suffix(""), repairs)
        objects: list[Object | None] = []
        stuff: dict[str, np.ndarray] = {}
        for segment in found:
            mask, called = ids == segment.number, names[segment.category]
            if segment.is_thing:
                objects.append(make_object(mask, called, crowd=segment.crowd))
            else:
                stuff[called] = stuff[called] | mask if called in stuff else mask
        objects += [make_object(mask, called, "stuff") for called, mask in stuff.items()]
        yield photo.record(name, objects, rules, annotated=list(names.values()), ignore=ids == 0)


def panoptic_names(file: CocoFile) -> dict[str, str]:
    """Category id -> name, as the model's vocabulary spells it."""
    return {key: NAMES.get(file.name(key), file.name(key)) for key in file.categories}


class Segment(NamedTuple):
    """One entry of segments_info that its PNG shows."""

    number: int
    category: str  # id, as text
    is_thing: bool
    crowd: bool


def segments(file: CocoFile, photo: CocoPhoto, folder: Path, repairs: Repairs) -> tuple[np.ndarray, list[Segment]]:
    """(H, W) segment numbers of a photo, 0 where there is none, and what they are.

    Raises:
        RecordError: not one annotation of the image, or PNG and JSON disagree.
    """
    found = file.annotations.get(photo.key, [])
    if len(found) != 1:
        raise RecordError(f"{file.path}: image {photo.key}: expected one annotation, got {len(found)}")
    stated = found[0].get("file_name")
    if not isinstance(stated, str):
        label = f"annotation of image {photo.key}"
        raise RecordError(f"{file.path}: {label}: expected a file_name, got {stated!r}")
    ids = read_segment_ids(folder / Path(stated).name, photo.header)
    return ids, _listed(file, photo, found[0].get("segments_info"), ids, repairs)


def read_segment_ids(path: Path, header: Header) -> np.ndarray:
    """(H, W) int64, R + 256 G + 65536 B as the photo is seen; 0 is no segment.

    Raises:
        RecordError: missing, not in colour, or of another size than the photo.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in ("RGB", "RGBA"):
                raise ValueError(f"expected a colour PNG of segment ids, got mode {image.mode}")
            colours = np.array(image.convert("RGB")).astype(np.int64)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RecordError(f"{path}: not a readable panoptic PNG: {error}") from None
    return fit(path, colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2], header)


def _listed(file: CocoFile, photo: CocoPhoto, stated: Any, ids: np.ndarray, repairs: Repairs) -> list[Segment]:
    label = f"{file.path}: image {photo.key}"
    if not isinstance(stated, list):
        raise RecordError(f"{label}: expected a list of segments_info, got {str(stated)[:40]}")
    found = []
    left = set(np.unique(ids).tolist()) - {0}
    for s in stated:
        number = as_key(s.get("id")) if isinstance(s, dict) else None
        category = as_key(s.get("category_id")) if isinstance(s, dict) else None
        if number is None or category not in file.categories:
            raise RecordError(f"{label}: segment {number}: category_id {category} is not among the categories")
        if int(number) not in left:
            repairs.note("segment that its PNG does not show: left out", f"segment {number} of image {photo.key}")
            continue
        left.remove(int(number))
        is_thing = bool(file.categories[category].get("isthing", 1))
        found.append(Segment(int(number), category, is_thing, bool(s.get("iscrowd", 0))))
    if left:
        raise RecordError(f"{label}: its PNG shows segment {min(left)}, which is not in segments_info")
    return found
