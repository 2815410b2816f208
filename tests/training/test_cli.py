"""`seem train …` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seem.training.cli import train_app
from tests.tiny import write_photos

run = CliRunner().invoke


@pytest.mark.parametrize("command", [[], ["run"], ["base"], ["prepare"], ["features"], ["export"], ["gallery"]])
def test_help(command: list[str]) -> None:
    result = run(train_app, [*command, "--help"])
    assert result.exit_code == 0
    assert not command or "Example:" in result.stdout


@pytest.mark.parametrize("order", [["{config}", "--print-config"], ["--print-config", "{config}"]])
def test_print_config(order: list[str], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[engine]\nsteps = 7\n[objective]\nmax_rounds = 2\n[model.image]\ntarget = 320\n")
    result = run(train_app, [a.format(config=tmp_path / "c.toml") for a in order])
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed["engine"]["steps"] == 7
    assert printed["objective"]["max_rounds"] == 2
    assert printed["model"]["image"]["target"] == 320


@pytest.mark.parametrize("name", ["paper-focal-t", "paper-focal-l"])
def test_print_config_of_the_paper(name: str) -> None:
    result = run(train_app, [str(Path(__file__).parents[2] / f"configs/{name}.toml"), "--print-config"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["model"].startswith("seem-focal-")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.toml", "--out", "x"], 2, "nowhere.toml"),
        (["{bad}", "--out", "x"], 2, "TrainConfig has no field stepz"),
        (["{good}"], 2, "--out: expected the folder of the run"),
        (["{good}", "--out", "{folder}/run"], 2, "tinyvit.safetensors"),
        (["prepare", "nowhere", "--out", "x"], 2, "nowhere: no such folder"),
        (["base", "--out", "x", "--image", "{good}", "--semantic", "{good}", "--text", "{good}"], 2, "archive must be"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("stepz = 7\n")
    (tmp_path / "good.toml").write_text(f"base = {json.dumps(str(tmp_path))}\n")
    names = {"bad": tmp_path / "bad.toml", "good": tmp_path / "good.toml", "folder": tmp_path}
    result = run(train_app, [a.format(**names) for a in arguments])
    assert result.exit_code == code
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_prepare(tmp_path: Path) -> None:
    """The photos of the tests as a folder of images/ and masks/."""
    from PIL import Image

    from seem.training.samples import decode_rle

    folder = tmp_path / "own"
    for record in write_photos(folder):
        mask = decode_rle(record["objects"][0]["rle"])
        path = folder / "masks" / Path(record["image"]).name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(mask).convert("L").save(path)
    result = run(train_app, ["prepare", str(folder), "--out", str(tmp_path / "records")])
    assert result.exit_code == 0, result.stderr
    assert "own: 3 photos, 3 objects, 0 leaks removed" in result.stdout
    assert len((tmp_path / "records/own.jsonl").read_text().splitlines()) == 3
