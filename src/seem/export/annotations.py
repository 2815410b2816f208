"""Masks of photos as files that other tools read, and COCO files back.

    coco     one JSON document; run lengths, so masks are exact
    yolo     YOLO's segmentation layout: data.yaml and a text file a photo, in a zip
    labelme  a JSON file a photo, in a zip
    masks    PNGs: object numbers, and one black and white picture an object, in a zip
    cutout   an object on a transparent ground
    project  photos and a COCO file, in a zip; `from_coco` reads it back

Names come from users: they are cleaned before they become names in an archive.

    >>> square = np.zeros((4, 6), bool)
    >>> square[1:3, 2:5] = True
    >>> photo = AnnotatedImage("a.jpg", 6, 4, [AnnotatedObject.of(1, "box", square)])
    >>> to_coco([photo])["annotations"][0]["bbox"]
    [2, 1, 3, 2]
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from seem import geometry

if TYPE_CHECKING:
    from seem.predict.segmentation import Segmentation

JSON = dict[str, Any]
MAX_OBJECTS = 20_000  # of an imported file
MAX_NAME = 100  # characters of a name in an archive
TOLERANCE = 1.0  # pixels that a polygon may lie from its mask's outline
_EPOCH = (1980, 1, 1, 0, 0, 0)  # every entry's time: the same masks make the same file


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of a photo.

    Attributes:
        id: as its maker numbers it.
        name: what it is.
        rle: COCO run lengths of its mask.
        score: 0..1 if a model made it.
    """

    id: int
    name: str
    rle: JSON
    score: float | None = None

    @classmethod
    def of(cls, object_id: int, name: str, mask: np.ndarray, score: float | None = None) -> AnnotatedObject:
        """From an (H, W) bool mask."""
        return cls(object_id, name, geometry.rle_encode(mask), score)

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, made anew each time: many objects of a large photo would not fit into memory."""
        return geometry.rle_decode(self.rle)


@dataclass(frozen=True)
class AnnotatedImage:
    """A photo with its objects.

    Attributes:
        file_name: of the photo.
        width, height: in pixels.
        objects: later ones lie on top of earlier ones.
    """

    file_name: str
    width: int
    height: int
    objects: Sequence[AnnotatedObject] = field(default_factory=list)

    @classmethod
    def of(cls, file_name: str, results: Sequence[Segmentation], size: tuple[int, int]) -> AnnotatedImage:
        """From results of `Scene.segment` or `Scene.find`, numbered from 1; `size` is (width, height)."""
        objects = [AnnotatedObject.of(i, r.label or "object", r.mask, r.score) for i, r in enumerate(results, start=1)]
        return cls(file_name, *size, objects)

    def check(self) -> None:
        """Raises ValueError for a mask that is not of this size, or empty names."""
        for item in self.objects:
            if list(item.rle.get("size", ())) != [self.height, self.width]:
                size = f"[{self.height}, {self.width}]"
                raise ValueError(
                    f"{self.file_name[:60]}, object {item.id}: expected a mask of {size}, got {item.rle.get('size')}"
                )


# ---- COCO ---------------------------------------------------------------------------------------------------------


def to_coco(images: Sequence[AnnotatedImage], track_ids: bool = False) -> JSON:
    """A COCO instances document; categories are numbered from 1 in the order of first use.

    Args:
        images: photos; objects with an empty mask are left out.
        track_ids: also write each object's own id as "track_id": the same in all frames of a video.
    """
    categories = {name: i for i, name in enumerate(_names(images), start=1)}
    annotations: list[JSON] = []
    for image_id, image in enumerate(images, start=1):
        image.check()
        for item in image.objects:
            mask = item.mask
            box = geometry.box_of(mask)
            if box is None:
                continue
            annotation: JSON = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": categories[item.name],
                "segmentation": geometry.rle_encode(mask),
                "area": int(np.count_nonzero(mask)),
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "iscrowd": 0,
            }
            if item.score is not None:
                annotation["score"] = item.score
            if track_ids:
                annotation["track_id"] = item.id
            annotations.append(annotation)
    return {
        "info": {"description": "made with SEEM"},
        "licenses": [],
        "images": [
            {"id": i, "file_name": image.file_name, "width": image.width, "height": image.height}
            for i, image in enumerate(images, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": name, "supercategory": ""} for name, i in categories.items()],
    }


def from_coco(document: object, max_pixels: int = geometry.MAX_MASK_PIXELS) -> list[AnnotatedImage]:
    """The photos and objects of a COCO instances document; it may come from anywhere.

    Args:
        document: parsed JSON; segmentations are polygons or run lengths. Objects without one are left out.
        max_pixels: of a photo.

    Raises:
        ValueError: not such a document; the message says where.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"coco: expected a JSON object, got {type(document).__name__}")
    names = {_whole(c, "id", where): _text(c, "name", where) for c, where in _rows(document, "categories")}
    images: dict[int, AnnotatedImage] = {}
    found: dict[int, list[AnnotatedObject]] = {}
    for row, where in _rows(document, "images"):
        number, width, height = (_whole(row, key, where) for key in ("id", "width", "height"))
        if width < 1 or height < 1 or width * height > max_pixels:
            raise ValueError(f"{where}: expected 1 to {max_pixels} pixels, got {width}x{height}")
        if number in images:
            raise ValueError(f"{where}: expected every id once, got {number} twice")
        images[number], found[number] = AnnotatedImage(_text(row, "file_name", where), width, height), []
    rows = list(_rows(document, "annotations"))
    if len(rows) > MAX_OBJECTS:
        raise ValueError(f"coco.annotations: expected at most {MAX_OBJECTS}, got {len(rows)}")
    for row, where in rows:
        image = images.get(_whole(row, "image_id", where))
        name = names.get(_whole(row, "category_id", where))
        if image is None or name is None:
            raise ValueError(f"{where}: expected the id of an image and of a category in this file")
        rle = _segmentation(row.get("segmentation"), image, where)
        if rle is not None:
            listed = found[row["image_id"]]
            listed.append(AnnotatedObject(len(listed) + 1, name, rle))
    return [AnnotatedImage(i.file_name, i.width, i.height, found[number]) for number, i in images.items()]


