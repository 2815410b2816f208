"""SAM's plain vision transformer with a simple feature pyramid.

Papers: Segment Anything, arXiv 2304.02643; ViTDet, arXiv 2203.16527. As used by SEEM: SPEC section 3.3.

Here against SAM: its own neck is replaced by ``SimpleFPN``. The position table is fixed, so the input must be
exactly 16 x 64 pixels on each side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SamViTConfig:
    """Sizes; the defaults are ViT-B (98.4 M parameters with the pyramid)."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)  # the others attend inside windows
    window: int = 14
    patch: int = 16
    grid: int = 64  # patches on each side
    channels: tuple[int, ...] = (128, 256, 512, 1024)  # of res2, res3, res4, res5
    pyramid_widths: tuple[int, int] = (256, 1024)  # least inner width at strides 4 and 8, and at 32


SAM_VIT_B = SamViTConfig()
SAM_VIT_L = SamViTConfig(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23))


class RelativeAttention(nn.Module):
    """Self-attention with a bias from the relative row and the relative column. (B, H, W, C) -> same."""

    def __init__(self, dim: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        qkv = self.qkv(x.reshape(b, h * w, c)).unflatten(-1, (3, self.heads, c // self.heads))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, H * W, C / heads)
        steps = torch.arange(self.size, device=x.device)
        offset = steps[:, None] - steps + self.size - 1  # (size, size): row of the table for (query, key)
        grid = q.unflatten(2, (h, w))
        by_row = torch.einsum("bnhwc,hkc->bnhwk", grid, self.rel_pos_h[offset])  # the query is NOT scaled here
        by_column = torch.einsum("bnhwc,wkc->bnhwk", grid, self.rel_pos_w[offset])
        bias = (by_row[..., :, None] + by_column[..., None, :]).reshape(b, self.heads, h * w, h * w)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(y.transpose(1, 2).reshape(b, h, w, c))


class Perceptron(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, 4 * dim)
        self.lin2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.gelu(self.lin1(x)))


class Block(nn.Module):
    """Pre-norm attention, inside windows if ``window``, and MLP."""

    def __init__(self, config: SamViTConfig, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = RelativeAttention(config.width, config.heads, window or config.grid)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = Perceptron(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H, W, C) -> same."""
        y = self.norm1(x)
        x = x + (self._in_windows(y) if self.window else self.attn(y))
        return x + self.mlp(self.norm2(x))

    def _in_windows(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s = self.window
        x = F.pad(x, (0, 0, 0, -w % s, 0, -h % s))  # zeros after the norm; they take part in attention
        rows, columns = x.shape[1] // s, x.shape[2] // s
        x = x.view(b, rows, s, columns, s, c).transpose(2, 3).reshape(-1, s, s, c)
        x = self.attn(x).view(b, rows, columns, s, s, c).transpose(2, 3)
        return x.reshape(b, rows * s, columns * s, c)[:, :h, :w]


class SimpleFPN(nn.Module):
    """Four maps from one: strides 4, 8, 16 and 32 from the stride-16 map."""

    def __init__(self, config: SamViTConfig) -> None:
        super().__init__()
        dim, (c4, c8, c16, c32) = config.width, config.channels
        fine, coarse = max(config.pyramid_widths[0], dim // 2), max(config.pyramid_widths[1], 2 * dim)

        def norm(channels: int) -> nn.GroupNorm:
            return nn.GroupNorm(1, channels)

        self.down_4 = nn.Sequential(
            nn.ConvTranspose2d(dim, fine, 2, 2),
            norm(fine),
            nn.GELU(),
            nn.ConvTranspose2d(fine, fine // 2, 2, 2),
            norm(fine // 2),
            nn.Conv2d(fine // 2, c4, 1),
            norm(c4),
            nn.GELU(),
        )
        self.down_8 = nn.Sequential(
            nn.ConvTranspose2d(dim, fine, 2, 2), norm(fine), nn.Conv2d(fine, c8, 1), norm(c8), nn.GELU()
        )
        self.down_16 = nn.Sequential(nn.Conv2d(dim, c16, 1), norm(c16), nn.GELU())
        self.down_32 = nn.Sequential(
            nn.Conv2d(dim, coarse, 2, 2), norm(coarse), nn.Conv2d(coarse, c32, 1), norm(c32), nn.GELU()
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (B, C, H, W) at stride 16 -> res2, res3, res4, res5."""
        return [self.down_4(x), self.down_8(x), self.down_16(x), self.down_32(x)]


class SamViT(nn.Module):
    """Image encoder: transformer at stride 16, then ``SimpleFPN``."""

    def __init__(self, config: SamViTConfig) -> None:
        super().__init__()
        self.channels = config.channels
        self.side = config.patch * config.grid
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, config.width, config.patch, config.patch)})
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid, config.grid, config.width))
        self.blocks = nn.ModuleList(
            Block(config, 0 if i in config.global_blocks else config.window) for i in range(config.depth)
        )
        self.neck = SimpleFPN(config)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """pixels (B, 3, side, side), normalised and padded -> res2, res3, res4, res5 at strides 4, 8, 16, 32.

        Raises:
            ValueError: the input is not ``side`` pixels high and wide.
        """
        if tuple(pixels.shape[-2:]) != (self.side, self.side):
            raise ValueError(f"pixels must be padded to {self.side} x {self.side}, got {tuple(pixels.shape[-2:])}")
        x = self.patch_embed["proj"](pixels).permute(0, 2, 3, 1) + self.pos_embed  # (B, H, W, C)
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))
