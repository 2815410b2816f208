"""A second, closer look at regions: each is cut out of the photo, enlarged, and encoded by itself.

The first look at a photo is 512 pixels wide, so most things cover a few cells of its feature maps. Here the semantic
encoder sees a square around each region at the size that it was pretrained at, and what it says inside the region,
around it and in the whole square becomes an embedding that is compared with text, in a space of its own: the second
stage of a two-stage detector (Girshick, arXiv 1504.08083) with masks for boxes and text for a list of classes.

Shapes: N regions, (H, W) the photo, (h, w) a mask that covers the photo, F looked-at features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH = 16  # regions that go through the encoder together; bounds memory
GEOMETRY = 6  # numbers that say where a region lies and how large it is
SMALLEST = 0.05  # of the photo's longer side: no square is cut out around less


@dataclass(frozen=True)
class CloserLookConfig:
    """A model without a closer look has ``hidden = 0``."""

    hidden: int = 0
    side: int = 224  # pixels of the enlarged square
    context: float = 1.4  # the square's side over the region's longer side
    share: float = 0.6  # of the closer look's opinion of a name; the rest is the first look's
    temperature: float = 1.0  # of both opinions together


def region_boxes(masks: Tensor) -> Tensor:
    """(N, h, w) bool, none empty -> (N, 4) x0 y0 x1 y1 as shares of the masks' width and height."""
    h, w = masks.shape[-2:]
    bounds = []
    for inside, length in ((masks.any(1), w), (masks.any(2), h)):
        first = inside.int().argmax(1)
        last = length - inside.flip(1).int().argmax(1)
        bounds.append((first / length, last / length))
    (x0, x1), (y0, y1) = bounds
    return torch.stack([x0, y0, x1, y1], 1)


class CloserLook(nn.Module):
    """The head; the encoder is the model's own and is passed in."""

    def __init__(self, config: CloserLookConfig, s16: int, s32: int, dim: int, text_width: int) -> None:
        super().__init__()
        self.config = config
        self.looked = 2 * s16 + 3 * s32 + GEOMETRY
        hidden = config.hidden
        self.register_buffer("shift", torch.zeros(self.looked))
        self.register_buffer("scale", torch.ones(self.looked))
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(self.looked, hidden)
        self.name = nn.Linear(hidden, dim)
        self.name_skip = nn.Linear(self.looked, dim, bias=False)
        self.text_projection = nn.Linear(text_width, dim)
        self.logit_scale = nn.Parameter(torch.tensor(2.5))  # log

    shift: Tensor
    scale: Tensor

    def look(self, encoder: nn.Module, photo: Tensor, masks: Tensor, boxes: Tensor | None = None) -> Tensor:
        """What the encoder sees of each region.

        Args:
            encoder: returns "s16" and "s32" maps of (B, 3, side, side).
            photo: (3, H, W), normalised as the encoder wants it.
            masks: (N, h, w) bool, none empty, over the whole photo at any resolution.
            boxes: (N, 4) as `region_boxes`, around which to look instead; for training.

        Returns:
            (N, F)
        """
        boxes = region_boxes(masks) if boxes is None else boxes
        parts = [
            self._look(encoder, photo, masks[i : i + BATCH], boxes[i : i + BATCH]) for i in range(0, len(masks), BATCH)
        ]
        return torch.cat(parts) if parts else photo.new_zeros(0, self.looked)

    def _look(self, encoder: nn.Module, photo: Tensor, masks: Tensor, boxes: Tensor) -> Tensor:
        height, width = photo.shape[1:]
        pixels = photo.new_tensor([width, height])
        sizes = (boxes[:, 2:] - boxes[:, :2]) * pixels  # (N, 2)
        sides = sizes.amax(1).clamp_min(SMALLEST * max(height, width)) * self.config.context
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 * pixels
        squares, inside = [], []
        for mask, centre, side in zip(masks, centres, sides.tolist(), strict=True):
            grid = self._grid(centre, side, pixels)
            shrunk = int(side / self.config.side)  # averaging first, where the square is larger than what is seen
            source = F.avg_pool2d(photo[None], shrunk) if shrunk > 1 else photo[None]
            squares.append(F.grid_sample(source, grid, align_corners=False))
            inside.append(F.grid_sample(mask[None, None].float(), grid, align_corners=False)[0, 0])
        crops = torch.cat(squares).contiguous(memory_format=torch.channels_last)
        covered = torch.stack(inside)
        maps = encoder(crops)
        within: list[Tensor] = []
        around: list[Tensor] = []
        for name in ("s16", "s32"):
            flat = maps[name].flatten(2)
            weight = F.adaptive_avg_pool2d(covered[:, None], maps[name].shape[-2:])[:, 0].flatten(1)
            for share, to in ((weight, within), (1 - weight, around)):
                share = share + 1e-6
                to.append(torch.einsum("np,ndp->nd", share, flat) / share.sum(1, keepdim=True))
        where = torch.stack(
            [
                (masks.flatten(1).float().mean(1) + 1e-6).log(),
                (sizes[:, 0] / sizes[:, 1]).log(),
                covered.flatten(1).mean(1),
                (sizes.amax(1) / max(height, width)).log(),
                *((boxes[:, :2] + boxes[:, 2:]) / 2).unbind(1),
            ],
            1,
        )
        return torch.cat([*within, maps["s32"].flatten(2).mean(-1), *around, where], 1)

    def _grid(self, centre: Tensor, side: float, pixels: Tensor) -> Tensor:
        """(1, S, S, 2) sampling positions in -1..1 of a square that may reach over the photo's edge."""
        steps = (torch.arange(self.config.side, device=centre.device) + 0.5) / self.config.side - 0.5
        xs, ys = ((centre[i] + side * steps) / pixels[i] * 2 - 1 for i in (0, 1))
        n = self.config.side
        return torch.stack([xs[None].expand(n, n), ys[:, None].expand(n, n)], -1)[None]

    def forward(self, looked: Tensor) -> Tensor:
        """(N, F) of `look` -> (N, D) L2-normalised, to be compared with `text`."""
        x = self.drop((looked - self.shift) / self.scale)
        return F.normalize(self.name(self.drop(F.gelu(self.hidden(x)))) + self.name_skip(x), dim=-1)

    def text(self, sentences: Tensor) -> Tensor:
        """(K, text_width) of the text encoder -> (K, D)."""
        return F.normalize(self.text_projection(sentences), dim=-1)

    def name_logits(self, embeddings: Tensor, names: Tensor) -> Tensor:
        """(N, D) x (K, D) -> (N, K)."""
        return embeddings @ names.T * self.logit_scale.exp()
