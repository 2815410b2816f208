"""Simulated prompts, expressions, losses, assignment and records."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import distance_transform_edt
from scipy.optimize import linear_sum_assignment

from seem import geometry
from seem.training import simulate
from seem.training.expressions import NAME_FORMS, PLACES, Instance, describe, expression, places_of
from seem.training.losses import focal, importance_points, mask_bce, mask_dice, mask_iou, pairwise_cost
from seem.training.matching import assign
from seem.training.samples import decode_rle, load_targets, pad_to, read_records, resize_mask

sides = st.integers(1, 21)
masks = st.tuples(sides, sides).flatmap(lambda size: hnp.arrays(bool, size))
nonempty = masks.filter(lambda m: bool(m.any()))
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=60, deadline=None, derandomize=True)


def blob(h: int, w: int, seed: int) -> np.ndarray:
    """An ellipse, perhaps cut by the border."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:h, :w]
    mask: np.ndarray = (((xx - rng.uniform(0, w)) / (w / 3)) ** 2 + ((yy - rng.uniform(0, h)) / (h / 3)) ** 2) < 1
    return mask


# ---- prompts ------------------------------------------------------------------------------------------------------


@quick
@given(masks)
def test_distance_transform_is_exact(mask: np.ndarray) -> None:
    expected = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    np.testing.assert_allclose(simulate.distance_transform(mask), expected, atol=1e-4)


@quick
@given(nonempty, seeds, st.sampled_from(sorted(simulate.FIRST_PROMPTS)))
def test_first_prompts_lie_in_the_mask(mask: np.ndarray, seed: int, kind: str) -> None:
    check_prompt(mask, simulate.first_prompt(kind, mask, np.random.default_rng(seed)))


@pytest.mark.parametrize(("kind", "seed"), itertools.product(simulate.FIRST_PROMPTS, range(5)))
def test_first_prompts_of_blobs(kind: str, seed: int) -> None:
    mask = blob(39, 62, seed)
    prompt = simulate.first_prompt(kind, mask, np.random.default_rng(seed))
    check_prompt(mask, prompt)
    again = simulate.first_prompt(kind, mask, np.random.default_rng(seed))
    np.testing.assert_array_equal(prompt.points, again.points)


def check_prompt(mask: np.ndarray, prompt: simulate.VisualPrompt) -> None:
    h, w = mask.shape
    points = prompt.points
    assert points.dtype == np.float32
    assert np.isfinite(points).all()
    assert prompt.positive
    assert ((points >= 0) & (points <= [w, h])).all()
    if prompt.kind in ("click", "scribble"):
        x, y = np.floor(points).astype(int).T
        assert mask[y, x].all()
        assert len(points) == 1 if prompt.kind == "click" else len(points) >= 2
    if prompt.kind == "box":
        assert points.shape == (2, 2)
        assert (points[1] > points[0]).all()
    if prompt.kind == "polygon":
        assert len(points) >= 3
    if prompt.kind == "mask":
        assert points.shape == (0, 2)
        assert prompt.mask is not None
        assert prompt.mask.shape == mask.shape
        assert prompt.mask.any()


@pytest.mark.parametrize(("kind", "mask", "message"), [("circle", np.ones((4, 4), bool), "prompt kind is 'circle'"),
                                                       ("click", np.zeros((4, 4), bool), "mask is empty")])  # fmt: skip
