"""Zooming in as the browser does it too: `web/src/decoder/zoom.json` holds what this module's journeys come to.

`python -m tests.predict.test_zoomed_photo` writes the file anew; web/src/decoder/zoom.test.ts compares.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from seem import geometry
from seem.geometry import MASK_STRIDE, ImageGeometry
from seem.predict.model import Model
from seem.predict.scene import Scene
from seem.predict.segmentation import Segmentation
from seem.predict.tiles import TiledSegmentation, Window
from seem.predict.zoomed_photo import MissingWindows, ZoomedPhoto
from seem.prompts import Box, Click, Mask, Polygon, Scribble, Text, object_to_json, prompt_from_json
from tests.fakes import WEIGHTS, FakeNetwork

FILE = Path(__file__).parents[2] / "web/src/decoder/zoom.json"
DIGEST = "sha256:" + "0" * 64
Disk = tuple[float, float, float]  # x, y and radius in pixels of the photo


class DiskScene:
    """A window in which there is one disk, whatever the prompts; it writes down what it is asked."""

    def __init__(self, window: Window, disk: Disk, journey: list[dict[str, Any]]) -> None:
        x0, y0, x1, y1 = window
        self.digest, self.size = DIGEST, (x1 - x0, y1 - y0)
        self.geometry = ImageGeometry.of(self.size, FakeNetwork().config.image)
        self._window, self._disk, self._journey = window, disk, journey

    def segment_all(self, objects: Any, previous: Any, vocabulary: Any, label: Any) -> list[Segmentation]:
        [prompts], [memory] = objects, previous
        seen = {"window": list(self._window), "prompts": object_to_json(0, prompts)["prompts"]}
        self._journey.append(seen | {"memory": None if memory is None else checksum(memory)})
        empty = np.zeros(0, np.float32)
        return [Segmentation(self._logits(), 0.5, "predicted_iou", None, None, DIGEST, self.geometry, empty)]

    def _logits(self) -> np.ndarray:
        """How far inside the disk each cell's centre lies, from -20 to 20."""
        height, width = self.geometry.mask_size
        dx, dy = MASK_STRIDE / self.geometry.scale
        x, y, radius = self._disk
        xs, ys = self._window[0] + (np.arange(width) + 0.5) * dx, self._window[1] + (np.arange(height) + 0.5) * dy
        inside: np.ndarray = radius - np.hypot(xs - x, ys[:, None] - y)
        return inside.clip(-20, 20).astype(np.float32)

    def _check_previous(self, previous: Any, where: str) -> None:
        assert previous.shape == self.geometry.mask_size


def checksum(logits: np.ndarray) -> float:
    """Tells which memory was read, and where."""
    ramp = np.arange(logits.size).reshape(logits.shape) / logits.size
    return round(float((logits * ramp).mean()), 3)


