"""The training loop: one photo a process and step, gradients averaged over processes, EMA, resume, a time budget.

    torchrun --nproc-per-node 2 -m seem.training.loop configs/seem-tiny.toml --out runs/a --time-budget 3600

Randomness is seeded by (seed, step, process), so a resumed run sees what an uninterrupted one would have seen.
Checkpoints are safetensors: weights, their moving average and the optimiser's moments.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import signal
import time
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from seem.checkpoints.registry import load_network
from seem.model.config import SEEMConfig, build
from seem.model.layers import sample_map
from seem.model.pixel_decoder import pool_masks
from seem.model.prompting import EncodedReference
from seem.model.seem import SEEM
from seem.training.features import feature_path, read_features, read_size
from seem.training.objective import Objective, ObjectiveConfig, Vocabulary
from seem.training.samples import Sample, load_targets, pad_to, read_records, unsure_names
from seem.training.warm_start import warm_start

FROZEN = ("image_encoder.", "semantic_encoder.", "text_encoder.", "visual_sampler.position.")
WARM = (  # parts that begin with SAM's weights learn more slowly
    "prompt_decoder.two_way.",
    "prompt_decoder.final_",
    "prompt_decoder.up",
    "prompt_decoder.mask_embed.",
    "prompt_decoder.iou_head.",
    "prompt_decoder.score_token.",
    "prompt_decoder.spatial_queries.",
    "prompt_decoder.dense_down.",
    "visual_sampler.kind.",
)


@dataclass(frozen=True)
class TrainConfig:
    """A training run. ``records`` are JSON Lines files with a sampling weight each."""

    base: str = "base"  # folder with the weights to start from
    start: str = ""  # weights of an earlier run (a model's file, its base beside it) to go on from instead
    features: str = "features"  # folder of cached encoder features
    records: tuple[tuple[str, float], ...] = ()
    steps: int = 2000
    learning_rate: float = 4e-4
    warm_learning_rate: float = 1e-4
    weight_decay: float = 0.02
    warmup: int = 50
    decay_from: float = 0.7  # share of the steps after which the rate falls to zero linearly
    clip: float = 1.0
    accumulate: int = 1  # photos per process and step
    light: int = 0  # further photos per process and step that only teach names
    light_weight: float = 1.0
    ema: float = 0.998
    targets_per_image: int = 24
    seed: int = 0
    device: str = "auto"  # "auto" is a GPU if there is one, "cpu", "cuda"
    save_seconds: float = 240.0
    model: SEEMConfig = field(default_factory=SEEMConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """Raises ValueError for a field that does not exist."""
        config: TrainConfig = build(cls, tomllib.loads(path.read_text()))
        return config


def rate(config: TrainConfig, step: int) -> float:
    """Multiplier of the learning rates: warm-up, constant, linear decay."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    start = config.decay_from * config.steps
    return 1.0 if step < start else max(0.0, (config.steps - step) / max(1.0, config.steps - start))


def _clear(o: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether an object is large and plain enough to be shown as a reference."""
    large = o.get("area", 0) > 0.02 * record["width"] * record["height"]
    return bool(large and o.get("rle") and not (o.get("crowd") or o.get("semantic") or o.get("doubtful")))


def pick_device(name: str) -> torch.device:
    """ "auto" gives each process its own GPU, or the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name, int(os.environ.get("LOCAL_RANK", 0))) if name == "cuda" else torch.device(name)


def to_device(maps: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in maps.items()}


