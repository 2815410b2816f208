"""The paper's training as the engine runs it, on three small photos."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seem.data.records import write_records
from seem.model.prompting import ObjectPrompt, VisualPrompt
from seem.training.augment import AugmentConfig
from seem.training.engine import Engine, EngineConfig
from seem.training.paper.config import ObjectiveConfig, PaperConfig, Weights
from seem.training.paper.task import PaperTask, averaged, export, starting_model, train, undecayed
from tests.official import reduced_variants, write_official
from tests.tiny import write_photos


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    write_records(write_photos(folder), folder / "toy.jsonl")
    return folder / "toy.jsonl"


def config(file: Path, **changes: Any) -> PaperConfig:
    made = PaperConfig(
        reduced=True,
        classes="records",
        records=((str(file), 1.0),),
        engine=EngineConfig(steps=2, device="cpu", warmup=0),
        augment=AugmentConfig(size=(96, 64), scale=(0.5, 1.5)),
        objective=ObjectiveConfig(points=128, rounds=1),
    )
    return dataclasses.replace(made, **changes)


def same(x: Tensor) -> Tensor:
    return x


def test_photos_come_from_their_seeds(records: Path, tmp_path: Path) -> None:
    task = PaperTask(config(records), tmp_path)
    a, b, c = task.lesson([0, 1, 2]), task.lesson([0, 1, 2]), task.lesson([0, 1, 3])
    assert torch.equal(a.pixels, b.pixels) and torch.equal(a.strokes, b.strokes) and a.sentences == b.sentences
    assert not torch.equal(a.pixels, c.pixels)
    assert a.pixels.shape == (1, 3, 64, 96)
    losses = [[float(p.loss.detach()) for p in task.losses([[0, 1, 2], [0, 1, 3]], same)] for _ in range(2)]
    assert losses[0] == losses[1]


def test_left_and_right_follow_the_flip(records: Path, tmp_path: Path) -> None:
    found = []
    for flip in (0.0, 1.0):
        task = PaperTask(config(records, augment=AugmentConfig(flip=flip, crop=1, scale=(1, 1))), tmp_path)
        for photo in task.sets[0]:
            for o in photo["objects"]:
                o["phrases"] = ["thing on the left"] if o["name"] == "disk" else []
        x = task.lesson([0])
        assert x.spoken
        found.append((x.phrases, float(x.masks[int(x.named[0])].nonzero()[:, 1].float().mean()) < 32))
    assert found == [(("thing on the left",), False), (("thing on the right",), True)]


def test_counts_are_totalled_once_a_step_before_any_loss(records: Path, tmp_path: Path) -> None:
    task, calls = PaperTask(config(records), tmp_path), []

    def double(x: Tensor) -> Tensor:
        calls.append(x.clone())
        return 2 * x

    seeds = [[0, 0, 0], [0, 0, 1]]
    halved, plain = list(task.losses(seeds, double)), list(task.losses(seeds, same))
    assert len(calls) == 1 and calls[0].tolist() == sum(task.objective.counts(task.lesson(s)) for s in seeds).tolist()
    for a, b in zip(halved, plain, strict=True):
        assert float(2 * a.loss.detach()) == pytest.approx(float(b.loss.detach()), rel=1e-5)
        assert a.key == b.key and a.log == pytest.approx(b.log, rel=1e-5)


def test_two_processes_take_the_step_of_one(records: Path, tmp_path: Path) -> None:
    """The engine's way in one process: counts are means over the processes, and so are gradients."""
    c = config(records)
    tasks = [PaperTask(c, tmp_path) for _ in range(3)]
    seeds = [[0, 0, 0], [0, 0, 1]]
    for piece in tasks[0].losses(seeds, same):
        piece.loss.backward()
    counts = torch.stack([tasks[0].objective.counts(tasks[0].lesson(s)) for s in seeds]).mean(0)
    for task, seed in zip(tasks[1:], seeds, strict=True):
        for piece in task.losses([seed], lambda _: counts):
            piece.loss.backward()
    one, *two = (dict(t.model.named_parameters()) for t in tasks)
    for name, p in one.items():
        if p.grad is not None:
            parts = [torch.zeros_like(p) if q[name].grad is None else q[name].grad for q in two]
            torch.testing.assert_close(sum(parts) / 2, p.grad, rtol=1e-4, atol=1e-5)


def test_the_engine_trains_resumes_and_leaves_weights(records: Path, tmp_path: Path) -> None:
    c = config(records)
    engine = train(c, tmp_path / "whole")
    train(dataclasses.replace(c, engine=dataclasses.replace(c.engine, steps=1)), tmp_path / "parts")
    train(c, tmp_path / "parts")
    whole, parts = averaged(c, tmp_path / "whole"), averaged(c, tmp_path / "parts")
    started = starting_model(c).state_dict()
    changed = set()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name])
        if not torch.equal(value, started[name]):
            changed.add(name.split(".")[0])
    assert engine.step == 2 and changed == {"decoder"}
    assert json.loads((tmp_path / "whole" / "classes.json").read_text()) == sorted(
        ["disk", "red square", "green square", "blue square"]
    )
    with pytest.raises(ValueError, match="reduced"):
        export(c, tmp_path / "whole", tmp_path / "a.safetensors")


def test_joint_matching_is_trained_and_used(records: Path) -> None:
    """Of the paper's two ways the network that comes out takes the one that it was trained for."""
    chosen = {}
    for matching in ("separate", "joint"):
        model = starting_model(config(records, objective=ObjectiveConfig(matching=matching))).eval()
        with torch.no_grad():
            features = model.encode_image(torch.rand(1, 3, 64, 96), (64, 96))
            click = VisualPrompt("click", True, np.array([[40, 30]], np.float32))
            before = model.decode(features, [ObjectPrompt((click,))]).logits
            model.decoder.class_embed.mul_(-1)  # turns every preference around
            after = model.decode(features, [ObjectPrompt((click,))]).logits
        chosen[matching] = torch.equal(before, after)
    assert chosen == {"separate": True, "joint": False}


