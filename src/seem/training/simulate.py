"""Prompts that a person might give for a mask: functions of (mask, generator), in numpy alone (SPEC sections 8 and 10).

Masks are (h, w) bool at the encoded size; coordinates are continuous pixels of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from seem.model.prompting import VisualPrompt


def distance_transform(mask: np.ndarray) -> np.ndarray:
    """Exact Euclidean distance of every True cell to the nearest False one, the border counting as outside.

    Separable: distances along columns, then the lower envelope along rows by brute force; O(h * w * w), meant for
    maps of about 128 x 128.
    """
    padded = np.pad(mask, 1)
    h, w = padded.shape
    far = float(h + w)
    column = np.where(padded, far, 0.0).astype(np.float32)
    for y in range(1, h):
        np.minimum(column[y], column[y - 1] + 1, out=column[y])
    for y in range(h - 2, -1, -1):
        np.minimum(column[y], column[y + 1] + 1, out=column[y])
    offset = (np.arange(w, dtype=np.float32)[:, None] - np.arange(w, dtype=np.float32)[None]) ** 2  # (w, w')
    squared = (column[:, None, :] ** 2 + offset[None]).min(-1)
    return np.sqrt(squared)[1:-1, 1:-1]


def shrink(mask: np.ndarray, factor: int = 4) -> np.ndarray:
    """(h, w) bool -> (ceil(h / 4), ceil(w / 4)) mean coverage in 0..1."""
    h, w = (-(-s // factor) * factor for s in mask.shape)
    padded = np.zeros((h, w), np.float32)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return padded.reshape(h // factor, factor, w // factor, factor).mean((1, 3))


def pick_point(region: np.ndarray, rng: np.random.Generator, centre: float = 0.5, cell: int = 4) -> np.ndarray | None:
    """A click inside a coarse region: its most inner point with probability ``centre``, else one drawn by depth."""
    if not region.any():
        return None
    depth = distance_transform(region)
    if rng.random() < centre:
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    else:
        weight = depth.ravel() ** rng.choice([0.5, 1.0, 2.0])
        y, x = np.unravel_index(int(rng.choice(weight.size, p=weight / weight.sum())), depth.shape)
    jitter = rng.uniform(0.0, 1.0, 2) if cell > 1 else np.array([0.5, 0.5])
    return (np.array([x, y]) + jitter).astype(np.float32) * cell


def is_inside(mask: np.ndarray, point: np.ndarray) -> bool:
    """Whether the pixel that holds a continuous xy is in the mask; never so outside the image."""
    x, y = (int(v) for v in np.floor(point))
    return 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0] and bool(mask[y, x])


def click(mask: np.ndarray, rng: np.random.Generator, centre: float = 0.5, positive: bool = True) -> VisualPrompt:
    """A first click; of a mask too thin for a whole cell, a random pixel of it."""
    point = pick_point(shrink(mask) > 0.6, rng, centre)
    if point is None or not is_inside(mask, point):  # a cell at the border may reach beyond the image
        ys, xs = np.nonzero(mask)
        i = int(rng.integers(len(xs)))
        point = np.array([xs[i], ys[i]], np.float32) + 0.5
    return VisualPrompt("click", positive, point[None].astype(np.float32))


def next_click(
    target: np.ndarray, predicted: np.ndarray, rng: np.random.Generator, centre: float = 0.5
) -> VisualPrompt | None:
    """The robot's answer on stride-4 maps: into the missed or the wrongly taken region, whichever is deeper somewhere.

    None where the two masks agree.
    """
    missed, wrong = target & ~predicted, predicted & ~target
    depth_missed = distance_transform(missed).max() if missed.any() else 0.0
    depth_wrong = distance_transform(wrong).max() if wrong.any() else 0.0
    if max(depth_missed, depth_wrong) == 0:
        return None
    positive = bool(depth_missed >= depth_wrong)
    point = pick_point(missed if positive else wrong, rng, centre)
    assert point is not None
    return VisualPrompt("click", positive, point[None])


def box(mask: np.ndarray, rng: np.random.Generator, jitter: float = 0.05) -> VisualPrompt:
    """The bounding box, each side moved by a Gaussian of ``jitter`` of its length."""
    ys, xs = np.nonzero(mask)
    x0, x1, y0, y1 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
    noise = np.clip(rng.normal(0, jitter, 4), -0.15, 0.15) * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    h, w = mask.shape
    a = np.clip(np.array([x0, y0, x1, y1]) + noise, 0, [w, h, w, h])
    if a[2] - a[0] < 1 or a[3] - a[1] < 1:
        a = np.array([x0, y0, x1, y1])
    return VisualPrompt("box", True, a.reshape(2, 2).astype(np.float32))


def scribble(mask: np.ndarray, rng: np.random.Generator, positive: bool = True) -> VisualPrompt:
    """A smooth random walk that stays inside the mask."""
    ys, xs = np.nonzero(mask)
    i = int(rng.integers(len(xs)))
    at = np.array([xs[i], ys[i]], np.float32) + 0.5
    step = float(np.sqrt(len(xs))) * rng.uniform(0.05, 0.2)
    angle, points = rng.uniform(0, 2 * np.pi), [at]
    for _ in range(int(rng.integers(4, 14))):
        angle += rng.normal(0, 0.5)
        for _ in range(6):
            nxt = at + step * np.array([np.cos(angle), np.sin(angle)], np.float32)
            if is_inside(mask, nxt):
                break
            angle += rng.uniform(0.5, 2.0)
        else:
            break
        at = nxt.astype(np.float32)
        points.append(at)
    if len(points) == 1:
        points.append(points[0] + np.float32(0.25))
    return VisualPrompt("scribble", positive, np.stack(points).astype(np.float32), width=5.0)


def polygon(mask: np.ndarray, rng: np.random.Generator) -> VisualPrompt:
    """A rough outline: border cells at random angles around the centroid, moved a little."""
    ys, xs = np.nonzero(mask)
    centre = np.array([xs.mean(), ys.mean()])
    angle = np.arctan2(ys - centre[1], xs - centre[0])
    radius = np.hypot(ys - centre[1], xs - centre[0])
    n = int(rng.integers(6, 20))
    bins = np.floor((angle + np.pi) / (2 * np.pi) * n).astype(int).clip(0, n - 1)
    points = []
    for b in range(n):
        members = np.flatnonzero(bins == b)
        if len(members):
            j = members[radius[members].argmax()]
            points.append(centre + (np.array([xs[j], ys[j]]) - centre) * rng.normal(1.0, 0.06) + 0.5)
    if len(points) < 3:
        x0, x1, y0, y1 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
        points = [np.array(p, float) for p in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    h, w = mask.shape
    return VisualPrompt("polygon", True, np.clip(np.stack(points), 0, [w, h]).astype(np.float32))


def coarse_mask(mask: np.ndarray, rng: np.random.Generator) -> VisualPrompt:
    """The mask seen through a coarse grid: what a rough brush or another model gives."""
    factor = int(rng.choice([4, 8, 16]))
    small = shrink(mask, factor) > rng.uniform(0.25, 0.75)
    big = np.kron(small, np.ones((factor, factor), bool))[: mask.shape[0], : mask.shape[1]]
    return VisualPrompt("mask", True, np.zeros((0, 2), np.float32), mask=big if big.any() else mask)


FIRST_PROMPTS: dict[str, Callable[[np.ndarray, np.random.Generator], VisualPrompt]] = {
    "click": click,
    "box": box,
    "scribble": scribble,
    "polygon": polygon,
    "mask": coarse_mask,
}


def first_prompt(kind: str, mask: np.ndarray, rng: np.random.Generator) -> VisualPrompt:
    """Raises ValueError for a kind that is not in `FIRST_PROMPTS` or a mask without a pixel."""
    if kind not in FIRST_PROMPTS:
        raise ValueError(f"prompt kind is {kind!r}; expected one of {', '.join(FIRST_PROMPTS)}")
    if not mask.any():
        raise ValueError("mask is empty; expected at least one pixel")
    return FIRST_PROMPTS[kind](mask, rng)
