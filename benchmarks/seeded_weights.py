"""Weights made from their names alone, so that two programs can run the same network without sharing a file."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_PLAIN_NORMAL = (
    "query_feat.weight",
    "query_embed.weight",
    "level_embed.weight",
    "level_embed",
    "pn_indicator.weight",
    "spatial_embed.weight",
    "spatial_featured.weight",
    "sampling_offsets.bias",
)


def seeded_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """The float32 tensor that belongs to an official parameter name."""
    if name == "dilation_kernel":
        return torch.ones(shape)
    if name == "criterion.empty_weight":
        return torch.cat([torch.ones(shape[0] - 1), torch.tensor([0.1])])
    random = np.random.RandomState(zlib.crc32(name.encode()))
    z = random.standard_normal(math.prod(shape)).reshape(shape)
    if name.endswith("logit_scale"):
        z = np.full(shape, math.log(1 / 0.07))
    elif name.endswith(_PLAIN_NORMAL):
        pass
    elif name.endswith(("gamma_1", "gamma_2")):
        z = 0.5 + 0.1 * z
    elif name.endswith(("pos_embed", "positional_embedding")):
        z = 0.02 * z
    elif len(shape) <= 1:
        z = (1.0 if name.endswith("weight") else 0.0) + 0.02 * z
    else:
        z = z / math.sqrt(math.prod(shape[1:]))
        if "predictor.transformer_" in name and name.endswith(("out_proj.weight", "linear2.weight")):
            z = 0.25 * z
    return torch.from_numpy(np.asarray(z, np.float32))


def seeded_state(shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, Tensor]:
    """All tensors whose names start with ``prefix``."""
    return {name: seeded_tensor(name, shape) for name, shape in shapes.items() if name.startswith(prefix)}


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """A ``state_dict.tsv`` -> {name: shape}."""
    shapes = {}
    for line in Path(path).read_text().splitlines()[1:]:
        name, shape, *_ = line.split("\t")
        shapes[name] = tuple(int(n) for n in shape.split(",")) if shape else ()
    return shapes
