"""The Python client gives what the library gives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import seem
from seem import geometry
from seem.export.annotations import AnnotatedImage, AnnotatedObject
from seem.predict.model import Model
from seem.predict.scene import Scene
from seem.serving import Client, ServerError
from seem.serving.client import RemoteScene
from tests.conftest import BLUE_BOX, RED_BOX, box_mask
from tests.serving.conftest import Running, other_photo, running


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.url) as found:
        yield found


@pytest.fixture
def remote(client: Client, photo: np.ndarray) -> RemoteScene:
    return client.encode(photo)


@pytest.fixture
def local(scene: Scene, model: Model) -> Scene:
    """The scene as it is after the way to a server."""
    return Scene.from_bytes(scene.to_bytes(), model)


def test_encode_takes_what_the_library_takes(client: Client, photo: np.ndarray, tmp_path: Path, local: Scene) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    for image in (photo, Image.fromarray(photo), path, str(path), path.read_bytes()):
        scene = client.encode(image)
        assert (scene.digest, scene.size) == (local.digest, local.size)
    assert client.encode(path).to_bytes() == local.to_bytes()
    with pytest.raises(TypeError, match="image"):
        client.encode(3)
    with pytest.raises(ServerError, match="expected a JPEG, PNG"):
        client.encode(b"nothing")


def test_segment_with_memory(remote: RemoteScene, local: Scene) -> None:
    click, other = seem.Click(30, 40), seem.Click(110, 40, positive=False)
    mine, expected = remote.segment(click), local.segment(click)
    assert mine.to_json() == expected.to_json()
    np.testing.assert_array_equal(mine.mask, expected.mask)
    second, expected = remote.segment(click, other, previous=mine), local.segment(click, other, previous=expected)
    assert second.to_json() == expected.to_json()
    assert remote.segment(click, previous=np.array(mine.mask)).area > 0
    assert len(mine.to_polygons()) == len(expected.to_polygons()) == 1
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(mine.to_png()))) > 0, mine.mask)


def test_memory_that_the_server_forgot_is_sent_as_a_mask(photo: np.ndarray) -> None:
    with running(round_bytes=1) as server, Client(server.url) as client:  # it keeps one round
        scene = client.encode(photo)
        first = scene.segment(seem.Click(30, 40))
        scene.segment(seem.Click(110, 40))
        again = scene.segment(seem.Click(30, 40), previous=first)
        assert geometry.mask_iou(again.mask, first.mask) > 0.9


def test_segment_all_find_label_panoptic(remote: RemoteScene, local: Scene) -> None:
    objects = [[seem.Click(30, 40)], [seem.Text("blue")]]
    mine, expected = remote.segment_all(objects, vocabulary=["red", "blue"]), local.segment_all(
        objects, vocabulary=["red", "blue"]
    )  # fmt: skip
    assert [r.to_json() for r in mine] == [r.to_json() for r in expected]
    assert [r.to_json() for r in remote.find("red")] == [r.to_json() for r in local.find("red")]
    assert remote.find(seem.Text("zebra")) == []
    assert remote.label(mine[0], ["red", "blue"], top=1)[0][0] == "red"
    assert remote.label(box_mask(BLUE_BOX), ["red", "blue"]) == local.label(box_mask(BLUE_BOX), ["red", "blue"])
    names = ["red", "blue", "green", ("grey", "stuff")]
    p, q = remote.panoptic(names, background=True), local.panoptic(names, background=True)
    np.testing.assert_array_equal(p.map, q.map)
    assert p.segments == q.segments
    assert remote.everything(names).map.max() >= 3


def test_reference(client: Client, remote: RemoteScene, photo: np.ndarray) -> None:
    other = client.encode(other_photo(1))
    found = remote.segment(seem.Reference(other, seem.Box(*BLUE_BOX)))
    assert geometry.mask_iou(found.mask, box_mask(BLUE_BOX)) > 0.85


def test_text_and_info(client: Client) -> None:
    assert client.info()["model"] == "fake"
    assert client.text(["red", "blue"])["sentence"].shape == (2, 64)


def test_errors_are_value_errors_with_the_server_s_words(remote: RemoteScene) -> None:
    with pytest.raises(ValueError, match="0 <= x < 160") as bad:
        remote.segment(seem.Click(500, 1))
    assert isinstance(bad.value, ServerError) and (bad.value.status, bad.value.code) == (422, "invalid")
    with pytest.raises(TypeError, match="vocabulary"):
        remote.segment(seem.Click(1, 1), vocabulary="dog")
    with pytest.raises(TypeError, match="previous"):
        remote.segment(seem.Click(1, 1), previous=np.zeros((3, 3)))


def test_a_lost_session_and_a_dropped_image_are_made_good(server: Running, photo: np.ndarray) -> None:
    with Client(server.url) as client:
        scene = client.encode(photo)
        expected = scene.segment(seem.Click(30, 40)).rle
        server.state.sessions.close_all()
        assert scene.segment(seem.Click(30, 40)).rle == expected
        server.state.sessions.images.discard(scene.digest)
        assert scene.segment(seem.Click(30, 40)).rle == expected


def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    answers = [httpx.Response(503, headers={"Retry-After": "3"}), httpx.Response(200, json={"model": "m"})]
    transport = httpx.MockTransport(lambda request: answers.pop(0))
    with Client("http://server", transport=transport) as client:
        assert client.info() == {"model": "m"}
    assert waits == [3.0]
    always = httpx.MockTransport(
        lambda request: httpx.Response(503, json={"error": {"code": "busy", "message": "full"}})
    )
    with Client("http://server", transport=always) as client, pytest.raises(ServerError, match="full"):
        client.info()


def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={})

    for value in ("secret", ""):
        monkeypatch.setenv("SEEM_TOKEN", value)
        with Client("http://server", transport=httpx.MockTransport(answer)) as client:
            client.info()
    assert seen == ["Bearer secret", None]


def test_export(client: Client, remote: RemoteScene) -> None:
    image = AnnotatedImage("a.png", 160, 120, [AnnotatedObject.of(1, "square", box_mask(RED_BOX))])
    cut = Image.open(io.BytesIO(client.export("cutout", [image], [remote])))
    assert (cut.size, cut.mode) == ((40, 40), "RGBA")
    project = zipfile.ZipFile(io.BytesIO(client.export("project", [image], [remote])))
    assert project.namelist() == ["images/a.png", "annotations.json"]
