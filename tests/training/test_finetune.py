"""`seem finetune` on the photos of the toy set, as a COCO file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seem
from seem.checkpoints.files import save_model
from seem.data.coco import read_coco
from seem.data.records import RecordError, write_records
from seem.model.prompting import ObjectPrompt
from seem.model.seem import ImageFeatures
from seem.training.finetune import FinetuneConfig, FinetuneTask, finetune, table
from seem.training.loop import TrainConfig
from tests.tiny import tiny_model, write_photos


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos (the toy set twice, in other colours), COCO RLE, a class that COCO lacks."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finetune")
    save_model(tiny_model(), folder / "start.safetensors")
    document: dict[str, list] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "disk"}]}
    for copy in range(2):
        for i, record in enumerate(write_photos(folder / str(copy))):
            path = Path(record["image"])
            if copy:
                Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
            number = 3 * copy + i
            name = f"{copy}/images/{path.name}"
            document["images"].append({"id": number, "file_name": name, "width": 64, "height": 48})
            rle = next(o["rle"] for o in record["objects"] if o["name"] == "disk")
            document["annotations"].append({"id": number, "image_id": number, "category_id": 1, "segmentation": rle})
    (folder / "coco.json").write_text(json.dumps(document))
    return folder


def test_finetune(coco: Path, tmp_path: Path) -> None:
    start = str(coco / "start.safetensors")
    out = tmp_path / "out"
    config = FinetuneConfig(steps=3)
    result = finetune(coco, coco / "coco.json", out, start, config, report=lambda line: None)
    assert result["photos"] == {"learned": 5, "held_out": 1}
    assert result["names"] == ["disk"]
    assert 0 <= result["before"]["iou_at_1"] <= 1
    assert "iou_at_1" in table(result)
    assert json.loads((out / "report.json").read_text()) == result
    assert (out / "before-after.png").stat().st_size > 0
    model = seem.load(str(out / "model.safetensors"))
    scene = model.encode(str(coco / "0/images/0.png"))
    assert "disk" in [name for name, _ in scene.label(np.ones((48, 64), bool), top=134)]
    moved = [
        (a - b).abs().max()
        for a, b in zip(model.network.parameters(), seem.load(start).network.parameters(), strict=True)
    ]
    assert max(moved) > 0
    again = finetune(coco, coco / "coco.json", out, start, config, report=lambda line: None)
    assert again["after"] == result["after"], "a finished run is not trained further"


def test_another_set_is_mixed_in(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    start, config = str(coco / "start.safetensors"), FinetuneConfig(steps=2)
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    (other / "masks").mkdir()
    for i in range(2):
        Image.open(coco / f"0/images/{i}.png").save(other / "images" / f"{i}.png")
        Image.fromarray(np.pad(np.full((20, 20), 255, np.uint8), ((9, 19), (9, 35)))).save(other / "masks" / f"{i}.png")
    finetune(coco, coco / "coco.json", out, start, config, mix=other, report=lambda line: None)
    assert len((out / "mix.jsonl").read_text().splitlines()) == 2
    with pytest.raises(RecordError, match="nowhere: no such file or folder"):
        finetune(coco, coco / "coco.json", out, start, config, mix=Path("nowhere"), report=lambda line: None)


def test_too_few_photos(coco: Path, tmp_path: Path) -> None:
    document = json.loads((coco / "coco.json").read_text())
    document["annotations"] = document["annotations"][:3]
    (tmp_path / "few.json").write_text(json.dumps(document))
    with pytest.raises(RecordError, match=r"few\.json: expected at least 5 photos with objects, got 3"):
        finetune(coco, tmp_path / "few.json", tmp_path / "out", str(coco / "start.safetensors"))


def test_answers_of_later_rounds_are_kept_too(coco: Path, tmp_path: Path) -> None:
    """A copy that has not learned anything answers alike; corrections carry the mask before them and a click."""
    records = list(read_coco("own", coco / "coco.json", coco))
    write_records(records, tmp_path / "train.jsonl")
    config = TrainConfig(
        start=str(coco / "start.safetensors"), features="", records=((str(tmp_path / "train.jsonl"), 1.0),)
    )
    task = FinetuneTask(config, tmp_path, torch.device("cpu"), keep=1.0)
    seen: list[ObjectPrompt] = []
    batch = task.model.batch

    def spy(features: ImageFeatures, objects: Sequence[ObjectPrompt]) -> Any:
        seen.extend(objects)
        return batch(features, objects)

    task.objective = lambda features, *_: (features.joint.sum() * 0, {})  # type: ignore[assignment]
    task.model.batch = spy  # type: ignore[method-assign]
    for i in range(12):
        (piece,) = task.losses([[0, i, 0]], lambda x: x)
        assert float(piece.loss.detach()) == pytest.approx(0, abs=1e-5)
    later = [p for p in seen if p.previous is not None]
    assert later and len(later) < len(seen)
    assert max(len(p.visual) for p in later) > 2
    assert any(not v.positive for p in later for v in p.visual)
    with torch.no_grad():
        task.model.prompt_decoder.up1.weight.mul_(10)
    (piece,) = task.losses([[0, 0, 0]], lambda x: x)
    assert float(piece.loss.detach()) > 1e-4
