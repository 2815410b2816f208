"""One object from a sentence: IoU of the mask, or of the box around it where only boxes are known.

What `segment(Text)` gives, which always answers. Every sentence of an object counts; the official figures take only the
first one of each object, and stand beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seem.data.records import box_iou
from seem.evaluation import metrics
from seem.evaluation.datasets import DatasetError
from seem.evaluation.expressions import Expression, Expressions
from seem.prompts import Text

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.scene import Scene

Row = dict[str, Any]
PRECISIONS = (50, 60, 70, 80, 90)


def evaluate(model: Model, expressions: Expressions) -> Iterator[Row]:
    """Rows of {"image", "key", "sentence", "first", "score", "iou"} and for masks {"both", "union"} in pixels, or for
    boxes {"box": true}."""
    for path, items in expressions.by_photo().items():
        scene = model.encode(path)
        for item in items:
            result = scene.segment(Text(item.sentence), label=False)
            row = {"image": path.stem, "key": item.key, "sentence": item.sentence, "first": item.first}
            row["score"] = round(float(result.score), 5)
            yield row | (
                _box_row(scene, item, result.box) if item.mask is None else _mask_row(scene, item, result.mask)
            )


def _mask_row(scene: Scene, item: Expression, answer: np.ndarray) -> Row:
    assert item.mask is not None
    truth = item.mask()
    if item.size != scene.size:
        expected = f"expected a photo of {item.size[0]}x{item.size[1]} as its mask"
        raise DatasetError(f"{item.image}: {item.key}: {expected}, got {scene.size[0]}x{scene.size[1]}")
    both, union = int(np.count_nonzero(answer & truth)), int(np.count_nonzero(answer | truth))
    return {"iou": round(both / union, 5), "both": both, "union": union}


def _box_row(scene: Scene, item: Expression, answer: tuple[int, int, int, int] | None) -> Row:
    truth = scaled_box(item, scene.size)
    return {"iou": 0.0 if answer is None else round(box_iou(answer, truth), 5), "box": True}


def scaled_box(item: Expression, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box in pixels of a photo that is stored at another size than it was annotated at."""
    assert item.box is not None
    x, y = size[0] / item.size[0], size[1] / item.size[1]
    return item.box[0] * x, item.box[1] * y, item.box[2] * x, item.box[3] * y


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """{"kind", "ciou" (masks only), "miou", "precision": {"50", …}, "first_sentences": the same, "calibration"}."""
    if not rows:
        return {}
    return {
        "kind": "box" if "box" in rows[0] else "mask",
        **_figures(rows),
        "first_sentences": _figures([r for r in rows if r["first"]]),
        "calibration": metrics.calibration([r["score"] for r in rows], [r["iou"] for r in rows]),
    }


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    union = sum(r.get("union", 0) for r in rows)
    return {
        "ciou": sum(r.get("both", 0) for r in rows) / union if union else None,
        "miou": metrics.mean(r["iou"] for r in rows),
        "precision": {str(p): metrics.mean(r["iou"] >= p / 100 for r in rows) for p in PRECISIONS},
    }
