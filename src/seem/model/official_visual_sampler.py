"""Visual prompts of the official family: from clicks and strokes to tokens read out of the image (SPEC section 8).

Every prompt that is not text becomes a set of pixels, at most 512 of them, at which feature maps are read. The
official code takes those 512 at random and copies random queries; ``EvenDraws`` is our deterministic answer and
``OfficialDraws`` theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.prompting import VisualPrompt


class Draws(Protocol):
    """What the official code leaves to chance."""

    def points(self, objects: Tensor, places: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """The object (n,) and place (n, 2) of every prompt pixel -> those of at most ``limit`` of them."""

    def query_rows(self, total: int, per_object: int, objects: int) -> Tensor:
        """Which of ``total`` object queries the ``objects * per_object`` spatial queries start from."""

    def memory_slots(self, slots: int, objects: int) -> Tensor:
        """(slots,) long: the object that each memory row serves in this layer, ascending."""


class EvenDraws:
    """No chance at all: points, queries and memories are spaced evenly, the same for every object."""

    def points(self, objects: Tensor, places: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        if len(objects) <= limit:
            return objects, places
        index = _evenly(len(objects), limit, objects.device)
        return objects[index], places[index]

    def query_rows(self, total: int, per_object: int, objects: int) -> Tensor:
        return _evenly(total, per_object).repeat(objects)

    def memory_slots(self, slots: int, objects: int) -> Tensor:
        return torch.arange(slots) * objects // slots


class OfficialDraws:
    """The official random draws, in the official order.

    Args:
        per_prompt: v1's way: points with equal weight for each object, in order; else a random permutation.
        generator: on the CPU; PyTorch's global one unless given.
    """

    def __init__(self, per_prompt: bool, generator: torch.Generator | None = None) -> None:
        self.per_prompt, self.generator = per_prompt, generator

    def points(self, objects: Tensor, places: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        n = len(objects)
        if n == 0 or (n <= limit and not self.per_prompt):
            return objects, places
        if self.per_prompt:
            present, inverse, count = objects.cpu().unique(return_inverse=True, return_counts=True)
            weight = 1.0 / (len(present) * count[inverse])
            index = torch.multinomial(weight, min(n, limit), replacement=False, generator=self.generator).sort().values
        else:
            index = torch.randperm(n, generator=self.generator)[:limit]
        index = index.to(objects.device)
        return objects[index], places[index]

    def query_rows(self, total: int, per_object: int, objects: int) -> Tensor:
        return torch.randint(0, total, (per_object * objects,), generator=self.generator)

    def memory_slots(self, slots: int, objects: int) -> Tensor:
        weight = torch.full((objects,), 1.0 / objects)
        return torch.multinomial(weight, slots, replacement=True, generator=self.generator).sort().values


def _evenly(total: int, count: int, device: torch.device | None = None) -> Tensor:
    """``count`` of 0 … total-1, the middles of equal stretches."""
    return (2 * torch.arange(count, device=device) + 1) * total // (2 * max(count, 1))


@dataclass(frozen=True, eq=False)
class Strokes:
    """The visual prompts on one image: masks (N, H, W) bool of N objects at the padded input size."""

    positive: Tensor
    negative: Tensor


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """What the decoder reads of visual prompts.

    Attributes:
        tokens: per level (B, P, C).
        objects: per level (B, P) long, the object of each token, -1 for padding.
        positive: (B, N, C) mean of the mask features at each object's positive points.
        negative: (B, N, C) the same at the negative ones.
    """

    tokens: tuple[Tensor, ...]
    objects: tuple[Tensor, ...]
    positive: Tensor
    negative: Tensor

    @property
    def padding(self) -> tuple[Tensor, ...]:
        """Per level (B, P) bool."""
        return tuple(o < 0 for o in self.objects)

    def empty(self) -> VisualTokens:
        """No tokens at all, of the same width."""
        none = tuple(t[:, :0] for t in self.tokens), tuple(o[:, :0] for o in self.objects)
        return VisualTokens(*none, self.positive, self.negative)


def join_tokens(parts: Sequence[VisualTokens]) -> VisualTokens:
    """Prompts of one object that were read from different images, one after another."""
    tokens = tuple(torch.cat(level, 1) for level in zip(*(p.tokens for p in parts), strict=True))
    objects = tuple(torch.cat(level, 1) for level in zip(*(p.objects for p in parts), strict=True))
    return VisualTokens(tokens, objects, parts[0].positive, parts[0].negative)


def stack_tokens(rows: Sequence[VisualTokens]) -> VisualTokens:
    """Objects that were read one by one (each with B = 1) -> one batch, padded."""

    def padded(levels: Sequence[Tensor], value: float) -> Tensor:
        return nn.utils.rnn.pad_sequence([x[0] for x in levels], batch_first=True, padding_value=value)

    return VisualTokens(
        tuple(padded(level, 0.0) for level in zip(*(r.tokens for r in rows), strict=True)),
        tuple(padded(level, -1) for level in zip(*(r.objects for r in rows), strict=True)),
        torch.cat([r.positive for r in rows]),
        torch.cat([r.negative for r in rows]),
    )


class VisualSampler(nn.Module):
    """Reads feature maps at prompt pixels."""

    def __init__(self, dim: int, levels: int, max_points: int) -> None:
        super().__init__()
        self.level_projection = nn.ParameterList(torch.randn(dim, dim) * dim**-0.5 for _ in range(levels))
        self.sign = nn.Embedding(2, dim)  # row 0 positive, row 1 negative
        self.max_points = max_points

    def forward(
        self,
        mask_features: Tensor,
        maps: Sequence[Tensor],
        strokes: Sequence[Strokes],
        draws: Draws,
        missing: float,
    ) -> VisualTokens:
        """mask_features (B or 1, C, H/4, W/4), maps (B or 1, C, h, w) with level embedding, one ``Strokes`` per row."""
        batch = len(strokes)
        pixels = [[_pixels(stack) for stack in (s.positive, s.negative)] for s in strokes]
        means = []
        for sign in (0, 1):
            chosen = [draws.points(*p[sign], self.max_points) for p in pixels]
            objects, places = _padded(chosen)
            values = read_at(_expand(mask_features, batch), places)  # (B, P, C)
            count = max(s.positive.shape[0] for s in strokes)
            of = objects[:, None] == torch.arange(count, device=objects.device)[:, None]  # (B, N, P)
            mean = of.to(values.dtype) @ values / of.sum(-1, keepdim=True).clamp(min=1)
            means.append(mean.masked_fill(~of.any(-1, keepdim=True), missing))
        tokens, owners = [], []
        for level, projection in enumerate(self.level_projection):
            # one sign for all images, then the other: the official order of draws
            plus, minus = ([draws.points(*p[sign], self.max_points) for p in pixels] for sign in (0, 1))
            joined = [(torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in zip(plus, minus, strict=True)]
            objects, places = _padded(joined)
            # reading is linear, so the few points are projected instead of the whole map
            value = read_at(_expand(maps[level], batch), places) @ projection
            positives = torch.tensor([len(a[0]) for a in plus], device=objects.device)
            negative = torch.arange(objects.shape[1], device=objects.device) >= positives[:, None]  # (B, P)
            tokens.append(value + self.sign(negative.long()))
            owners.append(objects)
        return VisualTokens(tuple(tokens), tuple(owners), means[0], means[1])


def read_at(feature: Tensor, places: Tensor) -> Tensor:
    """Bilinear read of (B, C, h, w) at (B, P, 2) places (y, x) in 0..1, where 0 and 1 are the centres of the corner
    cells -> (B, P, C)."""
    grid = places.flip(-1)[:, :, None] * 2 - 1
    read = F.grid_sample(feature, grid.to(feature.dtype), align_corners=True)
    return read[..., 0].transpose(1, 2)


def _pixels(stack: Tensor) -> tuple[Tensor, Tensor]:
    """(N, H, W) bool -> the object (n,) and the place (n, 2) = (y/H, x/W) of every set pixel, row-major."""
    index = stack.nonzero()
    size = torch.tensor(stack.shape[1:], device=stack.device)
    return index[:, 0], index[:, 1:] / size


def _padded(rows: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Rows of different lengths -> objects (B, P) with -1 for padding and places (B, P, 2)."""
    objects = nn.utils.rnn.pad_sequence([r[0] for r in rows], batch_first=True, padding_value=-1)
    return objects, nn.utils.rnn.pad_sequence([r[1] for r in rows], batch_first=True)


