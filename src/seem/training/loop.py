"""Training of `SEEM`, the default model's network: one photo at a time, its prompts, names and objects together.

    torchrun --nproc-per-node 2 -m seem.training.loop configs/seem-tiny.toml --out runs/a --time-budget 3600

`seem.training.engine` runs the steps; this is what they learn from. Encoder features come from a cache that was made
once, or are computed as the photos come, which allows for augmentation.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from seem.checkpoints.registry import load_network
from seem.images import load_image
from seem.model.config import SEEMConfig, build
from seem.model.image_input import network_input
from seem.model.layers import sample_map
from seem.model.pixel_decoder import pool_masks
from seem.model.prompting import EncodedReference
from seem.model.seem import SEEM
from seem.training import engine
from seem.training.augment import AugmentConfig, augment
from seem.training.engine import Engine, EngineConfig, Group, Piece, Total
from seem.training.features import feature_path, read_features, read_size
from seem.training.objective import Objective, ObjectiveConfig, Vocabulary
from seem.training.samples import (
    Sample,
    Target,
    load_ignore,
    load_targets,
    pad_to,
    read_records,
    resize_mask,
    unsure_names,
)
from seem.training.warm_start import warm_start

if TYPE_CHECKING:
    from seem.training.paper.config import PaperConfig

FROZEN = ("image_encoder.", "semantic_encoder.", "text_encoder.", "visual_sampler.position.", "closer_look.")
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
    start: str = ""  # a model to go on from instead: a name or a weights file, its base beside it
    features: str = "features"  # folder of cached encoder features; "" computes them from augmented photos
    records: tuple[tuple[str, float], ...] = ()
    learning_rate: float = 4e-4
    warm_learning_rate: float = 1e-4
    thaw: tuple[str, ...] = ()  # prefixes of encoder parameters that learn too; needs features = ""
    thaw_learning_rate: float = 5e-5
    encoder_precision: Literal["float32", "bfloat16"] = "float32"  # of the image encoder, where photos are encoded
    weight_decay: float = 0.02
    names: tuple[str, ...] = ()  # further names that objects are told apart from
    light: int = 0  # further photos for each that only teach names
    light_weight: float = 1.0
    targets_per_image: int = 24
    engine: EngineConfig = field(default_factory=EngineConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: SEEMConfig = field(default_factory=SEEMConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """Raises ValueError for a field that does not exist."""
        config: TrainConfig = build(cls, tomllib.loads(path.read_text()))
        return config


def _clear(o: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether an object is large and plain enough to be shown as a reference."""
    large = o.get("area", 0) > 0.02 * record["width"] * record["height"]
    return bool(large and o.get("rle") and not (o.get("crowd") or o.get("semantic") or o.get("doubtful")))


def to_device(maps: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in maps.items()}


def start_of(config: TrainConfig) -> SEEM:
    """The network before the first step, on the CPU."""
    if not config.start:
        return warm_start(config.model, Path(config.base), config.engine.seed)
    network = load_network(config.start)[0]
    if not isinstance(network, SEEM):
        raise ValueError(f"start is {config.start!r}, an official model; expected a SEEM network")
    return network


