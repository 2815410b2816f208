"""The prompt decoder as two graphs of plain arrays: `Prepare` once per image, `Decode` once per round.

`Decode` does in one graph what `SEEM.batch`, `PromptDecoder.forward`, `SEEM.select` and `label_probabilities` do, with
nothing that depends on a value but one branch: every array is always given, and zeros (kind -1 for points) mean that
there is none. docs/serving.md has the table of inputs and outputs.

N objects, P points, T extra tokens, R references, K names, D joint width; (h16, w16) is the padded image at stride 16.
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


class Prepare(nn.Module):
    """A scene's four maps -> everything that prompts read."""

    def __init__(self, network: SEEM) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, embedding: Tensor, semantic: Tensor, middle: Tensor, fine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
        """float16 maps of a scene, as `ImageFeatures.to_tensors` names them.

        Returns:
            stream (1, h16, w16, dim), plain (1, h16, w16, 3 cross_dim), middle (1, 2 h16, 2 w16, 64),
            fine (1, 4 h16, 4 w16, mask_dim), joint (1, D, 2 h16, 2 w16), and what positions add in each later layer.
        """
        maps = PixelMaps(embedding.float(), semantic.float(), middle.float(), fine.float())
        network = self.network
        joint = network.joint(maps)
        state = network.prompt_decoder.project(maps, joint, network.visual_sampler.position)
        grid = state.grid
        biases = [bias.unflatten(1, grid) for bias in state.stream_bias[1:]]
        return state.stream.unflatten(1, grid), state.plain.unflatten(1, grid), state.middle, state.fine, joint, biases


