"""The rules that decide which region a text names."""

from __future__ import annotations

import pytest
import torch

from seem.model.seem import ObjectQueries
from seem.predict.instances import contains, distinct, find_instances, match_probabilities, pairwise_iou
from tests.fakes import FakeNetwork


@pytest.mark.parametrize(
    ("phrase", "name", "expected"),
    [
        ("dog", "dog", True),
        ("two Dogs on the left", "dog", True),
        ("the traffic light", "traffic light", True),
        ("a light", "traffic light", False),
        ("dog", "hot dog", False),
        ("cat", "dog", False),
    ],
)
def test_contains(phrase: str, name: str, expected: bool) -> None:
    assert contains(phrase, name) is expected


def queries(count: int = 4) -> ObjectQueries:
    logits = torch.full((count, 4, 8), -5.0)
    for i, (a, b) in enumerate([(0, 4), (0, 4), (4, 8), (0, 8)][:count]):
        logits[i, :, a:b] = 5.0
    return ObjectQueries(logits, torch.zeros(count, 4), torch.ones(count))


@pytest.mark.parametrize(
    ("scores", "threshold", "limit", "expected"),
    [
        ([0.7, 0.9, 0.8, 0.6], 0.5, None, [1, 2]),  # 0 and 1 are the same region, half of 3 is what was found
        ([0.7, 0.9, 0.8, 0.6], 0.5, 2, [1, 2]),
        ([0.7, 0.9, 0.8, 0.6], 0.75, None, [1, 2]),
        ([0.7, 0.1, 0.8, 0.6], 0.5, None, [2, 0]),
        ([0.7, 0.1, 0.8, 0.9], 0.5, None, [3]),  # parts of what was found are no further finds
        ([0.0, 0.0, 0.0, 0.0], 0.5, None, []),
        ([0.7, 0.9, 0.8, 0.6], 0.99, None, []),
    ],
)
def test_the_best_first_and_none_twice(
    scores: list[float], threshold: float, limit: int | None, expected: list[int]
) -> None:
    assert find_instances(queries(), torch.tensor(scores), threshold, limit) == expected


def test_empty_masks_are_never_found() -> None:
    q = queries(1)
    q.logits[:] = -1
    assert find_instances(q, q.scores, 0.0, None) == []


def test_pairwise_iou() -> None:
    masks = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0]], dtype=torch.bool)
    assert pairwise_iou(masks).flatten().tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1])


def test_something_else_gets_what_no_name_fits(network: FakeNetwork) -> None:
    names = ["red", "dog"]
    embeddings = network.encode_text(["red", "dog", "cat", "red"]).sentence
    p = match_probabilities(network, embeddings, names)  # type: ignore[arg-type]
    assert p.shape == (4, 3)
    assert p.sum(1).tolist() == pytest.approx([1] * 4)
    assert p.argmax(1).tolist() == [0, 1, 2, 0]


def test_distinct() -> None:
    """Four boxes: the second lies mostly over the first, the third apart, the fourth scores too little."""
    logits = torch.full((4, 8, 8), -1.0)
    logits[0, :4, :4] = logits[1, :4, 1:5] = logits[2, 5:, 5:] = logits[3, 6:, :2] = 1
    scores = torch.tensor([0.6, 0.9, 0.5, 0.2])
    assert distinct(logits, scores, 0.3, 0.4).tolist() == [1, 2]
    assert distinct(logits, scores, 0.3, 0.7).tolist() == [1, 0, 2]
    assert distinct(logits, scores, 0.3, 1.0).tolist() == [0, 1, 2]
    assert distinct(logits, scores, 0.95, 0.4).tolist() == []
