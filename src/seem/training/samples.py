"""What one training step reads: the features of one photo and its objects' masks.

`seem.data.records` says what a record is, and what is known of a photo beyond its objects.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seem.training.expressions import flip_expression
from seem.training.simulate import shrink


@dataclass
class Target:
    """One annotated object."""

    mask: np.ndarray  # (h, w) bool at the encoded size
    coverage: np.ndarray  # (h/4, w/4) float in 0..1
    name: str | None
    kind: str  # "thing", "stuff" or "part"
    single: bool  # one instance, not a crowd or a region of several
    sure: bool  # the mask can be trusted
    phrases: tuple[str, ...] = ()  # sentences by people that mean this object only

    def moved(self, mask: np.ndarray, size: tuple[int, int], flipped: bool) -> Target | None:
        """The object with another mask, resized to (h, w); None if nothing is left of it."""
        small = resize_mask(mask, size)
        phrases = tuple(flip_expression(p) for p in self.phrases) if flipped else self.phrases
        return replace(self, mask=small, coverage=shrink(small), phrases=phrases) if small.any() else None


@dataclass
class Sample:
    key: str
    spatial: dict[str, Tensor]
    semantic: dict[str, Tensor]
    size: tuple[int, int]
    targets: list[Target]
    complete: bool
    unsure: frozenset[str] = frozenset()  # names of which this photo shows more than the targets, nobody knows where
    annotated: frozenset[str] = frozenset()  # names of which every pixel outside `ignore` is known
    ignore: np.ndarray | None = None  # (h, w) bool, pixels that count neither way; None if there are none


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """Uncompressed COCO run lengths -> (h, w) bool. Raises ValueError if the counts are not h * w pixels."""
    h, w = rle["size"]
    counts = np.asarray(rle["counts"], np.int64)
    if counts.ndim != 1 or (counts < 0).any() or counts.sum() != h * w:
        raise ValueError(f"run lengths add up to {counts.sum()}, expected {h} x {w}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(w, h).T


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, so that a mask annotated on a smaller photo keeps smooth borders."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR)) > 127


def read_records(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Records of JSON Lines files; a relative ``image`` is relative to its file.

    Raises ValueError naming the file and line of a record that cannot be used.
    """
    records = []
    for file in files:
        for number, line in enumerate(file.open(), 1):
            try:
                record = json.loads(line)
                record["id"], record["objects"], record["width"], record["complete"]
                record["image"] = str(file.parent / record["image"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file}:{number}: not a training record ({error})") from None
            records.append(record)
    return records


def load_targets(record: dict[str, Any], size: tuple[int, int], limit: int, rng: np.random.Generator) -> list[Target]:
    """Up to ``limit`` objects of a record at the encoded size, those without a usable mask left out."""
    objects = [o for o in record["objects"] if o.get("rle")]
    if len(objects) > limit:
        weight = np.array([np.sqrt(o.get("area", 1)) + 1.0 for o in objects])
        picks = rng.choice(len(objects), limit, replace=False, p=weight / weight.sum())
        objects = [objects[i] for i in sorted(picks)]
    targets = []
    for o in objects:
        try:
            mask = resize_mask(decode_rle(o["rle"]), size)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"record {record['id']}, object {o.get('name')!r}: {error}") from None
        if not mask.any():
            continue
        single = not o.get("crowd") and not o.get("semantic")
        targets.append(
            Target(
                mask,
                shrink(mask),
                o.get("name"),
                o.get("kind", "thing"),
                single,
                not o.get("doubtful"),
                tuple(o.get("phrases", ())),
            )
        )
    return targets


def load_ignore(record: dict[str, Any], size: tuple[int, int]) -> np.ndarray | None:
    """(h, w) bool of what counts neither way, at the encoded size; None if everything counts."""
    if not record.get("ignore"):
        return None
    try:
        return resize_mask(decode_rle(record["ignore"]), size)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"record {record['id']}, ignore: {error}") from None


def unsure_names(record: dict[str, Any], targets: list[Target]) -> frozenset[str]:
    """Names whose pixels are not all known: an object was left out, or its mask is of the kind that is often ragged."""
    loaded = Counter(t.name for t in targets)
    stated = Counter(o.get("name") for o in record["objects"])
    ragged = {t.name for t in targets if not t.sure and t.name in ("dining table", "bed", "couch")}
    return frozenset(n for n in stated if n is not None and (loaded[n] < stated[n] or n in ragged))


def pad_to(array: Tensor, size: tuple[int, int]) -> Tensor:
    """Zero-pad the last two axes right and bottom."""
    return torch.nn.functional.pad(array, (0, size[1] - array.shape[-1], 0, size[0] - array.shape[-2]))
