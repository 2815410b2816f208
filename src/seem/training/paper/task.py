"""The paper's training as the engine drives it: records in, one loss per photo out (SPEC section 12)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from seem.checkpoints.files import HEADER, sha256_of
from seem.checkpoints.official import FORMAT
from seem.checkpoints.registry import load_network
from seem.images import load_image
from seem.model.official_config import OFFICIAL_VARIANTS, official_config, reduced
from seem.model.official_seem import OfficialSEEM
from seem.training import engine
from seem.training.augment import augment
from seem.training.engine import Engine, Group, Piece, Total
from seem.training.expressions import flip_expression
from seem.training.paper.config import SCRATCH, PaperConfig
from seem.training.paper.lesson import Annotation, Lesson, LessonMaker, read_annotations
from seem.training.paper.objective import PaperObjective
from seem.training.samples import read_records
from seem.vocabulary import COCO_PANOPTIC, COCO_PANOPTIC_NAMES

ENCODERS = ("image_encoder.", "text_encoder.")
CLASSES = "classes.json"


class PaperTask:
    """Generic, referring and interactive segmentation for an official variant; `Engine` drives it.

    Args:
        config: the run.
        out: its folder; a resumed run keeps the classes that it began with.
    """

    def __init__(self, config: PaperConfig, out: Path, device: torch.device | None = None) -> None:
        """Raises ValueError for a model, start or record that cannot be used."""
        self.config = config
        self.sets = [
            [r for r in read_records([Path(file)]) if not r.get("dev") and r["objects"]] for file, _ in config.records
        ]
        weights = np.array([w if s else 0.0 for s, (_, w) in zip(self.sets, config.records, strict=True)])
        if not weights.sum() > 0:
            raise ValueError(f"records: no photo with objects in {', '.join(f for f, _ in config.records)}")
        self.shares = weights / weights.sum()
        self.classes = self._class_names(out)
        self.model = starting_model(config).to(device or torch.device("cpu")).train()
        for name, p in self.model.named_parameters():
            p.requires_grad_(not name.startswith(config.frozen))
        spelt = {c.name: c.coco_name or c.name for c in COCO_PANOPTIC}
        self.lessons = LessonMaker(self.classes, spelt, self.model.config.image, config.objective)
        self.objective = PaperObjective(self.model, config.objective)

    def _class_names(self, out: Path) -> tuple[str, ...]:
        if (out / CLASSES).exists():
            return tuple(json.loads((out / CLASSES).read_text()))
        if self.config.classes == "coco":
            return COCO_PANOPTIC_NAMES
        return tuple(sorted({o["name"] for s in self.sets for r in s for o in r["objects"] if o.get("name")}))

    def groups(self) -> list[Group]:
        """Encoders learn more slowly; norms and embeddings do not decay."""
        learned = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        kept, c = undecayed(self.model), self.config
        return [
            Group(
                {n: p for n, p in learned.items() if n.startswith(ENCODERS) == encoder and (n not in kept) == decays},
                c.learning_rate * (c.encoder_rate if encoder else 1.0),
                c.weight_decay if decays else 0.0,
            )
            for encoder in (True, False)
            for decays in (True, False)
        ]

    def describe(self) -> str:
        sizes = ", ".join(f"{Path(f).stem}: {len(s)}" for (f, _), s in zip(self.config.records, self.sets, strict=True))
        return f"{self.model.config.name} from {self.config.start}, {len(self.classes)} classes; {sizes}"

    def save_notes(self, out: Path) -> None:
        (out / CLASSES).write_text(json.dumps(self.classes))

    def losses(self, seeds: list[list[int]], total: Total) -> Iterator[Piece]:
        """One piece a photo. Counts are totalled once a step, before any loss, so processes never wait in between."""
        lessons = [self.lesson(seed) for seed in seeds]
        counts = torch.stack([self.objective.counts(x) for x in lessons]).sum(0)
        counts = total(counts.to(self.model.device)).cpu()
        for lesson in lessons:
            loss, log = self.objective(lesson, counts)
            yield Piece(loss, log, lesson.key)

    def lesson(self, seed: Sequence[int]) -> Lesson:
        """A photo drawn by the seed, changed at random, with its prompts."""
        rng = np.random.default_rng(list(seed))
        records = self.sets[int(rng.choice(len(self.sets), p=self.shares))]
        record = records[int(rng.integers(len(records)))]
        photo = load_image(record["image"])
        annotations = read_annotations(record)
        if photo.shape[:2] != (record["height"], record["width"]):
            raise ValueError(
                f"record {record['id']}: {record['image']} is {photo.shape[1]} x {photo.shape[0]}; "
                f"expected {record['width']} x {record['height']}"
            )
        changed = augment(Image.fromarray(photo), [a.mask for a in annotations], rng, self.config.augment)
        annotations = [
            Annotation(mask, a.name, a.usable, tuple(map(flip_expression, a.phrases)) if changed.flipped else a.phrases)
            for a, mask in zip(annotations, changed.masks, strict=True)
        ]
        complete, annotated = bool(record["complete"]), record.get("annotated") or ()
        return self.lessons(record["id"], np.array(changed.image), annotations, complete, rng, annotated)


def starting_model(config: PaperConfig) -> OfficialSEEM:
    """The variant with random or official weights, on the CPU."""
    variant = official_config(config.model)
    if config.reduced:
        variant = reduced(variant)
    semantics = replace(variant.semantics, joint_matching=config.objective.matching == "joint")
    variant = replace(variant, semantics=semantics)
    torch.manual_seed(config.engine.seed)
    model = OfficialSEEM(variant, official_quirks=config.objective.official_quirks)
    if config.start == SCRATCH:
        return model
    if Path(config.start).is_dir():  # frozen parts are of this run's seed, as that run's were of its own
        tensors = run_weights(Path(config.start), model, config.model)
        model.load_state_dict(tensors, strict=False)
        return model
    source: object = load_network(config.start)[0]
    if not isinstance(source, OfficialSEEM):
        raise ValueError(f"start is {config.start!r}, no official model; expected weights of {config.model}")
    if replace(source.config, semantics=variant.semantics, name=variant.name, checkpoint=variant.checkpoint) != variant:
        raise ValueError(f"start is {config.start!r}, of {source.config.name}; expected the encoder of {config.model}")
    model.load_state_dict(source.state_dict())
    return model


def undecayed(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay leaves alone: those of norms, embeddings and tables of positions."""
    names = set()
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.Embedding)) or name.startswith("pos"):
                names.add(f"{prefix}.{name}" if prefix else name)
    return names


