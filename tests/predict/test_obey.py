"""Clicks that a mask disagrees with are obeyed; what they do not ask for stays."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import seem
from seem.predict.model import Model
from seem.predict.obey import keep_far, obey_boxes, obey_clicks
from tests.tiny import tiny_model

SIZE = (24, 32)


def scene() -> tuple[Tensor, Tensor]:
    """Logits of a disk, and features that tell left from right."""
    yy, xx = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    logits = 5 - ((xx - 12).square() + (yy - 12).square()).sqrt()
    return logits, torch.stack([(xx >= 16).float() * 4, torch.rand(SIZE, generator=torch.Generator().manual_seed(0))])


def obey(clicks: list[tuple[int, int, bool]]) -> tuple[Tensor, Tensor]:
    logits, fine = scene()
    cells, positive = torch.tensor([c[:2] for c in clicks]), torch.tensor([c[2] for c in clicks])
    return logits, obey_clicks(logits, fine, cells, positive)


@given(
    st.lists(
        st.tuples(st.integers(0, 31), st.integers(0, 23), st.booleans()),
        min_size=1,
        max_size=12,
        unique_by=lambda c: (c[0] // 3, c[1] // 3),
    )
)
@settings(max_examples=60, deadline=None)
def test_every_click_is_on_its_side(clicks: list[tuple[int, int, bool]]) -> None:
    before, after = obey(clicks)
    for x, y, positive in clicks:
        assert bool(after[y, x] > 0) == positive
    if all(bool(before[y, x] > 0) == positive for x, y, positive in clicks):
        assert after is before


def test_it_is_local_and_ends_at_edges() -> None:
    """A click right of the disk: far away nothing changes, and across the feature's edge less than along it."""
    before, after = obey([(20, 12, True)])
    change = after - before
    assert change[12, 20] > 3
    assert change[0, 0].abs() < 1e-3
    assert change[12, 14] < 0.2 * change[12, 23]


@pytest.mark.parametrize("last", [True, False])
def test_of_two_clicks_on_one_cell_the_last_counts(last: bool) -> None:
    _, after = obey([(20, 12, not last), (20, 12, last)])
    assert bool(after[12, 20] > 0) == last


def kept(clicks: list[tuple[int, int, bool]], previous: Tensor) -> tuple[Tensor, Tensor]:
    logits, _ = scene()
    cells, positive = torch.tensor([c[:2] for c in clicks]), torch.tensor([c[2] for c in clicks])
    return logits, keep_far(logits, previous, cells, positive)


@pytest.mark.parametrize(
    ("clicks", "changed", "same"),
    [
        # the last click is at the left: the right is half of the round before
        ([(12, 12, True), (12, 8, True), (1, 12, False)], [(31, 12)], [(1, 12)]),
        # the round before disagrees with the first click: that is new, too
        ([(31, 12, True), (12, 8, True), (1, 12, False)], [(16, 0)], [(1, 12), (31, 12)]),
        ([(12, 12, True), (1, 12, False)], [], [(1, 12), (31, 12)]),  # too few
    ],
)
def test_far_from_new_clicks_the_round_before_stays(
    clicks: list[tuple[int, int, bool]], changed: list[tuple[int, int]], same: list[tuple[int, int]]
) -> None:
    previous = scene()[0] - 2
    previous[12, 31] = -9
    before, after = kept(clicks, previous)
    for x, y in changed:
        assert float(after[y, x]) == pytest.approx(float(before[y, x] + previous[y, x]) / 2, abs=0.05)
    for x, y in same:
        assert float(after[y, x]) == pytest.approx(float(before[y, x]))
    assert (after <= torch.maximum(before, previous) + 1e-5).all()
    assert (after >= torch.minimum(before, previous) - 1e-5).all()


def test_of_a_round_that_found_nothing_nothing_stays() -> None:
    before, after = kept([(12, 12, True), (12, 8, True), (1, 12, False)], torch.full(SIZE, -5.0))
    assert after is before


