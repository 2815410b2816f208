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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.pixel_decoder import PixelMaps
from seem.model.prompt_decoder import ImageState
from seem.model.seem import SEEM
from seem.model.visual_sampler import NEGATIVE, POSITIVE

NO_POINT = -1  # kind of a row that only fills up
UNLIKE = -1e4  # heat of a reference that is not there, below any real one


class Prepare(nn.Module):
    """A scene's maps -> everything that prompts read."""

    def __init__(self, network: SEEM) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, embedding: Tensor, semantic: Tensor, middle: Tensor, fine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The maps of a scene, as `ImageFeatures.to_tensors` names them, in float32.

        Returns:
            stream (1, h16, w16, dim): the image stream that no prompt was added to.
            first (1, h16, w16, C): the first layer's projection of it.
            middle_skip (1, 2 h16, 2 w16, 64), fine_skip (1, h4, w4, mask_dim): added inside the upsampling.
            joint (2 h16, 2 w16, D): pixel embeddings, L2-normalised.
            length (2 h16, 2 w16, 1): what they were divided by.
            bias1 (1, h16, w16, C), bias2 (1, h16, w16, 2 cross_dim): what positions add to the later projections.
        """
        maps = PixelMaps(embedding, semantic, middle, fine)
        network = self.network
        decoder = network.prompt_decoder
        joint = network.joint(maps)
        state = decoder.project(maps, joint, network.visual_sampler.position)
        h, w = embedding.shape[-2:]
        bias1, bias2 = (bias.view(1, h, w, -1) for bias in state.stream_bias[1:])
        pixels = joint[0].permute(1, 2, 0)
        length = pixels.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        stream = (state.stream + decoder.no_dense.weight).view(1, h, w, -1)
        return stream, state.plain.view(1, h, w, -1), state.middle, state.fine, pixels / length, length, bias1, bias2


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
        """How far each pixel (rows of ``joint``) resembles the texts, and its likest reference: (N, 2, 2 h16, 2 w16)."""
        network = self.network
        asked = torch.cat([F.normalize(text, dim=-1)[:, None], references], 1)  # (N, 1 + R, D)
        heat = (asked @ joint.T) * network.heat_scale.exp() + network.heat_bias  # (N, 1 + R, cells)
        there = has_reference[..., None] > 0
        reference = torch.where(there, heat[:, 1:], UNLIKE).amax(1) * has_reference.amax(1)[:, None]
        both = torch.stack([heat[:, 0] * has_text[:, None], reference], 1)
        return both.view(both.shape[0], 2, 2 * grid[0], 2 * grid[1])


class Decode(nn.Module):
    """One round: all prompts of N objects -> for each its best mask, a score, a class embedding, names."""

    def __init__(self, network: SEEM) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        stream: Tensor,
        first: Tensor,
        which: Tensor,
        middle_skip: Tensor,
        fine_skip: Tensor,
        joint: Tensor,
        length: Tensor,
        bias1: Tensor,
        bias2: Tensor,
        embedding: Tensor,
        size: Tensor,
        points: Tensor,
        kinds: Tensor,
        tokens: Tensor,
        has_token: Tensor,
        text: Tensor,
        previous: Tensor,
        has_previous: Tensor,
        names: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """
        Args:
            stream, first: (B, …) from `Prepare` or `Maps`.
            which: (N,) the row of them that each object reads.
            middle_skip, fine_skip, joint, length, bias1, bias2: from `Prepare`.
            embedding: (1, dim, h16, w16) of the scene.
            size: (2,) height and width of the encoded, unpadded image.
            points: (N, P, 2) xy in pixels of the encoded image.
            kinds: (N, P) -1 none, 0 negative, 1 positive, 2 and 3 a box's first and second corner.
            tokens, has_token: (N, T, dim), (N, T) word tokens of texts and tokens of references.
            text: (N, D) mean of the texts' embeddings, zeros without any.
            previous, has_previous: as `Maps` takes them.
            names: (K, D) embeddings of names to choose from.

        Returns:
            logits (N, h4, w4), score (N,), class embedding (N, D), probabilities (N, K).
        """
        network, decoder = self.network, self.network.prompt_decoder
        c = network.config.prompt_decoder
        d, (h, w), n = c.cross_dim, stream.shape[1:3], points.shape[0]
        seen = torch.cat([self._point_tokens(embedding, points, kinds), tokens], 1)
        has_point, remembers = kinds > NO_POINT, has_previous > 0
        grounding = ~has_point.any(1)
        queries = torch.where(
            grounding[:, None, None], decoder.grounding_queries.weight, decoder.spatial_queries.weight
        )
        memory = decoder.memory.weight.expand(n, -1, -1)
        x = pos = torch.cat([decoder.score_token.weight.expand(n, -1, -1), queries, seen, memory], 1)
        always = (has_previous >= 0)[:, None].expand(-1, 1 + c.candidates)
        memories = remembers[:, None].expand(-1, c.memory_tokens)
        column = torch.cat([always, has_point, has_token > 0, memories], 1)[:, None, None]
        image_mask = self._image_mask(previous, remembers, (h, w), x.shape[1])

        index = which.long()
        image_stream = stream.flatten(1, 2)[index]
        read = first.flatten(1, 2)[index]
        biases = (bias1.flatten(1, 2), bias2.flatten(1, 2))
        for i, layer in enumerate(decoder.two_way):
            if i:
                read = F.linear(image_stream, layer.stream_weights()[0]) + biases[i - 1]
            keys = layer.to_image.split(read[..., :d]), layer.to_image.split(read[..., d : 2 * d])
            x = layer.tokens(x, pos, keys, column, image_mask)
            image_stream = layer.image(image_stream, read[..., 2 * d :], x, pos, column)
        last = decoder.final_attn
        read = F.linear(image_stream, torch.cat([last.k_proj.weight, last.v_proj.weight])) + biases[-1]
        keys = last.split(read[..., :d]), last.split(read[..., d:])
        x = decoder.final_norm(x + last.attend(x + pos, keys, image_mask))

        image = ImageState(image_stream, (h, w), [], first, middle_skip, fine_skip, joint)
        rows = x[:, 1 : 1 + c.candidates]
        logits = decoder._masks(rows, decoder.mask_features(image_stream, image))  # (N, S, h4, w4)
        scores = decoder.iou_head(x[:, 0]).clamp(0, 1)
        embeddings = F.normalize(self._pool(joint, length, logits) + network.class_embed(rows), dim=-1)  # (N, S, D)
        rank = scores + 0.5 * self._agreement(logits, size, points, kinds)
        rank = rank + 0.5 * (embeddings @ F.normalize(text, dim=-1)[:, :, None])[..., 0]
        best = rank.argmax(-1)
        row = torch.arange(n, device=best.device)
        chosen = embeddings[row, best]
        return logits[row, best], scores[row, best], chosen, network.class_logits(chosen, names).softmax(-1)

    def _point_tokens(self, embedding: Tensor, points: Tensor, kinds: Tensor) -> Tensor:
        """`VisualSampler.forward` of N objects: (N, P, dim)."""
        sampler, (h, w) = self.network.visual_sampler, embedding.shape[-2:]
        x = (points[..., 0] / 16 - 0.5).clamp(min=0).minimum(torch.tensor(w - 1.0))
        y = (points[..., 1] / 16 - 0.5).clamp(min=0).minimum(torch.tensor(h - 1.0))
        x0, y0 = x.floor(), y.floor()
        right, down = (x - x0)[..., None], (y - y0)[..., None]
        left_column, top_row = x0.long(), y0.long()
        right_column, bottom_row = (left_column + 1).clamp(max=w - 1), (top_row + 1).clamp(max=h - 1)
        flat = embedding[0].flatten(1).T  # (h16 * w16, dim)
        top = flat[top_row * w + left_column] * (1 - right) + flat[top_row * w + right_column] * right
        bottom = flat[bottom_row * w + left_column] * (1 - right) + flat[bottom_row * w + right_column] * right
        out: Tensor = sampler.content(top * (1 - down) + bottom * down) + sampler.kind(kinds.clamp(min=0).long())
        if sampler.config.token_position:
            out = out + sampler.position(points / sampler.config.position_canvas)
        return out

    def _image_mask(self, previous: Tensor, remembers: Tensor, grid: tuple[int, int], length: int) -> Tensor:
        """Only memory rows are confined, to the previous mask: (N, 1, rows, cells)."""
        inside = self.network.prompt_decoder._inside(previous[:, None], grid) | ~remembers[:, None, None]
        memory = torch.arange(length, device=previous.device) >= length - self.network.config.prompt_decoder.memory_tokens
        return inside[:, :, None] | ~memory[:, None]

    def _pool(self, joint: Tensor, length: Tensor, logits: Tensor) -> Tensor:
        """Mean pixel embedding inside each mask: (N, S, D)."""
        weight = F.avg_pool2d(logits.sigmoid(), 2).flatten(2)
        return ((weight * length.flatten()) @ joint.flatten(0, 1)) / weight.sum(-1, keepdim=True).clamp_min(1e-4)

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
