"""The same app on Ray Serve, with two replicas of each part, around random weights of the real network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seem
from seem.predict.tiles import TiledSegmentation
from seem.serving import Client, ServerError
from tests.serving.conftest import other_photo, wait_until

pytest.importorskip("ray.serve")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from seem.checkpoints.files import save_model
    from tests.tiny import tiny_model

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(tiny_model(), path)
    return path


@pytest.fixture(scope="module")
def url(weights: Path) -> Iterator[str]:
    """A server in a thread here; its work in four replicas."""
    import threading

    import ray

    from seem.serving import ray_serve
    from seem.serving.app import create_app
    from seem.serving.server import make_server
    from seem.serving.settings import Settings

    os.environ.setdefault("RAY_raylet_start_wait_time_s", "240")  # CI machines are slow
    settings = Settings(port=0, encode_workers=2, decode_workers=2)
    engine = ray_serve.start(settings, str(weights), "cpu", threads=1, cpus=0.1, gpus=0)
    engine.decoder_files = _none  # type: ignore[method-assign]  # making them takes half a minute
    app = create_app(engine, settings)
    server = make_server(app, settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started and app.state.seem.ready, 60)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    ray_serve.stop()
    ray.shutdown()


async def _none() -> dict[str, Path]:
    return {}


def test_it_answers_as_the_library_does_from_every_replica(url: str, weights: Path) -> None:
    model = seem.load(weights, device="cpu")
    with Client(url) as client:
        assert client.info()["weights"] == model.weights
        for seed in range(3):
            photo = other_photo(seed)
            scene = client.encode(photo)
            local = seem.Scene.from_bytes(scene.to_bytes(), model)
            for _ in range(3):  # whichever replica answers, also one that has not seen the scene
                mine, expected = scene.segment(seem.Click(30, 40)), local.segment(seem.Click(30, 40))
                np.testing.assert_array_equal(mine.mask, expected.mask)
                assert mine.label_score == pytest.approx(expected.label_score, abs=1e-4)  # of random weights: names tie
            second = scene.segment(seem.Click(30, 40), seem.Click(90, 9, positive=False), previous=mine)
            assert second.image == scene.digest


def test_windows_are_encoded_by_replicas(url: str, weights: Path) -> None:
    model, photo, box = seem.load(weights, device="cpu"), other_photo(7), seem.Box(20, 30, 60, 70)
    large = model.encode_large(photo, zoom=True)
    large.segment(box)  # encodes its windows
    expected = seem.TiledScene.from_bytes(large.to_bytes(), model, photo).segment(box)
    with Client(url) as client:
        found = client.encode(photo, zoom=True).segment(box)
    assert isinstance(expected, TiledSegmentation) and found.window == expected.window and large.encoded > 1
    np.testing.assert_array_equal(found.mask, expected.mask)


def test_references_between_scenes(url: str) -> None:
    with Client(url) as client:
        one, two = client.encode(other_photo(4)), client.encode(other_photo(5))
        assert two.segment(seem.Reference(one, seem.Box(20, 30, 60, 70))).score >= 0


def test_what_is_wrong_comes_back_in_one_line(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(ServerError, match=r"^prompts\[0\].*0 <= x < 160") as bad:
            client.encode(other_photo(6)).segment(seem.Click(900, 1))
        assert (bad.value.status, bad.value.code) == (422, "invalid")
        with pytest.raises(ServerError) as broken:
            client.encode(b"\x89PNG nothing")
        assert broken.value.status == 415


def test_video(url: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from tests.video.clips import FRAMES, write_clip

    clip = write_clip(tmp_path / "clip.mp4")
    with Client(url) as client:
        found: list[Any] = list(client.track(clip, {1: [seem.Click(12, 24)]}))
    assert len(found) == FRAMES
