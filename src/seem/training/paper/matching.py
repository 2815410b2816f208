"""Which query is to become which target (SPEC section 11): the cheapest pairs by likeness, BCE and dice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seem.training.matching import assign
from seem.training.paper.config import Weights

OBJECT_COST = Weights(2.0, 5.0, 5.0)
TEXT_COST = Weights(2.0, 5.0, 5.0)
CLICK_COST = Weights(5.0, 2.0, 2.0)
OFFICIAL_CLICK_COST = Weights(2.0, 5.0, 5.0)  # what the official code computes with


def pair_costs(likeness: Tensor, logits: Tensor, targets: Tensor, weights: Weights) -> Tensor:
    """Every query with every target.

    Args:
        likeness: (Q, K) in 0..1, such as the probability of the target's class.
        logits: (Q, P) of the queries' masks at P points.
        targets: (K, P) in 0..1 at the same points.

    Returns:
        (Q, K).
    """
    bce = (F.softplus(-logits) @ targets.T + F.softplus(logits) @ (1 - targets).T) / logits.shape[1]
    p = logits.sigmoid()
    dice = 1 - (2 * p @ targets.T + 1) / (p.sum(1)[:, None] + targets.sum(1)[None] + 1)
    return weights.bce * bce + weights.dice * dice - weights.ce * likeness


def match(costs: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, K) -> queries and targets of the cheapest one-to-one pairs, min(Q, K) of them, on the costs' device."""
    queries, targets = assign(costs.detach().float().cpu().numpy())
    return torch.from_numpy(queries).to(costs.device), torch.from_numpy(targets).to(costs.device)
