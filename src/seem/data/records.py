"""Training records: one JSON line per photo, made from the layouts that data sets come in.

    {"id": "SET/STEM", "image": path, "width", "height", "set", "complete", "dev", "objects": [
        {"rle": {"size": [h, w], "counts": [...]} | null, "name": str | null, "kind": "thing" | "stuff" | "part",
         "box": [x0, y0, x1, y1], "area", "crowd", "quality", "doubtful", "semantic"?}]}

`image` may be relative to the records file. `complete` says that every instance of the 80 COCO classes is annotated.
`doubtful` marks a mask that disagrees with its human box, `semantic` a region that may hold several instances.

Two layouts cover everything: COCO's instances JSON (`read_coco`) and images/ beside masks/ (`read_masks`). Whatever is
wrong is a `RecordError` that names the file and the record.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seem import geometry

Record = dict[str, Any]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
DOUBTFUL_IOU = 0.7  # a teacher's mask whose box agrees less than this with the human box
ORIENTATION_TAG, TURNED = 0x0112, range(5, 9)  # EXIF; these orientations swap width and height
IGNORE_BAND = 128  # of a 0/255 mask: the unsure rim of the object
SUPERSAMPLING = 4


class RecordError(ValueError):
    """A file or record that cannot be trained on; the message names both."""


@dataclass(frozen=True)
class Rules:
    """What a layout does not say about its objects.

    Attributes:
        complete: every instance of COCO's 80 classes is annotated.
        semantic: masks are regions of a class, not instances; those of one class are joined.
        kind: "thing", "stuff" or "part", for a name that `kinds` lacks.
        kinds: name -> kind.
        names: names that are written better.
        human_boxes: the file's boxes were drawn by people; otherwise the box is the mask's own.
        keep: whether a COCO image record is used.
        dev: whether a photo is set aside for choices and never trained on, from its COCO image record or stem.
    """

    complete: bool = False
    semantic: bool = False
    kind: str = "thing"
    kinds: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    human_boxes: bool = False
    keep: Callable[[Mapping[str, Any]], bool] = lambda image: True
    dev: Callable[[Mapping[str, Any]], bool] = lambda image: False

    def kind_of(self, name: str) -> str:
        return self.kinds.get(name, self.kind)

    def display(self, name: str) -> str:
        return self.names.get(name, name).lower().replace("_", " ").strip()


# ---- objects ------------------------------------------------------------------------------------------------------


def make_object(
    mask: np.ndarray,
    name: str | None,
    kind: str = "thing",
    box: tuple[float, float, float, float] | None = None,
    *,
    crowd: bool = False,
    quality: float | None = None,
    semantic: bool = False,
) -> dict[str, Any] | None:
    """One object of a record; None if neither a mask nor a named box is left.

    Args:
        mask: (H, W) bool.
        box: half-open, by a person; the mask's own unless given.
        quality: a teacher's own score of the mask; then a mask that disagrees with the box is doubtful.
    """
    own = geometry.box_of(mask)
    if own is None and (box is None or name is None):
        return None
    used = box or own
    assert used is not None
    doubtful = own is None or (quality is not None and box is not None and box_iou(own, box) < DOUBTFUL_IOU)
    made: dict[str, Any] = {
        "rle": geometry.rle_encode(mask, compressed=False) if own is not None else None,
        "name": name,
        "kind": kind,
        "box": [round(float(v), 1) for v in used],
        "area": int(np.count_nonzero(mask)),
        "crowd": crowd,
        "quality": quality,
        "doubtful": doubtful,
    }
    return made | ({"semantic": True} if semantic else {})


def box_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """IoU of two half-open boxes (x0, y0, x1, y1).

    >>> box_iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    inside = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside
    return inside / union if union else 0.0


