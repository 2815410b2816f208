"""Numbers from masks, scores and ranks; numpy only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
    threshold: float = 0.5,
) -> tuple[list[int], list[float]]:
    """COCO's greedy matching of one image and class: what each detection is, best first, and its IoU with its object.

    Each detection takes the free object that it overlaps most, by at least `threshold` IoU; one that takes none but
    lies in a crowd (intersection over its own area at least `threshold`) is ignored.

    Returns:
        `TRUE`, `FALSE` or `IGNORED` of each detection, and the IoU of the `TRUE` ones, 0 for the others.
    """
    free = list(range(len(truths)))
    outcome, ious = [], []
    for detection in detections:
        overlaps = [(masked_iou(detection, truths[i]), i) for i in free]
        best, chosen = max(overlaps, key=lambda o: (o[0], o[1]), default=(0.0, -1))  # COCO keeps the last of equals
        if best >= threshold and chosen >= 0:
            free.remove(chosen)
            outcome.append(TRUE)
            ious.append(best)
            continue
        area = max(int(np.count_nonzero(detection)), 1)
        in_crowd = any(np.count_nonzero(detection & crowd) / area >= threshold for crowd in crowds)
        outcome.append(IGNORED if in_crowd else FALSE)
        ious.append(0.0)
    return outcome, ious


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
