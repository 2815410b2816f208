"""Which of an image's regions does a text name? The rules behind `find`, `label` and `panoptic`, all in one place.

A region's class embedding is compared with text embeddings; the softmax needs something to lose against. For a list
of names that a user wants told apart (`label`) that is the list itself. For "is this a dog?" (`find`, and `panoptic`
with an own vocabulary) it is also COCO's names, less those that mean the same as what is asked: the distractors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from seem.kinds import kind_of, members_of
from seem.vocabulary import COCO_PANOPTIC_NAMES
from seem.words import singular

if TYPE_CHECKING:
    from seem.model.seem import SEEM, ObjectQueries

DEFAULT_THRESHOLD = 0.5  # of `find`, for everything
SYNONYM_SIMILARITY = 0.8  # cosine of two names' embeddings from which they mean the same
SURER = 0.05  # of the score: by how much a region must beat a phrase's own mask to take its place; development split
PART = 0.2  # of a region's area, from which a surer region in it speaks for it; development split
ALIKE = 0.75  # IoU of two regions from which they are two outlines of one object; development split
STRICTER = 1.0  # logits at which a mask's stability is measured, above and below 0
NMS_IOU = 0.6  # of two masks from which they are the same object
NMS_INSIDE = 0.5  # share of a mask inside a better one from which it is a part of that object
NMS_AROUND = 0.7  # share of a better mask inside it from which a mask is a group, or what is around; development split


def name_logits(network: SEEM, embeddings: Tensor, names: Sequence[str], looked: Tensor | None = None) -> Tensor:
    """(N, D) class embeddings -> (N, K): how well each of K names fits, as logits.

    Where there was a closer look at the regions, both have a say: a weighted mean of logits is a geometric mean of
    probabilities.
    """
    first = network.class_logits(embeddings, network.encode_text(list(names)).sentence)
    if looked is None or network.closer_look is None:
        return first
    look, config = network.closer_look, network.closer_look.config
    sentences = torch.stack([sentence for sentence, _ in network.raw_text(list(names))])
    closer = look.name_logits(looked, look.text(sentences))
    return (config.share * closer + (1 - config.share) * first) * config.temperature


def label_probabilities(
    network: SEEM, embeddings: Tensor, names: Sequence[str], looked: Tensor | None = None
) -> Tensor:
    """(N, D) class embeddings -> (N, K): how likely each of K names is if it must be one of them."""
    return name_logits(network, embeddings, names, looked).softmax(-1)


def match_probabilities(
    network: SEEM, embeddings: Tensor, names: Sequence[str], looked: Tensor | None = None
) -> Tensor:
    """(N, D) class embeddings -> (N, K + 1): how likely each of K names is; the last column is "something else".

    A name that stands for several of COCO's, as "animal" does, is as likely as these are together.
    """
    asked = network.encode_text(list(names)).sentence  # (K, D)
    known = network.encode_text(list(COCO_PANOPTIC_NAMES)).sentence  # (133, D)
    limit = getattr(network, "synonym_similarity", SYNONYM_SIMILARITY)
    kinds = {kind.name for name in names if (kind := kind_of(name)) is not None}
    similar = ((asked @ known.T) >= limit).any(0)
    same = [k in kinds or any(contains(name, k) for name in names) for k in COCO_PANOPTIC_NAMES]
    others = torch.nonzero(~(similar | torch.tensor(same, device=similar.device)))[:, 0].tolist()
    distractors = [COCO_PANOPTIC_NAMES[i] for i in others]
    probabilities = name_logits(network, embeddings, [*names, *distractors], looked).softmax(-1)
    k = len(names)
    found, rest = probabilities[:, :k], probabilities[:, k:]
    stands = torch.zeros(len(distractors), k, device=rest.device)  # for which of the names, if for any
    for column, name in enumerate(names):
        for member in members_of(name):
            if member in distractors:
                stands[distractors.index(member), column] = 1
    stands = stands / stands.sum(1, keepdim=True).clamp_min(1)
    found = found + rest @ stands
    return torch.cat([found, rest @ (1 - stands.sum(1, keepdim=True))], 1)


class PhraseMatch(NamedTuple):
    """How Q regions fit a phrase.

    Attributes:
        scores: (Q,) how sure the model is that a region is what the phrase names, and is well outlined.
        named: (Q,) probability of the name alone.
        expected: (Q,) the IoU that a region may be expected to have with what is meant, if it is the answer.
    """

    scores: Tensor
    named: Tensor
    expected: Tensor


def match_phrase(network: SEEM, regions: ObjectQueries, phrase: str) -> PhraseMatch:
    """Compare regions with a phrase.

    A model that was fitted weighs what `phrase_evidence` says, so that a score of 0.5 is where about 8 % of absent
    names find an answer on the development split; others multiply the name's probability with the predicted IoU.
    """
    named = match_probabilities(network, regions.embeddings, [phrase], regions.looked)[:, 0]
    config = network.config
    if regions.presence is None or regions.coverage is None or not config.match_weights:
        return PhraseMatch(named * regions.scores, named, regions.scores)
    evidence = phrase_evidence(regions, named)
    expected = weigh(evidence, config.text_score_weights) if config.text_score_weights else regions.scores
    return PhraseMatch(weigh(evidence, config.match_weights), named, expected)


def phrase_evidence(regions: ObjectQueries, named: Tensor) -> Tensor:
    """What tells whether a region is what a phrase names: (7, Q).

    Four logits of what the class embedding says the region is among known names (`named`), whether its pixels show
    the phrase, the predicted IoU, and how much of all pixels that show it are inside; the logit of how much of the
    mask is one piece; and how much of it lies in a region for which the four say more, and of such a region, unless it
    is less than `PART` of it, in it. Of few regions the last is 0: all are answers to one question, and the largest of
    them is no better for it.

    Args:
        regions: Q regions with `presence` and `coverage`.
        named: (Q,) of `match_probabilities`.
    """
    assert regions.presence is not None and regions.coverage is not None
    masks = regions.logits > 0
    whole = largest_piece(masks) if regions.whole is None else regions.whole
    said = torch.stack([named, regions.presence, regions.scores, regions.coverage, whole])
    said = said.clamp(1e-4, 1 - 1e-4).logit()
    rank = said[:4].sum(0)
    inside = pairwise_inside(masks.flatten(1))
    surer = rank[None] > rank[:, None]
    area = masks.flatten(1).sum(1)
    parts = surer & (area[None] >= PART * area[:, None])
    holds = torch.zeros_like(rank) if regions.few else (inside.T * parts).amax(1)
    return torch.cat([said, (inside * surer).amax(1)[None], holds[None]])


def likeliest(scores: Tensor) -> int:
    """The region that answers a phrase.

    Args:
        scores: (Q,) of `match_phrase`. The first region is what the phrase gives by itself; another must be surer by
            `SURER` to take its place.
    """
    best = int(scores.argmax())
    return 0 if float(scores[best]) <= float(scores[0]) + SURER else best


def best_outlined(regions: ObjectQueries, scores: Tensor, chosen: int) -> int:
    """The best of the outlines that there are of a chosen region: those that score as much, but for `SURER`.

    The best has the highest predicted IoU x stability (Kirillov et al., arXiv 2304.02643): an outline that runs out
    changes with the threshold.
    """
    masks = (regions.logits > 0).flatten(1)
    own = masks[chosen]
    iou = (masks & own).sum(1) / (masks | own).sum(1).clamp_min(1)
    alike = torch.nonzero((iou >= ALIKE) & (scores >= scores[chosen] - SURER))[:, 0]
    if len(alike) < 2:
        return chosen
    logits = regions.logits[alike].flatten(1)
    stability = (logits > STRICTER).sum(1) / (logits > -STRICTER).sum(1).clamp_min(1)
    return int(alike[(regions.scores[alike] * stability).argmax()])


def likeness(network: SEEM, regions: ObjectQueries, seen: tuple[Tensor, Tensor]) -> Tensor:
    """How alike regions and a region of another image are: (Q,) in 0..1.

    It is the overlap of what both may be called (the Bhattacharyya coefficient over COCO's names) times the cosine of
    what a closer look says of them.

    Args:
        regions: with a closer look.
        seen: `ReferencePrompt.seen`.
    """
    assert regions.looked is not None
    embedding, looked = seen
    names = COCO_PANOPTIC_NAMES
    shown = label_probabilities(network, embedding, names, looked)
    found = label_probabilities(network, regions.embeddings, names, regions.looked)
    return (shown * found).sqrt().sum(1) * (regions.looked @ looked[0]).clamp_min(0)


def weigh(evidence: Tensor, weights: Sequence[float]) -> Tensor:
    """A logistic function of the first K kinds of evidence, of K slopes and a bias: (7, Q) -> (Q,)."""
    *slopes, bias = weights
    return (torch.tensor(slopes, device=evidence.device) @ evidence[: len(slopes)] + bias).sigmoid()


def largest_piece(masks: Tensor) -> Tensor:
    """(Q, h, w) bool -> (Q,): the share of each mask's area that its largest connected piece has; 0 of an empty one."""
    pixels = masks.cpu().numpy()
    connected = np.zeros((3, 3, 3), bool)
    connected[1] = True  # a mask's pixels with their eight neighbours, no mask with the next
    pieces, count = ndimage.label(pixels, connected)
    area = np.bincount(pieces.ravel(), minlength=count + 1)
    area[0] = 0
    share = area[pieces].max((1, 2), initial=0) / pixels.sum((1, 2)).clip(min=1)
    return torch.from_numpy(share.astype(np.float32)).to(masks.device)


def contains(phrase: str, name: str) -> bool:
    """Whether every word of a name stands in a phrase, singular or plural.

    >>> contains("two dogs on the left", "dog"), contains("dog", "hot dog")
    (True, False)
    """
    return _words(name) <= _words(phrase)


def _words(text: str) -> set[str]:
    return {singular(word) for word in re.findall(r"\w+", text.casefold())}


def find_instances(
    queries: ObjectQueries, scores: Tensor, threshold: float, limit: int | None, nested: bool = False
) -> list[int]:
    """The object queries that show what a text names, best first, no object twice.

    Of two for one object that which the text itself gave stays, unless the other is surer by `SURER`: of many that
    nobody asked for some score well by chance.

    Args:
        queries: all Q object queries of an image.
        scores: (Q,) of `match_phrase`.
        threshold: of the score.
        limit: at most that many.
        nested: whether a region may hold a better one, as a group does, or what surrounds it.

    Returns:
        Indices into the queries.
    """
    masks = (queries.logits > 0).flatten(1)
    kept = torch.nonzero((scores >= threshold) & masks.any(1))[:, 0]
    rank = scores + SURER * (torch.arange(len(scores), device=scores.device) < queries.asked)
    order = kept[torch.sort(rank[kept], descending=True, stable=True).indices]
    chosen: list[int] = []
    iou, inside = pairwise_iou(masks[order]), pairwise_inside(masks[order])
    same = (iou >= NMS_IOU) | (inside >= NMS_INSIDE)
    if not nested:
        same |= inside.T >= NMS_AROUND
    for i in range(len(order)):
        if limit is not None and len(chosen) >= limit:
            break
        if not bool(same[i, chosen].any()):
            chosen.append(i)
    enough = torch.where(scores >= threshold, scores, -1.0)
    found = [best_outlined(queries, enough, int(order[i])) for i in chosen]
    return sorted(found, key=lambda q: -float(scores[q]))


def distinct(logits: Tensor, scores: Tensor, threshold: float, iou: float) -> Tensor:
    """Indices of the regions that score above a threshold and do not overlap a better one by more than an IoU.

    Args:
        logits: (Q, h, w).
        scores: (Q,)
        threshold, iou: 0..1; at an IoU of 1 all are kept.
    """
    masks = (logits > 0).flatten(1)
    kept = torch.nonzero((scores > threshold) & masks.any(1))[:, 0]
    if iou >= 1:
        return kept
    order = kept[torch.sort(scores[kept], descending=True, stable=True).indices]
    overlap = pairwise_iou(masks[order])
    chosen: list[int] = []
    for i in range(len(order)):
        if not bool((overlap[i, chosen] > iou).any()):
            chosen.append(i)
    return order[chosen]


def pairwise_inside(masks: Tensor) -> Tensor:
    """(N, P) bool -> (N, N): the share of each mask's area (row) that another covers (column); 0 of an empty one."""
    flat = masks.float()
    return flat @ flat.T / flat.sum(1).clamp_min(1)[:, None]


def pairwise_iou(masks: Tensor) -> Tensor:
    """(N, P) bool, none empty -> (N, N)."""
    flat = masks.float()
    both = flat @ flat.T
    area = flat.sum(1)
    return both / (area[:, None] + area[None] - both)
