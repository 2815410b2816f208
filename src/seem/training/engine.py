"""The training engine: plain ``torch.distributed`` around any `Task`, on one CPU or many GPUs.

Gradients are averaged over processes, clipped and applied by AdamW; a moving average of the weights is what is kept.
Randomness is seeded by (seed, step, photo), where a step's photos are numbered over all processes: two processes with
one photo each take the step that one process with two takes, and a resumed run the steps of an uninterrupted one.
With ``sharding = "full"`` the large encoders live in parts on all processes (`sharding`); checkpoints are whole.
Needs only torch, numpy and safetensors; TensorBoard if the configuration asks for it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from seem.training.sharding import blocks_of, clip_gradients, local, part_of, shard, whole

CHECKPOINT = "checkpoint.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
LOG_EVERY = 20

Total = Callable[[Tensor], Tensor]


class Group(NamedTuple):
    """Parameters that learn alike; those of one dimension and embeddings should come with ``weight_decay`` 0."""

    parameters: dict[str, nn.Parameter]
    learning_rate: float
    weight_decay: float


class Piece(NamedTuple):
    """A part of a step's loss: backward runs on it before the next one is drawn. Pieces of a process add up."""

    loss: Tensor
    log: dict[str, float]
    key: str  # of the photos, for messages


class Task(Protocol):
    """What is trained. It owns the model and the data; the engine owns everything else."""

    @property
    def model(self) -> nn.Module: ...

    def groups(self) -> list[Group]: ...

    def losses(self, seeds: list[list[int]], total: Total) -> Iterator[Piece]:
        """The pieces of one step: one seed a photo. ``total(x)`` is the mean of ``x`` over the processes, so a loss
        divided by it is normalised alike whatever the number of processes."""

    def describe(self) -> str:
        """One line about the data, for the log."""

    def save_notes(self, out: Path) -> None:
        """Write what a resumed run needs beside the checkpoint."""


@dataclass(frozen=True)
class EngineConfig:
    steps: int = 2000
    accumulate: int = 1  # photos a process and step
    warmup: int = 50  # steps
    decay_from: float = 0.7  # share of the steps after which the rate falls to zero linearly
    milestones: tuple[float, ...] = ()  # instead: shares of the steps at which it falls to a tenth
    clip: float = 1.0  # of the gradient's norm
    ema: float = 0.998
    betas: tuple[float, float] = (0.9, 0.98)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # of autocast
    sharding: Literal["none", "full"] = "none"  # "full": encoder blocks of official variants in parts on all processes
    device: str = "auto"  # "auto" is a GPU if there is one, "cpu", "cuda"
    seed: int = 0
    save_seconds: float = 240.0
    end_with_budget: bool = False  # a time budget is all there is: the rate falls towards its end
    tensorboard: bool = False


def rate(config: EngineConfig, step: int, spent: float = 0.0) -> float:
    """Multiplier of the learning rates: warm-up, then constant with either a linear end or tenths.

    ``spent`` is the share of the time that the run has used: the end comes with the last step or the last second.
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    done = max(step / config.steps, spent)
    if config.milestones:
        return warm * 0.1 ** sum(done >= share for share in config.milestones)
    if done < config.decay_from:
        return warm
    return warm * max(0.0, (1.0 - done) / max(1.0 / config.steps, 1.0 - config.decay_from))


def pick_device(name: str) -> torch.device:
    """ "auto" gives each process its own GPU, or the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name, int(os.environ.get("LOCAL_RANK", 0))) if name == "cuda" else torch.device(name)


