"""Building blocks of the official family, with the parameter names that its checkpoints use."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KeysValues = tuple[Tensor, Tensor]
FEW_ROWS = 8  # up to here `linear` puts the weight on the left


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``, and faster for the few rows that a click is.

    A product with few rows on the left reads the weight at a fraction of the memory's speed on a CPU (3 rows of 512:
    three to six times slower than with the weight on the left).
    """
    rows = x.numel() // x.shape[-1]
    if not 0 < rows <= FEW_ROWS or x.device.type != "cpu" or weight.stride(-1) != 1:
        return F.linear(x, weight, bias)
    columns = x.reshape(rows, -1).T
    y = weight @ columns if bias is None else torch.addmm(bias[:, None], weight, columns)
    return y.T.contiguous().view(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """``nn.Linear`` by way of ``linear``."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class PackedAttention(nn.Module):
    """Multi-head attention whose three input projections lie in one matrix, as in ``nn.MultiheadAttention``.

    Projection and attention are separate calls, so that keys and values which depend on the image alone are
    computed once per image.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def _project(self, x: Tensor, part: int) -> Tensor:
        dim = self.out_proj.in_features
        rows = slice(part * dim, (part + 1) * dim)
        y = linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return y.unflatten(-1, (self.heads, dim // self.heads)).transpose(1, 2)  # (B, heads, n, dim / heads)

    def project_keys(self, key: Tensor, value: Tensor) -> KeysValues:
        """key, value (B, K, C) -> what ``attend`` needs."""
        return self._project(key, 1), self._project(value, 2)

    def attend(self, query: Tensor, keys: KeysValues, blocked: Tensor | None = None) -> Tensor:
        """query (B, Q, C), blocked (B, Q, K) bool, True = may not attend -> (B, Q, C). Every query must have a key."""
        q = self._project(query, 0)
        k, v = (t.expand(q.shape[0], -1, -1, -1) for t in keys)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if blocked is None else ~blocked[:, None])
        return self.out_proj(y.transpose(1, 2).flatten(2))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
        return self.attend(query, self.project_keys(key, value), blocked)


class PermutedLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NormedConv(nn.Conv2d):
    """Convolution without bias, GroupNorm of 32 groups, and ReLU if ``activate``."""

    def __init__(self, in_dim: int, dim: int, kernel: int, activate: bool) -> None:
        super().__init__(in_dim, dim, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(32, dim)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(super().forward(x))
        return F.relu(y) if self.activate else y


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zero-pad the last two axes right and bottom to a multiple."""
    h, w = x.shape[-2:]
    return F.pad(x, (0, -w % multiple, 0, -h % multiple)) if h % multiple or w % multiple else x


def sine_position(h: int, w: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Sine position encoding of an (h, w) map -> (dim, h, w): half the channels for y, half for x (SPEC 4.1)."""
    features = dim // 2
    exponent = 2 * (torch.arange(features, device=device) // 2) / features
    frequency = 10000**exponent  # (dim / 2,)
    halves = []
    for length in (h, w):
        angle = torch.arange(1, length + 1, device=device, dtype=torch.float32) / (length + 1e-6) * (2 * math.pi)
        phase = angle[:, None] / frequency  # (length, dim / 2)
        halves.append(torch.stack([phase[:, 0::2].sin(), phase[:, 1::2].cos()], -1).flatten(1))
    y, x = halves
    return torch.cat([y.T[:, :, None].expand(-1, h, w), x.T[:, None, :].expand(-1, h, w)])
