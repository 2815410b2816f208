"""Building blocks that several parts share: attention, perceptron, position encodings."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than the model's.

    ``project_keys`` is separate so that keys and values which depend on the image alone are computed once an image.
    """

    def __init__(self, dim: int, heads: int, inner_dim: int | None = None) -> None:
        super().__init__()
        inner_dim = inner_dim or dim
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner_dim)
        self.k_proj = nn.Linear(dim, inner_dim)
        self.v_proj = nn.Linear(dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, dim)

    def split(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        return x.view(b, n, self.heads, c // self.heads).transpose(1, 2)  # (B, heads, n, c)

    def project_keys(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.split(self.k_proj(key)), self.split(self.v_proj(value))

    def attend(self, query: Tensor, keys: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        """``mask`` True = may attend, broadcastable to (B, heads, queries, keys)."""
        return self.attend_projected(self.q_proj(query), keys, mask)

    def attend_projected(self, query: Tensor, keys: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        """`attend` with queries (B, n, inner) that are projected already."""
        q = self.split(query)
        batch = max(q.shape[0], keys[0].shape[0])  # either side may be shared by all objects
        q, k, v = (t.expand(batch, -1, -1, -1) for t in (q, *keys))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return out

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.attend(query, self.project_keys(key, value), mask)


class MLP(nn.Module):
    """``depth`` linear layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, depth: int = 3) -> None:
        super().__init__()
        dims = [in_dim, *[hidden_dim] * (depth - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class RandomFourierPosition(nn.Module):
    """Positions as sines and cosines of a fixed random projection (Tancik et al., arXiv 2006.10739), as in SAM."""

    projection: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(2, dim // 2))

    def forward(self, xy: Tensor) -> Tensor:
        """(…, 2) in units of the canvas, 0..1 -> (…, dim)."""
        angle = ((2 * xy - 1) @ self.projection) * (2 * math.pi)
        return torch.cat([angle.sin(), angle.cos()], -1)

    def grid(self, h: int, w: int, stride: float, canvas: float) -> Tensor:
        """Centres of an (h, w) map of that stride -> (h * w, dim)."""
        device = self.projection.device
        ys = (torch.arange(h, device=device, dtype=torch.float32) + 0.5) * stride / canvas
        xs = (torch.arange(w, device=device, dtype=torch.float32) + 0.5) * stride / canvas
        yy, xx = torch.meshgrid(ys, xs, indexing="ij")
        return self(torch.stack([xx, yy], -1).view(-1, 2))


def sample_map(feature: Tensor, xy: Tensor, stride: float) -> Tensor:
    """Bilinear read of a (1, C, h, w) map at continuous pixel coordinates (P, 2) -> (P, C)."""
    h, w = feature.shape[-2:]
    grid = torch.stack([xy[:, 0] / (stride * w), xy[:, 1] / (stride * h)], -1) * 2 - 1
    read = F.grid_sample(feature, grid.view(1, 1, -1, 2).to(feature.dtype), align_corners=False, padding_mode="border")
    return read[0, :, 0].T
