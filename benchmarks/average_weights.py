"""The mean of two models' weights (Wortsman et al., arXiv 2203.05482), where one went on from the other.

    python -m benchmarks.average_weights OLD.safetensors NEW.safetensors --share 0.5 --out DIR [--match-weights …]

Each file's base lies beside it, and both lean on the same one. Writes DIR as `seem train export` does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch

from seem.checkpoints.files import load_model
from seem.training.export import copy_base, write_weights


def average(
    old: Path,
    new: Path,
    share: float,
    out: Path,
    match_weights: tuple[float, ...] = (),
    text_score_weights: tuple[float, ...] = (),
) -> dict[str, str]:
    """Write the mean; what `benchmarks.fit_match` found for it may come with it. Returns the files' sha256 by name."""
    base = old.with_name(f"{old.stem}-base.safetensors")
    network, _ = load_model(old, base)
    other, extra = load_model(new, new.with_name(base.name))
    theirs = other.state_dict()
    mean = {
        name: torch.lerp(value, theirs[name], share) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(mean)
    fitted = {"match_weights": match_weights, "text_score_weights": text_score_weights}
    network.config = dataclasses.replace(network.config, **{name: value for name, value in fitted.items() if value})
    copy_base(str(old), out / base.name)
    return write_weights(network, out / old.name, out / base.name, extra)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the new one")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--match-weights", type=float, nargs="+", default=())
    parser.add_argument("--text-score-weights", type=float, nargs="+", default=())
    args = parser.parse_args()
    fitted = tuple(args.match_weights), tuple(args.text_score_weights)
    print(json.dumps(average(args.old, args.new, args.share, args.out, *fitted)))


if __name__ == "__main__":
    main()