class Decode(nn.Module):
    """One round: all prompts of N objects -> for each its best mask, a score, a class embedding, names."""

    def __init__(self, network: SEEM) -> None:
        super().__init__()
        if network.config.prompt_decoder.masked_prompts:
            raise ValueError("export: expected a model whose prompts skip the masked layers, got masked_prompts=True")
        self.network = network

    def forward(
        self,
        stream: Tensor,
        plain: Tensor,
        middle: Tensor,
        fine: Tensor,
        joint: Tensor,
        biases: list[Tensor],
        size: Tensor,
        points: Tensor,
        kinds: Tensor,
        tokens: Tensor,
        text: Tensor,
        references: Tensor,
        drawn: Tensor,
        previous: Tensor,
        names: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Every array is float32 but `size` and `kinds`, which are int32.

        Args:
            stream, plain, middle, fine, joint, biases: from `Prepare`.
            size: (2,) height and width of the encoded, unpadded image.
            points: (N, P, 2) xy in pixels of the encoded image.
            kinds: (N, P) -1 none, 0 negative, 1 positive, 2 and 3 a box's first and second corner.
            tokens: (N, T, dim) word tokens of texts and tokens of references.
            text: (N, D) sum or mean of the texts' embeddings.
            references: (N, R, D) embeddings of references.
            drawn: (N, 4 h16, 4 w16) polygons and masks as logits, 0 beyond the image.
            previous: (N, 4 h16, 4 w16) logits of the round before, 0 beyond the image.
            names: (K, D) embeddings of names to choose from.

        Returns:
            logits (N, 4 h16, 4 w16), score (N,), embedding (N, D), probabilities (N, K).
        """
        network, decoder = self.network, self.network.prompt_decoder
        c = network.config.prompt_decoder
        d, (h, w) = c.cross_dim, (stream.shape[1], stream.shape[2])
        image = ImageState(stream.flatten(1, 2), (h, w), [b.flatten(1, 2) for b in biases], plain, middle, fine, joint)
        n = points.shape[0]
        text = F.normalize(text, dim=-1)
        has_point, has_token = kinds > NO_POINT, tokens.abs().amax(-1) > 0
        has_previous = previous.abs().amax((1, 2)) > 0  # (N,)

        seen = torch.cat([self._point_tokens(stream, points, kinds), tokens], 1)
        grounding = ~has_point.any(1)
        queries = torch.where(
            grounding[:, None, None], decoder.grounding_queries.weight, decoder.spatial_queries.weight
        )
        score, memory = decoder.score_token.weight.expand(n, -1, -1), decoder.memory.weight.expand(n, -1, -1)
        x = pos = torch.cat([score, queries, seen, memory], 1)
        always = torch.ones_like(queries[..., 0], dtype=torch.bool)
        remembers = has_previous[:, None].expand(-1, c.memory_tokens)
        column = torch.cat([always[:, :1], always, has_point, has_token, remembers], 1)[:, None, None]
        image_mask = self._image_mask(previous, (h, w), x.shape[1])

        added = self._dense(drawn, previous) + self._similarity(joint, text, references)
        image_stream = image.stream + decoder.no_dense.weight + added
        read = self._first_projection(plain.flatten(1, 2), added)
        for i, layer in enumerate(decoder.two_way):
            if i:
                read = F.linear(image_stream, layer.stream_weights()[0]) + image.stream_bias[i - 1]
            keys = layer.to_image.split(read[..., :d]), layer.to_image.split(read[..., d : 2 * d])
            x = layer.tokens(x, pos, keys, column, image_mask)
            image_stream = layer.image(image_stream, read[..., 2 * d :], x, pos, column)
        last = decoder.final_attn
        read = F.linear(image_stream, torch.cat([last.k_proj.weight, last.v_proj.weight])) + image.stream_bias[-1]
        keys = last.split(read[..., :d]), last.split(read[..., d:])
        x = decoder.final_norm(x + last.attend(x + pos, keys, image_mask))

        rows = x[:, 1 : 1 + c.candidates]
        logits = decoder._masks(rows, decoder.mask_features(image_stream, image))  # (N, S, 4 h16, 4 w16)
        scores = decoder.iou_head(x[:, 0]).clamp(0, 1)
        embeddings = F.normalize(self._pool(joint, logits) + network.class_embed(rows), dim=-1)  # (N, S, D)
        rank = scores + 0.5 * self._agreement(logits, size, points, kinds)
        rank = rank + 0.5 * (embeddings @ text[:, :, None])[..., 0]
        best = rank.argmax(-1)[:, None]  # (N, 1)
        chosen = F.one_hot(best[:, 0], c.candidates).float()
        embedding = (chosen[:, None] @ embeddings)[:, 0]
        mask = torch.gather(logits, 1, best[..., None, None].expand(-1, -1, 4 * h, 4 * w))[:, 0]
        return mask, (chosen * scores).sum(-1), embedding, network.class_logits(embedding, names).softmax(-1)

    # ---- prompts --------------------------------------------------------------------------------------------------

    def _point_tokens(self, stream: Tensor, points: Tensor, kinds: Tensor) -> Tensor:
        """`VisualSampler.forward` of N objects; the bilinear read gathers rows of the stream."""
        sampler, (h, w) = self.network.visual_sampler, (stream.shape[1], stream.shape[2])
        x = (points[..., 0] / 16 - 0.5).clamp(0, w - 1)
        y = (points[..., 1] / 16 - 0.5).clamp(0, h - 1)
        x0, y0 = x.floor(), y.floor()
        right, down = (x - x0)[..., None], (y - y0)[..., None]
        x0, y0 = x0.long(), y0.long()
        x1, y1 = (x0 + 1).clamp(max=w - 1), (y0 + 1).clamp(max=h - 1)
        flat = stream.flatten(0, 2)  # (h16 * w16, dim)
        top = flat[y0 * w + x0] * (1 - right) + flat[y0 * w + x1] * right
        bottom = flat[y1 * w + x0] * (1 - right) + flat[y1 * w + x1] * right
        out = sampler.content(top * (1 - down) + bottom * down) + sampler.kind(kinds.clamp(min=0).long())
        if sampler.config.token_position:
            out = out + sampler.position(points / sampler.config.position_canvas)
        return out

    def _image_mask(self, previous: Tensor, grid: tuple[int, int], length: int) -> Tensor:
        """Only memory rows are confined, to the previous mask: (N, 1, rows, cells)."""
        inside = self.network.prompt_decoder._inside(previous[:, None], grid)[:, :, None]  # (N, 1, 1, cells)
        memory = (
            torch.arange(length, device=previous.device) >= length - self.network.config.prompt_decoder.memory_tokens
        )
        return inside | ~memory[:, None]

    def _dense(self, drawn: Tensor, previous: Tensor) -> Tensor:
        """What drawn maps and previous masks add to the stream, less what their absence adds: (N, cells, dim)."""
        decoder = self.network.prompt_decoder
        has_drawn = (drawn.abs().amax((1, 2)) > 0)[:, None, None]
        has_previous = (previous.abs().amax((1, 2)) > 0)[:, None, None]
        both = torch.where(has_drawn & has_previous, torch.maximum(drawn, previous), drawn + previous)
        dense = decoder.dense_down(both[:, None]).flatten(2).transpose(1, 2)
        return torch.where(has_drawn | has_previous, dense - decoder.no_dense.weight, torch.zeros_like(dense))

    def _similarity(self, joint: Tensor, text: Tensor, references: Tensor) -> Tensor:
        """What likeness to texts and references adds to the stream: (N, cells, dim)."""
        decoder, network = self.network.prompt_decoder, self.network
        normal = F.normalize(joint, dim=1)
        asked = torch.cat([text[:, None], references], 1)  # (N, 1 + R, D)
        there = asked.abs().amax(-1) > 0  # (N, 1 + R)
        heat = torch.einsum("nkd,dhw->nkhw", asked, normal[0]) * network.heat_scale.exp() + network.heat_bias
        text_heat = heat[:, :1] * there[:, :1, None, None]
        reference = heat[:, 1:].masked_fill(~there[:, 1:, None, None], -1e4).amax(1, keepdim=True)
        reference = reference * there[:, 1:].any(1)[:, None, None, None]
        added = decoder.similarity_down(torch.cat([text_heat, reference], 1)).flatten(2).transpose(1, 2)
        return added * there.any(1)[:, None, None]

    def _first_projection(self, plain: Tensor, added: Tensor) -> Tensor:
        """A projection is linear: that of the stream alone is known, what prompts add comes on top."""
        weight = self.network.prompt_decoder.two_way[0].stream_weights()[0]
        return plain + F.linear(added, weight)

    # ---- results --------------------------------------------------------------------------------------------------

    def _pool(self, joint: Tensor, logits: Tensor) -> Tensor:
        """Mean pixel embedding inside each mask: (N, S, D)."""
        weight = F.avg_pool2d(logits.sigmoid(), 2).flatten(2)
        return weight @ joint[0].flatten(1).T / weight.sum(-1, keepdim=True).clamp_min(1e-4)

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
