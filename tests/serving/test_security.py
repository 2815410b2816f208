"""What hostile or clumsy clients send, and that it costs little and shows nobody else's."""

from __future__ import annotations

import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from seem.serving.page import HASHED
from seem.serving.settings import Settings
from tests.serving.conftest import BLUE, RED, Running, ask_segment, other_photo, png, running, wait_until

IMAGE = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def small() -> Iterator[Running]:
    """A server with little patience and little room."""
    with running(
        body_bytes=200_000,
        json_bytes=100_000,
        pixels=1_000_000,
        objects=3,
        prompts=5,
        idle_seconds=0.4,
        body_seconds=1.0,
        head_seconds=0.5,
    ) as server:
        yield server


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# ---- sizes --------------------------------------------------------------------------------------------------------


def test_oversized_bodies(small: Running) -> None:
    with small.http() as http:
        assert error(http.post("/v1/images", content=b"x" * 200_001, headers=IMAGE)) == (413, "too_large")

        def pieces() -> Iterator[bytes]:  # without a length: it has to be counted
            for _ in range(30):
                yield b"x" * 10_000

        assert error(http.post("/v1/images", content=pieces(), headers=IMAGE)) == (413, "too_large")
        text = {"texts": ["a" * 1000] * 101}
        assert error(http.post("/v1/text", json=text)) == (413, "too_large")


def test_a_length_that_lies(small: Running) -> None:
    with small.http() as http:
        session = http.headers["X-Seem-Session"]
    for length in ("-5", "99999999999999999999", "1e3", "0x10"):
        head = (
            f"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nX-Seem-Session: {session}\r\n"
            f"Content-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
        )
        assert raw(small, head.encode()).split()[1] in (b"400", b"413")


def test_many_objects_and_prompts(small: Running) -> None:
    with small.http() as http:
        image = http.post("/v1/images", content=png(other_photo(1)), headers=IMAGE).json()["image"]
        assert error(ask_segment(http, image, *[RED] * 6)) == (422, "invalid")
        objects = [{"id": i, "prompts": [RED]} for i in range(4)]
        assert error(http.post(f"/v1/images/{image}/segment", json={"objects": objects})) == (422, "invalid")
        masks = [{"size": [120, 160], "counts": [0, 9, 19191]}] * 4
        assert error(http.post(f"/v1/images/{image}/label", json={"mask_rle": masks})) == (422, "invalid")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that would unpack to width x height zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeezer, rows = zlib.compressobj(9), bytearray()
    for _ in range(min(height, 3000)):
        rows += squeezer.compress(bytes(width // 8 + 1))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", bytes(rows) + squeezer.flush())
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (1_000_000, 2), (1001, 1000)])
def test_decompression_bombs_are_refused_by_their_header(small: Running, width: int, height: int) -> None:
    with small.http() as http:
        began = time.monotonic()
        assert error(http.post("/v1/images", content=bomb(width, height)[:190_000], headers=IMAGE)) == (
            413,
            "too_large",
        )
        assert time.monotonic() - began < 2


def test_run_length_bombs(small: Running) -> None:
    """A few bytes that say they are a gigapixel."""
    with small.http() as http:
        image = http.post("/v1/images", content=png(other_photo(1)), headers=IMAGE).json()["image"]
        for rle in (
            {"size": [100_000, 100_000], "counts": [10_000_000_000]},
            {"size": [120, 160], "counts": [2**62, 2**62]},
            {"size": [120, 160], "counts": "~" * 90_000},
            {"size": [-1, -19200], "counts": [19200]},
        ):
            answer = ask_segment(http, image, {"type": "mask", "rle": rle})
            assert error(answer) == (422, "invalid")
        rows = [{"file_name": "a", "width": 100_000, "height": 100_000, "objects": []}]
        assert error(http.post("/v1/export", json={"format": "masks", "images": rows})) == (422, "invalid")


