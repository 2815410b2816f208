"""The light pixel decoder: joins what is where (SAM-distilled features) with what things are (ImageNet features).

It keeps four small maps per image (`PixelMaps`), about 2.5 MB in half precision at 512 x 512; everything wider that
the prompt decoder reads (levels, keys, values, pixel embeddings) is projected from them once per image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.config import PixelDecoderConfig, PromptDecoderConfig
from seem.model.image_encoder.tiny_vit import ChannelLayerNorm


@dataclass
class PixelMaps:
    """All with batch 1. Saved, sent to a browser, and enough to rebuild the rest."""

    embedding: Tensor  # (1, dim, H/16, W/16) image stream of the prompt decoder
    semantic: Tensor  # (1, semantic_dim, H/16, W/16)
    middle: Tensor  # (1, middle_dim, H/8, W/8)
    fine: Tensor  # (1, mask_dim, H/4, W/4) added to the prompted mask features


class ConvBlock(nn.Module):
    """Residual: LayerNorm, depth-wise 5x5, GELU between two 1x1 of twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.norm = ChannelLayerNorm(dim)
        self.expand = nn.Conv2d(dim, 2 * dim, 1)
        self.reduce = nn.Conv2d(2 * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.reduce(F.gelu(self.expand(self.norm(self.depthwise(x)))))


class LightPixelDecoder(nn.Module):
    """``forward(encoder maps) -> PixelMaps``. Additions to the SAM stream start at zero, so it begins as SAM's own."""

    def __init__(
        self,
        config: PixelDecoderConfig,
        decoder: PromptDecoderConfig,
        spatial_dims: tuple[int, int, int],  # strides 4, 8, 16 of the image encoder
        semantic_dims: tuple[int, int, int],  # strides 8, 16, 32 of the semantic encoder
    ) -> None:
        super().__init__()
        s4, s8, s16 = spatial_dims
        e8, e16, e32 = semantic_dims
        c, m = config.semantic_dim, config.middle_dim
        self.coarse = nn.Conv2d(e32, c, 1)
        self.lateral_semantic = nn.Conv2d(e16, c, 1)
        self.lateral_spatial = nn.Conv2d(s16, c, 1)
        self.semantic_blocks = nn.Sequential(ConvBlock(c), ConvBlock(c))
        self.semantic_norm = ChannelLayerNorm(c)
        self.middle_spatial = nn.Conv2d(s8, m, 1)
        self.middle_semantic = nn.Conv2d(e8, m, 1)
        self.middle_top = nn.Conv2d(c, m, 1)
        self.middle_block = ConvBlock(m)
        self.middle_norm = ChannelLayerNorm(m)
        self.to_embedding = nn.Conv2d(c, config.dim, 1)
        self.to_fine = nn.Conv2d(s4, decoder.mask_dim, 1)
        for zero in (self.to_embedding, self.to_fine):
            for parameter in zero.parameters():
                nn.init.zeros_(parameter)

    def forward(self, spatial: dict[str, Tensor], semantic: dict[str, Tensor]) -> PixelMaps:
        s16, s8 = spatial["s16"], spatial["s8"]
        coarse = F.interpolate(self.coarse(semantic["s32"]), s16.shape[-2:], mode="bilinear", align_corners=False)
        top = self.lateral_semantic(semantic["s16"]) + self.lateral_spatial(s16) + coarse
        top = self.semantic_norm(self.semantic_blocks(top))
        up = F.interpolate(self.middle_top(top), s8.shape[-2:], mode="bilinear", align_corners=False)
        middle = self.middle_spatial(s8) + self.middle_semantic(semantic["s8"]) + up
        middle = self.middle_norm(self.middle_block(middle))
        return PixelMaps(spatial["neck"] + self.to_embedding(top), top, middle, self.to_fine(spatial["s4"]))


class JointProjection(nn.Module):
    """Pixels into the space of text: the stride-8 map says where, the stride-16 map what."""

    def __init__(self, config: PixelDecoderConfig) -> None:
        super().__init__()
        self.middle = nn.Conv2d(config.middle_dim, config.joint_dim, 1)
        self.semantic = nn.Conv2d(config.semantic_dim, config.joint_dim, 1)

    def forward(self, maps: PixelMaps) -> Tensor:
        """(1, joint_dim, H/8, W/8), not normalised."""
        top = F.interpolate(self.semantic(maps.semantic), maps.middle.shape[-2:], mode="bilinear", align_corners=False)
        out: Tensor = self.middle(maps.middle) + top
        return out


def pool_masks(pixels: Tensor, masks: Tensor) -> Tensor:
    """Mean of (1, D, h, w) over soft masks (N, H, W) in 0..1 -> (N, D); an empty mask gives zeros."""
    weight = F.interpolate(
        masks[:, None], pixels.shape[-2:], mode="area" if masks.shape[-1] > pixels.shape[-1] else "nearest"
    )
    weight = weight[:, 0].flatten(1)
    return torch.einsum("np,dp->nd", weight, pixels[0].flatten(1)) / weight.sum(1, keepdim=True).clamp_min(1e-4)
