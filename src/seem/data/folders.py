"""Plain folders: images/STEM.* beside masks/STEM.*."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seem.data.masks import IGNORE_BAND, fit, label_map_objects, read_names, read_numbers, split_rim
from seem.data.records import Record, RecordError, Rules, find_photos, make_object, make_record, read_header, read_json


def read_masks(name: str, root: Path, rules: Rules | None = None) -> Iterator[Record]:
    """Records of images/STEM.* beside masks/STEM.*, pairs only.

    Without names a mask is one object: 255 inside, 128 an unsure rim, half of which belongs to it. ``names.json`` may
    say more: ``{"values": {"1": "wall", …}}`` makes every mask a label map (0 unknown), ``{"files": {STEM: name |
    [name, synonym, …] | {"name": …}}}`` names each photo's one object.

    Raises:
        RecordError: names the mask file, or that there is no pair at all.
    """
    rules = rules or Rules()
    names = read_json(root / "names.json") if (root / "names.json").is_file() else {}
    if not isinstance(names, dict) or not all(isinstance(names.get(k, {}), dict) for k in ("values", "files")):
        raise RecordError(f"{root / 'names.json'}: expected objects 'values' or 'files', got {str(names)[:60]}")
    values, files = names.get("values", {}), names.get("files", {})
    is_map = not files and any(v not in ("0", "128", "255") for v in values)
    classes = {n: v for n, v in read_names(root / "names.json", values).items() if n} if is_map else {}
    photos, masks = find_photos(root / "images"), find_photos(root / "masks")
    stems = sorted(set(photos) & set(masks))
    if not stems:
        raise RecordError(f"{root}: no file of images/ and masks/ has the same name")
    for stem in stems:
        header = read_header(photos[stem])
        pixels = fit(masks[stem], read_numbers(masks[stem]), header)
        dev = rules.dev({"stem": stem, "stems": stems})
        if is_map:
            objects, unknown = label_map_objects(masks[stem], pixels, classes, rules)
            known = [rules.display(v) for v in classes.values()]
        else:
            mask = split_rim(_trimap(masks[stem], pixels))
            objects, unknown, known = [make_object(mask, _file_name(files.get(stem), rules), rules.kind)], None, None
        yield make_record(
            name,
            stem,
            photos[stem],
            header.size,
            objects,
            complete=rules.complete,
            dev=dev,
            annotated=known,
            ignore=unknown,
        )


def _trimap(path: Path, pixels: np.ndarray) -> np.ndarray:
    """0 / 128 / 255; 1 alone stands for 255, other greys are JPEG's or a resize's and go to the nearer end."""
    if pixels.dtype != np.uint8:
        raise RecordError(f"{path}: expected a grey mask of 8 bits, got {pixels.dtype}")
    values = set(np.unique(pixels).tolist())
    if values <= {0, 1}:
        return pixels * np.uint8(255)
    if max(values) < IGNORE_BAND:
        raise RecordError(f"{path}: expected 0 and 255, got numbers up to {max(values)}; names.json can name them")
    return pixels if values <= {0, IGNORE_BAND, 255} else np.where(pixels >= IGNORE_BAND, 255, 0).astype(np.uint8)


def _file_name(entry: Any, rules: Rules) -> str | None:
    if isinstance(entry, dict):
        entry = entry.get("name")
    if isinstance(entry, list):
        entry = entry[0] if entry else None
    return rules.display(str(entry)) if entry else None
