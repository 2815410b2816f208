"""DaViT: attention between positions in windows, then attention between channels.

Paper: DaViT: Dual Attention Vision Transformers, arXiv 2204.03645. As used by SEEM: SPEC section 3.2.

Here against the paper: depth-wise convolutions before both halves of a block serve as position encoding; windows
are zero-padded after the norm, and the padding takes part in attention; stage outputs are not normalised.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.official_layers import PermutedLayerNorm, pad_to_multiple


@dataclass(frozen=True)
class DaViTConfig:
    """Sizes; the defaults are DaViT-d3 as SEEM uses it (86.9 M parameters)."""

    channels: tuple[int, ...] = (128, 256, 512, 1024)  # of res2, res3, res4, res5
    heads: tuple[int, ...] = (4, 8, 16, 32)  # also the number of channel groups
    depths: tuple[int, ...] = (1, 1, 9, 1)
    kernels: tuple[int, ...] = (7, 2, 2, 2)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    paddings: tuple[int, ...] = (3, 0, 0, 0)
    window: int = 7


DAVIT_D3 = DaViTConfig()
DAVIT_D5 = DaViTConfig(
    channels=(256, 512, 1024, 2048), heads=(8, 16, 32, 64), kernels=(7, 3, 3, 3), paddings=(3, 1, 1, 1)
)


class PatchEmbed(nn.Module):
    """Convolution with its LayerNorm before it, or after it at the stem."""

    def __init__(self, in_dim: int, dim: int, kernel: int, stride: int, padding: int, norm_first: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, kernel, stride, padding)
        self.norm = PermutedLayerNorm(in_dim if norm_first else dim)
        self.norm_first = norm_first
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C', H/stride, W/stride)."""
        if self.norm_first:
            return self.proj(pad_to_multiple(self.norm(x), self.stride))
        return self.norm(self.proj(pad_to_multiple(x, self.stride)))


class WindowAttention(nn.Module):
    """Self-attention inside windows. (B, H, W, C) -> same."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s = self.window
        x = F.pad(x, (0, 0, 0, -w % s, 0, -h % s))
        rows, columns = x.shape[1] // s, x.shape[2] // s
        x = x.view(b, rows, s, columns, s, c).transpose(2, 3).reshape(-1, s * s, c)  # (B * windows, s * s, C)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, c // self.heads)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)  # (B * windows, heads, s * s, C / heads)
        y = self.proj(y.transpose(1, 2).flatten(2))
        y = y.view(b, rows, columns, s, s, c).transpose(2, 3).reshape(b, rows * s, columns * s, c)
        return y[:, :h, :w]


class ChannelAttention(nn.Module):
    """Self-attention between the channels of a group, each channel described by the whole map. (B, H, W, C) -> same."""

    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        qkv = self.qkv(x.view(b, h * w, c)).unflatten(-1, (3, self.groups, c // self.groups))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, groups, N, C / groups)
        weight = (q * (h * w) ** -0.5).transpose(-1, -2) @ k  # (B, groups, C / groups, C / groups)
        y = v @ weight.softmax(-1).transpose(-1, -2)
        return self.proj(y.transpose(1, 2).reshape(b, h, w, c))


class Perceptron(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        return self.net["fc2"](F.gelu(self.net["fc1"](x)))


class PreNorm(nn.Module):
    """x + fn(norm(x)) for x (B, H, W, C)."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(self.norm(x))


class PositionConv(nn.Module):
    """x + depth-wise 3 x 3 convolution of x, for x (B, H, W, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fn = nn.ModuleDict({"dw": nn.Conv2d(dim, dim, 3, padding=1, groups=dim)})

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn["dw"](x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _half_block(name: str, dim: int, attention: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            {
                "conv1": PositionConv(dim),
                name: PreNorm(dim, attention),
                "conv2": PositionConv(dim),
                "ffn": PreNorm(dim, Perceptron(dim)),
            }
        )
    )


class DualBlock(nn.ModuleDict):
    """Window attention, then channel attention, each with its own MLP. (B, H, W, C) -> same."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(
            {
                "spatial_block": _half_block("window_attn", dim, WindowAttention(dim, heads, window)),
                "channel_block": _half_block("channel_attn", dim, ChannelAttention(dim, heads)),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        for half in self.values():
            x = half(x)
        return x


class DaViT(nn.Module):
    """Image encoder with four stages of dual attention blocks."""

    def __init__(self, config: DaViTConfig) -> None:
        super().__init__()
        self.channels = config.channels
        in_dims = (3, *config.channels[:-1])
        self.convs = nn.ModuleList(
            PatchEmbed(*sizes, norm_first=i > 0)
            for i, sizes in enumerate(
                zip(in_dims, config.channels, config.kernels, config.strides, config.paddings, strict=True)
            )
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*(DualBlock(dim, heads, config.window) for _ in range(depth)))
            for dim, heads, depth in zip(config.channels, config.heads, config.depths, strict=True)
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """pixels (B, 3, H, W), normalised -> res2, res3, res4, res5: (B, C_i, H/2^(i+2), W/2^(i+2))."""
        x, outputs = pixels, []
        for embed, blocks in zip(self.convs, self.blocks, strict=True):
            y = embed(x).permute(0, 2, 3, 1)  # (B, H, W, C)
            y = blocks(y)
            x = y.permute(0, 3, 1, 2).contiguous()
            outputs.append(x)
        return outputs
