"""Numbers from masks, scores and ranks; numpy only."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


def masked_iou(a: np.ndarray, b: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Intersection over union of two (H, W) bool masks, leaving out ignored pixels; 1 if both are empty."""
    if ignore is not None:
        a, b = a & ~ignore, b & ~ignore
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is not None; None of nothing."""
    kept = [v for v in values if v is not None]
    return math.fsum(kept) / len(kept) if kept else None


def median(values: Iterable[float]) -> float | None:
    """Median; None of nothing."""
    kept = list(values)
    return float(np.median(kept)) if kept else None


def mean_interval(values: Sequence[float], images: Sequence[str], resamples: int = 1000) -> dict[str, float]:
    """{"mean", "low", "high"}: the mean and its bootstrap interval of 95 %, photos drawn with replacement."""
    photos, index = np.unique(images, return_inverse=True)
    total, count = np.bincount(index, values, len(photos)), np.bincount(index, minlength=len(photos))
    draws = np.random.default_rng(0).integers(len(photos), size=(resamples, len(photos)))
    low, high = np.quantile(total[draws].sum(1) / count[draws].sum(1), [0.025, 0.975])
    return {"mean": float(total.sum() / count.sum()), "low": float(low), "high": float(high)}


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's: Pearson's of the ranks, equal values sharing their mean rank; None where it is not defined."""
    if len(a) < 3:
        return None
    ranks = [_ranks(np.asarray(v, np.float64)) for v in (a, b)]
    if any(r.std() == 0 for r in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2)[inverse]


def calibration(scores: Sequence[float], ious: Sequence[float]) -> dict[str, Any]:
    """How well a predicted IoU tells the true one: mean |score - IoU|, mean score - IoU, and rank correlation."""
    difference = [s - i for s, i in zip(scores, ious, strict=True)]
    return {
        "n": len(difference),
        "mean_abs_error": mean(abs(d) for d in difference),
        "bias": mean(difference),
        "rank_correlation": rank_correlation(scores, ious),
    }


# ---- average precision --------------------------------------------------------------------------------------------

TRUE, FALSE, IGNORED = 1, 0, -1


def match_detections(
    detections: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    crowds: Sequence[np.ndarray] = (),
    thresholds: Sequence[float] = (0.5,),
) -> list[list[int]]:
    """COCO's greedy matching of one image and class: what each detection is, best first.

    Each detection takes the free object that it overlaps most, by at least the threshold; one that takes none but lies
    in a crowd (intersection over its own area at least the threshold) is ignored.

    Returns:
        For each threshold `TRUE`, `FALSE` or `IGNORED` of each detection.
    """
    ious = [[masked_iou(d, t) for t in truths] for d in detections]
    areas = [max(int(np.count_nonzero(d)), 1) for d in detections]
    in_crowd = [
        max((int(np.count_nonzero(d & c)) / area for c in crowds), default=0.0)
        for d, area in zip(detections, areas, strict=True)
    ]
    return [_match(ious, in_crowd, threshold) for threshold in thresholds]


def _match(ious: Sequence[Sequence[float]], in_crowd: Sequence[float], threshold: float) -> list[int]:
    free = list(range(len(ious[0]))) if ious else []
    outcome = []
    for row, crowded in zip(ious, in_crowd, strict=True):
        best = max(free, key=lambda i: (row[i], i), default=None)  # COCO keeps the last of equals
        if best is not None and row[best] >= threshold:
            free.remove(best)
            outcome.append(TRUE)
        else:
            outcome.append(IGNORED if crowded >= threshold else FALSE)
    return outcome


def average_precision(scores: Sequence[float], outcomes: Sequence[int], truths: int) -> float | None:
    """COCO's 101-point average precision of one class; None if it has no object.

    Args:
        scores: of all detections in all images.
        outcomes: of `match_detections`, in the same order.
        truths: number of objects, crowds not counted.
    """
    if truths == 0:
        return None
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    outcome = np.asarray(outcomes, np.int64)[order]
    outcome = outcome[outcome != IGNORED]
    hits = np.cumsum(outcome == TRUE)
    if not len(hits):
        return 0.0
    recall = hits / truths
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0.0, 1.0, 101), side="left")
    return float(np.where(at < len(envelope), envelope[np.minimum(at, len(envelope) - 1)], 0.0).mean())


