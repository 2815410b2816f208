"""Label Studio's ML backend, with request bodies as Label Studio 1.x sends them, read back with its SDK."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest

from seem.geometry import mask_iou, rasterise_polygon
from seem.serving.label_studio import brush_rle
from seem.serving.settings import Settings
from tests.conftest import BLUE_BOX, RED_BOX, box_mask, make_photo
from tests.serving.conftest import Running, png, running

BRUSH = """<View>
  <Image name="image" value="$image" zoom="true"/>
  <BrushLabels name="tag" toName="image"><Label value="red" background="#f00"/><Label value="blue"/></BrushLabels>
  <KeyPointLabels name="tag2" toName="image" smart="true"><Label value="red"/><Label value="blue"/></KeyPointLabels>
  <RectangleLabels name="tag3" toName="image" smart="true"><Label value="red"/><Label value="blue"/></RectangleLabels>
</View>"""
POLYGON = """<View><Image name="img" value="$photo"/>
  <PolygonLabels name="p" toName="img"><Label value="red"/></PolygonLabels></View>"""
BOXES = """<View><Image name="i" value="$photo"/>
  <RectangleLabels name="r" toName="i"><Label value="blue"/></RectangleLabels></View>"""


class Studio(BaseHTTPRequestHandler):
    """A Label Studio, as far as a backend sees it."""

    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        if self.path == "/data/upload/1/moved.png":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data")
            self.end_headers()
            return
        body = png(make_photo()) if self.path.startswith("/data/upload/1/photo.png") else b"gone"
        self.send_response(200 if body != b"gone" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = b'{"access": "short-lived"}'
        self.seen.append((self.path, None))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def studio() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Studio)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def backend(studio: str) -> Iterator[Running]:
    with running(Settings(label_studio=studio, label_studio_token="old-token", token="pass")) as server:
        yield server


@pytest.fixture
def http(backend: Running) -> Iterator[httpx.Client]:
    basic = base64.b64encode(b"anyone:pass").decode()
    with backend.http(session=False, Authorization=f"Basic {basic}") as client:
        yield client


def body(drawn: Any = None, url: str = "/data/upload/1/photo.png", config: str = BRUSH, key: str = "image") -> Any:
    """As Label Studio's `ml.api_connector` makes it."""
    task = {"id": 7, "data": {key: url}, "meta": {}, "created_at": "2026-01-01T00:00:00Z", "annotations": []}
    context = None if drawn is None else {"result": drawn, "draft": drawn}
    params = {"login": None, "password": None, "context": context}
    return {"tasks": [task], "model_version": None, "project": "3.1700000000", "label_config": config, "params": params}


def region(kind: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"id": "Ab12", "type": kind, "from_name": "tag2", "to_name": "image", "original_width": 160,
            "original_height": 120, "image_rotation": 0, "value": value, **more}  # fmt: skip


def point(x: float, y: float, label: str = "red", **more: Any) -> dict[str, Any]:
    value = {"x": x / 1.6, "y": y / 1.2, "width": 0.5, "keypointlabels": [label]}
    return region("keypointlabels", value, **more)


def predicted(http: httpx.Client, request: Any) -> dict[str, Any]:
    answer = http.post("/label-studio/predict", json=request)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["results"]
    return dict(found)


