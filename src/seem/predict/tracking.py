"""Objects through a video, zero-shot as in the paper: nothing here was trained on one.

A frame whose masks are known is remembered: what the image encoder sees in each cell of it, and how much of each
object the cell holds. Every such cell is a prompt of the visual sampler's kind, a point with its feature; the next
frame's cells look up the ones that they are most like. The answer is a guess of where each object went, and the
decoder's prompt: points inside it, and the memory prompt, which reads the frame through mask-guided attention.

    remembered  the prompted frames, the frame before, and a few earlier ones in which the object was sure
    gone        the cells of the guess look unlike the object: its mask is empty
    back again  the look-up is over the whole frame, so nothing else is needed
    apart       all objects share one decode; a pixel belongs to the one with the largest logit
    corrected   a frame is decided by the object's nearest prompts, before it or after
"""

from __future__ import annotations

import math
import os
import tempfile
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seem import images
from seem.geometry import MASK_STRIDE, ImageGeometry
from seem.model.prompting import ObjectPrompt, VisualPrompt
from seem.predict.scene import OBJECTS_PER_DECODE
from seem.predict.segmentation import Segmentation, read_only
from seem.prompts import PROMPT_TYPES, Mask, Prompt, parse_id

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.scene import Scene

CELL = 8  # encoded pixels
DIMENSIONS = 64  # of what is remembered of a cell: the first frame's principal components
NEIGHBOURS, TEMPERATURE = 10, 0.05  # remembered cells that a cell asks, and of the softmax over their similarities
SEEN = 0.7  # mean similarity of the guess's cells with the object's below which it is not in the frame
SURE = 0.75  # predicted IoU, and overlap of mask and guess, from which a frame is worth remembering
SURE_FRAMES, SURE_STEP = 3, 5  # how many of those, and how far apart
GUESS_WEIGHT = 2.0  # of the guess's log odds beside the decoder's
GIVEN_LOGIT = 8.0  # inside a mask that the user gave; outside, and of an empty mask, its negative
LOOK_UP = 1 << 24  # similarities held at once
WINDOW = 16  # frames held at once where a video is read backwards

Schedule = dict[int, dict[int, tuple[Prompt, ...]]]  # frame -> object -> prompts
Results = dict[int, Segmentation]  # by object


# ---- what is tracked ----------------------------------------------------------------------------------------------


@runtime_checkable
class Rewindable(Protocol):
    """Frames that can be read again: a video file, a folder, a list."""

    def __iter__(self) -> Iterator[Any]: ...

    def window(self, first: int, last: int) -> Sequence[Any]:
        """Frames ``first`` to ``last - 1``; both were seen in an iteration before."""


class _Listed(list[Any]):
    def window(self, first: int, last: int) -> Sequence[Any]:
        return self[first:last]


def open_frames(frames: object) -> Iterable[Any]:
    """A video's path, a folder of images, a sequence of images, or an iterator of them -> something to loop over.

    Raises:
        ValueError: nothing is there, or it is empty. TypeError: none of these.
    """
    if isinstance(frames, (str, os.PathLike)):
        path = Path(os.fspath(frames))
        if not path.is_dir():
            from seem.video.reader import Video

            return Video(path)
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise ValueError(f"frames: expected images in the folder {path}, got none")
        return _Listed(found)
    if isinstance(frames, np.ndarray) and frames.ndim == 4:
        frames = list(frames)
    if isinstance(frames, Sequence) and not isinstance(frames, (bytes, bytearray, memoryview)):
        if not len(frames):
            raise ValueError("frames: expected at least one, got none")
        return _Listed(frames)
    if isinstance(frames, Iterable) and not isinstance(frames, (bytes, bytearray, memoryview, np.ndarray)):
        return frames
    expected = "a video's path, a folder, a list of images or an iterator of them"
    raise TypeError(f"frames: expected {expected}, got {type(frames).__name__}")


IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def parse_schedule(prompts: object, start: int) -> Schedule:
    """``{object: [prompts]}`` at frame ``start``, or ``{frame: {object: [prompts]}}``, checked.

    Raises:
        ValueError, TypeError: anything else; the message says where.
    """
    if not isinstance(prompts, Mapping) or not prompts:
        raise ValueError(f"prompts: expected {{object: [prompts]}} or {{frame: {{object: […]}}}}, got {prompts!r:.60}")
    by_frame = [isinstance(value, Mapping) for value in prompts.values()]
    if any(by_frame) and not all(by_frame):
        raise ValueError("prompts: expected {object: [prompts]} or {frame: {object: [prompts]}}, got a mix")
    start = parse_id("start", start)
    if by_frame[0] and start:
        raise ValueError(f"start: expected 0 where prompts name their frames, got {start}")
    rounds: Mapping[Any, Any] = prompts if by_frame[0] else {start: prompts}
    schedule: Schedule = {}
    for key, objects in rounds.items():
        frame = parse_id("prompts: frame", key)
        if not objects:
            raise ValueError(f"prompts: frame {frame}: expected at least one object, got none")
        schedule[frame] = {
            parse_id(f"prompts: frame {frame}: object", i): _parse_list(frame, i, listed)
            for i, listed in objects.items()
        }
    return schedule


def _parse_list(frame: int, object_id: object, listed: object) -> tuple[Prompt, ...]:
    where = f"prompts: frame {frame}, object {object_id}"
    if not isinstance(listed, (list, tuple)) or not listed:
        raise ValueError(f"{where}: expected a list of prompts, got {listed!r:.60}")
    for prompt in listed:
        if not isinstance(prompt, PROMPT_TYPES):
            raise TypeError(f"{where}: expected Click, Box, Mask, …, got {prompt!r:.60}")
    return tuple(listed)


# ---- the loop over frames -----------------------------------------------------------------------------------------


def track(model: Model, frames: object, prompts: Mapping[int, Any], start: int = 0) -> Iterator[Results]:
    """See `Model.track`. What is wrong with the arguments is raised here, before the first frame is read."""
    schedule = parse_schedule(prompts, start)
    source = open_frames(frames)
    last = max(schedule)
    if isinstance(source, _Listed) and last >= len(source):
        raise ValueError(f"prompts: expected frames from 0 to {len(source) - 1}, got prompts on frame {last}")
    if not isinstance(source, Rewindable) and last > 0:
        warnings.warn("frames: a stream is not tracked backwards: masks before the first prompts are empty, and "
                      "corrections change later frames only", stacklevel=3)  # fmt: skip
    return _run(model, source, schedule)


def _run(model: Model, source: Iterable[Any], schedule: Schedule) -> Iterator[Results]:
    ids = sorted({i for objects in schedule.values() for i in objects})
    first = {i: min(frame for frame, objects in schedule.items() if i in objects) for i in ids}
    last = max(schedule)
    tracker = _Tracker(model)
    stored: _Stored | None = _Stored() if isinstance(source, Rewindable) else None
    size: tuple[int, int] | None = None
    count = 0
    for frame, image in enumerate(source):
        pixels = _load(image, frame, size, model.max_pixels)
        size, count = (pixels.shape[1], pixels.shape[0]), frame + 1
        known = [i for i in ids if first[i] <= frame]
        results = tracker.step(frame, model.encode(pixels), known, schedule.get(frame, {})) if known else {}
        if len(results) < len(ids):
            nothing = _nothing(model, ImageGeometry.of(size, model.network.config.image), images.digest(pixels))
            results = {i: results.get(i, nothing) for i in ids}
        if stored is None:
            yield results
            continue
        stored.append(results)  # what comes later may still change it
        if frame == last:
            assert isinstance(source, Rewindable)
            _track_back(model, source, schedule, stored, tracker)
            yield from stored
            stored = None
    if count <= last:
        missing = min(frame for frame in schedule if frame >= count)
        there = f"frames from 0 to {count - 1}" if count else "at least one frame"
        raise ValueError(f"prompts: expected {there}, got prompts on frame {missing}")


