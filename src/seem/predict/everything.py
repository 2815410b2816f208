"""All masks of an image without a prompt: a grid of clicks that nobody made, and what is left of their masks.

The filters are those of Kirillov et al. (arXiv 2304.02643, section 5): sure, stable, not twice the same, no specks. The
defaults were chosen on 12 photos of the development split; docs/everything.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from seem.geometry import MASK_STRIDE
from seem.model.seem import ClickRule, click_grid, click_masks
from seem.predict.instances import distinct, label_probabilities
from seem.predict.segmentation import Segmentation, read_only

if TYPE_CHECKING:
    from seem.geometry import ImageGeometry
    from seem.predict.scene import Scene

POINTS_PER_SIDE = 32
MAX_POINTS_PER_SIDE = 128
SCORE, STABILITY, OVERLAP = 0.4, 0.5, 0.7  # least predicted IoU and stability; most IoU of two results
MIN_AREA = 100  # pixels of the image; smaller masks, islands and holes are noise
MIN_CELLS = 4  # the same in mask cells, whatever the image's size


def everything(
    scene: Scene,
    points_per_side: int,
    threshold: float,
    stability: float,
    overlap: float,
    min_area: float,
    names: Sequence[str] | None,
    limit: int | None,
) -> list[Segmentation]:
    """`Scene.everything`, its arguments checked."""
    network, features, sizes = scene._network, scene._features, scene.geometry
    cells = cells_of(min_area, sizes)
    rule = ClickRule(threshold, stability or -1.0, cells)  # what must be exceeded: 0 is to let everything through
    with torch.no_grad():
        found = click_masks(network, features, click_grid(features.size, points_per_side), rule)
        kept = distinct(found.logits, found.scores, threshold, overlap)
        logits = torch.stack([clean(found.logits[i].cpu(), cells) for i in kept]) if len(kept) else found.logits[:0]
        again = distinct(logits, found.scores[kept].cpu(), threshold, overlap)[:limit]  # cleaning may make two alike
        kept = kept[again.to(kept.device)]
        embeddings, scores = found.embeddings[kept], found.scores[kept]
        labels: list[tuple[str | None, float | None]] = [(None, None)] * len(kept)
        if names is not None and len(kept):
            best = label_probabilities(network, embeddings, names).max(-1)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            labels = [(names[i], value) for i, value in pairs]
    return [
        Segmentation(
            logits=read_only(logits[i].float().numpy().copy()),
            score=float(score),
            score_kind=found.score_kind,
            label=label,
            label_score=label_score,
            image=scene.digest,
            geometry=sizes,
            embedding=read_only(embedding.float().cpu().numpy().copy()),
        )
        for i, score, (label, label_score), embedding in zip(again.tolist(), scores, labels, embeddings, strict=True)
    ]


def clean(logits: Tensor, smallest: int) -> Tensor:
    """(h, w) mask logits without islands and holes of fewer cells; the largest island always stays."""
    values = logits.numpy().copy()
    for inside in (True, False):
        regions, count = ndimage.label((values > 0) == inside)
        areas = np.bincount(regions.ravel(), minlength=count + 1)
        areas[0] = smallest
        if inside and count:
            areas[1 + int(areas[1:].argmax())] = smallest
        speck = (areas < smallest)[regions]
        values[speck] = np.where(inside, -1e-3, 1e-3)
    return torch.from_numpy(values)


def cells_of(area: float, sizes: ImageGeometry) -> int:
    """Pixels of the image as mask cells."""
    return max(MIN_CELLS, round(area * float(np.prod(sizes.scale)) / MASK_STRIDE**2))