def unpack(rle: list[int]) -> np.ndarray:
    """rle-pack's decoder: (N,) values."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        run = read(1)
        count = read(sizes[read(2)]) + 1
        values += [read(word)] * count if run else [read(word) for _ in range(count)]
    return np.array(values)


def mask_of(result: dict[str, Any]) -> np.ndarray:
    image = unpack(result["value"]["rle"]).reshape(result["original_height"], result["original_width"], 4)
    assert (image == image[:, :, :1]).all()
    return np.asarray(image[:, :, 3] == 255)


def test_a_backend_answers_what_label_studio_asks_when_it_is_added(http: httpx.Client) -> None:
    assert http.get("/label-studio/health").json() == {"status": "UP", "model_class": "SEEM"}
    request = {
        "project": "3.17",
        "schema": BRUSH,
        "hostname": "http://studio",
        "access_token": "x",
        "extra_params": None,
    }
    version = http.post("/label-studio/setup", json=request).json()["model_version"]
    assert version == "fake-ffffffff"
    assert http.get("/label-studio/versions").json() == {"versions": [version]}
    event = {"action": "ANNOTATION_CREATED", "project": {"id": 3}, "annotation": {}}
    assert http.post("/label-studio/webhook", json=event).status_code == 201


def test_a_key_point_becomes_a_brush_region(http: httpx.Client) -> None:
    found = predicted(http, body([point(40, 50)]))
    (result,) = found["result"]
    assert (result["type"], result["from_name"], result["to_name"]) == ("brushlabels", "tag", "image")
    assert result["value"]["brushlabels"] == ["red"] and result["value"]["format"] == "rle"
    assert (result["original_width"], result["original_height"]) == (160, 120)
    assert 0 < found["score"] <= 1 and result["score"] == found["score"]
    assert mask_iou(mask_of(result), box_mask(RED_BOX)) > 0.85
    path, token = Studio.seen[-1]
    assert (path, token) == ("/data/upload/1/photo.png", "Token old-token")


def test_a_box_and_a_negative_point(http: httpx.Client) -> None:
    box = region("rectanglelabels", {"x": 90 / 1.6, "y": 20 / 1.2, "width": 25, "height": 40 / 1.2, "rotation": 0,
                                     "rectanglelabels": ["blue"]})  # fmt: skip
    away = point(30, 40, "red", is_positive=False)
    (result,) = predicted(http, body([box, away]))["result"]
    assert result["value"]["brushlabels"] == ["blue"]
    assert mask_iou(mask_of(result), box_mask(BLUE_BOX)) > 0.85


def test_without_a_drawing_all_names_are_looked_for(http: httpx.Client) -> None:
    results = predicted(http, body())["result"]
    assert {r["value"]["brushlabels"][0] for r in results} == {"red", "blue"}
    (red,) = [r for r in results if r["value"]["brushlabels"] == ["red"]]
    assert mask_iou(mask_of(red), box_mask(RED_BOX)) > 0.85


def test_polygons_and_boxes(http: httpx.Client) -> None:
    (polygon,) = predicted(http, body(config=POLYGON, key="photo"))["result"]
    points = np.array(polygon["value"]["points"]) * (1.6, 1.2)
    assert polygon["value"]["polygonlabels"] == ["red"]
    assert mask_iou(rasterise_polygon(points, (160, 120)), box_mask(RED_BOX)) > 0.85
    (box,) = predicted(http, body(config=BOXES, key="photo"))["result"]
    value = box["value"]
    found = np.array([value["x"] * 1.6, value["y"] * 1.2, value["width"] * 1.6, value["height"] * 1.2])
    assert np.abs(found - (90, 20, 40, 40)).max() < 3


def test_an_image_in_the_task_itself(http: httpx.Client) -> None:
    url = "data:image/png;base64," + base64.b64encode(png(make_photo())).decode()
    assert len(predicted(http, body([point(40, 50)], url))["result"]) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://evil.example/data/upload/1/photo.png",
        "//evil.example/data/a.png",
        "http://127.0.0.1:1/data/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "/api/users",
        "/data/../api/users",
        "/data/%2e%2e/api/users",
        "/data/local-files/?d=../../etc/passwd",
        "/data/upload/1/moved.png",
        "/data/upload/1/gone.png",
        "data:image/png;base64,%%%",
        "s3://bucket/a.png",
        "",
    ],
)
def test_images_are_read_from_our_label_studio_only(http: httpx.Client, url: str) -> None:
    answer = http.post("/label-studio/predict", json=body([point(40, 50)], url))
    assert answer.status_code == 422, answer.text
    assert not any("evil" in path or "api" in path or "passwd" in path for path, _ in Studio.seen)


@pytest.mark.parametrize(
    "config",
    [
        "",
        "<View>",
        '<View><Image name="i" value="$a"/></View>',
        '<View><BrushLabels name="b" toName="i"/></View>',
        '<View><Image name="i" value="http://evil/x.png"/><BrushLabels name="b" toName="i"/></View>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + BRUSH,
        '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + BRUSH,
    ],
)
def test_bad_configs(http: httpx.Client, config: str) -> None:
    assert http.post("/label-studio/predict", json=body(config=config)).status_code == 422


@pytest.mark.parametrize(
    "drawn",
    [
        "x",
        [1],
        [{"type": "keypointlabels"}],
        [region("keypointlabels", {"x": "a", "y": 1})],
        [region("brushlabels", {})],
        [region("rectanglelabels", {"x": 1, "y": 1})],
    ],
)
def test_bad_drawings(http: httpx.Client, drawn: Any) -> None:
    assert http.post("/label-studio/predict", json=body(drawn)).status_code == 422


def test_a_point_on_the_far_border(http: httpx.Client) -> None:
    assert predicted(http, body([point(160, 120)]))["result"]


def test_it_needs_the_token_and_is_there_only_if_asked_for(backend: Running, server: Running) -> None:
    with backend.http(session=False) as stranger:
        assert stranger.post("/label-studio/predict", json=body()).status_code == 401
    with server.http(session=False) as other:
        assert other.get("/label-studio/health").status_code == 404


def test_personal_tokens_are_changed_for_access_tokens(studio: str) -> None:
    with running(Settings(label_studio=studio, label_studio_token="aa.bb.cc")) as server:
        with server.http(session=False) as http:
            predicted(http, body([point(40, 50)]))
        assert Studio.seen[-2:] == [("/api/token/refresh", None), ("/data/upload/1/photo.png", "Bearer short-lived")]


def masks() -> list[np.ndarray]:
    """Noise, specks, nothing, all, and a run longer than run lengths hold."""
    rng = np.random.default_rng(0)
    found = [rng.random((17, 23)) < share for share in (0.5, 0.02, 0.0, 1.0)]
    return [*found, np.arange(120_000).reshape(300, 400) > 40_000]


def test_brush_run_lengths() -> None:
    for mask in masks():
        np.testing.assert_array_equal(unpack(brush_rle(mask)), np.repeat(mask.ravel() * 255, 4))


@pytest.mark.slow  # the SDK takes long to import
def test_brush_run_lengths_are_read_by_the_sdk() -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    for mask in masks():
        np.testing.assert_array_equal(brush.decode_rle(brush_rle(mask)), np.repeat(mask.ravel() * 255, 4))


def test_the_error_names_the_limit(http: httpx.Client) -> None:
    request = body()
    request["tasks"] = request["tasks"] * 17
    assert "at most 16" in http.post("/label-studio/predict", json=request).json()["error"]["message"]
