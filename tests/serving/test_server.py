"""`seem serve` as a process: its options, its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import seem
from seem.cli import main
from seem.geometry import mask_iou
from seem.serving import Client
from tests.serving.conftest import other_photo, png, running, wait_until

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--engine", "cluster"], "--engine: expected local or ray"),
        (["--cors-origin", "tool.example"], "--cors-origin: expected https://host"),
        (["--cors-origin", "https://tool.example/path"], "--cors-origin"),
        (["--label-studio", "studio"], "--label-studio"),
        (["--port", "70000"], "--port"),
        (["--model", "nothing"], "nothing"),
        (["--max-queue", "0"], "--max-queue"),
    ],
)
def test_bad_options(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *options]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    text = capsys.readouterr().out
    assert "seem serve --host" in " ".join(text.split()) and "--token" in text


def slow_engine(server: Any, seconds: float) -> threading.Event:
    """Makes every call of the engine take so long; the event is set when one has begun."""
    began = threading.Event()
    real = server.state.engine.worker.segment

    def slow(*args: Any) -> Any:
        began.set()
        time.sleep(seconds)
        return real(*args)

    server.state.engine.worker.segment = slow
    return began


def test_drain_answers_what_is_in_flight_and_refuses_what_is_new() -> None:
    with running() as server, server.http() as http:
        image = http.post("/v1/images", content=png(other_photo(1)), headers={"Content-Type": "image/png"}).json()[
            "image"
        ]
        began = slow_engine(server, 0.6)
        answers: list[httpx.Response] = []
        body = {"objects": [{"id": 1, "prompts": [{"type": "click", "x": 30, "y": 40}]}]}
        asking = threading.Thread(target=lambda: answers.append(http.post(f"/v1/images/{image}/segment", json=body)))
        asking.start()
        assert began.wait(5)
        server.server.handle_exit(signal.SIGTERM, None)
        server.server._captured_signals.clear()  # so that it is not raised again in this process
        with server.http(session=False) as other:
            ready, refused = other.get("/health/ready"), other.post("/v1/sessions")
            assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
            assert refused.status_code == 503 and refused.headers["retry-after"]
            assert other.get("/health/live").is_success
        asking.join()
        assert answers[0].status_code == 200
        wait_until(lambda: server.server.should_exit or not server.server.servers[0].is_serving())


def test_clicks_do_not_wait_for_panoptic_of_others() -> None:
    with running() as server, server.http() as one, server.http() as two:
        image = one.post("/v1/images", content=png(other_photo(1)), headers={"Content-Type": "image/png"}).json()[
            "image"
        ]
        two.post("/v1/images", content=png(other_photo(1)), headers={"Content-Type": "image/png"})
        begun, done = threading.Event(), threading.Event()

        def panoptic(*args: Any) -> Any:
            begun.set()
            done.wait(10)
            return {"image": {"width": 1, "height": 1}, "segments": []}

        server.state.engine.worker.panoptic = panoptic  # type: ignore[attr-defined]
        heavy = threading.Thread(target=lambda: one.post(f"/v1/images/{image}/panoptic", json={}))
        heavy.start()
        assert begun.wait(5)
        body = {"objects": [{"id": 1, "prompts": [{"type": "click", "x": 30, "y": 40}]}]}
        assert two.post(f"/v1/images/{image}/segment", json=body).is_success
        done.set()
        heavy.join()


def test_a_full_queue_of_encodes() -> None:
    with running(queue=1, queue_per_session=1) as server:
        opened = threading.Event()
        real = server.state.engine.worker.encode  # type: ignore[attr-defined]

        def slow(*args: Any) -> Any:
            opened.wait(10)
            return real(*args)

        server.state.engine.worker.encode = slow  # type: ignore[attr-defined]
        statuses: list[int] = []

        def upload(seed: int) -> None:
            with server.http() as http:
                answer = http.post("/v1/images", content=png(other_photo(seed)), headers={"Content-Type": "image/png"})
                statuses.append(answer.status_code)
                assert answer.status_code != 503 or int(answer.headers["retry-after"]) >= 1

        threads = [threading.Thread(target=upload, args=(i,)) for i in range(5)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(statuses) >= 3)  # one is worked on, one waits, the others are refused
        opened.set()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 200, 503, 503, 503]


# ---- the real thing -----------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def process(*options: str, seconds: float = 120, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`seem serve` with the shipped weights in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "seem", "serve", "--port", str(port), *options]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert started.poll() is None, started.stderr and started.stderr.read()
        try:
            return httpx.get(f"{url}/health/ready").is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(ready, seconds)
        yield url, started
    finally:
        started.kill()
        started.wait()


@pytest.mark.slow
def test_the_shipped_model_as_a_service(tmp_path: Path) -> None:
    """One process from start to SIGTERM, with the weights of the package; it answers as the library does."""
    with process(SEEM_TOKEN="secret") as (url, server):
        assert httpx.get(f"{url}/v1/info").status_code == 401
        photo = PHOTOS / "cat.jpg"
        with Client(url, token="secret") as client:
            scene = client.encode(photo)
            model = seem.load(device="cpu")
            local = seem.Scene.from_bytes(scene.to_bytes(), model)
            assert len(scene.to_bytes()) <= 4 << 20
            click = seem.Click(200, 150)
            for prompts in ([click], [seem.Text("cat")], [seem.Box(5, 5, 440, 295)], [click, seem.Text("cat")]):
                mine, expected = scene.segment(*prompts), local.segment(*prompts)
                assert mask_iou(mine.mask, expected.mask) > 0.999 and mine.label == expected.label
            assert client.text(["cat"])["sentence"].shape[0] == 1
            answer = client.ask("POST", f"/v1/images/{scene.digest}/reference", json={"prompts": [click.to_json()]})
            assert len(answer.content) > 1000
            wide = np.asarray(Image.open(photo).resize((900, 600)))
            other = client.encode(wide)
            found = other.segment(seem.Reference(scene, click))
            assert mask_iou(found.mask, other.segment(seem.Click(400, 300)).mask) > 0.5
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) in (0, -signal.SIGTERM)
        assert server.stderr is not None
        lines = [json.loads(line) for line in server.stderr.read().splitlines()]
        assert any(line.get("route") == "/v1/images/{digest}/segment" for line in lines)
        assert "secret" not in json.dumps(lines)
