"""A real server on loopback around the network that segments by colour."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from seem.predict.model import Model
from seem.serving.app import create_app
from seem.serving.engines import LocalEngine
from seem.serving.server import Server, make_server
from seem.serving.settings import Limits, Settings
from seem.serving.state import State
from tests.conftest import make_photo
from tests.fakes import WEIGHTS, FakeNetwork


@dataclass
class Running:
    """A server that runs in a thread of this process."""

    url: str
    port: int
    state: State
    network: FakeNetwork
    server: Server

    @contextmanager
    def http(self, session: bool = True, **headers: str) -> Iterator[httpx.Client]:
        """A client with a session of its own."""
        with httpx.Client(base_url=self.url, timeout=30, headers=headers) as client:
            if session:
                client.headers["X-Seem-Session"] = client.post("/v1/sessions").json()["session"]
            yield client


@contextmanager
def running(
    settings: Settings | None = None,
    network: FakeNetwork | None = None,
    files: dict[str, Path] | None = None,
    **limits: Any,
) -> Iterator[Running]:
    settings = replace(settings or Settings(), port=0)
    settings = replace(settings, limits=replace(settings.limits, **limits))
    network = network or FakeNetwork()
    engine = LocalEngine(Model(network, WEIGHTS), settings)  # type: ignore[arg-type]
    engine._files = {} if files is None else files  # making the real ones takes half a minute
    app = create_app(engine, settings)
    server = make_server(app, settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started and app.state.seem.ready)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}", port, app.state.seem, network, server)
    finally:
        server.should_exit = True
        thread.join(20)


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def other_photo(seed: int) -> np.ndarray:
    """The photo of the fixtures with another noise: another digest, the same objects."""
    rng = np.random.default_rng(seed)
    return (make_photo().astype(np.int16) + rng.integers(-3, 4, (120, 160, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


@pytest.fixture(scope="session")
def photo_file() -> bytes:
    return png(make_photo())


@pytest.fixture
def image(http: httpx.Client, photo_file: bytes) -> str:
    """The photo, uploaded: its digest."""
    answer = http.post("/v1/images", content=photo_file, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    digest: str = answer.json()["image"]
    return digest


def limits(**changes: Any) -> Limits:
    return replace(Limits(), **changes)


RED = {"type": "click", "x": 30, "y": 40}
BLUE = {"type": "click", "x": 110, "y": 40}


def ask_segment(http: httpx.Client, image: str, *prompts: Any, **more: Any) -> httpx.Response:
    body = {"objects": [{"id": 1, "prompts": list(prompts), **more}]}
    return http.post(f"/v1/images/{image}/segment", json=body)