class Trainer:
    def __init__(self, config: TrainConfig, out: Path, rank: int = 0, world: int = 1) -> None:
        self.config, self.out, self.rank, self.world = config, out, rank, world
        self.device = pick_device(config.device)
        self.model = warm_start(config.model, Path(config.base), config.seed).to(self.device).train()
        for name, p in self.model.named_parameters():
            p.requires_grad_(not name.startswith(FROZEN))
        self.learned = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        if config.start:
            earlier = load_network(config.start)[0].state_dict()
            with torch.no_grad():
                for name, p in self.learned.items():
                    p.copy_(earlier[name])
        groups = []
        for warm in (True, False):
            for decays in (True, False):
                params = [
                    p
                    for n, p in self.learned.items()
                    if n.startswith(WARM) == warm and (p.ndim > 1 and "embed" not in n) == decays
                ]
                groups.append(
                    {
                        "params": params,
                        "base_lr": config.warm_learning_rate if warm else config.learning_rate,
                        "weight_decay": config.weight_decay if decays else 0.0,
                    }
                )
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.98))
        self.average = {n: p.detach().clone() for n, p in self.learned.items()}
        self.step, self.seconds = 0, 0.0
        features = Path(config.features)
        self.sets = [
            [r for r in read_records([Path(f)]) if not r.get("dev") and feature_path(features, r["id"]).exists()]
            for f, _ in config.records
        ]
        self.weights = np.array([w if s else 0.0 for s, (_, w) in zip(self.sets, config.records, strict=True)])
        if not self.weights.sum():
            raise ValueError(f"no record of {[f for f, _ in config.records]} has cached features in {config.features}")
        self.with_names = np.array([any(o.get("name") for r in s for o in r["objects"]) for s in self.sets])
        names = sorted({o["name"] for s in self.sets for r in s for o in r["objects"] if o.get("name")})
        known = self.out / "vocabulary.json"
        if known.exists():  # a resumed run keeps the names that it began with
            names = json.loads(known.read_text())
        self.objective = Objective(
            self.model, Vocabulary(self.model, names, config.objective), config.objective, self.reference
        )
        self.showing: dict[str, list[dict[str, Any]]] = {}
        for record in (r for s in self.sets for r in s if r["complete"]):
            for name in sorted({o["name"] for o in record["objects"] if o.get("name") and _clear(o, record)}):
                self.showing.setdefault(name, []).append(record)

    # ---- data -----------------------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator, named: bool = False) -> Sample:
        """A photo's features and targets; ``named`` leaves out the sets without names."""
        weights = np.where(self.with_names, self.weights, 0.0) if named and self.with_names.any() else self.weights
        chosen = self.sets[int(rng.choice(len(self.sets), p=weights / weights.sum()))]
        record = chosen[int(rng.integers(len(chosen)))]
        path = feature_path(Path(self.config.features), record["id"])
        spatial, semantic = (to_device(maps, self.device) for maps in read_features(path))
        size = read_size(path)
        targets = load_targets(record, size, self.config.targets_per_image, rng)
        unsure = unsure_names(record, targets)
        return Sample(record["id"], spatial, semantic, size, targets, bool(record["complete"]), unsure)

    @torch.no_grad()
    def reference(self, name: str, rng: np.random.Generator) -> EncodedReference | None:
        """A clear instance of what is named, on a photo drawn from those that show one."""
        records = self.showing.get(name)
        if not records:
            return None
        record = records[int(rng.integers(len(records)))]
        shown = [o for o in record["objects"] if o.get("name") == name and _clear(o, record)]
        chosen = {**record, "objects": [shown[int(rng.integers(len(shown)))]]}
        path = feature_path(Path(self.config.features), record["id"])
        targets = load_targets(chosen, read_size(path), 1, rng)
        xy = self.model.region_points(targets[0].coverage > 0.5) if targets else torch.zeros(0, 2)
        if not len(xy):
            return None
        maps = self.model.pixel_decoder(*(to_device(maps, self.device) for maps in read_features(path)))
        grid = (maps.fine.shape[-2], maps.fine.shape[-1])
        coverage = pad_to(torch.from_numpy(targets[0].coverage), grid).to(self.device)
        embedding = F.normalize(pool_masks(self.model.joint(maps), coverage[None])[0], dim=0)
        samples = sample_map(maps.embedding, xy, 16.0)
        return EncodedReference(samples, torch.ones(len(xy), dtype=torch.long, device=self.device), embedding)

    # ---- one step -------------------------------------------------------------------------------------------------

    def train_step(self) -> Counter[str]:
        started = time.monotonic()
        logs: Counter[str] = Counter()
        self.optimizer.zero_grad(set_to_none=False)
        keys: list[str] = []
        for i in range(self.config.accumulate):
            seed = [self.config.seed, self.step, self.rank, i]
            rng = np.random.default_rng(seed)
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            sample = self.sample(rng)
            keys.append(sample.key)
            features = self.model.project(self.model.pixel_decoder(sample.spatial, sample.semantic), sample.size)
            loss, log = self.objective(features, sample, rng, generator)
            if not math.isfinite(float(loss.detach())):
                raise FloatingPointError(f"loss is {float(loss.detach())} at step {self.step} on {sample.key}")
            (loss / self.config.accumulate).backward()
            logs.update(log)
            logs.update({f"n_{k}": 1 for k in log})
        for i in range(self.config.light):
            rng = np.random.default_rng([self.config.seed, self.step, self.rank, self.config.accumulate + i])
            sample = self.sample(rng, named=True)
            keys.append(sample.key)
            maps = self.model.pixel_decoder(sample.spatial, sample.semantic)
            loss, log = self.objective.light(maps, sample, rng)
            (loss * (self.config.light_weight / self.config.light)).backward()
            logs.update({f"light_{k}": v for k, v in log.items()})
            logs.update({f"n_light_{k}": 1 for k in log})
        self._average_gradients()
        norm = torch.nn.utils.clip_grad_norm_(list(self.learned.values()), self.config.clip)
        if not bool(torch.isfinite(norm)):  # before it reaches the weights, and with them the next checkpoint
            raise FloatingPointError(f"gradient is {float(norm)} at step {self.step} on {', '.join(keys)}")
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate(self.config, self.step)
        self.optimizer.step()
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for n, p in self.learned.items():
                self.average[n].lerp_(p, 1 - decay)
        self.step += 1
        self.seconds += time.monotonic() - started
        return logs

    def _average_gradients(self) -> None:
        for p in self.learned.values():
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self.world == 1:
            return
        flat = torch.cat([p.grad.flatten() for p in self.learned.values() if p.grad is not None])
        dist.all_reduce(flat)
        flat /= self.world
        offset = 0
        for p in self.learned.values():
            assert p.grad is not None
            p.grad.copy_(flat[offset : offset + p.numel()].view_as(p))
            offset += p.numel()

    # ---- files ----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Everything that a bit-exact resume needs, written to a temporary name first."""
        tensors: dict[str, Tensor] = {}
        for n, p in self.learned.items():
            tensors[f"model.{n}"] = p.detach()
            tensors[f"average.{n}"] = self.average[n]
            moments = self.optimizer.state.get(p)
            if moments:
                tensors |= {f"{k}.{n}": moments[k] for k in ("exp_avg", "exp_avg_sq", "step")}
        self.out.mkdir(parents=True, exist_ok=True)
        temporary = self.out / f"checkpoint.{os.getpid()}.tmp"
        metadata = {"step": str(self.step), "seconds": str(self.seconds)}
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata)
        (self.out / "vocabulary.json").write_text(json.dumps(self.objective.vocabulary.names))
        temporary.replace(self.out / "checkpoint.safetensors")

    def resume(self) -> bool:
        path = self.out / "checkpoint.safetensors"
        if not path.exists():
            return False
        tensors = load_file(path)
        with safe_open(path, "pt") as f:
            self.step, self.seconds = int(f.metadata()["step"]), float(f.metadata()["seconds"])
        with torch.no_grad():
            for n, p in self.learned.items():
                p.copy_(tensors[f"model.{n}"])
                self.average[n].copy_(tensors[f"average.{n}"])
                if f"step.{n}" in tensors:
                    moments = ("step", "exp_avg", "exp_avg_sq")
                    self.optimizer.state[p] = {k: tensors[f"{k}.{n}"].clone() for k in moments}
        return True

    def averaged(self) -> SEEM:
        """The model with its moving average in place of the learned weights (changes this trainer's model)."""
        with torch.no_grad():
            for n, p in self.learned.items():
                p.copy_(self.average[n])
        return self.model.eval()


