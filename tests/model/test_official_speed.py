"""The program that times official variants, on a narrow network."""

from __future__ import annotations

import pytest
import torch

from benchmarks.official_speed import TOLERANCE, measure
from seem.model.official_config import official_config, reduced
from seem.model.official_seem import OfficialSEEM


@pytest.mark.parametrize("version", ["v0", "v1", "demo"])
def test_both_paths_agree_and_are_timed(version: str) -> None:
    torch.manual_seed(0)
    network = OfficialSEEM(reduced(official_config(f"seem-focal-t-{version}"))).eval()
    with torch.no_grad():
        result = measure(network, 64, 1)
    assert result["relative_error"] < TOLERANCE
    assert result["bits_differ"] == 0
    assert set(result["over_click"]) == {"plain_click", "plain_click_all_layers"}
    assert all(value > 0 for value in result["median_ms"].values())
    assert result["peak_mb"]["all"] > 0
