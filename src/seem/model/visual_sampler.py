"""Every spatial prompt becomes a few points; every point becomes a token (paper section 3.2, SPEC section 8).

A point's token is what the image shows there (the stride-16 map, read bilinearly) plus whether it includes or
excludes, plus, unlike the official model, where it is. Boxes are two corner points. Sub-sampling is even and
deterministic: the same prompt gives the same points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from seem.model.config import PromptDecoderConfig
from seem.model.layers import RandomFourierPosition, sample_map
from seem.model.prompting import VisualPrompt

NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = range(4)
MASK_PROMPT_LOGIT = 8.0


def even_subset(points: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` rows of (n, d), evenly spaced in their order."""
    if len(points) <= count:
        return points
    return points[np.linspace(0, len(points) - 1, count).round().astype(int)]


def fill_polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) bool of the pixels inside a polygon of continuous xy vertices."""
    canvas = Image.new("1", (size[1], size[0]))
    ImageDraw.Draw(canvas).polygon([(float(x) - 0.5, float(y) - 0.5) for x, y in points], fill=1, outline=1)
    return np.array(canvas, bool)


def interior_points(mask: np.ndarray, count: int) -> np.ndarray:
    """About ``count`` pixel centres of a mask, on an even grid (coarse to fine), never none for a non-empty mask."""
    ys, xs = np.nonzero(mask)
    if not len(xs):
        return np.zeros((0, 2), np.float32)
    step = max(1.0, float(np.sqrt(len(xs) / count)))
    cell = np.stack([ys // step, xs // step], 1).astype(np.int64)
    key = cell[:, 0] * (mask.shape[1] + 1) + cell[:, 1]
    _, first, counts = np.unique(key, return_index=True, return_counts=True)
    order = np.argsort(key, kind="stable")
    starts = np.cumsum(counts) - counts
    middle = order[starts + counts // 2] if len(first) else order[:1]
    points = np.stack([xs[middle], ys[middle]], 1).astype(np.float32) + 0.5
    return even_subset(points, count)


def along_line(points: np.ndarray, count: int) -> np.ndarray:
    """``count`` points at equal arc length along a poly-line (fewer if it is short)."""
    if len(points) < 2:
        return points
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    n = int(np.clip(length[-1] / 4.0, 2, count))
    at = np.linspace(0, length[-1], n)
    return np.stack([np.interp(at, length, points[:, i]) for i in (0, 1)], 1).astype(np.float32)


def prompt_points(prompt: VisualPrompt, size: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """One prompt as points (n, 2) in encoded pixels and their kinds (n,)."""
    if prompt.kind == "box":
        return prompt.points, np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT])
    if prompt.kind == "scribble":
        points = along_line(prompt.points, count)
    elif prompt.kind in ("polygon", "mask"):
        mask = fill_polygon(prompt.points, size) if prompt.kind == "polygon" else prompt.mask
        points = interior_points(mask, count // 2) if mask is not None and mask.any() else prompt.points[:1]
    else:
        points = prompt.points
    return points, np.full(len(points), POSITIVE if prompt.positive else NEGATIVE)


def dense_prompt(prompts: Sequence[VisualPrompt], size: tuple[int, int]) -> np.ndarray | None:
    """Polygons and masks as one (h/4, w/4) map of logits, or None if there is none."""
    regions = [
        (p.positive, fill_polygon(p.points, size) if p.kind == "polygon" else p.mask)
        for p in prompts
        if p.kind in ("polygon", "mask")
    ]
    if not any(positive for positive, _ in regions):
        return None
    out = np.full(size, -MASK_PROMPT_LOGIT, np.float32)
    for positive, mask in sorted(regions, key=lambda r: not r[0]):
        out[mask] = MASK_PROMPT_LOGIT if positive else -MASK_PROMPT_LOGIT
    h, w = -(-size[0] // 4) * 4, -(-size[1] // 4) * 4
    padded = np.full((h, w), -MASK_PROMPT_LOGIT, np.float32)
    padded[: size[0], : size[1]] = out
    return padded.reshape(h // 4, 4, w // 4, 4).mean((1, 3))


class VisualSampler(nn.Module):
    """Points on an image -> prompt tokens."""

    def __init__(self, config: PromptDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.position = RandomFourierPosition(config.dim)
        self.kind = nn.Embedding(4, config.dim)  # negative, positive, box corners: the official pn_indicator, extended
        self.reference = nn.Embedding(2, config.dim)  # negative, positive on another image
        self.content = nn.Linear(config.dim, config.dim, bias=False)
        nn.init.zeros_(self.content.weight)

    def forward(self, feature: Tensor, xy: Tensor, kind: Tensor) -> Tensor:
        """(1, dim, h, w) at stride 16, (P, 2), (P,) -> (P, dim)."""
        tokens = self.content(sample_map(feature, xy, 16.0)) + self.kind(kind)
        if self.config.token_position:
            tokens = tokens + self.position(xy / self.config.position_canvas)
        return tokens

    def reference_tokens(self, samples: Tensor, kind: Tensor) -> Tensor:
        """Features (P, dim) that were read on another image: content without position."""
        return self.content(samples) + self.reference((kind != NEGATIVE).long())

    def points(self, prompts: Sequence[VisualPrompt], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """All points of one object's prompts, (P, 2) and (P,)."""
        parts = [prompt_points(p, size, self.config.max_points) for p in prompts]
        device = self.kind.weight.device
        if not parts:
            return torch.zeros(0, 2, device=device), torch.zeros(0, dtype=torch.long, device=device)
        xy = np.concatenate([p[0] for p in parts]).astype(np.float32)
        kind = np.concatenate([p[1] for p in parts])
        return torch.from_numpy(xy).to(device), torch.from_numpy(kind).to(device)
