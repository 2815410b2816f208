"""The strokes that the official model was trained with (SPEC section 8, "Training stroke simulation").

Lengths and speeds are pixels of the padded input, which was about 1024 pixels wide. Where the specification leaves a
draw open, the choice made here is named at its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from seem.geometry import box_of

KINDS = ("point", "scribble", "circle", "polygon")
LEAST_PIXELS = 10  # of an object; a smaller one gets an empty prompt
MOST_POINTS, MOST_STROKES, MOST_CORNERS = 20, 5, 9
SAMPLES = 100  # of a polygon's curve, per segment
CURVE_RADIUS, CURVE_EDGE = 0.2, 0.05


@dataclass(frozen=True)
class Walk:
    """One preset of the random walk: (least, most) or most, in pixels, pixels per step and radians per step."""

    vertices: tuple[int, int]
    speed: float
    acceleration: float
    turn: float
    brush: tuple[float, float]
    first_speed: float
    jitter: float


SCRIBBLES = (
    Walk((10, 30), 20, 15, 0.5, (3, 10), 6, 3),
    Walk((6, 22), 12, 8, 0.5, (2.5, 5), 3, 1.5),
)
# The first speed of these is not specified: up to the top speed.
CIRCLES = (
    Walk((5, 30), 15, 10, 1.5, (20, 50), 15, 10),
    Walk((5, 15), 8, 4, 1.5, (20, 50), 8, 5),
    Walk((5, 20), 7, 3.5, 1.5, (10, 30), 7, 5),
)


def official_stroke(mask: np.ndarray, rng: np.random.Generator, kinds: Sequence[str] = KINDS) -> np.ndarray:
    """The positive prompt mask of one object: (h, w) bool -> (h, w) bool.

    Args:
        mask: the object; with fewer than `LEAST_PIXELS` pixels the prompt is empty.
        kinds: one of these is drawn, each as likely: "point" single pixels, "scribble" thin and "circle" thick random
            walks inside the object, "polygon" a smooth closed curve through pixels of it, which may leave it.

    Raises:
        ValueError: no kind, or an unknown one.
    """
    unknown = [k for k in kinds if k not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"kinds: expected some of {', '.join(KINDS)}, got {', '.join(unknown) or 'none'}")
    if np.count_nonzero(mask) < LEAST_PIXELS:
        return np.zeros_like(mask)
    kind = kinds[int(rng.integers(len(kinds)))]
    if kind == "point":
        return _points(mask, rng)
    if kind == "polygon":
        return _polygon(mask, rng)
    return _strokes(mask, rng, SCRIBBLES if kind == "scribble" else CIRCLES)


def _pixels(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 2) xy of at most ``count`` different pixels."""
    inside = np.flatnonzero(mask)
    flat = rng.choice(inside, min(count, len(inside)), replace=False)
    return np.stack([flat % mask.shape[1], flat // mask.shape[1]], 1)


def _points(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    prompt = np.zeros_like(mask)
    x, y = _pixels(mask, int(rng.integers(1, MOST_POINTS + 1)), rng).T
    prompt[y, x] = True
    return prompt


def _strokes(mask: np.ndarray, rng: np.random.Generator, presets: Sequence[Walk]) -> np.ndarray:
    """Their union inside the object; the pixels they start at if they drifted out of a thin one altogether."""
    canvas = Image.new("1", mask.shape[::-1])
    draw = ImageDraw.Draw(canvas)
    starts = _pixels(mask, int(rng.integers(1, MOST_STROKES + 1)), rng)
    for start in starts:
        preset = presets[int(rng.integers(len(presets)))]
        width = float(rng.uniform(*preset.brush))
        line = [(float(x), float(y)) for x, y in walk(start, preset, rng)]
        draw.line(line, fill=1, width=max(1, round(width)), joint="curve")
        for x, y in line:  # Pillow rounds the joints, not the ends
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=1)
    prompt: np.ndarray = np.array(canvas, bool) & mask
    if not prompt.any():
        prompt[starts[:, 1], starts[:, 0]] = True
    return prompt


def walk(start: np.ndarray, preset: Walk, rng: np.random.Generator) -> np.ndarray:
    """(n, 2) vertices of a head that speeds up, slows down and turns.

    The whole line is then moved by one velocity, and half of its vertices by the preset's jitter.
    """
    n = int(rng.integers(preset.vertices[0], preset.vertices[1] + 1))
    speed, angle = rng.uniform(0, preset.first_speed), rng.uniform(0, 2 * np.pi)
    steps = np.zeros((n, 2))
    for i in range(1, n):
        steps[i] = speed * np.array([np.cos(angle), np.sin(angle)])
        speed = float(np.clip(speed + rng.uniform(-preset.acceleration, preset.acceleration), 0, preset.speed))
        angle += rng.uniform(-preset.turn, preset.turn)
    shift, direction = rng.uniform(0, preset.first_speed), rng.uniform(0, 2 * np.pi)
    line = start + np.cumsum(steps, 0) + shift * np.array([np.cos(direction), np.sin(direction)])
    moved = rng.choice(n, n // 2, replace=False)
    line[moved] += rng.uniform(-preset.jitter, preset.jitter, (len(moved), 2))
    return line


def _polygon(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The pixels under the curve, not its inside, cut at the object's box."""
    box = box_of(mask)
    assert box is not None, "an object has at least 10 pixels"
    x0, y0, x1, y1 = box
    corner, size = np.array([x0, y0]), np.array([x1 - x0, y1 - y0])
    corners = (_pixels(mask, int(rng.integers(1, MOST_CORNERS + 1)), rng) - corner) / size
    at = corner + np.floor(closed_curve(corners) * size + 1e-9).astype(int)
    x, y = at[((at >= corner) & (at < corner + size)).all(1)].T
    prompt = np.zeros_like(mask)
    prompt[y, x] = True
    return prompt


def closed_curve(corners: np.ndarray) -> np.ndarray:
    """(n, 2) points -> (n * SAMPLES, 2): cubic Bézier segments through all of them, in the order of their angle.

    At each corner the tangent lies between the incoming and the outgoing edge, nearly half way (`CURVE_EDGE`), and
    its handles are `CURVE_RADIUS` of each edge long. One corner is a point.
    """
    centred = corners - corners.mean(0)
    ring = corners[np.argsort(np.arctan2(centred[:, 1], centred[:, 0]), kind="stable")]
    following = np.roll(ring, -1, axis=0)
    edges = following - ring
    length = np.linalg.norm(edges, axis=1, keepdims=True)
    out = edges / np.maximum(length, 1e-9)
    weight = np.arctan(CURVE_EDGE) / np.pi + 0.5
    tangent = weight * out + (1 - weight) * np.roll(out, 1, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    leave = ring + CURVE_RADIUS * length * tangent
    arrive = following - CURVE_RADIUS * length * np.roll(tangent, -1, axis=0)
    t = np.linspace(0, 1, SAMPLES)[None, :, None]
    parts = (ring, 3 * leave, 3 * arrive, following)
    curve: np.ndarray = sum(p[:, None] * t**k * (1 - t) ** (3 - k) for k, p in enumerate(parts))
    return curve.reshape(-1, 2)
