"""The paper's questions about interaction, each answered with and without, on the same objects.

"memory": each round reads the mask of the one before, or starts from the prompts alone. "negatives": clicks also take
away, or only add. What training decides (separate matching, pretrained weights) is compared by training twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from seem.evaluation import metrics, robot
from seem.evaluation.datasets import Dataset
from seem.evaluation.interactive import STOP, THRESHOLDS, curve_figures, first_prompt, objects, segment_with_robot
from seem.evaluation.robot import Robot

if TYPE_CHECKING:
    from seem.predict.model import Model

Row = dict[str, Any]
PARTS = ("memory", "negatives")
WAYS = ("with", "without")
ROUNDS = (2, 3, 5, 10, 20)  # whose IoUs are compared


def evaluate(
    model: Model, dataset: Dataset, *, part: str, prompt: str = "click", min_area: float = 0.0
) -> Iterator[Row]:
    """Rows of {"image", "key", "area", "encode_seconds", "with", "without"}, the last two as
    `segment_with_robot` gives.

    Args:
        part: what is left out, one of `PARTS`.
        prompt, min_area: as for `interactive.evaluate`.
    """
    if part not in PARTS:
        raise ValueError(f"part: expected {' or '.join(PARTS)}, got {part!r}")
    for scene, target, row in objects(model, dataset, min_area):
        for way in WAYS:
            given = {name: way == "with" or name != part for name in PARTS}
            user = Robot(target.mask, target.ignore, negatives=given["negatives"])
            first = first_prompt(prompt, target.mask, user)
            row[way] = segment_with_robot(scene, target, user, first, memory=given["memory"])
        yield row


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """{"with", "without": figures of the curves, "gain": {"noc": {"85", …}, "iou_at": {"3", …}}}; a gain is with minus
    without, {"mean", "low", "high"} with a bootstrap interval of 95 % over photos."""
    if not rows:
        return {}
    sides = {way: [row[way] for row in rows] for way in WAYS}
    images = [row["image"] for row in rows]
    each = {way: [curve_figures([curve], STOP[robot.NAME]) for curve in sides[way]] for way in WAYS}

    def gain(kind: str, key: int) -> dict[str, float]:
        values = [a[kind][str(key)] - b[kind][str(key)] for a, b in zip(each["with"], each["without"], strict=True)]
        return metrics.mean_interval(values, images)

    return {
        **{way: curve_figures(sides[way], STOP[robot.NAME]) for way in WAYS},
        "gain": {
            "noc": {str(t): gain("noc", t) for t in THRESHOLDS},
            "iou_at": {str(k): gain("iou_at", k) for k in ROUNDS},
        },
    }
