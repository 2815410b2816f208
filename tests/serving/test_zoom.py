"""Zooming in by the server: the answers of `Model.encode_large(zoom=True)`, and scenes of windows for decoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy

import seem
from seem.geometry import mask_iou, rle_decode, rle_encode
from seem.predict.model import Model
from seem.predict.scene import Scene
from seem.predict.tiles import TILE, TiledScene, TiledSegmentation
from seem.prompts import prompt_from_json
from seem.serving import Client
from seem.serving.sessions import StoredWindow, WindowStore
from tests.serving.conftest import Running, png, running
from tests.serving.test_api import error, first

RED, BLUE, TINY = (100, 90, 200, 190), (420, 300, 470, 350), (330, 222, 342, 234)
COLOURS = {RED: (240, 10, 10), BLUE: (10, 10, 240), TINY: (240, 240, 10)}
BOX = {"type": "box", "xyxy": list(RED)}
CLICKS = [{"type": "click", "x": x, "y": y} for x, y in ((150, 140), (110, 100), (190, 180))]
OUTSIDE = {"type": "click", "x": 60, "y": 140, "positive": False}


def make_picture(width: int = 640, height: int = 480) -> np.ndarray:
    """Grey with a little noise, and a square of each colour."""
    picture = np.full((height, width, 3), 128, np.int16)
    for (x0, y0, x1, y1), colour in COLOURS.items():
        picture[y0:y1, x0:x1] = colour
    picture += np.random.default_rng(0).integers(-8, 9, picture.shape, np.int16)
    return picture.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return make_picture()


@dataclass
class Photo:
    """A photo that a server has, and what can be asked of it."""

    http: httpx.Client
    image: str

    def segment(self, prompts: list[Any], zoom: bool = True, **more: Any) -> httpx.Response:
        body = {"objects": [{"id": 1, "prompts": prompts, **more}], "zoom": zoom}
        return self.http.post(f"/v1/images/{self.image}/segment", json=body)

    def scene(self, window: str, **headers: str) -> httpx.Response:
        return self.http.get(f"/v1/images/{self.image}/scene", params={"window": window}, headers=headers)


def upload(http: httpx.Client, picture: np.ndarray) -> Photo:
    answer = http.post("/v1/images", content=png(picture), headers={"Content-Type": "image/png"})
    return Photo(http, answer.json()["image"])


@pytest.fixture
def photo(http: httpx.Client, picture: np.ndarray) -> Photo:
    return upload(http, picture)


Rounds = list[list[dict[str, Any]]]


def play(scene: TiledScene, rounds: Rounds) -> list[TiledSegmentation]:
    """The rounds of one object, each with all prompts so far."""
    results: list[TiledSegmentation] = []
    for prompts in rounds:
        parsed = [prompt_from_json(p) for p in prompts]
        found = scene.segment(*parsed, previous=results[-1] if results else None)
        assert isinstance(found, TiledSegmentation)
        results.append(found)
    return results


def by_python(model: Model, picture: np.ndarray, rounds: Rounds) -> list[TiledSegmentation]:
    """The same on this machine, by scenes that were saved and loaded, as all of a server's are."""
    tile = max(TILE, *picture.shape[:2])
    scene = model.encode_large(picture, tile=tile, zoom=True)
    play(scene, rounds)  # encodes its windows
    loaded = TiledScene.from_bytes(scene.to_bytes(), model, picture)
    results = play(loaded, rounds)
    assert loaded.encoded == 0
    return results


