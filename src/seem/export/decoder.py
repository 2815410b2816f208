"""The prompt decoder as three graphs of plain arrays, for a browser and for machines without torch.

    Prepare   once per image: a scene's four maps -> everything that prompts read
    Maps      only in rounds with a drawn map, memory, text or a reference: what these add to the image stream
    Decode    once per round: prompts of N objects -> for each its best mask, a score, a class embedding, names

Together they do what `SEEM.project`, `SEEM.batch`, `PromptDecoder.forward`, `SEEM.select` and `label_probabilities`
do, with nothing that depends on a value: every array is always given, and flags say what of it is meant. A plain click
skips `Maps`: `Decode` reads the stream by index, so `Prepare`'s stream serves all objects that nothing was added to.

Letters in shapes: N objects, P points, T extra tokens, R references, K names, D joint width, C = 3 cross_dim, B streams
(1 from `Prepare`, N from `Maps`); (h16, w16) is the padded image at stride 16, (h4, w4) = (4 h16, 4 w16).
All arrays are float32 but `size`, `kinds` and `which`, which are int32; flags are 0 or 1.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.layers import MLP, Attention
from seem.model.pixel_decoder import PixelMaps
from seem.model.prompt_decoder import TwoWayLayer, _multiply
from seem.model.seem import SEEM, box_agreement
from seem.model.visual_sampler import NEGATIVE, POSITIVE

NO_POINT = -1  # kind of a row that only fills up
UNLIKE = -1e4  # heat of a reference that is not there, below any real one
BLOCKED = -1e9  # added to what may not be attended to


class Prepare(nn.Module):
    """A scene's maps -> everything that prompts read."""

    def __init__(self, network: SEEM) -> None:
        super().__init__()
        self.network = network

    def forward(self, embedding: Tensor, semantic: Tensor, middle: Tensor, fine: Tensor) -> tuple[Tensor, ...]:
        """The maps of a scene, as `ImageFeatures.to_tensors` names them, in float32.

        Returns:
            stream (1, h16, w16, dim): the image stream that no prompt was added to.
            first (1, h16, w16, C): the first layer's projection of it.
            cells (h16, w16, dim): the image stream bare, for the points' tokens.
            middle_skip (1, 2 h16, 2 w16, 64), fine_skip (1, h4, w4, mask_dim): added inside the upsampling.
            joint (2 h16, 2 w16, D): pixel embeddings, L2-normalised.
            length (2 h16, 2 w16, 1): what they were divided by.
            bias1 (1, h16, w16, C), bias2 (1, h16, w16, cross_dim): what positions add to the second layer's projection
            and to the last keys.
        """
        maps = PixelMaps(embedding, semantic, middle, fine)
        network = self.network
        decoder = network.prompt_decoder
        joint = network.joint(maps)
        state = decoder.project(maps, joint, network.visual_sampler.position)
        h, w = embedding.shape[-2:]
        bias1 = state.stream_bias[1].view(1, h, w, -1)
        bias2 = state.stream_bias[2][..., : network.config.prompt_decoder.cross_dim].view(1, h, w, -1)
        pixels = joint[0].permute(1, 2, 0)
        length = pixels.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        stream = (state.stream + decoder.no_dense.weight).view(1, h, w, -1)
        assert decoder.up1.bias is not None and decoder.up2.bias is not None
        middle_skip, fine_skip = state.middle + decoder.up1.bias, state.fine + decoder.up2.bias
        first, cells = state.plain.view(1, h, w, -1), embedding[0].permute(1, 2, 0).contiguous()
        return stream, first, cells, middle_skip, fine_skip, pixels / length, length, bias1, bias2