def test_first_prompt_refuses(kind: str, mask: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate.first_prompt(kind, mask, np.random.default_rng(0))


def test_next_click() -> None:
    rng = np.random.default_rng(0)
    target = np.zeros((12, 12), bool)
    target[1:8, 1:8] = True
    assert simulate.next_click(target, target, rng) is None
    missed = simulate.next_click(target, np.zeros_like(target), rng, centre=1.0)
    assert missed is not None
    assert missed.positive
    assert np.floor(missed.points[0] / 4).tolist() == [4, 4]
    taken = target.copy()
    taken[:, 9:] = True  # three columns too many, against nothing missed
    wrong = simulate.next_click(target, taken, rng, centre=1.0)
    assert wrong is not None
    assert not wrong.positive
    assert math.floor(wrong.points[0, 0] / 4) == 10
    taken[3, 3] = False  # a lone missed cell is less deep than the wrong stripe
    both = simulate.next_click(target, taken, rng, centre=1.0)
    assert both is not None
    assert not both.positive


@pytest.mark.parametrize("size", [(8, 8), (9, 5), (1, 1), (7, 12)])
def test_shrink_is_the_mean(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(size) > 0.5
    small = simulate.shrink(mask)
    assert small.shape == (-(-size[0] // 4), -(-size[1] // 4))
    assert small.sum() * 16 == pytest.approx(mask.sum())
    assert small[0, 0] == pytest.approx(mask[:4, :4].sum() / 16)


# ---- expressions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ([Instance(0.2, 0.5, 0.1, 0.6)], []),
        ([Instance(0.2, 0.5, 0.1, 0.6), Instance(0.8, 0.5, 0.1, 0.6)], ["left"]),
        ([Instance(0.8, 0.5, 0.1, 0.6), Instance(0.2, 0.5, 0.1, 0.6)], ["right"]),
        ([Instance(0.5, 0.1, 0.1, 0.2), Instance(0.5, 0.8, 0.1, 0.9)], ["top"]),
        ([Instance(0.5, 0.5, 0.4, 0.9), Instance(0.5, 0.5, 0.1, 0.6)], ["largest", "nearest"]),
        ([Instance(0.5, 0.5, 0.4, 0.5), Instance(0.5, 0.5, 0.1, 0.9)], ["largest"]),
        ([Instance(0.5, 0.5, 0.1, 0.6), Instance(0.5, 0.5, 0.4, 0.6)], ["smallest"]),
        ([Instance(0.5, 0.5, 0.1, 0.6), Instance(0.2, 0.5, 0.1, 0.6), Instance(0.8, 0.5, 0.1, 0.6)], ["middle"]),
        ([Instance(0.5, 0.5, 0.1, 0.6), Instance(0.52, 0.5, 0.1, 0.6)], []),
    ],
)
def test_places(instances: list[Instance], expected: list[str]) -> None:
    assert places_of(0, instances) == expected


def test_describe() -> None:
    mask = np.zeros((10, 20), bool)
    mask[4:6, 0:10] = True
    assert describe(mask) == Instance(pytest.approx(0.25), pytest.approx(0.5), 0.1, 0.6)


def test_expression_names_the_object() -> None:
    rng = np.random.default_rng(0)
    plain = {expression("dog", [], rng) for _ in range(100)}
    assert plain == {form.format("dog") for form in NAME_FORMS}
    placed = {expression("dog", ["left"], rng) for _ in range(100)}
    assert placed == {form.format("dog") for form in PLACES["left"]}


# ---- assignment and losses ----------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 9), st.integers(1, 9), seeds)
def test_assign_is_optimal(n: int, m: int, seed: int) -> None:
    cost = np.random.default_rng(seed).normal(size=(n, m))
    rows, columns = assign(cost)
    best = linear_sum_assignment(cost)
    assert (np.diff(rows) > 0).all()
    assert len(set(columns.tolist())) == len(columns) == min(n, m)
    assert cost[rows, columns].sum() == pytest.approx(cost[best].sum())


def test_assign_with_ties_and_nothing() -> None:
    assert sorted(assign(np.zeros((3, 2)))[1].tolist()) == [0, 1]
    assert [len(part) for part in assign(np.zeros((0, 4)))] == [0, 0]
    with pytest.raises(ValueError, match="expected a finite matrix"):
        assign(np.array([[np.nan]]))


def test_losses_by_hand() -> None:
    logits, target = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert mask_bce(logits, target).item() == pytest.approx(math.log(2))
    assert mask_dice(logits, target).item() == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))
    assert focal(logits, target)[0, 0, 0].item() == pytest.approx(0.25 * math.log(2))
    sure = (target * 2 - 1) * 30
    assert mask_bce(sure, target).item() == pytest.approx(0, abs=1e-6)
    assert mask_dice(sure, target).item() == pytest.approx(0, abs=1e-6)
    assert mask_iou(sure, target).item() == 1
    assert mask_iou(-sure, target).item() == 0
    half = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]]])
    assert mask_iou(half, target).item() == pytest.approx(1 / 3)


def test_pairwise_cost_is_the_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 20, generator=generator)
    targets = (torch.rand(2, 20, generator=generator) > 0.5).float()
    cost = pairwise_cost(logits, targets)
    for q, k in itertools.product(range(3), range(2)):
        a, b = logits[q].view(1, 4, 5), targets[k].view(1, 4, 5)
        assert cost[q, k].item() == pytest.approx((5 * mask_bce(a, b) + 5 * mask_dice(a, b)).item(), rel=1e-5)


def test_importance_points() -> None:
    logits = torch.full((2, 400), 9.0)
    logits[0, 100:140] = 0.1
    points = importance_points(logits, 64, torch.Generator().manual_seed(0))
    assert points.shape == (64,)
    assert ((points >= 100) & (points < 140)).sum() > 10
    assert torch.equal(points, importance_points(logits, 64, torch.Generator().manual_seed(0)))


# ---- samples ------------------------------------------------------------------------------------------------------


@quick
@given(masks)
def test_rle_round_trip(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_rle(geometry.rle_encode(mask, compressed=False)), mask)


def test_targets_name_the_bad_record() -> None:
    record = {"id": "toy/7", "objects": [{"rle": {"size": [2, 2], "counts": [3]}, "name": "dog"}]}
    with pytest.raises(ValueError, match="record toy/7, object 'dog': run lengths add up to 3, expected 2 x 2"):
        load_targets(record, (4, 4), 8, np.random.default_rng(0))


def test_targets() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:8, 2:8] = True
    rle = geometry.rle_encode(mask, compressed=False)
    objects = [
        {"rle": rle, "name": "dog", "kind": "thing"},
        {"rle": rle, "name": "grass", "kind": "stuff", "doubtful": True},
        {"rle": rle, "name": "dog", "crowd": True},
        {"rle": None, "name": "cat"},
    ]
    targets = load_targets({"id": "a", "objects": objects}, (20, 20), 8, np.random.default_rng(0))
    assert [(t.name, t.kind, t.single, t.sure) for t in targets] == [
        ("dog", "thing", True, True),
        ("grass", "stuff", True, False),
        ("dog", "thing", False, True),
    ]
    assert targets[0].mask.shape == (20, 20)
    assert targets[0].coverage.shape == (5, 5)
    assert len(load_targets({"id": "a", "objects": objects}, (20, 20), 1, np.random.default_rng(0))) == 1
    assert resize_mask(mask, (5, 5)).sum() == 9


def test_pad_to() -> None:
    assert pad_to(torch.ones(2, 3), (4, 5)).sum() == 6


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "a"}', "3"])
def test_a_bad_line_is_named(line: str, tmp_path: Path) -> None:
    good = json.dumps({"id": "a", "objects": [], "width": 1, "complete": True, "image": "a.png"})
    (tmp_path / "r.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match=r"r\.jsonl:2: not a training record"):
        read_records([tmp_path / "r.jsonl"])
    (tmp_path / "r.jsonl").write_text(good)
    assert read_records([tmp_path / "r.jsonl"])[0]["image"] == str(tmp_path / "a.png")
