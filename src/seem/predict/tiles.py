"""Images far larger than the network sees at once: windows of the image, encoded when something asks for them.

    level 0   tiles of `tile` pixels that overlap by a quarter, all over the image
    level k   the same with sides of tile * 2**k
    last      the whole image

An object is looked at in a window that it fits into with room around it, so its outline is as exact as in a photo of
its own. What touches the edge of a window that is not the image's edge is cut there, and is left to the next level,
whose windows are twice as large; so no result ends at a seam. Tiny things are looked at again in a smaller window.

With `zoom` anything that leaves room in its window is looked at again in one around it, as soon as its outline is what
counts (ZoomIn of Sofiiuk et al., arXiv 2102.06583): that is worth an encoding for photos, too, which are one window.

Encoded windows are kept up to a budget of bytes and encoded again when they are needed again: the same bits.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from seem import geometry, images
from seem.geometry import MASK_STRIDE, ImageGeometry
from seem.model.image_input import network_input
from seem.predict import everything as everything_mode
from seem.predict.closer import keep_photo
from seem.predict.instances import DEFAULT_THRESHOLD, NMS_INSIDE, NMS_IOU
from seem.predict.panoptic import BEHIND, STUFF_AREA, STUFF_SCORE, Panoptic, PanopticSegment, name_regions
from seem.predict.scene import (
    SAME_INSTANCE,
    Previous,
    Scene,
    check_limit,
    check_list,
    check_prompts,
    check_unit,
    find_vocabulary,
)
from seem.predict.scene_files import is_integers, make_features, read_header, read_tensors, write_scene
from seem.predict.segmentation import Segmentation, read_only
from seem.predict.session import Session
from seem.prompts import Box, Click, Mask, Polygon, Prompt, Reference, Scribble, Text, check, is_positive
from seem.vocabulary import OTHERS, Category, VocabularyLike

if TYPE_CHECKING:
    import os

    from seem.model.seem import ImageFeatures
    from seem.predict.model import Model

TILE = 1024  # pixels, of a tile's side
SMALLEST_TILE = 64
MAX_PIXELS = 1_000_000_000
CACHE_BYTES = 1 << 30  # of encoded windows
OVERLAP = 0.25  # of a tile's side, that two tiles share at least
ROOM = 2  # a window is at least so many times as large as what a prompt says of the object
TINY, ZOOMED = 8, 4  # what is less than 1/8 of its window is looked at again, in a window 4 times its size or more
KIND = "tiled"  # of a scene's file
ENLARGED = 4  # encoded pixels for a pixel, at most
ROOM_AROUND, CLOSE = 0.25, 0.75  # of an object's longer side around it, and most of a window's side to zoom in
ZOOM_FROM = 3  # clicks of an object, from which on its outline counts; anything drawn counts at once
AGREED = 0.3  # a zoomed window counts if its IoU with the first is at least that
COARSER = 0.95  # what a score is worth in a window twice as large
FAR = -20.0  # the logit of what a window does not show
BLOCK = 2048  # pixels, of a side of what is put together at once
FILLED = 4  # a mask is more than 1/4 of its box, or is not compared with others
SAMPLES = 96  # points a side, at which two masks are compared

Window = tuple[int, int, int, int]  # half-open x0, y0, x1, y1 in pixels of the image


# ---- windows ------------------------------------------------------------------------------------------------------


def pyramid(size: tuple[int, int], tile: int) -> list[list[Window]]:
    """Windows of each level, the finest first; the last level is the whole image alone.

    >>> [len(windows) for windows in pyramid((2000, 1000), 512)]
    [15, 3, 1]
    """
    levels = []
    side = tile
    while side < max(size):
        across, down = (_starts(length, side) for length in size)
        levels.append([(x, y, min(x + side, size[0]), min(y + side, size[1])) for y in down for x in across])
        side *= 2
    return [*levels, [(0, 0, *size)]]


def _starts(length: int, side: int) -> list[int]:
    """Where windows of a side begin, evenly, so that they cover a length and share `OVERLAP` of the side or more."""
    if length <= side:
        return [0]
    step = side - int(side * OVERLAP)
    count = -(-(length - side) // step) + 1
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def _holds(window: Window, other: Window) -> bool:
    return bool(window[0] <= other[0] and window[1] <= other[1] and window[2] >= other[2] and window[3] >= other[3])


def _length(window: Window) -> int:
    return max(window[2] - window[0], window[3] - window[1])


def _union(a: Window, b: Window) -> Window:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _shared(a: Window, b: Window) -> Window | None:
    both = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return both if both[0] < both[2] and both[1] < both[3] else None


def _margin(window: Window, inner: Window, size: tuple[int, int]) -> float:
    """How far a box is from the nearest edge at which the window cuts the image; negative if it sticks out."""
    cut = [
        inner[0] - window[0] if window[0] > 0 else np.inf,
        inner[1] - window[1] if window[1] > 0 else np.inf,
        window[2] - inner[2] if window[2] < size[0] else np.inf,
        window[3] - inner[3] if window[3] < size[1] else np.inf,
    ]
    return float(min(cut)) if _holds(window, inner) else -1.0


# ---- masks that are a part of the image -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Piece:
    """Mask logits of a window, without the cells around the mask; readable at any pixel of the image.

    Attributes:
        logits: (rows, columns) float.
        origin: (x, y) in pixels of the image, of the first cell's centre.
        pitch: (x, y) pixels from one cell to the next.
        bounds: the pixels for which it says anything; outside is `FAR`.
    """

    logits: np.ndarray
    origin: tuple[float, float]
    pitch: tuple[float, float]
    bounds: Window

    @classmethod
    def of(cls, logits: np.ndarray, window: Window, sizes: ImageGeometry) -> Piece:
        """Logits (h/4, w/4) of a window whose mask is not empty, cropped to the mask and a cell around it."""
        rows, columns = (np.flatnonzero((logits > 0).any(axis)) for axis in (1, 0))
        top, bottom = max(int(rows[0]) - 1, 0), min(int(rows[-1]) + 2, logits.shape[0])
        left, right = max(int(columns[0]) - 1, 0), min(int(columns[-1]) + 2, logits.shape[1])
        whole = cls.whole(logits, window, sizes)
        (x, y), (dx, dy) = whole.origin, whole.pitch
        bounds = (
            window[0] if left == 0 else int(x + left * dx),
            window[1] if top == 0 else int(y + top * dy),
            window[2] if right == logits.shape[1] else int(np.ceil(x + (right - 1) * dx)),
            window[3] if bottom == logits.shape[0] else int(np.ceil(y + (bottom - 1) * dy)),
        )
        return cls(np.array(logits[top:bottom, left:right]), (x + left * dx, y + top * dy), (dx, dy), bounds)

    @classmethod
    def whole(cls, logits: np.ndarray, window: Window, sizes: ImageGeometry) -> Piece:
        """All logits of a window."""
        dx, dy = (MASK_STRIDE / sizes.scale).tolist()
        return cls(logits, (window[0] + dx / 2, window[1] + dy / 2), (dx, dy), window)

    def read(self, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        """(len(ys), len(xs)) float32 logits at image coordinates, bilinear as `ImageGeometry.upsample`."""
        columns, right = self._weights(xs, 0)
        rows, down = self._weights(ys, 1)
        lines = self.logits[rows] * (1 - down[:, None]) + self.logits[rows + 1 - self._last(rows, 0)] * down[:, None]
        values = lines[:, columns] * (1 - right) + lines[:, columns + 1 - self._last(columns, 1)] * right
        x0, y0, x1, y1 = self.bounds
        values[(ys < y0) | (ys > y1)] = FAR
        values[:, (xs < x0) | (xs > x1)] = FAR
        return values.astype(np.float32)

    def _weights(self, at: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """The cell before each coordinate, and the share of the cell after it."""
        count = self.logits.shape[1 - axis]
        cell = np.clip((at - self.origin[axis]) / self.pitch[axis], 0, count - 1)
        before = np.floor(cell).astype(np.int64)
        return before, (cell - before).astype(np.float32)

    def _last(self, cells: np.ndarray, axis: int) -> np.ndarray:
        return (cells == self.logits.shape[axis] - 1).astype(np.int64)

    def pixels(self, rect: Window) -> np.ndarray:
        """(h, w) float32 logits at the centres of a rectangle's pixels."""
        return self.read(np.arange(rect[0], rect[2]) + 0.5, np.arange(rect[1], rect[3]) + 0.5)


