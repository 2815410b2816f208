"""The prompt decoder: queries and prompt tokens against one image.

    prompted objects   candidate queries + visual, text, reference and memory tokens, one object a batch row
                       1. two-way layers: tokens among themselves, tokens <- image, perceptron, image <- tokens
                       2. mask features: the prompted stride-16 stream, upsampled to stride 4
    object queries     1. the same layers on the unprompted image (its stream never changes), all rows together
                       2. masked layers: they read strides 32, 16, 8 inside their own last mask, and each other

Who attends to whom is the table "tiny" of `attention_rules`: an object's queries, tokens and memories see each other
and nothing of another object (each is a batch row of its own); object queries see object queries. Memory tokens read
the image only inside the previous mask. The two-way layers and the mask features have the shape of SAM's mask decoder
(Kirillov et al., arXiv 2304.02643): its weights can start them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.config import PixelDecoderConfig, PromptDecoderConfig
from seem.model.image_encoder.tiny_vit import ChannelLayerNorm
from seem.model.layers import MLP, Attention, RandomFourierPosition
from seem.model.pixel_decoder import PixelMaps


@dataclass
class ImageState:
    """What the image alone decides, projected once: nothing here is paid again by a prompt."""

    stream: Tensor  # (1, h16 * w16, dim) image stream
    grid: tuple[int, int]  # (h16, w16)
    stream_bias: list[Tensor]  # what the positions add to each two-way layer's (and the last) projection of the stream
    plain: Tensor  # the first layer's projection of the stream without a dense prompt
    middle: Tensor  # (1, h8, w8, 64) added inside the upsampling
    fine: Tensor  # (1, h4, w4, mask_dim)
    joint: Tensor  # (1, joint_dim, h8, w8) pixel embeddings, L2-normalised


@dataclass
class Levels:
    """Keys and values of the masked layers; only object queries need them, so they are projected when asked for."""

    keys: list[tuple[Tensor, Tensor]]
    grids: list[tuple[int, int]]


@dataclass
class TokenBatch:
    """Prompts of N objects, padded to the same length."""

    tokens: Tensor  # (N, P, dim)
    valid: Tensor  # (N, P) bool
    grounding: Tensor  # (N,) bool: named only, so the grounding queries answer
    dense: Tensor | None  # (N, 1, h4, w4) mask logits, 0 where unknown
    has_dense: Tensor  # (N,) bool
    previous: Tensor | None  # (N, h4, w4) logits of the round before
    has_previous: Tensor  # (N,) bool
    similarity: Tensor | None  # (N, 2, h8, w8) text and reference similarity
    has_similarity: Tensor  # (N,) bool


@dataclass
class DecoderOutput:
    logits: Tensor  # (N, S, h4, w4)
    iou: Tensor  # (N, S) logit of the predicted IoU is clamped to 0..1 by the caller
    queries: Tensor  # (N, S, dim)
    coarse_logits: Tensor  # (N, S, h4, w4) before the masked layers; the same tensor where there are none


class TwoWayLayer(nn.Module):
    """Post-norm: self-attention, tokens read the image, perceptron, the image reads the tokens."""

    def __init__(self, c: PromptDecoderConfig, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(c.dim, c.heads)
        self.norm1 = nn.LayerNorm(c.dim)
        self.to_image = Attention(c.dim, c.heads, c.cross_dim)
        self.norm2 = nn.LayerNorm(c.dim)
        self.mlp = MLP(c.dim, c.ffn_dim, c.dim, depth=2)
        self.norm3 = nn.LayerNorm(c.dim)
        self.from_tokens = Attention(c.dim, c.heads, c.cross_dim)
        self.norm4 = nn.LayerNorm(c.dim)

    def stream_weights(self) -> tuple[Tensor, Tensor]:
        """The three projections that read the image stream, as one: keys, values, and the stream's own queries."""
        parts = (self.to_image.k_proj, self.to_image.v_proj, self.from_tokens.q_proj)
        return torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])

    def tokens(
        self, x: Tensor, pos: Tensor, keys: tuple[Tensor, Tensor], self_mask: Tensor | None, image_mask: Tensor | None
    ) -> Tensor:
        if self.first:
            x = self.norm1(self.self_attn(x, x, x, self_mask))
        else:
            x = self.norm1(x + self.self_attn(x + pos, x + pos, x, self_mask))
        x = self.norm2(x + self.to_image.attend(x + pos, keys, image_mask))
        return self.norm3(x + self.mlp(x))

    def image(self, stream: Tensor, queries: Tensor, x: Tensor, pos: Tensor, mask: Tensor | None) -> Tensor:
        """``queries`` (B, cells, cross_dim) is the stream's part of `stream_weights`."""
        keys = self.from_tokens.project_keys(x + pos, x)
        return self.norm4(stream + self.from_tokens.attend_projected(queries, keys, mask))


