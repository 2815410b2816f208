"""`seem finetune`: teach a model the objects of one COCO file, without forgetting what it could do.

What it should learn comes from the file; what it should keep comes from the model itself: on the same photos, clicks
and boxes away from the annotated objects are answered by a frozen copy, and the answers are learned too (Li and Hoiem,
arXiv 1606.09282).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from seem.checkpoints.files import save_model
from seem.data.coco import read_coco
from seem.data.layouts import read_dataset
from seem.data.records import Record, RecordError, Repairs, Rules, write_records
from seem.data.split import split
from seem.model.closer_look import CloserLookConfig
from seem.model.prompting import ObjectPrompt, VisualPrompt
from seem.model.seem import ImageFeatures
from seem.predict.model import Model
from seem.training import engine
from seem.training.augment import AugmentConfig
from seem.training.engine import EngineConfig, Piece, Total
from seem.training.loop import SEEMTask, TrainConfig
from seem.training.objective import ObjectiveConfig
from seem.training.samples import Sample, decode_rle
from seem.training.simulate import next_click
from seem.vocabulary import COCO_PANOPTIC_NAMES

KEPT_PROMPTS = 6  # on each photo, answered by the frozen copy
KEPT_STOP, KEPT_ROUNDS = 0.4, 3  # each of their rounds is the last one with this probability; corrections at most
HELD_OUT = 0.2
MIXED = 0.5  # photos of another set for each of the user's
FEWEST = 5  # photos with an object
Report = Callable[[str], None]


@dataclass(frozen=True)
class FinetuneConfig:
    """What a user may want to change; the defaults are for a few dozen to a few hundred photos."""

    steps: int = 150
    learning_rate: float = 1e-4
    keep: float = 4.0  # weight of the frozen copy's answers
    photos_per_step: int = 2
    seed: int = 0


class FinetuneTask(SEEMTask):
    """The default objective on the user's photos, and the frozen copy's answers on them."""

    def __init__(self, config: TrainConfig, out: Path, device: torch.device, keep: float) -> None:
        super().__init__(config, out, device)
        self.keep = keep
        self.teacher = copy.deepcopy(self.model).eval().requires_grad_(False)

    def losses(self, seeds: list[list[int]], total: Total) -> Iterator[Piece]:
        """One piece a photo, which is encoded once for both lessons."""
        for seed in seeds:
            rng = np.random.default_rng(seed)
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            sample = self.sample(rng)
            features = self.model.project(self.model.pixel_decoder(sample.spatial, sample.semantic), sample.size)
            loss, log = self.objective(features, sample, rng, generator)
            kept, kept_log = self._kept(features, sample, np.random.default_rng([*seed, 1]))
            yield Piece((loss + self.keep * kept) / len(seeds), log | kept_log, sample.key)

    def _kept(
        self, student: ImageFeatures, sample: Sample, rng: np.random.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """How far the answers away from the annotated objects are from the frozen copy's, in every round alike."""
        taken = np.zeros(sample.size, bool)
        for target in sample.targets:
            taken |= target.mask
        with torch.no_grad():
            maps = self.teacher.pixel_decoder(sample.spatial, sample.semantic)
            teacher = self.teacher.project(maps, sample.size)
            prompts = self._corrected(teacher, _elsewhere(taken, rng), rng)
        loss = F.mse_loss(student.joint, teacher.joint)
        if not prompts:
            return loss, {}
        with torch.no_grad():
            wanted = self.teacher.prompt_decoder(teacher.state, self.teacher.batch(teacher, prompts)[0])
        out = self.model.prompt_decoder(student.state, self.model.batch(student, prompts)[0])
        masks = F.binary_cross_entropy_with_logits(out.logits, wanted.logits.sigmoid())
        masks = masks - _entropy(wanted.logits)  # 0 where both agree
        return loss + masks + F.mse_loss(out.iou, wanted.iou), {"kept": float(masks.detach())}

    def _corrected(
        self, features: ImageFeatures, prompts: list[ObjectPrompt], rng: np.random.Generator
    ) -> list[ObjectPrompt]:
        """The same objects some rounds later: a user who meant another of the frozen copy's candidates corrects it.

        Without these the first click is kept and what comes after it drifts.
        """
        for _ in range(min(int(rng.geometric(KEPT_STOP)) - 1, KEPT_ROUNDS) if prompts else 0):
            answer = self.teacher.decode(features, prompts)
            after = []
            for prompt, logits, at in zip(prompts, answer.logits, answer.selected.tolist(), strict=True):
                meant = logits[(at + int(rng.integers(1, len(logits)))) % len(logits)] if len(logits) > 1 else logits[0]
                click = next_click(meant.cpu().numpy() > 0, logits[at].cpu().numpy() > 0, rng)
                after.append(replace(prompt, visual=(*prompt.visual, *([click] if click else [])), previous=logits[at]))
            prompts = after
        return prompts


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, logits.sigmoid())


