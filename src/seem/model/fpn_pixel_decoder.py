"""Pixel decoder of the FocalNet and DaViT variants: a transformer on the coarsest map, then a feature pyramid.

As in MaskFormer (arXiv 2107.06278) and X-Decoder (arXiv 2212.11270); SPEC section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.official_layers import NormedConv, PackedAttention, sine_position


@dataclass(frozen=True)
class FPNPixelDecoderConfig:
    dim: int = 512
    heads: int = 8
    hidden: int = 2048
    layers: int = 6


class EncoderLayer(nn.Module):
    """Post-norm self-attention and MLP; positions are added to queries and keys only."""

    def __init__(self, config: FPNPixelDecoderConfig) -> None:
        super().__init__()
        self.self_attn = PackedAttention(config.dim, config.heads)
        self.linear1 = nn.Linear(config.dim, config.hidden)
        self.linear2 = nn.Linear(config.hidden, config.dim)
        self.norm1 = nn.LayerNorm(config.dim)
        self.norm2 = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """x (B, N, C), position (1, N, C) -> (B, N, C)."""
        located = x + position
        x = self.norm1(x + self.self_attn(located, located, x))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class FPNPixelDecoder(nn.Module):
    """res2 … res5 -> mask features at stride 4 and three maps for the prompt decoder."""

    def __init__(self, channels: Sequence[int], config: FPNPixelDecoderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.input_proj = nn.Conv2d(channels[-1], dim, 1)
        layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.transformer = nn.ModuleDict({"encoder": nn.ModuleDict({"layers": layers})})
        for i, in_dim in enumerate(channels[:-1], 1):
            self.add_module(f"adapter_{i}", NormedConv(in_dim, dim, 1, activate=False))
        for i in range(1, len(channels) + 1):
            self.add_module(f"layer_{i}", NormedConv(dim, dim, 3, activate=True))
        self.mask_features = nn.Conv2d(dim, dim, 3, padding=1)
        self.encoder_layers = config.layers

    def encode(self, res5: Tensor) -> Tensor:
        """The transformer: (B, C5, h, w) -> (B, dim, h, w)."""
        x = self.input_proj(res5)
        b, dim, h, w = x.shape
        position = sine_position(h, w, dim, x.device).flatten(1).T[None].to(x.dtype)
        x = x.flatten(2).transpose(1, 2)
        for i in range(self.encoder_layers):
            x = self.get_submodule(f"transformer.encoder.layers.{i}")(x, position)
        return x.transpose(1, 2).reshape(b, dim, h, w)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """maps res2 … res5 -> mask features (B, dim, H/4, W/4) and maps (B, dim, h, w) at strides 32, 16, 8."""
        levels = [self.get_submodule(f"layer_{len(maps)}")(self.encode(maps[-1]))]
        for i in range(len(maps) - 1, 0, -1):
            lateral = self.get_submodule(f"adapter_{i}")(maps[i - 1])
            above = F.interpolate(levels[-1], lateral.shape[-2:], mode="nearest")
            levels.append(self.get_submodule(f"layer_{i}")(lateral + above))
        return self.mask_features(levels[-1]), levels[:3]
