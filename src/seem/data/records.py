"""Training records: one JSON line per photo, whatever layout it came in.

    {"id": "SET/STEM", "image": path, "width", "height", "set", "complete", "dev", "annotated"?, "ignore"?, "objects": [
        {"rle": {"size": [h, w], "counts": [...]} | null, "name": str | null, "kind": "thing" | "stuff" | "part",
         "box": [x0, y0, x1, y1], "area", "crowd", "quality", "doubtful", "semantic"?, "phrases"?}]}

`image` may be relative to the records file; sizes and masks are those of the photo as seen, after its EXIF rotation.

What is not annotated is unknown, and is background only where a record says so:

- `complete`: every instance of COCO's 80 classes is an object of the record.
- `annotated`: names of which every pixel outside `ignore` is known: where no object of that name is, it is not. A name
  may be listed that no object has. Absent: nothing is claimed beyond `complete`.
- `ignore`: run lengths of pixels that count neither way for any name (void, unlabelled). Absent: none.
- An object without `rle` is somewhere in its box: inside the box its name is unknown.
- `crowd`: a region of many objects of the name, not told apart. `semantic`: a region that may be several instances.
  Either is right as pixels of the name, but is not one object to prompt for.
- `doubtful`: the mask disagrees with its human box. `phrases`: sentences by people that mean this object only.

One file per layout turns data into records (`docs/data.md`). Whatever is wrong is either repaired, and counted in
`Repairs`, or a `RecordError` that names the file and the record.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seem import geometry
from seem.images import FORMATS

Record = dict[str, Any]
Object = dict[str, Any]
Box = tuple[float, float, float, float]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
DOUBTFUL_IOU = 0.7  # a teacher's mask whose box agrees less than this with the human box
ORIENTATION_TAG, SIDEWAYS = 0x0112, range(5, 9)  # EXIF; these orientations swap width and height
EXAMPLES = 3  # of each repair


class RecordError(ValueError):
    """A file or record that cannot be trained on; the message names both."""


@dataclass
class Repairs:
    """What was put right on the way, how often, and where first."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str, where: str) -> None:
        self.counts[what] += 1
        first = self.examples.setdefault(what, [])
        if len(first) < EXAMPLES:
            first.append(where)

    def lines(self) -> list[str]:
        """One line a kind, most frequent first.

        >>> repairs = Repairs()
        >>> repairs.note("no width or height: read from the file", "image 7")
        >>> repairs.lines()
        ['1 × no width or height: read from the file (image 7)']
        """
        return [
            f"{count} × {what} ({', '.join(self.examples[what])}{', …' if count > EXAMPLES else ''})"
            for what, count in self.counts.most_common()
        ]


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
        words = unicodedata.normalize("NFC", self.names.get(name, name)).lower().replace("_", " ")
        return " ".join(words.split())


# ---- objects ------------------------------------------------------------------------------------------------------


def make_object(
    mask: np.ndarray,
    name: str | None,
    kind: str = "thing",
    box: Box | None = None,
    *,
    crowd: bool = False,
    quality: float | None = None,
    semantic: bool = False,
) -> Object | None:
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
    made: Object = {
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


def make_region(mask: np.ndarray, name: str, kind: str) -> Object | None:
    """Everything of a class in a photo; of a thing it may be several instances."""
    return make_object(mask, name, kind, semantic=kind != "stuff")


def box_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """IoU of two half-open boxes (x0, y0, x1, y1).

    >>> box_iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    inside = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside
    return inside / union if union else 0.0


# ---- photos -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """What a photo's header says; sizes are (width, height).

    Attributes:
        size: as the photo is seen.
        stored: before its EXIF rotation.
        orientation: EXIF's, 1 for none.
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    orientation: int = 1

    def as_seen(self, pixels: np.ndarray) -> np.ndarray:
        """(h, w) of the stored size -> (H, W) as the photo is seen."""
        return turn(pixels, self.orientation)

    def box_as_seen(self, box: Box) -> Box:
        """A half-open box on the stored photo, on the photo as it is seen."""
        w, h = self.stored
        (x0, x1), (y0, y1) = sorted((box[0], box[2])), sorted((box[1], box[3]))
        if self.orientation in (2, 3, 7, 8):
            x0, x1 = w - x1, w - x0
        if self.orientation in (3, 4, 6, 7):
            y0, y1 = h - y1, h - y0
        return (y0, x0, y1, x1) if self.orientation in SIDEWAYS else (x0, y0, x1, y1)


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An (h, w) array as EXIF orientation 1 to 8 shows it."""
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    return pixels.T if orientation in SIDEWAYS else pixels


def read_header(path: Path) -> Header:
    """Raises RecordError if the photo is missing or broken."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            stored, orientation = image.size, image.getexif().get(ORIENTATION_TAG, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RecordError(f"{path}: not a readable image: {error}") from None
    size = (stored[1], stored[0]) if orientation in SIDEWAYS else stored
    return Header(size, stored, orientation if orientation in range(1, 9) else 1)


def find_photos(folder: Path) -> dict[str, Path]:
    """The image files directly in a folder, by stem, in order.

    Raises:
        RecordError: no such folder, or two photos of one stem.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder}: no such folder")
    photos: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in photos:
                raise RecordError(f"{path}: {photos[path.stem].name} has the same name; which one is meant?")
            photos[path.stem] = path
    return photos


# ---- records ------------------------------------------------------------------------------------------------------


def make_record(
    name: str,
    stem: str,
    path: Path,
    size: tuple[int, int],
    objects: Iterable[Object | None],
    *,
    complete: bool = False,
    dev: bool = False,
    annotated: Iterable[str] | None = None,
    ignore: np.ndarray | None = None,
) -> Record:
    """One photo; `size` is (width, height) as it is seen, `ignore` (H, W) bool."""
    record: Record = {
        "id": f"{name}/{stem}",
        "image": str(path),
        "width": size[0],
        "height": size[1],
        "set": name,
        "complete": complete,
        "dev": dev,
    }
    if annotated is not None:
        record["annotated"] = sorted(set(annotated))
    if ignore is not None and ignore.any():
        record["ignore"] = geometry.rle_encode(ignore, compressed=False)
    return record | {"objects": [o for o in objects if o is not None]}


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


def read_json(path: Path) -> Any:
    """Raises RecordError naming the file. A byte order mark is no error."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not readable as JSON: {error}") from None