def overlap(a: Piece, b: Piece) -> tuple[float, float]:
    """IoU of two masks, and the share of the first that the second covers; of large ones at `SAMPLES`² points."""
    box = _union(a.bounds, b.bounds)
    xs, ys = (_sample(box[k], box[k + 2]) for k in (0, 1))
    first, second = a.read(xs, ys) > 0, b.read(xs, ys) > 0
    both, either, own = (int(np.count_nonzero(m)) for m in (first & second, first | second, first))
    return both / max(either, 1), both / max(own, 1)


def _sample(start: int, end: int) -> np.ndarray:
    count = min(end - start, SAMPLES)
    points: np.ndarray = start + (np.arange(count) + 0.5) * (end - start) / count
    return points


def keep_distinct(pieces: Sequence[Piece], scores: Sequence[float], iou: float, inside: float = 2.0) -> list[int]:
    """Which masks do not show what a better one shows, best first: by IoU, or by the share inside the better one."""
    boxes = np.array([piece.bounds for piece in pieces], np.int64).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for i in sorted(range(len(pieces)), key=lambda k: (-scores[k], k)):
        others = boxes[kept]
        sides = np.minimum(others[:, 2:], boxes[i, 2:]) - np.maximum(others[:, :2], boxes[i, :2])
        both = sides.clip(min=0).prod(1)
        # Masks are compared where their boxes say that they may be alike: a mask fills a quarter of its box or more.
        alike = both * FILLED >= iou * np.maximum(areas[kept], areas[i])
        alike |= both * FILLED >= inside * areas[i]
        close = [kept[k] for k in np.flatnonzero(alike & (both > 0))]
        if not any(found > iou or part >= inside for found, part in (overlap(pieces[i], pieces[k]) for k in close)):
            kept.append(i)
    return kept


