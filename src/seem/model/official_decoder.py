"""The official prompt decoder: nine layers of masked attention over queries, prompt tokens and memories.

SEEM, arXiv 2304.06718; masked attention from Mask2Former, arXiv 2112.01527. SPEC sections 6 to 9.

v0, v1 and demo are the same code: they differ in ``Semantics`` and in the row of ``ATTENTION_RULES``.

What a click does not pay for:
- keys and values of the nine cross-attentions depend on the image only and are projected once (``prepare``);
- attention masks come from mask features that were brought to each level's size once: resizing is linear, so it
  commutes with the dot product;
- visual tokens are read afresh in every layer, so what attention and MLP would make of them is never seen: they
  serve as keys and values only;
- only the query groups that are asked for exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.attention_rules import (
    ATTENTION_RULES,
    AUDIO,
    GROUNDING,
    MEMORY,
    OBJECT,
    REFERENCE,
    SPATIAL,
    TEXT,
    VISUAL,
    Group,
    Rules,
    blocked_pairs,
    with_links,
)
from seem.model.layers import MLP
from seem.model.official_config import OfficialDecoderConfig, Semantics
from seem.model.official_layers import KeysValues, Linear, PackedAttention, linear, sine_position
from seem.model.official_visual_sampler import Draws, Strokes, VisualSampler, VisualTokens

LEVELS = 3
ORDER = (OBJECT, GROUNDING, SPATIAL, TEXT, VISUAL, REFERENCE, AUDIO, MEMORY)


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """All that the decoder needs of an image, whatever the prompts.

    Attributes:
        mask_features: (B, C, H/4, W/4).
        maps: per level (B, C, h, w), level embedding added.
        keys: per layer, keys and values of the cross-attention.
        level_features: per level (B, C, h, w), mask features at that level's size.
        outside: per level (h * w,) bool, True where only padding is seen; None if padding is to be attended.
    """

    mask_features: Tensor
    maps: tuple[Tensor, ...]
    keys: tuple[KeysValues, ...]
    level_features: tuple[Tensor, ...]
    outside: tuple[Tensor, ...] | None


@dataclass(frozen=True, eq=False)
class DecoderPrompts:
    """Prompts as the decoder sees them, one batch row per image (or per object).

    Attributes:
        text: (B, T, C) tokens of all phrases, or None.
        text_padding: (B, T) bool, or None if there is none.
        audio, audio_padding: the same for transcribed speech (demo).
        visual: tokens of visual prompts on this image.
        reference: tokens of visual prompts on another image (demo; v0 and v1 take them as ``visual``).
        previous: (B, N, H/4, W/4) mask logits of the round before.
    """

    text: Tensor | None = None
    text_padding: Tensor | None = None
    audio: Tensor | None = None
    audio_padding: Tensor | None = None
    visual: VisualTokens | None = None
    reference: VisualTokens | None = None
    previous: Tensor | None = None


@dataclass
class DecoderTrace:
    """What happened inside, for parity checks. Lists have one entry per layer, ``states`` one more."""

    groups: list[tuple[str, int]] = field(default_factory=list)
    self_blocked: list[Tensor] = field(default_factory=list)  # (B, L, L)
    cross_blocked: list[Tensor] = field(default_factory=list)  # (B, rows, h * w)
    cross_logits: list[Tensor] = field(default_factory=list)  # (B, rows, h * w): blocked where below 0
    states: list[dict[str, Tensor]] = field(default_factory=list)  # normalised query states, (B, Q, C) per group


@dataclass(frozen=True, eq=False)
class DecoderOutput:
    """Per query group: ``class_embeddings`` and ``mask_embeddings`` (B, Q, C) after the last layer.

    ``states`` are the normalised query states (B, Q, C) that predictions are made from, those of the raw queries and
    of every layer: training learns at all of them.
    """

    class_embeddings: dict[str, Tensor]
    mask_embeddings: dict[str, Tensor]
    states: tuple[dict[str, Tensor], ...]


class CrossAttentionLayer(nn.Module):
    def __init__(self, config: OfficialDecoderConfig) -> None:
        super().__init__()
        self.multihead_attn = PackedAttention(config.dim, config.heads)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, position: Tensor, keys: KeysValues, blocked: Tensor) -> Tensor:
        return self.norm(x + self.multihead_attn.attend(x + position, keys, blocked))


class SelfAttentionLayer(nn.Module):
    def __init__(self, config: OfficialDecoderConfig) -> None:
        super().__init__()
        self.self_attn = PackedAttention(config.dim, config.heads)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, position: Tensor, rows: Tensor, blocked: Tensor) -> Tensor:
        """x (B, L, C) -> the given rows, (B, len(rows), C); blocked (B, len(rows), L).

        A row that may attend nowhere reads zeros, so that only the bias of the output projection is left of it.
        """
        located = x + position
        keys = self.self_attn.project_keys(located, x)
        nowhere = blocked.all(-1, keepdim=True)
        read = self.self_attn.attend(located[:, rows], keys, blocked & ~nowhere)
        return self.norm(x[:, rows] + torch.where(nowhere, self.self_attn.out_proj.bias, read))


class FFNLayer(nn.Module):
    def __init__(self, config: OfficialDecoderConfig) -> None:
        super().__init__()
        self.linear1 = Linear(config.dim, config.hidden)
        self.linear2 = Linear(config.hidden, config.dim)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.linear2(F.relu(self.linear1(x))))


class OfficialDecoder(nn.Module):
    """Queries, prompts and an image -> class and mask embeddings."""

    def __init__(self, config: OfficialDecoderConfig, semantics: Semantics) -> None:
        super().__init__()
        self.config = config
        self.semantics = semantics
        dim = config.dim
        self.query_feat = nn.Embedding(config.queries, dim)
        self.query_embed = nn.Embedding(config.queries, dim)
        self.level_embed = nn.Embedding(LEVELS, dim)
        self.memory_feat = nn.Embedding(config.memories, dim)
        self.memory_embed = nn.Embedding(config.memories, dim)
        self.visual_sampler = VisualSampler(dim, LEVELS, config.max_points)
        self.cross_attention_layers = nn.ModuleList(CrossAttentionLayer(config) for _ in range(config.layers))
        self.self_attention_layers = nn.ModuleList(SelfAttentionLayer(config) for _ in range(config.layers))
        self.ffn_layers = nn.ModuleList(FFNLayer(config) for _ in range(config.layers))
        self.decoder_norm = nn.LayerNorm(dim)
        self.mask_embed = MLP(dim, dim, dim)
        self.mask_embed.layers = nn.ModuleList(Linear(dim, dim) for _ in self.mask_embed.layers)
        self.class_embed = nn.Parameter(torch.randn(dim, dim) * dim**-0.5)

    def prepare(
        self, mask_features: Tensor, maps: Sequence[Tensor], size: tuple[int, int] | None = None
    ) -> PreparedImage:
        """Project everything that no prompt changes.

        Args:
            mask_features: (B, C, H/4, W/4).
            maps: (B, C, h, w) at strides 32, 16, 8.
            size: unpadded (h, w) of the input; given, padding is not attended. The official code attends it.
        """
        embedded, positions, reduced, outside = [], [], [], []
        for level, x in enumerate(maps):
            h, w = x.shape[-2:]
            embedded.append(x + self.level_embed.weight[level][:, None, None])
            positions.append(sine_position(h, w, x.shape[1], x.device).to(x.dtype))
            reduced.append(F.interpolate(mask_features, (h, w), mode="bilinear", align_corners=False))
            if size is not None:
                stride = mask_features.shape[-2] * 4 // h
                rows = torch.arange(h, device=x.device) * stride >= size[0]
                columns = torch.arange(w, device=x.device) * stride >= size[1]
                outside.append((rows[:, None] | columns).flatten())
        # pixel by pixel, and each head's keys in one piece, since that is how every click reads them
        mask_features, *reduced = (f.contiguous(memory_format=torch.channels_last) for f in (mask_features, *reduced))
        keys = []
        for i, layer in enumerate(self.cross_attention_layers):
            assert isinstance(layer, CrossAttentionLayer)
            level = i % LEVELS
            value = embedded[level].flatten(2).transpose(1, 2)  # (B, h * w, C)
            key = value + positions[level].flatten(1).T
            k, v = layer.multihead_attn.project_keys(key, value)
            keys.append((k.contiguous(), v.contiguous()))
        return PreparedImage(
            mask_features, tuple(embedded), tuple(keys), tuple(reduced), tuple(outside) if size is not None else None
        )

    def read_prompts(self, image: PreparedImage, strokes: Sequence[Strokes], draws: Draws) -> VisualTokens:
        """Masks at the padded input size, one ``Strokes`` per batch row -> tokens."""
        return self.visual_sampler(image.mask_features, image.maps, strokes, draws, self.semantics.missing)

    def forward(
        self,
        image: PreparedImage,
        prompts: DecoderPrompts,
        draws: Draws,
        groups: Sequence[str],
        batch: int,
        links: Sequence[tuple[str, str]] = (),
        trace: DecoderTrace | None = None,
    ) -> DecoderOutput:
        """Run the layers.

        Args:
            image: of one image, or of ``batch`` images.
            groups: the query groups to decode, some of queries_object, queries_grounding, queries_spatial.
            batch: rows; each is an image, or an object of the one image.
            links: (row, column) pairs to add to the attention rules.
        """
        rules = with_links(ATTENTION_RULES[self.semantics.name], links)
        state = self._start(prompts, draws, groups, batch)
        queries = [name for name in ORDER if name in groups]
        memory = MEMORY in state
        moving = [*queries, MEMORY] if memory else queries  # groups that look at the image
        level_previous = _resized(prompts.previous, image) if memory and prompts.previous is not None else []
        normed = self._normed(state, queries)
        states = [normed]
        for i in range(self.config.layers):
            level = i % LEVELS
            features = image.level_features[level]
            logits = torch.cat([mask_logits(self.mask_embed(normed[q]), features).flatten(2) for q in queries], 1)
            slots = None
            if memory:
                slots = draws.memory_slots(self.config.memories, level_previous[level].shape[1]).to(features.device)
                slots = slots.expand(batch, -1)
                served = level_previous[level].gather(1, slots[:, :, None].expand(-1, -1, features[0, 0].numel()))
                logits = torch.cat([logits, served], 1)
            blocked = self._cross_blocked(logits, image.outside[level] if image.outside else None)
            x = torch.cat([state[g][0] for g in moving], 1)
            position = torch.cat([state[g][1] for g in moving], 1)
            x = self.cross_attention_layers[i](x, position, image.keys[i], blocked)
            self._store(state, moving, x)
            pairs = self._self_attend(i, state, prompts, rules, slots, batch, trace)
            normed = self._normed(state, queries)
            states.append(normed)
            if trace is not None:
                trace.self_blocked.append(pairs)
                trace.cross_blocked.append(blocked)
                trace.cross_logits.append(logits)
        if trace is not None:
            trace.states.extend(states)
        return DecoderOutput(
            {q: self.class_vectors(normed[q]) for q in queries},
            {q: self.mask_embed(normed[q]) for q in queries},
            tuple(states),
        )

    def class_vectors(self, normed: Tensor) -> Tensor:
        """Normalised query states (B, Q, C) -> class embeddings, not of length 1."""
        return normed @ self.class_embed

    def _start(
        self, prompts: DecoderPrompts, draws: Draws, groups: Sequence[str], batch: int
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Content and position of every group that lives on from layer to layer."""
        content, position = self.query_feat.weight, self.query_embed.weight
        state = dict.fromkeys(groups, (content, position))
        per_prompt = self.semantics.queries_per_prompt
        if SPATIAL in groups and per_prompt is not None:
            assert prompts.visual is not None
            rows = draws.query_rows(len(content), per_prompt, prompts.visual.positive.shape[1]).to(content.device)
            state[SPATIAL] = (content[rows], position[rows])
        if prompts.previous is not None and self.semantics.memory:
            state[MEMORY] = (self.memory_feat.weight, self.memory_embed.weight)
        state = {name: (x.expand(batch, -1, -1), p.expand(batch, -1, -1)) for name, (x, p) in state.items()}
        for name, tokens in ((TEXT, prompts.text), (AUDIO, prompts.audio)):
            if tokens is not None:
                state[name] = (tokens, tokens)
        return state

    def _normed(self, state: dict[str, tuple[Tensor, Tensor]], queries: Sequence[str]) -> dict[str, Tensor]:
        return {q: self.decoder_norm(state[q][0]) for q in queries}

    @staticmethod
    def _store(state: dict[str, tuple[Tensor, Tensor]], names: Sequence[str], x: Tensor) -> None:
        for name, part in zip(names, x.split([state[n][0].shape[1] for n in names], 1), strict=True):
            state[name] = (part, state[name][1])

    @staticmethod
    def _cross_blocked(logits: Tensor, outside: Tensor | None) -> Tensor:
        """A row looks where its mask is; one whose mask is empty looks everywhere."""
        blocked = logits < 0
        if outside is None:
            return blocked & ~blocked.all(-1, keepdim=True)
        return torch.where((blocked | outside).all(-1, keepdim=True), outside, blocked | outside)

    def _self_attend(
        self,
        layer: int,
        state: dict[str, tuple[Tensor, Tensor]],
        prompts: DecoderPrompts,
        rules: Rules,
        slots: Tensor | None,
        batch: int,
        trace: DecoderTrace | None,
    ) -> Tensor:
        """Self-attention and MLP; updates ``state`` and returns the mask (B, L, L) over all groups."""
        level = layer % LEVELS
        passing = {VISUAL: prompts.visual, REFERENCE: prompts.reference}
        parts, positions, described, kept = [], [], [], []
        offset = 0
        for name in ORDER:
            tokens = passing.get(name)
            if name in state:
                x, position = state[name]
                kept.append((name, offset, x.shape[1]))
            elif tokens is not None:
                x = position = tokens.tokens[level]
            else:
                continue
            parts.append(x)
            positions.append(position)
            described.append(self._group(name, x.shape[1], prompts, level, slots))
            offset += x.shape[1]
        blocked = blocked_pairs(rules, described, batch, parts[0].device)
        rows = torch.cat([torch.arange(start, start + n, device=blocked.device) for _, start, n in kept])
        x = torch.cat(parts, 1)
        x = self.self_attention_layers[layer](x, torch.cat(positions, 1), rows, blocked[:, rows])
        self._store(state, [name for name, _, _ in kept], self.ffn_layers[layer](x))
        if trace is not None and not trace.groups:
            trace.groups = [(g.name, g.length) for g in described]
        return blocked

    def _group(self, name: str, length: int, prompts: DecoderPrompts, level: int, slots: Tensor | None) -> Group:
        padding = {TEXT: prompts.text_padding, AUDIO: prompts.audio_padding}.get(name)
        objects = None
        tokens = {VISUAL: prompts.visual, REFERENCE: prompts.reference}.get(name)
        if tokens is not None:
            padding = tokens.padding[level]
        per_prompt = self.semantics.queries_per_prompt
        if per_prompt is not None:
            if name == SPATIAL:
                objects = (torch.arange(length, device=self.class_embed.device) // per_prompt)[None]
            elif name == VISUAL and tokens is not None:
                objects = tokens.objects[level]
            elif name == MEMORY:
                objects = slots
        return Group(name, length, padding, objects)


def mask_logits(embeddings: Tensor, features: Tensor) -> Tensor:
    """(B, Q, C) and (B or 1, C, h, w) -> logits (B, Q, h, w)."""
    if len(features) == 1:  # all queries of all objects at once
        return linear(embeddings, features[0].flatten(1).T).unflatten(-1, features.shape[-2:])
    return (embeddings @ features.flatten(2)).unflatten(-1, features.shape[-2:])


def _resized(previous: Tensor, image: PreparedImage) -> list[Tensor]:
    """Mask logits (B, N, H/4, W/4) at every level's size: (B, N, h * w)."""
    return [
        F.interpolate(previous, f.shape[-2:], mode="bilinear", align_corners=False).flatten(2)
        for f in image.level_features
    ]