# ---- the same as Python --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rounds",
    [
        [[BOX], [BOX, OUTSIDE], [BOX, OUTSIDE, CLICKS[0]]],
        [CLICKS[:1], CLICKS[:2], CLICKS, [*CLICKS, OUTSIDE]],
        [CLICKS[:1], [*CLICKS, {"type": "click", "x": 600, "y": 20}]],  # a window around one, then the other end
        [[{"type": "click", "x": 336, "y": 228}]],  # tiny
        [[{"type": "scribble", "points": [[120, 110], [180, 170]], "width": 5}]],
        [[{"type": "polygon", "points": [[100, 90], [200, 90], [200, 190], [100, 190]]}]],
        [[{"type": "text", "text": "red"}], [{"type": "text", "text": "red"}, *CLICKS]],
        [[{"type": "box", "xyxy": [20, 20, 620, 460]}]],  # it leaves no room
    ],
    ids=["box", "clicks", "far", "tiny", "scribble", "polygon", "text", "large"],
)
def test_rounds_are_those_of_python(photo: Photo, model: Model, picture: np.ndarray, rounds: Rounds) -> None:
    previous: dict[str, Any] | None = None
    for prompts, expected in zip(rounds, by_python(model, picture, rounds), strict=True):
        found = first(photo.segment(prompts, previous=previous))
        assert {k: found[k] for k in expected.to_json()} == expected.to_json()
        assert found["window"] == list(expected.window)
        previous = {"round": found["round"]}


def test_a_photo_of_any_size_is_looked_at_whole_first(http: httpx.Client, model: Model) -> None:
    wide = make_picture(1300, 360)
    rounds: Rounds = [[BOX]]
    [expected] = by_python(model, wide, rounds)
    found = first(upload(http, wide).segment([BOX]))
    assert found["mask_rle"] == expected.to_rle() and found["window"] == list(expected.window)


def test_a_mask_is_a_memory_too(photo: Photo, model: Model, picture: np.ndarray) -> None:
    coarse = first(photo.segment(CLICKS[:1], zoom=False))
    assert coarse["window"] is None
    found = first(photo.segment(CLICKS, previous={"rle": coarse["mask_rle"]}))
    kept = first(photo.segment(CLICKS, previous={"round": coarse["round"]}))  # of a round that was not to zoom
    square = np.zeros(picture.shape[:2], bool)
    square[RED[1] : RED[3], RED[0] : RED[2]] = True
    assert found["window"] == kept["window"] != [0, 0, 640, 480]
    assert mask_iou(rle_decode(found["mask_rle"]), square) > 0.95
    assert error(photo.segment(CLICKS, previous={"rle": {"size": [2, 2], "counts": [4]}})) == (422, "invalid")


def test_a_round_that_zoomed_is_remembered_by_one_that_does_not(photo: Photo, picture: np.ndarray) -> None:
    zoomed = first(photo.segment([BOX]))
    flat = first(photo.segment([OUTSIDE], zoom=False, previous={"round": zoomed["round"]}))  # nothing but the memory
    assert flat["window"] is None and flat["box"] is not None
    x0, y0, x1, y1 = zoomed["window"]
    kept = photo.http.get(f"/v1/images/{photo.image}/rounds/{zoomed['round']}").content
    assert safetensors.numpy.load(kept)["logits"].shape == (40, 40)  # of the window, which is a square
    assert f'"window":"{x0},{y0},{x1},{y1}"' in kept[8:400].decode("latin-1")


def test_several_objects_share_a_request(server: Running, photo: Photo, model: Model, picture: np.ndarray) -> None:
    prompts = [[BOX], [{"type": "box", "xyxy": list(BLUE)}], CLICKS[:1]]
    objects = [{"id": i, "prompts": p} for i, p in enumerate(prompts)]
    answer = photo.http.post(f"/v1/images/{photo.image}/segment", json={"objects": objects, "zoom": True}).json()
    for p, found in zip(prompts, answer["segments"], strict=True):
        [expected] = by_python(model, picture, [p])
        assert found["window"] == list(expected.window)
        assert mask_iou(rle_decode(found["mask_rle"]), expected.mask) > 0.999
    before = server.network.encodes
    photo.http.post(f"/v1/images/{photo.image}/segment", json={"objects": objects, "zoom": True})
    assert server.network.encodes == before  # the windows are kept


def test_the_client_zooms(server: Running, model: Model, picture: np.ndarray) -> None:
    [expected] = by_python(model, picture, [[BOX]])
    with Client(server.url) as client:
        scene = client.encode(picture, zoom=True)
        found = scene.segment(seem.Box(*RED))
        assert found.to_json() == expected.to_json() and found.window == expected.window
        again = scene.segment(seem.Box(*RED), seem.Click(60, 140, positive=False), previous=found)
        assert again.window == found.window
        assert client.encode(picture).segment(seem.Box(*RED)).window is None


