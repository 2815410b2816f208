"""`seem train ablation` on the toy photos: one step a training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from seem.data.records import write_records
from seem.training.ablation import ABLATIONS, ALL, run, table
from seem.training.augment import AugmentConfig
from seem.training.cli import train_app
from seem.training.engine import EngineConfig
from seem.training.paper.config import ObjectiveConfig, PaperConfig
from tests.tiny import write_photos


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PaperConfig:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ablation")
    records = write_photos(folder)
    records[2]["dev"] = True
    write_records(records, folder / "toy.jsonl")
    return PaperConfig(
        reduced=True,
        classes="records",
        records=((str(folder / "toy.jsonl"), 1.0),),
        engine=EngineConfig(steps=1, device="cpu", warmup=0),
        augment=AugmentConfig(size=(64, 48), scale=(1, 1)),
        objective=ObjectiveConfig(points=64, rounds=1),
    )


def test_start_trains_twice_and_compares(config: PaperConfig, tmp_path: Path) -> None:
    said: list[str] = []
    result = run("start", config, tmp_path, [0], report=said.append)
    assert said == ["start: pretrained, seed 0", f"start: {ALL}, seed 0"]
    assert {p.name for p in tmp_path.iterdir()} == {"pretraining-0", "pretrained-0", "as-configured-0"}
    assert (result["photos"], result["objects"], result["reference"]) == (1, 2, ALL)
    pretrained, reference = result["arms"]["pretrained"], result["arms"][ALL]
    assert reference["gain"] == {} and len(pretrained["by_seed"]) == 1
    for name, value in pretrained["figures"].items():
        gain = pretrained["gain"][name]
        assert gain["difference"] == pytest.approx(value - reference["figures"][name], abs=2e-4)
        assert gain["low"] <= gain["high"]
    assert f"| against {ALL} |" in table(result) and "text.miou" in table(result)
    assert json.loads(json.dumps(result)) == result


def test_arms_change_one_thing_each() -> None:
    assert set(ABLATIONS) == {"memory", "negatives", "matching", "start"}
    for arms in ABLATIONS.values():
        assert arms[-1].name == ALL and not arms[-1].changes
        for arm in arms:
            assert bool(arm.changes) or arm.pretrained or arm.name == ALL
            dataclasses.replace(ObjectiveConfig(), **arm.changes)
    assert not ABLATIONS["memory"][0].memory and not ABLATIONS["negatives"][0].negatives


def test_what_cannot_be_is_said(config: PaperConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of memory, negatives, matching, start, got 'colour'"):
        run("colour", config, tmp_path, [0])
    photos = write_photos(tmp_path)
    write_records(photos, tmp_path / "all.jsonl")
    with pytest.raises(ValueError, match=r"no photo of .*all\.jsonl is set aside"):
        run("memory", dataclasses.replace(config, records=((str(tmp_path / "all.jsonl"), 1.0),)), tmp_path, [0])
    answer = CliRunner().invoke(train_app, ["ablation", "memory", "nowhere.toml", "--out", str(tmp_path)])
    assert answer.exit_code == 2


def test_the_shipped_config_reads() -> None:
    read = PaperConfig.read(Path(__file__).parents[2] / "configs/ablation-small.toml")
    assert read.reduced and read.classes == "records" and read.objective.rounds > 1
