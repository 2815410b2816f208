"""The sheet of simulated prompts, and its command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from seem.training.gallery import CELL_WIDTH, COLUMNS, command, gallery

app = typer.Typer()
app.command()(command)


def photo_and_mask() -> tuple[Image.Image, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    mask = np.zeros((60, 90), bool)
    mask[10:45, 20:60] = True
    return Image.fromarray(pixels), mask


def test_gallery() -> None:
    image, mask = photo_and_mask()
    sheet = gallery(image, mask, 1)
    assert sheet.mode == "RGB"
    assert sheet.width > COLUMNS * CELL_WIDTH
    assert sheet.tobytes() == gallery(image, mask, 1).tobytes()
    assert sheet.tobytes() != gallery(image, mask, 2).tobytes()


@pytest.mark.parametrize("box", [(0, 0, 90, 60), (89, 59, 90, 60), (0, 0, 2, 60)])
def test_gallery_of_odd_objects(box: tuple[int, int, int, int]) -> None:
    image, mask = photo_and_mask()
    mask[:] = False
    mask[box[1] : box[3], box[0] : box[2]] = True
    assert gallery(image, mask).height > 1000


@pytest.mark.parametrize(("shape", "message"), [((60, 90), "at least one pixel"), ((90, 60), "expected shape")])
def test_gallery_refuses(shape: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gallery(photo_and_mask()[0], np.zeros(shape, bool))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image, mask = photo_and_mask()
    image.save(tmp_path / "a.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    ring = [20, 10, 60, 10, 60, 45, 20, 45]
    annotations = [
        {"id": 1, "image_id": "7", "segmentation": [[0, 0, 5, 0, 5, 5]]},
        {"id": 2, "image_id": "7", "segmentation": [ring]},
        {"id": 3, "image_id": "7", "segmentation": {"size": [60, 90], "counts": [0, 5400]}, "iscrowd": 1},
    ]
    document = {"images": [{"id": 7, "file_name": "deep/a.png"}], "annotations": annotations}
    (tmp_path / "coco.json").write_text(json.dumps(document))
    (tmp_path / "bad.json").write_text('{"images": 3}')
    return tmp_path


def test_command_draws_the_same_from_a_mask_and_a_coco_file(folder: Path) -> None:
    sources = [["--mask", "mask.png"], ["--coco", "coco.json"], ["--coco", "coco.json", "--image-id", "7"]]
    sheets = []
    for option, name, *rest in sources:
        out = folder / "out.png"
        result = CliRunner().invoke(app, [str(folder / "a.png"), option, str(folder / name), *rest, "--out", str(out)])
        assert result.exit_code == 0, result.output
        sheets.append(out.read_bytes())
        out.unlink()
    assert sheets[0] == sheets[1] == sheets[2]
    assert sorted(p.name for p in folder.iterdir()) == ["a.png", "bad.json", "coco.json", "mask.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either --mask or --coco"),
        (["--mask", "mask.png", "--coco", "coco.json"], "either --mask or --coco"),
        (["--mask", "mask.png", "--image-id", "7"], "--image-id: expected --coco beside it"),
        (["--mask", "mask.png", "--out", "x.jpg"], "--out: expected a .png"),
        (["--coco", "coco.json", "--image-id", "8"], "no object of image 8"),
        (["--coco", "bad.json"], "expected a COCO file"),
    ],
)
def test_command_refuses(options: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, ["a.png", "--out", "out.png", *options])
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)
    assert not (folder / "out.png").exists()