def _rows(document: Mapping[str, Any], key: str) -> Iterable[tuple[Mapping[str, Any], str]]:
    rows = document.get(key)
    if not isinstance(rows, list):
        raise ValueError(f"coco.{key}: expected a list, got {str(rows)[:40]}")
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"coco.{key}[{i}]: expected a JSON object, got {str(row)[:40]}")
        yield row, f"coco.{key}[{i}]"


def _whole(row: Mapping[str, Any], key: str, where: str) -> int:
    value = row.get(key)
    if type(value) is not int:
        raise ValueError(f"{where}.{key}: expected a whole number, got {str(value)[:40]}")
    return value


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}.{key}: expected a text, got {str(value)[:40]}")
    return value


def _segmentation(value: object, image: AnnotatedImage, where: str) -> JSON | None:
    """Run lengths of an annotation, None if it has no mask."""
    size, shape = (image.width, image.height), [image.height, image.width]
    where = f"{where}.segmentation"
    if not value:
        return None
    if isinstance(value, Mapping):
        try:
            mask = geometry.rle_decode(value, image.width * image.height)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: {error}") from None
        if list(mask.shape) != shape:
            raise ValueError(f"{where}: expected size {shape}, got {list(mask.shape)}")
        return geometry.rle_encode(mask)
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected polygons or run lengths, got {str(value)[:40]}")
    mask = np.zeros(shape, bool)
    for ring in value:
        numbers = isinstance(ring, list) and all(type(v) in (int, float) and abs(v) < 1e9 for v in ring)
        if not numbers or len(ring) < 6 or len(ring) % 2:
            raise ValueError(f"{where}: expected polygons [x, y, x, y, …] of 3 points or more, got {str(ring)[:40]}")
        inside = geometry.clip_polygon(np.array(ring, np.float64).reshape(-1, 2), size)
        if len(inside):
            mask |= geometry.rasterise_polygon(inside, size)
    return geometry.rle_encode(mask)


