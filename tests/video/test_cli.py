"""`seem video`: what it writes, and what it says to bad usage, bad input and a full disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import seem
from seem import geometry
from seem.cli import main
from seem.geometry import mask_iou
from seem.predict.model import Model
from seem.video import writer
from seem.video.reader import Video
from tests.fakes import WEIGHTS, FakeNetwork
from tests.video.clips import FRAMES, HEIGHT, WIDTH, left, packets, picture, square, times_of, write_clip

RED = "12,24"  # on the first frame
UNEVEN = [0, 30, 400, 401, 500, 730, 1500, 1510, 1700, 2900]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with clip.mp4 in it; `seem.load` gives the network that segments by colour."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(seem, "load", lambda name, device="auto": Model(FakeNetwork(), WEIGHTS))  # type: ignore[arg-type]
    write_clip(tmp_path / "clip.mp4")
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str) -> tuple[int, str, str]:
        code = main(["video", *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def read_masks(path: Path, object_id: int = 1) -> list[np.ndarray]:
    """Of each frame of a JSON result, the object's mask."""
    document = json.loads(path.read_text())
    masks = []
    for row in document["frames"]:
        found = [geometry.rle_decode(o["mask_rle"]) for o in row["objects"] if o["id"] == object_id]
        masks.append(found[0] if found else np.zeros((HEIGHT, WIDTH), bool))
    return masks


def follows(masks: list[np.ndarray]) -> bool:
    return len(masks) == FRAMES and all(mask_iou(m, square(i)) > 0.7 for i, m in enumerate(masks))


# ---- results ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("times", [None, UNEVEN])
def test_a_video_keeps_frames_times_and_sound(run: Run, folder: Path, suffix: str, times: list[int] | None) -> None:
    write_clip(folder / "clip.mp4", times=times)
    code, out, _ = run("clip.mp4", f"out{suffix}", "--click", RED)
    assert code == 0
    assert f"on {FRAMES} of {FRAMES} frames" in out
    assert f"wrote out{suffix}" in out
    new, old = times_of(folder / f"out{suffix}"), times_of(folder / "clip.mp4")
    start = new[0] if suffix == ".mkv" else 0  # Matroska has no times below 0, where AAC begins; all move together
    assert new == pytest.approx([start + t for t in old], abs=0.0011)
    assert packets(folder / f"out{suffix}", "audio") == packets(folder / "clip.mp4", "audio")
    drawn = np.abs(next(iter(Video(folder / f"out{suffix}"))).astype(int) - picture(0)).mean(2)
    assert drawn[square(0)].mean() > 30  # tinted
    assert drawn[40:, 50:].mean() < 5


def test_a_video_without_sound_and_of_odd_size(run: Run, folder: Path) -> None:
    with av.open("odd.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH - 1, HEIGHT - 1, "bgr0"
        for i in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i)[1:, 1:], format="rgb24")))
        container.mux(stream.encode(None))
    assert run("odd.mkv", "out.mp4", "--click", RED)[0] == 0
    assert [p.shape for p in Video("out.mp4")] == [(HEIGHT - 1, WIDTH - 1, 3)] * 3


def test_a_rotated_video_is_prompted_and_written_upright(run: Run, folder: Path) -> None:
    write_clip(folder / "clip.mp4", rotation=-90)
    first = np.rot90(square(0), -1)
    ys, xs = np.nonzero(first)
    assert run("clip.mp4", "out.json", "--click", f"{int(xs.mean())},{int(ys.mean())}")[0] == 0
    assert mask_iou(read_masks(folder / "out.json")[0], first) > 0.7
    assert run("clip.mp4", "out.mp4", "--click", f"{int(xs.mean())},{int(ys.mean())}")[0] == 0
    assert next(iter(Video("out.mp4"))).shape[:2] == (WIDTH, HEIGHT)


