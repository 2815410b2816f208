"""Pixel decoder of the SAM-ViT variants: multi-scale deformable attention in plain PyTorch, no compiled operator.

Papers: Deformable DETR, arXiv 2010.04159; Mask2Former, arXiv 2112.01527. SPEC section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.official_layers import NormedConv, sine_position

Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class DeformablePixelDecoderConfig:
    dim: int = 512
    heads: int = 8
    hidden: int = 1024
    layers: int = 6
    levels: int = 3
    points: int = 4


class DeformableAttention(nn.Module):
    """Every position reads a few points near itself on every level, at offsets that it predicts."""

    def __init__(self, config: DeformablePixelDecoderConfig) -> None:
        super().__init__()
        self.heads, self.levels, self.points = config.heads, config.levels, config.points
        reads = self.heads * self.levels * self.points
        self.sampling_offsets = nn.Linear(config.dim, 2 * reads)
        self.attention_weights = nn.Linear(config.dim, reads)
        self.value_proj = nn.Linear(config.dim, config.dim)
        self.output_proj = nn.Linear(config.dim, config.dim)

    def forward(self, query: Tensor, reference: Tensor, value: Tensor, sizes: Sizes) -> Tensor:
        """query, value (B, N, C) over all levels; reference (N, 2) xy in 0..1 -> (B, N, C)."""
        b, n, c = query.shape
        offset = self.sampling_offsets(query).view(b, n, self.heads, self.levels, self.points, 2)
        weight = self.attention_weights(query).view(b, n, self.heads, self.levels * self.points).softmax(-1)
        weight = weight.view(b, n, self.heads, self.levels, self.points)
        values = self.value_proj(value).split([h * w for h, w in sizes], 1)
        total = query.new_zeros(b * self.heads, c // self.heads, n)
        for level, (h, w) in enumerate(sizes):
            image = values[level].transpose(1, 2).reshape(b * self.heads, c // self.heads, h, w)
            place = reference[:, None, None] + offset[..., level, :, :] / offset.new_tensor([w, h])
            grid = (2 * place - 1).transpose(1, 2).flatten(0, 1)  # (B * heads, N, points, 2)
            read = F.grid_sample(image, grid, align_corners=False)  # (B * heads, C / heads, N, points)
            share = weight[..., level, :].transpose(1, 2).reshape(b * self.heads, 1, n, self.points)
            total = total + (read * share).sum(-1)
        return self.output_proj(total.view(b, c, n).transpose(1, 2))


class EncoderLayer(nn.Module):
    """Post-norm deformable attention and MLP."""

    def __init__(self, config: DeformablePixelDecoderConfig) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(config)
        self.norm1 = nn.LayerNorm(config.dim)
        self.linear1 = nn.Linear(config.dim, config.hidden)
        self.linear2 = nn.Linear(config.hidden, config.dim)
        self.norm2 = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, sizes: Sizes) -> Tensor:
        x = self.norm1(x + self.self_attn(x + position, reference, x, sizes))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class DeformableEncoder(nn.Module):
    """Positions, level embeddings and the stack of layers."""

    def __init__(self, config: DeformablePixelDecoderConfig) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.zeros(config.levels, config.dim))
        layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.encoder = nn.ModuleDict({"layers": layers})
        self.depth = config.layers

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """maps (B, C, h, w), coarse to fine -> same shapes."""
        sizes = [(m.shape[-2], m.shape[-1]) for m in maps]
        dim = self.level_embed.shape[1]
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)  # (B, N, C)
        position = torch.cat(
            [
                sine_position(h, w, dim, x.device).flatten(1).T.to(x.dtype) + embed
                for (h, w), embed in zip(sizes, self.level_embed, strict=True)
            ]
        )
        reference = torch.cat([_centres(h, w, x) for h, w in sizes])  # (N, 2)
        for i in range(self.depth):
            x = self.get_submodule(f"encoder.layers.{i}")(x, position, reference, sizes)
        parts = x.split([h * w for h, w in sizes], 1)
        return [part.transpose(1, 2).reshape(m.shape) for part, m in zip(parts, maps, strict=True)]


class DeformablePixelDecoder(nn.Module):
    """res2 … res5 -> mask features at stride 4 and three maps for the prompt decoder."""

    def __init__(self, channels: Sequence[int], config: DeformablePixelDecoderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_dim, dim, 1), nn.GroupNorm(32, dim)) for in_dim in reversed(channels[1:])
        )
        self.transformer = DeformableEncoder(config)
        self.adapter_1 = NormedConv(channels[0], dim, 1, activate=False)
        self.layer_1 = NormedConv(dim, dim, 3, activate=True)
        self.mask_features = nn.Conv2d(dim, dim, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """maps res2 … res5 -> mask features (B, dim, H/4, W/4) and maps (B, dim, h, w) at strides 32, 16, 8."""
        coarse_first = [maps[3], maps[2], maps[1]]
        levels = self.transformer([proj(m) for proj, m in zip(self.input_proj, coarse_first, strict=True)])
        lateral = self.adapter_1(maps[0])
        above = F.interpolate(levels[-1], lateral.shape[-2:], mode="bilinear", align_corners=False)
        return self.mask_features(self.layer_1(lateral + above)), levels


def _centres(h: int, w: int, like: Tensor) -> Tensor:
    """Centres of the cells of an (h, w) map, xy in 0..1 -> (h * w, 2)."""
    y = (torch.arange(h, device=like.device, dtype=like.dtype) + 0.5) / h
    x = (torch.arange(w, device=like.device, dtype=like.dtype) + 0.5) / w
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([xx, yy], -1).view(-1, 2)
