"""Prompts that a person might give for a mask: functions of (mask, generator), in numpy alone (SPEC sections 8 and 10).

Masks are (h, w) bool at the encoded size; coordinates are continuous pixels of it. The strokes that the official model
was trained with are in `strokes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from seem.geometry import box_of, clip_polygon
from seem.model.prompting import VisualPrompt


@dataclass(frozen=True)
class Mistakes:
    """How often a person slips: probabilities, of which those of one prompt add up to at most 1. By default never.

    Attributes:
        off_centre_click: in the object, but far from its middle.
        border_click: on the object's outermost pixels.
        beside_click: outside, by about 4 % of the square root of its area.
        loose_box: every side 10 to 40 % of the box too far out.
        tight_box: every side 5 to 20 % too far in.
        shifted_box: moved by up to 20 %.
        stray_scribble: leaves the object, by about 10 % of the square root of its area.

    Raises:
        ValueError: a probability, or a sum of them, outside 0..1.
    """

    off_centre_click: float = 0.0
    border_click: float = 0.0
    beside_click: float = 0.0
    loose_box: float = 0.0
    tight_box: float = 0.0
    shifted_box: float = 0.0
    stray_scribble: float = 0.0

    def __post_init__(self) -> None:
        for kind in ("click", "box", "scribble"):
            chances = {f.name: getattr(self, f.name) for f in fields(self) if f.name.endswith(kind)}
            if min(chances.values()) < 0 or sum(chances.values()) > 1:
                raise ValueError(f"mistakes with a {kind} are {chances}; expected probabilities that add up to <= 1")

    def draw(self, kind: str, rng: np.random.Generator) -> str:
        """Which slip a prompt of this kind has: "off_centre", "loose", …, or "" for none."""
        at = rng.random()
        for field in fields(self):
            if field.name.endswith(f"_{kind}"):
                at -= getattr(self, field.name)
                if at < 0:
                    return field.name.removesuffix(f"_{kind}")
        return ""


NO_MISTAKES = Mistakes()


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


# ---- positive first prompts ---------------------------------------------------------------------------------------


def click(mask: np.ndarray, rng: np.random.Generator, slip: str = "", positive: bool = True) -> VisualPrompt:
    """A first click; of a mask too thin for a whole cell, a random pixel of it.

    ``slip``: "off_centre", "border" or "beside", see `Mistakes`.
    """
    pixel = {"off_centre": _off_centre, "border": _on_border, "beside": _beside}.get(slip, _well_inside)(mask, rng)
    return VisualPrompt("click", positive, (np.floor(pixel)[None] + 0.5).astype(np.float32))


def _well_inside(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    point = pick_point(shrink(mask) > 0.6, rng)
    if point is None or not is_inside(mask, point):  # a cell at the border may reach beyond the image
        return _any_pixel(mask, rng)
    return point


def _any_pixel(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flat = np.flatnonzero(mask)
    y, x = divmod(int(flat[rng.integers(len(flat))]), mask.shape[1])
    return np.array([x, y])


def _off_centre(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pixel less than half as deep as the deepest."""
    depth = np.kron(distance_transform(shrink(mask) > 0.5), np.ones((4, 4)))[: mask.shape[0], : mask.shape[1]]
    shallow = mask & (depth < 0.5 * depth.max())
    return _any_pixel(shallow if shallow.any() else mask, rng)


