"""Mask losses at sampled points (PointRend, arXiv 1912.08193, as Mask2Former uses it; SPEC section 11).

Points are (x, y) in 0..1 of the padded canvas, so that logits at stride 4 and masks at stride 1 are read alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seem.training.losses import mask_bce, mask_dice


@dataclass(frozen=True, eq=False)
class PointSampler:
    """Where masks are compared.

    Attributes:
        count, oversample, importance: see ``ObjectiveConfig``.
        extent: the share of the canvas (x, y) that is photo, beyond which nothing is compared.
        generator: on the device of the masks.
    """

    count: int
    oversample: float
    importance: float
    extent: tuple[float, float]
    generator: torch.Generator

    def anywhere(self, rows: int, count: int | None = None) -> Tensor:
        """(rows, count, 2) points, uniformly."""
        device = self.generator.device
        drawn = torch.rand(rows, count or self.count, 2, generator=self.generator, device=device)
        return drawn * torch.tensor(self.extent, device=device)

    def undecided(self, logits: Tensor) -> Tensor:
        """(n, h, w) -> (n, count, 2): mostly where a mask's own logits are nearest to 0."""
        wanted = int(self.importance * self.count)
        candidates = self.anywhere(len(logits), int(self.oversample * self.count))
        doubt = -read_each(logits, candidates).abs()
        best = doubt.topk(wanted, 1).indices
        kept = candidates.take_along_dim(best[:, :, None], 1)
        if wanted == self.count:
            return kept
        return torch.cat([kept, self.anywhere(len(logits), self.count - wanted)], 1)


def read_shared(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear reads of (n, h, w) at the same (P, 2) points -> (n, P)."""
    if not len(maps):
        return maps.new_zeros(0, len(points))
    grid = (points * 2 - 1)[None, :, None]
    return F.grid_sample(maps[None], grid, padding_mode="border", align_corners=False)[0, :, :, 0]


def read_each(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear reads of (n, h, w), each at its own points (n, P, 2) -> (n, P)."""
    if not len(maps):
        return maps.new_zeros(points.shape[:2])
    grid = (points * 2 - 1)[:, :, None]
    return F.grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)[:, 0, :, 0]


def mask_losses(logits: Tensor, truth: Tensor, sampler: PointSampler) -> tuple[Tensor, Tensor]:
    """BCE and dice of every mask: logits (n, h, w) against truth (n, H, W) in 0..1 -> twice (n,)."""
    with torch.no_grad():
        points = sampler.undecided(logits)
        wanted = read_each(truth, points)[:, None]
    found = read_each(logits, points)[:, None]
    return mask_bce(found, wanted), mask_dice(found, wanted)