class SEEMTask:
    """Photos of the records and the objective on them; `Engine` drives it.

    Args:
        config: the run.
        out: its folder; a resumed run keeps the names that it began with.
    """

    def __init__(self, config: TrainConfig, out: Path, device: torch.device | None = None) -> None:
        self.config = config
        self.device = device or torch.device("cpu")
        self.model: SEEM = start_of(config).to(self.device).train()
        self.cache = Path(config.features) if config.features else None
        if config.thaw and self.cache:
            raise ValueError(f'thaw = {list(config.thaw)} with cached features; expected features = ""')
        self.sets = [
            [r for r in read_records([Path(f)]) if not r.get("dev") and self._usable(r)] for f, _ in config.records
        ]
        self.weights = np.array([w if s else 0.0 for s, (_, w) in zip(self.sets, config.records, strict=True)])
        if not self.weights.sum():
            cached = f" has cached features in {config.features}" if self.cache else ""
            raise ValueError(f"no record of {[f for f, _ in config.records]}{cached}")
        self.with_names = np.array([any(o.get("name") for r in s for o in r["objects"]) for s in self.sets])
        names = sorted(
            {o["name"] for s in self.sets for r in s for o in r["objects"] if o.get("name")} | {*config.names}
        )
        known = out / "vocabulary.json"
        if known.exists():
            names = json.loads(known.read_text())
        self.objective = Objective(
            self.model, Vocabulary(self.model, names, config.objective), config.objective, self.reference
        )
        self.showing: dict[str, list[dict[str, Any]]] = {}
        for record in (r for s in self.sets for r in s if r["complete"]):
            for name in sorted({o["name"] for o in record["objects"] if o.get("name") and _clear(o, record)}):
                self.showing.setdefault(name, []).append(record)

    def _usable(self, record: dict[str, Any]) -> bool:
        return self.cache is None or feature_path(self.cache, record["id"]).exists()

    def groups(self) -> list[Group]:
        """Parts that begin with SAM's weights learn more slowly, thawed encoders slower still; vectors do not decay.

        Raises ValueError for a ``thaw`` that no parameter of an encoder begins with.
        """
        c = self.config
        rates: dict[str, float] = {}
        for name, _ in self.model.named_parameters():
            if c.thaw and name.startswith(FROZEN) and name.startswith(c.thaw):
                rates[name] = c.thaw_learning_rate
            elif not name.startswith(FROZEN):
                rates[name] = c.warm_learning_rate if name.startswith(WARM) else c.learning_rate
        for prefix in c.thaw:
            if not any(n.startswith(prefix) and n.startswith(FROZEN) for n in rates):
                raise ValueError(f"thaw: expected the beginning of an encoder parameter's name, got {prefix!r}")
        learned = {n: p for n, p in self.model.named_parameters() if n in rates}
        return [
            Group(
                {n: p for n, p in learned.items() if rates[n] == each and _decays(n, p) == decays},
                each,
                c.weight_decay if decays else 0.0,
            )
            for each in sorted(set(rates.values()))
            for decays in (True, False)
        ]

    def describe(self) -> str:
        return ", ".join(f"{Path(f).stem}: {len(s)}" for (f, _), s in zip(self.config.records, self.sets, strict=True))

    def save_notes(self, out: Path) -> None:
        (out / "vocabulary.json").write_text(json.dumps(self.objective.vocabulary.names))

    # ---- one step -------------------------------------------------------------------------------------------------

    def losses(self, seeds: list[list[int]], total: Total) -> Iterator[Piece]:
        """Every photo counts the same, so nothing has to be totalled over the processes."""
        for seed in seeds:
            rng = np.random.default_rng(seed)
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            sample = self.sample(rng)
            features = self.model.project(self.model.pixel_decoder(sample.spatial, sample.semantic), sample.size)
            loss, log = self.objective(features, sample, rng, generator)
            yield Piece(loss / len(seeds), log, sample.key)
            for i in range(self.config.light):
                rng = np.random.default_rng([*seed, i])
                sample = self.sample(rng, named=True)
                maps = self.model.pixel_decoder(sample.spatial, sample.semantic)
                loss, log = self.objective.light(maps, sample, rng)
                share = self.config.light_weight / self.config.light / len(seeds)
                yield Piece(loss * share, {f"light_{k}": v for k, v in log.items()}, sample.key)

    # ---- data -----------------------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator, named: bool = False) -> Sample:
        """A photo's features and targets; ``named`` leaves out the sets without names."""
        weights = np.where(self.with_names, self.weights, 0.0) if named and self.with_names.any() else self.weights
        chosen = self.sets[int(rng.choice(len(self.sets), p=weights / weights.sum()))]
        record = chosen[int(rng.integers(len(chosen)))]
        if self.cache is None:
            return self._augmented(record, rng)
        path = feature_path(self.cache, record["id"])
        spatial, semantic = (to_device(maps, self.device) for maps in read_features(path))
        size = read_size(path)
        targets = load_targets(record, size, self.config.targets_per_image, rng)
        return self._sample(record, spatial, semantic, size, targets, load_ignore(record, size))

    def _sample(
        self,
        record: dict[str, Any],
        spatial: dict[str, Tensor],
        semantic: dict[str, Tensor],
        size: tuple[int, int],
        targets: list[Target],
        ignore: np.ndarray | None,
    ) -> Sample:
        unsure, annotated = unsure_names(record, targets), frozenset(record.get("annotated") or ())
        complete = bool(record["complete"])
        return Sample(record["id"], spatial, semantic, size, targets, complete, unsure, annotated, ignore)

    def _augmented(self, record: dict[str, Any], rng: np.random.Generator) -> Sample:
        """The photo changed at random, then encoded; phrases with places are made later, from the changed masks."""
        image = Image.fromarray(load_image(record["image"]))
        targets = load_targets(record, (image.height, image.width), self.config.targets_per_image, rng)
        ignore = load_ignore(record, (image.height, image.width))
        masks = [t.mask for t in targets] + ([] if ignore is None else [ignore])
        changed = augment(image, masks, rng, self.config.augment)
        spatial, semantic, size = self._encode(np.asarray(changed.image))
        ignore = None if ignore is None else resize_mask(changed.masks.pop(), size)
        moved = [t.moved(m, size, changed.flipped) for t, m in zip(targets, changed.masks, strict=True)]
        return self._sample(record, spatial, semantic, size, [t for t in moved if t], ignore)

    def _encode(self, pixels: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[int, int]]:
        """The encoders' maps with a batch axis, and the encoded (h, w); gradients reach what is thawed."""
        inputs, size = network_input(pixels, self.model.config.image, self.device)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        lower = self.config.encoder_precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=lower):
            spatial = self.model.image_encoder(inputs)
        semantic = self.model.semantic_encoder(inputs)  # depth-wise convolutions learn slower in bfloat16 on a CPU
        return {k: v.float() for k, v in spatial.items()}, {k: v.float() for k, v in semantic.items()}, size

    @torch.no_grad()
    def reference(self, name: str, rng: np.random.Generator) -> EncodedReference | None:
        """A clear instance of what is named, on a photo drawn from those that show one."""
        records = self.showing.get(name)
        if not records:
            return None
        record = records[int(rng.integers(len(records)))]
        shown = [o for o in record["objects"] if o.get("name") == name and _clear(o, record)]
        chosen = {**record, "objects": [shown[int(rng.integers(len(shown)))]]}
        if self.cache is None:
            spatial, semantic, size = self._encode(load_image(record["image"]))
        else:
            path = feature_path(self.cache, record["id"])
            spatial, semantic = (to_device(maps, self.device) for maps in read_features(path))
            size = read_size(path)
        targets = load_targets(chosen, size, 1, rng)
        xy = self.model.region_points(targets[0].coverage > 0.5) if targets else torch.zeros(0, 2)
        if not len(xy):
            return None
        maps = self.model.pixel_decoder(spatial, semantic)
        grid = (maps.fine.shape[-2], maps.fine.shape[-1])
        coverage = pad_to(torch.from_numpy(targets[0].coverage), grid).to(self.device)
        embedding = F.normalize(pool_masks(self.model.joint(maps), coverage[None])[0], dim=0)
        samples = sample_map(maps.embedding, xy, 16.0)
        return EncodedReference(samples, torch.ones(len(xy), dtype=torch.long, device=self.device), embedding)


