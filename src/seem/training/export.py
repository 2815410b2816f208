"""A run's averaged weights as the files that `seem.load` opens.

python -m seem.training.export RUN --config CONFIG.toml --out src/seem/weights
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from seem.checkpoints.files import as_stored, save_base, save_model, sha256_of
from seem.model.seem import SEEM
from seem.training.engine import CHECKPOINT
from seem.training.loop import TrainConfig, start_of
from seem.vocabulary import COCO_PANOPTIC_NAMES


def copy_base(start: str, base: Path) -> None:
    """The base beside the weights that a run started from, if there is one, for those that it writes."""
    before = Path(start).with_name(base.name)
    if before.exists():
        base.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(before, base)


def export(config: TrainConfig, run: Path, out: Path, extra: dict[str, Any] | None = None) -> dict[str, str]:
    """Write ``<name>.safetensors`` and, if it is not there, the ``<name>-base.safetensors`` that it leans on.

    A run that started from weights with a base leans on the same base, also where it thawed an encoder: what differs
    stands in the model's own file.

    Returns:
        The sha256 of both files, by name.
    """
    model = start_of(config).eval()
    tensors = load_file(run / CHECKPOINT)
    with safe_open(run / CHECKPOINT, "pt") as f:
        step = int(f.metadata()["step"])
    average = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in average.items():
            own[name].copy_(value)
    fitted = {n: getattr(config.model, n) for n in ("match_weights", "text_score_weights") if getattr(config.model, n)}
    model.config = dataclasses.replace(model.config, **fitted)  # of a start's config, what was fitted again
    model.load_state_dict(as_stored(model.state_dict()))  # names are embedded as they will be after loading
    model.pinned_text = dict(zip(COCO_PANOPTIC_NAMES, model.raw_text(COCO_PANOPTIC_NAMES), strict=True))
    name = config.model.name
    base = out / f"{name}-base.safetensors"
    if config.start and not base.exists():
        copy_base(config.start, base)
    if not config.start or not base.exists():
        save_base(model, base)
    vocabulary = json.loads((run / "vocabulary.json").read_text())
    kept = {"step": step, "trained_names": vocabulary, **(extra or {})}
    return write_weights(model, out / f"{name}.safetensors", base, kept)


def write_weights(model: SEEM, file: Path, base: Path | None, extra: dict[str, Any]) -> dict[str, str]:
    """Write a model's own file, and ``sha256.json`` of it and its base beside it; returns these by name."""
    save_model(model, file, base, extra)
    hashes = {p.name: sha256_of(p) for p in (base, file) if p is not None}
    file.with_name("sha256.json").write_text(json.dumps(hashes, indent=1) + "\n")
    return hashes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(json.dumps(export(TrainConfig.read(args.config), args.run, args.out), indent=1))
