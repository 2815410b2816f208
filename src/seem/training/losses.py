"""Losses on mask logits (SPEC section 11), per mask, so that the caller can choose or weight."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_bce(logits: Tensor, target: Tensor) -> Tensor:
    """(…, h, w) logits against coverage in 0..1 -> (…), mean over pixels."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(-2).mean(-1)


def mask_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Soft dice loss with +1 smoothing (…)."""
    p, t = logits.sigmoid().flatten(-2), target.flatten(-2)
    return 1 - (2 * (p * t).sum(-1) + 1) / (p.sum(-1) + t.sum(-1) + 1)


def focal(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal BCE (Lin et al., arXiv 1708.02002) without class weights, elementwise."""
    ce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = logits.sigmoid()
    return ce * (p * (1 - target) + (1 - p) * target) ** gamma


def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of the thresholded masks (…)."""
    p, t = (logits > 0).flatten(-2), (target > 0.5).flatten(-2)
    union = (p | t).sum(-1)
    return (p & t).sum(-1) / union.clamp_min(1)


def pairwise_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """(Q, P) logits and (K, P) coverage at the same sampled points -> (Q, K): 5 BCE + 5 dice."""
    points = logits.shape[1]
    bce = (F.softplus(-logits) @ targets.T + F.softplus(logits) @ (1 - targets).T) / points
    p = logits.sigmoid()
    dice = 1 - (2 * p @ targets.T + 1) / (p.sum(1)[:, None] + targets.sum(1)[None] + 1)
    return 5 * bce + 5 * dice


def importance_points(logits: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Cell indices (count,) of a (K, P) set: three quarters where a mask is undecided, the rest anywhere."""
    cells = logits.shape[-1]
    drawn = torch.randint(cells, (min(3 * count, cells),), generator=generator)
    uncertain = -logits[:, drawn.to(logits.device)].abs().min(0).values.cpu()  # drawn on the CPU, alike everywhere
    keep = drawn[uncertain.topk(min(3 * count // 4, len(drawn))).indices]
    rest = torch.randint(cells, (count - len(keep),), generator=generator)
    return torch.cat([keep, rest]).to(logits.device)
