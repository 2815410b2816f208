from __future__ import annotations

import numpy as np
import pytest

from seem.evaluation.official_robot import OfficialRobot
from seem.evaluation.robot import Robot, depth
from seem.prompts import Click

SQUARE = np.zeros((9, 9), bool)
SQUARE[2:7, 2:7] = True
EMPTY = np.zeros((9, 9), bool)


def brute_depth(region: np.ndarray) -> np.ndarray:
    padded = np.pad(region, 1)
    outside = np.argwhere(~padded)
    inside = np.argwhere(region)
    result = np.zeros(region.shape)
    for y, x in inside:
        result[y, x] = np.sqrt(((outside - (y + 1, x + 1)) ** 2).sum(1)).min()
    return result


@pytest.mark.parametrize("seed", range(6))
def test_depth_is_the_exact_distance_with_the_border_outside(seed: int) -> None:
    region = np.random.default_rng(seed).random((13, 17)) < 0.85
    region[4:12, 3:15] |= seed % 2 == 0
    np.testing.assert_allclose(depth(region), brute_depth(region))


def test_depth_of_nothing_and_of_everything() -> None:
    assert depth(EMPTY).max() == 0
    assert np.unravel_index(depth(np.ones((5, 9), bool)).argmax(), (5, 9)) == (2, 2)  # three rows to the border


def with_pixels(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((20, 40), bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


BIG, SMALL = (2, 2, 13, 13), (20, 2, 27, 9)  # deepest in (7, 7) and in (23, 5)


@pytest.mark.parametrize(
    ("target", "mask", "expected"),
    [
        (with_pixels(BIG), with_pixels(), Click(7, 7, True)),  # the first click: in the middle
        (with_pixels(BIG), with_pixels(BIG, SMALL), Click(23, 5, False)),  # all found, too much taken
        (with_pixels(BIG, SMALL), with_pixels(BIG), Click(23, 5, True)),  # a part missed
        (with_pixels(BIG), with_pixels(SMALL), Click(7, 7, True)),  # missed deeper than taken
        (with_pixels(SMALL), with_pixels(BIG), Click(7, 7, False)),  # taken deeper than missed
        (with_pixels((0, 15, 40, 18), SMALL), with_pixels(), Click(23, 5, True)),  # by depth, not by area
        (with_pixels((0, 0, 5, 5)), with_pixels((10, 10, 15, 15)), Click(12, 12, False)),  # equal: negative, as RITM
        (with_pixels(BIG), with_pixels(BIG), None),  # nothing to correct
    ],
)
def test_next_click(target: np.ndarray, mask: np.ndarray, expected: Click | None) -> None:
    assert Robot(target).next_click(mask) == expected


def test_object_at_the_border_is_not_clicked_at_the_border() -> None:
    assert Robot(np.ones((7, 7), bool)).next_click() == Click(3, 3)


def test_ignored_pixels_belong_to_neither_region() -> None:
    ignore = with_pixels((2, 2, 8, 13))
    assert Robot(with_pixels(BIG), ignore).next_click() == Click(10, 4)  # the first deepest of the right half
    assert Robot(with_pixels(BIG), with_pixels(SMALL)).next_click(with_pixels(BIG, SMALL)) is None


def test_never_the_same_pixel_twice_and_none_when_all_are_clicked() -> None:
    target = with_pixels((3, 3, 6, 5))
    robot = Robot(target)
    clicks = [robot.next_click() for _ in range(7)]
    assert clicks[-1] is None
    places = {(c.x, c.y) for c in clicks[:6] if c is not None}
    assert len(places) == 6 and all(target[int(y), int(x)] for x, y in places)


def test_a_robot_without_negatives_only_adds() -> None:
    robot = Robot(with_pixels(BIG, SMALL), negatives=False)
    assert robot.next_click(with_pixels(BIG, (28, 0, 40, 20))) == Click(23, 5, True)  # what was taken is deeper
    assert Robot(with_pixels(BIG), negatives=False).next_click(with_pixels(BIG, SMALL)) is None


# ---- the official one -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "mask", "expected"),
    [
        (with_pixels(BIG), None, Click(7, 7, True)),  # the first click: in the middle of the target
        (with_pixels(BIG), with_pixels(BIG, SMALL), Click(23, 5, False)),
        (with_pixels((0, 15, 40, 18), SMALL), with_pixels((0, 15, 40, 18)), Click(23, 5, True)),
        (with_pixels(BIG), with_pixels((14, 0, 40, 4)), Click(7, 7, True)),  # 121 pixels missed, 104 taken
        (with_pixels(SMALL), with_pixels((0, 12, 40, 14)), Click(1, 12, False)),  # 49 missed, 80 taken: by area
        (with_pixels((0, 0, 40, 10)), with_pixels((0, 0, 37, 10)), None),  # IoU of 0.925 is good enough
    ],
)
def test_official_next_click(target: np.ndarray, mask: np.ndarray | None, expected: Click | None) -> None:
    assert OfficialRobot(target).next_click(mask) == expected


def test_official_clicks_cover_three_by_three_pixels() -> None:
    target = with_pixels((3, 3, 8, 6))
    robot = OfficialRobot(target)
    clicks = []
    while (click := robot.next_click(with_pixels() if clicks else None)) is not None:
        clicks.append(click)
    places = [(int(c.x), int(c.y)) for c in clicks]
    assert len(places) < 15 and places[0] in {(4, 4), (5, 4), (6, 4)}
    covered = np.zeros_like(target)
    for i, (x, y) in enumerate(places):
        assert not covered[y, x], f"click {i} lies on an earlier one"
        covered[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
    assert (covered | ~target).all()


def test_official_robot_clicks_in_ignored_pixels() -> None:
    target, ignore = with_pixels(BIG), with_pixels(SMALL)
    assert OfficialRobot(target, ignore).next_click(with_pixels(BIG, SMALL)) == Click(23, 5, False)


def test_jitter_stays_in_the_region_and_repeats_with_its_seed() -> None:
    target = with_pixels(BIG)

    def clicks(seed: int) -> list[Click | None]:
        robot = Robot(target, jitter=0.5, rng=np.random.default_rng(seed))
        return [robot.next_click() for _ in range(20)]

    first = clicks(1)
    assert first == clicks(1) != clicks(2)
    assert all(c is not None and target[int(c.y), int(c.x)] for c in first)
    assert len({(c.x, c.y) for c in first if c is not None}) == 20


def test_jitter_has_the_stated_size() -> None:
    target = np.ones((400, 400), bool)
    points = []
    for seed in range(300):
        click = Robot(target, jitter=0.05, rng=np.random.default_rng(seed)).next_click()
        assert click is not None
        points.append((click.x, click.y))
    spread = np.std(points, axis=0)
    np.testing.assert_allclose(spread, 0.05 * 400, rtol=0.15)