class Engine:
    def __init__(self, task: Task, config: EngineConfig, out: Path, rank: int = 0, world: int = 1) -> None:
        """With sharding every process must make its engine, and call `save` and `resume` like the others.

        Raises ValueError for groups that overlap or are empty, or a sharding that cannot be.
        """
        self.task, self.config, self.out, self.rank, self.world = task, config, out, rank, world
        self.sharded = config.sharding == "full"
        if self.sharded:
            _shard(task.model, config, world)
        groups = task.groups()
        self.learned = {n: p for g in groups for n, p in g.parameters.items()}
        if len(self.learned) != sum(len(g.parameters) for g in groups) or not self.learned:
            raise ValueError("groups of the task: expected every learned parameter in exactly one, and at least one")
        for p in task.model.parameters():
            p.requires_grad_(False)
        for p in self.learned.values():
            p.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(g.parameters.values()), "base_lr": g.learning_rate, "weight_decay": g.weight_decay}
                for g in groups
                if g.parameters
            ],
            lr=1e-4,
            betas=config.betas,
            foreach=False if self.sharded else None,  # sharded and whole parameters in one group
        )
        self.average = {n: p.detach().clone() for n, p in self.learned.items()}
        self.device = next(iter(self.learned.values())).device
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=config.precision == "float16" and self.device.type == "cuda"
        )
        self.step, self.seconds = 0, 0.0
        self.spent = 0.0  # share of the time budget, where that decides the rate

    # ---- one step -------------------------------------------------------------------------------------------------

    def train_step(self) -> Counter[str]:
        """Sums of what was logged, and under ``n_NAME`` how often.

        Raises FloatingPointError naming the step and the photos if a loss or a gradient is not finite: before it
        reaches the weights, and with them the next checkpoint.
        """
        started = time.monotonic()
        logs: Counter[str] = Counter()
        keys: list[str] = []
        self.optimizer.zero_grad(set_to_none=False)
        photos = range(self.rank, self.config.accumulate * self.world, self.world)
        pieces = self.task.losses([[self.config.seed, self.step, i] for i in photos], self._total)
        while (piece := self._next(pieces)) is not None:
            keys.append(piece.key)
            if not math.isfinite(float(piece.loss.detach())):
                raise FloatingPointError(f"loss is {float(piece.loss.detach())} at step {self.step} on {piece.key}")
            self.scaler.scale(piece.loss).backward()
            logs.update(piece.log)
            logs.update({f"n_{k}": 1 for k in piece.log})
        self._average_gradients()
        self.scaler.unscale_(self.optimizer)
        parameters = list(self.learned.values())
        if self.sharded:
            norm = clip_gradients(parameters, self.config.clip)
        else:
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.clip))
        if not (math.isfinite(norm) or self.scaler.is_enabled()):  # a scaler skips the step and scales less
            raise FloatingPointError(f"gradient is {norm} at step {self.step} on {', '.join(keys)}")
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate(self.config, self.step, self.spent)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for n, p in self.learned.items():
                local(self.average[n]).lerp_(local(p), 1 - decay)
        self.step += 1
        self.seconds += time.monotonic() - started
        return logs

    def _next(self, pieces: Iterator[Piece]) -> Piece | None:
        if self.config.precision == "float32":
            return next(pieces, None)
        with torch.autocast(self.device.type, getattr(torch, self.config.precision)):
            return next(pieces, None)

    def _total(self, value: Tensor) -> Tensor:
        if self.world == 1:
            return value
        shared = value.detach().clone()
        dist.all_reduce(shared)
        return shared / self.world

    def _average_gradients(self) -> None:
        for p in self.learned.values():
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self.world == 1:
            return
        everywhere = [p for p in self.learned.values() if local(p) is p]
        for p in self.learned.values():
            if local(p) is not p and p.grad is not None:
                local(p.grad).div_(self.world)  # FSDP has added them up
        flat = torch.cat([p.grad.flatten() for p in everywhere if p.grad is not None])
        dist.all_reduce(flat)
        flat /= self.world
        offset = 0
        for p in everywhere:
            assert p.grad is not None
            p.grad.copy_(flat[offset : offset + p.numel()].view_as(p))
            offset += p.numel()

    # ---- files ----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Everything that a bit-exact resume needs, written by the first process, to a temporary name first.

        Raises OSError if it cannot be written; the checkpoint before it is still whole then.
        """
        if self.rank and not self.sharded:
            return
        tensors: dict[str, Tensor] = {}
        for n, p in self.learned.items():
            kept = {"model": p.detach(), "average": self.average[n]}
            moments = self.optimizer.state.get(p)
            if moments:
                kept |= {k: moments[k] for k in MOMENTS}
            for kind, value in kept.items():
                gathered = whole(value)  # every process takes part, one holds the result
                if self.rank == 0:
                    tensors[f"{kind}.{n}"] = gathered.contiguous()
        if self.rank == 0:
            self._write(tensors)

    def _write(self, tensors: dict[str, Tensor]) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        metadata = {
            "step": str(self.step),
            "seconds": str(self.seconds),
            "scaler": json.dumps(self.scaler.state_dict()),
        }
        temporary = self.out / f"checkpoint.{os.getpid()}.tmp"
        try:
            save_file(tensors, temporary, metadata)
            self.task.save_notes(self.out)
            temporary.replace(self.out / CHECKPOINT)
        except Exception as error:  # safetensors has its own type for a full disk
            temporary.unlink(missing_ok=True)
            kept = f"; {self.out / CHECKPOINT} is as it was" if (self.out / CHECKPOINT).exists() else ""
            raise OSError(f"cannot save step {self.step} in {self.out}: {error}{kept}") from error

    def resume(self) -> bool:
        """Go on from the checkpoint of ``out``; False if there is none. Raises ValueError if it is of another model."""
        path = self.out / CHECKPOINT
        if not path.exists():
            return False
        tensors = load_file(path)
        foreign = {n.removeprefix("model.") for n in tensors if n.startswith("model.")} ^ set(self.learned)
        if foreign:
            raise ValueError(f"{path}: does not fit what is trained now: {', '.join(sorted(foreign)[:8])}")
        with safe_open(path, "pt") as f:
            metadata = f.metadata()
        self.step, self.seconds = int(metadata["step"]), float(metadata["seconds"])
        self.scaler.load_state_dict(json.loads(metadata["scaler"]))
        with torch.no_grad():
            for n, p in self.learned.items():
                local(p).copy_(local(part_of(tensors[f"model.{n}"], p)))
                local(self.average[n]).copy_(local(part_of(tensors[f"average.{n}"], p)))
                if f"step.{n}" in tensors:
                    self.optimizer.state[p] = {
                        k: v if k == "step" else part_of(v.to(self.device), p)
                        for k, v in ((k, tensors[f"{k}.{n}"].clone()) for k in MOMENTS)
                    }
        return True

    def use_average(self) -> None:
        """Put the moving average in place of the learned weights; training cannot go on after it."""
        with torch.no_grad():
            for n, p in self.learned.items():
                local(p).copy_(local(self.average[n]))


def _shard(model: nn.Module, config: EngineConfig, world: int) -> None:
    if world == 1:
        raise ValueError('sharding is "full" with one process; expected two or more (seem train --processes N)')
    if config.precision == "float16":
        raise ValueError('precision is "float16" with sharding = "full"; expected "bfloat16" or "float32"')
    if not blocks_of(model):
        raise ValueError(f'sharding is "full" for {type(model).__name__}; expected an official variant')
    shard(model, init_device_mesh(next(model.parameters()).device.type, (world,)))


def place() -> tuple[int, int]:
    """(rank, world) that torchrun gave this process; (0, 1) without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def train(
    make_task: Callable[[torch.device], Task], config: EngineConfig, out: Path, time_budget: float | None = None
) -> Engine:
    """Run until ``config.steps`` or the budget in seconds is used up, saving as it goes; resumes what is in ``out``.

    Progress is one JSON line every 20 steps on stdout. SIGTERM saves and stops.
    """
    rank, world = place()
    device = pick_device(config.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        engine = Engine(make_task(device), config, out, rank, world)
        resumed = engine.resume()
        out.mkdir(parents=True, exist_ok=True)
        if rank == 0:
            print(f"{'resumed at' if resumed else 'from'} step {engine.step}; {engine.task.describe()}", flush=True)
        with _board(config, out, rank) as board:
            _loop(engine, time_budget, board)
        engine.save()
    finally:
        if world > 1:
            dist.destroy_process_group()
    return engine


def _loop(engine: Engine, time_budget: float | None, board: Any) -> None:
    started = saved = time.monotonic()
    window: Counter[str] = Counter()
    with _on_sigterm() as stop:
        while engine.step < engine.config.steps:
            window.update(engine.train_step())
            now = time.monotonic()
            spent = bool(stop) or (time_budget is not None and now - started > time_budget)
            due = now - saved > engine.config.save_seconds
            over, save, engine.spent = _as_the_first([spent, due, _share(engine, now - started, time_budget)], engine)
            if engine.rank == 0 and engine.step % LOG_EVERY == 0:
                means = {k: round(v / window[f"n_{k}"], 4) for k, v in window.items() if not k.startswith("n_")}
                print(json.dumps({"step": engine.step, "seconds": round(engine.seconds), **means}), flush=True)
                if board is not None:
                    for name, value in means.items():
                        board.add_scalar(name, value, engine.step)
                window.clear()
            if save:
                engine.save()
                saved = now
            if over:
                return


def _share(engine: Engine, seconds: float, time_budget: float | None) -> float:
    return seconds / time_budget if engine.config.end_with_budget and time_budget else 0.0


def _as_the_first(answers: list[float], engine: Engine) -> list[float]:
    """What the first process says, in every process: their clocks differ, and they have to stop and save together."""
    if engine.world == 1:
        return answers
    shared = torch.tensor(answers, dtype=torch.float64, device=engine.device)
    dist.broadcast(shared, 0)
    told: list[float] = shared.tolist()
    return told


@contextlib.contextmanager
def _on_sigterm() -> Iterator[list[int]]:
    """A list that is no longer empty once SIGTERM has come."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _board(config: EngineConfig, out: Path, rank: int) -> Iterator[Any]:
    if not (config.tensorboard and rank == 0):
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError(
            "tensorboard = true needs the package tensorboard: pip install 'seem-segment[train]'"
        ) from None
    with SummaryWriter(str(out / "tensorboard")) as writer:
        yield writer