def test_half_precision_trains(records: Path, tmp_path: Path) -> None:
    c = config(records, engine=EngineConfig(steps=1, device="cpu", precision="bfloat16"))
    exact, rounded = (PaperTask(c, tmp_path) for _ in range(2))
    plain = Engine(exact, dataclasses.replace(c.engine, precision="float32"), tmp_path).train_step()
    coarse = Engine(rounded, c.engine, tmp_path).train_step()
    assert coarse["object_bce"] == pytest.approx(plain["object_bce"], rel=0.1)
    assert coarse["object_bce"] != plain["object_bce"]


@pytest.mark.parametrize("frozen", [("image_encoder.", "pixel_decoder.", "text_encoder."), ("text_encoder.",), ()])
def test_groups_hold_every_learned_parameter_once(records: Path, tmp_path: Path, frozen: tuple[str, ...]) -> None:
    task = PaperTask(config(records, frozen=frozen), tmp_path)
    groups = task.groups()
    names = [n for g in groups for n in g.parameters]
    expected = {n for n, _ in task.model.named_parameters() if not n.startswith(frozen or ("-",))}
    assert len(names) == len(set(names)) and set(names) == expected
    for g in groups:
        for n in g.parameters:
            assert g.learning_rate == pytest.approx(1e-5 if n.startswith(("image_enc", "text_enc")) else 1e-4)
    free = {n for g in groups if g.weight_decay == 0 for n in g.parameters}
    assert {"decoder.query_feat.weight", "decoder.decoder_norm.bias"} <= free
    assert not {"decoder.class_embed", "decoder.ffn_layers.0.linear1.bias"} & free


def test_norms_embeddings_and_positions_do_not_decay() -> None:
    model = nn.ModuleDict(
        {"a": nn.Linear(2, 2), "n": nn.LayerNorm(2), "g": nn.GroupNorm(1, 2), "e": nn.Embedding(2, 2)}
    )
    model.register_parameter("pos_embed", nn.Parameter(torch.zeros(1)))
    assert undecayed(model) == {"n.weight", "n.bias", "g.weight", "g.bias", "e.weight", "pos_embed"}


def test_training_starts_from_official_weights_and_ends_in_a_file_that_loads(records: Path, tmp_path: Path) -> None:
    import seem
    from seem.checkpoints.official import convert

    with reduced_variants("seem-focal-t-v0", "seem-focal-t-v1", "seem-focal-l-v1"):
        convert(
            write_official(tmp_path / "seem_focalt_v0.pt", "seem-focal-t-v0"), tmp_path / "v0.st", "seem-focal-t-v0"
        )
        c = config(records, reduced=False, model="seem-focal-t-v1", start=str(tmp_path / "v0.st"))
        start = seem.load(tmp_path / "v0.st").network.state_dict()
        assert all(torch.equal(v, start[n]) for n, v in starting_model(c).state_dict().items())
        train(c, tmp_path / "run")
        export(c, tmp_path / "run", tmp_path / "out" / "mine.safetensors")
        mine = seem.load(tmp_path / "out" / "mine.safetensors").network
        assert mine.config.name == "seem-focal-t-v1"
        assert not torch.equal(mine.state_dict()["decoder.class_embed"], start["decoder.class_embed"])
        with pytest.raises(ValueError, match="expected the encoder of seem-focal-l-v1"):
            starting_model(dataclasses.replace(c, model="seem-focal-l-v1"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"records": ()}, "records is empty"),
        ({"classes": "mine"}, "classes is 'mine'"),
        ({"start": "seem-focal-t-v0"}, "reduced"),
        ({"model": "seem-huge"}, "unknown official variant"),
    ],
)
def test_a_config_that_makes_no_sense(records: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PaperTask(config(records, **changes), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"tasks": ()}, {"tasks": ("x",)}, {"matching": "x"}, {"strokes": ("x",)}, {"rounds": -1}, {"objects": 0},
     {"importance": 2.0}],
)  # fmt: skip
def test_an_objective_that_makes_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        ObjectiveConfig(**changes)


def test_records_without_objects_and_photos_of_another_size_are_refused(records: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"no photo with objects in .*empty\.jsonl"):
        PaperTask(config(tmp_path / "empty.jsonl"), tmp_path)
    task = PaperTask(config(records), tmp_path)
    for photo in task.sets[0]:
        photo["width"] = 65
    with pytest.raises(ValueError, match=r"record toy/\d: .* is 64 x 48; expected 65 x 48"):
        task.lesson([0])


@pytest.mark.parametrize("size", ["t", "l"])
def test_the_papers_configs_say_what_the_specification_says(size: str) -> None:
    c = PaperConfig.read(Path(__file__).parents[2] / "configs" / f"paper-focal-{size}.toml")
    assert c.model == f"seem-focal-{size}-v1" and c.classes == "coco"
    assert (c.learning_rate, c.weight_decay, c.encoder_rate, c.engine.clip) == (1e-4, 0.05, 0.1, 5.0)
    assert c.engine.milestones == (0.88889, 0.96296) and c.augment.size == (1024, 1024)
    o = c.objective
    assert (o.points, o.oversample, o.importance, o.no_object, o.rounds, o.objects) == (12544, 3.0, 0.75, 0.1, 5, 10)
    assert (o.object_weights, o.text_weights) == (Weights(2, 5, 5), Weights(0.4, 1, 1)) and not o.official_quirks
