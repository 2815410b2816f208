"""The whole image at once: every pixel belongs to one segment or to none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seem import geometry
from seem.geometry import ImageGeometry
from seem.predict.instances import distinct, label_probabilities, match_probabilities
from seem.predict.segmentation import png, read_only
from seem.vocabulary import OTHERS, Category

if TYPE_CHECKING:
    import os

    import supervision

    from seem.model.seem import SEEM, ImageFeatures, ObjectQueries

OVERLAP_THRESHOLD = 0.8  # of a query's own mask that must stay visible behind better ones

STUFF_SCORE = 0.4  # of a region that only its pixels' names tell of
BEHIND = 0.1  # such regions lie behind all others: of their score, what counts in the contest for a pixel
STUFF_AREA = 0.005  # share of the image below which such a region is noise


def name_regions(
    network: SEEM,
    features: ImageFeatures,
    queries: ObjectQueries,
    named: Sequence[Category],
    known: bool,
    threshold: float,
    iou: float,
) -> tuple[Tensor, list[int], list[float], Tensor | None]:
    """The regions that have a name: what `Scene.panoptic` puts together.

    Args:
        queries: regions to choose from.
        named: names; with ``known`` one of them fits every region, else the number after the last means "none".
        threshold: of the score.
        iou: of two regions from which they are the same.

    Returns:
        (Q, h/4, w/4) logits, their names' numbers and scores; and (K, h/4, w/4) logits of every name by pixel, if
        the network has them.
    """
    names = [category.name for category in named]
    probabilities = (label_probabilities if known else match_probabilities)(
        network, queries.embeddings, names, queries.looked
    )
    best = (probabilities * queries.scores[:, None]).max(-1)
    kept = distinct(queries.logits, best.values, threshold, iou)
    by_pixel = network.semantic_regions(features, network.encode_text(names).sentence)
    return queries.logits[kept], best.indices[kept].tolist(), best.values[kept].tolist(), by_pixel


def stuff_regions(regions: Tensor, is_stuff: Sequence[bool]) -> list[int]:
    """Which of (K, h/4, w/4) mask logits by pixel are stuff that is there."""
    share = (regions > 0).flatten(1).float().mean(1).tolist()
    return [i for i, stuff in enumerate(is_stuff) if stuff and share[i] >= STUFF_AREA]


@dataclass(frozen=True)
class PanopticSegment:
    """One region of a `Panoptic`.

    Attributes:
        id: its value in the map, from 1.
        label: its name.
        score: 0..1; of merged stuff the best part's.
        is_thing: False for stuff.
        area: pixels.
        category_id: COCO's panoptic id, None for a user's own name.
    """

    id: int
    label: str
    score: float
    is_thing: bool
    area: int
    category_id: int | None = None


@dataclass(frozen=True, eq=False)
class Panoptic:
    """What `Scene.panoptic` returns.

    Attributes:
        map: (H, W) int32, read-only; 0 is nothing, any other value a segment's id.
        segments: one per id, best first.
        image: "sha256:…" of the image.
    """

    map: np.ndarray = field(repr=False)
    segments: tuple[PanopticSegment, ...]
    image: str = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self.map.shape[1], self.map.shape[0]

    def mask(self, segment_id: int) -> np.ndarray:
        """(H, W) bool of one segment. Raises KeyError for an id that is not in `segments`."""
        if segment_id not in {segment.id for segment in self.segments}:
            raise KeyError(f"segment_id: expected 1 to {len(self.segments)}, got {segment_id!r}")
        result: np.ndarray = self.map == segment_id
        return result

    def to_png(self, path: str | os.PathLike[str] | None = None) -> bytes:
        """COCO's panoptic PNG: id = R + 256 G + 65536 B; also written to `path` if one is given."""
        channels = np.stack([self.map >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)
        return png(Image.fromarray(channels), path)

    def to_supervision(self) -> supervision.Detections:
        """`supervision.Detections` with a mask per segment; needs the package `supervision`."""
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision: expected the package supervision; pip install supervision") from error
        if not self.segments:
            return supervision.Detections.empty()
        masks = np.stack([self.map == segment.id for segment in self.segments])
        return supervision.Detections(
            xyxy=np.array([geometry.box_of(mask) for mask in masks], np.float32),
            mask=masks,
            confidence=np.array([segment.score for segment in self.segments], np.float32),
            data={"class_name": np.array([segment.label for segment in self.segments])},
        )

    def to_json(self) -> dict[str, Any]:
        """{"image": {"width", "height"}, "segments": [{"id", "label", "score", "is_thing", "area", "category_id",
        "box", "mask_rle"}]}"""
        segments = []
        for segment in self.segments:
            mask = self.map == segment.id
            box = geometry.box_of(mask)
            segments.append(
                {
                    "id": segment.id,
                    "label": segment.label,
                    "score": segment.score,
                    "is_thing": segment.is_thing,
                    "area": segment.area,
                    "category_id": segment.category_id,
                    "box": None if box is None else list(box),
                    "mask_rle": geometry.rle_encode(mask),
                }
            )
        return {"image": {"width": self.size[0], "height": self.size[1]}, "segments": segments}


def assemble(
    logits: Tensor,
    classes: Sequence[int],
    scores: Sequence[float],
    categories: Sequence[Category | None],
    sizes: ImageGeometry,
    overlap: float = OVERLAP_THRESHOLD,
    fill: bool = False,
    remainders: int = 0,
) -> tuple[np.ndarray, tuple[PanopticSegment, ...]]:
    """One segment per pixel out of overlapping masks (SPEC section 13).

    A pixel goes to the mask with the largest score x probability there, if it is inside that mask. A mask of which
    less than `overlap` is left is dropped. Regions of one stuff name are one segment.

    Args:
        logits: (Q, h/4, w/4) mask logits.
        classes: Q indices into `categories`.
        scores: Q scores.
        categories: names; None stands for "something else": it competes for pixels and leaves them to nothing.
        sizes: the image's sizes.
        overlap: see above, 0..1.
        remainders: how many of the last masks are what lies behind the rest, and so may be covered to any extent.
        fill: give all pixels that would be nothing to one stuff segment, "others".

    Returns:
        (H, W) int32 map, read-only, and its segments, best first. Memory does not grow with Q.
    """
    width, height = sizes.original
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    best = torch.zeros(height, width)
    owner = torch.zeros(height, width, dtype=torch.int32)  # rank in `order` from 1; 0 is none
    inside = torch.zeros(height, width, dtype=torch.bool)
    full = [0]
    for rank, i in enumerate(order, start=1):
        large = sizes.upsample(logits[i].cpu())
        covered = large > 0
        full.append(int(covered.sum()))
        value = large.sigmoid_().mul_(scores[i] * (BEHIND if i >= len(scores) - remainders else 1))
        better = value > best
        best = torch.where(better, value, best)
        owner[better] = rank
        inside = torch.where(better, covered, inside)
    owner[~inside] = 0
    visible = np.bincount(owner.numpy().ravel(), minlength=len(full))
    ids = np.zeros(len(full), np.int32)  # rank -> segment id
    found: list[tuple[Category, float]] = []
    stuff: dict[str, int] = {}
    for rank, i in enumerate(order, start=1):
        category = categories[classes[i]]
        needed = 1 if i >= len(scores) - remainders else max(1.0, overlap * full[rank])
        if category is None or visible[rank] < needed:
            continue
        if not category.is_thing and category.name in stuff:
            ids[rank] = stuff[category.name]
            continue
        found.append((category, float(scores[i])))
        ids[rank] = len(found)
        if not category.is_thing:
            stuff[category.name] = len(found)
    result = ids[owner.numpy()]
    if fill and (result == 0).any():
        rest = [float(scores[i]) for i in order if categories[classes[i]] is None]
        found.append((Category(OTHERS, is_thing=False), max(rest, default=0.0)))
        result[result == 0] = len(found)
    areas = np.bincount(result.ravel(), minlength=len(found) + 1)
    segments = tuple(
        PanopticSegment(i, category.name, score, category.is_thing, int(areas[i]), category.coco_id)
        for i, (category, score) in enumerate(found, start=1)
    )
    return read_only(result), segments