def test_png_masks(run: Run, folder: Path) -> None:
    assert run("clip.mp4", "masks", "--click", RED)[0] == 0
    assert sorted(files(folder / "masks")) == [f"{i:05d}.png" for i in range(FRAMES)]
    picture_ = Image.open(folder / "masks" / "00004.png")
    assert (picture_.mode, picture_.getpalette()[:6]) == ("P", [0, 0, 0, 128, 0, 0])  # type: ignore[index]
    assert set(np.unique(np.asarray(picture_))) == {0, 1}
    assert mask_iou(np.asarray(picture_) == 1, square(4)) > 0.7


def test_json_masks(run: Run, folder: Path) -> None:
    code, out, _ = run("clip.mp4", "out.json", "--click", RED, "--json")
    about = json.loads(out)
    assert code == 0
    assert (about["out"], about["frames"]) == ("out.json", FRAMES)
    assert [(o["id"], o["frames"]) for o in about["objects"]] == [(1, FRAMES)]
    document = json.loads((folder / "out.json").read_text())
    assert document["video"] == {"file": "clip.mp4", "width": WIDTH, "height": HEIGHT, "frames": FRAMES}
    assert [row["time"] for row in document["frames"]] == [i / 10 for i in range(FRAMES)]
    assert follows(read_masks(folder / "out.json"))


@pytest.mark.parametrize(
    "options",
    [
        ["--box", "4,16,20,32"],
        ["--text", "red"],
        ["--mask", "mask.png"],
        ["--reference", "still.png", "--reference-box", "4,16,20,32"],
        ["--frame", "9", "--click", f"{left(9) + 8},24"],
        ["--frame", "5", "--click", f"{left(5) + 8},24", "--negative", "2,2"],
    ],
)
def test_every_kind_of_prompt(run: Run, folder: Path, options: list[str]) -> None:
    Image.fromarray(square(0).astype(np.uint8) * 255).save("mask.png")
    Image.fromarray(picture(0)).save("still.png")
    code, _, err = run("clip.mp4", "out.json", *options)
    assert (code, err) == (0, "")
    assert follows(read_masks(folder / "out.json"))


def test_several_objects_from_a_file(run: Run, folder: Path) -> None:
    prompts = [
        {"id": 3, "prompts": [{"type": "click", "x": 12, "y": 24}]},
        {"id": 9, "frame": 6, "prompts": [{"type": "click", "x": 2, "y": 2}]},
        {"id": 3, "frame": 5, "prompts": [{"type": "click", "x": left(5) + 8, "y": 24}]},
    ]
    Path("prompts.json").write_text(json.dumps(prompts))
    assert run("clip.mp4", "out.json", "--prompts", "prompts.json")[0] == 0
    assert follows(read_masks(folder / "out.json", 3))
    assert all(m[2, 2] for m in read_masks(folder / "out.json", 9))


def test_an_old_file_is_replaced_at_the_end(run: Run, folder: Path) -> None:
    Path("out.json").write_text("old")
    assert run("clip.mp4", "out.json", "--click", RED)[0] == 0
    assert files(folder) == {"clip.mp4", "out.json"}
    assert len(read_masks(folder / "out.json")) == FRAMES