def test_deep_json(small: Running) -> None:
    with small.http() as http:
        for path in ("/v1/text", "/v1/import"):
            answer = http.post(path, content=b"[" * 90_000, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 422)


# ---- malformed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "media_type", "expected"),
    [
        (b"", "image/png", (422, "invalid")),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "image/png", (415, "media_type")),
        (png(other_photo(0))[:3000], "image/png", (422, "image")),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
            "image/svg+xml",
            (415, "media_type"),
        ),
        (b"%PDF-1.4", "image/png", (415, "media_type")),
        (b"GIF89a", "text/html", (415, "media_type")),
        (png(other_photo(0)), "multipart/form-data; boundary=x", (415, "media_type")),
    ],
)
def test_malformed_images(small: Running, content: bytes, media_type: str, expected: tuple[int, str]) -> None:
    with small.http() as http:
        assert error(http.post("/v1/images", content=content, headers={"Content-Type": media_type})) == expected


@pytest.mark.parametrize(
    ("body", "media_type", "expected"),
    [
        (b"{", "application/json", (400, "bad_json")),
        (b"\xff\xfe", "application/json", (400, "bad_json")),
        (b'{"texts": ["a"]}', "text/plain", (415, "media_type")),
        (b'{"texts": ["a"]}', "", (415, "media_type")),
        (b"null", "application/json", (422, "invalid")),
        (b"[]", "application/json", (422, "invalid")),
        (b'{"texts": "a"}', "application/json", (422, "invalid")),
        (b'{"texts": ["\\ud800"]}', "application/json", (422, "invalid")),
    ],
)
def test_malformed_json(small: Running, body: bytes, media_type: str, expected: tuple[int, str]) -> None:
    with small.http() as http:
        answer = http.post("/v1/text", content=body, headers={"Content-Type": media_type})
        assert error(answer) == expected


def test_numbers_that_are_none(small: Running) -> None:
    with small.http() as http:
        image = http.post("/v1/images", content=png(other_photo(1)), headers=IMAGE).json()["image"]
        for value in ("NaN", "Infinity", "-Infinity", "1e999", "true", '"1"'):
            body = f'{{"objects": [{{"id": 1, "prompts": [{{"type": "click", "x": {value}, "y": 1}}]}}]}}'
            answer = http.post(
                f"/v1/images/{image}/segment", content=body, headers={"Content-Type": "application/json"}
            )
            assert error(answer) == (422, "invalid")


# ---- slow ---------------------------------------------------------------------------------------------------------


