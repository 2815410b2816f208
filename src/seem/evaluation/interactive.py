"""Clicks to a good mask: NoC, IoU after k clicks, time per click and the calibration of the score.

A user (the robot) starts with one prompt and corrects with clicks; each round passes all prompts so far and the result
of the round before. Rounds end where the mask is good enough for the robot (`STOP`), where nothing is left to click, or
after 20; a curve that ended early keeps its last value.
"""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from seem import geometry
from seem.evaluation import metrics
from seem.evaluation import robot as standard
from seem.evaluation.datasets import Dataset, Target
from seem.evaluation.robot import MAX_CLICKS, Robot, depth
from seem.prompts import Box, Click, Mask, Polygon, Prompt, Scribble

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.scene import Scene
    from seem.predict.segmentation import Segmentation

PROMPTS = ("click", "box", "scribble", "polygon", "circle", "mask")
THRESHOLDS = (80, 85, 90, 95)
STOP = {standard.NAME: 0.95, "seem": 0.925}  # IoU from which each robot is content
SCORED_ROUNDS = (1, 3, 5)

Row = dict[str, Any]


def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    prompt: str = "click",
    robot: str = standard.NAME,
    jitter: float = 0.0,
    min_area: float = 0.0,
    seed: int = 0,
    zoom: bool = False,
) -> Iterator[Row]:
    """Rows of {"image", "key", "area", "encode_seconds", "robot", "iou", "score", "seconds"}, one per object, the last
    three curves over the rounds; with jitter also "jittered", the same three for an unsteady hand.

    Args:
        prompt: what the first round gives, one of `PROMPTS`; the others are clicks.
        robot: who clicks, a key of `STOP`.
        jitter: of the unsteady hand, in units of sqrt(area); see `Robot`. 0 leaves it out.
        min_area: leave out objects that cover less than this share of the image.
        seed: of the jitter; each object has its own generator, so that any subset gives the same rows.
        zoom: of `Model.encode_large`.
    """
    if robot not in STOP:
        raise ValueError(f"robot: expected {' or '.join(STOP)}, got {robot!r}")
    if jitter and robot != standard.NAME:
        raise ValueError(f"jitter: expected the {standard.NAME} robot, the hand of {robot!r} is steady")
    for scene, target, row in objects(model, dataset, min_area, zoom):
        user = make_robot(robot, target)
        row |= {"robot": robot} | segment_with_robot(
            scene, target, user, first_prompt(prompt, target.mask, user), STOP[robot]
        )
        if jitter:
            user = jittery(target, jitter, seed)
            row["jittered"] = segment_with_robot(
                scene, target, user, first_prompt(prompt, target.mask, user), STOP[robot]
            )
        yield row


def objects(
    model: Model, dataset: Dataset, min_area: float = 0.0, zoom: bool = False
) -> Iterator[tuple[Scene, Target, Row]]:
    """Every object that is no crowd, on its encoded photo, with the row {"image", "key", "area", "encode_seconds"}.

    With zoom a photo, and every window of it, is encoded in the round that asks for it, and is part of its time.
    """
    for photo in dataset.photos:
        began = time.perf_counter()
        scene = cast("Scene", model.encode_large(photo.path, zoom=True)) if zoom else model.encode(photo.path)
        seconds = round(time.perf_counter() - began, 5)
        for target in photo.targets(scene.size):
            area = float(target.mask.mean())
            if not target.crowd and area > 0 and area >= min_area:
                row = {"image": photo.key, "key": target.key, "area": round(area, 6), "encode_seconds": seconds}
                yield scene, target, row


def make_robot(name: str, target: Target) -> Robot:
    """The robot of a name for one object."""
    if name == standard.NAME:
        return Robot(target.mask, target.ignore)
    from seem.evaluation.official_robot import OfficialRobot

    return OfficialRobot(target.mask, target.ignore)


