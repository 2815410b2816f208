"""`seem train look` on the toy set, and what a model with a closer look does with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import seem
from seem.checkpoints.files import save_model
from seem.model.closer_look import CloserLookConfig
from seem.predict.model import Model
from seem.training.cli import train_app
from seem.training.closer import Examples, LookConfig, collect, fit, new_look
from seem.training.samples import decode_rle, read_records
from tests.tiny import tiny_model, write_photos

LOOK = CloserLookConfig(hidden=16, side=64, share=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("look")
    records = write_photos(folder)
    (folder / "photos.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    save_model(tiny_model(), folder / "tiny.safetensors")
    return folder


@pytest.fixture(scope="module")
def examples(folder: Path) -> Examples:
    return collect(tiny_model(), read_records([folder / "photos.jsonl"]), views=3, config=LOOK)


def test_collect(folder: Path, examples: Examples, tmp_path: Path) -> None:
    records = read_records([folder / "photos.jsonl"])
    annotated = sum(bool(o.get("rle")) for r in records for o in r["objects"])
    assert len(examples.label) == 3 * annotated and bool(examples.closed.all())
    assert set(examples.names) == {o["name"] for r in records for o in r["objects"]}
    examples.save(tmp_path / "examples.safetensors")
    again = Examples.load(tmp_path / "examples.safetensors")
    assert again.names == examples.names and torch.equal(again.looked, examples.looked)
    both = Examples.join([examples, again])
    assert both.names == examples.names and len(both.label) == 2 * len(examples.label)


def test_it_learns_names(examples: Examples) -> None:
    """Trained on regions it names them; a look that knows nothing does not."""
    network = tiny_model()

    def right(look: torch.nn.Module) -> float:
        names = look.text(torch.stack([s for s, _ in network.raw_text(examples.names)]))  # type: ignore[operator]
        with torch.no_grad():
            found = look.name_logits(look(examples.looked.float()), names).argmax(1)  # type: ignore[operator]
        return float((found == examples.label).float().mean())

    before, after = (
        right(new_look(network, LOOK).eval()),
        right(fit(network, examples, LookConfig(steps=300, synonym_cosine=2, look=LOOK))),
    )
    assert after > 0.9 > before


def test_the_command_and_its_model(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "look.toml"
    config.write_text(
        f'start = "{folder}/tiny.safetensors"\nsets = [["{folder}/photos.jsonl", 2, 1.0]]\n'
        "steps = 300\nsynonym_cosine = 2\n"
        "[look]\nhidden = 16\nside = 64\nshare = 1.0\n"
    )
    for _ in range(2):  # the second time from what was collected
        result = CliRunner().invoke(train_app, ["look", str(config), "--out", str(tmp_path / "out")])
        assert result.exit_code == 0, result.output
    model = seem.load(str(tmp_path / "out/weights/tiny.safetensors"), device="cpu")
    assert model.network.config.closer_look.share == 1.0
    record = read_records([folder / "photos.jsonl"])[0]
    scene = model.encode(record["image"])
    names = sorted({o["name"] for o in record["objects"]})
    for o in record["objects"]:
        assert scene.label(decode_rle(o["rle"]), names, 1)[0][0] == o["name"]
    loaded = seem.Scene.from_bytes(scene.to_bytes(), model)
    mask = decode_rle(record["objects"][0]["rle"])
    assert [n for n, _ in loaded.label(mask, names)] == [n for n, _ in scene.label(mask, names)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "expected start and sets"), ('start = "a"\nsets = []', "expected start and sets"), ("speed = 1", "speed")],
)
def test_a_bad_config(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "look.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=expected):
        LookConfig.read(path)


def test_the_photo_travels_with_the_scene() -> None:
    network = tiny_model()
    network.closer_look = new_look(network, LOOK).eval()
    model = Model(network, "sha256:" + "a" * 64)
    pixels = np.asarray(Image.effect_mandelbrot((1600, 40), (-2, -1, 1, 1), 50).convert("RGB"))
    scene = model.encode(pixels)
    again = seem.Scene.from_bytes(scene.to_bytes(), model)
    assert again._photo == scene._photo and scene._photo is not None
    assert seem.Scene.from_bytes(scene.to_bytes(photo=False), model)._photo is None
    assert len(scene.to_bytes(photo=False)) < len(scene.to_bytes())
