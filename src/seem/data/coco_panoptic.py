"""COCO panoptic (Kirillov et al., arXiv 1801.00868): a JSON file, and a PNG a photo whose colours are segment ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    segments: Path | None = None,
    rules: Rules | None = None,
    repairs: Repairs | None = None,
) -> Iterator[Record]:
    """Records of a panoptic JSON: things, stuff joined by name, crowds; pixels of no segment are ignored.

    Args:
        name: of the set; ids are "NAME/FILE".
        index: the JSON file.
        images: folder, or folders, that the photos may lie in.
        segments: folder of the PNG files; a folder beside the index, named as it is, unless given.

    Raises:
        RecordError: names the file and the image or segment that is wrong.
    """
    rules, repairs = rules or Rules(), repairs if repairs is not None else Repairs()
    file = CocoFile.read(index, repairs)
    folder = segments or index.with_suffix("")
    names = {key: rules.display(NAMES.get(file.name(key), file.name(key))) for key in file.categories}
    for photo in file.photos(PhotoFinder(images), rules, repairs):
        found = file.annotations.get(photo.key, [])
        if len(found) != 1:
            raise RecordError(f"{index}: image {photo.key}: expected one annotation, got {len(found)}")
        label = f"annotation of image {photo.key}"
        if not isinstance(found[0].get("file_name"), str):
            raise RecordError(f"{index}: {label}: expected a file_name, got {found[0].get('file_name')!r}")
        ids = read_segment_ids(folder / Path(found[0]["file_name"]).name, photo.header)
        objects = _objects(file, photo, found[0].get("segments_info"), ids, names, repairs)
        yield photo.record(name, objects, rules, annotated=list(names.values()), ignore=ids == 0)


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


def _objects(
    file: CocoFile, photo: CocoPhoto, segments: Any, ids: np.ndarray, names: Mapping[str, str], repairs: Repairs
) -> list[Object | None]:
    label = f"{file.path}: image {photo.key}"
    if not isinstance(segments, list):
        raise RecordError(f"{label}: expected a list of segments_info, got {str(segments)[:40]}")
    objects: list[Object | None] = []
    stuff: dict[str, np.ndarray] = {}
    left = set(np.unique(ids).tolist()) - {0}
    for s in segments:
        number = as_key(s.get("id")) if isinstance(s, dict) else None
        category = as_key(s.get("category_id")) if isinstance(s, dict) else None
        if number is None or category not in file.categories:
            raise RecordError(f"{label}: segment {number}: category_id {category} is not among the categories")
        if int(number) not in left:
            repairs.note("segment that its PNG does not show: left out", f"segment {number} of image {photo.key}")
            continue
        left.remove(int(number))
        mask, name = ids == int(number), names[category]
        if file.categories[category].get("isthing", 1):
            objects.append(make_object(mask, name, crowd=bool(s.get("iscrowd", 0))))
        else:
            stuff[name] = stuff[name] | mask if name in stuff else mask
    if left:
        raise RecordError(f"{label}: its PNG shows segment {min(left)}, which is not in segments_info")
    return objects + [make_object(mask, name, "stuff") for name, mask in stuff.items()]
