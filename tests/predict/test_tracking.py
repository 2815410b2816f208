"""Objects through a video: who is where on which frame, on squares whose places are known."""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import seem
from seem.geometry import ImageGeometry, mask_iou
from seem.predict import tracking
from seem.predict.model import Model
from seem.predict.segmentation import Segmentation
from seem.predict.tracking import separate
from tests.fakes import FakeNetwork
from tests.tiny import tiny_model
from tests.video.clips import write_clip

WIDTH, HEIGHT, SIDE = 160, 120, 40
RED, BLUE = (240, 10, 10), (10, 10, 240)
PHOTOS = Path(__file__).parent.parent.parent / "examples" / "photos"


def place(frame: int, row: int) -> tuple[int, int]:
    """The corner of the upper square, which goes right, or the lower one, which goes left."""
    return (8 + 8 * frame, 10) if row == 0 else (112 - 8 * frame, 70)


def mask_at(corner: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[corner[1] : corner[1] + SIDE, corner[0] : corner[0] + SIDE] = True
    return mask


def picture(*squares: tuple[tuple[int, int], tuple[int, int, int]]) -> np.ndarray:
    rng = np.random.default_rng(0)
    pixels = 128 + rng.integers(-8, 9, (HEIGHT, WIDTH, 3))
    for corner, colour in squares:
        pixels[mask_at(corner)] = colour
    return pixels.astype(np.uint8)


def clip(count: int = 10) -> list[np.ndarray]:
    return [picture((place(i, 0), RED), (place(i, 1), BLUE)) for i in range(count)]


def click(frame: int, row: int) -> seem.Click:
    x, y = place(frame, row)
    return seem.Click(x + SIDE // 2, y + SIDE // 2)


def whole(frame: int, row: int) -> seem.Mask:
    return seem.Mask(mask_at(place(frame, row)))


def assert_follows(results: list[dict[int, Segmentation]], rows: dict[int, int], since: int = 0) -> None:
    for frame, masks in list(enumerate(results))[since:]:
        assert list(masks) == sorted(rows)
        for object_id, row in rows.items():
            assert mask_iou(masks[object_id].mask, mask_at(place(frame, row))) > 0.75, (frame, object_id)


# ---- what is tracked ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", [{1: [click(0, 0)]}, {0: {1: [whole(0, 0)]}}, {1: [seem.Text("red")]}])
def test_one_object(model: Model, prompts: dict[int, Any]) -> None:
    assert_follows(list(model.track(clip(), prompts)), {1: 0})


def test_two_objects_in_one_decode(model: Model, network: FakeNetwork) -> None:
    results = list(model.track(clip(), {7: [whole(0, 0)], 3: [whole(0, 1)]}))
    assert_follows(results, {7: 0, 3: 1})
    assert network.calls[2:] == [2] * 9


def test_the_names_stay(model: Model) -> None:
    results = list(model.track(clip(3), {1: [click(0, 0)]}))
    assert len({(r[1].label, r[1].label_score) for r in results}) == 1
    assert results[2][1].label is not None


def test_a_given_mask_is_the_answer_on_its_frame(model: Model) -> None:
    first = next(model.track(clip(), {1: [whole(0, 0)]}))[1]
    assert mask_iou(first.mask, mask_at(place(0, 0))) > 0.97  # logits lie at stride 4
    assert first.score == 1


@pytest.mark.parametrize("start", [4, 9])
def test_prompts_in_the_middle_go_both_ways(model: Model, start: int) -> None:
    assert_follows(list(model.track(clip(), {1: [click(start, 0)]}, start=start)), {1: 0})


def test_a_late_object(model: Model) -> None:
    results = list(model.track(clip(), {0: {1: [click(0, 0)]}, 6: {2: [click(6, 1)]}}))
    assert_follows(results, {1: 0, 2: 1})


def test_a_correction_changes_the_nearer_frames_before_it_and_all_after(model: Model) -> None:
    corrected = list(model.track(clip(), {0: {1: [click(0, 0)]}, 7: {1: [whole(7, 1)]}}))  # it meant the other square
    assert_follows(corrected[:4], {1: 0})
    assert_follows(corrected, {1: 1}, since=4)


def test_a_correction_sees_the_tracked_mask_as_memory(model: Model) -> None:
    x, y = place(5, 0)
    stroke = seem.Click(x + SIDE + 20, y + 3, positive=False)
    results = list(model.track(clip(), {0: {1: [click(0, 0)]}, 5: {1: [click(5, 0), stroke]}}))
    assert_follows(results, {1: 0})
    with pytest.raises(ValueError, match=r"frame 5, object 2: .*only negative"):
        list(model.track(clip(), {0: {1: [click(0, 0)]}, 5: {2: [stroke]}}))


def test_an_object_that_leaves_and_comes_back(model: Model) -> None:
    here, gone = clip(8), [picture((place(i, 1), BLUE)) for i in range(8)]
    frames = here[:3] + gone[3:5] + here[5:]
    results = list(model.track(frames, {1: [whole(0, 0)], 2: [whole(0, 1)]}))
    assert [r[1].area == 0 for r in results] == [False] * 3 + [True] * 2 + [False] * 3
    assert [r[1].score == 0 for r in results] == [r[1].area == 0 for r in results]
    assert mask_iou(results[7][1].mask, mask_at(place(7, 0))) > 0.75
    assert mask_iou(results[4][2].mask, mask_at(place(4, 1))) > 0.75


def test_masks_do_not_overlap(model: Model) -> None:
    upper = np.zeros((HEIGHT, WIDTH), bool)
    upper[10:30] = mask_at(place(0, 0))[10:30]
    for masks in model.track(clip(5), {1: [whole(0, 0)], 2: [seem.Mask(upper)]}):
        assert not (masks[1].mask & masks[2].mask).any()


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_separated_masks_never_share_a_pixel(count: int, seed: int) -> None:
    sizes = ImageGeometry((31, 23), (64, 48), (64, 64))
    logits = np.random.default_rng(seed).normal(0, 5, (count, *sizes.mask_size)).astype(np.float32)
    blank = np.zeros(4, np.float32)
    given_ = {i: Segmentation(v, 1.0, "predicted_iou", None, None, "", sizes, blank) for i, v in enumerate(logits)}
    apart = separate(given_)
    assert np.stack([r.mask for r in apart.values()]).sum(0).max() <= 1
    best = np.stack([r.logits for r in apart.values()])
    assert np.array_equal((best > 0).any(0), (logits > 0).any(0))  # nothing is lost


# ---- frames -------------------------------------------------------------------------------------------------------


def test_every_kind_of_source_gives_the_same(model: Model, tmp_path: Path) -> None:
    frames = clip(5)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{i:03d}.png")
    (tmp_path / "notes.txt").write_text("no image")
    sources: list[Any] = [frames, np.stack(frames), tmp_path, sorted(tmp_path.glob("*.png")), iter(frames),
                          [Image.fromarray(f) for f in frames]]  # fmt: skip
    runs = [[r[1].logits for r in model.track(source, {1: [click(0, 0)]})] for source in sources]
    for other in runs[1:]:
        assert len(other) == 5
        assert all(np.array_equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_a_video_file_goes_both_ways(model: Model, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    results = list(model.track(path, {1: [seem.Click(40, 24)]}, start=7))
    assert len(results) == 10
    middles = [(box[0] + box[2]) / 2 for r in results if (box := r[1].box)]
    assert middles == pytest.approx([12 + 4 * i for i in range(10)], abs=4)


def test_a_stream_is_read_frame_by_frame_and_forward_only(model: Model) -> None:
    taken: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for i in itertools.count():
            taken.append(i)
            yield picture((place(min(i, 9), 0), RED))

    with pytest.warns(UserWarning, match="not tracked backwards"):
        results = model.track(camera(), {2: {1: [click(2, 0)]}})
    assert taken == []
    for frame in range(5):
        mask = next(results)[1]
        assert taken == list(range(frame + 1))
        assert (mask.area > 0) == (frame >= 2)
        assert mask.score > 0 or frame < 2


def test_a_stream_prompted_on_its_first_frame_needs_no_warning(model: Model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(model.track(iter(clip(2)), {1: [click(0, 0)]}))) == 2


def test_memory_does_not_grow_with_the_video(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    kept: weakref.WeakSet[Any] = weakref.WeakSet()
    remembered = tracking._Remembered.__init__

    def counted(self: Any, *args: Any) -> None:
        remembered(self, *args)
        kept.add(self)

    monkeypatch.setattr(tracking._Remembered, "__init__", counted)
    monkeypatch.setattr(tracking._Remembered, "__hash__", object.__hash__)
    frames = (picture((place(abs(i % 18 - 9), 0), RED)) for i in itertools.count())
    for _ in zip(range(60), model.track(frames, {1: [whole(0, 0)]}), strict=False):
        alive.append(len(kept))
    assert max(alive) <= 1 + tracking.SURE_FRAMES + 2  # prompted, sure, the frame before and the one being made
    assert alive[-1] == alive[30]


def test_the_real_network_tracks_deterministically() -> None:
    network = Model(tiny_model(), "sha256:" + "0" * 64)
    frames = [f[:48, :64] for f in clip(3)]
    mask = seem.Mask(mask_at(place(0, 0))[:48, :64])
    runs = [[r[1].logits for r in network.track(frames, {1: [mask]})] for _ in range(2)]
    assert all(np.array_equal(a, b) and np.isfinite(a).all() for a, b in zip(*runs, strict=True))


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "start", "error", "said"),
    [
        ({}, 0, ValueError, "prompts: expected"),
        ([], 0, ValueError, "prompts: expected"),
        ({1: []}, 0, ValueError, "object 1: expected a list of prompts"),
        ({1: click(0, 0)}, 0, ValueError, "object 1: expected a list of prompts"),
        ({1: ["red"]}, 0, TypeError, "object 1: expected Click"),
        ({"a": [click(0, 0)]}, 0, TypeError, "object: expected a whole number"),
        ({0: {1: [click(0, 0)]}, 1: [click(0, 0)]}, 0, ValueError, "got a mix"),
        ({0: {}}, 0, ValueError, "frame 0: expected at least one object"),
        ({2: {1: [click(0, 0)]}}, 2, ValueError, "start: expected 0"),
        ({1: [click(0, 0)]}, -1, ValueError, "start"),
        ({1: [click(0, 0)]}, 10, ValueError, "frames from 0 to 9, got prompts on frame 10"),
        ({3: {1: [click(0, 0)]}, 99: {1: [click(0, 0)]}}, 0, ValueError, "got prompts on frame 99"),
    ],
)
def test_bad_prompts_are_refused_at_once(
    model: Model, prompts: Any, start: int, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        model.track(clip(), prompts, start)


@pytest.mark.parametrize(
    ("frames", "error", "said"),
    [
        ([], ValueError, "at least one, got none"),
        (3, TypeError, "frames: expected a video's path"),
        (b"abc", TypeError, "frames: expected a video's path"),
        ("no-such.mp4", ValueError, "no such file"),
    ],
)
def test_bad_frames_are_refused_at_once(model: Model, frames: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        model.track(frames, {1: [click(0, 0)]})


def test_an_empty_folder(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected images in the folder"):
        model.track(tmp_path, {1: [click(0, 0)]})


@pytest.mark.parametrize(
    ("frame", "said"),
    [(np.zeros((9, 9, 3), np.uint8), "expected 160x120 as the frames before, got 9x9"), ("x.png", "no such file")],
)
def test_a_bad_frame_is_named(model: Model, frame: Any, said: str) -> None:
    results = model.track([clip(1)[0], frame], {1: [click(0, 0)]})
    next(results)
    with pytest.raises(ValueError, match=rf"frames\[1\]: .*{said}"):
        next(results)


def test_prompts_behind_the_end(model: Model, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match="frames from 0 to 9, got prompts on frame 12"):
        list(model.track(path, {1: [seem.Click(9, 9)]}, start=12))
    with (
        pytest.warns(UserWarning, match="stream"),
        pytest.raises(ValueError, match="at least one frame, got prompts on frame 2"),
    ):
        list(model.track(iter([]), {1: [seem.Click(9, 9)]}, start=2))


def test_a_prompt_outside_the_frame_is_named(model: Model) -> None:
    with pytest.raises(ValueError, match=r"frame 3, object 1: .*expected 0 <= x < 160"):
        list(model.track(clip(), {1: [seem.Click(160, 0)]}, start=3))


# ---- the weights that ship ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_shipped_weights_follow_a_cat() -> None:
    """The camera pans over a photo; truth is the cat's own mask, moved."""
    torch.manual_seed(0)
    model = seem.load("seem-tiny", device="cpu")
    photo = np.asarray(seem.load_image(PHOTOS / "cat.jpg"))
    height, width = photo.shape[0] * 3 // 4, photo.shape[1] * 3 // 4
    cat = model.encode(photo).segment(seem.Text("cat")).mask
    steps = [(photo.shape[1] // 28 * i, photo.shape[0] // 28 * i) for i in range(8)]
    frames = [photo[y : y + height, x : x + width] for x, y in steps]
    truth = [cat[y : y + height, x : x + width] for x, y in steps]
    results = list(model.track(frames, {1: [seem.Mask(truth[0])]}))
    assert np.mean([mask_iou(r[1].mask, t) for r, t in zip(results, truth, strict=True)]) > 0.85
    assert mask_iou(truth[0], truth[-1]) < 0.8  # standing still would not do