def train(config: TrainConfig, out: Path, time_budget: float | None = None) -> None:
    """Run until ``config.steps`` or the budget in seconds is used up; rank and world come from torchrun."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group("nccl" if pick_device(config.device).type == "cuda" else "gloo")
    trainer = Trainer(config, out, rank, world)
    resumed = trainer.resume()
    out.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        sizes = ", ".join(f"{Path(f).stem}: {len(s)}" for (f, _), s in zip(config.records, trainer.sets, strict=True))
        print(f"{'resumed at' if resumed else 'from'} step {trainer.step}; {sizes}", flush=True)
    started = saved = time.monotonic()
    window: Counter[str] = Counter()
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    while trainer.step < config.steps:
        window.update(trainer.train_step())
        now = time.monotonic()
        spent = bool(stop) or (time_budget is not None and now - started > time_budget)
        over = torch.tensor(float(spent), device=trainer.device)
        if world > 1:
            dist.broadcast(over, 0)
        if rank == 0 and trainer.step % 20 == 0:
            sums = {k: v for k, v in window.items() if not k.startswith("n_")}
            means: dict[str, Any] = {k: round(v / window[f"n_{k}"], 3) for k, v in sums.items()}
            line = {"step": trainer.step, "seconds": round(trainer.seconds), **means}
            print(json.dumps(line), flush=True)
            window.clear()
        if rank == 0 and now - saved > config.save_seconds:
            trainer.save()
            saved = now
        if over:
            break
    if rank == 0:
        trainer.save()
    if world > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--time-budget", type=float, help="seconds")
    parser.add_argument("--print-config", action="store_true")
    args = parser.parse_args()
    config = TrainConfig.read(args.config)
    if args.print_config:
        print(json.dumps(dataclasses.asdict(config), indent=2))
        return
    train(config, args.out, args.time_budget)


if __name__ == "__main__":
    main()
