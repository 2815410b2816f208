"""Sizes told to the exporter, where it would reason about them for minutes.

A convolution of stride 2 makes (h - 1) // 2 + 1 of a free height, the next one more of that, and `torch.export`
compares such terms layer after layer. Padded photos are multiples of 32, so half is exact: an operator that does
nothing says so. How many windows a map has is as hard; window partition becomes an operator too, in the graph a few
nodes on shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seem.model.image_encoder import tiny_vit

_split, _join = tiny_vit.split_windows, tiny_vit.join_windows


@torch.library.custom_op("seem::split_windows", mutates_args=())
def split_windows(x: Tensor, side: int) -> Tensor:
    """`tiny_vit.split_windows`."""
    return _split(x, side).clone()


@split_windows.register_fake
def _(x: Tensor, side: int) -> Tensor:
    windows = torch.library.get_ctx().new_dynamic_size(min=2)  # one is no other case
    return x.new_empty(windows, side * side, x.shape[-1])


@torch.library.custom_op("seem::join_windows", mutates_args=())
def join_windows(y: Tensor, like: Tensor, side: int) -> Tensor:
    """`tiny_vit.join_windows`."""
    return _join(y, like, side).clone()


@join_windows.register_fake
def _(y: Tensor, like: Tensor, side: int) -> Tensor:
    return torch.empty_like(like)


@torch.library.custom_op("seem::halved", mutates_args=())
def halved(x: Tensor, height: int, width: int) -> Tensor:
    """``x``, of that height and width."""
    return x.clone()


@halved.register_fake
def _(x: Tensor, height: int, width: int) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], height, width)


def _tell_size(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    height, width = inputs[0].shape[-2:]
    result: Tensor = halved(output, height // 2, width // 2)
    return result


@contextmanager
def as_operators(module: nn.Module) -> Iterator[dict[Any, Callable[..., Any]]]:
    """While it lasts, a module uses the operators; gives what `torch.onnx.export` needs to translate them."""
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    hooks = [m.register_forward_hook(_tell_size) for m in convolutions]
    tiny_vit.split_windows, tiny_vit.join_windows = split_windows, join_windows
    try:
        yield _translations()
    finally:
        tiny_vit.split_windows, tiny_vit.join_windows = _split, _join
        for hook in hooks:
            hook.remove()


def _translations() -> dict[Any, Callable[..., Any]]:
    from onnxscript import opset20

    op: Any = opset20

    def numbers(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    def sizes(x: Any, side: int) -> tuple[Any, ...]:
        """Batch, height, width, channels, rows and columns of windows, each a vector of one."""
        b, h, w, c = op.Split(op.Shape(x), num_outputs=4)
        rows, cols = (op.Div(op.Add(s, numbers(side - 1)), numbers(side)) for s in (h, w))
        return b, h, w, c, rows, cols

    def split(x: Any, side: int) -> Any:
        b, h, w, c, rows, cols = sizes(x, side)
        one = numbers(side)
        below, right = op.Sub(op.Mul(rows, one), h), op.Sub(op.Mul(cols, one), w)
        padded = op.Pad(x, op.Concat(numbers(0, 0, 0, 0, 0), below, right, numbers(0), axis=0))
        tiles = op.Reshape(padded, op.Concat(b, rows, one, cols, one, c, axis=0))
        shape = op.Concat(numbers(-1, side * side), c, axis=0)
        return op.Reshape(op.Transpose(tiles, perm=[0, 1, 3, 2, 4, 5]), shape)

    def join(y: Any, like: Any, side: int) -> Any:
        b, h, w, c, rows, cols = sizes(like, side)
        one = numbers(side)
        tiles = op.Reshape(y, op.Concat(b, rows, cols, one, one, c, axis=0))
        shape = op.Concat(b, op.Mul(rows, one), op.Mul(cols, one), c, axis=0)
        whole = op.Reshape(op.Transpose(tiles, perm=[0, 1, 3, 2, 4, 5]), shape)
        return op.Slice(whole, numbers(0, 0), op.Concat(h, w, axis=0), numbers(1, 2))

    def same(x: Any, height: Any, width: Any) -> Any:
        return op.Identity(x)

    ops = torch.ops.seem
    return {ops.split_windows.default: split, ops.join_windows.default: join, ops.halved.default: same}
