"""Simulated prompts, official strokes, losses, assignment and records."""

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
from seem.training import simulate, strokes
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


@pytest.mark.parametrize(("kind", "seed"), [*itertools.product(simulate.FIRST_PROMPTS, range(5))])
def test_first_prompts_of_blobs(kind: str, seed: int) -> None:
    mask = blob(39, 62, seed)
    prompt = simulate.first_prompt(kind, mask, np.random.default_rng(seed))
    check_prompt(mask, prompt)
    again = simulate.first_prompt(kind, mask, np.random.default_rng(seed))
    np.testing.assert_array_equal(prompt.points, again.points)


def lies_in(mask: np.ndarray, points: np.ndarray) -> bool:
    """Whether a line does."""
    share = np.linspace(0, 1, 200)[:, None]
    line = np.concatenate([points[:1], *(a + share * (b - a) for a, b in itertools.pairwise(points))])
    x, y = np.floor(line).astype(int).T
    return bool(mask[y, x].mean() > 0.98)  # it may cut the corner of a pixel


def check_prompt(mask: np.ndarray, prompt: simulate.VisualPrompt) -> None:
    h, w = mask.shape
    points = prompt.points
    assert points.dtype == np.float32
    assert np.isfinite(points).all()
    assert prompt.positive
    assert ((points >= 0) & (points <= [w, h])).all()
    if prompt.kind in ("click", "scribble"):
        assert lies_in(mask, points)
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