# ---- panoptic quality ---------------------------------------------------------------------------------------------


@dataclass
class SegmentCounts:
    """What panoptic quality needs of one class: matched, surplus and missed segments, and the sum of matched IoUs."""

    hits: int = 0
    wrong: int = 0
    missed: int = 0
    iou: float = 0.0


def match_segments(
    answer: np.ndarray,
    answer_names: Mapping[int, str],
    truth: np.ndarray,
    truth_names: Mapping[int, str],
    crowds: Collection[int] = (),
    void: np.ndarray | None = None,
) -> dict[str, SegmentCounts]:
    """Segments of one photo that belong together, for panoptic quality (Kirillov et al., arXiv 1801.00868).

    Two segments of one name match where their IoU, void pixels left out, is above 0.5. Crowds are neither matched nor
    missed; an unmatched answer that lies by more than half in void or in a crowd of its name is not wrong.

    Args:
        answer, truth: (H, W) segment ids; 0, or an id without a name, is none.
        answer_names, truth_names: id -> name.
        crowds: ids of the truth that are crowds.
        void: (H, W) bool, pixels that nobody knows.

    Returns:
        Counts of every name that occurs.
    """
    void = np.zeros(truth.shape, bool) if void is None else void
    known = ~void
    shared = _pair_counts(answer[known], truth[known])
    answer_area = dict(zip(*(v.tolist() for v in np.unique(answer, return_counts=True)), strict=True))
    in_void = dict(zip(*(v.tolist() for v in np.unique(answer[void], return_counts=True)), strict=True))
    truth_area = dict(zip(*(v.tolist() for v in np.unique(truth[known], return_counts=True)), strict=True))
    counts = {name: SegmentCounts() for name in (*answer_names.values(), *truth_names.values())}
    matched_answers, matched_truths = set(), set()
    for (a, t), both in shared.items():
        name = answer_names.get(a)
        if name is None or t in crowds or truth_names.get(t) != name:
            continue
        iou = both / (answer_area[a] - in_void.get(a, 0) + truth_area[t] - both)
        if iou > 0.5:
            counts[name].hits += 1
            counts[name].iou += iou
            matched_answers.add(a)
            matched_truths.add(t)
    for t, name in truth_names.items():
        counts[name].missed += t not in matched_truths and t not in crowds
    for a, name in answer_names.items():
        if a in matched_answers or a not in answer_area:
            continue
        excused = in_void.get(a, 0) + sum(shared.get((a, t), 0) for t in crowds if truth_names[t] == name)
        counts[name].wrong += excused / answer_area[a] <= 0.5
    return counts


def _pair_counts(a: np.ndarray, b: np.ndarray) -> dict[tuple[int, int], int]:
    """How many positions hold each pair of values."""
    base = int(b.max(initial=0)) + 1
    codes, counts = np.unique(a.astype(np.int64) * base + b, return_counts=True)
    return {(c // base, c % base): n for c, n in zip(codes.tolist(), counts.tolist(), strict=True)}


# ---- video --------------------------------------------------------------------------------------------------------

TOLERANCE = 0.008  # of the image's diagonal: how far two contours may lie apart and still agree


def contour_accuracy(answer: np.ndarray, truth: np.ndarray) -> float:
    """DAVIS's F (Perazzi et al., CVPR 2016): the F-measure of contour pixels that have one of the other's near.

    Near is within `TOLERANCE`, rounded up to whole pixels, both ends included. A contour runs where a pixel differs
    from its right, lower or lower right neighbour. Two empty contours agree; one alone scores 0.
    """
    radius = math.ceil(TOLERANCE * math.hypot(*truth.shape))
    a, b = _contour(answer), _contour(truth)
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    precision, recall = _share_near(a, b, radius), _share_near(b, a, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _contour(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def _share_near(pixels: np.ndarray, others: np.ndarray, radius: int) -> float:
    from scipy.ndimage import distance_transform_edt

    return float((distance_transform_edt(~others)[pixels] <= radius).mean())  # as dilating `others` by a disk