# ---- bad usage and input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["clip.mp4", "out.mp4"], "at least one prompt"),
        (["clip.mp4", "out.avi", "--click", RED], "OUT: expected .mp4, .mov, .mkv, .json or a folder"),
        (["clip.mp4", "no/out.mp4", "--click", RED], "no such folder"),
        (["clip.mp4", "clip.mp4", "--click", RED], "another file than the video itself"),
        (["clip.mp4", "full", "--click", RED], "new or empty folder"),
        (["clip.mp4", "out", "--format", "gif", "--click", RED], "--format: expected video, png, json"),
        (["clip.mp4", "out.json", "--format", "video", "--click", RED], "ends in .mp4"),
        (["none.mp4", "out.mp4", "--click", RED], "none.mp4: no such file"),
        (["notes.mp4", "out.mp4", "--click", RED], "notes.mp4: expected a video"),
        (["short.mp4", "out.mp4", "--click", RED], "short.mp4: expected a video"),
        (["empty.mp4", "out.mp4", "--click", RED], "empty.mp4: expected a video"),
        (["still.mkv", "out.mp4", "--click", RED], "still.mkv: expected"),
        (["clip.mp4", "out.mp4", "--click", "99,9"], "frame 0, object 1: "),
        (["clip.mp4", "out.mp4", "--click", "a"], "--click: expected X,Y"),
        (["clip.mp4", "out.mp4", "--click", RED, "--frame", "10"], "frames from 0 to 9, got prompts on frame 10"),
        (["clip.mp4", "out.json", "--prompts", "late.json"], "frames from 0 to 9, got prompts on frame 12"),
        (["clip.mp4", "out.json", "--prompts", "before.json"], "frame: expected"),
        (["clip.mp4", "out.json", "--prompts", "bad.json"], "bad.json: "),
        (["clip.mp4", "out.json", "--prompts", "none.json"], "none.json"),
        (["clip.mp4", "masks", "--prompts", "large.json"], "ids from 1 to 255"),
        (["clip.mp4", "out.json", "--prompts", "large.json", "--click", RED], "no other prompt beside it"),
        (["clip.mp4", "out.json", "--prompts", "twice.json"], "object 1, frame 0: expected prompts, once"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(run: Run, folder: Path, args: list[str], said: str) -> None:
    Path("notes.mp4").write_text("no video")
    Path("short.mp4").write_bytes(Path("clip.mp4").read_bytes()[:2000])
    Path("empty.mp4").touch()
    write_clip(folder / "still.mkv", frames=0)
    Path("full").mkdir()
    Path("full/keep.txt").write_text("kept")
    one: dict[str, Any] = {"id": 1, "prompts": [{"type": "click", "x": 12, "y": 24}]}
    documents: dict[str, Any] = {
        "bad": [{"id": 1}],
        "large": [one | {"id": 256}],
        "twice": [one, one],
        "late": [one, one | {"id": 2, "frame": 12}],
        "before": [one | {"frame": -1}],
    }
    for name, document in documents.items():
        Path(f"{name}.json").write_text(json.dumps(document))
    before = files(folder)
    code, out, err = run(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert files(folder) == before


def test_sound_that_does_not_fit_is_not_dropped(run: Run, folder: Path) -> None:
    write_clip(folder / "clip.mkv", sound="wavpack")
    code, _, err = run("clip.mkv", "out.mp4", "--click", RED)
    assert (code, files(folder)) == (2, {"clip.mp4", "clip.mkv"})
    assert "can hold wavpack sound" in err


@pytest.mark.parametrize("target", ["out.mp4", "out.json", "masks"])
def test_a_full_disk_leaves_nothing(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    for kind in (writer._VideoWriter, writer._PngWriter, writer._JsonWriter):
        written = kind.write

        def full(self: Any, index: int, *args: Any, written: Any = written) -> None:
            if index == 4:
                raise OSError(28, "No space left on device")
            written(self, index, *args)

        monkeypatch.setattr(kind, "write", full)
    code, _, err = run("clip.mp4", target, "--click", RED)
    assert (code, err.count("\n"), files(folder)) == (1, 1, {"clip.mp4"})
    assert "No space left on device" in err


@pytest.mark.parametrize("target", ["out.mp4", "out.json", "masks"])
def test_a_second_run_on_the_same_output_is_refused(run: Run, folder: Path, target: str) -> None:
    kind = {"out.mp4": "video", "out.json": "json", "masks": "png"}[target]
    clip = Video("clip.mp4")
    with writer.open_writer(Path(target), kind, clip) as first:
        code, _, err = run("clip.mp4", target, "--click", RED)
        assert (code, err) == (2, f"seem: OUT: expected one run at a time, another is writing {target}\n")
        for i, frame in enumerate(clip.frames()):
            first.write(i, frame, {})
    assert files(folder) == {"clip.mp4", target}  # the first is whole, and no lock stays
    assert (len(times_of(folder / target)) if kind == "video" else len(read_masks(folder / target)) if kind == "json"
            else len(files(folder / target))) == FRAMES  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_really_full(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def full(self: Path, *args: Any, **options: Any) -> Any:
        return opened(Path("/dev/full") if ".tmp" in self.name else self, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    code, _, err = run("clip.mp4", "out.json", "--click", RED)
    assert (code, err.count("\n"), files(folder)) == (1, 1, {"clip.mp4"})
    assert "No space left on device" in err


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4", "ffv1"])
def test_codecs_other_than_h264(run: Run, folder: Path, codec: str) -> None:
    formats = {"mjpeg": "yuvj420p", "mpeg4": "yuv420p", "ffv1": "yuv420p"}
    with av.open("other.mkv", "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, formats[codec]
        for i in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode(None))
    assert run("other.mkv", "out.json", "--click", RED)[0] == 0
    assert follows(read_masks(folder / "out.json"))


def test_a_codec_that_nobody_has(run: Run, folder: Path) -> None:
    """The codec's name in the file is changed to one that does not exist."""
    data = Path("clip.mp4").read_bytes()
    assert b"avc1" in data
    Path("odd.mp4").write_bytes(data.replace(b"avc1", b"zzz9"))
    code, out, err = run("odd.mp4", "out.json", "--click", RED)
    assert (code, out, err.count("\n"), files(folder)) == (2, "", 1, {"clip.mp4", "odd.mp4"})
    assert "odd.mp4: expected a video in a codec that FFmpeg knows" in err


def test_a_video_that_breaks_off_leaves_nothing(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = Video.frames

    def broken(self: Video) -> Any:
        for i, frame in enumerate(frames(self)):
            if i == 6:
                raise seem.video.reader.VideoError("clip.mp4: broken after frame 6")
            yield frame

    monkeypatch.setattr(Video, "frames", broken)
    code, _, err = run("clip.mp4", "out.mp4", "--click", RED)
    assert (code, err, files(folder)) == (2, "seem: clip.mp4: broken after frame 6\n", {"clip.mp4"})


def test_without_pyav_the_message_says_what_to_install(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    code, _, err = run("clip.mp4", "out.mp4", "--click", RED)
    assert code == 1
    assert "pip install 'seem-segment[video]'" in err


@pytest.mark.parametrize(
    "options",
    [
        ["--scribble", "8,20 16,28", "--scribble-width", "3"],
        ["--polygon", "6,18 18,18 18,30 6,30"],
        ["--click", RED, "--negative-scribble", "50,5 60,8"],
        ["--click", RED, "--negative-polygon", "40,2 60,2 60,10"],
        ["--reference", "first.png", "--reference-scribble", "8,20 16,28"],
        ["--reference", "first.png", "--reference-polygon", "6,18 18,18 18,30 6,30"],
    ],
)
def test_every_prompt_of_segment_follows(run: Run, folder: Path, options: list[str]) -> None:
    Image.fromarray(picture(0)).save("first.png")
    code, _, err = run("clip.mp4", "out.json", *options)
    assert (code, err) == (0, "")
    assert follows(read_masks(folder / "out.json"))


@pytest.mark.parametrize(
    ("option", "grey_left"), [("--negative-scribble", "2,24 3,25"), ("--negative-polygon", "1,1 3,1 3,3")]
)
def test_negative_areas_reach_the_model(run: Run, folder: Path, option: str, grey_left: str) -> None:
    """A click on red and a negative on red leave less of it than the click alone."""
    inside = "10,22 14,26" if option == "--negative-scribble" else "8,20 16,20 16,28"
    assert run("clip.mp4", "far.json", "--click", RED, option, grey_left)[0] == 0
    assert run("clip.mp4", "on.json", "--click", RED, option, inside)[0] == 0
    far, on = (read_masks(folder / name)[0].sum() for name in ("far.json", "on.json"))
    assert on < far


def test_help_has_an_example(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "seem video dog.mp4 overlay.mp4 --click 320,200" in out
