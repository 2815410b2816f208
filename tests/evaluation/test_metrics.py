from __future__ import annotations

import numpy as np
import pytest

from seem.evaluation import metrics
from seem.evaluation.metrics import FALSE, IGNORED, TRUE
from seem.evaluation.panoptic import IOUS, panoptic_quality
from seem.evaluation.panoptic import figures as panoptic_figures


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
    half, strict = metrics.match_detections(found, truths, crowds, (0.5, 0.95))
    assert half == [TRUE, FALSE, IGNORED, FALSE]  # the second comes too late for the same object
    assert strict == [FALSE, TRUE, IGNORED, FALSE]  # the first, of IoU 0.9, does not count here
    assert metrics.match_detections([], truths) == [[]] and metrics.match_detections(found[:1], []) == [[FALSE]]


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
    outcomes: list[list[int]] = [[] for _ in IOUS]
    total = 0
    for image in range(1, 13):
        truths = [random_box() for _ in range(rng.integers(0, 4))]
        crowds = [random_box() for _ in range(rng.integers(0, 2))]
        shifted = [np.roll(t, rng.integers(0, 3, 2), (0, 1)) for t in truths]
        found = [random_box() for _ in range(rng.integers(0, 4))] + shifted
        confidence = sorted((float(s) for s in rng.random(len(found))), reverse=True)
        found = [found[i] for i in rng.permutation(len(found))]
        for at, more in zip(outcomes, metrics.match_detections(found, truths, crowds, IOUS), strict=True):
            at += more
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
    reference = evaluation.eval["precision"][:, :, 0, 0, 2].mean(1)  # all areas, 100 per image
    found_by_us = [metrics.average_precision(scores, at, total) for at in outcomes]
    assert found_by_us == [pytest.approx(value, abs=1e-9) for value in reference]


# ---- panoptic quality ---------------------------------------------------------------------------------------------


def test_segments_by_hand() -> None:
    truth = np.zeros((10, 10), int)
    truth[:4], truth[4:6], truth[6:8] = 1, 2, 3  # a cat, a crowd of cats, sky; two rows unknown
    answer = np.zeros((10, 10), int)
    answer[:3], answer[4:6], answer[6:7], answer[8:], answer[3, :2] = 1, 2, 3, 4, 5
    counts = metrics.match_segments(
        answer,
        {1: "cat", 2: "cat", 3: "sky", 4: "dog", 5: "cat"},
        truth,
        {1: "cat", 2: "cat", 3: "sky"},
        crowds=[2],
        void=truth == 0,
    )
    cat, sky, dog = counts["cat"], counts["sky"], counts["dog"]
    assert (cat.hits, cat.wrong, cat.missed, cat.iou) == (1, 1, 0, pytest.approx(0.75))  # in the crowd: not wrong
    assert (sky.hits, sky.wrong, sky.missed) == (0, 1, 1)  # an IoU of one half is not enough
    assert (dog.hits, dog.wrong, dog.missed) == (0, 0, 0)  # where nobody knows