# ---- YOLO and labelme ---------------------------------------------------------------------------------------------


def to_yolo(images: Sequence[AnnotatedImage], tolerance: float = TOLERANCE) -> bytes:
    """A zip in YOLO's segmentation layout: data.yaml, and labels/NAME.txt with a line an object.

    A line holds one polygon, so an object of several regions has them joined by slits of no width, as holes are.
    """
    names = _names(images)
    archive = _Archive()
    listed = "\n".join(f"  {i}: {json.dumps(name)}" for i, name in enumerate(names))
    archive.add("data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{listed}\n")
    for image in images:
        image.check()
        lines = []
        for item in image.objects:
            rings = geometry.mask_to_polygons(item.mask, tolerance)
            if rings:
                xy = _joined(rings) / (image.width, image.height)
                lines.append(f"{names.index(item.name)} " + " ".join(f"{v:.6f}" for v in xy.ravel()))
        archive.add(f"labels/{archive.unique(image.file_name, '.txt')}", "".join(line + "\n" for line in lines))
    return archive.close()


def _joined(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Several closed polygons as one: from the first one's start to each of the others and back."""
    start = rings[0][:1]
    parts = [rings[0]]
    for ring in rings[1:]:
        parts += [start, ring, ring[:1]]
    return np.concatenate(parts)


def to_labelme(images: Sequence[AnnotatedImage], tolerance: float = TOLERANCE) -> bytes:
    """A zip with a labelme JSON file for each photo; the regions of one object share a group."""
    archive = _Archive()
    for image in images:
        image.check()
        shapes = [
            {
                "label": item.name,
                "points": ring.tolist(),
                "group_id": item.id,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
            }
            for item in image.objects
            for ring in geometry.mask_to_polygons(item.mask, tolerance)
        ]
        name = archive.unique(image.file_name, ".json")
        document: JSON = {
            "version": "5.4.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": safe_name(image.file_name),
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        archive.add(name, json.dumps(document, indent=1))
    return archive.close()


# ---- pictures -----------------------------------------------------------------------------------------------------


def to_masks(images: Sequence[AnnotatedImage]) -> bytes:
    """A zip of two kinds of pictures for each photo.

    NAME.png holds object numbers from 1, 0 where there is none; NAME/NUMBER-OBJECT.png is 0 and 255, one an object.
    names.json tells the objects' names and ids by their numbers.
    """
    archive, listed = _Archive(), {}
    for image in images:
        image.check()
        stem = archive.unique(image.file_name, "")
        numbers = np.zeros((image.height, image.width), np.uint8 if len(image.objects) < 256 else np.uint16)
        rows = []
        for number, item in enumerate(image.objects, start=1):
            mask = item.mask
            numbers[mask] = number
            archive.add(f"{stem}/{number}-{safe_name(item.name, 'object')}.png", _png(mask.astype(np.uint8) * 255))
            rows.append({"number": number, "id": item.id, "name": item.name})
        archive.add(f"{stem}.png", _png(numbers))
        listed[stem] = {"file_name": image.file_name, "objects": rows}
    archive.add("names.json", json.dumps(listed, indent=1))
    return archive.close()


def cutout(pixels: np.ndarray, mask: np.ndarray) -> bytes:
    """An object as a PNG on a transparent ground, cut to its box.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        mask: (H, W) bool.

    Raises:
        ValueError: an empty mask, or one of another size.
    """
    if mask.shape != pixels.shape[:2]:
        raise ValueError(f"mask: expected the photo's size {pixels.shape[:2]}, got {mask.shape}")
    box = geometry.box_of(mask)
    if box is None:
        raise ValueError("mask: expected at least one pixel inside, got an empty mask")
    window = slice(box[1], box[3]), slice(box[0], box[2])
    inside = mask[window]
    rgba = np.dstack([pixels[window] * inside[:, :, None], inside.astype(np.uint8) * 255])
    return _png(rgba)


def to_cutouts(images: Sequence[AnnotatedImage], photo: Callable[[int], np.ndarray]) -> tuple[bytes, str]:
    """Every object on a transparent ground: a PNG if there is one object, else a zip.

    Args:
        images: photos.
        photo: the (H, W, 3) pixels of the photo with this place in `images`.

    Returns:
        The file, and ".png" or ".zip".
    """
    if [len(image.objects) for image in images] == [1]:
        images[0].check()
        return cutout(photo(0), images[0].objects[0].mask), ".png"
    archive = _Archive()
    for place, image in enumerate(images):
        image.check()
        pixels, stem = photo(place), archive.unique(image.file_name, "")
        for number, item in enumerate(image.objects, start=1):
            archive.add(f"{stem}/{number}-{safe_name(item.name, 'object')}.png", cutout(pixels, item.mask))
    return archive.close(), ".zip"


def to_project(images: Sequence[AnnotatedImage], photo: Callable[[int], bytes | None]) -> bytes:
    """A zip with annotations.json, a COCO document, and the photos that there are in images/.

    Args:
        images: photos.
        photo: the file of the photo with this place in `images`, or None if it is not at hand.
    """
    archive = _Archive()
    renamed = []
    for place, image in enumerate(images):
        name = archive.unique(image.file_name)
        data = photo(place)
        if data is not None:
            archive.add(f"images/{name}", data, compress=False)
        renamed.append(AnnotatedImage(name, image.width, image.height, image.objects))
    archive.add("annotations.json", json.dumps(to_coco(renamed)))
    return archive.close()


# ---- archives -----------------------------------------------------------------------------------------------------


class _Archive:
    """A zip in memory, with names that no two entries share."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._zip = zipfile.ZipFile(self._buffer, "w", zipfile.ZIP_DEFLATED)
        self._used: set[str] = set()

    def unique(self, name: str, suffix: str | None = None) -> str:
        """A cleaned name that was not given before; with another ending if one is given."""
        stem, dot, ending = safe_name(name).rpartition(".")
        if not dot:
            stem, ending = ending, ""
        ending = f".{ending}" * bool(dot) if suffix is None else suffix
        for attempt in range(1, 1 << 20):
            candidate = f"{stem}{f'-{attempt}' if attempt > 1 else ''}{ending}"
            if candidate.casefold() not in self._used:
                break
        self._used.add(candidate.casefold())
        return candidate

    def add(self, name: str, data: bytes | str, compress: bool = True) -> None:
        entry = zipfile.ZipInfo(name, _EPOCH)
        entry.compress_type = zipfile.ZIP_DEFLATED if compress and not name.endswith(".png") else zipfile.ZIP_STORED
        entry.external_attr = 0o644 << 16
        self._zip.writestr(entry, data)

    def close(self) -> bytes:
        self._zip.close()
        return self._buffer.getvalue()


_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)  # names that Windows keeps for itself


def safe_name(name: str, default: str = "image") -> str:
    """A file name that is one name on every system: no folders, no control characters, not hidden, not too long.

    >>> safe_name("../../etc/passwd"), safe_name("C:\\\\a\\\\b.jpg"), safe_name("<b>x</b>.png"), safe_name("..")
    ('passwd', 'b.jpg', 'b_.png', 'image')
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    kept = "".join(c if c.isalnum() or c in " ._-()+" else "_" for c in last).strip(" .")
    if len(kept) > MAX_NAME:
        stem, dot, ending = kept.rpartition(".")
        kept = f"{stem[: MAX_NAME - 10]}.{ending[:9]}" if dot and stem else kept[:MAX_NAME]
    if _RESERVED.match(kept):
        kept = "_" + kept
    return kept or default


def _names(images: Sequence[AnnotatedImage]) -> list[str]:
    """The objects' names, in the order of first use."""
    return list(dict.fromkeys(item.name for image in images for item in image.objects))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