def _decays(name: str, parameter: Tensor) -> bool:
    return parameter.ndim > 1 and "embed" not in name


def train(config: TrainConfig, out: Path, time_budget: float | None = None) -> Engine:
    """Run until the last step or the budget in seconds is used up; rank and world come from torchrun."""
    return engine.train(lambda device: SEEMTask(config, out, device), config.engine, out, time_budget)


def read_config(path: Path) -> TrainConfig | PaperConfig:
    """A run of the paper's training names its official model; one of `SEEM` has a table of that name, or none.

    Raises ValueError for a field that does not exist.
    """
    from seem.training.paper.config import PaperConfig

    named = isinstance(tomllib.loads(path.read_text()).get("model"), str)
    return PaperConfig.read(path) if named else TrainConfig.read(path)


def train_any(config: TrainConfig | PaperConfig, out: Path, time_budget: float | None = None) -> Engine:
    """`train`, or the paper's."""
    if isinstance(config, TrainConfig):
        return train(config, out, time_budget)
    from seem.training.paper import task

    return task.train(config, out, time_budget)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--time-budget", type=float, help="seconds")
    parser.add_argument("--print-config", action="store_true")
    args = parser.parse_args()
    config = read_config(args.config)
    if args.print_config:
        print(json.dumps(dataclasses.asdict(config), indent=2))
        return
    train_any(config, args.out, args.time_budget)


if __name__ == "__main__":
    main()