class Maps(nn.Module):
    """What drawn maps, memory, texts and references add to the image stream of N objects.

    The last layers of both branches are linear, so their product with the first layer's projection is one small matrix
    and the stream need not be projected again.
    """

    def __init__(self, network: SEEM) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        stream: Tensor,
        first: Tensor,
        joint: Tensor,
        drawn: Tensor,
        has_drawn: Tensor,
        previous: Tensor,
        has_previous: Tensor,
        text: Tensor,
        has_text: Tensor,
        references: Tensor,
        has_reference: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            stream, first, joint: from `Prepare`.
            drawn, has_drawn: (N, h4, w4), (N,) polygons and masks as logits, 0 beyond the image.
            previous, has_previous: (N, h4, w4), (N,) logits of the round before, 0 beyond the image.
            text, has_text: (N, D), (N,) mean of the texts' embeddings.
            references, has_reference: (N, R, D), (N, R) embeddings of references.

        Returns:
            prompted_stream (N, h16, w16, dim) and prompted_first (N, h16, w16, C): `stream` and `first` of `Decode`.
        """
        decoder = self.network.prompt_decoder
        (h, w), n = stream.shape[1:3], drawn.shape[0]
        # Both read channels last; the 1x1 convolution at the end of each is written out as a matrix.
        drawn_there, previous_there = has_drawn[:, None, None] > 0, has_previous[:, None, None] > 0
        both = drawn_there & previous_there
        dense = torch.where(both, torch.maximum(drawn, previous), torch.where(drawn_there, drawn, previous))
        dense = decoder.dense_down[:-1](dense[:, None]).permute(0, 2, 3, 1)
        likeness = self._likeness(joint.flatten(0, 1), text, has_text, references, has_reference, (h, w))
        likeness = decoder.similarity_down[:-1](likeness).permute(0, 2, 3, 1)
        has_dense = (drawn_there | previous_there).float()[..., None]  # (N, 1, 1, 1)
        named = torch.maximum(has_text, has_reference.amax(1)).view(n, 1, 1, 1)
        out_dense, out_named = decoder.dense_down[-1], decoder.similarity_down[-1]
        project = decoder.two_way[0].stream_weights()[0]
        stream = stream + self._added(dense, has_dense, out_dense, None) + self._added(likeness, named, out_named, None)
        first = first + self._added(dense, has_dense, out_dense, project)
        first = first + self._added(likeness, named, out_named, project)
        return stream, first

    def _added(self, x: Tensor, there: Tensor, last: nn.Module, project: Tensor | None) -> Tensor:
        """A branch's last 1x1 convolution, and a projection of it; 0 where ``there`` is."""
        decoder = self.network.prompt_decoder
        assert isinstance(last, nn.Conv2d)
        weight, bias = last.weight.flatten(1), last.bias
        assert bias is not None
        if last is decoder.dense_down[-1]:
            bias = bias - decoder.no_dense.weight[0]  # which `Prepare` has added
        if project is not None:
            weight, bias = project @ weight, project @ bias
        return (F.linear(x, weight) + bias) * there

    def _likeness(
        self,
        joint: Tensor,
        text: Tensor,
        has_text: Tensor,
        references: Tensor,
        has_reference: Tensor,
        grid: tuple[int, int],
    ) -> Tensor:
        """How far each pixel, a row of ``joint``, resembles texts and its likest reference: (N, 2, 2 h16, 2 w16)."""
        network = self.network
        asked = torch.cat([F.normalize(text, dim=-1)[:, None], references], 1)  # (N, 1 + R, D)
        heat = (asked @ joint.T) * network.heat_scale.exp() + network.heat_bias  # (N, 1 + R, cells)
        there = has_reference[..., None] > 0
        reference = torch.where(there, heat[:, 1:], UNLIKE).amax(1) * has_reference.amax(1)[:, None]
        both = torch.stack([heat[:, 0] * has_text[:, None], reference], 1)
        return both.view(both.shape[0], 2, 2 * grid[0], 2 * grid[1])