def _expand(x: Tensor, batch: int) -> Tensor:
    return x.expand(batch, -1, -1, -1)


def rasterise(prompts: Sequence[VisualPrompt], size: tuple[int, int], positive: bool) -> np.ndarray:
    """The pixels that the positive (or the negative) prompts mark: (h, w) bool.

    A click is its pixel and the eight around it. A box is its centre, likewise: the official model was trained on no
    box and is evaluated with the centre. Scribbles have their width, polygons and masks are filled.
    """
    h, w = size
    canvas = np.zeros((h, w), bool)
    for prompt in prompts:
        if prompt.positive is not positive:
            continue
        if prompt.kind == "mask":
            canvas |= np.asarray(prompt.mask, bool)
        elif prompt.kind == "polygon":
            canvas |= _polygon(prompt.points, h, w)
        elif prompt.kind == "scribble":
            canvas |= _scribble(prompt.points, prompt.width, h, w)
        else:
            x, y = np.asarray(prompt.points, np.float64).mean(0)
            j, i = min(max(int(x), 0), w - 1), min(max(int(y), 0), h - 1)
            canvas[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] = True
    return canvas


def _scribble(points: np.ndarray, width: float, h: int, w: int) -> np.ndarray:
    """Pixels whose centre is within width / 2 of the poly-line, and the vertices' own pixels."""
    canvas = np.zeros((h, w), bool)
    radius = max(width / 2, 0.5)
    vertices = np.asarray(points, np.float64)
    for a, b in zip(vertices, vertices[1:] if len(vertices) > 1 else vertices, strict=False):
        x0, y0 = np.floor(np.maximum(np.minimum(a, b) - radius, 0)).astype(int)
        x1, y1 = np.ceil(np.maximum(a, b) + radius).astype(int) + 1
        y, x = np.mgrid[y0 : min(y1, h), x0 : min(x1, w)]
        centre = np.stack([x + 0.5, y + 0.5], -1)
        along = b - a
        share = np.clip(((centre - a) @ along) / max(along @ along, 1e-12), 0, 1)
        distance = np.linalg.norm(centre - a - share[..., None] * along, axis=-1)
        canvas[y0 : min(y1, h), x0 : min(x1, w)] |= distance <= radius
    j, i = np.clip(np.floor(vertices).astype(int), 0, [w - 1, h - 1]).T
    canvas[i, j] = True
    return canvas


def _polygon(points: np.ndarray, h: int, w: int) -> np.ndarray:
    """Pixels whose centre is inside, by the even-odd rule."""
    y, x = np.mgrid[:h, :w] + 0.5
    inside = np.zeros((h, w), bool)
    vertices = np.asarray(points, np.float64)
    for (x0, y0), (x1, y1) in zip(vertices, np.roll(vertices, -1, 0), strict=True):
        if y0 != y1:
            crosses = (y0 > y) != (y1 > y)
            inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    if not inside.any():  # a sliver that no centre falls into still marks something
        j, i = np.clip(np.floor(vertices).astype(int), 0, [w - 1, h - 1]).T
        inside[i, j] = True
    return inside
