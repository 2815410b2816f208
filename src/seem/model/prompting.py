"""What the network is told about an object: prompts in pixels of the encoded image.

These are the network's own prompt types. A user writes `seem.Click(320, 200)` in pixels of the original photo;
`seem.geometry` maps it into a `VisualPrompt` here. Nothing in this file knows about files, photos or JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from seem.model.seem import ImageFeatures


@dataclass(frozen=True, eq=False)
class VisualPrompt:
    """One spatial prompt: a click, a box, a scribble, a polygon or a mask.

    Coordinates are continuous pixels of the encoded, unpadded image; pixel (i, j) covers [i, i+1) x [j, j+1).

    Attributes:
        kind: "click", "box", "scribble", "polygon" or "mask".
        positive: True if it says "this belongs to the object".
        points: (n, 2) float32 xy. A click has 1 row (the centre of its pixel), a box 2 (x0 y0, x1 y1), a scribble
            and a polygon one row per vertex, a mask none.
        width: the brush width of a scribble in encoded pixels, else 0.
        mask: (h, w) bool at the encoded, unpadded size for a mask, else None.
    """

    kind: str
    positive: bool
    points: np.ndarray
    width: float = 0.0
    mask: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class ReferencePrompt:
    """A region of another encoded image: "find what these prompts show over there, here".

    Attributes:
        features: the other image's features.
        prompts: what marks the region, in encoded pixels of the other image.
        seen: (1, D) class embedding of the region and (1, D) what a closer look says it is, where there was one.
    """

    features: ImageFeatures
    prompts: tuple[VisualPrompt, ...]
    seen: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, eq=False)
class EncodedReference:
    """What is left of a `ReferencePrompt` once its region is known: all that another image needs of it.

    Attributes:
        samples: (P, dim) stride-16 features at P points of the region.
        kinds: (P,) 1 for points that belong to it, 0 for points that do not.
        embedding: (D,) its class embedding, L2-normalised.
    """

    samples: Tensor
    kinds: Tensor
    embedding: Tensor


@dataclass(frozen=True, eq=False)
class ObjectPrompt:
    """Everything said about one object.

    Attributes:
        visual: spatial prompts on this image.
        texts: phrases that name the object.
        references: regions of other images that look like it.
        previous: (h/4, w/4) float32 mask logits of the round before (the memory prompt), or None.
    """

    visual: tuple[VisualPrompt, ...] = ()
    texts: tuple[str, ...] = ()
    references: tuple[ReferencePrompt | EncodedReference, ...] = ()
    previous: Tensor | None = None

    @property
    def is_phrase(self) -> bool:
        """Whether one phrase is all that is said."""
        return self._is_alone and len(self.texts) == 1

    @property
    def is_reference(self) -> bool:
        """Whether one region of another image is all that is said."""
        return self._is_alone and len(self.references) == 1

    @property
    def _is_alone(self) -> bool:
        return len(self.texts) + len(self.references) == 1 and not self.visual and self.previous is None