def _elsewhere(taken: np.ndarray, rng: np.random.Generator) -> list[ObjectPrompt]:
    """Clicks, and boxes around them, on what nobody annotated."""
    ys, xs = np.nonzero(~taken)
    prompts: list[ObjectPrompt] = []
    h, w = taken.shape
    for i in rng.integers(len(xs), size=KEPT_PROMPTS if len(xs) else 0):
        at = np.array([xs[i], ys[i]], np.float32) + 0.5
        if rng.random() < 0.7:
            prompts.append(ObjectPrompt((VisualPrompt("click", True, at[None]),)))
            continue
        half = rng.uniform(0.05, 0.3, 2) * (w, h)
        corners = np.clip(np.stack([at - half, at + half]), 0, [w, h]).astype(np.float32)
        prompts.append(ObjectPrompt((VisualPrompt("box", True, corners),)))
    return prompts


# ---- the run ------------------------------------------------------------------------------------------------------


def finetune(
    images: Path,
    coco: Path,
    out: Path,
    start: str = "seem-tiny",
    config: FinetuneConfig | None = None,
    time_budget: float | None = None,
    mix: Path | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Train on a COCO file, keeping a fifth of the photos back to measure on.

    ``mix`` is a data set in any layout of docs/data.md: a third of what is learned from are its photos, so that more of
    what the model knew is kept. Writes ``model.safetensors``, ``report.json``, ``before-after.png`` and the run's
    checkpoint to ``out``; the same call resumes a run that was stopped.

    Returns:
        The report: {"photos", "names", "before", "after"}, the last two as `measure` returns them.

    Raises:
        RecordError: the file cannot be used; names the file and the record.
        ValueError: fewer than five photos with objects, or ``start`` is no SEEM model.
    """
    from seem.checkpoints.registry import load_network

    config = config or FinetuneConfig()
    repairs = Repairs()
    records = [r for r in read_coco("own", coco, images, Rules(), repairs) if any(o["rle"] for o in r["objects"])]
    for line in repairs.lines():
        report(line)
    if len(records) < FEWEST:
        raise RecordError(f"{coco}: expected at least {FEWEST} photos with objects, got {len(records)}")
    learned, held_out = split(records, HELD_OUT, config.seed)
    names = sorted({o["name"] for r in records for o in r["objects"] if o["name"]})
    report(f"{len(learned)} photos to learn from, {len(held_out)} held out; names: {', '.join(names)}")
    out.mkdir(parents=True, exist_ok=True)
    write_records(learned, out / "train.jsonl")
    sets = [(str(out / "train.jsonl"), 1.0)]
    if mix is not None:
        write_records(read_dataset(mix, name="mix"), out / "mix.jsonl")
        sets.append((str(out / "mix.jsonl"), MIXED))
    before = Model(load_network(start)[0], "before")
    figures_before = measure(before, held_out, names)
    train_config = TrainConfig(
        start=start,
        features="",
        records=tuple(sets),
        learning_rate=config.learning_rate,
        warm_learning_rate=config.learning_rate / 4,
        names=tuple(COCO_PANOPTIC_NAMES),
        engine=EngineConfig(
            steps=config.steps,
            accumulate=config.photos_per_step,
            warmup=10,
            ema=0.98,
            seed=config.seed,
            end_with_budget=True,
        ),
        augment=AugmentConfig(scale=(0.7, 1.4)),
        objective=ObjectiveConfig(objects_per_image=4),
    )
    run = engine.train(
        lambda device: FinetuneTask(train_config, out, device, config.keep), train_config.engine, out, time_budget
    )
    run.use_average()
    assert isinstance(run.task, FinetuneTask)
    network = run.task.model.cpu().eval()
    network.own_names = tuple(dict.fromkeys([*before.network.own_names, *(n for n in names if n not in KNOWN)]))
    if network.own_names:  # the closer look does not know them, and would outvote what was just learned
        network.closer_look = None
        network.config = replace(network.config, closer_look=CloserLookConfig())
    extra = {"own_names": list(network.own_names), "start": start, "step": run.step}
    save_model(network, out / "model.safetensors", None, extra)
    after = Model(load_network(out / "model.safetensors")[0], "after")
    result = {
        "photos": {"learned": len(learned), "held_out": len(held_out)},
        "names": names,
        "steps": run.step,
        "before": figures_before,
        "after": measure(after, held_out, names),
    }
    (out / "report.json").write_text(json.dumps(result, indent=1) + "\n")
    _picture(before, after, held_out).save(out / "before-after.png")
    return result


KNOWN = frozenset(COCO_PANOPTIC_NAMES)


def measure(model: Model, records: Sequence[Record], names: Sequence[str]) -> dict[str, float]:
    """{"iou_at_1", "iou_at_3", "iou_at_5", "noc_85", "label_top1", "objects"} with the standard robot.

    The label is chosen among COCO's 133 names and ``names``.
    """
    from seem.evaluation import interactive
    from seem.evaluation.datasets import from_records
    from seem.evaluation.robot import Robot

    vocabulary = list(dict.fromkeys([*COCO_PANOPTIC_NAMES, *names]))
    rows, right = [], []
    for scene, target, row in interactive.objects(model, from_records(records, "held out")):
        robot = Robot(target.mask)
        first = interactive.first_prompt("click", target.mask, robot)
        rows.append(row | interactive.segment_with_robot(scene, target, robot, first))
        if target.name:
            right.append(scene.label(target.mask, vocabulary, 1)[0][0] == target.name)
    figures = interactive.figures(rows)
    return {
        **{f"iou_at_{k}": round(figures["iou_at"][str(k)], 4) for k in (1, 3, 5)},
        "noc_85": round(figures["noc"]["85"], 3),
        "label_top1": round(float(np.mean(right)), 4) if right else 0.0,
        "objects": len(rows),
    }


def _picture(before: Model, after: Model, records: Sequence[Record], most: int = 6) -> Image.Image:
    """Held-out objects, one click each: a row with the answers before and after."""
    from seem.evaluation.robot import Robot
    from seem.predict.render import draw

    height, rows = 240, []
    for record in records[:most]:
        mask = max((decode_rle(o["rle"]) for o in record["objects"] if o["rle"]), key=np.count_nonzero)
        click = Robot(mask).next_click()
        assert click is not None
        photo = Image.open(record["image"]).convert("RGB")
        row = [draw(photo, m.encode(record["image"]).segment(click), prompts=[click]) for m in (before, after)]
        rows.append([r.resize((round(r.width * height / r.height), height)) for r in row])
    sheet = Image.new("RGB", (max(sum(r.width for r in row) + 8 for row in rows), (height + 8) * len(rows)), "white")
    for i, (left, right) in enumerate(rows):
        sheet.paste(left, (0, i * (height + 8)))
        sheet.paste(right, (left.width + 8, i * (height + 8)))
    return sheet


def table(result: dict[str, Any]) -> str:
    """Before and after, a line a figure."""
    lines = [f"{'':12}{'before':>10}{'after':>10}"]
    for key, value in result["before"].items():
        lines.append(f"{key:12}{value:>10}{result['after'][key]:>10}")
    return "\n".join(lines)
