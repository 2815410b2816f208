"""Clicks and boxes are obeyed: where a mask disagrees with a click on it, the mask gives way around the click, and it
ends where a box ends. What no new click is near stays nearer to the round before.

A decoder that was trained on a few rounds stops listening after many. What clicks ask for beyond its answer is added
to the logits as a smooth surface that is as high as it must be at clicks that were overruled or heard faintly, zero at
all others, and falls off with distance and with difference of the image's fine features, so it ends at edges: kernel
regression with the clicks as data (a Gaussian process' mean; Rasmussen and Williams 2006, section 2.2). The browser's
decoder has the same function in `web/src/decoder/obey.ts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seem.geometry import MASK_STRIDE

if TYPE_CHECKING:
    from seem.model.prompting import ObjectPrompt

REACH = 0.15  # of the square root of the mask's area: the surface's width
SMALLEST = 8.0  # cells of a mask's side, for that
LIKENESS = 0.7  # width in the space of fine features, each channel scaled by its deviation
MARGIN = 3.0  # logit that every click has at least, once one was overruled
RIDGE = 1e-2
EDGE = 2.0  # logit that a cell just outside a box has at most; it is zero half a cell further out
MOST = 64  # clicks, the last ones, that are looked at
KEPT_FROM = 3  # clicks of an object, from which on the round before has a say; development split
KEPT = 0.5  # of the round before's logits, far from every new click; development split
NEAR = 0.2  # of the square root of the mask's area: what is near a new click; development split


def obey(logits: Tensor, fine: Tensor, item: ObjectPrompt) -> Tensor:
    """`keep_far`, `obey_boxes`, then `obey_clicks` of an object's prompts; features may be padded at the right and the
    bottom."""
    h, w = logits.shape
    clicks = [(point, prompt.positive) for prompt in item.visual if prompt.kind == "click" for point in prompt.points]
    cells = torch.tensor(np.array([point for point, _ in clicks]).reshape(-1, 2)).div(MASK_STRIDE).long()
    cells = torch.minimum(cells.clamp_min(0), torch.tensor([w - 1, h - 1])).to(logits.device)
    positive = torch.tensor([kind for _, kind in clicks], device=logits.device)
    if item.previous is not None and item.visual and item.visual[-1].kind == "click":
        logits = keep_far(logits, item.previous[:h, :w], cells, positive)
    boxes = [prompt.points for prompt in item.visual if prompt.kind == "box"]
    drawn = any(prompt.positive and prompt.kind not in ("box", "click") for prompt in item.visual)
    wanted = [point for point, kind in clicks if kind]
    if boxes and not drawn and all(any(_inside(point, box) for box in boxes) for point in wanted):
        logits = obey_boxes(logits, torch.from_numpy(np.stack(boxes)).reshape(-1, 4).to(logits) / MASK_STRIDE)
    return obey_clicks(logits, fine[:, :h, :w], cells, positive) if clicks else logits


def _inside(point: np.ndarray, box: np.ndarray) -> bool:
    """Whether (2,) xy is in (2, 2) corners."""
    return bool((box[0] <= point).all() and (point <= box[1]).all())


def keep_far(logits: Tensor, previous: Tensor, cells: Tensor, positive: Tensor) -> Tensor:
    """Mask logits that stay nearer to the round before, the further they are from every new click.

    A late click corrects what is around it, but the whole mask is decoded anew and sways. New are the last click, and
    all that the round before disagrees with.

    Args:
        logits, previous: (h, w), of this round and of the one before, > 0 is inside.
        cells: (K, 2) long, x and y of each click's cell, in the order of the clicks.
        positive: (K,) bool.

    Returns:
        (h, w); the same tensor of fewer than `KEPT_FROM` clicks, or if the round before found nothing.
    """
    inside = previous > 0
    if len(cells) < KEPT_FROM or not bool(inside.any()):
        return logits
    new = inside[cells[:, 1], cells[:, 0]] != positive
    new[-1] = True
    h, w = logits.shape
    rows, columns = torch.arange(h).to(logits)[:, None], torch.arange(w).to(logits)[None]
    x, y = cells[new, :, None, None].to(logits).unbind(1)
    far = ((columns - x).square() + (rows - y).square()).amin(0)
    near = NEAR * max(SMALLEST, float(torch.maximum(inside.sum(), (logits > 0).sum())) ** 0.5)
    return torch.lerp(logits, previous.to(logits), KEPT * (1 - (-far / (2 * near**2)).exp()))


def obey_boxes(logits: Tensor, boxes: Tensor) -> Tensor:
    """Mask logits that fall below zero half a cell outside every box.

    Args:
        logits: (h, w), > 0 is inside.
        boxes: (K, 4) x0 y0 x1 y1 in cells.

    Returns:
        (h, w), inside the boxes as before.
    """
    h, w = logits.shape
    rows, columns = torch.arange(h).to(logits)[:, None] + 0.5, torch.arange(w).to(logits)[None] + 0.5
    x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
    sideways = torch.maximum(x0 - columns, columns - x1).clamp_min(0)
    upright = torch.maximum(y0 - rows, rows - y1).clamp_min(0)
    outside = (sideways.square() + upright.square()).sqrt().amin(0)
    return torch.where(outside > 0, torch.minimum(logits, EDGE - 2 * EDGE * outside), logits)


def obey_clicks(logits: Tensor, fine: Tensor, cells: Tensor, positive: Tensor) -> Tensor:
    """Mask logits that agree with clicks.

    Args:
        logits: (h, w), > 0 is inside.
        fine: (C, h, w) features of the image at the same resolution.
        cells: (K, 2) long, x and y of each click's cell, in the order of the clicks.
        positive: (K,) bool.

    Returns:
        (h, w); the same tensor if no click is overruled.
    """
    cells, positive = _last_of_each(cells[-MOST:], positive[-MOST:])
    x, y = cells[:, 0], cells[:, 1]
    sign = torch.where(positive, 1.0, -1.0).to(logits)
    there = logits[y, x] * sign
    if not bool((there <= 0).any()):
        return logits
    missing = (MARGIN - there).clamp_min(0) * sign
    scaled = fine / (fine.flatten(1).std(1)[:, None, None] + 1e-6) / fine.shape[0] ** 0.5
    h, w = logits.shape
    rows, columns = torch.arange(h).to(logits)[:, None], torch.arange(w).to(logits)[None]
    reach = REACH * max(SMALLEST, float((logits > 0).sum()) ** 0.5)
    kernels = []
    for i in range(len(cells)):
        far = ((columns - x[i]).square() + (rows - y[i]).square()) / (2 * reach**2)
        other = (scaled - scaled[:, y[i], x[i], None, None]).square().sum(0) / (2 * LIKENESS**2)
        kernels.append((-far - other).exp())
    surface = torch.stack(kernels)  # (K, h, w)
    between = surface[:, y, x] + RIDGE * torch.eye(len(cells)).to(logits)
    weights = torch.linalg.solve(between, missing)
    return logits + (weights[:, None, None] * surface).sum(0)


def _last_of_each(cells: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Of clicks in one cell the last counts."""
    last = {(int(x), int(y)): i for i, (x, y) in enumerate(cells.tolist())}
    kept = sorted(last.values())
    return cells[kept], positive[kept]
