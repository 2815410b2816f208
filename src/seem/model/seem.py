"""SEEM: one promptable network from a config (paper: arXiv 2304.06718, section 3).

    image  --encode_image-->  ImageFeatures   the heavy part, once per image
    text   --encode_text -->  TextFeatures    once per phrase
    prompts --decode     -->  Decoded         light, once per round
    nothing --decode_objects--> ObjectQueries panoptic, instance, semantic

Shapes: B batch (1), N objects, S candidate masks of one object, Q object queries, D joint width, (h, w) encoded size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seem.kinds import kind_of, members_of
from seem.model.closer_look import CloserLook
from seem.model.config import SEEMConfig
from seem.model.image_encoder.efficientnet_lite import EfficientNetLite
from seem.model.image_encoder.tiny_vit import TinyViT
from seem.model.layers import sample_map
from seem.model.pixel_decoder import JointProjection, LightPixelDecoder, PixelMaps, pool_masks
from seem.model.prompt_decoder import DecoderOutput, ImageState, Levels, PromptDecoder, TokenBatch
from seem.model.prompting import EncodedReference, ObjectPrompt, ReferencePrompt, VisualPrompt
from seem.model.sentence_encoder import SentenceEncoder
from seem.model.visual_sampler import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    NEGATIVE,
    POSITIVE,
    VisualSampler,
    dense_prompt,
    interior_points,
)

TEXT_CACHE = 4096  # phrases whose embeddings are kept
MAX_TEXT_TOKENS = 16  # word tokens of one phrase that the decoder sees
REFERENCE_POINTS = 16
LIKELY = 1.1  # a pixel belongs to a name from a probability of 0.25 = sigmoid(-1.1)
MAX_PEAKS, MIN_PEAK = 10, 0.2  # of a heat map, for `propose`
GRID, GRID_BATCH = 16, 24  # clicks a side that look for regions, and how many are decoded together


@dataclass
class TextFeatures:
    """Embeddings of K phrases."""

    sentence: Tensor  # (K, D) L2-normalised, in the joint space
    tokens: Tensor  # (K, T, dim) for the prompt decoder
    mask: Tensor  # (K, T) bool, True = a token


def heat_peaks(heat: Tensor, count: int, least: float) -> list[tuple[int, int]]:
    """(x, y) cells of an (h, w) map that are the largest within 2 cells, at least ``least``, highest first."""
    smooth = F.avg_pool2d(heat[None, None], 3, 1, 1, count_include_pad=False)
    highest = F.max_pool2d(smooth, 5, 1, 2)
    flat = torch.where((smooth == highest) & (smooth >= least), smooth, -1.0).flatten()
    best = flat.topk(min(count, len(flat)))
    width = heat.shape[1]
    return [(int(i) % width, int(i) // width) for i, v in zip(best.indices, best.values, strict=True) if v > 0]


@dataclass
class ImageFeatures:
    """One encoded image: the maps that are kept, and what they project to."""

    maps: PixelMaps
    joint: Tensor  # (1, D, h8, w8) pixel embeddings, not normalised
    state: ImageState
    size: tuple[int, int]  # (h, w) encoded, unpadded

    @property
    def mask_size(self) -> tuple[int, int]:
        """Size of mask logits: stride 4 of the unpadded image."""
        return -(-self.size[0] // 4), -(-self.size[1] // 4)

    def to_tensors(self) -> dict[str, Tensor]:
        """What is saved or sent: four half-precision maps."""
        names = ("embedding", "semantic", "middle", "fine")
        return {n: getattr(self.maps, n).to(torch.float16).cpu().contiguous() for n in names}

    @staticmethod
    def from_tensors(network: SEEM, tensors: dict[str, Tensor], size: tuple[int, int]) -> ImageFeatures:
        """Inverse of `to_tensors`. Raises ValueError for missing, extra or misshapen tensors."""
        c = network.config
        stride = {"embedding": 16, "semantic": 16, "middle": 8, "fine": 4}
        widths = {
            "embedding": c.pixel_decoder.dim,
            "semantic": c.pixel_decoder.semantic_dim,
            "middle": c.pixel_decoder.middle_dim,
            "fine": c.prompt_decoder.mask_dim,
        }
        if set(tensors) != set(widths):
            raise ValueError(f"scene tensors are {sorted(tensors)}; expected {sorted(widths)}")
        multiple = c.image.pad_multiple
        padded = [-(-s // multiple) * multiple for s in size]
        for name, tensor in tensors.items():
            want = (1, widths[name], padded[0] // stride[name], padded[1] // stride[name])
            if tuple(tensor.shape) != want:
                raise ValueError(f"scene tensor {name} has shape {tuple(tensor.shape)}; expected {want}")
            if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"scene tensor {name} is not finite floating point")
        device = network.device
        return network.project(PixelMaps(**{n: t.to(device, torch.float32) for n, t in tensors.items()}), size)


@dataclass
class Decoded:
    """Masks of N prompted objects."""

    logits: Tensor  # (N, S, h/4, w/4), > 0 is inside
    scores: Tensor  # (N, S) predicted IoU in 0..1
    embeddings: Tensor  # (N, S, D) L2-normalised class embeddings
    selected: Tensor  # (N,)
    score_kind: str = "predicted_iou"


@dataclass
class ObjectQueries:
    """Masks of the prompt-free queries, or of others: Q regions."""

    logits: Tensor  # (Q, h/4, w/4)
    embeddings: Tensor  # (Q, D)
    scores: Tensor  # (Q,) predicted IoU in 0..1, 0 for a query that found nothing
    # of `propose` alone, for its phrase: mean probability inside the mask that a pixel shows it, and the share of all
    # such probability that lies inside the mask
    presence: Tensor | None = None  # (Q,)
    coverage: Tensor | None = None  # (Q,)
    score_kind: str = "predicted_iou"
    looked: Tensor | None = None  # (Q, D) what a closer look says they are
    whole: Tensor | None = None  # (Q,) share of the mask's area in its largest piece, where it is known already
    asked: int = 0  # how many, from the first on, a phrase itself gave
    few: bool = False  # only what a phrase points to, of which one is the answer

    def take(self, chosen: Tensor | list[int]) -> ObjectQueries:
        """Some of them, by index."""

        def some(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[chosen]

        return ObjectQueries(
            self.logits[chosen],
            self.embeddings[chosen],
            self.scores[chosen],
            some(self.presence),
            some(self.coverage),
            self.score_kind,
            some(self.looked),
            some(self.whole),
        )


class PanopticRule(NamedTuple):
    """How a network's regions become segments.

    Attributes:
        threshold: class probability x predicted IoU must exceed it.
        overlap: share of a region's own mask that must stay visible behind better ones.
        distinct: regions that overlap a better one by more IoU than this are the same.
    """

    threshold: float
    overlap: float
    distinct: float = 1.0


class ClickRule(NamedTuple):
    """Which masks of clicks that nobody made are kept: those that are sure, stable and not tiny.

    Attributes:
        sure: predicted IoU must exceed it.
        stable: area at a stricter threshold over the area at a laxer one must exceed it (Kirillov et al.,
            arXiv 2304.02643, section 5).
        smallest: mask cells.
    """

    sure: float = 0.3
    stable: float = 0.5
    smallest: int = 8


def box_agreement(logits: Tensor, points: Tensor, kinds: Tensor) -> Tensor:
    """How well each candidate's bounding box fits the smallest box around an object's box prompts.

    Args:
        logits: (N, S, h/4, w/4)
        points: (N, P, 2) xy in pixels of the encoded image.
        kinds: (N, P) as of `visual_sampler`; others than boxes' corners do not matter.

    Returns:
        (N, S) IoU in 0..1; 0 for an empty mask, or without a box.
    """
    big = 1e6
    inside = (logits > 0).float()
    ends = []
    for axis, covered in ((0, inside.amax(-2)), (1, inside.amax(-1))):  # (N, S, w), (N, S, h)
        at = torch.arange(covered.shape[-1], device=logits.device).float()
        first = (at + big * (1 - covered)).amin(-1)  # (N, S)
        last = ((at + 1) * covered).amax(-1)
        cell = points[..., axis] / 4
        low = torch.where(kinds == BOX_TOP_LEFT, cell, big).amin(-1, keepdim=True)  # (N, 1)
        high = torch.where(kinds == BOX_BOTTOM_RIGHT, cell, -big).amax(-1, keepdim=True)
        ends.append((first, last, low, high))
    both = torch.ones_like(ends[0][0])
    own, given = both, both
    for first, last, low, high in ends:
        both = both * (last.minimum(high) - first.maximum(low)).clamp(min=0)
        own = own * (last - first).clamp(min=0)
        given = given * (high - low).clamp(min=0)
    return both / (own + given - both).clamp(min=1e-6)


def encoded_masks(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(Q, h/4, w/4) mask logits -> (Q, h, w) bool on the encoded image of that size."""
    large = F.interpolate(logits[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    return large[:, : size[0], : size[1]] > 0


def click_grid(size: tuple[int, int], side: int) -> np.ndarray:
    """(side * side, 2) float32 xy: the centres of a grid on an image of (h, w)."""
    ys, xs = ((np.arange(side) + 0.5) * length / side for length in size)
    return np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2).astype(np.float32)


def click_masks(
    network: SEEM, features: ImageFeatures, points: np.ndarray, rule: ClickRule | None = None
) -> ObjectQueries:
    """Every candidate mask of a click on each of (P, 2) encoded points that the rule keeps.

    Each click is an object of its own; `GRID_BATCH` of them are one decode, which bounds memory.
    """
    rule = rule or ClickRule()
    parts = []
    for start in range(0, len(points), GRID_BATCH):
        clicks = [ObjectPrompt((VisualPrompt("click", True, p[None]),)) for p in points[start : start + GRID_BATCH]]
        decoded = network.decode(features, clicks)
        logits, scores = decoded.logits.flatten(0, 1), decoded.scores.flatten()
        areas = torch.stack([(logits > t).flatten(1).sum(1) for t in (1, 0, -1)])
        good = (scores > rule.sure) & (areas[1] >= rule.smallest) & (areas[0] > rule.stable * areas[2])
        embeddings = decoded.embeddings.flatten(0, 1)[good]
        parts.append(ObjectQueries(logits[good], embeddings, scores[good], score_kind=decoded.score_kind))
    return join_queries(parts)


def join_queries(parts: Sequence[ObjectQueries]) -> ObjectQueries:
    """One after another; what is known of all of them stays known."""

    def joined(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [v for v in values if v is not None]
        return torch.cat(known) if len(known) == len(values) else None

    return ObjectQueries(
        torch.cat([p.logits for p in parts]),
        torch.cat([p.embeddings for p in parts]),
        torch.cat([p.scores for p in parts]),
        score_kind=parts[0].score_kind,
        looked=joined([p.looked for p in parts]),
        whole=joined([p.whole for p in parts]),
    )


class SEEM(nn.Module):
    """The network. Parts come from the config; each is a module of its own and can be replaced."""

    places_by_geometry = True  # "the dog on the left" is chosen among all dogs, not asked of the network
    panoptic_rule = PanopticRule(threshold=0.3, overlap=0.5, distinct=0.4)  # chosen on 30 development photos

    def __init__(self, config: SEEMConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SEEMConfig()
        c, p = config.prompt_decoder, config.pixel_decoder
        self.image_encoder = TinyViT(config.image_encoder)
        self.semantic_encoder = EfficientNetLite(config.semantic_encoder)
        self.text_encoder = SentenceEncoder(config.text_encoder)
        dims, channels = config.image_encoder.dims, config.semantic_encoder.feature_channels
        self.pixel_decoder = LightPixelDecoder(
            p, c, (dims[0], dims[1], dims[3]), (channels["s8"], channels["s16"], channels["s32"])
        )
        self.joint = JointProjection(p)
        self.visual_sampler = VisualSampler(c)
        self.prompt_decoder = PromptDecoder(c, p)
        text_dim = config.text_encoder.width
        self.text_projection = nn.Linear(text_dim, p.joint_dim)
        self.text_token_projection = nn.Linear(text_dim, c.dim)
        self.class_embed = nn.Linear(c.dim, p.joint_dim)
        nn.init.zeros_(self.class_embed.weight)
        nn.init.zeros_(self.class_embed.bias)
        self.object_class_embed = nn.Linear(c.dim, p.joint_dim)
        self.closer_look = (
            CloserLook(config.closer_look, channels["s16"], channels["s32"], p.joint_dim, text_dim)
            if config.closer_look.hidden
            else None
        )
        self.logit_scale = nn.Parameter(torch.tensor(2.5))  # log of the class temperature
        self.heat_scale = nn.Parameter(torch.tensor(2.3))
        self.heat_bias = nn.Parameter(torch.tensor(-4.0))
        self.own_names: tuple[str, ...] = ()  # learned beside COCO's
        self.pinned_text: dict[str, tuple[Tensor, Tensor]] = {}  # shipped with the weights: common names
        self._text_cache: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    features_type = ImageFeatures

    @property
    def device(self) -> torch.device:
        return self.logit_scale.device

    # ---- image ----------------------------------------------------------------------------------------------------

    def encode_image(self, pixels: Tensor, size: tuple[int, int]) -> ImageFeatures:
        """(1, 3, H, W) normalised and padded; ``size`` is the unpadded (h, w)."""
        return self.project(self.encode_maps(pixels), size)

    def encode_maps(self, pixels: Tensor) -> PixelMaps:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        maps: PixelMaps = self.pixel_decoder(self.image_encoder(pixels), self.semantic_encoder(pixels))
        return maps

    def project(self, maps: PixelMaps, size: tuple[int, int]) -> ImageFeatures:
        """What every prompt reads, computed once."""
        joint = self.joint(maps)
        return ImageFeatures(maps, joint, self.prompt_decoder.project(maps, joint, self.visual_sampler.position), size)

    # ---- text -----------------------------------------------------------------------------------------------------

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """Phrases -> joint space. In inference the text encoder runs once per phrase; results are kept (LRU)."""
        raw = self.raw_text(texts)
        tokens = nn.utils.rnn.pad_sequence([t for _, t in raw], batch_first=True)
        lengths = torch.tensor([len(t) for _, t in raw], device=self.device)
        mask = torch.arange(tokens.shape[1], device=self.device)[None] < lengths[:, None]
        sentence = torch.stack([s for s, _ in raw])
        return TextFeatures(
            F.normalize(self.text_projection(sentence), dim=-1), self.text_token_projection(tokens), mask
        )

    @torch.no_grad()
    def raw_text(self, texts: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """Frozen text encoder's (sentence (C,), word tokens (T, C)) of each phrase, cached.

        Phrases go through one at a time: in a batch, rounding would depend on the other phrases. A word that the
        network did not learn, for something that it knows by another name (`seem.kinds`), leans on that name: its
        sentence is the mean of both.
        """
        result = []
        for text in texts:
            known = self.pinned_text.get(text) or self._text_cache.get(text)
            if known is None:
                ids, mask = self.text_encoder.tokenize([text])
                tokens, sentence = self.text_encoder(ids.to(self.device), mask.to(self.device))
                known = (sentence[0].clone(), tokens[0, :MAX_TEXT_TOKENS].clone())
                kind = kind_of(text)
                if kind is not None and not kind.learned:
                    known = ((known[0] + self.raw_text([kind.name])[0][0]) / 2, known[1])
                self._text_cache[text] = known  # each step is atomic: threads may at worst compute one twice
                if len(self._text_cache) > TEXT_CACHE:
                    self._text_cache.popitem(last=False)
            result.append((known[0].to(self.device), known[1].to(self.device)))
        return result

    # ---- prompts --------------------------------------------------------------------------------------------------

    def decode(self, features: ImageFeatures, objects: Sequence[ObjectPrompt]) -> Decoded:
        """N objects in one pass -> S candidate masks each, and the one that the prompts match."""
        batch, matched_text, point_sets = self.batch(features, objects)
        out: DecoderOutput = self.prompt_decoder(features.state, batch, self._prompt_levels(features))
        h, w = features.mask_size
        logits = out.logits[..., :h, :w]
        scores = out.iou.clamp(0, 1)
        embeddings = self.class_embeddings(features, out)
        selected = self.select(logits, scores, embeddings, matched_text, point_sets)
        return Decoded(logits, scores, embeddings, selected)

    def levels(self, features: ImageFeatures) -> Levels:
        return self.prompt_decoder.levels(features.maps, self.visual_sampler.position)

    def _prompt_levels(self, features: ImageFeatures) -> Levels | None:
        return self.levels(features) if self.config.prompt_decoder.masked_prompts else None

    def class_embeddings(self, features: ImageFeatures, out: DecoderOutput) -> Tensor:
        """(N, S, D): what the query says plus the mean of the pixel embeddings inside its mask."""
        n, s = out.logits.shape[:2]
        pooled = pool_masks(features.joint, out.logits.flatten(0, 1).sigmoid()).view(n, s, -1)
        return F.normalize(pooled + self.class_embed(out.queries), dim=-1)

    def select(
        self,
        logits: Tensor,
        scores: Tensor,
        embeddings: Tensor,
        texts: list[Tensor | None],
        points: list[tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Separate matching: visual prompts are compared with mask embeddings, text with class embeddings.

        A mask embedding times the mean prompt feature is the mean mask logit at the prompt's points, so a candidate
        is judged by how far its mask agrees with the clicks, by how well its bounding box fits the boxes, by its
        predicted IoU, and by its class embedding's similarity with the text.
        """
        rank = scores.clone()
        for i, (text, (xy, kind)) in enumerate(zip(texts, points, strict=True)):
            clicks = kind <= POSITIVE
            if bool(clicks.any()):
                h, w = logits.shape[-2:]
                cell = (xy[clicks] / 4).long()
                cell[:, 0].clamp_(0, w - 1)
                cell[:, 1].clamp_(0, h - 1)
                inside = logits[i][:, cell[:, 1], cell[:, 0]].sigmoid()  # (S, clicks)
                agreement = torch.where(kind[clicks] == POSITIVE, inside, 1 - inside).mean(-1)
                rank[i] = rank[i] + 0.5 * agreement
            if bool((kind > POSITIVE).any()):
                rank[i] = rank[i] + 0.5 * box_agreement(logits[i : i + 1], xy[None], kind[None])[0]
            if text is not None:
                rank[i] = rank[i] + 0.5 * embeddings[i] @ text
        return rank.argmax(-1)

    def batch(
        self, features: ImageFeatures, objects: Sequence[ObjectPrompt]
    ) -> tuple[TokenBatch, list[Tensor | None], list[tuple[Tensor, Tensor]]]:
        """Prompts of N objects as padded tokens and maps; also each object's text embedding and points."""
        device, size = self.device, features.size
        embedding = features.maps.embedding
        joint = features.state.joint
        grid4 = (features.state.grid[0] * 4, features.state.grid[1] * 4)
        n = len(objects)
        similarity = torch.zeros(n, 2, *joint.shape[-2:], device=device)
        dense = torch.zeros(n, 1, *grid4, device=device)
        previous = torch.zeros(n, *grid4, device=device)
        has_dense = torch.zeros(n, dtype=torch.bool, device=device)
        has_previous = torch.zeros(n, dtype=torch.bool, device=device)
        grounding = torch.zeros(n, dtype=torch.bool, device=device)
        rows: list[Tensor] = []
        texts: list[Tensor | None] = []
        points: list[tuple[Tensor, Tensor]] = []
        for i, item in enumerate(objects):
            xy, kind = self.visual_sampler.points(item.visual, size)
            tokens = [self.visual_sampler(embedding, xy, kind)]
            text: Tensor | None = None
            if item.texts:
                encoded = self.encode_text(item.texts)
                tokens.append(encoded.tokens[encoded.mask])
                text = F.normalize(encoded.sentence.mean(0), dim=0)
                similarity[i, 0] = self.heat(joint, text[None])[0]
            for reference in item.references:
                known = reference if isinstance(reference, EncodedReference) else self.encode_reference(reference)
                tokens.append(self.visual_sampler.reference_tokens(known.samples, known.kinds))
                heat = self.heat(joint, known.embedding[None])[0]
                similarity[i, 1] = heat if similarity[i, 1].eq(0).all() else torch.maximum(similarity[i, 1], heat)
            drawn = dense_prompt(item.visual, size)
            if item.previous is not None:
                previous[i, : item.previous.shape[-2], : item.previous.shape[-1]] = item.previous
                has_previous[i] = True
                dense[i, 0], has_dense[i] = previous[i], True
            if drawn is not None:
                shown = torch.from_numpy(drawn).to(device)
                region = dense[i, 0, : shown.shape[0], : shown.shape[1]]
                region.copy_(torch.maximum(region, shown) if item.previous is not None else shown)
                has_dense[i] = True
            grounding[i] = not item.visual
            rows.append(torch.cat(tokens))
            texts.append(text)
            points.append((xy, kind))
        tokens_padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(r) for r in rows], device=device)
        valid = torch.arange(tokens_padded.shape[1], device=device)[None] < lengths[:, None]
        c = self.config.prompt_decoder
        named = torch.tensor([bool(o.texts or o.references) for o in objects], device=device)
        batch = TokenBatch(
            tokens_padded,
            valid,
            grounding,
            dense if c.dense_mask and bool(has_dense.any()) else None,
            has_dense,
            previous if bool(has_previous.any()) else None,
            has_previous,
            similarity if c.dense_similarity and named.any() else None,
            named,
        )
        return batch, texts, points

    def heat(self, joint: Tensor, embedding: Tensor) -> Tensor:
        """(1, D, h8, w8) normalised x (K, D) -> (K, h8, w8) logits."""
        return torch.einsum("kd,dhw->khw", embedding, joint[0]) * self.heat_scale.exp() + self.heat_bias

    def encode_reference(self, reference: ReferencePrompt) -> EncodedReference:
        """The region is segmented on its own image; its mask says where to read and what it is."""
        features = reference.features
        found = self.decode(features, [ObjectPrompt(visual=reference.prompts)])
        logits = found.logits[0, found.selected[0]]
        xy, kind = self.visual_sampler.points(reference.prompts, features.size)
        excluded = xy[kind == NEGATIVE]
        inside = self.region_points((logits > 0).cpu().numpy())
        if not len(inside):
            inside = xy[kind != NEGATIVE]
        samples = sample_map(features.maps.embedding, torch.cat([excluded, inside]), 16.0)
        kinds = torch.cat([torch.zeros(len(excluded)), torch.ones(len(inside))]).long().to(self.device)
        return EncodedReference(samples, kinds, found.embeddings[0, found.selected[0]])

    def region_points(self, mask: np.ndarray) -> Tensor:
        """A few points (P, 2), in encoded pixels, all over an (h/4, w/4) mask."""
        return torch.from_numpy(interior_points(mask, REFERENCE_POINTS) * 4).to(self.device)

    # ---- without prompts ------------------------------------------------------------------------------------------

    def decode_objects(self, features: ImageFeatures) -> ObjectQueries:
        """Every object query of the image: panoptic, instance and semantic come from these."""
        out = self.prompt_decoder.objects(features.state, self.levels(features))[-1]
        h, w = features.mask_size
        embeddings = self.object_embeddings(features, out)
        return ObjectQueries(out.logits[0, :, :h, :w], embeddings[0], out.iou[0].sigmoid())

    def regions(self, features: ImageFeatures) -> ObjectQueries:
        """What panoptic segmentation chooses from: the object queries, and all that a grid of clicks finds.

        Clicks are what this network does best; of their masks those stay that are sure and stable: nearly the same at a
        stricter and a laxer threshold (Kirillov et al., arXiv 2304.02643).
        """
        clicks = click_grid(features.size, GRID)
        return join_queries([self.decode_objects(features), click_masks(self, features, clicks)])

    def look_closer(self, features: ImageFeatures, photo: Tensor, regions: ObjectQueries) -> ObjectQueries:
        """The same regions, with what a closer look at a photo (3, H, W) says of them; the network must have one."""
        assert self.closer_look is not None
        if not len(regions.logits):
            return regions
        masks = encoded_masks(regions.logits, features.size)
        masks[~masks.flatten(1).any(1)] = True  # an empty one is nowhere: the whole photo stands for it
        seen = self.closer_look.look(self.semantic_encoder, photo, masks)
        return replace(regions, looked=self.closer_look(seen))

    def object_embeddings(self, features: ImageFeatures, out: DecoderOutput) -> Tensor:
        pooled = pool_masks(features.joint, out.logits[0].sigmoid())[None]
        return F.normalize(pooled + self.object_class_embed(out.queries), dim=-1)

    def propose(self, features: ImageFeatures, phrase: str) -> ObjectQueries:
        """Regions that a phrase may name: what it gives by itself and where its heat map peaks, and the object queries.

        Returns:
            In the order of `prompted`, then the object queries.
        """
        heat = self.shows(features, phrase)
        return self.shown(heat, [self.prompted(features, phrase, heat), self.decode_objects(features)])

    def prompted(self, features: ImageFeatures, phrase: str, heat: Tensor) -> ObjectQueries:
        """What a phrase gives by itself, then objects prompted where its heat map (of `shows`) peaks.

        Each peak is a click that the model makes itself, decoded together with the phrase (text helps clicks).
        """
        prompts = [ObjectPrompt(texts=(phrase,))]
        for x, y in heat_peaks(heat, MAX_PEAKS, MIN_PEAK):
            click = VisualPrompt("click", True, np.array([[8 * x + 4, 8 * y + 4]], np.float32))
            prompts.append(ObjectPrompt(visual=(click,), texts=(phrase,)))
        decoded = self.decode(features, prompts)
        rows = torch.arange(len(prompts), device=self.device)
        return ObjectQueries(
            decoded.logits[rows, decoded.selected],
            decoded.embeddings[rows, decoded.selected],
            decoded.scores[rows, decoded.selected],
        )

    def shown(self, heat: Tensor, parts: Sequence[ObjectQueries]) -> ObjectQueries:
        """Regions with what a phrase's heat map (of `shows`) says of them: their `presence` and `coverage`."""
        regions = join_queries(parts)
        weight = F.adaptive_avg_pool2d((regions.logits > 0).float()[None], (heat.shape[0], heat.shape[1]))[0].flatten(1)
        inside = weight @ heat.flatten()
        return replace(
            regions,
            presence=inside / weight.sum(1).clamp_min(1e-4),
            coverage=inside / heat.sum().clamp_min(1e-4),
        )

    def shows(self, features: ImageFeatures, phrase: str) -> Tensor:
        """(h/8, w/8) in 0..1: does a pixel show what a phrase names, or one of the things that it stands for?"""
        texts = [phrase, *members_of(phrase)]
        return self.text_heatmap(features, self.encode_text(texts).sentence).amax(0).sigmoid()

    # ---- names ----------------------------------------------------------------------------------------------------

    def embed_masks(self, features: ImageFeatures, masks: Tensor) -> Tensor:
        """Class embeddings (N, D) of any masks (N, h/4, w/4) in 0..1."""
        h, w = features.state.grid[0] * 4, features.state.grid[1] * 4
        padded = F.pad(masks.float(), (0, w - masks.shape[-1], 0, h - masks.shape[-2]))
        return F.normalize(pool_masks(features.joint, padded), dim=-1)

    def class_logits(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """(…, D) x (K, D) -> (…, K), at the learned temperature."""
        return embeddings @ text.T * self.logit_scale.exp()

    def semantic_regions(self, features: ImageFeatures, text: Tensor) -> Tensor | None:
        """Mask logits (K, h/4, w/4) of K names by pixel: > 0 where a name is likely and likelier than the others.

        Stuff comes from here: it has no instances for object queries to find.
        """
        heat = self.text_heatmap(features, text)
        first = heat.topk(min(2, len(heat)), 0).values
        others = torch.where(heat == first[0], first[-1], first[0]) if len(heat) > 1 else torch.full_like(heat, -9.0)
        logits = torch.minimum(heat - others, heat + LIKELY)
        large = F.interpolate(logits[None], scale_factor=2, mode="bilinear", align_corners=False)[0]
        h, w = features.mask_size
        return large[:, :h, :w]

    def text_heatmap(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Logits (K, h/8, w/8) that a pixel belongs to what the text names."""
        h, w = -(-features.size[0] // 8), -(-features.size[1] // 8)
        return self.heat(features.state.joint, text)[:, :h, :w]
