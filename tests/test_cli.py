"""The command line: what it prints, what it writes, and what it says to bad usage and bad input."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import seem
from seem import geometry
from seem.cli import main
from seem.predict.model import Model
from tests.conftest import BLUE_BOX, RED_BOX, box_mask
from tests.fakes import WEIGHTS, FakeNetwork

RED, BLUE, GREY = "40,50", "110,40", "5,5"
COMMANDS = ["segment", "find", "panoptic", "models", "eval", "train"]


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photo.png in it; `seem.load` gives the network that segments by colour."""
    Image.fromarray(photo).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(seem, "load", lambda name, device="auto": Model(FakeNetwork(), WEIGHTS))  # type: ignore[arg-type]
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*args: str) -> tuple[int, str, str]:
        code = main(list(args))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


Run = Callable[..., tuple[int, str, str]]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def read_mask(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return geometry.mask_iou(a, b)


# ---- segment ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "box"),
    [
        (["--click", RED], RED_BOX),
        (["--click", "40.7, 50.2"], RED_BOX),
        (["--click", RED, "--negative", GREY, "--negative", BLUE], RED_BOX),
        (["--box", "92,22,128,58"], BLUE_BOX),
        (["--scribble", "95,30 110,40 120,50", "--scribble-width", "3"], BLUE_BOX),
        (["--click", RED, "--negative-scribble", "5,5 10,100"], RED_BOX),
        (["--polygon", "22,32 58,32 58,68 22,68"], RED_BOX),
        (["--click", RED, "--negative-polygon", "1,1 15,1 15,15"], RED_BOX),
        (["--mask", "red.png"], RED_BOX),
        (["--text", "blue"], BLUE_BOX),
        (["--text", "blue", "--click", BLUE], BLUE_BOX),
        (["--reference", "photo.png", "--reference-box", "92,22,128,58"], BLUE_BOX),
        (["--reference", "photo.png", "--reference-click", BLUE], BLUE_BOX),
        (["--reference", "photo.png", "--reference-mask", "red.png"], RED_BOX),
        (["--reference", "photo.png", "--reference-click", BLUE] * 2, BLUE_BOX),
    ],
)
def test_every_prompt_gives_its_object(run: Run, folder: Path, options: list[str], box: tuple[int, ...]) -> None:
    Image.fromarray(box_mask(RED_BOX).astype(np.uint8) * 255).save("red.png")
    code, out, err = run("segment", "photo.png", *options, "--mask-out", "mask.png")
    assert (code, err) == (0, "")
    assert "wrote mask.png" in out
    mask = read_mask(folder / "mask.png")
    assert set(np.unique(mask)) == {0, 255}
    assert iou(mask > 0, box_mask(box)) > 0.8  # type: ignore[arg-type]


def test_picture_has_the_photos_size_and_a_default_name(run: Run, folder: Path) -> None:
    code, out, _ = run("segment", "photo.png", "--click", RED)
    assert code == 0
    assert out.splitlines()[-1] == "wrote photo-seem.png"
    assert files(folder) == {"photo.png", "photo-seem.png"}
    assert Image.open("photo-seem.png").size == (160, 120)


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.WEBP", "WEBP")])
def test_picture_formats(run: Run, name: str, kind: str) -> None:
    assert run("segment", "photo.png", "--click", RED, "--out", name)[0] == 0
    assert Image.open(name).format == kind


def test_json_is_one_document_and_no_file(run: Run, folder: Path) -> None:
    before = files(folder)
    code, out, err = run("segment", "photo.png", "--click", RED, "--vocabulary", "red,blue", "--json")
    assert (code, err, files(folder)) == (0, "", before)
    document = json.loads(out)
    assert document["image"] == {"width": 160, "height": 120}
    (found,) = document["segments"]
    assert set(found) == {"mask_rle", "score", "label", "label_score", "box", "area"}
    assert found["label"] == "red"
    mask = geometry.rle_decode(found["mask_rle"])
    assert iou(mask, box_mask(RED_BOX)) > 0.8
    assert found["area"] == mask.sum()


def test_json_with_out_prints_only_json(run: Run, folder: Path) -> None:
    _, out, _ = run("segment", "photo.png", "--click", RED, "--json", "--out", "a.png", "--mask-out", "m.png")
    json.loads(out)
    assert {"a.png", "m.png"} <= files(folder)


