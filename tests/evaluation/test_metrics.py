from __future__ import annotations

import numpy as np
import pytest

from seem.evaluation import metrics
from seem.evaluation.metrics import FALSE, IGNORED, TRUE


def boxes(*corners: tuple[int, int, int, int]) -> list[np.ndarray]:
    masks = []
    for x0, y0, x1, y1 in corners:
        mask = np.zeros((20, 20), bool)
        mask[y0:y1, x0:x1] = True
        masks.append(mask)
    return masks


def test_iou_leaves_ignored_pixels_out() -> None:
    a, b, ignore = boxes((0, 0, 10, 10), (0, 0, 10, 20), (0, 15, 20, 20))
    assert metrics.masked_iou(a, b) == 0.5
    assert metrics.masked_iou(a, b, ignore) == pytest.approx(100 / 150)
    assert metrics.masked_iou(a & ~a, a & ~a) == 1.0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 1, 1], [1, 2, 3], None),
        ([1, 2], [1, 2], None),
    ],
)
def test_rank_correlation(a: list[float], b: list[float], expected: float | None) -> None:
    assert metrics.rank_correlation(a, b) == (None if expected is None else pytest.approx(expected))


def test_rank_correlation_agrees_with_scipy_with_equal_values() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 50).tolist(), rng.integers(0, 6, 50).tolist()
    assert metrics.rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_calibration() -> None:
    result = metrics.calibration([0.5, 0.9, 0.2], [0.4, 0.7, 0.3])
    assert result["mean_abs_error"] == pytest.approx(0.4 / 3)
    assert result["bias"] == pytest.approx(0.2 / 3)
    assert result["rank_correlation"] == pytest.approx(1.0)


def test_matching_by_hand() -> None:
    truths = boxes((0, 0, 10, 10), (10, 10, 20, 20))
    crowds = boxes((0, 10, 10, 20))
    found = boxes((0, 0, 10, 9), (0, 0, 10, 10), (1, 11, 9, 19), (10, 0, 20, 10))
    outcome, ious = metrics.match_detections(found, truths, crowds)
    assert outcome == [TRUE, FALSE, IGNORED, FALSE]  # the second comes too late for the same object
    assert ious == [pytest.approx(0.9), 0, 0, 0]


@pytest.mark.parametrize(
    ("scores", "outcomes", "truths", "expected"),
    [
        ([], [], 0, None),
        ([], [], 3, 0.0),
        ([0.9, 0.8], [TRUE, TRUE], 2, 1.0),
        ([0.9, 0.8], [TRUE, FALSE], 2, 51 / 101),  # recall 0.5 at precision 1
        ([0.8, 0.9], [TRUE, FALSE], 1, 0.5),
        ([0.9, 0.8], [IGNORED, TRUE], 1, 1.0),
    ],
)
def test_average_precision(scores: list[float], outcomes: list[int], truths: int, expected: float | None) -> None:
    found = metrics.average_precision(scores, outcomes, truths)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_agrees_with_pycocotools(seed: int) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    coco_mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)

    def random_box() -> np.ndarray:
        x, y = rng.integers(0, 12, 2)
        w, h = rng.integers(3, 9, 2)
        return boxes((x, y, x + w, y + h))[0]

    def rle(mask: np.ndarray) -> dict:
        return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))

    annotations, results = [], []
    scores: list[float] = []
    outcomes: list[int] = []
    total = 0
    for image in range(1, 13):
        truths = [random_box() for _ in range(rng.integers(0, 4))]
        crowds = [random_box() for _ in range(rng.integers(0, 2))]
        shifted = [np.roll(t, rng.integers(0, 3, 2), (0, 1)) for t in truths]
        found = [random_box() for _ in range(rng.integers(0, 4))] + shifted
        confidence = sorted((float(s) for s in rng.random(len(found))), reverse=True)
        found = [found[i] for i in rng.permutation(len(found))]
        outcomes += metrics.match_detections(found, truths, crowds)[0]
        scores += confidence
        total += len(truths)
        for mask, crowd in [(t, 0) for t in truths] + [(c, 1) for c in crowds]:
            common = {"id": len(annotations) + 1, "image_id": image, "category_id": 1, "iscrowd": crowd}
            annotations.append({**common, "segmentation": rle(mask), "area": int(mask.sum()), "bbox": [0, 0, 1, 1]})
        results += [
            {"image_id": image, "category_id": 1, "segmentation": rle(m), "score": s}
            for m, s in zip(found, confidence, strict=True)
        ]
    truth = coco_module.COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "width": 20, "height": 20} for i in range(1, 13)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "box"}],
    }
    truth.createIndex()
    evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    reference = evaluation.eval["precision"][0, :, 0, 0, 2].mean()  # IoU 0.5, all areas, 100 per image
    assert metrics.average_precision(scores, outcomes, total) == pytest.approx(reference, abs=1e-9)