# ---- scenes of windows ---------------------------------------------------------------------------------------------


def test_a_window_is_encoded_once_as_python_does(
    server: Running, photo: Photo, model: Model, picture: np.ndarray
) -> None:
    window = (51, 40, 250, 241)
    before = server.network.encodes
    answer = photo.scene("51,40,250,241")
    expected = model.encode_large(picture, zoom=True).scene(window)
    assert answer.status_code == 200 and answer.content == expected.to_bytes()
    sent = Scene.from_bytes(answer.content, model)
    assert sent.size == (199, 201) and sent.digest == photo.image
    assert photo.scene("51,40,250,241").content == answer.content and server.network.encodes == before + 1
    known = photo.scene("51,40,250,241", **{"If-None-Match": answer.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    whole = photo.http.get(f"/v1/images/{photo.image}/scene")
    assert whole.headers["etag"] != answer.headers["etag"]


@pytest.mark.parametrize(
    ("window", "says"),
    [
        ("", "x0,y0,x1,y1"),
        ("1,2,3", "x0,y0,x1,y1"),
        ("0,0,10,10,10", "x0,y0,x1,y1"),
        ("-1,0,40,40", "x0,y0,x1,y1"),
        ("0.5,0,40,40", "x0,y0,x1,y1"),
        ("0,0,٤٠,40", "x0,y0,x1,y1"),
        ("9999999999,0,40,40", "x0,y0,x1,y1"),
        ("0,0,641,480", "640x480"),
        ("40,0,40,40", "640x480"),
        ("40,50,60,40", "640x480"),
        ("0,0,7,40", "at least 8x8"),
    ],
)
def test_bad_windows(photo: Photo, window: str, says: str) -> None:
    answer = photo.scene(window)
    assert error(answer) == (422, "invalid") and says in answer.json()["error"]["message"]


def test_a_narrow_photo_has_narrow_windows(http: httpx.Client) -> None:
    assert upload(http, make_picture(320, 260)[:5]).scene("0,0,40,5").status_code == 200


def test_windows_are_their_owner_s(server: Running, photo: Photo) -> None:
    with server.http() as stranger:
        assert error(Photo(stranger, photo.image).scene("0,0,40,40")) == (404, "not_found")
        assert error(Photo(stranger, photo.image).segment([BOX])) == (404, "not_found")


def test_windows_that_do_not_fit_are_encoded_again(picture: np.ndarray) -> None:
    with running(window_bytes=1) as server, server.http() as http:  # it keeps one
        photo = upload(http, picture)
        windows = ["0,0,40,40", "0,0,48,40", "0,0,40,40"]
        scenes = [photo.scene(w).content for w in windows]
        assert scenes[0] == scenes[2] and len(server.state.sessions.windows) == 1
        assert server.network.encodes == 4
        found = first(photo.segment([BOX]))
        assert found["window"] != [0, 0, 640, 480]
        assert "seem_window_bytes" in http.get("/metrics").text


def test_the_least_recently_used_window_goes() -> None:
    store = WindowStore(budget=25)
    for x in range(2):
        store.put("a", (x, 0, 9, 9), StoredWindow(b"s" * 10, None))
    assert store.get("a", (0, 0, 9, 9))
    store.put("a", (2, 0, 9, 9), StoredWindow(b"s" * 10, None))
    assert store.bytes == 20 and store.get("a", (1, 0, 9, 9)) is None and store.get("a", (0, 0, 9, 9))
    store.put("a", (2, 0, 9, 9), StoredWindow(b"s" * 12, None))
    assert store.bytes == 22 and len(store) == 2


def test_masks_of_windows_can_be_painted_on(photo: Photo) -> None:
    """A mask that was corrected by hand is a memory, wherever its object was outlined."""
    painted = rle_decode(first(photo.segment([BOX]))["mask_rle"]).copy()
    painted[195:205, 100:200] = True
    found = first(photo.segment([BOX, OUTSIDE], previous={"rle": rle_encode(painted)}))
    assert found["area"] > 0.9 * (RED[2] - RED[0]) * (RED[3] - RED[1])
