"""Results as FiftyOne's labels, and other people's detections as prompts.

`Segmentation.to_supervision`, `to_supervision` and `Panoptic.to_supervision` are the way to supervision; here is the
way back. So a detector's boxes, or labels that are reviewed elsewhere, become masks with `Scene.segment_all`:

    objects = from_supervision(detector(image))
    results = scene.segment_all(objects)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seem.geometry import box_of
from seem.predict.panoptic import Panoptic
from seem.predict.segmentation import Segmentation
from seem.prompts import Box, Mask, Prompt

if TYPE_CHECKING:
    import fiftyone
    import supervision


def from_supervision(detections: supervision.Detections) -> list[list[Prompt]]:
    """Each detection as the prompts of one object: its mask if there is one that is not empty, else its box.

    Raises:
        TypeError: no `supervision.Detections`.
    """
    boxes, masks = getattr(detections, "xyxy", None), getattr(detections, "mask", None)
    if boxes is None:
        raise TypeError(f"detections: expected supervision.Detections, got {type(detections).__name__}")
    objects: list[list[Prompt]] = []
    for i, box in enumerate(np.asarray(boxes).tolist()):
        mask = None if masks is None else np.asarray(masks[i], bool)
        objects.append([Mask(mask) if mask is not None and mask.any() else Box(*box)])
    return objects


def to_fiftyone(results: Sequence[Segmentation] | Panoptic) -> fiftyone.Detections:
    """Results as `fiftyone.Detections`: label, score, the box as shares of the image, and the mask inside the box.

    Args:
        results: of one image. Empty masks are left out: FiftyOne has no place for them.

    Raises:
        ImportError: the package `fiftyone` is not installed.

    Example:
        >>> sample["seem"] = to_fiftyone(scene.find("dog"))                                     # doctest: +SKIP
    """
    try:
        import fiftyone
    except ImportError as error:
        raise ImportError("to_fiftyone: expected the package fiftyone; pip install fiftyone") from error
    if isinstance(results, Panoptic):
        found = [(results.map == s.id, s.label, s.score) for s in results.segments]
    else:
        found = [(r.mask, r.label or "", r.score) for r in results]
    detections = []
    for mask, label, score in found:
        box = box_of(mask)
        if box is None:
            continue
        (x0, y0, x1, y1), (height, width) = box, mask.shape
        share = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
        inside = np.ascontiguousarray(mask[y0:y1, x0:x1])
        detections.append(fiftyone.Detection(label=label, bounding_box=share, mask=inside, confidence=score))
    return fiftyone.Detections(detections=detections)


def from_fiftyone(detections: Any, size: tuple[int, int]) -> list[list[Prompt]]:
    """Each of `fiftyone.Detections` as the prompts of one object: its mask if there is one, else its box.

    Args:
        detections: `fiftyone.Detections` of one image.
        size: (width, height) of the image; `Scene.size`.

    Raises:
        TypeError: no `fiftyone.Detections`.
        ValueError: a mask that does not fit its box.
    """
    if not hasattr(detections, "detections"):
        raise TypeError(f"detections: expected fiftyone.Detections, got {type(detections).__name__}")
    width, height = size
    objects: list[list[Prompt]] = []
    for i, found in enumerate(detections.detections):
        x, y, w, h = found.bounding_box
        box = Box(x * width, y * height, (x + w) * width, (y + h) * height)
        if found.mask is None or not np.any(found.mask):
            objects.append([box])
            continue
        left, top = round(x * width), round(y * height)
        mask, inside = np.zeros((height, width), bool), np.asarray(found.mask, bool)
        region = mask[top : top + inside.shape[0], left : left + inside.shape[1]]
        if inside.ndim != 2 or region.shape != inside.shape:
            raise ValueError(f"detections[{i}].mask: expected one inside an image of {width}x{height}, it reaches out")
        region[:] = inside
        objects.append([Mask(mask)])
    return objects
