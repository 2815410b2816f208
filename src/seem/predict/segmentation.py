"""One object's mask, and everything that it converts to."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from seem import geometry
from seem.geometry import ImageGeometry

if TYPE_CHECKING:
    import os

    import supervision


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One object, as `Scene.segment` and `Scene.find` return it. Arrays are read-only.

    Attributes:
        logits: (h/4, w/4) float32 at stride 4 of the unpadded encoded image; > 0 is inside.
        score: how good the mask is, 0..1; `score_kind` says what it means.
        score_kind: "predicted_iou"; "mean_probability" inside the mask, for models that do not predict it; or
            "match", what `find` ranks by: predicted IoU times the probability that the text names the mask; or "given",
            for a mask that was not the model's (`Session.put`).
        label: the most likely name, or None where it was not asked for.
        label_score: that name's probability, 0..1, or None.
        image: "sha256:…" of the image that this is a mask of.
        geometry: the image's sizes.
        embedding: (D,) float32, the mask's class embedding; what `Scene.label` compares with names.
    """

    logits: np.ndarray
    score: float
    score_kind: str
    label: str | None
    label_score: float | None
    image: str
    geometry: ImageGeometry = field(repr=False)
    embedding: np.ndarray = field(repr=False)

    def __repr__(self) -> str:
        name = "" if self.label is None else f" {self.label!r} {self.label_score:.2f}"
        return f"<Segmentation{name} score={self.score:.2f} of {self.geometry.original[0]}x{self.geometry.original[1]}>"

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool at the original image's size."""
        return read_only((self.geometry.upsample(torch.tensor(self.logits)) > 0).numpy())

    @cached_property
    def box(self) -> tuple[int, int, int, int] | None:
        """Half-open (x0, y0, x1, y1) around the mask, None if it is empty."""
        return geometry.box_of(self.mask)

    @cached_property
    def area(self) -> int:
        """Number of pixels inside."""
        return int(np.count_nonzero(self.mask))

    def to_rle(self, compressed: bool = True) -> dict[str, Any]:
        """COCO run lengths: {"size": [H, W], "counts": str}, or a list of counts with ``compressed=False``."""
        return geometry.rle_encode(self.mask, compressed)

    def to_polygons(self, tolerance: float = 1.0) -> list[np.ndarray]:
        """Outlines, one closed (n, 2) float32 xy polygon per region; a hole is joined to it by a slit of no width.

        Args:
            tolerance: how far, in pixels, left-out vertices may lie from the outline; 0 is exact.

        `[p.ravel().tolist() for p in r.to_polygons()]` is what a COCO file calls "segmentation".
        """
        return geometry.mask_to_polygons(self.mask, tolerance)

    def to_png(self, path: str | os.PathLike[str] | None = None) -> bytes:
        """The mask as a grey PNG of 0 and 255, written to `path` if one is given."""
        return png(Image.fromarray(self.mask.astype(np.uint8) * 255), path)

    def to_supervision(self) -> supervision.Detections:
        """`supervision.Detections` of one; needs the package `supervision`."""
        return to_supervision([self])

    def to_json(self) -> dict[str, Any]:
        """{"mask_rle", "score", "label", "label_score", "box", "area"}; `Scene` and the command line add the image."""
        return {
            "mask_rle": self.to_rle(),
            "score": self.score,
            "label": self.label,
            "label_score": self.label_score,
            "box": None if self.box is None else list(self.box),
            "area": self.area,
        }


@dataclass(frozen=True, eq=False)
class GivenSegmentation(Segmentation):
    """A mask that was painted, imported or kept from a list: exact, where a decoded one is enlarged from its logits.

    Attributes:
        given: (H, W) bool at the original image's size.
    """

    given: np.ndarray = field(repr=False)

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool at the original image's size, as it was given."""
        return read_only(self.given)


def to_supervision(results: Sequence[Segmentation]) -> supervision.Detections:
    """Several results as one `supervision.Detections`: boxes, masks, scores, and names in ``data["class_name"]``.

    Raises:
        ImportError: the package `supervision` is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_supervision: expected the package supervision; pip install supervision") from error
    if not results:
        return supervision.Detections.empty()
    return supervision.Detections(
        xyxy=np.array([r.box or (0, 0, 0, 0) for r in results], np.float32),
        mask=np.stack([r.mask for r in results]),
        confidence=np.array([r.score for r in results], np.float32),
        data={"class_name": np.array([r.label or "" for r in results])},
    )


def segments_to_json(size: tuple[int, int], results: Sequence[Segmentation]) -> dict[str, Any]:
    """{"image": {"width", "height"}, "segments": […]}, the document of `seem segment --json`."""
    return {"image": {"width": size[0], "height": size[1]}, "segments": [r.to_json() for r in results]}


def png(image: Image.Image, path: str | os.PathLike[str] | None) -> bytes:
    """An image as PNG, also written to `path` if one is given."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    if path is not None:
        Path(path).write_bytes(buffer.getvalue())
    return buffer.getvalue()


def read_only(array: np.ndarray) -> np.ndarray:
    """The same array, not to be written to."""
    array.setflags(write=False)
    return array
