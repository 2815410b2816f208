"""Two results files, row by row: the difference of every figure with a paired bootstrap interval.

Rows are paired by their key. Photos, not rows, are drawn with replacement, because objects of one photo fail together;
every figure, averages and precision curves alike, is computed anew for each draw.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from seem.evaluation.datasets import DatasetError
from seem.evaluation.results import FIGURES, Results, Row

RESAMPLES = 1000
INTERVAL = 0.95


def compare(a: Results, b: Results, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """{"task", "dataset", "a", "b", "n", "photos", "unpaired", "differs", "figures": {name: {"a", "b", "difference",
    "low", "high"}}}; differences are b minus a, over the rows that both have.

    Raises:
        DatasetError: other tasks or data sets, or no row in common.
    """
    for name in ("task", "dataset"):
        if getattr(a, name) != getattr(b, name):
            raise DatasetError(f"expected results of one {name}, got {getattr(a, name)!r} and {getattr(b, name)!r}")
    pairs = _pair(a.rows, b.rows)
    if not pairs:
        raise DatasetError("expected results with rows in common, got none")
    photos: dict[str, list[tuple[Row, Row]]] = defaultdict(list)
    for row_a, row_b in pairs:
        photos[row_a["image"]].append((row_a, row_b))
    groups = list(photos.values())
    generator = np.random.default_rng(seed)
    draws: dict[str, list[float]] = defaultdict(list)
    for _ in range(resamples):
        drawn = [pair for i in generator.integers(len(groups), size=len(groups)).tolist() for pair in groups[i]]
        for name, (value_a, value_b) in _figures(a.task, drawn).items():
            draws[name].append(value_b - value_a)
    tails = [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2]
    return {
        "task": a.task,
        "dataset": a.dataset,
        "a": _made(a),
        "b": _made(b),
        "n": len(pairs),
        "photos": len(groups),
        "unpaired": len(a.rows) + len(b.rows) - 2 * len(pairs),
        "differs": sorted(k for k in {*a.settings, *b.settings} if a.settings.get(k) != b.settings.get(k)),
        "interval": INTERVAL,
        "resamples": resamples,
        "figures": {
            name: {
                "a": round(value_a, 5),
                "b": round(value_b, 5),
                "difference": round(value_b - value_a, 5),
                **dict(zip(("low", "high"), np.quantile(draws[name], tails).round(5).tolist(), strict=True)),
            }
            for name, (value_a, value_b) in _figures(a.task, pairs).items()
            if draws[name]
        },
    }


def _pair(a: Sequence[Row], b: Sequence[Row]) -> list[tuple[Row, Row]]:
    other = {row["key"]: row for row in b}
    return [(row, other[row["key"]]) for row in a if row["key"] in other]


def _made(results: Results) -> dict[str, Any]:
    return {"model": results.model, "settings": results.settings, "command": results.command, "commit": results.commit}


def _figures(task: str, pairs: Sequence[tuple[Row, Row]]) -> dict[str, tuple[float, float]]:
    """Figures that both sides have, "noc.85" for a nested one."""
    a, b = (_flat(FIGURES[task]([pair[side] for pair in pairs])) for side in (0, 1))
    return {name: (a[name], b[name]) for name in a if name in b}


_COUNTS = ("n", "n_large", "classes", "instances", "wrong")


def _flat(figures: dict[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, dict) and name not in _COUNTS:
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and name not in _COUNTS:
            flat[f"{prefix}{name}"] = float(value)
    return flat
