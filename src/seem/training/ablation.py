"""The paper's ablations that need trainings: `seem train ablation NAME CONFIG`.

Every arm is the config with one thing changed, trained once a seed and measured on the photos that its records set
aside ("dev"), in the way it was trained: an arm that never learned to read its previous mask is not shown it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from seem.evaluation import interactive, referring
from seem.evaluation.compare import compare
from seem.evaluation.datasets import Dataset, from_records
from seem.evaluation.expressions import Expressions, from_names
from seem.evaluation.results import Results
from seem.evaluation.robot import Robot
from seem.model.official_seem import OfficialSEEM
from seem.predict.model import Model
from seem.training.paper.config import PaperConfig
from seem.training.paper.task import averaged, train
from seem.training.samples import read_records

FIGURES = ("iou_at.1", "iou_at.3", "iou_at.5", "noc.80", "noc.90", "text.miou")
PRETRAINING = ("generic", "referring")  # what X-Decoder was trained on, which the paper starts from
Report = Callable[[str], None]


@dataclass(frozen=True)
class Arm:
    """One side of an ablation.

    Attributes:
        name: of the table's row.
        changes: fields of the objective that differ from the config.
        memory, negatives: what a user of it has, as in `seem.evaluation.ablation`.
        pretrained: an equally long training on `PRETRAINING` comes first.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    memory: bool = True
    negatives: bool = True
    pretrained: bool = False


ALL = "as configured"
ABLATIONS: dict[str, tuple[Arm, ...]] = {  # the last arm is what the others are compared with
    "memory": (
        Arm("no rounds", {"rounds": 0}, memory=False),
        Arm("up to 1 round", {"rounds": 1}),
        Arm(ALL),
    ),
    "negatives": (Arm("no negative clicks", {"negative_prompts": False}, negatives=False), Arm(ALL)),
    "matching": (Arm("joint matching", {"matching": "joint"}), Arm(ALL)),
    "start": (Arm("pretrained", pretrained=True), Arm(ALL)),
}


def run(
    name: str, config: PaperConfig, out: Path, seeds: Sequence[int], limit: int | None = None, report: Report = print
) -> dict[str, Any]:
    """Train and measure every arm; trainings lie in ``out`` and are shared between ablations, and resumed.

    Args:
        name: one of `ABLATIONS`.
        limit: the first so many photos that are set aside.

    Returns:
        {"ablation", "seeds", "steps", "photos", "objects", "reference", "arms": {arm: {"figures", "by_seed",
        "gain"}}}; a gain is the arm minus the reference, with a paired bootstrap interval over photos of 95 %, all
        seeds of a photo drawn together. It says nothing about seeds that were not tried: look at "by_seed".

    Raises:
        ValueError: no such ablation, or no photo is set aside.
    """
    if name not in ABLATIONS:
        raise ValueError(f"ablation: expected one of {', '.join(ABLATIONS)}, got {name!r}")
    files = [Path(file) for file, _ in config.records]
    aside = [r for r in read_records(files) if r.get("dev") and any(o.get("rle") for o in r["objects"])][:limit]
    if not aside:
        raise ValueError(f'no photo of {", ".join(map(str, files))} is set aside to measure on ("dev": true)')
    clicks: dict[str, list[Results]] = {}
    words: dict[str, list[Results]] = {}
    for arm in ABLATIONS[name]:
        for seed in seeds:
            report(f"{name}: {arm.name}, seed {seed}")
            network = _trained(arm, config, out, seed)
            rows, sentences = _measure(arm, network, aside, config)
            clicks.setdefault(arm.name, []).append(_results("interactive", arm, rows, seed))
            words.setdefault(arm.name, []).append(_results("referring", arm, sentences, seed))
    reference = ABLATIONS[name][-1].name
    arms = {}
    for arm in ABLATIONS[name]:
        together = [_joined(clicks[arm.name]), _joined(words[arm.name])]
        base = [_joined(clicks[reference]), _joined(words[reference])]
        arms[arm.name] = {
            "figures": _figures(*together),
            "by_seed": [_figures(a, b) for a, b in zip(clicks[arm.name], words[arm.name], strict=True)],
            "gain": {} if arm.name == reference else _gains(base, together),
        }
    return {
        "ablation": name,
        "seeds": list(seeds),
        "steps": config.engine.steps,
        "photos": len(aside),
        "objects": len(clicks[reference][0].rows),
        "reference": reference,
        "arms": arms,
    }


