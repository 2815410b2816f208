"""What a record says about the rest of its photo: `annotated`, `ignore`, and people's phrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seem import geometry
from seem.model.prompting import ObjectPrompt
from seem.model.seem import ImageFeatures
from seem.training.loop import SEEMTask
from seem.training.objective import Objective
from seem.training.samples import Sample, load_ignore, load_targets, read_records
from tests.tiny import write_training

SIZE = (48, 64)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> SEEMTask:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("partly")
    config = write_training(folder)
    objective = replace(config.objective, synonym_cosine=1.5)  # random sentences are all alike
    return SEEMTask(replace(config, objective=objective), folder / "run")


def pixel_loss(task: SEEMTask, sample: Sample) -> dict[str, float]:
    with torch.no_grad():
        maps = task.model.pixel_decoder(sample.spatial, sample.semantic)
        return task.objective.light(maps, sample, np.random.default_rng(0))[1]


@pytest.fixture
def sample(task: SEEMTask) -> Sample:
    return replace(task.sample(np.random.default_rng(0)), complete=False)


def test_ignored_pixels_teach_nothing(task: SEEMTask, sample: Sample) -> None:
    assert pixel_loss(task, sample)["pixel"] > 0
    assert pixel_loss(task, replace(sample, ignore=np.ones(sample.size, bool)))["pixel"] == 0
    right = np.zeros(sample.size, bool)
    right[:, sample.size[1] // 2 :] = True
    assert pixel_loss(task, replace(sample, ignore=right))["pixel"] != pixel_loss(task, sample)["pixel"]


def test_annotated_names_are_known_everywhere(task: SEEMTask, sample: Sample) -> None:
    """Their shape can be learned with dice, which needs to know the background; that of others cannot."""
    assert pixel_loss(task, sample)["pixel_dice"] == 0
    every = frozenset(task.objective.vocabulary.names)
    one = pixel_loss(task, replace(sample, annotated=frozenset({"disk"})))["pixel_dice"]
    assert 0 < one < pixel_loss(task, replace(sample, annotated=every))["pixel_dice"]


def test_ignore_is_read_at_the_encoded_size() -> None:
    mask = np.zeros(SIZE, bool)
    mask[:24] = True
    record = {"id": "a/b", "ignore": geometry.rle_encode(mask, compressed=False)}
    found = load_ignore(record, (24, 32))
    assert found is not None
    assert found[:11].all() and not found[13:].any()
    assert load_ignore({"id": "a/b"}, (24, 32)) is None
    with pytest.raises(ValueError, match="record a/b, ignore: run lengths add up to 3"):
        load_ignore({"id": "a/b", "ignore": {"size": [2, 2], "counts": [3]}}, (24, 32))


def test_phrases_follow_a_flip(tmp_path: Path) -> None:
    write_training(tmp_path)
    record = read_records([tmp_path / "toy.jsonl"])[0]
    record["objects"][1]["phrases"] = ["the disk on the right"]
    target = load_targets(record, SIZE, 4, np.random.default_rng(0))[1]
    assert target.phrases == ("the disk on the right",)
    for flipped, phrase in ((False, "the disk on the right"), (True, "the disk on the left")):
        moved = target.moved(target.mask[:, ::-1].copy(), SIZE, flipped)
        assert moved is not None
        assert moved.phrases == (phrase,)
    assert target.moved(np.zeros(SIZE, bool), SIZE, False) is None


def prompted(task: SEEMTask, sample: Sample, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[ObjectPrompt]:
    """What the network is asked in the first round of a few photos."""
    config = replace(task.objective.config, max_rounds=0, **changes)
    seen: list[ObjectPrompt] = []
    batch = task.model.batch

    def spy(features: ImageFeatures, objects: Sequence[ObjectPrompt]) -> Any:
        seen.extend(objects)
        return batch(features, objects)

    monkeypatch.setattr(task.model, "batch", spy)
    objective = Objective(task.model, task.objective.vocabulary, config)
    with torch.no_grad():
        features = task.model.project(task.model.pixel_decoder(sample.spatial, sample.semantic), sample.size)
        for seed in range(4):
            objective(features, sample, np.random.default_rng(seed), torch.Generator().manual_seed(seed))
    return seen


def test_peoples_phrases_are_what_the_network_is_asked(
    task: SEEMTask, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RefCOCO's sentences, also on photos whose other objects nobody annotated."""
    spoken = replace(sample, targets=[replace(sample.targets[0], phrases=("the left one", "a red disk"))])
    asked = {p.texts for p in prompted(task, spoken, monkeypatch, prompt_mix=(("text", 1.0),))}
    assert asked == {("the left one",), ("a red disk",)}
    silent = replace(sample, targets=[replace(sample.targets[0], phrases=())])
    assert {p.texts for p in prompted(task, silent, monkeypatch, prompt_mix=(("text", 1.0),))} == {()}


def test_circles_and_first_negatives_are_what_the_network_is_asked(
    task: SEEMTask, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompted(task, sample, monkeypatch, prompt_mix=(("circle", 1.0),), first_negative=1.0)
    assert asked and all([v.positive for v in p.visual] == [True, False] for p in asked)
    assert all(p.visual[0].kind == "polygon" and len(p.visual[0].points) > 12 for p in asked)
    assert {p.visual[1].kind for p in asked} == {"click", "scribble"}
    plain = prompted(task, sample, monkeypatch, prompt_mix=(("click", 1.0),))
    assert all(len(p.visual) == 1 for p in plain)