def jittery(target: Target, jitter: float, seed: int) -> Robot:
    """The standard robot with an unsteady hand."""
    rng = np.random.default_rng((seed, zlib.crc32(target.key.encode())))
    return Robot(target.mask, target.ignore, jitter, rng)


def segment_with_robot(
    scene: Scene, target: Target, robot: Robot, first: Prompt, stop: float = STOP[standard.NAME], memory: bool = True
) -> Row:
    """The whole loop for one object: {"iou", "score", "seconds"}, a value per round."""
    row: Row = {"iou": [], "score": [], "seconds": []}
    for _, result, iou, seconds in rounds(scene, target, robot, first, stop, memory):
        row["iou"].append(round(iou, 5))
        row["score"].append(round(float(result.score), 5))
        row["seconds"].append(round(seconds, 5))
    return row


def rounds(
    scene: Scene, target: Target, robot: Robot, first: Prompt, stop: float, memory: bool = True
) -> Iterator[tuple[list[Prompt], Segmentation, float, float]]:
    """(prompts so far, the result, its IoU, seconds it took) of each round; `memory` passes the result before."""
    prompts, result = [first], None
    for _ in range(MAX_CLICKS):
        began = time.perf_counter()
        result = scene.segment(*prompts, previous=result if memory else None)
        mask = result.mask  # made when asked for: part of the round's time
        seconds = time.perf_counter() - began
        iou = metrics.masked_iou(mask, target.mask, target.ignore)
        yield list(prompts), result, iou, seconds
        click = None if iou >= stop else robot.next_click(mask)
        if click is None:
            break
        prompts.append(click)


# ---- first prompts ------------------------------------------------------------------------------------------------


def first_prompt(kind: str, mask: np.ndarray, robot: Robot) -> Prompt:
    """What a person gives first for a mask: a function of the mask, and of the robot's generator if it jitters.

    click: the robot's. box: the bounding box. scribble: along the object, through the deepest point of each of eight
    slices across its long axis. polygon: a rough outline of the largest part. circle: a disc around the deepest point.
    mask: the object grown by 5 % of sqrt(area).
    """
    if kind == "click":
        click = robot.next_click()
        assert isinstance(click, Click), "an object has at least one pixel"
        return click
    if kind == "box":
        return _box(mask, robot)
    if kind == "scribble":
        return Scribble(tuple(robot.jittered(x, y, mask) for x, y in _centre_line(mask)))
    if kind == "polygon":
        return _polygon(mask, robot)
    if kind == "circle":
        return _circle(mask, robot)
    if kind == "mask":
        return Mask(_grown(mask, 0.05 * float(np.sqrt(mask.sum()))))
    raise ValueError(f"prompt: expected one of {', '.join(PROMPTS)}, got {kind!r}")


def _box(mask: np.ndarray, robot: Robot) -> Box:
    box = geometry.box_of(mask)
    assert box is not None, "an object has at least one pixel"
    height, width = mask.shape
    sides = np.clip(np.array(box) + robot.rng.normal(0.0, robot.sigma, 4), 0, [width, height, width, height])
    x0, y0, x1, y1 = sides.tolist()
    return Box(x0, y0, x1, y1) if x0 + 1 <= x1 and y0 + 1 <= y1 else Box(*box)


def _centre_line(mask: np.ndarray, slices: int = 8) -> list[tuple[int, int]]:
    inside = depth(mask)
    ys, xs = np.nonzero(mask)
    points = np.stack([xs, ys], 1).astype(np.float64)
    centred = points - points.mean(0)
    axis = np.linalg.svd(centred.T @ centred)[0][:, 0]
    along = centred @ axis
    edges = np.linspace(along.min(), along.max(), slices + 1)
    which = np.clip(np.searchsorted(edges, along, side="right") - 1, 0, slices - 1)
    line: list[tuple[int, int]] = []
    for i in range(slices):
        members = np.flatnonzero(which == i)
        if len(members):
            deepest = members[inside[ys[members], xs[members]].argmax()]
            line.append((int(xs[deepest]), int(ys[deepest])))
    return _longest_inside(line, mask)