@dataclass(frozen=True, eq=False)
class TiledSegmentation(Segmentation):
    """One object of a `TiledScene`; everything but the logits is of the whole image.

    Attributes:
        logits, geometry: of the window that the object was looked at in.
        window: (x0, y0, x1, y1) in pixels of the image.
        size: (width, height) of the image.
    """

    window: Window
    size: tuple[int, int]

    def __repr__(self) -> str:
        name = "" if self.label is None else f" {self.label!r} {self.label_score:.2f}"
        return f"<TiledSegmentation{name} score={self.score:.2f} of {self.size[0]}x{self.size[1]}>"

    @cached_property
    def crop(self) -> np.ndarray:
        """(h, w) bool, the mask inside `window`; outside it is empty."""
        return read_only((self.geometry.upsample(torch.tensor(self.logits)) > 0).numpy())

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool of the whole image. Not kept in memory before it is asked for; see `crop`."""
        return read_only(self.paste())

    def paste(self) -> np.ndarray:
        """A new `mask`, of which nothing is kept."""
        whole = np.zeros((self.size[1], self.size[0]), bool)
        x0, y0, x1, y1 = self.window
        whole[y0:y1, x0:x1] = self.crop
        return whole

    @cached_property
    def box(self) -> Window | None:
        """Half-open (x0, y0, x1, y1) around the mask, None if it is empty."""
        found = geometry.box_of(self.crop)
        x, y = self.window[:2]
        return None if found is None else (found[0] + x, found[1] + y, found[2] + x, found[3] + y)

    @cached_property
    def area(self) -> int:
        """Number of pixels inside."""
        return int(np.count_nonzero(self.crop))

    @property
    def piece(self) -> Piece:
        """The mask as something to read at any pixel."""
        return Piece.of(self.logits, self.window, self.geometry)


# ---- the scene ----------------------------------------------------------------------------------------------------


@dataclass
class _Object:
    """One object on its way: where it is looked at, and what came of it."""

    prompts: list[Prompt]
    extent: Window | None  # of its positive prompts on this image
    window: Window
    memory: TiledSegmentation | np.ndarray | None
    settled: bool = False  # not to be looked at more closely because it is tiny
    zoomed: bool = False  # the window is one that was zoomed into
    result: TiledSegmentation | None = field(default=None)


class TiledScene:
    """A large image, ready for the questions that a `Scene` answers; see `Model.encode_large`.

    Where one window shows the whole image, every answer is the `Scene`'s own, bit for bit.

    Attributes:
        digest, weights, geometry: as a `Scene` has them; the geometry is that of the whole image in one window.
        levels: the windows of each level, see `pyramid`.
    """

    def __init__(
        self,
        model: Model,
        pixels: np.ndarray,
        tile: int = TILE,
        cache_bytes: int = CACHE_BYTES,
        zoom: bool = False,
    ) -> None:
        self._describe(model, images.digest(pixels), (pixels.shape[1], pixels.shape[0]), tile, zoom)
        self._pixels = pixels
        self._budget = cache_bytes
        self._scenes: OrderedDict[Window, tuple[Scene, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.encoded = 0  # windows, since it was made; a window that was dropped counts again

    def _describe(self, model: Model, digest: str, size: tuple[int, int], tile: int, zoom: bool) -> None:
        """Everything but the pixels: what they are called, and the windows that cover them."""
        self._network, self.weights, self.digest = model.network, model.weights, digest
        self.geometry = self._sizes((0, 0, *size))
        self.levels = pyramid(size, tile)
        self._tile, self._zoom = tile, zoom

    def __repr__(self) -> str:
        tiles = sum(map(len, self.levels))
        return f"<TiledScene {self.size[0]}x{self.size[1]} in {tiles} windows {self.digest[:15]}…>"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image."""
        return self.geometry.original

    @property
    def _whole(self) -> Window:
        return self.levels[-1][0]

    @property
    def _single(self) -> Scene | None:
        """The scene of the whole image, if nothing else is needed."""
        return self.scene(self._whole) if len(self.levels) == 1 else None

    @property
    def _unzoomed(self) -> Scene | None:
        """The same for prompts."""
        return None if self._zoom else self._single

    def _sizes(self, window: Window) -> ImageGeometry:
        return ImageGeometry.of((window[2] - window[0], window[3] - window[1]), self._network.config.image)

    def scene(self, window: Window) -> Scene:
        """A window's scene, with coordinates of the window; encoded now if it is not kept."""
        with self._lock:
            known = self._scenes.get(window)
            if known is not None:
                self._scenes.move_to_end(window)
                return known[0]
        x0, y0, x1, y1 = window
        values, size = network_input(self._pixels[y0:y1, x0:x1], self._network.config.image, self._network.device)
        with torch.no_grad():
            features = self._network.encode_image(values, size)
        made = self._scene_of(window, features)
        with self._lock:
            self.encoded += 1
        self._keep(window, made)
        return made

    def _scene_of(self, window: Window, features: ImageFeatures) -> Scene:
        x0, y0, x1, y1 = window
        photo = keep_photo(self._network, self._pixels[y0:y1, x0:x1])
        return Scene(self._network, features, self._sizes(window), self.digest, self.weights, photo)

    def _keep(self, window: Window, scene: Scene) -> None:
        """Within the budget; the least recently used go."""
        with self._lock:
            if window not in self._scenes:
                self._scenes[window] = scene, _bytes_of(scene._features)
                self._bytes += self._scenes[window][1]
            while self._bytes > self._budget and len(self._scenes) > 1:
                self._bytes -= self._scenes.popitem(last=False)[1][1]

    # ---- prompted -------------------------------------------------------------------------------------------------

    def segment(
        self,
        *prompts: Prompt,
        previous: Previous | None = None,
        vocabulary: VocabularyLike | None = None,
        label: bool = True,
    ) -> Segmentation:
        """Segment one object; as `Scene.segment`.

        It is looked at in the tile that shows the prompts best; if its mask touches an edge of the tile, in a larger
        window; if it is tiny, in a smaller one. In a later round it stays in the window of the round before. A text
        alone is looked for in all windows; a region of another image alone, in the whole image at once.
        """
        if (single := self._unzoomed) is not None:
            return single.segment(*prompts, previous=previous, vocabulary=vocabulary, label=label)
        return self._segment([self._object(prompts, previous, "")], vocabulary, label)[0]

    def segment_all(
        self,
        objects: Sequence[Sequence[Prompt]],
        previous: Sequence[Previous | None] | None = None,
        vocabulary: VocabularyLike | None = None,
        label: bool = True,
    ) -> list[Segmentation]:
        """Segment several objects; those that share a window share a decode. As `Scene.segment_all`."""
        if (single := self._unzoomed) is not None:
            return single.segment_all(objects, previous, vocabulary, label)
        check_list("objects", objects, "a list of lists of prompts")
        if previous is not None and len(previous) != len(objects):
            raise ValueError(f"previous: expected {len(objects)} results or None, got {len(previous)}")
        made = []
        for i, prompts in enumerate(objects):
            check_list(f"objects[{i}]", prompts, "a list of prompts")
            made.append(self._object(prompts, previous[i] if previous else None, f"objects[{i}]: "))
        return self._segment(made, vocabulary, label)

    def candidates(self, *prompts: Prompt, previous: Previous | None = None) -> list[Segmentation]:
        """As `Scene.candidates`, in the window that `segment` would begin with."""
        if (single := self._unzoomed) is not None:
            return single.candidates(*prompts, previous=previous)
        item = self._object(prompts, previous, "")
        scene = self.scene(item.window)
        found = scene.candidates(*self._local(item.prompts, item.window), previous=self._memory(item))
        return [self._placed(result, item.window) for result in found]

    def session(self) -> Session:
        """An interactive session: objects, rounds, undo and redo."""
        return Session(cast(Scene, self))

    def _object(self, prompts: Sequence[object], previous: Previous | None, where: str) -> _Object:
        checked = check_prompts(prompts, self.size, previous is not None, where)
        memory = self._check_previous(previous, where)
        extents = [box for p in checked if is_positive(p) and (box := _extent(p, self.size)) is not None]
        if isinstance(memory, TiledSegmentation):
            extents.append(memory.box or memory.window)
        if not extents:
            return _Object(checked, None, self._named_window(checked), memory)
        extent = extents[0]
        for box in extents[1:]:
            extent = _union(extent, box)
        if isinstance(memory, TiledSegmentation) and _holds(memory.window, extent):
            window = memory.window
            if self._zoom and _is_outlined(checked):
                near = self._near(extent, window)
                window = near if near is not None and self._local(checked, near) else window
            return _Object(checked, extent, window, memory, settled=True)
        if isinstance(memory, np.ndarray):
            return _Object(checked, extent, self._whole, memory, settled=True)
        return _Object(checked, extent, self._roomy_window(extent), memory)

    def _check_previous(self, previous: Previous | None, where: str) -> TiledSegmentation | np.ndarray | None:
        if previous is None or isinstance(previous, TiledSegmentation):
            if previous is not None and previous.image != self.digest:
                raise ValueError(f"{where}previous: expected a result of this image, got one of {previous.image[:15]}…")
            return previous
        self.scene(self._whole)._check_previous(previous, where)
        return previous.logits if isinstance(previous, Segmentation) else previous

    def _named_window(self, prompts: Sequence[Prompt]) -> Window:
        """Where the phrases of an object that nothing else places are matched best; else the whole image."""
        phrases = [p for p in prompts if isinstance(p, Text)] if len(self.levels) > 1 else []
        best = (-1.0, self._whole)
        for window in self._windows() if phrases else ():
            for phrase in phrases:
                for found in self.scene(window).find(phrase.text, threshold=0.0, limit=1, quick=True):
                    if found.score > best[0] and not _is_cut(found.logits > 0, window, self.size):
                        best = found.score, window
        return best[1]

    def _windows(self) -> Iterator[Window]:
        """Of all levels, the coarsest first."""
        for level in reversed(self.levels):
            yield from level

    def _roomy_window(self, extent: Window) -> Window:
        """The smallest window, from a tile on, that is `ROOM` times as large as a box around which it lies."""
        side = self._tile
        while side < max(self.size) and _length(extent) * ROOM > side:
            side *= 2
        return self._window(extent, side)

    def _window(self, extent: Window, side: int) -> Window:
        """A window of a side, or the whole image, that shows a box best: one of the levels' if it has room there."""
        if side >= max(self.size):
            return self._whole
        level = next((windows for k, windows in enumerate(self.levels[:-1]) if self._tile << k == side), [])
        margins = [(_margin(window, extent, self.size), window) for window in level]
        if margins and (best := max(margins, key=lambda m: m[0]))[0] >= side / 16:
            return best[1]
        grid = max(side // 4, 1)
        starts = []
        for k in (0, 1):
            start = round(((extent[k] + extent[k + 2]) / 2 - side / 2) / grid) * grid
            starts.append(min(max(start, 0), max(self.size[k] - side, 0)))
        x, y = starts
        return x, y, min(x + side, self.size[0]), min(y + side, self.size[1])

    def _segment(self, objects: list[_Object], vocabulary: VocabularyLike | None, label: bool) -> list[Segmentation]:
        """Decode every object in its window, until none wants another one."""
        waiting = list(objects)
        while waiting:
            by_window: dict[Window, list[_Object]] = {}
            for item in waiting:
                by_window.setdefault(item.window, []).append(item)
            waiting = []
            self._need(by_window)
            for window, items in by_window.items():
                scene = self.scene(window)
                found = scene.segment_all(
                    [self._local(item.prompts, window) for item in items],
                    [self._memory(item) for item in items],
                    vocabulary,
                    label,
                )
                pairs = zip(items, found, strict=True)
                waiting += [item for item, result in pairs if self._wants_more(item, self._placed(result, window))]
        return [cast(Segmentation, item.result) for item in objects]

    def _need(self, windows: Iterable[Window]) -> None:
        """Called with all windows that are looked at next; here they are encoded one by one as they are looked at."""

    def _nearer(self, first: TiledSegmentation) -> TiledSegmentation:
        """What a text found, outlined in a window around it; its name and score stay."""
        box = first.box
        if box is None or (near := self._near(box, first.window)) is None:
            return first
        item = _Object([Mask(first.paste())], box, near, first, zoomed=True, result=first)
        self._segment([item], None, label=False)
        assert item.result is not None
        kept = {name: getattr(first, name) for name in ("score", "score_kind", "label", "label_score")}
        return dataclasses.replace(item.result, **kept)

    def _wants_more(self, item: _Object, result: TiledSegmentation) -> bool:
        """Take a result, or leave it; whether the object is to be looked at once more, in another window."""
        box, window = result.box, item.window
        side = _length(window)
        cut = _is_cut(result.logits > 0, window, self.size)
        around = box if box is None or item.extent is None else _union(box, item.extent)
        if item.zoomed:  # it counts if it shows the same object, and all of it
            first = cast(TiledSegmentation, item.result)
            if box is not None and not cut and overlap(first.piece, result.piece)[0] >= AGREED:
                item.result = result
            return False
        item.result = result
        if box is None or around is None:
            return False
        if cut and window != self._whole:
            item.settled = True
            item.memory = None if isinstance(item.memory, np.ndarray) else item.memory
            item.window = self._window(around, side * 2)
            return True
        if self._zoom and _is_outlined(item.prompts):
            if (near := self._near(around, window)) is None or not self._local(item.prompts, near):
                return False
            item.zoomed, item.memory, item.window = True, result, near
            return True
        closest = self._closest
        nearer = self._tile
        while nearer >= 2 * max(ZOOMED * _length(around), closest):
            nearer //= 2
        if item.settled or _length(box) * TINY > side or nearer >= side:
            return False
        item.zoomed, item.memory, item.window = True, result, self._window(around, nearer)
        return True

    @property
    def _closest(self) -> int:
        """Pixels of the smallest window's side."""
        return max(self._network.config.image.target // ENLARGED, 32)

    def _near(self, box: Window, window: Window) -> Window | None:
        """A box with room around it, as far as the image goes; None if that is not much less than a window."""
        room = max(ROOM_AROUND * _length(box), (self._closest - _length(box)) / 2)
        x0, y0 = (max(0, int(start - room)) for start in box[:2])
        x1, y1 = (min(end, int(np.ceil(stop + room))) for end, stop in zip(self.size, box[2:], strict=True))
        near = x0, y0, x1, y1
        return near if _length(near) <= CLOSE * _length(window) else None

    def _memory(self, item: _Object) -> np.ndarray | None:
        """What is remembered of an object, as logits of the window that it is looked at in."""
        memory = item.memory
        if not isinstance(memory, TiledSegmentation):
            return memory
        return self._read(memory, item.window)

    def _read(self, memory: TiledSegmentation, window: Window) -> np.ndarray:
        """(h/4, w/4) logits of a window, as a result of another one shows them."""
        if memory.window == window:
            return memory.logits
        sizes = self._sizes(window)
        height, width = sizes.mask_size
        (dx, dy) = MASK_STRIDE / sizes.scale
        x, y = window[0] + dx / 2, window[1] + dy / 2
        seen = Piece.whole(memory.logits, memory.window, memory.geometry)
        return seen.read(x + np.arange(width) * dx, y + np.arange(height) * dy)

    def _local(self, prompts: Sequence[Prompt], window: Window) -> list[Prompt]:
        """Prompts in coordinates of a window; what lies outside it is left out."""
        size = (window[2] - window[0], window[3] - window[1])
        local = []
        for prompt in prompts:
            moved = self._moved(prompt, window)
            try:
                local.append(check(moved, size))
            except ValueError:  # a negative prompt that is somewhere else
                continue
        return local

    def _moved(self, prompt: Prompt, window: Window) -> Prompt:
        x, y = window[:2]
        match prompt:
            case Click():
                return Click(prompt.x - x, prompt.y - y, prompt.positive)
            case Box():
                return Box(prompt.x0 - x, prompt.y0 - y, prompt.x1 - x, prompt.y1 - y)
            case Scribble():
                return Scribble(tuple((px - x, py - y) for px, py in prompt.points), prompt.positive, prompt.width)
            case Polygon():
                return Polygon(tuple((px - x, py - y) for px, py in prompt.points), prompt.positive)
            case Mask():
                return Mask(prompt.array[y : window[3], x : window[2]])
            case Reference(image=TiledScene() as other):
                return other.reference(prompt)
        return prompt

    def reference(self, reference: Reference) -> Reference:
        """A region of this image as one of the window that shows it best; a plain `Scene` takes that."""
        checked = check(reference.prompt, self.size, "Reference.prompt")
        extent = _extent(checked, self.size) or self._whole
        window = self._roomy_window(extent)
        return Reference(self.scene(window), cast(Any, self._moved(checked, window)))

    def _placed(self, result: Segmentation, window: Window) -> TiledSegmentation:
        """A window's result as one of the image."""
        values = {f.name: getattr(result, f.name) for f in dataclasses.fields(Segmentation)}
        return TiledSegmentation(**values, window=window, size=self.size)

    # ---- unprompted -----------------------------------------------------------------------------------------------

    def find(
        self, text: str, threshold: float = DEFAULT_THRESHOLD, limit: int | None = None, quick: bool = False
    ) -> list[Segmentation]:
        """Every instance that a text names, in all windows of all levels, best first; as `Scene.find`.

        With zoom each is outlined in a window around it, an encoding each; its score is that of before.
        """
        if (single := self._unzoomed) is not None:
            return single.find(text, threshold, limit, quick)
        check_limit(limit)
        found = self._collect(lambda scene: scene.find(text, threshold, quick=quick))
        found = self._distinct(found, NMS_IOU, NMS_INSIDE)[:limit]
        if self._zoom:  # two parts of one object may have become the object
            found = self._distinct([self._nearer(result) for result in found], NMS_IOU, NMS_INSIDE)
        return list(found)

    def instances(
        self, vocabulary: VocabularyLike | None = None, threshold: float = 0.05, limit: int = 100
    ) -> list[Segmentation]:
        """Every thing with its name, in all windows of all levels, best first; as `Scene.instances`."""
        if (single := self._single) is not None:
            return single.instances(vocabulary, threshold, limit)
        check_limit(limit)
        found = self._collect(lambda scene: scene.instances(vocabulary, threshold))
        return list(self._distinct(found, SAME_INSTANCE)[:limit])

    def everything(
        self,
        points_per_side: int = everything_mode.POINTS_PER_SIDE,
        threshold: float = everything_mode.SCORE,
        stability: float = everything_mode.STABILITY,
        overlap: float = everything_mode.OVERLAP,
        min_area: float = everything_mode.MIN_AREA,
        vocabulary: VocabularyLike | None = None,
        label: bool = True,
        limit: int | None = None,
    ) -> list[Segmentation]:
        """Every mask, in all windows of all levels, best first; as `Scene.everything`, the clicks being of a window."""
        options: dict[str, Any] = {
            "points_per_side": points_per_side,
            "threshold": threshold,
            "stability": stability,
            "overlap": overlap,
            "min_area": min_area,
            "vocabulary": vocabulary,
            "label": label,
        }
        if (single := self._single) is not None:
            return single.everything(**options, limit=limit)
        check_limit(limit)
        found = self._collect(lambda scene: scene.everything(**options))
        return list(self._distinct(found, float(overlap))[:limit])

    def _collect(self, ask: Any) -> list[TiledSegmentation]:
        """What every window answers, less what is cut there."""
        found: list[TiledSegmentation] = []
        for window in self._windows():
            for result in ask(self.scene(window)):
                if not _is_cut(result.logits > 0, window, self.size):
                    found.append(self._placed(result, window))
        return found

    def _distinct(self, found: list[TiledSegmentation], iou: float, inside: float = 2.0) -> list[TiledSegmentation]:
        pieces = [result.piece for result in found]
        ranks = [result.score * self._fineness(result.window) for result in found]
        kept = [found[i] for i in keep_distinct(pieces, ranks, iou, inside)]
        return sorted(kept, key=lambda result: -result.score)

    def _fineness(self, window: Window) -> float:
        """1 for a tile, less for larger windows: of two masks of one object the finer should stay."""
        return COARSER ** max(0.0, float(np.log2(_length(window) / self._tile)))

    def label(
        self, mask: np.ndarray | Mask | Segmentation, vocabulary: VocabularyLike | None = None, top: int = 5
    ) -> list[tuple[str, float]]:
        """The most likely names of a region; as `Scene.label`."""
        if isinstance(mask, TiledSegmentation):
            local = Segmentation(**{f.name: getattr(mask, f.name) for f in dataclasses.fields(Segmentation)})
            return self.scene(mask.window).label(local, vocabulary, top)
        if (single := self._single) is not None:
            return single.label(mask, vocabulary, top)
        prompt = mask if isinstance(mask, Mask) else Mask(cast(Any, mask))
        checked = cast(Mask, check(prompt, self.size, "mask"))
        box = cast(Window, geometry.box_of(checked.array))
        window = self._roomy_window(box)
        return self.scene(window).label(cast(Mask, self._moved(checked, window)), vocabulary, top)

    def panoptic(
        self,
        vocabulary: VocabularyLike | None = None,
        background: bool = False,
        threshold: float | None = None,
        overlap: float | None = None,
    ) -> Panoptic:
        """Divide the image into named things and stuff; as `Scene.panoptic`.

        Regions come whole from the windows that they fit into. What pixels alone show of stuff is blended from tile to
        tile and lies behind them.
        """
        if (single := self._single) is not None:
            return single.panoptic(vocabulary, background, threshold, overlap)
        rule = self._network.panoptic_rule
        threshold = check_unit("threshold", rule.threshold if threshold is None else threshold)
        overlap = check_unit("overlap", rule.overlap if overlap is None else overlap)
        named = find_vocabulary(self._network, vocabulary)
        if background and any(category.name == OTHERS for category in named):
            raise ValueError(f'vocabulary: expected no name "{OTHERS}" with background=True, got one')
        pieces: list[Piece] = []
        classes: list[int] = []
        scores: list[float] = []
        ranks: list[float] = []
        stuff = _Stuff(self.size, named, self._network.config.image.target, self._tile)
        for window in self._windows():
            scene = self.scene(window)
            with torch.no_grad():
                queries = scene._regions
                logits, names, values, heat = name_regions(
                    self._network, scene._features, queries, named, vocabulary is None, threshold, rule.distinct
                )
            for region, name, score in zip(_arrays(logits), names, values, strict=True):
                if not _is_cut(region > 0, window, self.size):
                    pieces.append(Piece.of(region, window, scene.geometry))
                    classes.append(name)
                    scores.append(score)
                    ranks.append(score * self._fineness(window))
            if heat is not None and window in self.levels[0]:
                stuff.add(heat, window, scene.geometry)
        kept = keep_distinct(pieces, ranks, min(rule.distinct, NMS_IOU))
        behind = stuff.pieces()
        return assemble_pieces(
            [*(pieces[i] for i in kept), *(piece for _, piece in behind)],
            [*(classes[i] for i in kept), *(name for name, _ in behind)],
            [*(scores[i] for i in kept), *([STUFF_SCORE] * len(behind))],
            [*named, None],
            self.size,
            overlap,
            background,
            len(behind),
            self.digest,
        )

    # ---- saved or sent --------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The windows that are encoded and kept, as one safetensors file; half precision, as `Scene.to_bytes`.

        It holds neither the image, which `from_bytes` needs beside it, nor the windows that nothing has asked for yet.
        """
        with self._lock:
            kept = [(window, scene) for window, (scene, _) in self._scenes.items()]
        header = {
            "kind": KIND,
            "weights": self.weights,
            "image": self.digest,
            "original": self.size,
            "tile": self._tile,
            "zoom": self._zoom,
            "windows": [window for window, _ in kept],
        }
        tensors = {f"{i}/{k}": t for i, (_, scene) in enumerate(kept) for k, t in scene._features.to_tensors().items()}
        return write_scene(header, tensors)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_bytes` to a file."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def from_bytes(
        cls, data: bytes, model: Model, image: object, max_pixels: int = MAX_PIXELS, cache_bytes: int = CACHE_BYTES
    ) -> TiledScene:
        """The scene that `to_bytes` wrote; windows that it does not hold are encoded when something asks for them.

        Args:
            data: the file's content; it may come from anywhere.
            model: a model with the same weights.
            image: the same image; as in `Model.encode`.
            max_pixels, cache_bytes: as in `Model.encode_large`.

        Raises:
            seem.ImageError, TypeError: as `Model.encode`.
            ValueError: not such a scene, another version, other weights, another image, or windows and tensors that do
                not fit it.
        """
        header = read_header(data, model, KIND, max_pixels)
        tile, windows = header.get("tile"), header.get("windows")
        if not is_integers([tile], 1) or cast(int, tile) < SMALLEST_TILE:
            raise ValueError(f"scene: expected a tile of {SMALLEST_TILE} pixels or more, got {tile!r:.80}")
        width, height = header["original"]
        if not isinstance(windows, list) or not all(_is_window(w, (width, height)) for w in windows):
            raise ValueError(f"scene: expected [x0, y0, x1, y1] of windows in {width}x{height}, got {windows!r:.80}")
        pixels = images.load_image(image, max_pixels)
        if (found := images.digest(pixels)) != header["image"]:
            raise ValueError(f"image: expected the one of the scene, {header['image'][:15]}…, got {found[:15]}…")
        if not isinstance(zoom := header.get("zoom", False), bool):
            raise ValueError(f"scene: expected zoom to be true or false, got {zoom!r:.80}")
        made = cls(model, pixels, cast(int, tile), cache_bytes, zoom)
        parts: list[dict[str, Tensor]] = [{} for _ in windows]
        for name, tensor in read_tensors(data).items():
            number, _, part = name.partition("/")
            if not (number.isdecimal() and number.isascii() and int(number) < len(parts)):
                raise ValueError(f"scene: expected tensors of {len(parts)} windows, got {name[:40]!r}")
            parts[int(number)][part] = tensor
        for x0y0x1y1, tensors in zip(windows, parts, strict=True):
            window = cast(Window, tuple(x0y0x1y1))
            made._keep(window, made._scene_of(window, make_features(tensors, made._sizes(window), model)))
        return made

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: Model,
        image: object,
        max_pixels: int = MAX_PIXELS,
        cache_bytes: int = CACHE_BYTES,
    ) -> TiledScene:
        """The scene in a file that `save` wrote, of an image. Raises as `from_bytes`, and OSError.

        Example:
            >>> scene = seem.TiledScene.load("orthophoto.scene", model, "orthophoto.tif")           # doctest: +SKIP
        """
        return cls.from_bytes(Path(path).read_bytes(), model, image, max_pixels, cache_bytes)


def _is_window(value: object, size: tuple[int, int]) -> bool:
    """Whether JSON holds a window of an image of (width, height)."""
    if not is_integers(value, 4):
        return False
    x0, y0, x1, y1 = cast(list[int], value)
    return 0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]


def _is_outlined(prompts: Sequence[Prompt]) -> bool:
    """Whether prompts say so much of an object that its outline is what is left to tell."""
    clicks = sum(isinstance(prompt, Click) for prompt in prompts)
    return clicks >= ZOOM_FROM or any(isinstance(prompt, (Box, Scribble, Polygon, Mask)) for prompt in prompts)


def _is_cut(mask: np.ndarray, window: Window, size: tuple[int, int]) -> bool:
    """Whether a window's mask (h/4, w/4) touches an edge at which the window, not the image, ends."""
    edges = (
        (window[0] > 0, mask[:, :1]),
        (window[1] > 0, mask[:1]),
        (window[2] < size[0], mask[:, -1:]),
        (window[3] < size[1], mask[-1:]),
    )
    return any(inner and bool(edge.any()) for inner, edge in edges)


def _extent(prompt: Prompt, size: tuple[int, int]) -> Window | None:
    """The pixels that a prompt covers; None for what is nowhere on this image."""
    match prompt:
        case Click():
            points = np.array([[prompt.x, prompt.y]])
        case Box():
            points = np.array([[prompt.x0, prompt.y0], [prompt.x1, prompt.y1]])
        case Scribble() | Polygon():
            points = np.array(prompt.points)
        case Mask():
            return geometry.box_of(prompt.array)
        case _:
            return None
    low = np.clip(np.floor(points.min(0)), 0, np.array(size) - 1).astype(int)
    high = np.clip(np.ceil(points.max(0)), low + 1, size).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _bytes_of(value: object) -> int:
    """Bytes of all tensors in a tree of dataclasses, lists and dicts."""
    if isinstance(value, Tensor):
        return value.nbytes
    if dataclasses.is_dataclass(value):
        return sum(_bytes_of(getattr(value, f.name)) for f in dataclasses.fields(value))
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes_of, value))
    return sum(map(_bytes_of, value.values())) if isinstance(value, dict) else 0


