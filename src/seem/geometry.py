"""Pixels: from the photo to the network and back, and masks as run lengths, polygons and boxes.

Continuous coordinates are (x, y); pixel (i, j) covers [i, i+1) x [j, j+1) and its centre is (i + 0.5, j + 0.5).
Everything here is a plain function of arrays; no per-pixel Python loops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from torch import Tensor

    from seem.model.config import ImageConfig

MASK_STRIDE = 4  # encoded pixels per mask logit
MAX_ASPECT = 16  # of the encoded image where the config caps only one side
MAX_MASK_PIXELS = 100_000_000  # of a mask decoded from run lengths

_CHUNK = 1 << 21  # crossings handled at once by `rasterise_polygon`


# ---- photo and network --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageGeometry:
    """One photo's sizes on its way through the network, all (width, height).

    Attributes:
        original: the photo after its EXIF rotation.
        encoded: after resizing.
        padded: after zero-padding right and bottom; what the image encoder sees.
    """

    original: tuple[int, int]
    encoded: tuple[int, int]
    padded: tuple[int, int]

    @classmethod
    def of(cls, original: tuple[int, int], config: ImageConfig) -> ImageGeometry:
        """The sizes that a photo gets under a network's image config."""
        encoded = encoded_size(original, config)
        return cls(original, encoded, padded_size(encoded, config))

    @property
    def scale(self) -> np.ndarray:
        """(2,) encoded pixels per original pixel, x and y (they differ by rounding)."""
        ratio: np.ndarray = np.divide(self.encoded, self.original)
        return ratio

    @property
    def mask_size(self) -> tuple[int, int]:
        """(height, width) of mask logits: the encoded, unpadded image at stride 4, rounded up."""
        return -(-self.encoded[1] // MASK_STRIDE), -(-self.encoded[0] // MASK_STRIDE)

    def to_encoded(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) continuous xy of the original -> (n, 2) float32 xy of the encoded image."""
        encoded: np.ndarray = (points * self.scale).astype(np.float32)
        return encoded

    def mask_to_encoded(self, mask: np.ndarray) -> np.ndarray:
        """(H, W) bool -> (h, w) bool: pixels covered by half or more; all touched ones if none is, so never empty."""
        return _shrink_mask(mask, self.encoded)

    def upsample(self, logits: Tensor) -> Tensor:
        """Mask logits (..., h/4, w/4) -> (..., H, W) of the original, bilinear; > 0 is inside.

        One step, and sub-pixel exact: where the encoded size is no multiple of 4, the part of the last cell that
        lies beyond the image is left out, not squeezed in.
        """
        import torch.nn.functional as F

        width, height = self.original
        factors = [MASK_STRIDE / s for s in reversed(self.scale.tolist())]
        scale = tuple(
            _at_least(n, f, size) for n, f, size in zip(logits.shape[-2:], factors, (height, width), strict=True)
        )
        batch = logits.reshape(1, -1, *logits.shape[-2:]).float()
        large = F.interpolate(
            batch, scale_factor=scale, mode="bilinear", align_corners=False, recompute_scale_factor=False
        )
        return large[..., :height, :width].reshape(*logits.shape[:-2], height, width)


def _at_least(count: int, factor: float, size: int) -> float:
    """The factor, nudged if rounding would make `floor(count * factor)` one pixel short of `size`."""
    while math.floor(count * factor) < size:
        factor = math.nextafter(factor, math.inf)
    return factor


def encoded_size(size: tuple[int, int], config: ImageConfig) -> tuple[int, int]:
    """The size (width, height) that a photo of `size` is resized to.

    "long": the long side becomes `target`, the other is rounded (as SAM does). "short": the short side becomes
    `target`; without `max` the other is floored (as the official demo does), with `max` both are rounded and the
    whole shrinks until the long side fits (as the official evaluation does). No side is below 1; where nothing else
    caps the long side, 16 times the short one does.
    """
    width, height = size
    short, long = min(size), max(size)
    if config.resize == "long":
        factor = config.target / long
        return _round_half_up(width * factor), _round_half_up(height * factor)
    if config.resize != "short":
        raise ValueError(f'ImageConfig.resize: expected "long" or "short", got {config.resize!r}')
    if config.max is None:
        other = min(config.target * long // short, config.target * MAX_ASPECT)
        return (config.target, other) if width <= height else (other, config.target)
    factor = config.target / short
    if max(short, long) * factor > config.max:
        factor = config.max / long
    return _round_half_up(width * factor), _round_half_up(height * factor)


def _round_half_up(value: float) -> int:
    return max(1, math.floor(value + 0.5))


def padded_size(encoded: tuple[int, int], config: ImageConfig) -> tuple[int, int]:
    """The size (width, height) after padding right and bottom to `pad_to`, or to multiples of `pad_multiple`."""
    if config.pad_to is not None:
        if max(encoded) > config.pad_to:
            raise ValueError(f"ImageConfig.pad_to: expected at least {max(encoded)}, got {config.pad_to}")
        return config.pad_to, config.pad_to
    width, height = (-(-s // config.pad_multiple) * config.pad_multiple for s in encoded)
    return width, height


def resize_image(pixels: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3) uint8 by Pillow's antialiased bilinear or bicubic filter."""
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f'ImageConfig.interpolation: expected "bilinear" or "bicubic", got {interpolation!r}')
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    return np.asarray(Image.fromarray(pixels).resize(size, filters[interpolation]))


