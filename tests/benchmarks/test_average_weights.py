"""The mean of two models' weights is halfway between them, and leans on the same base."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.average_weights import average
from seem.checkpoints.files import load_model, save_base, save_model
from tests.tiny import tiny_model


def test_the_mean_is_in_between(tmp_path: Path) -> None:
    first, second = tiny_model(), tiny_model()
    with torch.no_grad():
        second.class_embed.weight += 1
    for folder, network in (("a", first), ("b", second)):
        (tmp_path / folder).mkdir()
        save_base(first, tmp_path / folder / "m-base.safetensors")
        save_model(network, tmp_path / folder / "m.safetensors", tmp_path / folder / "m-base.safetensors", {"step": 3})
    fitted = (1.0, 2.0, 3.0, 4.0, 5.0)
    files = tmp_path / "a" / "m.safetensors", tmp_path / "b" / "m.safetensors"
    hashes = average(*files, 0.25, tmp_path / "mean", fitted)
    mean, extra = load_model(tmp_path / "mean" / "m.safetensors", tmp_path / "mean" / "m-base.safetensors")
    assert set(hashes) == {"m.safetensors", "m-base.safetensors"} and extra["step"] == 3
    assert torch.allclose(mean.class_embed.weight, first.class_embed.weight + 0.25, atol=1e-2)
    assert mean.config.match_weights == fitted