def raw(server: Running, data: bytes, pause: float = 0.0, more: bytes = b"", seconds: float = 5.0) -> bytes:
    """What a connection answers to these bytes; empty if it is closed without an answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(data)
        if more:
            time.sleep(pause)
            connection.sendall(more)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


def post_head(server: Running, length: int) -> bytes:
    with server.http() as http:
        session = http.headers["X-Seem-Session"]
    return (
        f"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        f"X-Seem-Session: {session}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def test_a_body_that_stops_is_cut_off(small: Running) -> None:
    began = time.monotonic()
    answer = raw(small, post_head(small, 1000) + b"x" * 10)
    assert answer.startswith(b"HTTP/1.1 408") and b'"slow"' in answer
    assert time.monotonic() - began < 3


def test_a_body_that_drips_is_cut_off(small: Running) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=5) as connection:
        connection.sendall(post_head(small, 100_000))
        began, answer = time.monotonic(), b""
        connection.settimeout(0.1)
        while time.monotonic() - began < 4 and not answer:
            try:
                connection.sendall(b"x")
                answer = connection.recv(65536)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("head", [b"", b"GET /health/live HTTP/1.1\r\nHost: loc"])
def test_a_head_that_does_not_end_is_cut_off(small: Running, head: bytes) -> None:
    began = time.monotonic()
    assert raw(small, head) == b""
    assert 0.3 < time.monotonic() - began < 3


def test_the_second_head_of_a_connection_is_watched_too(small: Running) -> None:
    one = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    began = time.monotonic()
    answer = raw(small, one, 0.1, one[:20])
    assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1") == 1
    assert time.monotonic() - began < 3


def test_a_kept_connection_may_idle(small: Running) -> None:
    with small.http(session=False) as http:
        assert http.get("/health/live").is_success
        time.sleep(0.7)
        assert http.get("/health/live").is_success


def test_endless_heads(small: Running) -> None:
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: " + b"a" * 100_000
    assert raw(small, head)[:12] in (b"HTTP/1.1 400", b"")


def test_no_body_is_left_counted(small: Running) -> None:
    """After all of the above nothing is in flight."""
    wait_until(lambda: small.state.drain.in_flight == 0)
    with small.http() as http:
        assert http.post("/v1/images", content=png(other_photo(1)), headers=IMAGE).is_success


# ---- paths and names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/../../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/app.py",
        "/assets/../../app.py",
        "//etc/passwd",
        "/etc/passwd%00.html",
        "/..%5c..%5capp.py",
        "/v1/samples/..%2f..%2fpyproject",
        "/v1/samples/%2fetc%2fpasswd",
        "/v1/decoder/..%2f..%2fapp.py",
        "/v1/images/..%2f..%2fetc/scene",
    ],
)
def test_path_traversal(small: Running, path: str) -> None:
    with small.http() as http:
        session = http.headers["X-Seem-Session"]
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Seem-Session: {session}\r\nConnection: close\r\n\r\n"
    answer = raw(small, head.encode())
    assert answer.split()[1] in (b"404", b"422", b"400")
    assert b"root:" not in answer and b"import" not in answer


def test_script_in_names_stays_text(small: Running) -> None:
    name = "<script>alert(1)</script>\"'\r\nSet-Cookie: a=b"
    square = np.zeros((10, 10), bool)
    square[2:5, 2:5] = True
    rle = {"size": [10, 10], "counts": [22, 3, 7, 3, 7, 3, 55]}
    rows = [{"file_name": name, "width": 10, "height": 10, "objects": [{"id": 1, "name": name, "mask_rle": rle}]}]
    with small.http() as http:
        for form in ("coco", "yolo", "labelme", "masks", "project"):
            answer = http.post("/v1/export", json={"format": form, "images": rows})
            assert answer.is_success
            assert answer.headers["content-disposition"].startswith(f'attachment; filename="seem-{form}.')
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "set-cookie" not in answer.headers
        image = http.post("/v1/images", content=png(other_photo(1)), headers=IMAGE).json()["image"]
        rows[0] |= {"image": image, "width": 160, "height": 120}
        rows[0]["objects"] = [{"id": 1, "name": name, "mask_rle": {"size": [120, 160], "counts": [0, 9, 19191]}}]  # type: ignore[index]
        answer = http.post("/v1/export", json={"format": "cutout", "images": rows})
        assert answer.headers["content-type"] == "image/png"
        assert "<" not in answer.headers["content-disposition"] and "set-cookie" not in answer.headers
        answer = http.post(f"/v1/images/{image}/find", json={"text": name})
        assert answer.headers["content-type"] == "application/json"
        bad = http.get("/<script>alert(1)</script>")
        assert bad.headers["content-type"] == "application/json" and "script" not in bad.text


def test_headers_of_the_page_and_the_api(small: Running) -> None:
    with small.http(session=False) as http:
        for path in ("/", "/v1/info", "/nothing"):
            headers = http.get(path).headers
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert headers["cross-origin-embedder-policy"] == "require-corp"
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe-eval'" not in headers["content-security-policy"].replace("'wasm-unsafe-eval'", "")
            assert "server" not in headers


@pytest.mark.parametrize(
    ("name", "hashed"),
    [("index-BxK2_9aZ.js", True), ("ort-wasm-simd-threaded.jsep-D4f8Ka91.wasm", True), ("index.html", False),
     ("icon.svg", False), ("site.webmanifest", False)],
)  # fmt: skip
def test_only_hashed_names_are_cached_for_ever(name: str, hashed: bool) -> None:
    assert bool(HASHED.search(name)) == hashed


# ---- other users --------------------------------------------------------------------------------------------------


def test_other_users_images_are_hidden(small: Running) -> None:
    with small.http() as mine, small.http() as other:
        image = mine.post("/v1/images", content=png(other_photo(5)), headers=IMAGE).json()["image"]
        round_id = ask_segment(mine, image, RED).json()["segments"][0]["round"]
        rle = {"size": [120, 160], "counts": [0, 9, 19191]}
        objects = [{"id": 1, "name": "a", "mask_rle": rle}]
        rows = [{"image": image, "file_name": "a", "width": 160, "height": 120, "objects": objects}]
        answers = [
            ask_segment(other, image, RED),
            other.get(f"/v1/images/{image}/scene"),
            other.get(f"/v1/images/{image}/scene", headers={"If-None-Match": "*"}),
            other.get(f"/v1/images/{image}/picture"),
            other.post(f"/v1/images/{image}/touch"),
            other.post(f"/v1/images/{image}/find", json={"text": "red"}),
            other.post(f"/v1/images/{image}/reference", json={"prompts": [RED]}),
            other.post("/v1/export", json={"format": "cutout", "images": rows}),
        ]
        assert [error(a) for a in answers] == [(404, "not_found")] * len(answers)
        own = other.post("/v1/images", content=png(other_photo(6)), headers=IMAGE).json()["image"]
        borrowed = {"type": "reference", "image": image, "prompt": RED}
        assert error(ask_segment(other, own, borrowed)) == (404, "not_found")
        assert error(ask_segment(other, own, RED, previous={"round": round_id})) == (409, "round_gone")
        project = other.post("/v1/export", json={"format": "project", "images": rows})
        assert b"images/" not in project.content  # the photo is left out
        assert ask_segment(mine, image, RED).is_success


def test_rounds_of_two_users_of_one_photo_do_not_mix(small: Running) -> None:
    with small.http() as one, small.http() as two:
        image = one.post("/v1/images", content=png(other_photo(7)), headers=IMAGE).json()["image"]
        two.post("/v1/images", content=png(other_photo(7)), headers=IMAGE)
        red, blue = ask_segment(one, image, RED), ask_segment(two, image, BLUE)
        assert red.json()["segments"][0]["round"] == blue.json()["segments"][0]["round"] == "1"
        again = [ask_segment(c, image, p, previous={"round": "1"}).json() for c, p in ((one, RED), (two, BLUE))]
        boxes = [a["segments"][0]["box"] for a in again]
        assert boxes[0][0] < 40 < 80 < boxes[1][0]


def test_the_file_of_another_user_is_not_handed_out(small: Running) -> None:
    """Two files of the same pixels: the second user gets the pixels, not what the first one's file says beside them."""
    pixels = other_photo(8)
    from PIL.PngImagePlugin import PngInfo

    note = PngInfo()
    note.add_text("Comment", "secret place")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=note)
    with small.http() as one, small.http() as two:
        image = one.post("/v1/images", content=buffer.getvalue(), headers=IMAGE).json()["image"]
        assert two.post("/v1/images", content=png(pixels), headers=IMAGE).json()["image"] == image
        rows = [{"image": image, "file_name": "a.png", "width": 160, "height": 120, "objects": []}]
        for http, there in ((one, True), (two, False)):
            project = http.post("/v1/export", json={"format": "project", "images": rows}).content
            assert (b"secret place" in project) == there
            assert b"secret place" not in http.get(f"/v1/images/{image}/picture").content


