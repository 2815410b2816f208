"""The rules that decide which region a text names."""

from __future__ import annotations

import pytest
import torch

from seem.model.seem import ObjectQueries
from seem.predict.instances import (
    best_outlined,
    contains,
    distinct,
    find_instances,
    largest_piece,
    match_probabilities,
    pairwise_inside,
    pairwise_iou,
    phrase_evidence,
    weigh,
)
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


def test_what_surrounds_a_find_is_no_further_one_unless_nesting_is_asked_for() -> None:
    """A small region scores best, a larger one holds three quarters of it, a third has half of it."""
    logits = torch.full((3, 8, 16), -5.0)
    logits[0, :4, :4] = logits[1, :, 1:16] = logits[2, :, 2:4] = logits[2, :, 12:] = 5.0
    q = ObjectQueries(logits, torch.zeros(3, 4), torch.ones(3))
    scores = torch.tensor([0.9, 0.8, 0.1])
    assert find_instances(q, scores, 0.5, None) == [0]
    assert find_instances(q, scores, 0.5, None, nested=True) == [0, 1]
    assert find_instances(q.take([0, 2]), torch.tensor([0.9, 0.8]), 0.5, None) == [0, 1]


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        (["....", "...."], 0.0),
        (["####", "####"], 1.0),
        (["#..#", "#..#"], 0.5),
        (["##.#", "#..."], 0.75),
        (["#...", ".#.."], 1.0),  # corners touch
        (["#.#.", "...."], 0.5),
    ],
)
def test_the_share_of_the_largest_piece(rows: list[str], share: float) -> None:
    masks = torch.tensor([[[c == "#" for c in row] for row in rows]] * 2 + [[[True] * 4] * 2])
    assert largest_piece(masks).tolist() == pytest.approx([share, share, 1])


def test_evidence_of_a_phrase() -> None:
    """Two halves and the whole: a surer half lies in the whole, and the whole has a surer half in it."""
    q = queries()
    q.logits[1, :, 1:2] = -5.0  # in two pieces
    q.presence, q.coverage = torch.tensor([0.5, 0.5, 0.9, 0.2]), torch.full((4,), 0.5)
    q.scores = torch.full((4,), 0.5)
    named = torch.tensor([0.5, 0.4, 0.9, 0.5])
    evidence = phrase_evidence(q, named)
    for row, values in zip(evidence, (named, q.presence, q.scores, q.coverage), strict=False):
        assert row.tolist() == pytest.approx(values.logit().tolist())
    assert evidence[4].sigmoid().tolist() == pytest.approx([1, 2 / 3, 1, 1], abs=1e-3)
    assert evidence[5].tolist() == pytest.approx([0, 1, 0, 0.5])  # most of it that lies in a surer one
    assert evidence[6].tolist() == pytest.approx([0, 0.75, 0, 1])  # most of a surer one that lies in it
    q.few = True
    assert phrase_evidence(q, named)[6].tolist() == [0] * 4
    assert torch.equal(phrase_evidence(q, named)[:6], evidence[:6])


def test_a_small_part_says_nothing_of_what_holds_it() -> None:
    logits = torch.full((3, 10, 10), -5.0)
    logits[0, 2:4, 2:4] = logits[1, :4, :6] = logits[2, :8] = 5.0  # 4, 24 and 80 cells, one in the other
    q = ObjectQueries(logits, torch.zeros(3, 4), torch.full((3,), 0.5))
    q.presence = q.coverage = torch.full((3,), 0.5)
    assert phrase_evidence(q, torch.tensor([0.9, 0.8, 0.7]))[6].tolist() == pytest.approx([0, 0, 1])


def test_the_best_outline_of_what_is_chosen() -> None:
    """Two outlines of one box, one of which fades; the other wins, unless it scores less or shows something else."""
    logits = torch.full((3, 8, 8), -5.0)
    logits[:2, 1:6, 1:6] = 5.0
    logits[0, 1:6, 6] = 0.5  # runs out
    logits[2, :2, :2] = 5.0
    q = ObjectQueries(logits, torch.zeros(3, 4), torch.tensor([0.8, 0.8, 0.99]))
    assert best_outlined(q, torch.tensor([0.92, 0.9, 0.91]), 0) == 1
    assert best_outlined(q, torch.tensor([0.92, 0.5, 0.91]), 0) == 0
    assert best_outlined(q, torch.tensor([0.92, 0.9, 0.91]), 2) == 2
    assert find_instances(q, torch.tensor([0.92, 0.9, 0.1]), 0.5, None) == [1]
    assert find_instances(q, torch.tensor([0.92, 0.9, 0.1]), 0.91, None) == [0]


def test_weights_of_the_first_kinds_of_evidence_are_enough() -> None:
    evidence = torch.tensor([[1.0, -1.0], [2.0, 0.0], [9.0, 9.0]])
    assert weigh(evidence, [1.0, 0.5, -2.0]).tolist() == pytest.approx([0.5, torch.tensor(-3.0).sigmoid().item()])


def test_shares_of_empty_masks_are_nothing() -> None:
    masks = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    assert pairwise_inside(masks).tolist() == [[1, 0], [0, 0]]


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
