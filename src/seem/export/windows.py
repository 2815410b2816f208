"""Window partition as an operator of its own, for the exporter.

How many windows a map of free size has is arithmetic that `torch.export` tries to reason about for minutes, layer after
layer. Behind an operator it sees only "some windows"; in the graph the operator is the same few nodes on shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

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


@contextmanager
def as_operators() -> Iterator[dict[Any, Callable[..., Any]]]:
    """While it lasts, TinyViT uses the operators; gives what `torch.onnx.export` needs to translate them."""
    tiny_vit.split_windows, tiny_vit.join_windows = split_windows, join_windows  # type: ignore[assignment]
    try:
        yield _translations()
    finally:
        tiny_vit.split_windows, tiny_vit.join_windows = _split, _join


def _translations() -> dict[Any, Callable[..., Any]]:
    from onnxscript import opset20 as op

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

    return {torch.ops.seem.split_windows.default: split, torch.ops.seem.join_windows.default: join}