def polygon_mask(polygons: Iterable[object], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool of a COCO polygon list: pixels half covered by the union, all touched ones if there is none.

    `size` is (width, height). Raises ValueError for a polygon that is not x, y of three or more finite points.
    """
    rings = []
    for flat in polygons:
        points = np.asarray(flat, np.float64)
        if points.ndim != 1 or len(points) % 2 or len(points) < 6 or not np.isfinite(points).all():
            raise ValueError(f"segmentation: expected x, y of 3 or more points, got {str(flat)[:40]}")
        rings.append(points.reshape(-1, 2))
    mask = np.zeros((size[1], size[0]), bool)
    if not rings:
        return mask
    every = np.concatenate(rings)
    x0, y0 = np.floor(every.min(0)).clip(0, size).astype(int)
    x1, y1 = np.ceil(every.max(0)).clip(0, size).astype(int)
    if x1 <= x0 or y1 <= y0:
        return mask
    fine = np.zeros(((y1 - y0) * SUPERSAMPLING, (x1 - x0) * SUPERSAMPLING), bool)
    for ring in rings:
        fine |= geometry.rasterise_polygon((ring - (x0, y0)) * SUPERSAMPLING, (fine.shape[1], fine.shape[0]))
    cover = fine.reshape(y1 - y0, SUPERSAMPLING, x1 - x0, SUPERSAMPLING).mean((1, 3))
    mask[y0:y1, x0:x1] = cover >= 0.5 if (cover >= 0.5).any() else cover > 0
    return mask


def split_rim(values: np.ndarray) -> np.ndarray:
    """The object of a trimap 0 / 128 / 255: of the rim, what lies nearer to the inside than to the outside."""
    inside: np.ndarray = values == 255
    rim: np.ndarray = values == IGNORE_BAND
    if not rim.any():
        return inside
    if not inside.any() or not (values == 0).any():
        return np.logical_or(inside, rim)
    from scipy.ndimage import distance_transform_edt

    nearer: np.ndarray = distance_transform_edt(~inside) <= distance_transform_edt(values != 0)
    return np.logical_or(inside, rim & nearer)


# ---- COCO ---------------------------------------------------------------------------------------------------------


def read_coco(name: str, index: Path, images: Path, rules: Rules | None = None) -> Iterator[Record]:
    """Records of a COCO instances JSON: polygons, run lengths and crowds.

    Args:
        name: of the set; ids are "NAME/STEM".
        index: the JSON file.
        images: folder that its `file_name`s lie in.

    Raises:
        RecordError: names the file and the image or annotation that is wrong.
    """
    rules = rules or Rules()
    data = _read_json(index)
    parts = [data.get(k) if isinstance(data, dict) else None for k in ("images", "annotations", "categories")]
    if not all(isinstance(part, list) for part in parts):
        raise RecordError(f"{index}: expected COCO's images, annotations and categories")
    of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    categories = {_get(index, "category", c, "id"): str(_get(index, "category", c, "name")) for c in data["categories"]}
    for a in data["annotations"]:
        label = f"annotation {a.get('id') if isinstance(a, dict) else str(a)[:40]}"
        if _get(index, label, a, "category_id") not in categories:
            raise RecordError(f"{index}: {label}: category_id {a['category_id']} is not among the categories")
        of_image[_get(index, label, a, "image_id")].append(a)
    for image in data["images"]:
        label = f"image {image.get('id') if isinstance(image, dict) else str(image)[:40]}"
        path = images / str(_get(index, label, image, "file_name"))
        annotations = of_image.pop(_get(index, label, image, "id"), [])
        if rules.keep(image):
            size = photo_size(path)
            stated = (_get(index, label, image, "width"), _get(index, label, image, "height"))
            if stated != size:
                raise RecordError(f"{index}: {label}: {stated[0]}x{stated[1]} stated, {path} is {size[0]}x{size[1]}")
            objects = _coco_objects(index, annotations, categories, size, rules)
            made = make_record(name, path.stem, path, size, objects, complete=rules.complete, dev=rules.dev(image))
            yield made | ({"coco_id": image["id"]} if rules.human_boxes else {})
    if of_image:
        raise RecordError(f"{index}: annotation of image {next(iter(of_image))}: there is no such image")


def _coco_objects(
    index: Path, annotations: list[dict[str, Any]], categories: Mapping[Any, str], size: tuple[int, int], rules: Rules
) -> list[dict[str, Any] | None]:
    objects: list[dict[str, Any] | None] = []
    joined: dict[str, np.ndarray] = {}
    for a in annotations:
        name = rules.display(categories[a["category_id"]])
        try:
            mask = _coco_mask(a.get("segmentation"), size)
            box = _human_box(a["bbox"], size) if rules.human_boxes else None
        except (TypeError, ValueError, KeyError) as error:
            raise RecordError(f"{index}: annotation {a.get('id')}: {error}") from None
        if rules.semantic or rules.kind_of(name) == "stuff":
            joined[name] = joined[name] | mask if name in joined else mask
            continue
        made = make_object(
            mask, name, rules.kind_of(name), box, crowd=bool(a.get("iscrowd", 0)), quality=a.get("teacher_score")
        )
        objects.append(made)
    return objects + [_region(mask, name, rules.kind_of(name)) for name, mask in joined.items()]


def _region(mask: np.ndarray, name: str, kind: str) -> dict[str, Any] | None:
    """Everything of a class in a photo; of a thing it may be several instances."""
    return make_object(mask, name, kind, semantic=kind != "stuff")


def _coco_mask(segmentation: object, size: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, dict):
        mask = geometry.rle_decode(segmentation)
        if mask.shape != (size[1], size[0]):
            raise ValueError(f"segmentation is {mask.shape[1]}x{mask.shape[0]}, the image {size[0]}x{size[1]}")
        return mask
    if segmentation is None:
        return np.zeros((size[1], size[0]), bool)
    if not isinstance(segmentation, list):
        raise TypeError(f"segmentation: expected polygons or run lengths, got {str(segmentation)[:40]}")
    return polygon_mask(segmentation, size)


def _human_box(bbox: Any, size: tuple[int, int]) -> tuple[float, float, float, float]:
    x, y, w, h = (float(v) for v in bbox)
    return max(x, 0.0), max(y, 0.0), min(x + w, float(size[0])), min(y + h, float(size[1]))


# ---- images/ beside masks/ ----------------------------------------------------------------------------------------


def read_masks(name: str, root: Path, rules: Rules | None = None) -> Iterator[Record]:
    """Records of images/STEM.* beside masks/STEM.*, pairs only.

    Without names a mask is one object: 255 inside, 128 an unsure rim, half of which belongs to it. ``names.json`` may
    say more: ``{"values": {"1": "wall", …}}`` makes every mask a label map (0 unknown), ``{"files": {STEM: name |
    [name, synonym, …] | {"name": …}}}`` names each photo's one object.

    Raises:
        RecordError: names the mask file, or that there is no pair at all.
    """
    rules = rules or Rules()
    names = _read_json(root / "names.json") if (root / "names.json").is_file() else {}
    values, files = names.get("values", {}), names.get("files", {})
    is_map = not files and any(v not in ("0", "128", "255") for v in values)
    photos = {p.stem: p for p in (root / "images").iterdir() if p.suffix.lower() in IMAGE_SUFFIXES}
    masks = {p.stem: p for p in (root / "masks").iterdir() if p.suffix.lower() in IMAGE_SUFFIXES}
    stems = sorted(set(photos) & set(masks))
    if not stems:
        raise RecordError(f"{root}: no file of images/ and masks/ has the same name")
    for stem in stems:
        pixels, size = _read_mask(masks[stem]), photo_size(photos[stem])
        if pixels.shape != (size[1], size[0]):
            raise RecordError(f"{masks[stem]}: {pixels.shape[1]}x{pixels.shape[0]}, its photo is {size[0]}x{size[1]}")
        if is_map:
            objects = _label_map(masks[stem], pixels, values, rules)
        else:
            mask = split_rim(_trimap(masks[stem], pixels))
            objects = [make_object(mask, _file_name(files.get(stem), rules), rules.kind)]
        dev = rules.dev({"stem": stem, "stems": stems})
        yield make_record(name, stem, photos[stem], size, objects, complete=rules.complete, dev=dev)


def _read_mask(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.array(image.convert("L") if image.mode not in ("P", "I;16", "I") else image)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RecordError(f"{path}: not a readable mask: {error}") from None


def _trimap(path: Path, pixels: np.ndarray) -> np.ndarray:
    """0 / 128 / 255; other greys are JPEG's or a resize's and go to the nearer end."""
    exact = set(np.unique(pixels).tolist()) <= {0, IGNORE_BAND, 255}
    if pixels.dtype != np.uint8:
        raise RecordError(f"{path}: expected a grey mask of 8 bits, got {pixels.dtype}")
    return pixels if exact else np.where(pixels > 127, 255, 0)


def _label_map(path: Path, pixels: np.ndarray, values: Mapping[str, str], rules: Rules) -> list[dict[str, Any] | None]:
    objects = []
    for value in np.unique(pixels).tolist():
        if value == 0:
            continue
        if str(value) not in values:
            raise RecordError(f"{path}: value {value} has no name in names.json")
        kind = rules.kind_of(values[str(value)])
        objects.append(_region(pixels == value, rules.display(values[str(value)]), kind))
    return objects


def _file_name(entry: Any, rules: Rules) -> str | None:
    if isinstance(entry, dict):
        entry = entry.get("name")
    if isinstance(entry, list):
        entry = entry[0] if entry else None
    return rules.display(str(entry)) if entry else None


# ---- files --------------------------------------------------------------------------------------------------------


def make_record(
    name: str,
    stem: str,
    path: Path,
    size: tuple[int, int],
    objects: Iterable[dict[str, Any] | None],
    *,
    complete: bool = False,
    dev: bool = False,
) -> Record:
    """One photo; `size` is (width, height) as it is seen, after its EXIF rotation."""
    return {
        "id": f"{name}/{stem}",
        "image": str(path),
        "width": size[0],
        "height": size[1],
        "set": name,
        "complete": complete,
        "dev": dev,
        "objects": [o for o in objects if o is not None],
    }


def photo_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header, after the EXIF rotation. Raises RecordError if it is missing or broken."""
    try:
        with Image.open(path) as image:
            size, turned = image.size, image.getexif().get(ORIENTATION_TAG, 1) in TURNED
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RecordError(f"{path}: not a readable image: {error}") from None
    return (size[1], size[0]) if turned else size


def write_records(records: Iterable[Record], path: Path) -> int:
    """Write JSON lines, `image` relative to the file where that is possible; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(record | {"image": _relative(record["image"], path.parent)}) + "\n")
                count += 1
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _relative(image: str, folder: Path) -> str:
    try:
        return Path(os.path.relpath(image, folder)).as_posix()
    except ValueError:  # another drive
        return str(Path(image).resolve())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not readable as JSON: {error}") from None


def _get(index: Path, label: str, values: Any, key: str) -> Any:
    if not isinstance(values, dict) or key not in values:
        raise RecordError(f"{index}: {label}: no {key!r}")
    return values[key]
