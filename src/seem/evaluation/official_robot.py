"""The next click of the official training and evaluation (SPEC section 10).

It is not the standard robot: its distance is an approximation, its click is 3 x 3 pixels, every pixel clicked before
counts as right, the larger of the two regions decides the sign, and ignored pixels do not count in the IoU only (SPEC
section 14). Figures of the two are not comparable.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seem.evaluation.robot import Robot
from seem.prompts import Click

NAME = "seem"
SOFTNESS = 0.35  # of the soft minimum over the eight neighbours
GOOD_ENOUGH = 0.925  # IoU from which on no click is added


def soft_distance(region: Tensor) -> Tensor:
    """Approximate distance of every True pixel of (H, W) to the nearest False one, ring by ring.

    Each ring adds floor(3 i / 2) in place of i, as in version 0.7.0 of the library that the official code uses.
    """
    reached = (~region).float()
    step = torch.arange(3.0) - 1
    kernel = torch.exp(-torch.hypot(step[:, None], step) / SOFTNESS)[None, None].to(reached)
    distance = torch.zeros_like(reached)
    for i in range(max(region.shape)):
        padded = F.pad(reached[None, None], (1, 1, 1, 1), mode="replicate")
        ring = -SOFTNESS * F.conv2d(padded, kernel)[0, 0].log()
        ring = ring.nan_to_num(posinf=0.0)  # not reached yet
        new = ring > 0
        if not bool(new.any()):
            break
        distance = distance + (math.floor(i * 3 / 2) + ring) * new
        reached = reached.masked_fill(new, 1.0)
    return distance


def next_clicks(logits: Tensor, truth: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Add one click per object where the prediction is most wrong.

    Args:
        logits: (N, h, w) of the masks that were predicted, at any size.
        truth: (N, H, W) bool.
        positive, negative: (N, H, W) bool, pixels clicked so far.

    Returns:
        ``positive`` and ``negative`` with the new 3 x 3 clicks.
    """
    predicted = F.interpolate(logits[None], truth.shape[-2:], mode="bilinear", align_corners=False)[0].sigmoid() > 0.5
    positive, negative = positive.clone(), negative.clone()
    for n, (guess, target) in enumerate(zip(predicted, truth, strict=True)):
        worst = _worst_region(guess, target, positive[n] | negative[n])
        if worst is not None:
            region, under = worst
            (positive if under else negative)[n] |= click_at_deepest(region)
    return positive, negative


def _worst_region(guess: Tensor, target: Tensor, clicked: Tensor) -> tuple[Tensor, bool] | None:
    """What to correct next, (H, W) bool, and whether it was missed; None for a mask that is good enough."""
    union = int((guess | target).sum())
    if union and int((guess & target).sum()) / union >= GOOD_ENOUGH:
        return None
    missed, wrong = target & ~guess & ~clicked, ~target & guess & ~clicked
    under = int(missed.sum()) > int(wrong.sum())
    return (missed if under else wrong), under


def click_at_deepest(region: Tensor) -> Tensor:
    """3 x 3 pixels at the deepest place of (H, W) bool."""
    return _three_by_three(region, *deepest(region))


def deepest(region: Tensor) -> tuple[int, int]:
    """(row, column) of the first maximum of the soft distance inside (H, W), the border counting as outside."""
    depth = soft_distance(F.pad(region, (1, 1, 1, 1)))[1:-1, 1:-1]
    return divmod(int(depth.flatten().argmax()), region.shape[1])


def _three_by_three(region: Tensor, row: int, column: int) -> Tensor:
    click = torch.zeros_like(region)
    click[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    return click


class OfficialRobot(Robot):
    """The same for one object, as the clicks that `Scene.segment` takes; official models read them 3 x 3.

    `ignore` has no say in where it clicks, and its hand is steady.
    """

    def __init__(self, target: np.ndarray, ignore: np.ndarray | None = None) -> None:
        super().__init__(target, ignore)
        self._target = torch.from_numpy(np.ascontiguousarray(target))
        self._clicked = torch.zeros_like(self._target)

    def next_click(self, mask: np.ndarray | None = None) -> Click | None:
        """The next click for the present mask (none yet: in the middle of the target); None if it is good enough."""
        if mask is None:
            region, positive = self._target, True
        else:
            worst = _worst_region(torch.from_numpy(np.array(mask)), self._target, self._clicked)
            if worst is None or not bool(worst[0].any()):
                return None
            region, positive = worst
        row, column = deepest(region)
        self._clicked |= _three_by_three(region, row, column)
        return Click(column, row, positive)
