"""A user's prompts in pixels of the photo -> the network's prompts in pixels of the encoded image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from seem import geometry
from seem.geometry import MASK_STRIDE, ImageGeometry
from seem.model.prompting import ObjectPrompt, ReferencePrompt, VisualPrompt
from seem.prompts import (
    Box,
    Click,
    Mask,
    Polygon,
    Prompt,
    Reference,
    Scribble,
    Text,
    VisualPromptType,
    check,
)

GIVEN_LOGIT = 8.0  # inside a mask that is given as the round before; outside its negative


def given_logits(sizes: ImageGeometry, mask: np.ndarray) -> np.ndarray:
    """(H, W) bool at the original size -> (h/4, w/4) float32: its share of each cell, from -8 to 8, as a memory."""
    inside = sizes.mask_to_encoded(mask)
    height, width = sizes.mask_size
    padded = np.zeros((height * MASK_STRIDE, width * MASK_STRIDE), np.float32)
    padded[: inside.shape[0], : inside.shape[1]] = inside
    share: np.ndarray = padded.reshape(height, MASK_STRIDE, width, MASK_STRIDE).mean((1, 3))
    return (2 * share - 1) * np.float32(GIVEN_LOGIT)


def object_prompt(
    prompts: Sequence[Prompt], references: Sequence[ReferencePrompt], sizes: ImageGeometry, previous: Tensor | None
) -> ObjectPrompt:
    """Everything said about one object, for the network. The prompts are checked already.

    Args:
        prompts: of one object; its references are left to `references`.
        references: the references among them, mapped by the scene that holds the other images.
        sizes: of this image.
        previous: (h/4, w/4) mask logits of the round before.
    """
    visual: list[VisualPrompt] = []
    for prompt in prompts:
        if not isinstance(prompt, (Text, Reference)):
            visual += visual_prompts(prompt, sizes)
    texts = tuple(prompt.phrase for prompt in prompts if isinstance(prompt, Text))
    return ObjectPrompt(tuple(visual), texts, tuple(references), previous)


def visual_prompts(prompt: VisualPromptType, sizes: ImageGeometry) -> list[VisualPrompt]:
    """One spatial prompt; a scribble that leaves the image and comes back gives several."""
    match prompt:
        case Click():
            centre = np.floor([[prompt.x, prompt.y]]) + 0.5
            return [VisualPrompt("click", prompt.positive, sizes.to_encoded(centre))]
        case Box():
            box = check(prompt, sizes.original)
            assert isinstance(box, Box)
            return [VisualPrompt("box", True, sizes.to_encoded(np.array([[box.x0, box.y0], [box.x1, box.y1]])))]
        case Scribble():
            pieces = geometry.clip_polyline(np.array(prompt.points), sizes.original)
            width = prompt.width * float(np.sqrt(sizes.scale.prod()))
            return [VisualPrompt("scribble", prompt.positive, sizes.to_encoded(piece), width) for piece in pieces]
        case Polygon():
            inside = geometry.clip_polygon(np.array(prompt.points), sizes.original)
            return [VisualPrompt("polygon", prompt.positive, sizes.to_encoded(inside))]
        case Mask():
            none = np.zeros((0, 2), np.float32)
            return [VisualPrompt("mask", True, none, mask=sizes.mask_to_encoded(prompt.array))]