def test_segment_zooms(run: Run) -> None:
    _, plain, _ = run("segment", "photo.png", "--click", RED, "--json")
    code, zoomed, _ = run("segment", "photo.png", "--click", RED, "--zoom", "--json")  # one click does not zoom yet
    assert code == 0 and json.loads(zoomed)["segments"][0]["mask_rle"] == json.loads(plain)["segments"][0]["mask_rle"]
    x, y = map(int, RED.split(","))
    box = ("--box", f"{x - 2},{y - 2},{x + 3},{y + 3}", "--zoom", "--out", "zoomed.png")
    code, boxed, err = run("segment", "photo.png", *box, "--json")
    assert code == 0, err
    assert json.loads(boxed)["segments"][0]["area"] > 0 and Path("zoomed.png").stat().st_size


def test_prompts_file_gives_several_objects(run: Run, folder: Path) -> None:
    scene = seem.load("fake").encode("photo.png")
    objects = [
        {"id": 4, "prompts": [{"type": "click", "x": 40, "y": 50}]},
        {"id": 2, "prompts": [{"type": "reference", "image": scene.digest,
                               "prompt": {"type": "box", "xyxy": [92, 22, 128, 58]}}]},
    ]  # fmt: skip
    Path("objects.json").write_text(json.dumps(objects))
    args = ["segment", "photo.png", "--prompts", "objects.json", "--reference", "photo.png", "--json"]
    code, out, err = run(*args, "--mask-out", "m.png")
    assert (code, err) == (0, "")
    assert len(json.loads(out)["segments"]) == 2
    numbers = read_mask(folder / "m.png")
    assert iou(numbers == 1, box_mask(RED_BOX)) > 0.8
    assert iou(numbers == 2, box_mask(BLUE_BOX)) > 0.8


def test_same_prompts_same_output(run: Run) -> None:
    args = ["segment", "photo.png", "--click", RED, "--text", "red", "--json"]
    assert run(*args) == run(*args)


def test_log_of_a_call_is_replayable_by_hand(run: Run) -> None:
    """Options and a --prompts file with the same prompts are the same object."""
    Path("one.json").write_text(json.dumps({"id": 0, "prompts": [seem.Click(40, 50).to_json()]}))
    by_file = run("segment", "photo.png", "--prompts", "one.json", "--json")
    assert by_file == run("segment", "photo.png", "--click", RED, "--json")


# ---- find, panoptic, models ---------------------------------------------------------------------------------------


def test_find(run: Run, folder: Path) -> None:
    code, out, err = run("find", "photo.png", "--text", "red", "--text", "blue", "--json", "--mask-out", "m.png")
    assert (code, err) == (0, "")
    segments = json.loads(out)["segments"]
    assert {s["label"] for s in segments} == {"red", "blue"}
    assert [s["score"] for s in segments] == sorted((s["score"] for s in segments), reverse=True)
    numbers = read_mask(folder / "m.png")
    for number, found in enumerate(segments, start=1):
        assert iou(numbers == number, geometry.rle_decode(found["mask_rle"])) > 0.8


def test_find_may_find_nothing(run: Run, folder: Path) -> None:
    args = ["find", "photo.png", "--text", "zebra", "--threshold", "1"]
    code, out, _ = run(*args, "--out", "a.png", "--mask-out", "m.png")
    assert (code, out.splitlines()[0]) == (0, "nothing found")
    assert not read_mask(folder / "m.png").any()
    assert json.loads(run(*args, "--json")[1])["segments"] == []