# ---- trainings ----------------------------------------------------------------------------------------------------


def _trained(arm: Arm, config: PaperConfig, out: Path, seed: int) -> OfficialSEEM:
    """The arm's network, trained now or before."""
    seeded = replace(config, engine=replace(config.engine, seed=seed))
    if arm.pretrained:
        first = replace(seeded, objective=replace(config.objective, tasks=PRETRAINING))
        folder = out / f"pretraining-{seed}"
        train(first, folder)
        seeded = replace(seeded, start=str(folder))
    changed = replace(seeded, objective=replace(config.objective, **arm.changes))
    folder = out / f"{arm.name.replace(' ', '-')}-{seed}"
    train(changed, folder)
    return averaged(changed, folder)


# ---- measuring ----------------------------------------------------------------------------------------------------


def _measure(
    arm: Arm, network: OfficialSEEM, records: Sequence[dict[str, Any]], config: PaperConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `interactive` with the standard robot and of `referring` with class names, at the training's size."""
    if config.augment.size is not None:
        image = replace(network.config.image, resize="short", target=min(config.augment.size), max=None)
        network.config = replace(network.config, image=image)
    model = Model(cast(Any, network), arm.name)  # an official variant has the same interface
    dataset: Dataset = from_records(records, "set aside")
    rows = []
    for scene, target, row in interactive.objects(model, dataset):
        user = Robot(target.mask, target.ignore, negatives=arm.negatives)
        first = interactive.first_prompt("click", target.mask, user)
        rows.append(row | interactive.segment_with_robot(scene, target, user, first, memory=arm.memory))
    names: Expressions = from_names(dataset)
    return rows, list(referring.evaluate(model, names)) if names.items else []


def _results(task: str, arm: Arm, rows: Sequence[dict[str, Any]], seed: int) -> Results:
    return Results(task, arm.name, "set aside", {}, [row | {"key": f"{seed}/{row['key']}"} for row in rows])


def _joined(parts: Sequence[Results]) -> Results:
    """All seeds as one result; a photo's rows stay together whatever their seed."""
    return replace(parts[0], rows=[row for part in parts for row in part.rows])


def _figures(clicks: Results, words: Results) -> dict[str, float]:
    found = clicks.figures()
    flat = {f"{kind}.{k}": v for kind in ("iou_at", "noc") for k, v in found[kind].items()}
    flat |= {"text.miou": words.figures()["miou"]} if words.rows else {}
    return {name: round(flat[name], 4) for name in FIGURES if name in flat}


def _gains(base: Sequence[Results], arm: Sequence[Results]) -> dict[str, dict[str, float]]:
    found = compare(base[0], arm[0])["figures"]
    if base[1].rows:
        found |= {f"text.{k}": v for k, v in compare(base[1], arm[1])["figures"].items()}
    return {name: {k: found[name][k] for k in ("difference", "low", "high")} for name in FIGURES if name in found}


def table(result: dict[str, Any]) -> str:
    """Markdown: a row an arm, its figures, and below them the gain over the reference with its interval."""
    names = [n for n in FIGURES if n in result["arms"][result["reference"]]["figures"]]
    lines = ["| arm | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for arm, found in result["arms"].items():
        lines.append(f"| {arm} | " + " | ".join(f"{found['figures'][n]:.3f}" for n in names) + " |")
        if found["gain"]:
            gains = [found["gain"][n] for n in names]
            cells = [f"{g['difference']:+.3f} [{g['low']:+.3f}, {g['high']:+.3f}]" for g in gains]
            lines.append(f"| against {result['reference']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def save(result: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n")
