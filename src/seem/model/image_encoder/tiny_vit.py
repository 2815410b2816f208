"""TinyViT-5M image encoder.

Paper: Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", arXiv 2207.10666.
Weights: distilled from SAM's ViT-H image encoder (the MobileSAM recipe, arXiv 2306.14289), see NOTICE.

Differences from the published network:
- every BatchNorm is already folded into the convolution before it, so a convolution here always has a bias;
- the attention bias is kept as its table of distinct offsets, (heads, window * window), and expanded on use;
- features of strides 4, 8 and 16 are returned beside the neck's output, and any input size works: a map is
  zero-padded to whole windows, as the original does inside each block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TinyViTConfig:
    """Widths, depths and windows of the four stages; the defaults are TinyViT-5M as used by MobileSAM."""

    dims: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    windows: tuple[int, int, int, int] = (7, 7, 14, 7)
    neck_dim: int = 256


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of an (B, C, H, W) map."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


class InvertedResidual(nn.Module):
    """1x1, depth-wise 3x3, 1x1 with the residual added inside the last GELU (stage 0)."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = dim * expansion
        self.conv1 = nn.Conv2d(dim, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.conv3 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(y))


class PatchMerging(nn.Module):
    """1x1, GELU, depth-wise 3x3 (which carries the stride), GELU, 1x1."""

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, out_dim, 1)
        self.conv2 = nn.Conv2d(out_dim, out_dim, 3, stride=stride, padding=1, groups=out_dim)
        self.conv3 = nn.Conv2d(out_dim, out_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowAttention(nn.Module):
    """Pre-norm multi-head attention inside one window, with a bias per head and absolute offset."""

    offset_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.bias_table = nn.Parameter(torch.zeros(heads, window * window))
        ys, xs = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        cells = torch.stack([ys.flatten(), xs.flatten()], 1)
        offset = (cells[:, None] - cells[None]).abs()
        self.register_buffer("offset_index", offset[..., 0] * window + offset[..., 1], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(windows, cells, C) -> the same."""
        n, cells, dim = x.shape
        # per head: query, key, value lie side by side
        qkv = self.qkv(self.norm(x)).view(n, cells, self.heads, 3, dim // self.heads).permute(3, 0, 2, 1, 4)
        bias = self.bias_table[:, self.offset_index]  # (heads, cells, cells)
        y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=bias.unsqueeze(0))
        return self.proj(y.transpose(1, 2).reshape(n, cells, dim))


class Mlp(nn.Module):
    """Pre-norm two-layer perceptron, ratio 4."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


def split_windows(x: Tensor, side: int) -> Tensor:
    """(B, H, W, C) -> (windows, side * side, C); zeros fill up, and take part in attention, as in the original."""
    b, h, w, c = x.shape
    padded = F.pad(x, (0, 0, 0, -w % side, 0, -h % side))
    rows, cols = padded.shape[1] // side, padded.shape[2] // side
    return padded.view(b, rows, side, cols, side, c).transpose(2, 3).reshape(-1, side * side, c)


def join_windows(y: Tensor, like: Tensor, side: int) -> Tensor:
    """The way back of `split_windows`, to the shape of ``like``."""
    b, h, w, c = like.shape
    rows, cols = -(-h // side), -(-w // side)
    y = y.view(b, rows, cols, side, side, c).transpose(2, 3).reshape(b, rows * side, cols * side, c)
    return y[:, :h, :w]


class TinyViTBlock(nn.Module):
    """Window attention + residual, a depth-wise 3x3 in place of its input, MLP + residual."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(dim, heads, window)
        self.local_conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        x = x + join_windows(self.attn(split_windows(x, self.window)), x, self.window)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.mlp(x)


class TinyViT(nn.Module):
    """(B, 3, H, W) normalised RGB -> maps of stride 4, 8 and 16 and the neck's embedding at stride 16."""

    def __init__(self, config: TinyViTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TinyViTConfig()
        d = config.dims
        self.stem1 = nn.Conv2d(3, d[0] // 2, 3, stride=2, padding=1)
        self.stem2 = nn.Conv2d(d[0] // 2, d[0], 3, stride=2, padding=1)
        self.stage0 = nn.Sequential(*(InvertedResidual(d[0]) for _ in range(config.depths[0])))
        self.merge0 = PatchMerging(d[0], d[1], stride=2)
        self.stage1 = self._stage(1)
        self.merge1 = PatchMerging(d[1], d[2], stride=2)
        self.stage2 = self._stage(2)
        self.merge2 = PatchMerging(d[2], d[3], stride=1)
        self.stage3 = self._stage(3)
        self.neck = nn.Sequential(
            nn.Conv2d(d[3], config.neck_dim, 1, bias=False),
            ChannelLayerNorm(config.neck_dim),
            nn.Conv2d(config.neck_dim, config.neck_dim, 3, padding=1, bias=False),
            ChannelLayerNorm(config.neck_dim),
        )

    def _stage(self, i: int) -> nn.Sequential:
        c = self.config
        return nn.Sequential(*(TinyViTBlock(c.dims[i], c.heads[i], c.windows[i]) for _ in range(c.depths[i])))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``s4`` (B, 64, H/4, W/4), ``s8`` (B, 128, …/8), ``s16`` (B, 320, …/16) and ``neck`` (B, 256, …/16)."""
        s4 = self.stage0(self.stem2(F.gelu(self.stem1(x))))
        y = self.stage1(self.merge0(s4).permute(0, 2, 3, 1))
        s8 = y.permute(0, 3, 1, 2)
        y = self.stage2(self.merge1(s8).permute(0, 2, 3, 1))
        y = self.stage3(self.merge2(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        s16 = y.permute(0, 3, 1, 2)
        return {"s4": s4, "s8": s8, "s16": s16, "neck": self.neck(s16)}
