"""Zooming in on the page: the first mask is there at once, and gives way to the one from close up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import seem
from seem.predict.tiles import TiledScene, TiledSegmentation
from tests.page.conftest import ROOT, SECONDS, Seem, Server, iou, truth

pytestmark = pytest.mark.slow

# Around a coin each, from corner to corner: the tab that tests share keeps windows, so every test has its own.
COIN, BIG, THIRD, FOURTH, FIFTH, SIXTH = (
    (21, 33, 67, 74),
    (316, 157, 378, 217),
    (133, 30, 179, 74),
    (189, 170, 237, 216),
    (246, 95, 297, 143),
    (82, 106, 122, 144),
)
WINDOWS = "**/scene?window=*"


@pytest.fixture(scope="module")
def python() -> Callable[..., TiledSegmentation]:
    """What Python says of the photo `coins`, by scenes that were saved and loaded, as the page has them."""
    model, path = seem.load(device="cpu"), ROOT / "examples/photos/coins.jpg"
    scene = model.encode_large(path, zoom=True)

    def ask(*prompts: Any, previous: TiledSegmentation | None = None) -> TiledSegmentation:
        scene.segment(*prompts, previous=previous)  # encodes the windows
        loaded = TiledScene.from_bytes(scene.to_bytes(), model, path)
        found = loaded.segment(*prompts, previous=previous)
        assert isinstance(found, TiledSegmentation) and loaded.encoded == 0
        return found

    return ask


class Gate:
    """Holds the scenes of windows back, or fails them, until it is opened; counts them."""

    def __init__(self, page: Seem) -> None:
        self.page, self.held, self.asked = page, list[Any](), list[str]()
        self.closed, self.status = False, 200
        page.page.route(WINDOWS, self._pass)

    def _pass(self, route: Any) -> None:
        self.asked.append(route.request.url)
        if self.status != 200:
            route.fulfill(status=self.status, json={"error": {"code": "invalid", "message": "not now"}})
        elif self.closed:
            self.held.append(route)
        else:
            route.continue_()

    def wait(self) -> None:
        """Until something is held back."""
        end = time.monotonic() + SECONDS / 1000
        while not self.held and time.monotonic() < end:
            self.page.page.wait_for_timeout(20)
        assert self.held, "no window was asked for"

    def open(self) -> None:
        self.closed = False
        for route in self.held:
            route.continue_()
        self.held.clear()
        self.page.page.wait_for_selector("canvas[data-testid=stage][data-zooming=false]")


@pytest.fixture
def gate(page: Seem) -> Iterator[Gate]:
    made = Gate(page)
    yield made
    page.page.unroute(WINDOWS)


def draw(page: Seem, box: tuple[int, int, int, int]) -> None:
    page.tool("box")
    page.drag(box[:2], box[2:], zoomed=False)


def box_of_pixels(box: tuple[int, int, int, int]) -> seem.Box:
    """The box that `draw` draws: the test's pointer goes to the middle of pixels."""
    return seem.Box(*(v + 0.5 for v in box))


def test_a_box_ends_in_a_mask_from_close_up(page: Seem, gate: Gate, python: Callable[..., TiledSegmentation]) -> None:
    page.sample("coins")
    gate.closed = True
    draw(page, COIN)
    gate.wait()
    [coarse] = page.masks("coins")  # at once
    gate.open()
    [fine] = page.masks("coins")
    expected = python(box_of_pixels(COIN))
    assert expected.window != (0, 0, 384, 303)
    assert iou(fine, expected.mask) > 0.99 > iou(fine, coarse)
    assert iou(fine, truth("coins-small")) > 0.85
    page.tool("click")
    page.click(44, 53)
    [second] = page.masks("coins")
    assert iou(second, python(box_of_pixels(COIN), seem.Click(44, 53), previous=expected).mask) > 0.99
    assert len(gate.asked) == 1  # the window is there by now
    for count in (1, 0):
        page.get("undo").click()
        page.wait_objects(count)
    page.get("redo").click()
    page.wait_objects(1)
    [again] = page.masks("coins")
    assert (again == fine).all()


def test_undo_wins_over_a_late_mask(page: Seem, gate: Gate) -> None:
    page.sample("coins")
    gate.closed = True
    draw(page, BIG)
    gate.wait()
    [coarse] = page.masks("coins")
    page.get("undo").click()
    page.wait_objects(0, zoomed=False)
    gate.open()
    page.settle()
    assert page.get("object").count() == 0
    page.get("redo").click()
    page.wait_objects(1)
    [again] = page.masks("coins")
    assert (again == coarse).all()


def test_a_newer_prompt_wins_over_a_late_mask(page: Seem, gate: Gate) -> None:
    page.sample("coins")
    gate.closed = True
    draw(page, SIXTH)
    gate.wait()
    page.tool("click")
    page.page.mouse.click(*page.at(152, 125, zoomed=False))  # the coin beside it: clicks are obeyed
    page.settle(zoomed=False)
    gate.open()
    [both] = page.masks("coins")
    assert both[125, 152]
    page.get("undo").click()
    page.settle()
    [first] = page.masks("coins")
    assert not first[125, 152]


def test_a_brush_wins_over_a_late_mask(page: Seem, gate: Gate) -> None:
    page.sample("coins")
    gate.closed = True
    draw(page, THIRD)
    gate.wait()
    page.tool("brush")
    page.drag((100, 140), (140, 140), zoomed=False)
    [painted] = page.masks("coins")
    assert painted[140, 120]
    gate.open()
    [after] = page.masks("coins")
    assert (after == painted).all()
    assert page.names()


def test_the_first_mask_stays_where_the_server_says_no(page: Seem, gate: Gate) -> None:
    page.sample("coins")
    gate.status = 422
    draw(page, FOURTH)
    page.wait_objects(1)
    [mask] = page.masks("coins")
    assert len(gate.asked) == 1 and mask.sum() > 1000
    assert page.get("toasts").inner_text() == ""


def test_it_can_be_turned_off(page: Seem, gate: Gate) -> None:
    page.sample("coins")
    page.get("settings").click()
    page.get("zoom-objects").uncheck()
    page.get("dialog-close").click()
    try:
        draw(page, FIFTH)
        page.wait_objects(1)
        assert not gate.asked
    finally:
        page.get("settings").click()
        page.get("zoom-objects").check()
        page.get("dialog-close").click()


def test_the_server_zooms_where_it_decodes(
    server: Server, browser: Any, python: Callable[..., TiledSegmentation]
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True, locale="en-US")
    page = Seem(context.new_page(), server.url)
    page.open("?decoder=server")
    page.sample("coins")
    draw(page, COIN)
    page.wait_objects(1)
    [mask] = page.masks("coins")
    assert np.array_equal(mask, python(box_of_pixels(COIN)).mask)
    context.close()
