"""FocalNet: convolutions and gates in place of attention.

Paper: Focal Modulation Networks, arXiv 2203.11926. As used by SEEM: SPEC section 3.1.

One class serves both published sizes; what differs is data:
- Tiny puts a residual depth-wise convolution before each half of a block and normalises *after* the residual sum;
- Large normalises the branch only, the residual stays as it is;
- the stem pads by 3 (Tiny) or by 2 (Large).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.official_layers import PermutedLayerNorm, pad_to_multiple


@dataclass(frozen=True)
class FocalNetConfig:
    """Sizes; the defaults are FocalNet-T as SEEM uses it (29.9 M parameters)."""

    width: int = 96  # channels at stride 4, doubled at each further stage
    depths: tuple[int, ...] = (2, 2, 6, 2)
    focal_levels: int = 3
    first_window: int = 3
    stem_padding: int = 3
    depthwise: bool = True  # the Tiny block; False is the Large block

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of res2, res3, res4, res5."""
        return tuple(self.width * 2**i for i in range(len(self.depths)))


FOCALNET_T = FocalNetConfig()
FOCALNET_L = FocalNetConfig(width=192, depths=(2, 2, 18, 2), focal_levels=4, stem_padding=2, depthwise=False)


class FocalModulation(nn.Module):
    """Multiply every position by a gated sum of its surroundings at growing window sizes."""

    def __init__(self, dim: int, levels: int, first_window: int) -> None:
        super().__init__()
        self.levels = levels
        self.f = nn.Linear(dim, 2 * dim + levels + 1)
        self.h = nn.Conv2d(dim, dim, 1)
        self.proj = nn.Linear(dim, dim)
        self.focal_layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, dim, first_window + 2 * k, padding=(first_window + 2 * k) // 2, groups=dim, bias=False),
                nn.GELU(),
            )
            for k in range(levels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H, W, C) -> (B, H, W, C)."""
        dim = x.shape[-1]
        query, context, gates = self.f(x).permute(0, 3, 1, 2).split([dim, dim, self.levels + 1], 1)
        gathered: Tensor | float = 0.0
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            gathered = gathered + context * gates[:, level : level + 1]
        everywhere = F.gelu(context.mean((2, 3), keepdim=True))
        gathered = (gathered + everywhere * gates[:, self.levels :]) / (self.levels + 1)
        return self.proj((query * self.h(gathered)).permute(0, 2, 3, 1))


class Perceptron(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class FocalBlock(nn.Module):
    """Focal modulation and an MLP, each with a layer scale (``gamma``) and a LayerNorm."""

    def __init__(self, dim: int, config: FocalNetConfig) -> None:
        super().__init__()
        if config.depthwise:
            self.dw1 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
            self.dw2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.depthwise = config.depthwise
        self.norm1 = nn.LayerNorm(dim)
        self.modulation = FocalModulation(dim, config.focal_levels, config.first_window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Perceptron(dim, 4 * dim)
        self.gamma_1 = nn.Parameter(torch.full((dim,), 1e-4))
        self.gamma_2 = nn.Parameter(torch.full((dim,), 1e-4))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H, W, C) -> same."""
        if self.depthwise:
            x = x + _channels_first(self.dw1, x)
            x = self.norm1(x + self.gamma_1 * self.modulation(x))
            x = x + _channels_first(self.dw2, x)
            return self.norm2(x + self.gamma_2 * self.mlp(x))
        x = x + self.gamma_1 * self.norm1(self.modulation(x))
        return x + self.gamma_2 * self.norm2(self.mlp(x))


class Embedding(nn.Module):
    """Overlapping convolution and LayerNorm: the stem and the step from one stage to the next."""

    def __init__(self, in_dim: int, dim: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, kernel, stride, padding)
        self.norm = PermutedLayerNorm(dim)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C', H/stride, W/stride)."""
        return self.norm(self.proj(pad_to_multiple(x, self.stride)))


class Stage(nn.Module):
    def __init__(self, dim: int, depth: int, config: FocalNetConfig, last: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(FocalBlock(dim, config) for _ in range(depth)))
        self.downsample = nn.Identity() if last else Embedding(dim, 2 * dim, 3, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) -> the stage's output (B, H, W, C) and the next stage's input (B, C', H/2, W/2)."""
        y = self.blocks(x.permute(0, 2, 3, 1))
        return y, self.downsample(y.permute(0, 3, 1, 2))


class FocalNet(nn.Module):
    """Image encoder with four stages, each with a LayerNorm of its own on the way out."""

    def __init__(self, config: FocalNetConfig) -> None:
        super().__init__()
        self.channels = config.channels
        self.patch_embed = Embedding(3, config.width, 7, 4, config.stem_padding)
        last = len(config.depths) - 1
        self.layers = nn.ModuleList(
            Stage(dim, depth, config, i == last)
            for i, (dim, depth) in enumerate(zip(config.channels, config.depths, strict=True))
        )
        for i, dim in enumerate(config.channels):
            self.add_module(f"norm{i}", nn.LayerNorm(dim))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """pixels (B, 3, H, W), normalised -> res2, res3, res4, res5: (B, C_i, H/2^(i+2), W/2^(i+2))."""
        x = self.patch_embed(pixels)
        outputs = []
        for i, stage in enumerate(self.layers):
            y, x = stage(x)
            outputs.append(self.get_submodule(f"norm{i}")(y).permute(0, 3, 1, 2))
        return outputs


def _channels_first(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    return convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