def travel(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Where each round of a case looks, and what it comes to."""
    width, height = case["photo"]
    whole = (0, 0, width, height)
    rounds: list[dict[str, Any]] = []
    before: TiledSegmentation | None = None
    for prompts in case["rounds"]:
        journey: list[dict[str, Any]] = []
        model = Model(FakeNetwork(), WEIGHTS)  # type: ignore[arg-type]
        first = DiskScene(whole, case["disk"], journey)
        closer = partial(DiskScene, disk=case["closer"] or case["disk"], journey=journey)
        photo = ZoomedPhoto(model, cast(Scene, first), cast(Any, closer))
        found = photo.segment(*map(prompt_from_json, prompts), previous=before, label=False)
        assert isinstance(found, TiledSegmentation)
        before = found
        box = None if found.box is None else list(found.box)
        rounds.append({"journey": journey, "window": list(found.window), "box": box})
    return rounds


def _square(x: int, y: int, side: int, size: tuple[int, int]) -> Mask:
    mask = np.zeros((size[1], size[0]), bool)
    mask[y : y + side, x : x + side] = True
    return Mask(mask)


def make_cases() -> list[dict[str, Any]]:
    """Photos with a disk, the disk that windows show instead, and rounds with all prompts so far."""
    clicks = [Click(150, 140), Click(130.7, 120), Click(170, 160, positive=False)]
    far = Click(610, 30, positive=False)
    cases: list[tuple[str, tuple[int, int], Disk, Disk | None, list[list[Any]]]] = [
        ("box", (640, 480), (150, 140, 50), None, [[Box(100, 90, 200, 190)], [Box(100, 90, 200, 190), far]]),
        ("clicks", (640, 480), (150, 140, 50), None, [clicks[:1], clicks[:2], clicks, [*clicks, far]]),
        ("a click elsewhere", (640, 480), (150, 140, 50), None, [clicks, [*clicks, Click(500.2, 300.9)]]),
        ("at the corner", (640, 480), (10, 475, 30), None, [[Scribble(((-3, 470), (20.5, 477)), width=3)]]),
        ("polygon", (641, 353), (321, 77, 61), None, [[Polygon(((290, 50), (350, 40.5), (330, 120)))]]),
        ("mask", (640, 480), (420, 300, 44), None, [[_square(380, 260, 80, (640, 480)), far]]),
        ("tiny", (640, 480), (333, 229, 26), None, [[Click(333, 229)], [Click(333, 229), Click(335, 226)]]),
        ("tiny on a large photo", (3001, 2000), (2500, 1500, 120), None, [[Click(2500, 1500)]]),
        ("large", (640, 480), (320, 240, 200), None, [[Box(100, 20, 540, 460)]]),
        ("text", (640, 480), (150, 140, 50), None, [[Text("disk")], [Text("disk"), *clicks]]),
        ("something else there", (640, 480), (150, 140, 50), (110, 90, 12), [[Box(100, 90, 200, 190)]]),
        ("cut there", (640, 480), (150, 140, 50), (150, 140, 90), [[Box(100, 90, 200, 190)]]),
        ("cut there later", (640, 480), (150, 140, 50), (150, 140, 90), [clicks[:2], clicks]),
        ("nothing there", (640, 480), (150, 140, 50), (0, 0, -5), [[Box(100, 90, 200, 190)]]),
        ("nothing at all", (640, 480), (0, 0, -5), None, [[Box(100, 90, 200, 190)]]),
        ("a narrow photo", (640, 21), (300, 10, 30), None, [[Box(270, 2, 330, 19)]]),
    ]
    return [
        {
            "name": name,
            "photo": list(size),
            "disk": list(disk),
            "closer": closer and list(closer),
            "rounds": [object_to_json(0, prompts)["prompts"] for prompts in rounds],
        }
        for name, size, disk, closer, rounds in cases
    ]


@pytest.mark.parametrize("number", range(len(make_cases())), ids=[case["name"] for case in make_cases()])
def test_the_browser_is_told_what_python_does(number: int) -> None:
    stored, case = json.loads(FILE.read_text())[number], make_cases()[number]
    assert stored == {**case, "expected": travel(case)}


def test_cases_go_everywhere() -> None:
    """The file is worth comparing with: objects are zoomed into, left alone, and given up."""
    found = {case["name"]: travel(case) for case in make_cases()}
    windows = {name: [tuple(r["window"]) for r in rounds] for name, rounds in found.items()}
    assert windows["box"][0] == windows["box"][1] == (75, 65, 225, 215)
    assert [w[2] - w[0] < 640 for w in windows["clicks"]] == [False, False, True, True]
    assert windows["tiny"][0] != (0, 0, 640, 480)
    for name in ("large", "something else there", "cut there", "nothing there", "nothing at all"):
        assert windows[name] == [(0, 0, 640, 480)]
    assert len(found["cut there later"][1]["journey"]) > 1


def test_a_photo_says_which_windows_are_missing() -> None:
    case = make_cases()[0]
    scene = cast(Any, DiskScene((0, 0, 640, 480), case["disk"], []))
    model = Model(FakeNetwork(), WEIGHTS)  # type: ignore[arg-type]
    photo = ZoomedPhoto(model, scene, lambda window: None)
    with pytest.raises(MissingWindows) as raised:
        photo.segment(Box(100, 90, 200, 190))
    assert raised.value.windows == [(75, 65, 225, 215)]
    with pytest.raises(MissingWindows):
        photo.scene((0, 0, 40, 40))
    with pytest.raises(ValueError, match="expected logits of shape"):
        photo.remembered(np.zeros((3, 3), np.float32), (0, 0, 40, 40))


def test_a_window_s_memory_lies_where_the_window_does() -> None:
    scene = cast(Any, DiskScene((0, 0, 640, 480), (150, 140, 50), []))
    photo = ZoomedPhoto(Model(FakeNetwork(), WEIGHTS), scene, lambda window: None)  # type: ignore[arg-type]
    closer = DiskScene((75, 65, 225, 215), (150, 140, 50), [])._logits()
    flat = photo.flat(closer, (75, 65, 225, 215))
    assert flat.shape == scene.geometry.mask_size and flat[0, 0] == -20
    assert geometry.mask_iou(flat > 0, scene._logits() > 0) > 0.95


if __name__ == "__main__":
    rows = [json.dumps({**case, "expected": travel(case)}) for case in make_cases()]
    FILE.write_text("[\n" + ",\n".join(rows) + "\n]\n")
