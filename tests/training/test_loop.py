"""The training loop on three small photos."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from seem.checkpoints.files import load_model
from seem.training.engine import Engine, EngineConfig, Piece, rate
from seem.training.export import export
from seem.training.features import feature_path
from seem.training.loop import SEEMTask, TrainConfig, train
from seem.training.simulate import FIRST_PROMPTS, NO_MISTAKES
from tests.tiny import write_toml, write_training

# Without any influence on the training losses: no reference prompts are simulated yet.
NO_GRADIENT = {"visual_sampler.reference"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("training")
    write_training(path)
    return path


def make_engine(config: TrainConfig, out: Path, rank: int = 0, world: int = 1) -> Engine:
    return Engine(SEEMTask(config, out), config.engine, out, rank, world)


def weights(trainer: Engine) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trainer.learned.items()}


def test_twenty_steps_reduce_the_loss(folder: Path, tmp_path: Path) -> None:
    trainer = make_engine(write_training(folder), tmp_path)
    losses = [trainer.train_step()["total"] for _ in range(20)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert trainer.step == 20


def test_resume_is_bit_exact(folder: Path, tmp_path: Path) -> None:
    config = write_training(folder, {"accumulate": 2}, light=1)
    whole = make_engine(config, tmp_path / "whole")
    for _ in range(4):
        whole.train_step()
    first = make_engine(config, tmp_path / "parts")
    for _ in range(2):
        first.train_step()
    first.save()
    second = make_engine(config, tmp_path / "parts")
    assert second.resume()
    assert second.step == 2
    for _ in range(2):
        second.train_step()
    for name, value in weights(whole).items():
        assert torch.equal(value, second.learned[name]), name
        assert torch.equal(whole.average[name], second.average[name]), name


def test_every_learned_part_gets_a_gradient(folder: Path, tmp_path: Path) -> None:
    """Parts, not parameters: a candidate that is never the best of four learns nothing in so few steps."""
    config = write_training(folder, learning_rate=1e-3)
    objective = replace(config.objective, synonym_cosine=1.5)  # random sentences are all alike
    trainer = make_engine(replace(config, objective=objective), tmp_path)
    seen: set[str] = set()
    for _ in range(20):  # the mix of prompts differs from step to step
        trainer.train_step()
        seen |= {n for n, p in trainer.learned.items() if p.grad is not None and bool(p.grad.any())}
    parts = {part_of(n) for n in trainer.learned} - {part_of(n) for n in seen}
    assert parts <= NO_GRADIENT


def part_of(name: str) -> str:
    return ".".join(name.split(".")[:2])


def test_frozen_parts_stay(folder: Path, tmp_path: Path) -> None:
    trainer = make_engine(write_training(folder), tmp_path)
    before = {n: p.detach().clone() for n, p in trainer.task.model.named_parameters() if n not in trainer.learned}
    trainer.train_step()
    assert all(torch.equal(p, dict(trainer.task.model.named_parameters())[n]) for n, p in before.items())
    assert {n.split(".")[0] for n in before} == {"image_encoder", "semantic_encoder", "text_encoder"}


def test_thawed_encoders_learn_and_the_others_stay(folder: Path, tmp_path: Path) -> None:
    thaw = ("image_encoder.neck.", "semantic_encoder.blocks.")
    config = write_training(folder, features="", thaw=thaw, encoder_precision="bfloat16")
    config = replace(config, objective=replace(config.objective, first_weight=0.5, stop_rate=0.2, regions_per_image=1))
    trainer = make_engine(config, tmp_path)
    before = {n: p.detach().clone() for n, p in trainer.task.model.named_parameters()}
    for _ in range(3):
        trainer.train_step()
    moved = {n for n, p in trainer.task.model.named_parameters() if not torch.equal(p, before[n])}
    assert {n for n in moved if n.split(".")[0].endswith("_encoder")} == {n for n in before if n.startswith(thaw)}
    slow = [g for g in trainer.optimizer.param_groups if g["base_lr"] == config.thaw_learning_rate]
    assert sum(len(g["params"]) for g in slow) == sum(n.startswith(thaw) for n in before)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": "", "thaw": ("image_encoder.nothing",)}, "beginning of an encoder parameter's name"),
        ({"features": "", "thaw": ("prompt_decoder.",)}, "beginning of an encoder parameter's name"),
        ({"thaw": ("image_encoder.neck.",)}, 'expected features = ""'),
    ],
)
def test_what_cannot_thaw_is_said(folder: Path, tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_engine(write_training(folder, **fields), tmp_path)


def _two_processes(rank: int, config: TrainConfig, folder: str) -> None:
    """One step; its gradients and the moving average of the weights."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    trainer = make_engine(config, Path(folder) / "run", rank, 2)
    trainer.train_step()
    if rank == 0:
        made = {f"gradient.{n}": p.grad for n, p in trainer.learned.items() if p.grad is not None}
        save_file(made | {f"average.{n}": p for n, p in trainer.average.items()}, f"{folder}/step.safetensors")
    dist.destroy_process_group()


