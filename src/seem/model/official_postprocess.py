"""From the official decoder's queries to semantic, instance and panoptic results (SPEC sections 2 and 13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PanopticSegment:
    """One segment: its id in the map, from 1, and its class."""

    id: int
    category: int
    is_thing: bool
    score: float


def resize_masks(logits: Tensor, padded: tuple[int, int], size: tuple[int, int], output: tuple[int, int]) -> Tensor:
    """Logits (N, h, w) at stride 4 -> (N, *output): up to the padded input, cut to ``size``, then to ``output``."""
    x = F.interpolate(logits[None], padded, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]
    return bicubic(x[0], output)


def bicubic(logits: Tensor, output: tuple[int, int]) -> Tensor:
    """(N, h, w) -> (N, *output), bicubic with anti-aliasing."""
    return F.interpolate(logits[None], output, mode="bicubic", align_corners=False, antialias=True)[0]


def semantic(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """(Q, K + 1) with "nothing" last and (Q, h, w) -> (K, h, w) scores."""
    return torch.einsum("qk,qhw->khw", class_logits.softmax(-1)[:, :-1], mask_logits.sigmoid())


def panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    things: Sequence[bool],
    object_threshold: float,
    overlap_threshold: float,
) -> tuple[Tensor, list[PanopticSegment]]:
    """Every pixel to at most one segment; stuff of one class is one segment.

    Args:
        class_logits: (Q, K + 1), "nothing" last.
        mask_logits: (Q, h, w).
        things: for each of the K classes whether its instances are told apart.

    Returns:
        The map (h, w) int32, 0 = nothing, and its segments.
    """
    scores, labels = class_logits.softmax(-1).max(-1)
    keep = (labels != len(things)) & (scores > object_threshold)
    scores, labels, masks = scores[keep], labels[keep], mask_logits[keep].sigmoid()
    panoptic_map = torch.zeros(mask_logits.shape[-2:], dtype=torch.int32, device=masks.device)
    segments: list[PanopticSegment] = []
    if not len(masks):
        return panoptic_map, segments
    winner = (scores[:, None, None] * masks).argmax(0)
    stuff: dict[int, int] = {}
    for k, (mask, category) in enumerate(zip(masks, labels.tolist(), strict=True)):
        original = mask >= 0.5
        visible = (winner == k) & original
        won, area = int((winner == k).sum()), int(original.sum())
        if not won or not area or not visible.any() or won / area < overlap_threshold:
            continue
        if not things[category] and category in stuff:
            panoptic_map[visible] = stuff[category]
            continue
        segments.append(PanopticSegment(len(segments) + 1, category, things[category], float(scores[k])))
        panoptic_map[visible] = segments[-1].id
        if not things[category]:
            stuff[category] = segments[-1].id
    return panoptic_map, segments


def instances(
    class_logits: Tensor, mask_logits: Tensor, things: Sequence[bool] | None, top: int = 100
) -> tuple[Tensor, Tensor, Tensor]:
    """The best (query, class) pairs.

    Args:
        things: keep these classes only; None keeps all.

    Returns:
        Scores (n,), classes (n,), masks (n, h, w) bool; a score is class probability times mean probability inside.
    """
    probability = class_logits.softmax(-1)[:, :-1]
    scores, flat = probability.flatten().topk(min(top, probability.numel()), sorted=False)
    queries, classes = flat // probability.shape[1], flat % probability.shape[1]
    if things is not None:
        keep = torch.tensor(things, device=classes.device)[classes]
        scores, queries, classes = scores[keep], queries[keep], classes[keep]
    logits = mask_logits[queries]
    masks = logits > 0
    return scores * mean_probability(logits), classes, masks


def mean_probability(logits: Tensor) -> Tensor:
    """Mean of the sigmoid where it is above one half: (…, h, w) -> (…)."""
    inside = (logits > 0).to(logits.dtype)
    return (logits.sigmoid() * inside).sum((-2, -1)) / (inside.sum((-2, -1)) + 1e-6)