def _arrays(logits: Tensor) -> list[np.ndarray]:
    return [np.asarray(region.float().cpu().numpy()) for region in logits]


# ---- panoptic -----------------------------------------------------------------------------------------------------


class _Stuff:
    """What the pixels of the finest tiles show of stuff, blended where tiles overlap: no seam where one ends."""

    LIMIT = 2.0  # logits are cut off at, so that one tile cannot outshout its neighbour

    def __init__(self, size: tuple[int, int], named: Sequence[Category], target: int, tile: int) -> None:
        self._size, self._named = size, named
        pitch = tile * MASK_STRIDE / target
        self._shape = tuple(max(1, round(length / pitch)) for length in reversed(size))  # rows, columns
        self._pitch = size[0] / self._shape[1], size[1] / self._shape[0]
        self._centres = [(np.arange(n) + 0.5) * p for n, p in zip(reversed(self._shape), self._pitch, strict=True)]
        self._ramp = max(int(tile * OVERLAP), 1)
        self._sums: dict[int, np.ndarray] = {}  # of weight x (logit + LIMIT)
        self._weights = np.zeros(self._shape, np.float32)

    def add(self, heat: Tensor, window: Window, sizes: ImageGeometry) -> None:
        """(K, h/4, w/4) logits of a tile, of all K names."""
        x, y = self._centres
        columns = slice(*np.searchsorted(x, [window[0], window[2]]))
        rows = slice(*np.searchsorted(y, [window[1], window[3]]))
        weight = np.minimum(
            self._edge(y[rows], window[1], window[3], self._size[1])[:, None],
            self._edge(x[columns], window[0], window[2], self._size[0]),
        )
        self._weights[rows, columns] += weight
        for k, region in enumerate(heat):
            if self._named[k].is_thing or not bool((region > 0).any()):
                continue
            total = self._sums.setdefault(k, np.zeros(self._shape, np.float32))
            read = Piece.whole(region.float().cpu().numpy(), window, sizes).read(x[columns], y[rows])
            total[rows, columns] += weight * (read.clip(-self.LIMIT, self.LIMIT) + self.LIMIT)

    def _edge(self, at: np.ndarray, start: int, end: int, length: int) -> np.ndarray:
        """Near 0 at an edge that cuts the image, rising to 1 over the overlap of two tiles."""
        before = at - start if start > 0 else np.full_like(at, self._ramp)
        after = end - at if end < length else np.full_like(at, self._ramp)
        ramp: np.ndarray = (np.minimum(before, after) / self._ramp).clip(1e-3, 1).astype(np.float32)
        return ramp

    def pieces(self) -> list[tuple[int, Piece]]:
        """(name's number, logits of the whole image) of what is there."""
        found = []
        for k, total in sorted(self._sums.items()):
            logits = total / self._weights.clip(min=1e-6) - self.LIMIT
            if (logits > 0).mean() >= STUFF_AREA:
                origin = self._pitch[0] / 2, self._pitch[1] / 2
                found.append((k, Piece(logits, origin, self._pitch, (0, 0, *self._size))))
        return found