class MaskedLayer(nn.Module):
    """Pre-norm with layer scale: read one level inside the last mask, then each other, then a perceptron."""

    def __init__(self, c: PromptDecoderConfig) -> None:
        super().__init__()
        self.cross_norm = nn.LayerNorm(c.dim)
        self.cross = Attention(c.dim, c.heads, c.cross_dim)
        self.cross_scale = nn.Parameter(torch.full((c.dim,), 0.1))
        self.self_norm = nn.LayerNorm(c.dim)
        self.self_attn = Attention(c.dim, c.heads)
        self.self_scale = nn.Parameter(torch.full((c.dim,), 0.1))
        self.ffn_norm = nn.LayerNorm(c.dim)
        self.ffn = MLP(c.dim, 2 * c.dim, c.dim, depth=2)
        self.ffn_scale = nn.Parameter(torch.full((c.dim,), 0.1))

    def forward(
        self, x: Tensor, pos: Tensor, keys: tuple[Tensor, Tensor], allowed: Tensor, self_mask: Tensor | None
    ) -> Tensor:
        """``allowed`` (B, rows, cells) True = inside the row's last mask."""
        y = self.cross_norm(x) + pos
        x = x + self.cross_scale * self.cross.attend(y, keys, allowed.unsqueeze(1))
        y = self.self_norm(x)
        x = x + self.self_scale * self.self_attn(y + pos, y + pos, y, self_mask)
        return x + self.ffn_scale * self.ffn(self.ffn_norm(x))


