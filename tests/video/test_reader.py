"""Video files in: frames, times, rotation, and what is said about files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from seem.video import reader
from seem.video.reader import Video, VideoError
from tests.video.clips import FRAMES, HEIGHT, WIDTH, picture, write_clip


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal up to what H.264 changes; one frame's step of the square is far more."""
    return a.shape == b.shape and float(np.abs(a.astype(int) - b).mean()) < 3


def test_frames_times_and_header(tmp_path: Path) -> None:
    clip = Video(write_clip(tmp_path / "clip.mp4"))
    frames = list(clip.frames())
    assert [float(f.pts * clip.time_base) for f in frames if f.pts is not None] == [i / 10 for i in range(FRAMES)]
    assert all(close(f.pixels, picture(i)) for i, f in enumerate(frames))
    assert (clip.expected, clip.rate, clip.sound) == (FRAMES, 10, ("aac",))


@pytest.mark.parametrize("times", [None, [0, 30, 400, 401, 500, 730, 1500, 1510, 1700, 2900]])
@pytest.mark.parametrize(("first", "last"), [(0, 10), (3, 5), (5, 10), (9, 10)])
def test_a_window_is_the_same_frames(tmp_path: Path, times: list[int] | None, first: int, last: int) -> None:
    clip = Video(write_clip(tmp_path / "clip.mkv", times=times))
    frames = list(clip)
    window = clip.window(first, last)
    assert len(window) == last - first
    assert all(np.array_equal(a, b) for a, b in zip(window, frames[first:last], strict=True))


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_rotated_frames_are_upright(tmp_path: Path, rotation: int, turns: int) -> None:
    first = next(iter(Video(write_clip(tmp_path / "clip.mp4", rotation=rotation))))
    assert first.shape[:2] == ((WIDTH, HEIGHT) if turns != 2 else (HEIGHT, WIDTH))
    assert close(first, np.rot90(picture(0), turns))


def test_a_file_without_frames(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"at least one frame|another file or a broken one"):
        list(Video(write_clip(tmp_path / "clip.mkv", frames=0)))


def test_only_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="without a video stream"):
        Video(tmp_path / "sound.mp4")


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100, b"\0" * 5000])
def test_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"clip\.mp4: expected a video"):
        Video(tmp_path / "clip.mp4")


@pytest.mark.parametrize(("name", "said"), [("missing.mp4", "no such file"), (".", "got a folder")])
def test_no_file(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(VideoError, match=said):
        Video(tmp_path / name)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_a_truncated_file_never_passes_for_whole(tmp_path: Path, share: float) -> None:
    """MP4 has its table at the end, and with ``faststart`` at the beginning."""
    whole = write_clip(tmp_path / "clip.mp4", sound=None).read_bytes()
    moov = whole.index(b"moov") - 4
    with (
        av.open(str(tmp_path / "clip.mp4")) as source,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    fast = (tmp_path / "fast.mp4").read_bytes()
    assert fast.index(b"moov") < moov
    (tmp_path / "clip.mp4").write_bytes(whole[: int(share * moov)])
    table = fast.index(b"mdat")
    (tmp_path / "fast.mp4").write_bytes(fast[: table + int(share * (len(fast) - table))])
    for name in ("clip.mp4", "fast.mp4"):
        with pytest.raises(VideoError, match=name):
            list(Video(tmp_path / name))


def test_a_truncated_file_without_a_table(tmp_path: Path) -> None:
    """Matroska says how long it is, not how many frames it has; sound may outlast the picture."""
    assert len(list(Video(write_clip(tmp_path / "sound.mkv", frames=3)))) == 3
    path = write_clip(tmp_path / "clip.mkv", sound=None)
    path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    with pytest.raises(VideoError, match=r"expected 1\.00 s, got 0\.\d\d s: it breaks off"):
        list(Video(path))


def test_a_huge_frame_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    monkeypatch.setattr(reader, "_upright", lambda frame: pytest.fail("decoded"))
    with pytest.raises(VideoError, match=f"at most 3000 pixels, got {WIDTH}x{HEIGHT}"):
        Video(path, max_pixels=3000)


def test_a_picture_named_like_a_video_is_one_frame(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "clip.png")
    assert len(list(Video(tmp_path / "clip.png"))) == 1