def _track_back(model: Model, source: Rewindable, schedule: Schedule, stored: _Stored, forward: _Tracker) -> None:
    """Replace what is stored between prompts: each frame is decided by the nearer prompts of an object."""
    spans: list[tuple[int, int, int]] = []  # (object, first frame, the prompted frame after the last)
    for i in {i for objects in schedule.values() for i in objects}:
        at = sorted(frame for frame, objects in schedule.items() if i in objects)
        spans += [(i, 0, at[0]), *((i, (a + b) // 2 + 1, b) for a, b in pairwise(at))]
    tracker = _Tracker(model, forward)
    for end in range(len(stored), 0, -WINDOW):
        begin = max(0, end - WINDOW)
        if not any(first < end and begin < after for _, first, after in spans):
            continue
        frames = source.window(begin, end)
        for frame in range(end - 1, begin - 1, -1):
            active = sorted(i for i, first, after in spans if first <= frame < after)
            if active:
                scene = model.encode(_load(frames[frame - begin], frame, None, model.max_pixels))
                results = stored[frame]
                others = {i: r for i, r in results.items() if i not in active}
                stored[frame] = results | tracker.step(frame, scene, active, {}, others)


def _load(image: object, frame: int, size: tuple[int, int] | None, max_pixels: int) -> np.ndarray:
    try:
        pixels = images.load_image(image, max_pixels)
    except (ValueError, TypeError) as error:
        raise type(error)(f"frames[{frame}]: {error}") from None
    got = (pixels.shape[1], pixels.shape[0])
    if size is not None and got != size:
        raise ValueError(f"frames[{frame}]: expected {size[0]}x{size[1]} as the frames before, got {got[0]}x{got[1]}")
    return pixels


def _nothing(
    model: Model, sizes: ImageGeometry, digest: str, label: str | None = None, label_score: float | None = None
) -> Segmentation:
    """An object that is not in a frame, or not known yet."""
    with torch.no_grad():
        width = model.network.encode_text(["object"]).sentence.shape[1]
    logits = read_only(np.full(sizes.mask_size, -GIVEN_LOGIT, np.float32))
    embedding = read_only(np.zeros(width, np.float32))
    return Segmentation(logits, 0.0, "predicted_iou", label, label_score, digest, sizes, embedding)


class _Stored:
    """Results of frames; their arrays lie in a temporary file, where what is replaced is left behind."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed, and so deleted, with this object
        self._frames: list[tuple[int, Results]] = []  # where the arrays begin, and the rest

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, frame: int) -> Results:
        position, results = self._frames[frame]
        self._file.seek(position)
        return {i: replace(r, logits=self._read(), embedding=self._read()) for i, r in results.items()}

    def __setitem__(self, frame: int, results: Results) -> None:
        position = self._file.seek(0, os.SEEK_END)
        none = np.zeros(0, np.float32)
        for result in results.values():
            np.save(self._file, result.logits)
            np.save(self._file, result.embedding)
        self._frames[frame] = position, {i: replace(r, logits=none, embedding=none) for i, r in results.items()}

    def append(self, results: Results) -> None:
        self._frames.append((0, {}))
        self[len(self) - 1] = results

    def __iter__(self) -> Iterator[Results]:
        return (self[frame] for frame in range(len(self)))

    def _read(self) -> np.ndarray:
        return read_only(np.load(self._file))


# ---- one frame after another --------------------------------------------------------------------------------------


@dataclass
class _Remembered:
    """One frame: n cells and what they hold of the objects that are known there."""

    frame: int
    cells: Tensor  # (D, n), each of length 1
    held: dict[int, Tensor]  # object -> (n,) share of the cell, 0..1


class _Tracker:
    """The memory, and how a frame is read with it. A second one may share the prompted frames of a first."""

    def __init__(self, model: Model, other: _Tracker | None = None) -> None:
        self.model = model
        self.anchors: list[_Remembered] = other.anchors if other else []
        self.names: dict[int, tuple[str | None, float | None]] = other.names if other else {}
        self._basis: tuple[Tensor, Tensor] | None = other._basis if other else None
        self._sure: deque[_Remembered] = deque(maxlen=SURE_FRAMES)
        self._before: list[_Remembered] = []
        self._led_by: dict[int, int] = {}  # object -> the prompted frame that it is tracked from

    @torch.no_grad()
    def step(
        self,
        frame: int,
        scene: Scene,
        ids: Sequence[int],
        prompts: Mapping[int, Sequence[Prompt]],
        others: Mapping[int, Segmentation] | None = None,
    ) -> Results:
        """The masks of objects ``ids`` on the next frame; those with prompts there follow them.

        ``others`` are masks that stand: they take part in who gets a pixel, and are not tracked.
        """
        cells, grid = self._cells(scene)
        followed = [i for i in ids if any(i in each.held for each in self.anchors)]
        results, sure = self._follow(frame, scene, cells, grid, followed) if followed else ({}, set())
        for i, given in prompts.items():
            results[i] = self._prompted(frame, i, scene, given, results.get(i))
        apart = separate({**results, **(others or {})})
        results = {i: apart[i] for i in ids}
        held = {i: _shrink(torch.tensor(r.logits).sigmoid(), grid).to(cells.device) for i, r in results.items()}
        self._before = [_Remembered(frame, cells, held)]
        if prompts:
            self.anchors.append(_Remembered(frame, cells, {i: h for i, h in held.items() if i in prompts}))
        elif sure and (not self._sure or abs(frame - self._sure[-1].frame) >= SURE_STEP):
            self._sure.append(_Remembered(frame, cells, {i: h for i, h in held.items() if i in sure}))
        return results

    def _prompted(
        self, frame: int, object_id: int, scene: Scene, prompts: Sequence[Prompt], tracked: Segmentation | None
    ) -> Segmentation:
        """What the user says; where the object was tracked already, it is a correction of that mask."""
        previous = tracked if tracked is not None and (tracked.logits > 0).any() else None
        try:
            result = scene.segment(*prompts, previous=previous)
        except (ValueError, TypeError) as error:
            raise type(error)(f"frame {frame}, object {object_id}: {error}") from None
        self.names[object_id] = (result.label, result.label_score)
        masks = [prompt.array for prompt in prompts if isinstance(prompt, Mask)]
        if len(masks) < len(prompts):
            return result
        inside = scene.geometry.mask_to_encoded(np.logical_or.reduce(masks))  # masks alone say it all
        h, w = scene.geometry.mask_size
        padded = np.zeros((h * MASK_STRIDE, w * MASK_STRIDE), np.float32)
        padded[: inside.shape[0], : inside.shape[1]] = inside
        cover = padded.reshape(h, MASK_STRIDE, w, MASK_STRIDE).mean((1, 3))
        return replace(result, logits=read_only((2 * cover - 1) * np.float32(GIVEN_LOGIT)), score=1.0)

    def _follow(
        self, frame: int, scene: Scene, cells: Tensor, grid: tuple[int, int], ids: Sequence[int]
    ) -> tuple[Results, set[int]]:
        """Masks of objects that are remembered, and which of them are worth remembering."""
        h, w = scene.geometry.mask_size
        guesses: dict[int, tuple[Tensor, Tensor]] = {}  # share, and log odds of being inside
        for i, guess in self._look_up(frame, cells, ids).items():
            share = F.interpolate(guess.share.view(1, 1, *grid), scale_factor=2, mode="bilinear", align_corners=False)
            share = share[0, 0, :h, :w]
            if guess.likeness >= SEEN and bool((share > guess.half).any()):
                guesses[i] = share, share.clamp(0.01, 0.99).logit() - math.log(guess.half / (1 - guess.half))
        results = {i: _nothing(self.model, scene.geometry, scene.digest, *self.names[i]) for i in ids}
        sure: set[int] = set()
        seen = list(guesses)
        for begin in range(0, len(seen), OBJECTS_PER_DECODE):
            part = seen[begin : begin + OBJECTS_PER_DECODE]
            objects = [_as_prompt(guesses[i][1], scene.geometry) for i in part]
            decoded = self.model.network.decode(scene._features, objects)
            for n, i in enumerate(part):
                share, odds = guesses[i]
                overlap = _overlap(decoded.logits[n].sigmoid(), share)
                s = int((overlap + 0.5 * decoded.scores[n]).argmax())
                label, label_score = self.names[i]
                results[i] = replace(
                    scene._result(decoded, n, s, label, label_score),
                    logits=read_only((decoded.logits[n, s] + GUESS_WEIGHT * odds).float().cpu().numpy().copy()),
                )
                if min(results[i].score, float(overlap[s])) >= SURE:
                    sure.add(i)
        return results, sure

    # ---- memory ---------------------------------------------------------------------------------------------------

    def _cells(self, scene: Scene) -> tuple[Tensor, tuple[int, int]]:
        """What the encoder sees in each cell of the unpadded frame, (D, n), and the grid (rows, columns) of them.

        All maps that a scene keeps, each centred and brought to length 1, in the first frame's principal components:
        64 numbers tell cells apart as well as all 512 of seem-tiny do.
        """
        width, height = scene.geometry.encoded
        grid = (-(-height // CELL), -(-width // CELL))
        maps = [_to_cells(m.float(), scene.geometry.padded[1]) for m in scene._features.to_tensors().values()]
        joined = torch.cat([_unit(m[0, :, : grid[0], : grid[1]]) for m in maps]).flatten(1).to(scene._network.device)
        if self._basis is None:
            mean = joined.mean(1, keepdim=True)
            spread = (joined - mean) @ (joined - mean).T
            self._basis = mean, torch.linalg.eigh(spread).eigenvectors[:, -DIMENSIONS:].T
        mean, components = self._basis
        return F.normalize(components @ (joined - mean), dim=0), grid

    def _memory(self, frame: int, object_id: int) -> dict[int, _Remembered]:
        """Frames that an object is looked up in.

        Of its prompted frames the nearest alone counts: later prompts may contradict earlier ones. What was tracked
        from another one is forgotten.
        """
        anchor = min((a for a in self.anchors if object_id in a.held), key=lambda a: abs(a.frame - frame))
        if self._led_by.get(object_id) != anchor.frame:
            self._led_by[object_id] = anchor.frame
            for each in (*self._sure, *self._before):
                each.held.pop(object_id, None)
        tracked = [each for each in (*self._before, *self._sure) if object_id in each.held]
        return {each.frame: each for each in (*tracked, anchor)}

    def _look_up(self, frame: int, cells: Tensor, ids: Sequence[int]) -> dict[int, _Guess]:
        """Where each object is, by what is remembered of it; objects with the same memory share the work."""
        memory = {i: self._memory(frame, i) for i in ids}
        alike: dict[tuple[int, ...], list[int]] = {}
        for i in ids:
            alike.setdefault(tuple(memory[i]), []).append(i)
        found: dict[int, _Guess] = {}
        for members in alike.values():
            entries = list(memory[members[0]].values())
            keys = torch.cat([each.cells for each in entries], 1)  # (D, M)
            before = {each.frame for each in self._before} - {each.frame for each in (*self._sure, *self.anchors)}
            lasting = torch.cat([torch.full_like(e.cells[0], e.frame not in before, dtype=torch.bool) for e in entries])
            held = {i: torch.cat([each.held[i] for each in memory[i].values()]) for i in members}
            parts = [_ask(part, keys, held, lasting) for part in cells.T.split(max(1, LOOK_UP // keys.shape[1]))]
            for i in members:
                likeness = torch.cat([part[i][1] for part in parts])
                share = torch.cat([part[i][0] for part in parts])
                found[i] = _Guess(share, _half(held[i]), float(likeness.mean()) if len(likeness) else 0.0)
        return found


@dataclass
class _Guess:
    """Where an object may be."""

    share: Tensor  # (n,) of every cell
    half: float  # the share that counts as inside
    likeness: float  # mean similarity of the cells inside with the object's, the frame before not counted


def _half(held: Tensor) -> float:
    """0.5, and less for an object so small that it fills no cell."""
    return 0.5 * max(float(held.max()), 0.02)


def _ask(cells: Tensor, keys: Tensor, held: Mapping[int, Tensor], lasting: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """Some cells (c, D) ask all remembered ones (D, M).

    Args:
        held: object -> (M,) its share of the remembered cells.
        lasting: (M,) which of them tell what the object looks like.

    Returns:
        object -> (c,) its share of the cells, and the similarities with the object of those inside.
    """
    similarity = cells @ keys
    best = similarity.topk(min(NEIGHBOURS, keys.shape[1]), 1)
    weights = (best.values / TEMPERATURE).softmax(1)
    answers = {}
    for i, known in held.items():
        share = (weights * known[best.indices]).sum(1)
        half = _half(known)
        own = (lasting & (known > half)).nonzero()[:, 0]
        inside = (share > half).nonzero()[:, 0]
        likeness = similarity[inside][:, own].max(1).values if len(own) else similarity.new_zeros(len(inside))
        answers[i] = share, likeness
    return answers


def separate(results: Mapping[int, Segmentation]) -> Results:
    """Objects kept apart: each logit less the largest of the others there, where that is more than 0.

    Of two objects the sum is then at most 0 in every cell, and so it is between cells: no pixel is in two masks.
    """
    if len(results) < 2:
        return dict(results)
    logits = torch.stack([torch.tensor(r.logits) for r in results.values()])
    first = logits.topk(2, 0)
    rows = torch.arange(len(logits)).view(-1, 1, 1)
    others = torch.where(first.indices[0] == rows, first.values[1], first.values[0])
    apart = (logits - others.clamp_min(0)).numpy()
    return {i: replace(r, logits=read_only(apart[n].copy())) for n, (i, r) in enumerate(results.items())}


def _as_prompt(odds: Tensor, sizes: ImageGeometry) -> ObjectPrompt:
    """A guess (h/4, w/4) as points inside it and as memory."""
    inside = (odds > 0).cpu().numpy()
    mask = inside.repeat(MASK_STRIDE, 0).repeat(MASK_STRIDE, 1)[: sizes.encoded[1], : sizes.encoded[0]]
    points = VisualPrompt("mask", True, np.zeros((0, 2), np.float32), mask=mask)
    return ObjectPrompt(visual=(points,), previous=GUESS_WEIGHT * odds)


def _overlap(masks: Tensor, guess: Tensor) -> Tensor:
    """(S, h, w) and (h, w), 0..1 -> (S,) IoU."""
    return torch.minimum(masks, guess).sum((1, 2)) / torch.maximum(masks, guess).sum((1, 2)).clamp_min(1e-6)


def _to_cells(values: Tensor, padded_height: int) -> Tensor:
    """A (1, C, h, w) map at stride 4, 8, 16 or 32, one value a cell."""
    stride = 2 ** round(math.log2(padded_height / values.shape[-2]))
    if stride > CELL:
        return F.interpolate(values, scale_factor=stride // CELL, mode="bilinear", align_corners=False)
    return F.avg_pool2d(values, CELL // stride, ceil_mode=True)


def _shrink(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """(h/4, w/4) -> (n,) mean of each cell."""
    return F.avg_pool2d(mask[None], CELL // MASK_STRIDE, ceil_mode=True)[0, : grid[0], : grid[1]].flatten()


def _unit(values: Tensor) -> Tensor:
    """(C, h, w), centred, each cell of length 1."""
    return F.normalize(values - values.mean((1, 2), keepdim=True), dim=0)
