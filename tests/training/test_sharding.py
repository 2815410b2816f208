"""The engine with sharded encoders in two processes, against one process that takes both photos."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from seem.data.records import write_records
from seem.training.augment import AugmentConfig
from seem.training.engine import Engine, EngineConfig, train
from seem.training.paper.config import ObjectiveConfig, PaperConfig
from seem.training.paper.task import PaperTask, averaged
from seem.training.sharding import blocks_of, whole
from tests.tiny import write_photos, write_training

STEPS = 2


def config(folder: Path, sharding: str = "full", photos: int = 1) -> PaperConfig:
    """Photos of one size, encoders that learn, rounds that differ from photo to photo."""
    if not (folder / "toy.jsonl").exists():
        write_records(write_photos(folder), folder / "toy.jsonl")
    engine = EngineConfig(
        steps=STEPS, device="cpu", warmup=0, clip=5.0, ema=0.5, save_seconds=0, sharding=sharding, accumulate=photos
    )  # type: ignore[arg-type]
    return PaperConfig(
        reduced=True,
        classes="records",
        frozen=("text_encoder.",),
        records=((str(folder / "toy.jsonl"), 1.0),),
        engine=engine,
        augment=AugmentConfig(size=(96, 64), scale=(0.5, 1.5)),
        objective=ObjectiveConfig(points=128, rounds=2),
    )


def worker(rank: int, folder: str, ports: list[int]) -> None:
    """One step by hand, its gradients kept; then a run that saves after every step, whole and in two parts."""
    torch.set_num_threads(1)
    here, c = Path(folder), config(Path(folder))
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    engine = Engine(PaperTask(c, here / "hand"), c.engine, here / "hand", rank, 2)
    sharded = {n for n, p in engine.learned.items() if isinstance(p, DTensor)}
    assert len(blocks_of(engine.task.model)) > 1
    assert {n.split(".")[0] for n in sharded} == {"image_encoder", "pixel_decoder"}
    engine.train_step()
    gradients = {n: whole(p.grad) for n, p in engine.learned.items() if p.grad is not None}
    if rank == 0:
        save_file({n: g.contiguous() for n, g in gradients.items()}, here / "gradients.safetensors")
    dist.destroy_process_group()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    for port, run, steps in zip(ports, ("whole", "parts", "parts"), (STEPS, 1, STEPS), strict=True):
        os.environ["MASTER_PORT"] = str(port)
        part = replace(c.engine, steps=steps)
        made = train(lambda device, run=run: PaperTask(c, here / run, device), part, here / run)  # type: ignore[misc]
        assert made.step == steps


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.mark.slow
def test_sharded_steps_are_plain_steps_and_resume(tmp_path: Path) -> None:
    plain = config(tmp_path, "none", photos=2)
    torch.multiprocessing.spawn(worker, (str(tmp_path), [free_port() for _ in range(3)]), nprocs=2)  # type: ignore[attr-defined]

    alone = Engine(PaperTask(plain, tmp_path / "alone"), plain.engine, tmp_path / "alone")
    alone.train_step()
    together = load_file(tmp_path / "gradients.safetensors")
    assert set(together) == set(alone.learned)
    for name, gradient in together.items():
        torch.testing.assert_close(
            gradient, alone.learned[name].grad, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert any(bool(g.any()) for n, g in together.items() if n.startswith("image_encoder."))

    whole_run, parts = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "parts"))
    assert whole_run.keys() == parts.keys()
    for name, value in whole_run.items():
        assert torch.equal(value, parts[name]), name
    assert alone.config.sharding == "none" and alone.step == 1
    elsewhere = Engine(PaperTask(plain, tmp_path / "whole"), plain.engine, tmp_path / "whole")
    assert elsewhere.resume() and elsewhere.step == STEPS, "a checkpoint is whole: one process goes on from it"
    name = next(n for n in elsewhere.learned if n.startswith("image_encoder.") and "weight" in n)
    assert torch.equal(elsewhere.learned[name], whole_run[f"model.{name}"])
    assert torch.equal(averaged(plain, tmp_path / "whole").state_dict()[name], whole_run[f"average.{name}"])


def test_what_cannot_be_sharded_is_refused(tmp_path: Path) -> None:
    c = config(tmp_path)
    with pytest.raises(ValueError, match="with one process; expected two or more"):
        Engine(PaperTask(c, tmp_path), c.engine, tmp_path)
    half = replace(c.engine, precision="float16")
    with pytest.raises(ValueError, match='expected "bfloat16" or "float32"'):
        Engine(PaperTask(c, tmp_path), half, tmp_path, 0, 2)


def test_the_small_model_is_not_sharded(tmp_path: Path) -> None:
    from seem.training.loop import SEEMTask

    c = write_training(tmp_path, {"sharding": "full"})
    with pytest.raises(ValueError, match="for SEEM; expected an official variant"):
        Engine(SEEMTask(c, tmp_path), c.engine, tmp_path, 0, 2)