@pytest.mark.parametrize("token", ["", "x", "a" * 5000, "' OR 1=1 --", "../../etc"])
def test_guessed_sessions(small: Running, token: str) -> None:
    with small.http(session=False) as http:
        answer = http.get("/v1/images/sha256:" + "0" * 64 + "/scene", headers={"X-Seem-Session": token})
        assert error(answer) == (401, "session")


# ---- who may come in ----------------------------------------------------------------------------------------------


def test_bearer_token() -> None:
    with running(Settings(token="s3cret")) as server, server.http(session=False) as http:
        for path in ("/v1/info", "/metrics", "/openapi.json"):
            assert error(http.get(path)) == (401, "token")
            for wrong in ("Bearer", "Bearer s3cre", "Bearer s3cret2", "Basic czNjcmV0", "s3cret"):
                assert error(http.get(path, headers={"Authorization": wrong})) == (401, "token")
            assert http.get(path, headers={"Authorization": "Bearer s3cret"}).is_success
        assert error(http.post("/v1/sessions")) == (401, "token")
        assert http.get("/health/live").is_success and http.get("/health/ready").is_success
        assert http.get("/").is_success  # the page itself holds no secret; it asks for the token


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1.evil.example:80"}, 400),
        ({"Host": "localhost:1"}, 201),
        ({"Host": "[::1]:8000"}, 201),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_web_sites_cannot_reach_a_local_server(small: Running, headers: dict[str, str], status: int) -> None:
    with small.http(session=False) as http:
        answer = http.post("/v1/sessions", headers=headers)
        assert answer.status_code == status
        assert "access-control-allow-origin" not in answer.headers