def _longest_inside(line: list[tuple[int, int]], mask: np.ndarray) -> list[tuple[int, int]]:
    """The longest run of points whose connecting lines stay on the mask."""
    runs: list[list[tuple[int, int]]] = [[line[0]]]
    for a, b in itertools.pairwise(line):
        steps = np.linspace(a, b, 2 * max(abs(b[0] - a[0]), abs(b[1] - a[1])) + 2).round().astype(int)
        if mask[steps[:, 1], steps[:, 0]].all():
            runs[-1].append(b)
        else:
            runs.append([b])
    return max(runs, key=len)


def _polygon(mask: np.ndarray, robot: Robot) -> Polygon:
    parts = geometry.mask_to_polygons(mask, tolerance=0.05 * float(np.sqrt(mask.sum())))
    size = (mask.shape[1], mask.shape[0])
    outline = max(parts, key=lambda p: np.count_nonzero(geometry.rasterise_polygon(p, size)))
    moved = np.clip(outline + robot.rng.normal(0.0, robot.sigma, outline.shape), 0, size)
    usable = geometry.rasterise_polygon(moved, size).any()
    return Polygon(tuple((moved if usable else outline).tolist()))


def _circle(mask: np.ndarray, robot: Robot) -> Polygon:
    inside = depth(mask)
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    centre = np.array(robot.jittered(int(x), int(y), mask)) + 0.5
    radius = max(0.8 * float(inside.max()), 0.5)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return Polygon(tuple((centre + radius * np.stack([np.cos(angle), np.sin(angle)], 1)).tolist()))


def _grown(mask: np.ndarray, radius: float) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask) <= radius)


# ---- figures ------------------------------------------------------------------------------------------------------


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """{"noc": {"80", …}, "iou_at": {"1", …}, "never": {"80", …}, "seconds_per_click", "calibration", …} of the rows,
    and "jittered": the same of the unsteady hand, where there is one."""
    if not rows:
        return {}
    made = {
        **curve_figures(rows, STOP[rows[0].get("robot", standard.NAME)]),
        "seconds_encode": metrics.median({r["image"]: r["encode_seconds"] for r in rows}.values()),
        "calibration": _calibration(rows),
    }
    jittered = [r["jittered"] for r in rows if "jittered" in r]
    return made | ({"jittered": curve_figures(jittered, STOP[standard.NAME])} if jittered else {})


def curve_figures(rows: Sequence[Row], stop: float) -> dict[str, Any]:
    """{"noc", "never" (shares), "iou_at", "seconds_per_click"} of curves that ended at an IoU of `stop`."""
    whole = np.array([row["iou"] + [row["iou"][-1]] * (MAX_CLICKS - len(row["iou"])) for row in rows])
    reached = {t: whole >= t / 100 for t in THRESHOLDS if t / 100 <= stop}
    noc = {t: np.where(r.any(1), r.argmax(1) + 1, MAX_CLICKS) for t, r in reached.items()}
    return {
        "noc": {str(t): float(n.mean()) for t, n in noc.items()},
        "iou_at": {str(k + 1): float(v) for k, v in enumerate(whole.mean(0))},
        "never": {str(t): float(1 - r.any(1).mean()) for t, r in reached.items()},
        "seconds_per_click": float(np.median(np.concatenate([row["seconds"] for row in rows]))),
    }


def _calibration(rows: Sequence[Row]) -> dict[str, Any]:
    scored = {k: [(r["score"][k - 1], r["iou"][k - 1]) for r in rows if len(r["iou"]) >= k] for k in SCORED_ROUNDS}
    pairs = [pair for each in scored.values() for pair in each]
    return {
        **metrics.calibration([score for score, _ in pairs], [iou for _, iou in pairs]),
        "at": {str(k): metrics.mean(abs(score - iou) for score, iou in each) for k, each in scored.items()},
    }
