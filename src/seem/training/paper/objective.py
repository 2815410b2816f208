"""The paper's loss on one photo: generic, referring and interactive segmentation together (SPEC sections 9 to 11).

Every term is a sum over the photo divided by a count over the whole step, all photos of all processes, so that the
gradients of the parts add up to the gradient of the whole:

| task | its terms | divided by |
|---|---|---|
| generic | BCE and dice of matched masks | objects |
| | cross-entropy of every query's class, less for "nothing" | the weights in it |
| referring | BCE, dice, cross-entropy over the queries for each phrase | phrases |
| interactive | BCE, dice, cross-entropy over the queries for each prompted object | prompted objects |

All of them are taken after every layer and of the raw queries, ten times in all, and matched anew each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from seem.evaluation.official_robot import next_clicks
from seem.model.attention_rules import GROUNDING, OBJECT, SPATIAL
from seem.model.official_decoder import DecoderPrompts, mask_logits
from seem.model.official_seem import OfficialFeatures, OfficialSEEM, match_text
from seem.model.official_visual_sampler import OfficialDraws, Strokes
from seem.training.losses import mask_iou
from seem.training.paper.config import ObjectiveConfig, Weights
from seem.training.paper.lesson import Lesson
from seem.training.paper.matching import CLICK_COST, OBJECT_COST, OFFICIAL_CLICK_COST, TEXT_COST, match, pair_costs
from seem.training.paper.points import PointSampler, mask_losses, read_shared

SPOKEN, NAMED = 2.0, 0.5  # weights of the cross-entropy of people's phrases and of class names in sentences
OUTSIDE = -10.0  # mask logit of padding


@dataclass
class _Photo:
    """A lesson on its way through the network."""

    lesson: Lesson
    features: OfficialFeatures
    mask_features: Tensor  # (C, H/4, W/4) float32
    truth: Tensor  # (n, H, W) float32
    draws: OfficialDraws
    sampler: PointSampler
    log: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Answer:
    """What the queries that listen to visual prompts say, one row per object.

    Attributes:
        masks: per prediction point (N, S, C) mask embeddings of the queries that serve the object.
        scores: per prediction point (N, S), how like the prompt they are.
        all_scores: per prediction point (N, Q), the same for all queries in the object's row.
        first: (N,) where the object's own queries begin among them.
    """

    masks: list[Tensor]
    scores: list[Tensor]
    all_scores: list[Tensor]
    first: Tensor


class PaperObjective:
    """Callable on a lesson; between lessons it keeps nothing but the sentences of a frozen text encoder."""

    def __init__(self, model: OfficialSEEM, config: ObjectiveConfig) -> None:
        self.model, self.config = model, config
        self._sentences: dict[str, Tensor] = {}

    def counts(self, lesson: Lesson) -> Tensor:
        """(4,) what this lesson adds to the divisors: objects, class weights, phrases, prompted objects."""
        queries = self.model.config.prompt_decoder.queries
        known = min(int((lesson.classes >= 0).sum()), queries)
        weights = known + self.config.no_object * (queries - known)
        return torch.tensor([known, weights, len(lesson.phrases), len(lesson.objects)], dtype=torch.float64)

    def __call__(self, lesson: Lesson, counts: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The lesson's share of the step's loss, and this photo's own means of the terms after the last layer.

        Args:
            counts: (4,) the sum of ``counts`` over the step; its mean over processes whose gradients are averaged.
        """
        device = self.model.device
        divisors = torch.where(counts > 0, counts, 1.0).tolist()
        features = self.model.encode_image(lesson.pixels.to(device), lesson.size)
        photo = _Photo(
            lesson,
            features,
            features.mask_features[0].float(),
            lesson.masks.to(device).float(),
            OfficialDraws(self._packed, torch.Generator().manual_seed(lesson.seed)),
            self._sampler(lesson),
        )
        total = features.mask_features.sum() * 0.0
        if "generic" in self.config.tasks:
            total = total + self._generic(photo, divisors[0], divisors[1])
        if "referring" in self.config.tasks and lesson.phrases:
            total = total + self._referring(photo, divisors[2])
        if "interactive" in self.config.tasks and len(lesson.objects):
            total = total + self._interactive(photo, divisors[3])
        return total, photo.log

    @property
    def _packed(self) -> bool:
        """Whether the objects of a photo share a row of the batch, each with a few queries of its own (v1)."""
        return self.model.config.semantics.queries_per_prompt is not None

    def _sampler(self, lesson: Lesson) -> PointSampler:
        c, (height, width), (h, w) = self.config, lesson.pixels.shape[-2:], lesson.size
        extent = (1.0, 1.0) if c.official_quirks else (w / width, h / height)
        generator = torch.Generator(self.model.device).manual_seed(lesson.seed)
        return PointSampler(c.points, c.oversample, c.importance, extent, generator)

    # ---- generic: every object of the vocabulary ------------------------------------------------------------------

    def _generic(self, photo: _Photo, objects: float, class_weights: float) -> Tensor:
        lesson, decoder = photo.lesson, self.model.decoder
        known = lesson.classes >= 0
        truth, classes = photo.truth[known.to(photo.truth.device)], lesson.classes[known].to(photo.truth.device)
        text = self._class_table(lesson.sentences)
        out = decoder(photo.features.prepared, DecoderPrompts(), photo.draws, [OBJECT], 1)
        total = text.sum() * 0.0
        for state in out.states:
            logits = self.model.class_logits(decoder.class_vectors(state[OBJECT])[0], text)
            embeddings = decoder.mask_embed(state[OBJECT])[0]
            with _full_precision(text):
                logits, embeddings = logits.float(), embeddings.float()
                with torch.no_grad():
                    points, found, wanted = self._at_points(photo, embeddings, truth)
                    likeness = logits.softmax(-1)[:, classes]
                    queries, targets = match(pair_costs(likeness, found, wanted, OBJECT_COST))
                    learn = self._learned(photo, points, found, queries)
                ce = self._class_loss(logits, queries, classes[targets], learn) / class_weights
                bce, dice = (x.sum() / objects for x in self._mask_losses(photo, embeddings[queries], truth[targets]))
                total = total + _weighted(self.config.object_weights, ce, bce, dice)
        own = self.counts(lesson)[:2].clamp(min=1).tolist()
        photo.log["object_ce"] = float(ce.detach()) * class_weights / own[1]
        if len(truth):
            photo.log |= {
                "object_bce": float(bce.detach()) * objects / own[0],
                "object_dice": float(dice.detach()) * objects / own[0],
            }
        return total

    def _class_loss(self, logits: Tensor, queries: Tensor, classes: Tensor, learn: Tensor) -> Tensor:
        """Sum of weight * cross-entropy over the queries that ``learn``: their class, or "nothing", the last one."""
        nothing = logits.shape[1] - 1
        target = torch.full((len(logits),), nothing, device=logits.device)
        target[queries] = classes
        weight = torch.where(target == nothing, self.config.no_object, 1.0) * learn
        return (F.cross_entropy(logits, target, reduction="none") * weight).sum()

    @staticmethod
    def _learned(photo: _Photo, points: Tensor, found: Tensor, queries: Tensor) -> Tensor:
        """(Q,) bool: not a query without a target whose mask lies mostly where an unannotated object may be."""
        if photo.lesson.ignore is None:
            return torch.ones(len(found), dtype=torch.bool, device=found.device)
        unknown = read_shared(photo.lesson.ignore.to(found)[None], points)[0] > 0.5
        inside = found > 0
        learn = 2 * (inside & unknown).sum(1) <= inside.sum(1)
        learn[queries] = True
        return learn

    def _class_table(self, sentences: Sequence[str]) -> Tensor:
        """(K + 1, D) of length 1, with gradients if the text encoder learns."""
        encoder = self.model.text_encoder
        if encoder.projection.requires_grad:
            return encoder.encode_classes(sentences, templates=False)
        missing = [s for s in dict.fromkeys(sentences) if s not in self._sentences]
        if missing:
            self._sentences |= zip(missing, encoder.encode_classes(missing, templates=False), strict=True)
        return torch.stack([self._sentences[s] for s in sentences])

    # ---- referring: text against class embeddings ------------------------------------------------------------------

    def _referring(self, photo: _Photo, phrases: float) -> Tensor:
        lesson, decoder = photo.lesson, self.model.decoder
        truth = photo.truth[lesson.named.to(photo.truth.device)]
        sentences, tokens, mask = self.model.text_encoder.encode(lesson.phrases)
        group = OBJECT if self.model.config.semantics.joint else GROUNDING
        prompts = DecoderPrompts(text=tokens[mask][None])  # all phrases of a photo are one sequence
        out = decoder(photo.features.prepared, prompts, photo.draws, [group], 1)
        same = torch.tensor([[a == b for b in lesson.phrases] for a in lesson.phrases], device=truth.device).float()
        total = sentences.sum() * 0.0
        for state in out.states:
            scale = self.model.text_encoder.logit_scale
            scores = match_text(decoder.class_vectors(state[group]), sentences, scale)[0]
            embeddings = decoder.mask_embed(state[group])[0]
            with _full_precision(truth):
                scores, embeddings = scores.float(), embeddings.float()  # (Q, P), (Q, C)
                with torch.no_grad():
                    _, found, wanted = self._at_points(photo, embeddings, truth)
                    queries, targets = match(pair_costs(scores.softmax(0), found, wanted, TEXT_COST))
                    right = torch.zeros_like(scores).T  # (P, Q)
                    right[targets, queries] = 1
                    right = same @ right
                    right = right / right.sum(1, keepdim=True).clamp(min=1)
                ce = -(right * scores.T.log_softmax(-1)).sum() * (SPOKEN if lesson.spoken else NAMED) / phrases
                bce, dice = (x.sum() / phrases for x in self._mask_losses(photo, embeddings[queries], truth[targets]))
                total = total + _weighted(self.config.text_weights, ce, bce, dice)
        own = phrases / len(lesson.phrases)
        photo.log |= {
            "text_ce": float(ce.detach()) * own,
            "text_bce": float(bce.detach()) * own,
            "text_dice": float(dice.detach()) * own,
        }
        return total

    # ---- interactive: visual prompts against mask embeddings ---------------------------------------------------------

    def _interactive(self, photo: _Photo, objects: float) -> Tensor:
        lesson, device = photo.lesson, photo.truth.device
        truth = photo.truth[lesson.objects.to(device)]
        strokes, previous = self._play(photo, truth.bool(), lesson.strokes.to(device))
        answer = self._ask(photo, strokes, previous)
        cost = OFFICIAL_CLICK_COST if self.config.official_quirks else CLICK_COST
        rows = torch.arange(len(truth), device=device)
        total = truth.sum() * 0.0
        for masks, scores, all_scores in zip(answer.masks, answer.scores, answer.all_scores, strict=True):
            with _full_precision(truth):
                with torch.no_grad():
                    points = photo.sampler.anywhere(1)[0]
                    read = read_shared(photo.mask_features, points)  # (C, points)
                    wanted = read_shared(truth, points)
                    likeness = all_scores.softmax(-1)
                    best = torch.stack(
                        [
                            pair_costs(
                                likeness[i, at : at + scores.shape[1], None], masks[i] @ read, wanted[i : i + 1], cost
                            ).argmin()
                            for i, at in enumerate(answer.first.tolist())
                        ]
                    )
                ce = F.cross_entropy(all_scores, answer.first + best, reduction="sum") / objects
                bce, dice = (x.sum() / objects for x in self._mask_losses(photo, masks[rows, best], truth))
                total = total + _weighted(self.config.click_weights, ce, bce, dice)
        own = objects / len(truth)
        chosen = answer.masks[-1].detach()[rows, answer.scores[-1].detach().argmax(1)]
        photo.log |= {
            "click_ce": float(ce.detach()) * own,
            "click_bce": float(bce.detach()) * own,
            "click_dice": float(dice.detach()) * own,
            "click_iou": float(mask_iou(self._enlarged(photo, chosen), truth).mean()),
            "rounds": float(lesson.rounds),
        }
        return total

    @torch.no_grad()
    def _play(self, photo: _Photo, truth: Tensor, positive: Tensor) -> tuple[Strokes, Tensor | None]:
        """The rounds before the one that is learned from: prompts so far, and the last masks (N, H/4, W/4)."""
        negative = torch.zeros_like(positive)
        previous = None
        for _ in range(photo.lesson.rounds):
            answer = self._ask(photo, Strokes(positive, negative), previous)
            best = answer.scores[-1].argmax(1)
            chosen = answer.masks[-1][torch.arange(len(truth), device=truth.device), best]
            with _full_precision(chosen):
                previous = self._logits(photo, chosen)
                positive, wrong = next_clicks(previous, truth, positive, negative)
            if self.config.negative_prompts:
                negative = wrong
        return Strokes(positive, negative), previous

    def _ask(self, photo: _Photo, strokes: Strokes, previous: Tensor | None) -> _Answer:
        """One pass over all objects: v1 packs them into one row of the batch, v0 and demo give each its own."""
        decoder, image, semantics = self.model.decoder, photo.features.prepared, self.model.config.semantics
        group = OBJECT if semantics.joint else SPATIAL
        n = len(strokes.positive)
        axis = 0 if self._packed else 1
        rows = [Strokes(p, q) for p, q in zip(strokes.positive.split(1), strokes.negative.split(1), strict=True)]
        tokens = decoder.read_prompts(image, [strokes] if self._packed else rows, photo.draws)
        memory = previous.unsqueeze(axis) if previous is not None and semantics.memory else None
        prompts = DecoderPrompts(visual=tokens, previous=memory)
        out = decoder(image, prompts, photo.draws, [group], 1 if self._packed else n)
        targets = tokens.positive.squeeze(axis).float()  # (N, C)
        each = semantics.queries_per_prompt
        first = torch.arange(n, device=targets.device) * (each or 0)
        masks, scores, all_scores = [], [], []
        for state in out.states:
            embeddings = decoder.mask_embed(state[group]).float()
            compared = decoder.class_vectors(state[group]).float() if self.config.matching == "joint" else embeddings
            with _full_precision(targets):
                if each is None:
                    match_all = (compared @ targets[:, :, None])[..., 0]  # (N, Q)
                    masks.append(embeddings)
                    scores.append(match_all)
                else:
                    match_all = targets @ compared[0].T  # (N, S * N)
                    masks.append(embeddings[0].unflatten(0, (n, each)))
                    scores.append(match_all.unflatten(1, (n, each)).diagonal().T)
                all_scores.append(match_all)
        return _Answer(masks, scores, all_scores, first)

    # ---- masks ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _at_points(photo: _Photo, embeddings: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points (P, 2) drawn for a match, and there the logits of all queries (Q, P) and the targets (K, P)."""
        points = photo.sampler.anywhere(1)[0]
        read = read_shared(photo.mask_features, points)  # (C, P)
        return points, embeddings @ read, read_shared(truth, points)

    @staticmethod
    def _mask_losses(photo: _Photo, embeddings: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """(n, C) and (n, H, W) -> BCE and dice (n,)."""
        logits = mask_logits(embeddings[None], photo.mask_features[None])[0]
        return mask_losses(logits, truth, photo.sampler)

    def _logits(self, photo: _Photo, embeddings: Tensor) -> Tensor:
        """(N, C) -> (N, H/4, W/4), padding outside of every mask."""
        logits = mask_logits(embeddings[None], photo.mask_features[None])[0]
        if self.config.official_quirks:
            return logits
        h, w = photo.features.mask_size
        padded = torch.full_like(logits, OUTSIDE)
        padded[:, :h, :w] = logits[:, :h, :w]
        return padded

    def _enlarged(self, photo: _Photo, embeddings: Tensor) -> Tensor:
        size = photo.truth.shape[-2:]
        return F.interpolate(self._logits(photo, embeddings)[None], size, mode="bilinear", align_corners=False)[0]


def _weighted(weights: Weights, ce: Tensor, bce: Tensor, dice: Tensor) -> Tensor:
    return weights.ce * ce + weights.bce * bce + weights.dice * dice


def _full_precision(like: Tensor) -> torch.autocast:
    """Losses are summed in float32, whatever the network computes in."""
    return torch.autocast(like.device.type, enabled=False)
