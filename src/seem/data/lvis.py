"""LVIS (Gupta et al., arXiv 1908.03195): COCO's photos with 1,203 names, and as better masks for COCO's own objects.

In an LVIS photo only some names are looked for. `neg_category_ids` are known to be absent, names in
`not_exhaustive_category_ids` have instances that nobody marked; about all other absent names nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from seem.data.coco import CocoFile, CocoPhoto, PhotoFinder, as_key, coco_records
from seem.data.records import Object, Record, RecordError, Repairs, Rules, box_iou

MERGE_IOU = 0.7  # of boxes, SPEC section 12


def read_lvis(
    name: str,
    index: Path,
    images: Path | Sequence[Path],
    rules: Rules | None = None,
    repairs: Repairs | None = None,
) -> Iterator[Record]:
    """Records of an LVIS JSON; `annotated` are a photo's exhaustive and its absent names.

    Args:
        name: of the set; ids are "NAME/FILE".
        index: the JSON file.
        images: folder, or folders, that COCO's photos may lie in.

    Raises:
        RecordError: names the file and the image or annotation that is wrong.
    """
    rules, repairs = rules or Rules(), repairs if repairs is not None else Repairs()
    file = CocoFile.read(index, repairs)
    for photo in file.photos(PhotoFinder(images), rules, repairs):
        objects = file.objects(photo, rules, repairs)
        yield photo.record(name, objects, rules, annotated=_annotated(file, photo, objects, rules))


def _annotated(file: CocoFile, photo: CocoPhoto, objects: Sequence[Object | None], rules: Rules) -> list[str]:
    listed: dict[str, set[str]] = {}
    for part in ("neg_category_ids", "not_exhaustive_category_ids"):
        keys = [as_key(v) for v in photo.entry.get(part) or ()]
        for key in keys:
            if key not in file.categories:
                raise RecordError(f"{file.path}: image {photo.key}: {part}: {key} is not among the categories")
        listed[part] = {rules.display(file.name(str(key))) for key in keys}
    present = {str(o["name"]) for o in objects if o is not None and o["name"]}
    return sorted((present | listed["neg_category_ids"]) - listed["not_exhaustive_category_ids"])


def read_coco_with_lvis(
    name: str,
    index: Path,
    lvis: Path,
    images: Path | Sequence[Path],
    rules: Rules | None = None,
    repairs: Repairs | None = None,
) -> Iterator[Record]:
    """COCO's records with LVIS's masks where the two agree on the box (`merge_masks`).

    Raises:
        RecordError: names the file and the image or annotation that is wrong.
    """
    rules, repairs = rules or Rules(), repairs if repairs is not None else Repairs()
    finder = PhotoFinder(images)
    better = CocoFile.read(lvis, repairs)
    finer = {photo.key: photo for photo in better.photos(finder, Rules(), repairs)}
    for key, record in coco_records(name, CocoFile.read(index, repairs), finder, rules, repairs):
        objects = better.objects(finer[key], Rules(), repairs) if key in finer else []
        yield merge_masks(record, [o for o in objects if o is not None])


def merge_masks(record: Record, better: Sequence[Object]) -> Record:
    """A record whose masks are replaced by the one of `better` with the most similar box, if its IoU is above 0.7.

    Names and people's boxes stay. Crowds, regions of stuff and objects without a mask stay as they are.
    """
    drawn = [o for o in better if o["rle"]]
    objects = []
    for o in record["objects"]:
        nearest = max(drawn, key=lambda b: box_iou(b["box"], o["box"]), default=None)
        single = o["rle"] and not o["crowd"] and not o.get("semantic") and o["kind"] != "stuff"
        if single and nearest is not None and box_iou(nearest["box"], o["box"]) > MERGE_IOU:
            o = o | {"rle": nearest["rle"], "area": nearest["area"], "doubtful": False}
        objects.append(o)
    return record | {"objects": objects}
