"""Videos: upload, frames, tracking as lines, export; and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

import seem
from seem import geometry
from seem.geometry import mask_iou
from seem.predict.model import Model
from seem.serving import Client, ServerError
from seem.serving.videos import StoredVideo, hide_path, video_suffix
from tests.serving.conftest import Running, png, running, wait_until
from tests.video.clips import FRAMES, HEIGHT, WIDTH, picture, square, times_of, write_clip

BYTES = {"Content-Type": "video/mp4"}
RED = {"type": "click", "x": 12, "y": 24}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture
def video(http: httpx.Client, clip: Path) -> Iterator[str]:
    answer = http.post("/v1/videos", content=clip.read_bytes(), headers=BYTES)
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["video"]
    yield found
    http.delete(f"/v1/videos/{found}")


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def track(http: httpx.Client, video: str, prompts: Any) -> httpx.Response:
    return http.post(f"/v1/videos/{video}/track", json={"prompts": prompts})


def test_upload_and_frames(http: httpx.Client, clip: Path) -> None:
    found = http.post("/v1/videos", content=clip.read_bytes(), headers=BYTES).json()
    assert (found["width"], found["height"], found["frames"], found["fps"]) == (WIDTH, HEIGHT, FRAMES, 10.0)
    for number in (7, 0, FRAMES - 1):
        answer = http.get(f"/v1/videos/{found['video']}/frames/{number}")
        assert answer.headers["content-type"] == "image/jpeg"
        pixels = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert np.abs(pixels.astype(int) - picture(number)).mean() < 8
    for number in (FRAMES, -1):
        assert error(http.get(f"/v1/videos/{found['video']}/frames/{number}")) == (404, "not_found")


def test_track_gives_a_line_a_frame_as_the_library_does(
    http: httpx.Client, video: str, clip: Path, model: Model
) -> None:
    answer = track(http, video, {"0": {"3": [RED]}})
    assert answer.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [r["frame"] for r in rows] == list(range(FRAMES))
    expected = model.track(clip, {3: [seem.Click(12, 24)]})
    for row, results in zip(rows, expected, strict=True):
        assert [s["id"] for s in row["segments"]] == [3]
        assert row["segments"][0]["mask_rle"] == results[3].to_rle()
    assert mask_iou(geometry.rle_decode(rows[-1]["segments"][0]["mask_rle"]), square(FRAMES - 1)) > 0.7


def test_prompts_on_several_frames_and_of_other_images(http: httpx.Client, video: str) -> None:
    photo = http.post("/v1/images", content=png(picture(5)), headers={"Content-Type": "image/png"}).json()["image"]
    reference = {"type": "reference", "image": photo, "prompt": {"type": "click", "x": 30, "y": 24}}
    answer = track(http, video, {"2": {"1": [reference]}, "6": {"1": [{**RED, "x": 36}]}})
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert len(rows) == FRAMES and rows[2]["segments"][0]["area"] > 0


def test_export(http: httpx.Client, video: str, tmp_path: Path) -> None:
    path = f"/v1/videos/{video}/export"
    assert error(http.get(path, params={"format": "coco"})) == (409, "not_tracked")
    rows = [json.loads(line) for line in track(http, video, {"0": {"1": [RED]}}).text.splitlines()]
    masks = [geometry.rle_decode(r["segments"][0]["mask_rle"]) for r in rows]
    overlay = http.get(path, params={"format": "overlay"})
    assert overlay.headers["content-type"] == "video/mp4"
    (tmp_path / "overlay.mp4").write_bytes(overlay.content)
    assert len(times_of(tmp_path / "overlay.mp4")) == FRAMES
    archive = zipfile.ZipFile(io.BytesIO(http.get(path, params={"format": "masks"}).content))
    assert len(archive.namelist()) == FRAMES
    for number, mask in enumerate(masks):
        found = np.asarray(Image.open(io.BytesIO(archive.read(f"{number:05d}.png"))))
        np.testing.assert_array_equal(found == 1, mask)
    coco = http.get(path, params={"format": "coco"}).json()
    assert len(coco["images"]) == FRAMES
    assert {a["track_id"] for a in coco["annotations"]} == {1}
    np.testing.assert_array_equal(geometry.rle_decode(coco["annotations"][3]["segmentation"]), masks[3])
    assert error(http.get(path, params={"format": "exe"})) == (422, "invalid")


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ({}, "at least one frame"),
        ({"10": {"1": [RED]}}, "frames from 0 to 9"),
        ({"-1": {"1": [RED]}}, "frames from 0 to 9"),
        ({"0": {}}, "objects"),
        ({"0": {"a": [RED]}}, "object ids"),
        ({"0": {"1": []}}, "prompts"),
        ({"0": {"1": [{**RED, "x": 900}]}}, "0 <= x < 64"),
        ({"0": {"1": [{**RED, "positive": False}]}}, "positive"),
    ],
)
def test_bad_prompts_are_errors_of_the_request(http: httpx.Client, video: str, prompts: Any, says: str) -> None:
    answer = track(http, video, prompts)
    assert error(answer) == (422, "invalid")
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD></MPD>",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
        b"RIFF\0\0\0\0WAVEfmt " + b"\0" * 40,
    ],
)
def test_playlists_and_other_files_are_never_opened(http: httpx.Client, content: bytes) -> None:
    answer = http.post("/v1/videos", content=content, headers={"Content-Type": "application/octet-stream"})
    assert error(answer) == (415, "media_type")


def test_broken_videos(http: httpx.Client, clip: Path) -> None:
    data = clip.read_bytes()
    for broken in (data[:200], b"\0\0\0\x18ftypisom" + b"\0" * 4000, data[: len(data) * 2 // 3]):
        answer = http.post("/v1/videos", content=broken, headers=BYTES)
        assert error(answer) == (422, "video")
        assert "seem-video" not in answer.text  # where it was kept is nobody's business
    assert error(http.post("/v1/videos", content=data, headers={"Content-Type": "text/html"})) == (415, "media_type")


def test_limits(clip: Path) -> None:
    data = clip.read_bytes()
    for limit in ({"video_frames": 5}, {"video_pixels": 1000}, {"video_bytes": len(data) - 1}):
        with running(**limit) as server, server.http() as http:
            assert error(http.post("/v1/videos", content=data, headers=BYTES)) == (413, "too_large")
    with running(videos_per_session=1) as server, server.http() as http:
        kept = http.post("/v1/videos", content=data, headers=BYTES).json()["video"]
        assert error(http.post("/v1/videos", content=data, headers=BYTES)) == (429, "too_many")
        assert http.delete(f"/v1/videos/{kept}").status_code == 204
        assert http.post("/v1/videos", content=data, headers=BYTES).is_success


def test_room_on_the_disk_is_shared_and_given_back(clip: Path) -> None:
    data = clip.read_bytes()
    with running(all_video_bytes=len(data) + 2000) as server, server.http() as one, server.http() as two:
        kept = one.post("/v1/videos", content=data, headers=BYTES).json()["video"]
        full = two.post("/v1/videos", content=data, headers=BYTES)
        assert error(full) == (503, "busy") and full.headers["retry-after"] == "60"
        for _ in range(2):  # a track replaces the one before
            track(one, kept, {"0": {"1": [RED]}})
            tracked = server.state.sessions.video_bytes - len(data)
            assert 100 < tracked < 400 * FRAMES
        one.delete(f"/v1/videos/{kept}")
        assert server.state.sessions.video_bytes == 0
        assert two.post("/v1/videos", content=data, headers=BYTES).is_success


def test_a_track_that_grows_too_large_breaks_off(clip: Path) -> None:
    data = clip.read_bytes()
    with running() as server, server.http() as http:
        kept = http.post("/v1/videos", content=data, headers=BYTES).json()["video"]
        stored = next(iter(server.state.sessions.get(http.headers["X-Seem-Session"]).videos.values()))
        stored.keep_track = lambda most: StoredVideo.keep_track(stored, 700)  # type: ignore[method-assign]
        *rows, last = [json.loads(line) for line in track(http, kept, {"0": {"1": [RED]}}).text.splitlines()]
        assert 0 < len(rows) < FRAMES and last["error"]["code"] == "too_large"
        assert error(http.get(f"/v1/videos/{kept}/export", params={"format": "coco"})) == (409, "not_tracked")
        assert server.state.sessions.video_bytes == len(data)


def test_other_users_do_not_see_it(server: Running, video: str) -> None:
    with server.http() as other:
        for answer in (
            other.get(f"/v1/videos/{video}/frames/0"),
            track(other, video, {"0": {"1": [RED]}}),
            other.get(f"/v1/videos/{video}/export", params={"format": "coco"}),
            other.delete(f"/v1/videos/{video}"),
        ):
            assert error(answer) == (404, "not_found")


def test_its_files_go_with_the_session(server: Running, clip: Path) -> None:
    with server.http() as http:
        http.post("/v1/videos", content=clip.read_bytes(), headers=BYTES)
        session = server.state.sessions.get(http.headers["X-Seem-Session"])
        (stored,) = session.videos.values()
        assert stored.path.exists()
        http.delete("/v1/sessions/current")
        assert not stored.folder.exists()


def test_leaving_stops_the_work(clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = write_clip(tmp_path / "long.mp4", frames=10)
    frames: list[int] = []
    real = Model.track

    def slow(self: Model, *args: Any, **more: Any) -> Iterator[Any]:
        import time

        for results in real(self, *args, **more):
            frames.append(1)
            time.sleep(0.15)
            yield results

    monkeypatch.setattr(Model, "track", slow)
    with running() as server, server.http() as http:
        video = http.post("/v1/videos", content=long.read_bytes(), headers=BYTES).json()["video"]
        body = {"prompts": {"0": {"1": [RED]}}}
        with http.stream("POST", f"/v1/videos/{video}/track", json=body) as answer:
            next(answer.iter_lines())
        wait_until(lambda: not server.state.tracking.running)
        assert len(frames) < 8
        assert error(http.get(f"/v1/videos/{video}/export", params={"format": "coco"})) == (409, "not_tracked")


def test_client_tracks(server: Running, clip: Path) -> None:
    with Client(server.url) as client:
        found = list(client.track(clip, {1: [seem.Click(12, 24)]}))
        assert len(found) == FRAMES and mask_iou(found[0][1].mask, square(0)) > 0.7
        (session,) = [s for s in server.state.sessions._sessions.values() if s.token == client._session]
        assert not session.videos
        with pytest.raises(ServerError, match="0 <= x < 64"):
            list(client.track(clip, {0: {1: [seem.Click(900, 1)]}}))


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"\0\0\0\x18ftypisom\0\0\0\0", ".mp4"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", ".mov"),
        (b"\x1aE\xdf\xa3" + b"\0" * 12, ".mkv"),
        (b"RIFF\0\0\0\0AVI LIST", ".avi"),
    ],
)
def test_suffix(head: bytes, suffix: str) -> None:
    assert video_suffix(head) == suffix


def test_hide_path() -> None:
    message = "/tmp/seem-video-a1_b/upload.mp4: broken after frame 3"
    assert hide_path(message) == "video: broken after frame 3"