def test_panoptic(run: Run, folder: Path) -> None:
    args = ["panoptic", "photo.png", "--vocabulary", "red,blue", "--vocabulary", "grey:stuff", "--map-out", "map.png"]
    code, out, err = run(*args, "--background", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    kinds = {s["label"]: s["is_thing"] for s in document["segments"]}
    assert kinds["red"] is True
    ids = read_mask(folder / "map.png")[..., 0]
    for found in document["segments"]:
        assert (ids == found["id"]).sum() == found["area"]


def test_panoptic_draws(run: Run) -> None:
    code, out, _ = run("panoptic", "photo.png", "--out", "a.jpg")
    assert (code, out.splitlines()[-1]) == (0, "wrote a.jpg")
    assert Image.open("a.jpg").size == (160, 120)


def test_models_lists_the_default(run: Run) -> None:
    code, out, _ = run("models")
    assert code == 0
    assert "seem-tiny (default)" in out
    rows = json.loads(run("models", "--json")[1])["models"]
    assert [row["name"] for row in rows if row["default"]] == ["seem-tiny"]


# ---- bad usage and bad input --------------------------------------------------------------------------------------

BAD = [
    (["segment"], "Missing argument"),
    (["segment", "photo.png", "--clack", "1,2"], "--clack"),
    (["nonsense"], "nonsense"),
    (["segment", "photo.png"], "at least one prompt"),
    (["segment", "missing.png", "--click", RED], "missing.png: no such file"),
    (["segment", "https://x.org/a.png", "--click", RED], "download it first"),
    (["segment", ".", "--click", RED], "a folder"),
    (["segment", "text.png", "--click", RED], "text.png: expected a JPEG"),
    (["segment", "cut.png", "--click", RED], "cut.png: truncated"),
    (["segment", "photo.png", "--click", "1"], "--click: expected X,Y, got '1'"),
    (["segment", "photo.png", "--click", "a,b"], "--click: expected X,Y, got 'a,b'"),
    (["segment", "photo.png", "--click", "nan,1"], "--click: Click.x: expected a finite number"),
    (["segment", "photo.png", "--click", "inf,1"], "finite"),
    (["segment", "photo.png", "--click", "160,3"], "0 <= x < 160"),
    (["segment", "photo.png", "--click", "-1,3"], "0 <= x < 160"),
    (["segment", "photo.png", "--negative", RED], "only negative"),
    (["segment", "photo.png", "--box", "1,2,3"], "--box: expected X0,Y0,X1,Y1"),
    (["segment", "photo.png", "--box", "10,10,10,20"], "x0 < x1"),
    (["segment", "photo.png", "--box", "500,500,600,600"], "overlaps the image"),
    (["segment", "photo.png", "--scribble", ""], "--scribble: expected"),
    (["segment", "photo.png", "--scribble", "1,2 3"], "--scribble: expected"),
    (["segment", "photo.png", "--scribble", "1,2 3,4", "--scribble-width", "0"], "more than 0"),
    (["segment", "photo.png", "--scribble", "900,900 950,950"], "enters the image"),
    (["segment", "photo.png", "--polygon", "1,1 2,2"], "3 to 10000 points"),
    (["segment", "photo.png", "--polygon", "1,1 2,2 3,3"], "on one line"),
    (["segment", "photo.png", "--mask", "small.png"], "160x120"),
    (["segment", "photo.png", "--mask", "empty.png"], "empty mask"),
    (["segment", "photo.png", "--mask", "photo.png"], "black and white mask"),
    (["segment", "photo.png", "--mask", "missing.png"], "--mask: missing.png: no such file"),
    (["segment", "photo.png", "--text", "  "], "--text: Text.text: expected a phrase"),
    (["segment", "photo.png", "--text", "a" * 1001], "at most 1000"),
    (["segment", "photo.png", "--reference", "photo.png"], "--reference: expected an image and"),
    (["segment", "photo.png", "--reference-box", "1,2,3,4"], "--reference: expected an image and"),
    (["segment", "photo.png", "--reference", "missing.png", "--reference-box", "1,2,3,4"], "no such file"),
    (["segment", "photo.png", "--reference", "photo.png", "--reference-click", "999,1"], "--reference: Ref"),
    (["segment", "photo.png", *["--reference", "photo.png"] * 2, "--reference-click", "1,1"], "expected 2 regions"),
    (["segment", "photo.png", "--prompts", "missing.json"], "--prompts: missing.json: No such file"),
    (["segment", "photo.png", "--prompts", "text.png"], "expected JSON"),
    (["segment", "photo.png", "--prompts", "none.json"], "at least one object"),
    (["segment", "photo.png", "--prompts", "twice.json"], "every object's id once"),
    (["segment", "photo.png", "--prompts", "unknown.json"], "an image that was encoded before"),
    (["segment", "photo.png", "--prompts", "none.json", "--click", RED], "no other prompt beside it"),
    (["segment", "photo.png", "--click", RED, "--vocabulary", ",,"], "--vocabulary"),
    (["segment", "photo.png", "--click", RED, "--out", "a.bmp"], "--out: expected a name that ends in"),
    (["segment", "photo.png", "--click", RED, "--out", "no/a.png"], "--out: no such folder"),
    (["segment", "photo.png", "--click", RED, "--out", "photo.png"], "the photo itself"),
    (["segment", "photo.png", "--click", RED, "--mask-out", "a.jpg"], "--mask-out: expected a name that ends in .png"),
    (["segment", "photo.png", "--click", RED, "--out", "a.png", "--mask-out", "a.png"], "another file than --out"),
    (["segment", "photo.png", "--click", RED, "--device", "abacus"], "--device: "),
    (["find", "photo.png"], "--text"),
    (["find", "photo.png", "--text", ""], "a phrase"),
    (["find", "photo.png", "--text", "red", "--threshold", "2"], "threshold"),
    (["find", "photo.png", "--text", "red", "--limit", "0"], "limit"),
    (["panoptic", "photo.png", "--vocabulary", "a:liquid"], "--vocabulary"),
    (["panoptic", "photo.png", "--threshold", "x"], "--threshold"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "message"), BAD, ids=[" ".join(args)[:60] for args, _ in BAD])
def test_bad_input_is_one_line_and_code_2_and_leaves_no_file(
    run: Run, folder: Path, photo: np.ndarray, args: list[str], message: str
) -> None:
    Image.fromarray(np.zeros((120, 160), np.uint8)).save("empty.png")
    Image.fromarray(np.full((12, 16), 255, np.uint8)).save("small.png")
    Path("text.png").write_text("not a picture")
    Path("cut.png").write_bytes(Path("photo.png").read_bytes()[:2000])
    Path("none.json").write_text("[]")
    one = {"id": 1, "prompts": [{"type": "click", "x": 1, "y": 1}]}
    Path("twice.json").write_text(json.dumps([one, one]))
    missing = {"type": "reference", "image": "sha256:" + "0" * 64, "prompt": {"type": "click", "x": 1, "y": 1}}
    Path("unknown.json").write_text(json.dumps({"id": 1, "prompts": [missing]}))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("seem: ")
    assert err.count("\n") == 1
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["seem-enormous", "missing.safetensors", "pickle.safetensors"])
def test_bad_model_is_bad_input(
    photo: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04\x95")
    model = str(tmp_path / name) if "." in name else name
    out = tmp_path / "a.png"
    assert main(["segment", str(tmp_path / "photo.png"), "--click", RED, "--model", model, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("seem: --model: ")
    assert name in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_failure_of_ours_is_code_1(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(FakeNetwork, "decode", broken)
    before = files(folder)
    code, out, err = run("segment", "photo.png", "--click", RED, "--out", "a.png")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "failed: RuntimeError: out of memory" in err
    assert files(folder) == before


def test_a_full_disk_leaves_nothing_half_written(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.png").write_text("old")
    written = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        written(path, data[:10])
        if "m.png" in path.name:
            raise OSError(28, "No space left on device")
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", full)
    before = files(folder)
    code, _, err = run("segment", "photo.png", "--click", RED, "--out", "a.png", "--mask-out", "m.png")
    assert (code, files(folder)) == (1, before)
    assert "No space left" in err
    assert Path("a.png").read_text() == "old"


# ---- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("eval", "train")])
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert "Example" in out
    assert f"seem {command}" in out.split("Example")[1]


@pytest.mark.parametrize("command", ["eval", "train"])
def test_commands_of_other_parts_are_passed_on(run: Run, command: str) -> None:
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: seem {command}" in out
    code, out, err = run(command, "--bogus")
    assert (code, out, err.count("\n")) == (2, "", 1)
    code, out, err = run(command, *{"eval": ["interactive", "missing"], "train": ["missing.toml"]}[command])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "missing" in err


def test_help_lists_the_commands(run: Run) -> None:
    out = run("--help")[1]
    assert all(f"\n  {command} " in out for command in COMMANDS)
    assert run("--version")[1].strip() == seem.__version__


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=120, check=False)


def test_help_is_quick() -> None:
    """Neither the command's help nor `import seem` waits for torch; half a second of processor time is plenty."""
    code = "import sys, seem.cli; seem.cli.main(['segment', '--help']); print({'torch', 'numpy'} & set(sys.modules))"
    assert python("-c", code).stdout.splitlines()[-1] == "set()"
    start = time.perf_counter()
    assert python("-m", "seem", "--help").returncode == 0
    assert time.perf_counter() - start < 10  # generous: it takes 0.3 s on an idle machine


def test_exit_code_reaches_the_shell() -> None:
    done = python("-m", "seem", "segment", "missing.png", "--click", "1,1")
    assert done.returncode == 2
    assert done.stderr == "seem: missing.png: no such file\n"


def test_finetune_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--images", str(tmp_path), "--coco", str(tmp_path / "none.json"), "--out", str(tmp_path / "out")]
    assert main(["finetune", *arguments]) == 2
    assert "none.json" in capsys.readouterr().err