class PromptDecoder(nn.Module):
    """See the module's docstring; built from a `PromptDecoderConfig`."""

    two_way: list[TwoWayLayer]
    masked: list[MaskedLayer]

    def __init__(self, config: PromptDecoderConfig, pixel: PixelDecoderConfig) -> None:
        super().__init__()
        self.config = c = config
        s, d = c.candidates, c.dim
        self.score_token = nn.Embedding(1, d)
        self.spatial_queries = nn.Embedding(s, d)
        self.grounding_queries = nn.Embedding(s, d)
        self.object_queries = nn.Embedding(c.object_queries, d)
        self.object_positions = nn.Embedding(c.object_queries, d)
        self.memory = nn.Embedding(c.memory_tokens, d)
        self.two_way = nn.ModuleList(  # type: ignore[assignment]
            TwoWayLayer(c, first=i == 0) for i in range(c.two_way_layers)
        )
        self.final_attn = Attention(d, c.heads, c.cross_dim)
        self.final_norm = nn.LayerNorm(d)
        self.masked = nn.ModuleList(MaskedLayer(c) for _ in range(c.masked_layers))  # type: ignore[assignment]
        self.out_norm = nn.LayerNorm(d)
        self.level_projections = nn.ModuleList(
            nn.Conv2d(w, d, 1) for w in (pixel.semantic_dim, pixel.semantic_dim, pixel.middle_dim)
        )
        self.level_embed = nn.Embedding(3, d)
        # mask features
        self.up1 = nn.ConvTranspose2d(d, 64, 2, stride=2)
        self.up_norm = ChannelLayerNorm(64)
        self.up2 = nn.ConvTranspose2d(64, c.mask_dim, 2, stride=2)
        self.middle_skip = nn.Conv2d(pixel.middle_dim, 64, 1)
        for zero in self.middle_skip.parameters():
            nn.init.zeros_(zero)
        self.mask_embed = nn.ModuleList(MLP(d, d, c.mask_dim) for _ in range(s))
        self.object_mask_embed = MLP(d, d, c.mask_dim)
        self.iou_head = MLP(d, d, s)
        self.object_iou_head = MLP(d, d, 1)
        # dense prompts
        self.no_dense = nn.Embedding(1, d)
        self.dense_down = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2),
            ChannelLayerNorm(4),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            ChannelLayerNorm(16),
            nn.GELU(),
            nn.Conv2d(16, d, 1),
        )
        self.similarity_down = nn.Sequential(nn.Conv2d(2, 32, 4, stride=2, padding=1), nn.GELU(), nn.Conv2d(32, d, 1))
        for zero in self.similarity_down[2].parameters():
            nn.init.zeros_(zero)

    # ---- once per image -------------------------------------------------------------------------------------------

    def levels(self, maps: PixelMaps, position: RandomFourierPosition) -> Levels:
        """What the masked layers read: strides 32, 16 and 8 in turn."""
        canvas = float(self.config.position_canvas)
        half = F.avg_pool2d(maps.semantic, 2, ceil_mode=True)
        keys, grids = [], []
        for i, layer in enumerate(self.masked):
            source = (half, maps.semantic, maps.middle)[i % 3]
            feature = self.level_projections[i % 3](source)
            size = (feature.shape[-2], feature.shape[-1])
            key = feature.flatten(2).transpose(1, 2) + self.level_embed.weight[i % 3]
            pos = position.grid(*size, (32.0, 16.0, 8.0)[i % 3], canvas)
            keys.append(layer.cross.project_keys(key + pos, key))
            grids.append(size)
        return Levels(keys, grids)

    def project(self, maps: PixelMaps, joint: Tensor, position: RandomFourierPosition) -> ImageState:
        """Everything that prompts only read."""
        h, w = maps.embedding.shape[-2:]
        canvas = float(self.config.position_canvas)
        stream = maps.embedding.flatten(2).transpose(1, 2)
        cells = position.grid(h, w, 16.0, canvas).unsqueeze(0)
        bias = [self._position_bias(cells, i) for i in range(len(self.two_way) + 1)]
        return ImageState(
            stream=stream,
            grid=(h, w),
            stream_bias=bias,
            plain=self._project_stream(stream + self.no_dense.weight, bias[0], 0),
            middle=self.middle_skip(maps.middle).permute(0, 2, 3, 1).contiguous(),
            fine=maps.fine.permute(0, 2, 3, 1).contiguous(),
            joint=F.normalize(joint, dim=1),
        )

    def _stream_weights(self, i: int) -> tuple[Tensor, Tensor]:
        if i < len(self.two_way):
            return self.two_way[i].stream_weights()
        a = self.final_attn
        return torch.cat([a.k_proj.weight, a.v_proj.weight]), torch.cat([a.k_proj.bias, a.v_proj.bias])

    def _position_bias(self, cells: Tensor, i: int) -> Tensor:
        """Keys and queries see stream + position, values the stream alone; a projection is linear, so this is added."""
        weight, bias = self._stream_weights(i)
        d = self.config.cross_dim
        out = F.linear(cells, weight)
        return torch.cat([out[..., :d], torch.zeros_like(out[..., d : 2 * d]), out[..., 2 * d :]], -1) + bias

    def _project_stream(self, stream: Tensor, bias: Tensor, i: int) -> Tensor:
        weight = self._stream_weights(i)[0]
        if stream.shape[0] == 1:  # one pass over the result instead of two
            return torch.addmm(bias[0], stream[0], weight.T).unsqueeze(0)
        return F.linear(stream, weight) + bias

    # ---- once per prompt ------------------------------------------------------------------------------------------

    def forward(self, image: ImageState, batch: TokenBatch, levels: Levels | None = None) -> DecoderOutput:
        """Prompted objects: N rows, S candidate masks each; ``levels`` only if the config sends prompts there."""
        c, n = self.config, batch.tokens.shape[0]
        queries = torch.where(
            batch.grounding[:, None, None], self.grounding_queries.weight, self.spatial_queries.weight
        )
        parts = [self.score_token.weight.expand(n, -1, -1), queries, batch.tokens]
        valid = [torch.ones(n, 1 + c.candidates, dtype=torch.bool, device=queries.device), batch.valid]
        first_memory = 0
        if batch.previous is not None:
            first_memory = 1 + c.candidates + batch.tokens.shape[1]
            parts.append(self.memory.weight.expand(n, -1, -1))
            valid.append(batch.has_previous[:, None].expand(-1, c.memory_tokens))
        x = pos = torch.cat(parts, 1)  # a token's position is the token itself at insertion
        mask = torch.cat(valid, 1)
        column = None if bool(mask.all()) else mask[:, None, None]
        image_mask = self._memory_mask(batch, image.grid, x.shape[1], first_memory) if first_memory else None

        d = c.cross_dim
        stream = self._stream(image, batch)
        plain = batch.dense is None and batch.similarity is None
        for i, layer in enumerate(self.two_way):
            read = image.plain if plain and i == 0 else self._project_stream(stream, image.stream_bias[i], i)
            keys = layer.to_image.split(read[..., :d]), layer.to_image.split(read[..., d : 2 * d])
            x = layer.tokens(x, pos, keys, column, image_mask)
            stream = layer.image(stream, read[..., 2 * d :], x, pos, column)
        read = self._project_stream(stream, image.stream_bias[-1], len(self.two_way))
        keys = self.final_attn.split(read[..., :d]), self.final_attn.split(read[..., d:])
        x = self.final_norm(x + self.final_attn.attend(x + pos, keys, image_mask))

        features = self.mask_features(stream, image)
        rows = slice(1, 1 + c.candidates)
        coarse = self._masks(x[:, rows], features)
        logits = coarse
        masked = self.masked if levels is not None else ()
        for i, reader in enumerate(masked):
            assert levels is not None
            allowed = self._inside(logits, levels.grids[i])
            x_rows = reader(x[:, rows], pos[:, rows], levels.keys[i], allowed, None)
            x = torch.cat([x[:, :1], x_rows, x[:, 1 + c.candidates :]], 1)
            if i + 1 < len(masked):
                logits = self._masks(x_rows, features).detach()
        if len(masked):
            logits = self._masks(x[:, rows], features)
        return DecoderOutput(logits, self.iou_head(x[:, 0]), x[:, rows], coarse)

    def objects(self, image: ImageState, levels: Levels) -> list[DecoderOutput]:
        """Object queries; one output per prediction point (two), the last is the answer. N = 1."""
        x = self.object_queries.weight.unsqueeze(0)
        pos = self.object_positions.weight.unsqueeze(0)
        stream = image.stream + self.no_dense.weight
        d = self.config.cross_dim
        for i, layer in enumerate(self.two_way):
            read = image.plain if i == 0 else self._project_stream(stream, image.stream_bias[i], i)
            keys = layer.to_image.split(read[..., :d]), layer.to_image.split(read[..., d : 2 * d])
            x = layer.tokens(x, pos, keys, None, None)
        features = self.mask_features(stream, image)
        outputs = [self._object_output(x, features)]
        for i, reader in enumerate(self.masked):
            allowed = self._inside(outputs[-1].logits, levels.grids[i])
            x = reader(x, pos, levels.keys[i], allowed, None)
            outputs.append(self._object_output(x, features))
        return outputs

    def _object_output(self, x: Tensor, features: Tensor) -> DecoderOutput:
        y = self.out_norm(x)
        logits = _multiply(self.object_mask_embed(y), features)
        return DecoderOutput(logits, self.object_iou_head(y)[..., 0], y, logits)

    def _stream(self, image: ImageState, batch: TokenBatch) -> Tensor:
        """The image stream with the dense prompts added: (N or 1, h16 * w16, dim)."""
        stream = image.stream + self.no_dense.weight
        if batch.dense is not None:
            dense = self.dense_down(batch.dense).flatten(2).transpose(1, 2)
            stream = torch.where(batch.has_dense[:, None, None], image.stream + dense, stream)
        if batch.similarity is not None:
            added = self.similarity_down(batch.similarity).flatten(2).transpose(1, 2)
            stream = stream + added * batch.has_similarity[:, None, None]
        return stream

    def mask_features(self, stream: Tensor, image: ImageState) -> Tensor:
        """(N, h16 * w16, dim) -> (N, h4, w4, mask_dim)."""
        y = _double(stream.unflatten(1, image.grid), self.up1) + image.middle
        y = F.gelu(F.layer_norm(y, self.up_norm.weight.shape, self.up_norm.weight, self.up_norm.bias, self.up_norm.eps))
        return F.gelu(_double(y, self.up2) + image.fine)

    def _masks(self, queries: Tensor, features: Tensor) -> Tensor:
        embed = torch.stack([head(queries[:, i]) for i, head in enumerate(self.mask_embed)], 1)
        return _multiply(embed, features)

    @staticmethod
    def _inside(logits: Tensor, grid: tuple[int, int]) -> Tensor:
        """Cells of a level that a row's mask covers, (B, rows, cells); a row without any sees all."""
        inside = F.interpolate(logits.detach(), grid, mode="bilinear", align_corners=False).flatten(2) > 0
        return inside | ~inside.any(-1, keepdim=True)

    def _memory_mask(self, batch: TokenBatch, grid: tuple[int, int], length: int, first: int) -> Tensor:
        """Only memory rows are confined, to the previous mask: (N, 1, rows, cells)."""
        assert batch.previous is not None
        inside = self._inside(batch.previous.unsqueeze(1), grid)  # (N, 1, cells)
        mask = torch.ones(inside.shape[0], 1, length, inside.shape[-1], dtype=torch.bool, device=inside.device)
        mask[:, :, first:] = inside.unsqueeze(1)
        return mask


def _double(x: Tensor, up: nn.ConvTranspose2d) -> Tensor:
    """A 2x2 transposed convolution of stride 2 on (N, h, w, C): one matrix product and a shuffle."""
    n, h, w, c = x.shape
    out = up.weight.shape[1]
    weight = up.weight.permute(2, 3, 1, 0).reshape(4 * out, c)
    y = F.linear(x, weight).view(n, h, w, 2, 2, out).transpose(2, 3).reshape(n, 2 * h, 2 * w, out)
    return y if up.bias is None else y + up.bias


def _multiply(embed: Tensor, features: Tensor) -> Tensor:
    """(N, S, C) x (N, h, w, C) -> mask logits (N, S, h, w)."""
    return (embed @ features.flatten(1, 2).transpose(1, 2)).unflatten(-1, features.shape[1:3])