def test_own_origin_is_welcome(small: Running) -> None:
    with small.http(session=False) as http:
        assert http.post("/v1/sessions", headers={"Origin": small.url}).status_code == 201


def test_cors_is_for_named_origins_only() -> None:
    friend = "https://tool.example"
    with running(Settings(origins=(friend,), token="t")) as server, server.http(session=False) as http:
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-seem-session"}
        assert http.options("/v1/sessions", headers={"Origin": friend, **asks}).headers[
            "access-control-allow-origin"
        ] == friend  # fmt: skip
        refused = http.options("/v1/sessions", headers={"Origin": "https://evil.example", **asks})
        assert refused.status_code == 400 and "access-control-allow-origin" not in refused.headers
        answer = http.post("/v1/sessions", headers={"Origin": friend, "Authorization": "Bearer t"})
        assert answer.status_code == 201 and answer.headers["access-control-allow-origin"] == friend
        denied = http.post("/v1/sessions", headers={"Origin": friend})
        assert denied.status_code == 401 and denied.headers["access-control-allow-origin"] == friend


def test_no_web_sockets(small: Running) -> None:
    head = (
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert raw(small, head).startswith(b"HTTP/1.1 200")  # an ordinary answer, no switch of protocols


# ---- full ---------------------------------------------------------------------------------------------------------


def test_a_full_server_says_when_to_come_back() -> None:
    with running(sessions=1) as server, server.http(), server.http(session=False) as http:
        answer = http.post("/v1/sessions")
        assert error(answer) == (503, "busy")
        assert int(answer.headers["retry-after"]) >= 1


def test_too_many_requests_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(requests=1) as server, server.http() as http:
        server.state.drain.in_flight = 1
        answer = http.get("/v1/info")
        assert error(answer) == (503, "busy") and answer.headers["retry-after"]
        assert http.get("/health/live").is_success
        server.state.drain.in_flight = 0
        assert http.get("/v1/info").is_success


def test_a_server_that_fails_says_little(small: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*args: Any) -> None:
        raise RuntimeError("/home/somebody/secret.py")

    monkeypatch.setattr(small.state.engine, "call", fail)
    with small.http() as http:
        answer = http.post("/v1/text", json={"texts": ["red"]})
        assert error(answer) == (500, "failed")
        assert "secret" not in answer.text and answer.headers["x-request-id"] in answer.text


def test_json_of_errors_is_short(small: Running) -> None:
    with small.http() as http:
        image = http.post("/v1/images", content=png(other_photo(1)), headers=IMAGE).json()["image"]
        answer = ask_segment(http, image, {"type": "text", "text": "a" * 50_000})
        assert len(json.dumps(answer.json())) < 700
