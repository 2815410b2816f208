"""What a record says about the rest of its photo: `annotated`, `ignore`, and people's phrases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seem import geometry
from seem.training.loop import SEEMTask
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