@pytest.mark.parametrize("seed", range(3))
def test_panoptic_quality_agrees_with_torchmetrics(seed: int) -> None:
    detection = pytest.importorskip("torchmetrics.detection")
    import torch

    rng = np.random.default_rng(seed)
    names = {0: "thing a", 1: "thing b", 2: "stuff"}
    theirs = detection.PanopticQuality({0, 1}, {2}, allow_unknown_preds_category=True)
    ours = {name: metrics.SegmentCounts() for name in names.values()}
    for _ in range(4):
        truth = np.kron(rng.integers(1, 7, (4, 4)), np.ones((5, 5), int))
        answer = np.where(rng.random(truth.shape) < 0.8, np.roll(truth, rng.integers(0, 2, 2), (0, 1)), 6)
        classes = {i: int(rng.integers(0, 2)) for i in range(1, 6)} | {6: 2}
        said = classes | {1: int(rng.integers(0, 2))}
        both = []
        for ids, of in ((answer, said), (truth, classes)):
            category = np.vectorize(of.get)(ids)
            both.append(torch.tensor(np.stack([category, np.where(category == 2, 0, ids)], -1))[None])
        theirs.update(*both)
        words = [
            {i: names[c] for i, c in of.items() if (ids == i).any()} for ids, of in ((answer, said), (truth, classes))
        ]
        for name, count in metrics.match_segments(answer, words[0], truth, words[1]).items():
            for key, value in vars(count).items():
                setattr(ours[name], key, getattr(ours[name], key) + value)
    each = [panoptic_quality([{"segments": vars(count)}]) for count in ours.values()]
    expected = float(theirs.compute())
    assert 0.1 < expected < 0.95
    assert np.mean([quality[0] for quality in each if quality is not None]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_semantic_iou_agrees_with_torchmetrics(seed: int) -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    rng = np.random.default_rng(seed)
    truth, answer = rng.integers(0, 4, (2, 3, 20, 30))  # class 4 is answered, never there: it does not count
    answer[0, :4], truth[1, :3] = 4, 1
    rows = [
        {"image": str(i), "name": str(k), "stuff": k > 1, "segments": vars(metrics.SegmentCounts()), "pixels": {
            "both": int(((truth[i] == k) & (answer[i] == k)).sum()), "answer": int((answer[i] == k).sum()),
            "truth": int((truth[i] == k).sum())}, "score": [], "outcome": [[]] * 10, "instances": 0}
        for i in range(3) for k in range(5)
    ]  # fmt: skip
    each = classification.multiclass_jaccard_index(torch.tensor(answer), torch.tensor(truth), 5, average="none")
    found = panoptic_figures(rows)["miou"]
    assert found["all"] == pytest.approx(float(each[:4].mean()), abs=1e-5)
    assert found["things"] == pytest.approx(float(each[:2].mean()), abs=1e-5)


# ---- video --------------------------------------------------------------------------------------------------------


def test_contours_by_hand() -> None:
    square = boxes((4, 4, 14, 14))[0]
    empty = np.zeros_like(square)
    assert metrics.contour_accuracy(square, square) == 1.0 == metrics.contour_accuracy(empty, empty)
    assert metrics.contour_accuracy(square, empty) == 0.0 == metrics.contour_accuracy(empty, square)
    assert metrics.contour_accuracy(square, np.roll(square, 1, 1)) == 1.0  # one pixel is within the tolerance
    assert 0 < metrics.contour_accuracy(square, np.roll(square, 3, 1)) < 0.8


@pytest.mark.parametrize("size", [(40, 60), (240, 320)])
def test_contours_agree_with_dilation_by_a_disk(size: tuple[int, int]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(0)
    a, b = (ndimage.gaussian_filter(rng.random(size), size[0] / 10) > 0.5 for _ in range(2))
    radius = int(np.ceil(0.008 * np.hypot(*size)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x**2 + y**2 <= radius**2
    edges = [metrics._contour(mask) for mask in (a, b)]
    near = [ndimage.binary_dilation(edge, disk) for edge in edges]
    precision, recall = near[1][edges[0]].mean(), near[0][edges[1]].mean()
    expected = 2 * precision * recall / (precision + recall)
    assert metrics.contour_accuracy(a, b) == pytest.approx(expected) and 0 < expected < 1


def test_mean_interval() -> None:
    images = [str(i // 2) for i in range(10)]
    assert metrics.mean_interval([0.4] * 10, images) == {key: pytest.approx(0.4) for key in ("mean", "low", "high")}
    mixed = metrics.mean_interval([0.0, 0.2] * 5, images)  # alike in every photo
    assert mixed["low"] == pytest.approx(0.1) == mixed["high"]
    spread = metrics.mean_interval([float(i // 2) for i in range(10)], images)
    assert spread["low"] < spread["mean"] == 2 < spread["high"]
