"""Panoptic, semantic and instance results from given logits; the official robot."""

import pytest
import torch

from seem.evaluation.official_robot import click_at_deepest, next_clicks, soft_distance
from seem.model.official_postprocess import instances, mean_probability, panoptic, resize_masks, semantic


def squares(*corners: tuple[int, int, int]) -> torch.Tensor:
    masks = torch.full((len(corners), 12, 12), -9.0)
    for mask, (y, x, side) in zip(masks, corners, strict=True):
        mask[y : y + side, x : x + side] = 9.0
    return masks


def classes(*labels: int, count: int = 3) -> torch.Tensor:
    logits = torch.zeros(len(labels), count + 1)
    logits[range(len(labels)), labels] = 9.0
    return logits


def test_stuff_merges_and_things_do_not() -> None:
    masks = squares((0, 0, 4), (6, 6, 4), (0, 8, 3), (8, 0, 3))
    found, segments = panoptic(classes(0, 0, 2, 2), masks, [True, True, False], 0.8, 0.8)
    assert [(s.id, s.category, s.is_thing) for s in segments] == [(1, 0, True), (2, 0, True), (3, 2, False)]
    assert int((found == 3).sum()) == 18


def test_nothing_and_covered_segments_are_dropped() -> None:
    masks = squares((0, 0, 6), (0, 0, 5), (6, 6, 4))
    scores = classes(0, 1, 3)
    scores[1, 1] = 5.0  # less sure, so the first covers it
    _, segments = panoptic(scores, masks, [True] * 3, 0.8, 0.8)
    assert [s.category for s in segments] == [0]
    assert panoptic(classes(3), masks[:1], [True] * 3, 0.8, 0.8)[1] == []


def test_semantic_and_instances() -> None:
    masks = squares((0, 0, 4), (6, 6, 4))
    assert semantic(classes(0, 2), masks)[:, 1, 1].argmax() == 0
    scores, labels, inside = instances(classes(0, 2), masks, [True, True, False], top=2)
    assert labels.tolist() == [0]
    assert scores[0] > 0.9
    assert int(inside.sum()) == 16
    assert mean_probability(torch.full((1, 2, 2), -1.0)).item() == 0


def test_resize_masks_cuts_padding() -> None:
    logits = torch.zeros(1, 8, 8)
    logits[..., 6:] = 50.0
    assert resize_masks(logits, (32, 32), (32, 20), (64, 40)).abs().max() < 1e-6


def test_click_lands_in_the_middle() -> None:
    region = torch.zeros(20, 20, dtype=torch.bool)
    region[5:14, 5:14] = True
    assert click_at_deepest(region).nonzero().float().mean(0).tolist() == [9.0, 9.0]
    assert soft_distance(region)[0, 0] == 0


@pytest.mark.parametrize(("guess", "sign"), [(-1.0, 0), (1.0, 1)])
def test_next_click_sign(guess: float, sign: int) -> None:
    truth = torch.zeros(1, 16, 16, dtype=torch.bool)
    truth[0, :8, :8] = True
    none = torch.zeros_like(truth)
    clicks = next_clicks(torch.full((1, 4, 4), guess), truth, none, none)
    assert int(clicks[sign].sum()) == 9
    assert not clicks[1 - sign].any()


def test_good_enough_gets_no_click() -> None:
    truth = torch.zeros(1, 16, 16, dtype=torch.bool)
    truth[0, :8] = True
    none = torch.zeros_like(truth)
    logits = (truth.float() * 2 - 1) * 9
    assert not any(c.any() for c in next_clicks(logits, truth, none, none))
