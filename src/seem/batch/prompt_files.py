"""Prompts of each photo from a file: JSONL, CSV, or COCO's instances.

| file | what it holds |
|---|---|
| `.jsonl` | a photo a line: `{"image": NAME, "objects": [{"id", "prompts"}]}`, or `{"image": NAME, "prompts": [...]}` |
| `.csv` | columns `image` and some of `object`, `text`, `x`, `y`, `positive`, `x0`, `y0`, `x1`, `y1`; a prompt a row |
| `.json` | COCO: of each annotation its box, mask, a click in its middle, or its category's name |

A photo is meant by its path or address as listed, by the end of it, or by its bare file name.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from seem.batch.job import Objects
from seem.prompts import object_from_json, prompt_from_json

COCO_KINDS = ("box", "mask", "click", "name")
_COLUMNS = ("image", "object", "text", "x", "y", "positive", "x0", "y0", "x1", "y1")

Check = Callable[[str], Any]  # digest of a reference's image -> the scene; KeyError if there is none


def read_prompts(path: str, kind: str = "box", reference: Check | None = None) -> dict[str, Objects]:
    """What is asked of each photo, by the name that the file gives it.

    Args:
        path: ends in .jsonl, .csv or .json.
        kind: of a COCO file, one of `COCO_KINDS`.
        reference: knows the images that references name.

    Raises:
        ValueError, TypeError: names the file and the line or annotation that is wrong.
        OSError: cannot be read.
    """
    readers: dict[str, Callable[[], dict[str, Objects]]] = {
        ".jsonl": lambda: _read_jsonl(path, reference),
        ".csv": lambda: _read_csv(path),
        ".json": lambda: _read_coco(path, kind),
    }
    suffix = Path(path).suffix.lower()
    if suffix not in readers:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(readers)}")
    found = readers[suffix]()
    if not found:
        raise ValueError(f"{path}: expected prompts for at least one photo, got none")
    return found


def match_photos(photos: Sequence[str], prompts: Mapping[str, Objects]) -> tuple[dict[str, Objects], list[str]]:
    """Prompts by listed photo, and the names of the file that no photo has.

    Raises:
        ValueError: a name that means several photos.
    """
    by_end: dict[str, list[str]] = defaultdict(list)
    for photo in photos:
        parts = PurePosixPath(photo.replace("\\", "/")).parts
        for k in range(len(parts)):
            by_end["/".join(parts[k:])].append(photo)
    listed = set(photos)
    found: dict[str, Objects] = {}
    missing = []
    for name, objects in prompts.items():
        end = name.replace("\\", "/").removeprefix("./")
        meant = [name] if name in listed else by_end.get(end) or by_end.get(PurePosixPath(end).name, [])
        if len(meant) > 1:
            raise ValueError(f"{name}: expected one photo of that name, got {meant[0]} and {meant[1]}")
        if not meant:
            missing.append(name)
        elif meant[0] in found:
            raise ValueError(f"{name}: expected one name for each photo, got a second one for {meant[0]}")
        else:
            found[meant[0]] = objects
    return found, missing


# ---- JSONL and CSV ------------------------------------------------------------------------------------------------


def _read_jsonl(path: str, reference: Check | None) -> dict[str, Objects]:
    found: dict[str, Objects] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            image = entry.get("image") if isinstance(entry, dict) else None
            if (
                not isinstance(image, str)
                or not image
                or set(entry) not in ({"image", "objects"}, {"image", "prompts"})
            ):
                raise ValueError('expected {"image", "objects"} or {"image", "prompts"}')
            objects = entry["objects"] if "objects" in entry else [{"id": 1, "prompts": entry["prompts"]}]
            _add(found, image, _checked(objects, reference))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return found


def _checked(objects: Any, reference: Check | None = None) -> Objects:
    if not isinstance(objects, list) or not objects:
        raise ValueError(f"objects: expected a list of at least one object, got {str(objects)[:60]}")
    for entry in objects:
        if not object_from_json(entry, reference)[1]:
            raise ValueError(f"object {entry['id']}: expected at least one prompt, got none")
    return objects


def _add(found: dict[str, Objects], image: str, objects: Objects) -> None:
    known = found.setdefault(image, [])
    ids = {entry["id"] for entry in known}
    for entry in objects:
        if entry["id"] in ids:
            raise ValueError(f"{image}: expected every object's id once, got {entry['id']} again")
        ids.add(entry["id"])
        known.append(entry)


def _read_csv(path: str) -> dict[str, Objects]:
    found: dict[str, dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        unknown = sorted(set(rows.fieldnames or ()) - set(_COLUMNS))
        if "image" not in (rows.fieldnames or ()) or unknown:
            got = ", ".join(rows.fieldnames or ()) or "nothing"
            raise ValueError(
                f"{path}: expected a first line with image and some of {', '.join(_COLUMNS[1:])}, got {got}"
            )
        for number, row in enumerate(rows, start=2):
            try:
                values = {k: v.strip() for k, v in row.items() if k and isinstance(v, str) and v.strip()}
                prompt = _csv_prompt(values)
                prompt_from_json(prompt)
                found[values["image"]][int(values.get("object", "1"))].append(prompt)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return {
        image: [{"id": number, "prompts": prompts} for number, prompts in objects.items()]
        for image, objects in found.items()
    }


def _csv_prompt(values: Mapping[str, str]) -> dict[str, Any]:
    """The one prompt of a row."""
    kinds = [("text",), ("x", "y"), ("x0", "y0", "x1", "y1")]
    given = [columns for columns in kinds if all(c in values for c in columns)]
    spare = set(values) & {c for columns in kinds for c in columns} - {c for columns in given for c in columns}
    if "image" not in values or len(given) != 1 or spare:
        raise ValueError("expected an image, and text, or x and y, or x0, y0, x1 and y1")
    if given[0] == ("text",):
        return {"type": "text", "text": values["text"]}
    numbers = [float(values[c]) for c in given[0]]
    if len(numbers) == 4:
        return {"type": "box", "xyxy": numbers}
    positive = values.get("positive", "1").lower()
    if positive not in ("0", "1", "true", "false"):
        raise ValueError(f"positive: expected 0 or 1, got {positive}")
    return {"type": "click", "x": numbers[0], "y": numbers[1], "positive": positive in ("1", "true")}


# ---- COCO ---------------------------------------------------------------------------------------------------------


def _read_coco(path: str, kind: str) -> dict[str, Objects]:
    if kind not in COCO_KINDS:
        raise ValueError(f"--prompt-kind: expected {', '.join(COCO_KINDS)}, got {kind}")
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON: {error}") from None
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "annotations")):
        raise ValueError(f"{path}: expected COCO's images and annotations")
    try:
        images = {image["id"]: image for image in data["images"]}
        names = {category["id"]: str(category["name"]) for category in data.get("categories", ())}
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected images and categories with an id, file_name and name: {error}") from None
    found: dict[str, Objects] = {}
    for number, annotation in enumerate(data["annotations"]):
        try:
            image = images[annotation["image_id"]]
            prompt = _coco_prompt(annotation, image, names, kind)
            prompt_from_json(prompt)
            if kind == "name" and any(o["prompts"] == [prompt] for o in found.get(image["file_name"], ())):
                continue
            _add(found, image["file_name"], [{"id": int(annotation.get("id", number)), "prompts": [prompt]}])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: annotation number {number}: {_told(error)}") from None
    return found


def _coco_prompt(
    annotation: Mapping[str, Any], image: Mapping[str, Any], names: Mapping[Any, str], kind: str
) -> dict[str, Any]:
    from seem import geometry
    from seem.data.masks import segmentation_mask

    if kind == "name":
        return {"type": "text", "text": names[annotation["category_id"]]}
    if kind == "mask":
        size = (int(image["width"]), int(image["height"]))
        mask = segmentation_mask(annotation["segmentation"], size, lambda what: None)
        return {"type": "mask", "rle": geometry.rle_encode(mask)}
    x, y, width, height = annotation["bbox"]
    if kind == "click":
        return {"type": "click", "x": x + width / 2, "y": y + height / 2}
    return {"type": "box", "xyxy": [x, y, x + width, y + height]}


def _told(error: Exception) -> str:
    return f"expected the field {error}" if isinstance(error, KeyError) else str(error)


def all_phrases(objects: Iterable[Objects]) -> list[str]:
    """The phrases that are looked for in any photo, each once."""
    from seem.batch.job import phrases_of

    return list(dict.fromkeys(phrase for each in objects for phrase in phrases_of(each)))
