"""Small storage for weights: float16, or int8 with one scale per output channel, in a safetensors file.

This is about the size of a file; after ``unpack`` the network computes in float32 as before. A weight w of an output
channel (the first axis) whose largest magnitude is m is stored as round(w / s), s = m / 127, so it comes back within
s / 2. The scale lies beside it as ``NAME.scale``, float32: its share is small, and a float16 would lose precision in
channels whose weights are all tiny.

Example:
    >>> tensors, metadata = pack({"fc.weight": torch.randn(64, 32), "fc.bias": torch.zeros(64)}, [("fc.*", "int8")])
    >>> {name: str(tensor.dtype) for name, tensor in tensors.items()}
    {'fc.weight': 'torch.int8', 'fc.weight.scale': 'torch.float32', 'fc.bias': 'torch.float32'}
    >>> unpack(tensors, metadata)["fc.weight"].dtype
    torch.float32
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

Rule = tuple[str, str]  # (shell pattern of a tensor's name, storage type)

STORAGE_TYPES = ("float32", "float16", "int8")
SMALL = 1024  # elements; below this a tensor is kept in float32 whatever the rules say
METADATA_KEY = "packing"
_VERSION = 1


def pack(state_dict: Mapping[str, Tensor], rules: Sequence[Rule]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Choose a storage type per tensor and convert.

    Args:
        state_dict: name -> tensor. Tensors that are not floating point are passed through.
        rules: (pattern, ``"float32" | "float16" | "int8"``), the first whose pattern matches the name decides; a
            name without a rule is float32. Tensors of fewer than ``SMALL`` elements stay float32, and so do vectors
            under an int8 rule (a scale per element would store them twice).

    Returns:
        tensors and metadata, as ``safetensors.torch.save_file`` takes them.

    Raises:
        ValueError: an unknown storage type, a rule that matches nothing, a weight that is NaN, infinite or too large
            for float16, or a tensor already named like a scale.
    """
    _check_rules(state_dict, rules)
    tensors: dict[str, Tensor] = {}
    int8: list[str] = []
    for name, tensor in state_dict.items():
        storage = _storage(name, tensor, rules)
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"cannot pack {name!r}: it has NaN or infinite values")
        if storage == "int8":
            if f"{name}.scale" in state_dict:
                raise ValueError(f"cannot pack {name!r} as int8: {name + '.scale'!r} is a tensor of its own")
            tensors[name], tensors[f"{name}.scale"] = quantize(tensor)
            int8.append(name)
        elif storage == "float16":
            tensors[name] = tensor.to(torch.float16).contiguous()
            if not torch.isfinite(tensors[name]).all():
                largest = tensor.abs().max().item()
                raise ValueError(f"cannot pack {name!r} as float16: its largest magnitude {largest:g} is above 65504")
        else:
            tensors[name] = (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
    return tensors, {METADATA_KEY: json.dumps({"version": _VERSION, "int8": sorted(int8)})}


def unpack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> dict[str, Tensor]:
    """Undo ``pack``: every floating-point tensor as float32, the others unchanged.

    Args:
        tensors: as stored.
        metadata: of the safetensors file; a file that was never packed comes back in float32.

    Raises:
        ValueError: the file was packed by a newer version, or a tensor or its scale is missing or of another shape.
    """
    packing = json.loads((metadata or {}).get(METADATA_KEY, f'{{"version": {_VERSION}, "int8": []}}'))
    if packing["version"] != _VERSION:
        raise ValueError(f"packing version must be {_VERSION}, got {packing['version']!r}: a newer file")
    int8 = set(packing["int8"])
    scales = {f"{name}.scale" for name in int8}
    if missing := sorted((int8 | scales) - set(tensors)):
        raise ValueError(f"packed file lacks {', '.join(map(repr, missing))}")
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in scales:
            continue
        if name in int8:
            result[name] = dequantize(tensor, tensors[f"{name}.scale"])
        else:
            result[name] = tensor.float() if tensor.is_floating_point() else tensor
    return result


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (O, ...) float -> int8 (O, ...) in -127..127 and scale (O,) float32, symmetric per output channel."""
    rows = weight.float().flatten(1)  # (O, I)
    scale = rows.abs().amax(1) / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # a channel of zeros stays zeros
    values = (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    return values.view(weight.shape), scale


def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """int8 (O, ...) and scale (O,) -> float32 (O, ...)."""
    if values.dtype != torch.int8 or values.ndim < 2 or scale.shape != values.shape[:1]:
        raise ValueError(
            f"expected int8 (O, ...) with scale (O,), got {values.dtype} {tuple(values.shape)} and {tuple(scale.shape)}"
        )
    return values.float() * scale.float().view(-1, *[1] * (values.ndim - 1))


def _check_rules(state_dict: Mapping[str, Tensor], rules: Sequence[Rule]) -> None:
    for pattern, storage in rules:
        if storage not in STORAGE_TYPES:
            raise ValueError(f"storage type of {pattern!r} must be one of {', '.join(STORAGE_TYPES)}, got {storage!r}")
        if not any(fnmatchcase(name, pattern) for name in state_dict):
            raise ValueError(f"rule {pattern!r} matches no tensor")  # most likely a renamed module


def _storage(name: str, tensor: Tensor, rules: Sequence[Rule]) -> str:
    storage = next((storage for pattern, storage in rules if fnmatchcase(name, pattern)), "float32")
    if not tensor.is_floating_point() or tensor.numel() < SMALL or (storage == "int8" and tensor.ndim < 2):
        return "float32"
    return storage