@pytest.mark.parametrize(
    ("last", "held"), [(seem.Click(10, 44, positive=False), True), (seem.Box(8, 8, 40, 40), False)]
)
def test_a_scene_keeps_what_no_new_click_is_near(last: seem.Prompt, held: bool) -> None:
    """Whatever a network answers: far from a late click its mask moves half as far as without a round before."""
    network = tiny_model()
    model = Model(network, "sha256:" + "a" * 64)
    found = model.encode(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    answer = network.prompt_decoder.forward
    level = 6.0

    def everywhere(*args, **kwargs):  # type: ignore[no-untyped-def]
        out = answer(*args, **kwargs)
        return dataclasses.replace(out, logits=torch.full_like(out.logits, level))

    network.prompt_decoder.forward = everywhere  # type: ignore[method-assign]
    clicks = [seem.Click(30, 20), seem.Click(40, 20)]
    first = found.segment(*clicks, label=False)
    level = 2.0
    second = found.segment(*clicks, last, previous=first, label=False)
    assert float(second.logits[2, 15]) == pytest.approx(4.0 if held else 2.0, abs=0.3)


def test_a_scene_obeys() -> None:
    """Whatever a network with random weights answers, clicks end up on their side of the mask."""
    model = Model(tiny_model(), "sha256:" + "a" * 64)
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    found = model.encode(pixels)
    clicks = [
        seem.Click(10, 10),
        seem.Click(50, 10, positive=False),
        seem.Click(30, 40),
        seem.Click(5, 44, positive=False),
    ]
    result = found.segment(*clicks)
    h, w = found.geometry.mask_size
    for click in clicks:
        assert bool(result.logits[min(int(click.y) // 4, h - 1), min(int(click.x) // 4, w - 1)] > 0) == click.positive


@given(
    st.lists(
        st.tuples(st.floats(0, 30), st.floats(0, 22), st.floats(0.5, 20), st.floats(0.5, 20)), min_size=1, max_size=3
    )
)
@settings(max_examples=60, deadline=None)
def test_a_mask_ends_where_the_boxes_end(found: list[tuple[float, float, float, float]]) -> None:
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in found])
    before = torch.full(SIZE, 9.0)
    after = obey_boxes(before, boxes)
    yy, xx = torch.meshgrid(torch.arange(24.0) + 0.5, torch.arange(32.0) + 0.5, indexing="ij")
    x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
    within = ((xx >= x0) & (xx <= x1) & (yy >= y0) & (yy <= y1)).any(0)
    far = ((xx < x0 - 0.6) | (xx > x1 + 0.6) | (yy < y0 - 0.6) | (yy > y1 + 0.6)).all(0)
    assert (after[within] == 9).all()
    assert (after[far] < 0).all()


@pytest.mark.parametrize(
    ("prompts", "kept"),
    [
        ([seem.Box(8, 8, 40, 40)], False),
        ([seem.Box(8, 8, 40, 40), seem.Click(20, 20)], False),
        ([seem.Box(8, 8, 40, 40), seem.Click(60, 44, positive=False)], False),
        ([seem.Box(8, 8, 40, 40), seem.Click(60, 44)], True),  # it says that the object goes on
        ([seem.Box(8, 8, 40, 40), seem.Box(44, 8, 64, 48)], False),
        ([seem.Box(8, 8, 40, 40), seem.Scribble(((50, 44), (60, 44)))], True),
    ],
)
def test_a_scene_ends_masks_at_boxes(prompts: list[seem.Prompt], kept: bool) -> None:
    network = tiny_model()
    answer = network.prompt_decoder.forward

    def everywhere(*args, **kwargs):  # type: ignore[no-untyped-def]
        out = answer(*args, **kwargs)
        return dataclasses.replace(out, logits=torch.full_like(out.logits, 9.0))

    network.prompt_decoder.forward = everywhere  # type: ignore[method-assign]
    model = Model(network, "sha256:" + "a" * 64)
    found = model.encode(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    assert bool(found.segment(*prompts, label=False).mask[2, 2]) == kept


def test_the_browser_has_the_same() -> None:
    """`web/src/decoder/obey.json` holds what this function gives; its own test compares."""
    stored = json.loads((Path(__file__).parents[2] / "web/src/decoder/obey.json").read_text())
    width, height, channels = stored["width"], stored["height"], stored["channels"]

    def wave(n: int, step: float) -> Tensor:
        return (4 * (torch.arange(n, dtype=torch.float64) * step).sin()).float()

    logits = wave(width * height, 0.113).view(height, width)
    fine = wave(channels * height * width, 0.37).view(channels, height, width)
    for case in stored["cases"]:
        cells = torch.tensor([[c["x"], c["y"]] for c in case["clicks"]])
        found = obey_clicks(logits, fine, cells, torch.tensor([c["positive"] for c in case["clicks"]]))
        assert found.flatten().tolist() == pytest.approx(case["logits"], abs=1e-3)
    previous = wave(width * height, 0.071).view(height, width)
    for case in stored["kept"]:
        cells = torch.tensor([[c["x"], c["y"]] for c in case["clicks"]])
        found = keep_far(logits, previous, cells, torch.tensor([c["positive"] for c in case["clicks"]]))
        assert found.flatten().tolist() == pytest.approx(case["logits"], abs=1e-3)
    for case in stored["boxes"]:
        found = obey_boxes(logits, torch.tensor(case["boxes"], dtype=torch.float32))
        assert found.flatten().tolist() == pytest.approx(case["logits"], abs=1e-3)