def _on_border(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    padded = np.pad(mask, 1)
    interior = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return _any_pixel(mask & ~interior, rng)


def _beside(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pixel outside, near one on the border; that one itself where the object fills the image around it."""
    border = _on_border(mask, rng)
    sigma = max(1.0, 0.04 * float(np.sqrt(mask.sum())))
    for _ in range(30):
        pixel = border + np.rint(rng.normal(0, sigma, 2))
        if (pixel >= 0).all() and (pixel < mask.shape[::-1]).all() and not is_inside(mask, pixel):
            return pixel
    return border


def box(mask: np.ndarray, rng: np.random.Generator, slip: str = "") -> VisualPrompt:
    """The bounding box, each side a few per cent off. ``slip``: "loose", "tight" or "shifted", see `Mistakes`."""
    own = box_of(mask)
    assert own is not None, "an object has at least one pixel"
    noise = np.clip(rng.normal(0, 0.05, 4), -0.15, 0.15)
    outwards = np.array([-1, -1, 1, 1])
    if slip == "loose":
        noise = outwards * rng.uniform(0.1, 0.4, 4)
    elif slip == "tight":
        noise = -outwards * rng.uniform(0.05, 0.2, 4)
    elif slip == "shifted":
        noise = np.tile(rng.uniform(0.05, 0.2, 2) * rng.choice([-1, 1], 2), 2)
    x0, y0, x1, y1 = own
    h, w = mask.shape
    sides = np.clip(np.array(own) + noise * np.tile([x1 - x0, y1 - y0], 2), 0, [w, h, w, h])
    if (sides[2:] - sides[:2] < 1).any():
        sides = np.array(own, float)
    return VisualPrompt("box", True, sides.reshape(2, 2).astype(np.float32))


def scribble(mask: np.ndarray, rng: np.random.Generator, slip: str = "", positive: bool = True) -> VisualPrompt:
    """A stroke along the object or a smooth random walk in it, all of it inside; with the slip "stray", near it."""
    if slip == "stray":
        points = _walk(mask, _grown(mask, max(2.0, 0.1 * float(np.sqrt(mask.sum())))), rng)
    else:
        points = _along(mask, rng) if rng.random() < 0.5 else _walk(mask, mask, rng)
        if len(points) == 1:
            points = _walk(mask, mask, rng)
    if len(points) == 1:
        points = np.concatenate([points, points + 0.25])
    return VisualPrompt("scribble", positive, points.astype(np.float32), width=float(rng.uniform(2, 9)))


def _along(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 2): a pixel near the middle of each of a few slices across the long axis, until the line would leave."""
    ys, xs = np.nonzero(mask)
    points = np.stack([xs, ys], 1) + 0.5
    axes = np.linalg.svd(np.cov(points.T) if len(points) > 1 else np.eye(2))[0]
    along, across = ((points - points.mean(0)) @ axes).T
    lower, upper = np.quantile(along, [rng.uniform(0.02, 0.3), rng.uniform(0.7, 0.98)])
    edges = np.linspace(lower, upper, int(rng.integers(3, 9)))
    line: list[np.ndarray] = []
    for a, b in pairwise(edges):
        members = np.flatnonzero((along >= a) & (along < b))
        if len(members):
            order = members[np.argsort(across[members])]
            following = points[order[int(rng.uniform(0.3, 0.7) * len(order))]]
            if line and not _stays_inside(mask, line[-1], following):
                break
            line.append(following)
    return np.stack(line) if line else points[:1]


def _walk(mask: np.ndarray, allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 2): from a random pixel of the mask, turning a little at each step and more at the border of ``allowed``."""
    at = _any_pixel(mask, rng) + 0.5
    step = float(np.sqrt(mask.sum())) * rng.uniform(0.05, 0.2)
    angle, points = rng.uniform(0, 2 * np.pi), [at]
    for _ in range(int(rng.integers(4, 14))):
        angle += rng.normal(0, 0.5)
        for _ in range(6):
            following = at + step * np.array([np.cos(angle), np.sin(angle)])
            if _stays_inside(allowed, at, following):
                break
            angle += rng.uniform(0.5, 2.0)
        else:
            break
        at = following
        points.append(at)
    return np.stack(points)


def _stays_inside(mask: np.ndarray, start: np.ndarray, end: np.ndarray) -> bool:
    """Whether a straight line between two points does, looked at eight times a pixel."""
    steps = np.linspace(0, 1, 2 + int(8 * np.abs(end - start).max()))[:, None]
    x, y = np.floor(start + steps * (end - start)).astype(int).T
    h, w = mask.shape
    return bool(((x >= 0) & (y >= 0) & (x < w) & (y < h)).all() and mask[y, x].all())


def _grown(mask: np.ndarray, radius: float) -> np.ndarray:
    """The mask and what is at most about ``radius`` from it."""
    factor = max(1, int(radius / 2))
    coarse = np.pad(shrink(mask, factor) > 0, 3)
    near = distance_transform(~coarse) <= radius / factor
    return np.kron(near[3:-3, 3:-3], np.ones((factor, factor), bool))[: mask.shape[0], : mask.shape[1]]


def circle(mask: np.ndarray, rng: np.random.Generator) -> VisualPrompt:
    """An uneven ring, as a polygon: within the object around an inner point, or about as large as the object."""
    ys, xs = np.nonzero(mask)
    if rng.random() < 0.5:
        coarse = shrink(mask) > 0.6
        centre = click(mask, rng).points[0].astype(float)
        depth = 4 * distance_transform(coarse)[tuple((centre[::-1] // 4).astype(int))]
        axes = max(0.8 * float(depth), 0.08 * float(np.sqrt(len(xs))), 1.0) * np.eye(2)
    else:
        centre = np.array([xs.mean(), ys.mean()]) + 0.5
        values, vectors = np.linalg.eigh(np.cov(np.stack([xs, ys])) if len(xs) > 1 else np.zeros((2, 2)))
        # an even ellipse has half axes of two standard deviations
        axes = vectors * np.maximum(2 * np.sqrt(np.maximum(values, 0)), 1.0) * rng.uniform(0.85, 1.15)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    uneven = 1 + 0.06 * np.cos(2 * angle + rng.uniform(0, 2 * np.pi)) + rng.normal(0, 0.02, 24)
    ring = centre + uneven[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) @ axes.T
    return VisualPrompt("polygon", True, clip_polygon(ring, mask.shape[::-1]).astype(np.float32))


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


# ---- negative first prompts ---------------------------------------------------------------------------------------


def surroundings(mask: np.ndarray) -> np.ndarray:
    """What is not the object, in its bounding box grown by half; all that is not it if that holds nothing."""
    own = box_of(mask)
    assert own is not None, "an object has at least one pixel"
    x0, y0, x1, y1 = own
    dx, dy = (x1 - x0 + 3) // 4, (y1 - y0 + 3) // 4
    near = np.zeros_like(mask)
    near[max(0, y0 - dy) : y1 + dy, max(0, x0 - dx) : x1 + dx] = True
    near &= ~mask
    return near if near.any() else ~mask


def first_negative(kind: str, mask: np.ndarray, rng: np.random.Generator) -> VisualPrompt | None:
    """A "click" or "scribble" that says "not this", near the object; None if the object fills the image.

    Raises ValueError for another kind or a mask without a pixel.
    """
    draw = {"click": click, "scribble": scribble}.get(kind)
    if draw is None:
        raise ValueError(f"negative prompt kind is {kind!r}; expected click or scribble")
    _check(mask)
    outside = surroundings(mask)
    return draw(outside, rng, positive=False) if outside.any() else None


# ---- both ---------------------------------------------------------------------------------------------------------

FIRST_PROMPTS: dict[str, Callable[[np.ndarray, np.random.Generator, Mistakes], VisualPrompt]] = {
    "click": lambda mask, rng, mistakes: click(mask, rng, mistakes.draw("click", rng)),
    "box": lambda mask, rng, mistakes: box(mask, rng, mistakes.draw("box", rng)),
    "scribble": lambda mask, rng, mistakes: scribble(mask, rng, mistakes.draw("scribble", rng)),
    "polygon": lambda mask, rng, _: polygon(mask, rng),
    "circle": lambda mask, rng, _: circle(mask, rng),
    "mask": lambda mask, rng, _: coarse_mask(mask, rng),
}


def first_prompt(
    kind: str, mask: np.ndarray, rng: np.random.Generator, mistakes: Mistakes = NO_MISTAKES
) -> VisualPrompt:
    """What a person gives first for an object.

    Raises ValueError for a kind that is not in `FIRST_PROMPTS` or a mask without a pixel.
    """
    if kind not in FIRST_PROMPTS:
        raise ValueError(f"prompt kind is {kind!r}; expected one of {', '.join(FIRST_PROMPTS)}")
    _check(mask)
    return FIRST_PROMPTS[kind](mask, rng, mistakes)


def _check(mask: np.ndarray) -> None:
    if not mask.any():
        raise ValueError("mask is empty; expected at least one pixel")


# ---- the next click -----------------------------------------------------------------------------------------------


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