def train(config: PaperConfig, out: Path, time_budget: float | None = None) -> Engine:
    """Run until the last step or until the budget in seconds is used up; resumes what is in ``out``."""
    return engine.train(lambda device: PaperTask(config, out, device), config.engine, out, time_budget)


def averaged(config: PaperConfig, run: Path) -> OfficialSEEM:
    """The network of a run, with the moving average of its weights, for inference."""
    model = starting_model(config)
    model.load_state_dict(run_weights(run, model, config.model), strict=False)
    return model.eval().requires_grad_(False)


def run_weights(run: Path, model: OfficialSEEM, name: str) -> dict[str, torch.Tensor]:
    """The moving average of what a run learned. Raises ValueError for a run of something else than the model."""
    if not (run / engine.CHECKPOINT).is_file():
        raise ValueError(f"{run}: expected the folder of a run with its {engine.CHECKPOINT}")
    tensors = load_file(run / engine.CHECKPOINT)
    average = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
    unknown = sorted(set(average) - set(model.state_dict()))
    if unknown or not average:
        raise ValueError(f"{run}: not a run of {name}: {', '.join(unknown[:5]) or 'no averaged weights'}")
    return average


def export(config: PaperConfig, run: Path, out: Path) -> str:
    """Write a run's averaged weights as a file that `seem.load` opens; its sha256."""
    model = averaged(config, run)
    if model.config != OFFICIAL_VARIANTS[model.config.name]:
        raise ValueError(f"{run}: its model is reduced or an ablation, no {config.model}; `averaged` gives its network")
    out.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"format": FORMAT, "variant": model.config.name}, sort_keys=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out, {HEADER: header})
    return sha256_of(out)