def assemble_pieces(
    pieces: Sequence[Piece],
    classes: Sequence[int],
    scores: Sequence[float],
    categories: Sequence[Category | None],
    size: tuple[int, int],
    overlap: float,
    fill: bool,
    remainders: int,
    digest: str,
) -> Panoptic:
    """`seem.predict.panoptic.assemble` by the same rule, block by block: memory grows with the map alone."""
    order = sorted(range(len(pieces)), key=lambda i: (-scores[i], i))
    first_behind = len(pieces) - remainders
    owner = np.zeros((size[1], size[0]), np.int32)
    full, visible = np.zeros(len(order) + 1, np.int64), np.zeros(len(order) + 1, np.int64)
    for block in _blocks(size):
        part = owner[block[1] : block[3], block[0] : block[2]]
        best, inside = np.zeros(part.shape, np.float32), np.zeros(part.shape, bool)
        for rank, i in enumerate(order, start=1):
            rect = _shared(block, pieces[i].bounds)
            if rect is None:
                continue
            logits = pieces[i].pixels(rect)
            covered = logits > 0
            full[rank] += np.count_nonzero(covered)
            weight = scores[i] * (BEHIND if i >= first_behind else 1)
            value = weight / (1 + np.exp(-logits))
            at = np.s_[rect[1] - block[1] : rect[3] - block[1], rect[0] - block[0] : rect[2] - block[0]]
            better = value > best[at]
            best[at][better] = value[better]
            part[at][better] = rank
            inside[at][better] = covered[better]
        part[~inside] = 0
        visible += np.bincount(part.ravel(), minlength=len(visible))
    ids, found = _segments(order, classes, scores, categories, full, visible, overlap, first_behind)
    areas = np.zeros(len(found) + 2, np.int64)
    for block in _blocks(size):
        part = owner[block[1] : block[3], block[0] : block[2]]
        part[...] = ids[part]
        if fill:
            part[part == 0] = len(found) + 1
        areas += np.bincount(part.ravel(), minlength=len(areas))
    if fill and areas[-1]:
        rest = [float(scores[i]) for i in order if categories[classes[i]] is None]
        found.append((Category(OTHERS, is_thing=False), max(rest, default=0.0)))
    segments = tuple(
        PanopticSegment(i, category.name, score, category.is_thing, int(areas[i]), category.coco_id)
        for i, (category, score) in enumerate(found, start=1)
    )
    return Panoptic(read_only(owner), segments, digest)


def _segments(
    order: Sequence[int],
    classes: Sequence[int],
    scores: Sequence[float],
    categories: Sequence[Category | None],
    full: np.ndarray,
    visible: np.ndarray,
    overlap: float,
    first_behind: int,
) -> tuple[np.ndarray, list[tuple[Category, float]]]:
    """rank -> segment id, 0 for what is left out; and the segments."""
    ids = np.zeros(len(order) + 1, np.int32)
    found: list[tuple[Category, float]] = []
    stuff: dict[str, int] = {}
    for rank, i in enumerate(order, start=1):
        category = categories[classes[i]]
        needed = 1 if i >= first_behind else max(1.0, overlap * full[rank])
        if category is None or visible[rank] < needed:
            continue
        if not category.is_thing and category.name in stuff:
            ids[rank] = stuff[category.name]
            continue
        found.append((category, float(scores[i])))
        ids[rank] = len(found)
        if not category.is_thing:
            stuff[category.name] = len(found)
    return ids, found


def _blocks(size: tuple[int, int]) -> Iterator[Window]:
    for y in range(0, size[1], BLOCK):
        for x in range(0, size[0], BLOCK):
            yield x, y, min(x + BLOCK, size[0]), min(y + BLOCK, size[1])