class Decode(nn.Module):
    """One round: all prompts of N objects -> for each its best mask, a score, a class embedding, names.

    It spells out what `PromptDecoder` does, because a browser pays for every node: masks are added, not chosen by;
    large products are of two axes, so that their bias is part of them; the candidates' perceptrons are one batch.
    """

    def __init__(self, network: SEEM) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        stream: Tensor,
        first: Tensor,
        which: Tensor,
        cells: Tensor,
        middle_skip: Tensor,
        fine_skip: Tensor,
        joint: Tensor,
        length: Tensor,
        bias1: Tensor,
        bias2: Tensor,
        size: Tensor,
        points: Tensor,
        kinds: Tensor,
        tokens: Tensor,
        has_token: Tensor,
        text: Tensor,
        previous: Tensor,
        has_memory: Tensor,
        names: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """
        Args:
            stream, first: (B, …) from `Prepare` or `Maps`.
            which: (N,) the row of them that each object reads.
            cells, middle_skip, fine_skip, joint, length, bias1, bias2: from `Prepare`.
            size: (2,) height and width of the encoded, unpadded image.
            points: (N, P, 2) xy in pixels of the encoded image.
            kinds: (N, P) -1 none, 0 negative, 1 positive, 2 and 3 a box's first and second corner.
            tokens, has_token: (N, T, dim), (N, T) word tokens of texts and tokens of references.
            text: (N, D) mean of the texts' embeddings, zeros without any.
            previous: as `Maps` takes it.
            has_memory: (N, M) which of the first M memory tokens each object has: all of them or none. M is 1 where no
                object remembers, so that nothing is paid for them.
            names: (K, D) embeddings of names to choose from.

        Returns:
            logits (N, h4, w4), score (N,), class embedding (N, D), probabilities (N, K).
        """
        network, decoder = self.network, self.network.prompt_decoder
        c, (h, w) = network.config.prompt_decoder, stream.shape[1:3]
        d = c.cross_dim
        x, column, image_mask = self._rows(cells, points, kinds, tokens, has_token, previous, has_memory, (h, w))
        pos = x  # a token's position is the token itself at insertion
        index = which.long()
        image = stream.index_select(0, index).flatten(1, 2)  # (N, cells, dim)
        read = first.index_select(0, index).flatten(1, 2)
        for i, layer in enumerate(decoder.two_way):
            if i:
                read = _linear(image, layer.stream_weights()[0]) + bias1.flatten(1, 2)
            x = self._tokens(layer, x, pos, (read[..., :d], read[..., d : 2 * d]), column, image_mask)
            turn = layer.from_tokens
            seen = _attend(turn, read[..., 2 * d :], turn.k_proj(x + pos), turn.v_proj(x), column)
            image = layer.norm4(image + seen)
        answering = x[:, : 1 + c.candidates]  # only the score and the candidates are used from here on
        seen = self._last_look(answering + pos[:, : 1 + c.candidates], image, bias2.flatten(1, 2))
        answering = decoder.final_norm(answering + seen)

        rows = answering[:, 1:]
        logits = self._masks(rows, image.unflatten(1, (h, w)), middle_skip, fine_skip)  # (N, S, h4, w4)
        scores = decoder.iou_head(answering[:, 0]).clamp(0, 1)
        embeddings = F.normalize(self._pool(joint, length, logits) + network.class_embed(rows), dim=-1)  # (N, S, D)
        rank = scores + 0.5 * self._agreement(logits, size, points, kinds)
        rank = rank + 0.5 * box_agreement(self._shown(logits, size), points, kinds)
        rank = rank + 0.5 * (embeddings @ F.normalize(text, dim=-1)[:, :, None])[..., 0]
        best = rank.argmax(-1)
        row = torch.arange(points.shape[0], device=best.device)
        chosen = embeddings[row, best]
        mask = logits.flatten(0, 1).index_select(0, row * c.candidates + best)
        return mask, scores[row, best], chosen, network.class_logits(chosen, names).softmax(-1)

    # ---- tokens ---------------------------------------------------------------------------------------------------

    def _rows(
        self,
        cells: Tensor,
        points: Tensor,
        kinds: Tensor,
        tokens: Tensor,
        has_token: Tensor,
        previous: Tensor,
        has_memory: Tensor,
        grid: tuple[int, int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Token rows (N, L, dim), and what is added to attention to rows (N, 1, 1, L) and to cells (N, 1, L, cells)."""
        decoder, c = self.network.prompt_decoder, self.network.config.prompt_decoder
        n = points.shape[0]
        has_point = (kinds > NO_POINT).float()
        named_only = (has_point.amax(1) <= 0)[:, None, None]
        queries = torch.where(named_only, decoder.grounding_queries.weight, decoder.spatial_queries.weight)
        seen = self._point_tokens(cells, points, kinds, grid)
        score = decoder.score_token.weight.expand(n, -1, -1)
        memory = decoder.memory.weight.index_select(0, torch.arange(has_memory.shape[1], device=points.device))
        x = torch.cat([score, queries, seen, tokens, memory.expand(n, -1, -1)], 1)
        always = torch.ones_like(has_memory[:, :1]).expand(-1, 1 + c.candidates)
        valid = torch.cat([always, has_point, has_token, has_memory], 1)
        inside = decoder._inside(previous[:, None], grid).float()  # (N, 1, cells)
        nothing = [torch.zeros_like(flags) for flags in (always, has_point, has_token)]
        confined = torch.cat([*nothing, has_memory], 1)[:, None, :, None] * (1 - inside)[:, :, None]
        return x, BLOCKED * (1 - valid)[:, None, None], BLOCKED * confined

    def _point_tokens(self, cells: Tensor, points: Tensor, kinds: Tensor, grid: tuple[int, int]) -> Tensor:
        """`VisualSampler.forward` of N objects: (N, P, dim)."""
        sampler, (h, w) = self.network.visual_sampler, grid
        x = (points[..., 0] / 16 - 0.5).clamp(min=0).minimum(torch.tensor(w - 1.0))
        y = (points[..., 1] / 16 - 0.5).clamp(min=0).minimum(torch.tensor(h - 1.0))
        x0, y0 = x.floor(), y.floor()
        right, down = (x - x0)[..., None], (y - y0)[..., None]
        left_column, top_row = x0.long(), y0.long()
        right_column, bottom_row = (left_column + 1).clamp(max=w - 1), (top_row + 1).clamp(max=h - 1)
        corners = [top_row * w + left_column, top_row * w + right_column]
        corners += [bottom_row * w + left_column, bottom_row * w + right_column]
        a, b, c, d = F.embedding(torch.stack(corners), cells.flatten(0, 1))
        read = (a * (1 - right) + b * right) * (1 - down) + (c * (1 - right) + d * right) * down
        out: Tensor = sampler.content(read) + sampler.kind(kinds.clamp(min=0).long())
        if sampler.config.token_position:
            out = out + sampler.position(points / sampler.config.position_canvas)
        return out

    def _tokens(
        self,
        layer: TwoWayLayer,
        x: Tensor,
        pos: Tensor,
        keys: tuple[Tensor, Tensor],
        column: Tensor,
        image_mask: Tensor,
    ) -> Tensor:
        """`TwoWayLayer.tokens` with masks that are added."""
        own = layer.self_attn
        asked = x if layer.first else x + pos
        y = _attend(own, own.q_proj(asked), own.k_proj(asked), own.v_proj(x), column)
        x = layer.norm1(y if layer.first else x + y)
        x = layer.norm2(x + _attend(layer.to_image, layer.to_image.q_proj(x + pos), *keys, image_mask))
        return layer.norm3(x + layer.mlp(x))

    def _last_look(self, query: Tensor, image: Tensor, bias: Tensor) -> Tensor:
        """`PromptDecoder.final_attn` of a few rows: they go into the image's space, instead of all cells into theirs.

        Args:
            query: (N, Q, dim).
            image: (N, cells, dim).
            bias: (1, cells, cross_dim) added to the keys; the values' bias is one vector, and attention sums to 1.
        """
        a = self.network.prompt_decoder.final_attn
        n, rows, dim = query.shape
        q = a.split(a.q_proj(query))  # (N, heads, Q, c)
        q = q * (q.shape[-1] ** -0.5)
        inward = (q @ a.k_proj.weight.view(a.heads, -1, dim)).flatten(1, 2)  # (N, heads * Q, dim)
        logits = (inward @ image.transpose(1, 2)).view(n, a.heads, rows, -1)
        logits = logits + q @ a.split(bias).transpose(-1, -2)
        seen = (logits.softmax(-1).flatten(1, 2) @ image).view(n, a.heads, rows, dim)
        y = seen @ a.v_proj.weight.view(a.heads, -1, dim).transpose(1, 2)  # (N, heads, Q, c)
        out: Tensor = a.out_proj(y.transpose(1, 2).flatten(2) + a.v_proj.bias)
        return out

    # ---- masks ----------------------------------------------------------------------------------------------------

    def _masks(self, rows: Tensor, image: Tensor, middle_skip: Tensor, fine_skip: Tensor) -> Tensor:
        """(N, S, dim) and (N, h16, w16, dim) -> mask logits (N, S, h4, w4)."""
        decoder = self.network.prompt_decoder
        y = _double(image, decoder.up1) + middle_skip
        norm = decoder.up_norm
        y = F.gelu(F.layer_norm(y, norm.weight.shape, norm.weight, norm.bias, norm.eps))
        features = F.gelu(_double(y, decoder.up2) + fine_skip)  # (N, h4, w4, mask_dim)
        embed = rows.transpose(0, 1)  # (S, N, dim)
        heads = [[cast(nn.Linear, layer) for layer in cast(MLP, head).layers] for head in decoder.mask_embed]
        for depth in range(len(heads[0])):
            weight = torch.stack([head[depth].weight for head in heads]).transpose(1, 2)
            bias = torch.stack([head[depth].bias for head in heads])[:, None]
            embed = (embed if depth == 0 else F.relu(embed)) @ weight + bias
        return _multiply(embed.transpose(0, 1), features)

    def _pool(self, joint: Tensor, length: Tensor, logits: Tensor) -> Tensor:
        """Mean pixel embedding inside each mask: (N, S, D)."""
        weight = F.avg_pool2d(logits.sigmoid(), 2).flatten(2)
        return ((weight * length.flatten()) @ joint.flatten(0, 1)) / weight.sum(-1, keepdim=True).clamp_min(1e-4)

    @staticmethod
    def _shown(logits: Tensor, size: Tensor) -> Tensor:
        """Logits that are below zero where there is only padding."""
        rows = torch.arange(logits.shape[-2], device=logits.device)[:, None] < (size[0] + 3) // 4
        columns = torch.arange(logits.shape[-1], device=logits.device)[None] < (size[1] + 3) // 4
        return torch.where(rows & columns, logits, torch.tensor(-1.0))

    def _agreement(self, logits: Tensor, size: Tensor, points: Tensor, kinds: Tensor) -> Tensor:
        """How far each candidate agrees with the clicks, (N, S); 0 without any."""
        last = (size + 3) // 4 - 1  # (2,) row and column of the last mask cell
        column = torch.minimum((points[..., 0] / 4).int(), last[1])
        row = torch.minimum((points[..., 1] / 4).int(), last[0])
        cell = (row * logits.shape[-1] + column).long()[:, None].expand(-1, logits.shape[1], -1)
        inside = logits.flatten(2).gather(2, cell).sigmoid()  # (N, S, P)
        agreement = torch.where((kinds == POSITIVE)[:, None], inside, 1 - inside)
        click = ((kinds == POSITIVE) | (kinds == NEGATIVE)).float()[:, None]
        return (agreement * click).sum(-1) / click.sum(-1).clamp(min=1)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, rows, in) -> (N, rows, out) as one product of two axes."""
    return F.linear(x.flatten(0, 1), weight, bias).unflatten(0, x.shape[:2])


def _attend(a: Attention, query: Tensor, key: Tensor, value: Tensor, added: Tensor) -> Tensor:
    """Attention of projected (N, n, inner) rows; ``added``, to the logits, is broadcastable to (N, heads, n, keys)."""
    q, k, v = a.split(query), a.split(key), a.split(value)
    q = q * (q.shape[-1] ** -0.5)
    y = (q @ k.transpose(-1, -2) + added).softmax(-1) @ v
    return _linear(y.transpose(1, 2).flatten(2), a.out_proj.weight, a.out_proj.bias)


def _double(x: Tensor, up: nn.ConvTranspose2d) -> Tensor:
    """A 2x2 transposed convolution of stride 2 on (N, h, w, C) without its bias, which `Prepare` has added."""
    n, h, w, c = x.shape
    out = up.weight.shape[1]
    weight = up.weight.permute(2, 3, 1, 0).reshape(4 * out, c)
    y = F.linear(x.flatten(0, 2), weight).view(n, h, w, 2, 2, out)
    return y.transpose(2, 3).reshape(n, 2 * h, 2 * w, out)
