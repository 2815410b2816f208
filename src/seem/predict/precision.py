"""Cheaper arithmetic for the same weights: half precision, 8-bit integers, compiled kernels.

What is changed is the part that an image pays for, its encoders. The decoder stays in float32: a click takes
milliseconds there, half precision makes it slower, and what compiling saves does not pay for the wait (docs/fast.md has
the figures). So prompts lose nothing but what the scene's features lost, and scenes are float32 whatever made them.

Everything here is deterministic: the same image gives the same bits on one device, with one precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")
_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_LEAST_WIDTH = 64  # of a layer that is worth quantizing
_LEVELS = 127  # of a signed byte, symmetric


def pick_precision(precision: str, device: torch.device) -> str:
    """The precision that "auto" stands for on a device; any other is checked and returned.

    "auto" is bfloat16 where the hardware multiplies it in matrix units (CUDA from compute capability 8, CPUs with
    AMX), else float32: elsewhere it is emulated and slower.

    Raises:
        ValueError: an unknown precision, or int8 on another device than a CPU.

    Example:
        >>> pick_precision("float32", torch.device("cpu"))
        'float32'
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "auto":
        return "bfloat16" if has_bfloat16_units(device) else "float32"
    if precision == "int8" and device.type != "cpu":
        raise ValueError(f"precision: expected bfloat16 or float16 on {device.type}; int8 is for CPUs")
    return precision


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware made for it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    asked = getattr(torch.cpu, "_is_amx_tile_supported", None)  # torch has no public name for it
    return device.type == "cpu" and asked is not None and bool(asked())


def speed_up(network: nn.Module, precision: str, compile: bool) -> None:
    """Change a network's image encoders in place.

    Args:
        network: a `SEEM`, or an official variant, on its device and in evaluation mode.
        precision: what `pick_precision` returned.
        compile: let `torch.compile` make kernels for them, at the first image and at the first of another size.
    """
    for name in ("image_encoder", "semantic_encoder"):
        encoder = getattr(network, name, None)
        if encoder is None:
            continue
        if precision in _HALVES:
            _halve(encoder, _HALVES[precision])
        elif precision == "int8":
            _quantize(encoder)
        if compile:
            encoder.compile()


# ---- half precision -----------------------------------------------------------------------------------------------


def _halve(module: nn.Module, dtype: torch.dtype) -> None:
    """Weights and arithmetic in ``dtype``; float32 goes in and comes out, so nothing around it changes."""
    module.to(dtype)
    module.register_forward_pre_hook(lambda _, args: _cast(args, dtype))
    module.register_forward_hook(lambda _, __, output: _cast(output, torch.float32))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(part, dtype) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_cast(part, dtype) for part in value)
    return value


# ---- int8 ---------------------------------------------------------------------------------------------------------


class Int8Linear(nn.Module):
    """A linear layer in 8-bit integers: weights scaled by output, inputs by row as they come (dynamic, symmetric).

    The sums are exact 32-bit integers, so the result does not depend on the order of summation.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = _to_int8(linear.weight.detach())
        self.register_buffer("weight", weight.T)  # (in, out), a view: what the product reads fastest
        self.register_buffer("scale", scale.T.contiguous())  # (1, out)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) float32 -> (…, out) float32."""
        rows, scale = _to_int8(x.reshape(-1, x.shape[-1]))
        y = torch._int_mm(rows, self.weight).float().mul_(scale).mul_(self.scale)
        if self.bias is not None:
            y.add_(self.bias)
        return y.view(*x.shape[:-1], -1)


def _to_int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C) -> (N, C) int8 and (N, 1) scales whose product is near it."""
    scale = rows.abs().amax(-1, keepdim=True).clamp_min(1e-12) / _LEVELS
    return (rows / scale).round_().to(torch.int8), scale


def _quantize(module: nn.Module) -> None:
    """Every wide linear layer of a module, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and min(child.in_features, child.out_features) >= _LEAST_WIDTH:
            setattr(module, name, Int8Linear(child))
        else:
            _quantize(child)
