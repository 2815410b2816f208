"""The same run on Ray Data: the same results, also when a worker is killed in the middle."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seem.checkpoints.files import save_model
from seem.cli import main
from tests.batch.conftest import results
from tests.tiny import tiny_model

PHOTOS = 48

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds workers in /proc"),
]


def workers(name: str) -> list[int]:
    """Process ids of this user's Ray workers that are of a class."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if command.startswith("ray::") and f"({name})" in command:
            found.append(int(folder.name))
    return found


def kill_one(killed: list[int], stop: threading.Event, out: Path) -> None:
    """Kill an encoding worker once the first results are there."""
    while not stop.is_set():
        time.sleep(0.02)
        journal = out / "journal" / "000000.jsonl"
        busy = workers("Encode")
        if journal.exists() and journal.stat().st_size and busy:
            os.kill(busy[0], signal.SIGKILL)
            killed.append(busy[0])
            return


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_raylet_start_wait_time_s", "300")  # a busy machine is slow
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
        yield
        ray.shutdown()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder the run is in, with photos, a file that is none, and a model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(PHOTOS):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(tmp_path / "photos" / f"{i:02d}.png")
    (tmp_path / "photos" / "07.png").write_bytes(b"no picture")
    save_model(tiny_model(), tmp_path / "tiny.safetensors")
    return tmp_path


COMMAND = ["batch", "photos", "--box", "8,8,40,40", "--model", "tiny.safetensors", "--device", "cpu"]


def test_a_worker_that_is_killed_changes_nothing(photos: Path, cluster: None) -> None:
    command = [*COMMAND, "--shard-size", "48"]
    assert main([*command, "--out", "local"]) == 0
    killed: list[int] = []
    stop = threading.Event()
    watch = threading.Thread(target=kill_one, args=(killed, stop, photos / "ray"))
    watch.start()
    try:
        code = main([*command, "--out", "ray", "--engine", "ray"])
    finally:
        stop.set()
        watch.join()
    assert code == 0
    assert killed
    assert results(photos / "ray") == results(photos / "local")


def test_large_images_are_the_same_on_a_cluster(photos: Path, cluster: None) -> None:
    command = [*COMMAND, "--tiles", "64"]
    for i, photo in enumerate(sorted((photos / "photos").glob("*.png"))):
        if i < 9:
            Image.fromarray(np.full((96, 128, 3), 20 * i, np.uint8)).save(photo)
        else:
            photo.unlink()
    assert main([*command, "--out", "local"]) == 0
    assert main([*command, "--out", "ray", "--engine", "ray"]) == 0
    assert results(photos / "ray") == results(photos / "local")
    plain = [*COMMAND, "--out", "plain"]
    assert main(plain) == 0
    assert results(photos / "plain") != results(photos / "local")  # tiles were used
