"""What is asked of a photo, where masks are compared, and who is matched with whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from seem.model.official_config import official_config, reduced
from seem.training.paper.config import Weights
from seem.training.paper.lesson import Annotation, Lesson, LessonMaker, read_annotations
from seem.training.paper.matching import match, pair_costs
from seem.training.paper.points import PointSampler, mask_losses, read_each, read_shared
from tests.training.paper import CLASSES, config, picture

IMAGE = reduced(official_config("seem-focal-t-v1")).image


def make(annotations: list[Annotation], complete: bool = True, seed: int = 0, **changes: Any) -> Lesson:
    annotated = changes.pop("annotated", ())
    maker = LessonMaker(changes.pop("classes", CLASSES), {}, IMAGE, config(**changes))
    return maker("a", picture()[0], annotations, complete, np.random.default_rng(seed), annotated)


# ---- annotations and what is ignored --------------------------------------------------------------------------------


def rle(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False, append=False if flat[-1] else flat[-1]))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def record(**changes: Any) -> dict[str, Any]:
    mask = picture()[1][0].mask
    made = {"rle": rle(mask), "name": "clock", "kind": "thing", "box": [6.0, 8.0, 36.0, 38.0]}
    return {"id": "set/1", "height": 60, "width": 90, "objects": [made | changes]}


@pytest.mark.parametrize(
    ("changes", "usable"),
    [
        ({}, True),
        ({"crowd": True}, False),
        ({"doubtful": True}, False),
        ({"semantic": True}, False),  # several things in one mask
        ({"semantic": True, "kind": "stuff"}, True),
        ({"rle": None}, False),
    ],
)
def test_annotations(changes: dict[str, Any], usable: bool) -> None:
    (annotation,) = read_annotations(record(phrases=["the round one"], **changes))
    assert annotation.usable is usable and annotation.phrases == ("the round one",)
    assert np.array_equal(annotation.mask, picture()[1][0].mask)  # without a mask, its box


def test_a_broken_annotation_is_named() -> None:
    with pytest.raises(ValueError, match=r"record set/1, object 'clock': run lengths"):
        read_annotations(record(rle={"size": [60, 90], "counts": [5]}))
    with pytest.raises(ValueError, match=r"record set/1, object 'clock'"):
        read_annotations(record(rle=None, box=None))


def test_what_may_hide_an_unannotated_object_is_ignored() -> None:
    square, disk = picture()[1]
    both, lower = np.zeros((60, 90), bool), np.zeros((60, 90), bool)
    both[:, 20:80] = True
    lower[50:] = True
    crowd = Annotation(both, "cat", usable=False)

    def ignored(annotations: list[Annotation], complete: bool = True, **changes: Any) -> np.ndarray | None:
        ignore = make(annotations, complete, **changes).ignore
        assert ignore is None or not (ignore[60:].any() or ignore[:, 90:].any())  # nothing hides in the padding
        return None if ignore is None else ignore[:60, :90].numpy()

    def same(found: np.ndarray | None, expected: np.ndarray) -> bool:
        return found is not None and np.array_equal(found, expected)

    assert ignored([square, disk]) is None  # all is known
    assert same(ignored([square, disk, crowd]), both & ~square.mask & ~disk.mask)
    assert ignored([square, disk, replace(crowd, name="unicorn")]) is None  # no class of ours
    assert same(ignored([square, replace(disk, usable=False)]), disk.mask)  # boxed but not masked
    assert same(ignored([square, disk], complete=False), ~square.mask & ~disk.mask)
    # sky is not among the classes that "complete" speaks of
    assert same(ignored([square], classes=(*CLASSES, "sky")), ~square.mask)
    assert same(ignored([square, Annotation(lower, "unicorn", True)], complete=False), ~square.mask)
    # a record says so itself, of names and of pixels
    assert ignored([square], complete=False, annotated=CLASSES) is None
    assert same(ignored([square, Annotation(lower, None, False)]), lower & ~square.mask)


def test_a_record_ignores_pixels() -> None:
    mask = np.zeros((4, 6), bool)
    mask[2:] = True
    record = {"id": "a/b", "height": 4, "width": 6, "objects": [], "ignore": rle(mask)}
    (found,) = read_annotations(record)
    assert (found.name, found.usable) == (None, False)
    assert np.array_equal(found.mask, mask)


# ---- prompts and phrases --------------------------------------------------------------------------------------------


def test_objects_are_prompted_inside_and_tiny_ones_are_not() -> None:
    tiny = np.zeros((60, 90), bool)
    tiny[0, :9] = True
    annotations = [*picture()[1], Annotation(tiny, "cat", True)]
    for seed in range(8):
        x = make(annotations, seed=seed, strokes=("point", "scribble", "circle"))
        assert sorted(x.objects.tolist()) == [0, 1]
        for i, stroke in zip(x.objects.tolist(), x.strokes, strict=True):
            assert stroke.any() and not bool((stroke & ~x.masks[i]).any())
    assert x.masks.shape == (3, 64, 96) and x.pixels.shape == (1, 3, 64, 96) and x.size == (60, 90)
    assert len(make(annotations, objects=1).objects) == 1


def test_rounds_are_drawn_evenly() -> None:
    rounds = [make(picture()[1], seed=s, rounds=2).rounds for s in range(60)]
    assert set(rounds) == {0, 1, 2} and min(rounds.count(r) for r in range(3)) > 8


def test_peoples_phrases_come_before_class_names() -> None:
    square, disk = picture()[1]
    again = replace(square, mask=np.roll(square.mask, 40, 1))
    for seed in range(12):
        x = make([square, again, disk], seed=seed)
        assert not x.spoken and 1 <= len(x.phrases) <= 3
        for phrase, i in zip(x.phrases, x.named.tolist(), strict=True):
            assert phrase == x.sentences[int(x.classes[i])]  # so equal classes have equal phrases
        y = make([square, replace(disk, phrases=("Blue one", "THE Disk"))], seed=seed)
        assert y.spoken and y.named.tolist() == [1] and y.phrases[0] in ("blue one", "the disk")
    assert make([Annotation(square.mask, None, True)]).phrases == ()


def test_classes_and_sentences() -> None:
    x = make([*picture()[1], Annotation(picture()[1][0].mask, "unicorn", True)])
    assert x.classes.tolist() == [0, 1, -1]
    assert len(x.sentences) == 4 and "background" in x.sentences[-1]
    assert x.sentences != make(picture()[1], seed=1).sentences


# ---- points ---------------------------------------------------------------------------------------------------------


def sampler(count: int = 64, importance: float = 0.75, extent: tuple[float, float] = (1.0, 1.0)) -> PointSampler:
    return PointSampler(count, 3.0, importance, extent, torch.Generator().manual_seed(0))


def test_reads_at_pixel_centres_are_the_pixels() -> None:
    maps = torch.rand(2, 3, 5)
    y, x = torch.meshgrid((torch.arange(3) + 0.5) / 3, (torch.arange(5) + 0.5) / 5, indexing="ij")
    points = torch.stack([x, y], -1).flatten(0, 1)
    torch.testing.assert_close(read_shared(maps, points), maps.flatten(1))
    torch.testing.assert_close(read_each(maps, points.expand(2, -1, -1)), maps.flatten(1))
    ramps = [((torch.arange(n) + 0.5) / n).expand(1, n, n) for n in (4, 16)]  # the same picture at two strides
    inner = 0.2 + 0.6 * torch.rand(9, 2)
    for ramp in ramps:
        torch.testing.assert_close(read_shared(ramp, inner)[0], inner[:, 0])
    assert read_shared(maps[:0], points).shape == (0, 15) == read_each(maps[:0], points[None][:0]).shape


def test_points_lie_in_the_photo_and_mostly_where_a_mask_is_undecided() -> None:
    s = sampler(extent=(0.5, 0.25))
    points = s.anywhere(3)
    assert points.shape == (3, 64, 2) and bool((points[..., 0] < 0.5).all() and (points[..., 1] < 0.25).all())
    logits = torch.full((1, 64, 64), 5.0)
    logits[:, :, 28:36] = 0.1  # an eighth of the map
    share = {}
    for importance in (0.0, 0.75):
        x = sampler(256, importance).undecided(logits)[0, :, 0]
        share[importance] = float(((x > 0.43) & (x < 0.57)).float().mean())
    assert share[0.0] < 0.25 and share[0.75] > 0.35


@pytest.mark.parametrize("n", [0, 2])
def test_mask_losses_are_bce_and_dice_at_the_points(n: int) -> None:
    logits, truth = torch.randn(n, 8, 8), (torch.rand(n, 32, 32) > 0.5).float()
    bce, dice = mask_losses(logits, truth, sampler(50))
    points = sampler(50).undecided(logits)
    p, t = read_each(logits, points).sigmoid(), read_each(truth, points)
    assert bce.shape == dice.shape == (n,)
    for i in range(n):
        assert float(bce[i]) == pytest.approx(float(F.binary_cross_entropy(p[i], t[i])), rel=1e-4)
        assert float(dice[i]) == pytest.approx(float(1 - (2 * (p[i] @ t[i]) + 1) / (p[i].sum() + t[i].sum() + 1)))


# ---- matching -------------------------------------------------------------------------------------------------------


def test_costs_of_hand_made_pairs() -> None:
    logits = torch.tensor([[20.0, 20.0, -20.0, -20.0], [-20.0, -20.0, 20.0, 20.0]])
    targets = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    likeness = torch.tensor([[0.25], [0.75]])
    costs = pair_costs(likeness, logits, targets, Weights(2, 5, 3))
    # the first mask is right; of the second all is wrong: BCE 20, dice 1 - 1 / 5
    assert costs[:, 0].tolist() == pytest.approx([-0.5, 5 * 20 + 3 * 0.8 - 1.5], abs=1e-4)


@pytest.mark.parametrize(
    ("costs", "queries", "targets"),
    [
        ([[1.0, 2.0], [0.0, 3.0], [9.0, 9.0]], [0, 1], [1, 0]),  # the second query has the better use for target 0
        ([[0.0, 0.0, 5.0]], [0], [0]),  # fewer queries than targets
        ([[4.0], [3.0], [5.0]], [1], [0]),
        ([[], []], [], []),
    ],
)
def test_matches_of_hand_made_costs(costs: list[list[float]], queries: list[int], targets: list[int]) -> None:
    q, t = match(torch.tensor(costs))
    assert (q.tolist(), t.tolist()) == (queries, targets)


def test_matches_are_the_cheapest() -> None:
    costs = torch.rand(20, 7, generator=torch.Generator().manual_seed(0))
    q, t = match(costs)
    assert float(costs[q, t].sum()) == pytest.approx(float(costs.numpy()[linear_sum_assignment(costs.numpy())].sum()))
