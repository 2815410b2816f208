"""Published checkpoints in miniature: reduced widths, random weights, the official names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seem.checkpoints.official import official_name
from seem.model.official_config import OFFICIAL_VARIANTS, official_config, reduced
from seem.model.official_seem import OfficialSEEM

FAMILY = ("seem-focal-t-v0", "seem-focal-t-v1", "seem-focal-t-demo")
ARCHITECTURES = ("seem-davit-d3-v1", "seem-sam-vit-b-v1")  # beside FocalNet


@contextmanager
def reduced_variants(*names: str) -> Iterator[pytest.MonkeyPatch]:
    """The table of variants with some rows narrow, and two templates instead of 81."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            config = reduced(official_config(name))
            longest = config.image.pad_to  # of SAM's square canvas
            small = replace(config, image=replace(config.image, target=longest or 128, max=longest or config.image.max))
            patch.setitem(OFFICIAL_VARIANTS, name, small)
        patch.setattr("seem.model.templates.TEMPLATES", ("{}.", "a photo of a {}."))
        yield patch


def official_state(name: str, seed: int = 0) -> dict[str, Tensor]:
    """What the published file of a (reduced) variant would hold, training buffers included."""
    return dict(_state(name, seed))


@cache
def _state(name: str, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    network = OfficialSEEM(reduced(official_config(name)))
    state = {official_name(k): v.detach() for k, v in network.state_dict().items()}
    return state | {"dilation_kernel": torch.ones(1, 1, 3, 3), "criterion.empty_weight": torch.ones(134)}


def write_official(path: Path, name: str, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(official_state(name, seed), path)
    return path
