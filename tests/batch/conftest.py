"""A folder of photos, and the command run on it with the network that segments by colour."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import seem
from seem.cli import main
from seem.predict.model import Model
from tests.conftest import make_photo
from tests.fakes import WEIGHTS, FakeNetwork

PHOTOS = 10

Run = Callable[..., tuple[int, str, str]]


def write_photos(folder: Path, count: int = PHOTOS) -> list[Path]:
    """The test photo, moved a little further in each; no two are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    photo = make_photo()
    paths = [folder / f"{i:02d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(np.roll(photo, 3 * i, axis=1)).save(path)
    return paths


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: FakeNetwork) -> Path:
    """The current folder, with `photos/` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(seem, "load", lambda name, device="auto": Model(network, WEIGHTS))  # type: ignore[arg-type]
    write_photos(tmp_path / "photos")
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str) -> tuple[int, str, str]:
        code = main(["batch", *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def results(out: Path) -> dict[str, bytes]:
    """Everything that a run is for, by name; all but its own books."""
    parts = [p for name in ("shards", "masks", "panoptic") for p in sorted((out / name).glob("*"))]
    return {str(p.relative_to(out)): p.read_bytes() for p in [*parts, out / "errors.jsonl", out / "images.jsonl"]}


def coco(out: Path) -> dict[str, Any]:
    """All shards as one COCO file."""
    joined: dict[str, Any] = {"images": [], "annotations": []}
    for path in sorted((out / "shards").glob("*.json")):
        document = json.loads(path.read_text())
        joined["images"] += document["images"]
        joined["annotations"] += document["annotations"]
        joined["categories"] = document["categories"]
    return joined