@pytest.mark.parametrize(("kind", "mask", "message"), [("blob", np.ones((4, 4), bool), "prompt kind is 'blob'"),
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


# ---- mistakes -----------------------------------------------------------------------------------------------------

DISK = ((np.mgrid[:80, :100] - np.array([40, 50])[:, None, None]) ** 2).sum(0) < 25**2


def distance_to(mask: np.ndarray, point: np.ndarray) -> float:
    """From a continuous point to the nearest pixel's centre."""
    ys, xs = np.nonzero(mask)
    return float(np.hypot(xs + 0.5 - point[0], ys + 0.5 - point[1]).min())


@pytest.mark.parametrize("seed", range(20))
def test_slips_of_a_click(seed: int) -> None:
    def slip(name: str) -> np.ndarray:
        prompt = simulate.click(DISK, np.random.default_rng(seed), name)
        assert (prompt.points % 1 == 0.5).all(), "the centre of a pixel"
        return prompt.points[0]

    assert 12 < np.hypot(*(slip("off_centre") - [50.5, 40.5])) < 26
    assert simulate.is_inside(DISK, slip("border"))
    assert 23.5 < np.hypot(*(slip("border") - [50.5, 40.5])) < 25.5
    assert not simulate.is_inside(DISK, slip("beside"))
    assert distance_to(DISK, slip("beside")) < 10


@pytest.mark.parametrize("seed", range(20))
def test_slips_of_a_box(seed: int) -> None:
    own = np.array([26, 16, 75, 65])  # the disk's, 49 x 49

    def slip(name: str) -> np.ndarray:
        moved: np.ndarray = simulate.box(DISK, np.random.default_rng(seed), name).points.ravel() - own
        return moved / 49

    outwards = slip("loose") * [-1, -1, 1, 1]
    assert (outwards > 0.09).all() and (outwards < 0.41).all()
    inwards = slip("tight") * [1, 1, -1, -1]
    assert (inwards > 0.04).all() and (inwards < 0.21).all()
    shift = slip("shifted")
    np.testing.assert_allclose(shift[:2], shift[2:], atol=1e-6)
    assert (np.abs(shift) > 0.04).all()


def test_a_stray_scribble_leaves_a_little() -> None:
    far = []
    for seed in range(40):
        prompt = simulate.scribble(DISK, np.random.default_rng(seed), "stray")
        far.append(max(distance_to(DISK, p) for p in prompt.points))
    assert sum(d > 1 for d in far) > 10
    assert max(far) < 10


def test_mistakes_come_as_often_as_asked() -> None:
    rng = np.random.default_rng(0)
    mistakes = simulate.Mistakes(off_centre_click=0.2, beside_click=0.3, stray_scribble=1.0)
    drawn = [mistakes.draw("click", rng) for _ in range(2000)]
    assert drawn.count("off_centre") / 2000 == pytest.approx(0.2, abs=0.03)
    assert drawn.count("beside") / 2000 == pytest.approx(0.3, abs=0.03)
    assert drawn.count("") / 2000 == pytest.approx(0.5, abs=0.03)
    assert {mistakes.draw("scribble", rng) for _ in range(20)} == {"stray"}
    assert {mistakes.draw("box", rng) for _ in range(20)} == {""}
    beside = simulate.first_prompt("click", DISK, rng, simulate.Mistakes(beside_click=1.0))
    assert not simulate.is_inside(DISK, beside.points[0])


@pytest.mark.parametrize("chances", [{"loose_box": -0.1}, {"loose_box": 0.6, "tight_box": 0.6}])
def test_mistakes_refuse(chances: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"mistakes with a box are .*loose_box.*<= 1"):
        simulate.Mistakes(**chances)


@quick
@given(nonempty, seeds, st.sampled_from(["off_centre", "border", "beside", "loose", "tight", "shifted", "stray"]))
def test_slips_stay_in_the_image(mask: np.ndarray, seed: int, slip: str) -> None:
    kind = next(k for k in ("click", "box", "scribble") if hasattr(simulate.Mistakes(), f"{slip}_{k}"))
    prompt = simulate.first_prompt(
        kind, mask, np.random.default_rng(seed), simulate.Mistakes(**{f"{slip}_{kind}": 1.0})
    )
    assert ((prompt.points >= 0) & (prompt.points <= mask.shape[::-1])).all()


@quick
@given(nonempty, seeds, st.sampled_from(["click", "scribble"]))
def test_first_negatives_lie_outside(mask: np.ndarray, seed: int, kind: str) -> None:
    prompt = simulate.first_negative(kind, mask, np.random.default_rng(seed))
    if mask.all():
        assert prompt is None
        return
    assert prompt is not None
    assert not prompt.positive
    assert lies_in(~mask, prompt.points)


def test_first_negatives_are_near() -> None:
    near = simulate.surroundings(DISK)
    assert near[40, 20] and near[5, 50] and not near[40, 50] and not near[40, 5]
    with pytest.raises(ValueError, match="negative prompt kind is 'box'"):
        simulate.first_negative("box", DISK, np.random.default_rng(0))
    with pytest.raises(ValueError, match="mask is empty"):
        simulate.first_negative("click", np.zeros((3, 3), bool), np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(10))
def test_a_circle_is_round(seed: int) -> None:
    ring = simulate.circle(DISK, np.random.default_rng(seed)).points
    radius = np.hypot(*(ring - ring.mean(0)).T)
    assert radius.max() < 1.3 * radius.min()
    assert 2 < radius.mean() < 32


# ---- strokes of the official model --------------------------------------------------------------------------------

BIG = ((np.mgrid[:200, :300] - np.array([100, 150])[:, None, None]) ** 2).sum(0) < 90**2


@pytest.mark.parametrize(("kind", "seed"), [*itertools.product(strokes.KINDS, range(10))])
def test_official_strokes(kind: str, seed: int) -> None:
    prompt = strokes.official_stroke(BIG, np.random.default_rng(seed), [kind])
    assert prompt.shape == BIG.shape
    assert prompt.dtype == bool
    assert prompt.any()
    np.testing.assert_array_equal(prompt, strokes.official_stroke(BIG, np.random.default_rng(seed), [kind]))
    if kind == "polygon":
        assert not prompt[:11].any() and not prompt[190:].any(), "cut at the object's box"
    else:
        assert not (prompt & ~BIG).any()
    if kind == "point":
        assert 1 <= prompt.sum() <= strokes.MOST_POINTS


def test_circles_are_thicker_than_scribbles() -> None:
    depth = {
        kind: np.mean([
            distance_transform_edt(strokes.official_stroke(BIG, np.random.default_rng(s), [kind])).max()
            for s in range(20)
        ])
        for kind in ("scribble", "circle")
    }  # fmt: skip
    assert depth["circle"] > 2 * depth["scribble"]


def test_official_walks_keep_their_preset() -> None:
    for seed, preset in itertools.product(range(20), strokes.SCRIBBLES + strokes.CIRCLES):
        line = strokes.walk(np.array([50, 50]), preset, np.random.default_rng(seed))
        assert preset.vertices[0] <= len(line) <= preset.vertices[1]
        steps = np.hypot(*np.diff(line, axis=0).T)
        assert steps.max() <= preset.speed + 2 * np.sqrt(2) * preset.jitter + 1e-9


def test_closed_curve_passes_its_corners() -> None:
    corners = np.array([[0, 0], [1, 1], [1, 0], [0, 1]], float)
    curve = strokes.closed_curve(corners).reshape(4, strokes.SAMPLES, 2)
    np.testing.assert_allclose(curve[:, -1], np.roll(curve[:, 0], -1, axis=0), atol=1e-9)
    assert {tuple(p) for p in curve[:, 0].round(6)} == {(0, 0), (1, 0), (1, 1), (0, 1)}
    one_way = np.roll(curve[:, 0], -1, axis=0) - curve[:, 0]
    assert (np.abs(one_way).sum(1) == 1).all(), "around the square, not across it"
    assert strokes.closed_curve(corners[:1]) == pytest.approx(0)


def test_official_strokes_of_small_objects() -> None:
    rng = np.random.default_rng(0)
    small = np.zeros((20, 20), bool)
    small[3:6, 3:6] = True
    assert not strokes.official_stroke(small, rng).any()
    small[6, 3] = True
    assert all(strokes.official_stroke(small, rng).any() for _ in range(100))
    for kinds in ([], ["blob"]):
        with pytest.raises(ValueError, match="kinds: expected some of point, scribble"):
            strokes.official_stroke(small, rng, kinds)


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