def _shrink_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    cover = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX))
    inside = cover >= 128
    if inside.any() or not mask.any():
        return inside
    ys, xs = np.nonzero(mask)
    inside[ys * size[1] // mask.shape[0], xs * size[0] // mask.shape[1]] = True
    return inside


# ---- boxes --------------------------------------------------------------------------------------------------------


def box_of(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The half-open box (x0, y0, x1, y1) of a (H, W) bool mask; None if it is empty.

    >>> box_of(np.array([[0, 0, 0], [0, 1, 1]], bool))
    (1, 1, 3, 2)
    """
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool masks; 1 if both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


# ---- run lengths --------------------------------------------------------------------------------------------------


def rle_encode(mask: np.ndarray, compressed: bool = True) -> dict[str, Any]:
    """COCO run lengths of a (H, W) bool mask, column by column, the first run being outside.

    Args:
        mask: (H, W) bool.
        compressed: counts as COCO's string (what `pycocotools` writes, decoded to str) or as a list.

    Returns:
        {"size": [H, W], "counts": str | list}.

    >>> rle_encode(np.array([[0, 1], [1, 1]], bool), compressed=False)
    {'size': [2, 2], 'counts': [1, 3]}
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(starts)
    if flat.size and flat[0]:
        counts = np.concatenate([[0], counts])
    size = [int(s) for s in mask.shape]
    return {"size": size, "counts": _pack_counts(counts) if compressed else counts.tolist()}


def rle_decode(rle: object, max_pixels: int = MAX_MASK_PIXELS) -> np.ndarray:
    """The (H, W) bool mask of COCO run lengths, compressed or not.

    Raises:
        TypeError, ValueError: not {"size": [H, W], "counts": …}, more pixels than `max_pixels`, or counts that do not
            add up to H * W.
    """
    if not isinstance(rle, Mapping) or set(rle) != {"size", "counts"}:
        raise TypeError(f'rle: expected {{"size": [H, W], "counts": …}}, got {str(rle)[:60]}')
    size, counts = rle["size"], rle["counts"]
    whole = isinstance(size, (list, tuple)) and len(size) == 2 and all(type(s) is int and s > 0 for s in size)
    if not whole:
        raise ValueError(f"rle.size: expected [height, width], got {str(size)[:60]}")
    height, width = size
    if height * width > max_pixels:
        raise ValueError(f"rle.size: expected at most {max_pixels} pixels, got {height * width}")
    runs = _run_lengths(counts, height * width)
    ends = np.cumsum(runs)
    if (runs < 0).any() or (ends > height * width).any() or not len(ends) or ends[-1] != height * width:
        total = int(runs.sum())
        raise ValueError(f"rle.counts: expected counts from 0 that add up to {height * width}, got a sum of {total}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def _run_lengths(counts: object, pixels: int) -> np.ndarray:
    limit = 2 * pixels + 2  # every second run may be empty, no more
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    if isinstance(counts, str):
        if len(counts) > 7 * limit:
            raise ValueError(f"rle.counts: expected at most {limit} runs, got {len(counts)} characters")
        return _unpack_counts(counts)
    if isinstance(counts, np.ndarray):
        counts = counts.tolist()
    if not isinstance(counts, (list, tuple)):
        raise TypeError(f"rle.counts: expected a string or a list, got {str(counts)[:60]}")
    if len(counts) > limit:
        raise ValueError(f"rle.counts: expected at most {limit} runs, got {len(counts)}")
    if not all(type(c) is int and 0 <= c <= pixels for c in counts):
        raise ValueError(f"rle.counts: expected whole numbers from 0 to {pixels}, got {str(counts)[:60]}")
    return np.array(counts, np.int64)


_GROUPS = 7  # 5-bit groups of one count: 2**34 pixels


def _pack_counts(counts: np.ndarray) -> str:
    """COCO's string: counts from the fourth on as differences to the one two before, in 5-bit groups of ASCII."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    groups = (values[:, None] >> (5 * np.arange(_GROUPS))) & 31  # (n, 7)
    limits = 1 << (5 * np.arange(1, _GROUPS + 1) - 1)  # a value in -limit .. limit - 1 needs that many groups
    fits = (values[:, None] < limits) & (values[:, None] >= -limits)
    used = np.arange(_GROUPS) <= fits.argmax(1)[:, None]
    more = np.arange(_GROUPS) < fits.argmax(1)[:, None]
    return str((groups + 32 * more + 48)[used].astype(np.uint8).tobytes(), "ascii")


def _unpack_counts(text: str) -> np.ndarray:
    error = ValueError(f"rle.counts: expected COCO's compressed counts, got {text[:40]!r}")
    try:
        codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise error from None
    if not len(codes) or (codes < 0).any() or (codes > 63).any() or codes[-1] & 32:
        raise error
    last = (codes & 32) == 0
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    length = ends - starts + 1
    if (length > _GROUPS).any():
        raise error
    place = np.arange(len(codes)) - np.repeat(starts, length)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, 1 << (5 * length), 0)
    values[2::2] = np.cumsum(values[2::2])
    values[1::2] = np.cumsum(values[1::2])
    return values


# ---- lines and polygons -------------------------------------------------------------------------------------------


def spans_area(points: np.ndarray) -> bool:
    """Whether (n, 2) vertices do not all lie on one line."""
    if len(points) < 3:
        return False
    offset = points / max(1.0, float(np.abs(points).max()))
    offset = offset - offset[0]
    far = offset[(offset**2).sum(1).argmax()]
    cross = np.abs(offset[:, 0] * far[1] - offset[:, 1] * far[0])
    return bool(cross.max() > 1e-12 * (far**2).sum())


def clip_polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The part of a polygon inside [0, width] x [0, height], (m, 2); m = 0 if there is none (Sutherland-Hodgman)."""
    ring = np.clip(np.asarray(points, np.float64), -1e9, 1e9)
    for axis, bound, keep in ((0, 0.0, 1), (0, float(size[0]), -1), (1, 0.0, 1), (1, float(size[1]), -1)):
        if not len(ring):
            break
        following = np.roll(ring, -1, axis=0)
        inside = (ring[:, axis] - bound) * keep >= 0
        crosses = inside != np.roll(inside, -1)
        step = np.where(crosses, following[:, axis] - ring[:, axis], 1.0)
        at = ring + ((bound - ring[:, axis]) / step)[:, None] * (following - ring)
        at[:, axis] = bound
        ring = np.stack([ring, at], 1)[np.stack([inside, crosses], 1)]
    return ring


def clip_polyline(points: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """The pieces of a line inside [0, width] x [0, height], each (k, 2), k >= 1 (Liang-Barsky)."""
    line = np.clip(np.asarray(points, np.float64), -1e9, 1e9)
    upper = np.array(size, np.float64)
    inside: np.ndarray = np.asarray(((line >= 0) & (line <= upper)).all(1))
    if inside.all():
        return [line]
    if len(line) == 1:
        return []
    start, step = line[:-1], np.diff(line, axis=0)
    moving = step != 0
    safe = np.where(moving, step, 1.0)
    with np.errstate(over="ignore"):  # a step near zero: infinity is right
        t = np.sort(np.stack([(0.0 - start) / safe, (upper - start) / safe]), axis=0)  # enter, leave; (2, n - 1, 2)
    within = (start >= 0) & (start <= upper)
    enter = np.where(moving, t[0], np.where(within, -np.inf, np.inf)).max(1).clip(min=0.0)
    leave = np.where(moving, t[1], np.where(within, np.inf, -np.inf)).min(1).clip(max=1.0)
    enter, leave = np.where(inside[:-1], 0.0, enter), np.where(inside[1:], 1.0, leave)
    reached = enter < leave
    enter, leave = np.where(reached, enter, 0.0), np.where(reached, leave, 0.0)
    first = (start + enter[:, None] * step).clip(0.0, upper)
    last = np.where(inside[1:, None], line[1:], (start + leave[:, None] * step).clip(0.0, upper))
    kept = np.flatnonzero(reached & ((first != last).any(1) | ~moving.any(1)))
    pieces = []
    for run in np.split(kept, np.flatnonzero((np.diff(kept) > 1) | ~inside[kept[1:]]) + 1) if len(kept) else []:
        pieces.append(np.concatenate([first[run[:1]], last[run]]))
    return pieces


def rasterise_polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool: pixels whose centre is inside the polygon, even-odd. `size` is (width, height)."""
    width, height = size
    ring = np.asarray(points, np.float64)
    following = np.roll(ring, -1, axis=0)
    low, high = np.minimum(ring[:, 1], following[:, 1]), np.maximum(ring[:, 1], following[:, 1])
    first = np.ceil(low - 0.5).clip(0, height).astype(np.int64)  # rows y with low <= y + 0.5 < high
    rows = np.ceil(high - 0.5).clip(0, height).astype(np.int64) - first
    toggles = np.zeros((height, width + 1), bool)
    chunks = np.split(np.arange(len(ring)), np.flatnonzero(np.diff(np.cumsum(rows) // _CHUNK)) + 1)
    for part in chunks:
        edge = np.repeat(part, rows[part])
        offset = np.arange(len(edge)) - np.repeat(np.cumsum(rows[part]) - rows[part], rows[part])
        y = first[edge] + offset
        run = following[edge] - ring[edge]
        x = ring[edge, 0] + (y + 0.5 - ring[edge, 1]) * run[:, 0] / run[:, 1]
        column = np.ceil(x - 0.5).clip(0, width).astype(np.int64)
        cell, count = np.unique(y * (width + 1) + column, return_counts=True)
        toggles.ravel()[cell[count % 2 == 1]] ^= True
    return np.logical_xor.accumulate(toggles, axis=1)[:, :width]


def rasterise_scribble(points: np.ndarray, width: float, size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool: a round brush of `width` pixels drawn along a line, never empty for a line inside."""
    canvas = Image.new("1", size)
    draw = ImageDraw.Draw(canvas)
    brush = min(max(width, 1.0), 2.0 * max(size))
    xy = [(float(x) - 0.5, float(y) - 0.5) for x, y in points]  # Pillow counts from pixel centres
    if len(xy) > 1:
        draw.line(xy, fill=1, width=max(1, round(brush)), joint="curve")
    for x, y in (xy[0], xy[-1]):
        if brush > 1.5:
            radius = brush / 2 - 0.5
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    mask = np.array(canvas, bool)
    cells = np.asarray(points, np.float64).astype(np.int64).clip(0, np.array(size) - 1)
    mask[cells[:, 1], cells[:, 0]] = True
    return mask


# ---- mask to polygons ---------------------------------------------------------------------------------------------


def mask_to_polygons(mask: np.ndarray, tolerance: float = 1.0) -> list[np.ndarray]:
    """The outlines of a (H, W) bool mask as closed polygons in continuous pixel coordinates.

    One polygon per 4-connected region, (n, 2) float32 xy, clockwise on the screen, the first vertex not repeated.
    A hole is joined to its outline by a slit of no width, so that polygons say where holes are, as COCO's format
    otherwise cannot: filling them (even-odd or non-zero) leaves the hole free.

    Args:
        mask: (H, W) bool.
        tolerance: how far (pixels) a vertex that is left out may lie from the outline; 0 keeps every corner, and
            `rasterise_polygon` of the result then gives back the mask exactly. A region that would vanish is kept
            exactly.
    """
    rings = _Rings.of(np.asarray(mask, bool))
    return rings.polygons(tolerance)


@dataclass(frozen=True)
class _Rings:
    """Exact boundaries along pixel edges, the inside on the right hand, as runs between corners."""

    points: list[np.ndarray]  # per ring (n, 2) int64 corners
    area: list[int]  # > 0 an outline, < 0 a hole

    @classmethod
    def of(cls, mask: np.ndarray) -> _Rings:
        xy, following = _corner_links(mask)
        order = _cycles(following)
        points = [xy[cycle] for cycle in order]
        return cls(points, [_twice_area(ring) for ring in points])

    def polygons(self, tolerance: float) -> list[np.ndarray]:
        """Outlines with their holes spliced in."""
        outlines = [i for i, area in enumerate(self.area) if area > 0]
        holes = [i for i, area in enumerate(self.area) if area < 0]
        first = {i: int(np.lexsort((self.points[i][:, 1], self.points[i][:, 0]))[0]) for i in holes}  # leftmost corner
        bridges: dict[int, list[tuple[int, int, int]]] = {}
        for hole, (ring, run, y) in self._bridges(first).items():
            bridges.setdefault(ring, []).append((run, y, hole))
        done: dict[int, list[tuple[float, float]]] = {}
        holes.sort(key=lambda i: -self.points[i][first[i], 0])  # a bridge leads left: children before parents
        for i in [*holes, *outlines]:
            corners, children = _anchor(self.points[i], bridges.get(i, []))
            begin = int(np.lexsort((corners[:, 1], corners[:, 0]))[0])  # of a hole: where its bridge ends
            kept = _simplify(corners, [begin, *children], tolerance)
            vertices = corners.tolist()
            out: list[tuple[float, float]] = []
            for position in np.roll(kept, -int(np.searchsorted(kept, begin))).tolist():
                here = (vertices[position][0], vertices[position][1])
                out.append(here)
                for child in children.get(position, ()):
                    loop = done.pop(child)
                    out += [*loop, loop[0], here]
            done[i] = out
        return [np.array(done[i], np.float32) for i in outlines]

    def _bridges(self, first: dict[int, int]) -> dict[int, tuple[int, int, int]]:
        """hole -> (ring to the left of its first corner, that ring's straight run as its first corner's index, y)."""
        if not first:
            return {}
        ring, run, x, y = self._vertical_edges()
        stride = int(x.max()) + 2
        key = y * stride + x
        order = np.argsort(key)
        key = key[order]
        corners = np.array([self.points[hole][at] for hole, at in first.items()])
        left = order[np.searchsorted(key, corners[:, 1] * stride + corners[:, 0]) - 1]
        found = zip(ring[left].tolist(), run[left].tolist(), corners[:, 1].tolist(), strict=True)
        return dict(zip(first, found, strict=True))

    def _vertical_edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Every vertical pixel edge of every ring: ring number, index of its run's first corner, x, and its upper y."""
        a = np.concatenate(self.points)
        b = np.concatenate([np.roll(p, -1, axis=0) for p in self.points])
        ring = np.repeat(np.arange(len(self.points)), [len(p) for p in self.points])
        run = np.concatenate([np.arange(len(p)) for p in self.points])
        vertical = a[:, 0] == b[:, 0]
        a, b, ring, run = a[vertical], b[vertical], ring[vertical], run[vertical]
        low, length = np.minimum(a[:, 1], b[:, 1]), np.abs(a[:, 1] - b[:, 1])
        step = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        return (
            np.repeat(ring, length),
            np.repeat(run, length),
            np.repeat(a[:, 0], length),
            np.repeat(low, length) + step,
        )


def _anchor(ring: np.ndarray, bridges: list[tuple[int, int, int]]) -> tuple[np.ndarray, dict[int, list[int]]]:
    """The ring with a vertex where each bridge (run, y, hole) starts, and the holes by the position of that vertex."""
    if not bridges:
        return ring, {}
    run_y = ring[:, 1].tolist()
    at_corner, between = [], []
    for run, y, hole in bridges:
        if y == run_y[run]:
            at_corner.append((run, hole))
        elif y == run_y[(run + 1) % len(ring)]:
            at_corner.append(((run + 1) % len(ring), hole))
        else:
            between.append((run, abs(y - run_y[run]), y, hole))
    between.sort()
    runs = np.array([b[0] for b in between], np.int64)
    extra = np.array([(ring[b[0], 0], b[2]) for b in between], np.int64).reshape(-1, 2)
    children: dict[int, list[int]] = {}
    for rank, (run, _, _, hole) in enumerate(between):
        children.setdefault(run + 1 + rank, []).append(hole)
    for corner, hole in at_corner:
        children.setdefault(corner + int(np.searchsorted(runs, corner)), []).append(hole)
    return np.insert(ring, runs + 1, extra, axis=0), children


def _corner_links(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of all boundaries, (n, 2) xy, and for each the corner that follows. Diagonal neighbours stay apart."""
    p = np.pad(mask, 1)
    a, b, c, d = p[:-1, :-1], p[:-1, 1:], p[1:, :-1], p[1:, 1:]  # around each lattice point
    corner = ((a != b) ^ (c != d)) & ((a != c) ^ (b != d))
    saddle = (a == d) & (b == c) & (a != b)
    ys, xs = np.nonzero(corner | saddle)
    twice = saddle[ys, xs]
    falling = a[ys, xs]  # of a saddle: its pixels are upper left and lower right
    x, y = np.concatenate([xs, xs[twice]]), np.concatenate([ys, ys[twice]])
    second = np.concatenate([np.zeros(len(xs), np.int64), np.ones(int(twice.sum()), np.int64)])
    # A saddle is visited twice; the first visit owns the run to its left, and up or down by which pixels are inside.
    down = np.concatenate([twice & ~falling, falling[twice]]).astype(np.int64)
    following = np.empty(len(x), np.int64)
    for across, along, rank, swap in ((y, x, second, False), (x, y, down, True)):
        order = np.lexsort((rank, along, across))
        i, j = order[0::2], order[1::2]  # the two ends of each straight run
        ahead = p[y[i] + 1, x[i] + 1]  # the pixel right of, and below, the run's start
        forward = ahead if not swap else ~ahead  # to the right with the inside below; down with the inside to the left
        following[np.where(forward, i, j)] = np.where(forward, j, i)
    return np.stack([x, y], 1), following


def _cycles(following: np.ndarray) -> list[list[int]]:
    links = following.tolist()
    seen = bytearray(len(links))
    cycles = []
    for first in range(len(links)):
        if seen[first]:
            continue
        cycle, at = [], first
        while not seen[at]:
            seen[at] = 1
            cycle.append(at)
            at = links[at]
        cycles.append(cycle)
    return cycles


def _twice_area(ring: np.ndarray) -> int:
    following = np.roll(ring, -1, axis=0)
    return int((ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1]).sum())


def _simplify(ring: np.ndarray, fixed: list[int], tolerance: float) -> np.ndarray:
    """Douglas-Peucker on a closed ring: positions kept, `fixed` among them; all of them if nothing would be left."""
    if tolerance <= 0 or len(ring) <= 4:
        return np.arange(len(ring))
    keep = np.zeros(len(ring), bool)
    keep[fixed] = True
    keep[((ring - ring[fixed[0]]) ** 2).sum(1).argmax()] = True
    ends = np.flatnonzero(keep)
    closed = np.concatenate([ring, ring[: ends[0] + 1]]).astype(np.float64)
    stack = list(zip(ends.tolist(), [*ends[1:].tolist(), len(ring) + int(ends[0])], strict=True))
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        distance = _distance_to_segment(closed[first + 1 : last], closed[first], closed[last])
        worst = int(distance.argmax())
        if distance[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle % len(ring)] = True
            stack += [(first, middle), (middle, last)]
    kept = np.flatnonzero(keep)
    same_side = len(kept) >= 3 and _twice_area(ring[kept]) * _twice_area(ring) > 0
    return kept if same_side else np.arange(len(ring))


def _distance_to_segment(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    along = b - a
    t = ((points - a) @ along / max(float(along @ along), 1e-12)).clip(0.0, 1.0)
    away = points - a - t[:, None] * along
    distance: np.ndarray = np.hypot(away[:, 0], away[:, 1])
    return distance