def test_two_processes_take_the_step_of_one(folder: Path, tmp_path: Path) -> None:
    """Two processes with two photos each, and one with all four."""
    config = write_training(folder, {"clip": 1e9, "accumulate": 2}, light=1)
    mp.spawn(_two_processes, (config, str(tmp_path)), nprocs=2)
    together = load_file(tmp_path / "step.safetensors")
    four = replace(config, engine=replace(config.engine, accumulate=4))
    alone = make_engine(four, tmp_path / "alone")
    before = weights(alone)
    alone.train_step()
    assert {n.removeprefix("gradient.") for n in together if n.startswith("gradient.")} == set(alone.learned)
    for name, p in alone.learned.items():
        torch.testing.assert_close(
            together[f"gradient.{name}"], p.grad, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
        # Adam's first step is a sign, so a gradient that is nearly nothing may go either way; the others may not
        moved = (together[f"average.{name}"] - before[name]).abs() > 0
        clear = p.grad.abs() > 1e-4  # type: ignore[union-attr]
        assert bool((moved | ~clear).all()), name
        torch.testing.assert_close(together[f"average.{name}"][clear], alone.average[name][clear], rtol=1e-3, atol=1e-5)


def test_photos_are_augmented_without_a_cache(folder: Path, tmp_path: Path) -> None:
    task = SEEMTask(write_training(folder, features=""), tmp_path)
    samples = [task.sample(np.random.default_rng(i)) for i in range(8)]
    areas = {int(t.mask.sum()) for s in samples for t in s.targets if t.name == "disk"}
    assert len(areas) > 4, "scaled and cropped"
    for sample in samples:
        assert all(
            t.mask.shape == sample.size and t.coverage.shape[0] == -(-sample.size[0] // 4) for t in sample.targets
        )
    again = task.sample(np.random.default_rng(0))
    assert all(torch.equal(again.spatial[k], v) for k, v in samples[0].spatial.items())


def test_augmented_training_runs(folder: Path, tmp_path: Path) -> None:
    trainer = make_engine(write_training(folder, features=""), tmp_path)
    logs = [trainer.train_step() for _ in range(3)]
    assert all(math.isfinite(log["total"]) for log in logs)


def test_a_full_disk_keeps_the_checkpoint(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_engine(write_training(folder), tmp_path)
    trainer.save()
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    trainer.train_step()

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seem.training.engine.save_file", full)
    with pytest.raises(OSError, match=r"cannot save step 1 .*No space left.* is as it was"):
        trainer.save()
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_a_checkpoint_of_another_model(folder: Path, tmp_path: Path) -> None:
    save_file({"model.x": torch.zeros(1)}, tmp_path / "checkpoint.safetensors", {"step": "1"})
    with pytest.raises(ValueError, match="does not fit what is trained now"):
        make_engine(write_training(folder), tmp_path).resume()


def test_milestones() -> None:
    config = EngineConfig(steps=100, warmup=0, milestones=(0.8, 0.9))
    assert [rate(config, s) for s in (0, 79, 80, 95)] == pytest.approx([1, 1, 0.1, 0.01])


def test_low_precision_trains(folder: Path, tmp_path: Path) -> None:
    trainer = make_engine(write_training(folder, {"precision": "bfloat16"}), tmp_path)
    losses = [trainer.train_step()["total"] for _ in range(12)]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_a_nan_stops_with_the_photo(folder: Path, tmp_path: Path) -> None:
    trainer = make_engine(write_training(folder), tmp_path)
    with torch.no_grad():
        trainer.task.model.pixel_decoder.coarse.weight.fill_(math.nan)
    with pytest.raises((FloatingPointError, ValueError), match=r"toy/\d|finite"):
        trainer.train_step()


def test_a_bad_gradient_never_reaches_the_weights(folder: Path, tmp_path: Path) -> None:
    trainer = make_engine(write_training(folder), tmp_path)
    before = weights(trainer)
    trainer.learned["logit_scale"].register_hook(lambda g: g * math.nan)
    with pytest.raises(FloatingPointError, match=r"gradient is nan at step 0 on toy/\d"):
        trainer.train_step()
    assert all(torch.equal(value, trainer.learned[n]) for n, value in before.items())


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (9, 1.0), (50, 1.0), (85, 0.5), (100, 0.0)])
def test_rate(step: int, expected: float) -> None:
    assert rate(EngineConfig(steps=100, warmup=10, decay_from=0.7), step) == pytest.approx(expected)


def test_the_rate_ends_with_the_time() -> None:
    config = EngineConfig(steps=100, warmup=10, decay_from=0.5)
    assert rate(config, 20, 0.75) == pytest.approx(0.5), "three quarters of the time are used up"
    assert rate(config, 75, 0.2) == pytest.approx(0.5), "three quarters of the steps are done"
    assert rate(config, 4, 0.75) == pytest.approx(0.25), "during the warm-up too"
    assert rate(config, 20, 1.2) == 0


def test_a_time_budget_that_is_all_there_is_ends_the_rate(folder: Path, tmp_path: Path) -> None:
    ended = train(write_training(folder, {"end_with_budget": True}), tmp_path / "a", time_budget=1e-6)
    assert ended.step == 1 and ended.spent > 1
    assert train(write_training(folder), tmp_path / "b", time_budget=1e-6).spent == 0


@pytest.mark.parametrize("how", ["crash", "nan"])
def test_a_run_that_broke_goes_on_at_its_last_good_step(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    config = write_training(folder, {"steps": 3, "save_seconds": 0.0})
    whole = train(config, tmp_path / "whole")
    losses = SEEMTask.losses

    def broken(self: SEEMTask, seeds: list[list[int]], total: Any) -> Iterator[Piece]:
        for piece in losses(self, seeds, total):
            if seeds[0][1] == 2:  # the third step
                if how == "crash":
                    raise RuntimeError("the power is gone")
                piece = piece._replace(loss=piece.loss * math.nan)
            yield piece

    monkeypatch.setattr(SEEMTask, "losses", broken)
    with pytest.raises((RuntimeError, FloatingPointError), match=r"power|loss is nan at step 2 on toy/\d"):
        train(config, tmp_path / "parts")
    with safe_open(tmp_path / "parts/checkpoint.safetensors", "pt") as f:
        assert f.metadata()["step"] == "2"
        assert all(bool(torch.isfinite(f.get_tensor(n)).all()) for n in f.keys())  # noqa: SIM118
    monkeypatch.undo()
    parts = train(config, tmp_path / "parts")
    for name, value in weights(whole).items():
        assert torch.equal(value, parts.learned[name]), name


def test_tensorboard_gets_the_log(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(write_training(folder, {"steps": 20, "tensorboard": True}), tmp_path)
    assert next(iter((tmp_path / "tensorboard").glob("events.*"))).stat().st_size > 500


def test_train_saves_resumes_and_exports(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_training(folder, {"steps": 2})
    train(config, tmp_path / "run")
    assert "from step 0; toy: 3" in capsys.readouterr().out
    train(config, tmp_path / "run")
    assert "resumed at step 2" in capsys.readouterr().out
    assert not list((tmp_path / "run").glob("*.tmp"))
    hashes = export(config, tmp_path / "run", tmp_path / "weights")
    assert set(hashes) == {"tiny.safetensors", "tiny-base.safetensors"}
    model, extra = load_model(tmp_path / "weights/tiny.safetensors", tmp_path / "weights/tiny-base.safetensors")
    assert extra["step"] == 2
    assert extra["trained_names"] == ["blue square", "disk", "green square", "red square"]
    average = load_file(tmp_path / "run/checkpoint.safetensors")["average.prompt_decoder.up1.weight"]
    step = average.flatten(1).abs().amax(1) / 127  # of int8, per output channel
    assert ((model.prompt_decoder.up1.weight - average).abs().flatten(1).amax(1) <= 0.51 * step).all()
    assert (model.prompt_decoder.up1.weight != average).any(), "stored as int8"
    again = make_engine(replace(config, start=str(tmp_path / "weights/tiny.safetensors")), tmp_path / "next")
    assert again.step == 0
    assert torch.equal(again.learned["prompt_decoder.up1.weight"], model.prompt_decoder.up1.weight)


def test_time_budget(folder: Path, tmp_path: Path) -> None:
    train(write_training(folder), tmp_path, time_budget=0.0)
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_no_features_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no record of .*toy\.jsonl.* has cached features in"):
        make_engine(write_training(folder, features=str(tmp_path)), tmp_path)
    assert feature_path(tmp_path, "toy/1").name == "toy__1.safetensors"


def test_base_weights_of_another_config(folder: Path, tmp_path: Path) -> None:
    from seem.model.config import SEEMConfig

    with pytest.raises(ValueError, match=r"base weights that do not fit the config: image_encoder\."):
        make_engine(write_training(folder, model=SEEMConfig()), tmp_path)


def test_the_loop_needs_four_packages_only() -> None:
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"scipy", "tokenizers", "typer", "onnx", "huggingface_hub"}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import seem.training.loop, seem.training.export, seem.training.features
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr


def test_unknown_field(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("stepz = 3\n")
    with pytest.raises(ValueError, match="TrainConfig has no field stepz"):
        TrainConfig.read(tmp_path / "c.toml")


def test_shipped_config_reads() -> None:
    config = TrainConfig.read(Path(__file__).parents[2] / "configs/seem-tiny.toml")
    assert len(config.records) == 16
    assert sum(w for _, w in config.records) == pytest.approx(1.0)
    assert {kind for kind, _ in config.objective.prompt_mix} == {*FIRST_PROMPTS, "text", "reference"}
    assert config.objective.mistakes != NO_MISTAKES and config.objective.first_negative > 0


def test_toml_round_trip(folder: Path, tmp_path: Path) -> None:
    config = write_training(folder)
    write_toml(config, tmp_path / "c.toml")
    read = TrainConfig.read(tmp_path / "c.toml")
    assert (read.base, read.records) == (config.base, config.records)
    assert json.loads(read.model.to_json())["name"] == "seem-tiny"
