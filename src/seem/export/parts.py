"""Which graphs there are, what goes in and what comes out: one table for the exporter, the documents and the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seem.export.decoder import Decode, Maps, Prepare
from seem.export.encoders import EncodeImage, EncodeText
from seem.model.config import SEEMConfig
from seem.model.seem import SEEM

Size = int | str  # a number; or a symbol, which may be multiplied: "h16", "4*h16"
Shape = tuple[Size, ...]

# Any sizes that differ from each other and from the model's widths, so that no axis is taken for another.
EXAMPLE = {"N": 3, "P": 7, "T": 5, "R": 2, "K": 9, "B": 4, "M": 2, "h16": 6, "w16": 10, "h32": 3, "w32": 5}


@dataclass(frozen=True)
class Array:
    """An input.

    Attributes:
        shape: numbers and symbols.
        dtype: "float32", "int32" or "int64".
        below: of whole numbers, the smallest that is too large.
    """

    shape: Shape
    dtype: str = "float32"
    below: int = 2

    def example(self, generator: torch.Generator) -> Tensor:
        """Random values of the sizes in `EXAMPLE`."""
        shape = [resolve(size, EXAMPLE) for size in self.shape]
        if self.dtype == "float32":
            return torch.randn(shape, generator=generator)
        return torch.randint(self.below, shape, generator=generator).to(getattr(torch, self.dtype))


@dataclass(frozen=True)
class Part:
    """One graph: its module, inputs by name, and the names of its outputs."""

    name: str
    module: nn.Module
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]


def resolve(size: Size, values: Mapping[str, int]) -> int:
    """A size as a number.

    >>> resolve("4*h16", {"h16": 3}), resolve(2, {})
    (12, 2)
    """
    if isinstance(size, int):
        return size
    *factor, symbol = size.split("*")
    return (int(factor[0]) if factor else 1) * values[symbol]


def decoder_parts(network: SEEM) -> list[Part]:
    """`Prepare`, `Maps` and `Decode`.

    Raises:
        ValueError: a model whose prompts go through the masked layers, or leave out maps: no shipped one does.
    """
    config = network.config
    c = config.prompt_decoder
    if c.masked_prompts or not c.dense_mask or not c.dense_similarity or c.two_way_layers != 2:
        raise ValueError(f"export: expected the prompt decoder of seem-tiny, got {c}")
    maps, shared, each = _map_inputs(config), _prepared(config), _each_object(config)
    prepare = Part("prepare", Prepare(network), maps, tuple(shared))
    drawn = {
        "drawn": Array(("N", "4*h16", "4*w16")),
        "has_drawn": Array(("N",)),
        "previous": each["previous"],
        "has_previous": Array(("N",)),
        "text": each["text"],
        "has_text": Array(("N",)),
        "references": Array(("N", "R", config.pixel_decoder.joint_dim)),
        "has_reference": Array(("N", "R")),
    }
    kept = {name: shared[name] for name in ("stream", "first", "joint")}
    added = Part("maps", Maps(network), kept | drawn, ("prompted_stream", "prompted_first"))
    streams = {
        "stream": Array(("B", *shared["stream"].shape[1:])),
        "first": Array(("B", *shared["first"].shape[1:])),
        "which": Array(("N",), "int32", EXAMPLE["B"]),
    }
    rest = {name: array for name, array in shared.items() if name not in streams}
    inputs = streams | rest | each
    decode = Part("decode", Decode(network), inputs, ("logits", "score", "class_embedding", "probabilities"))
    return [prepare, added, decode]


def encoder_part(network: SEEM) -> Part:
    """The image encoder."""
    pixels = Array((1, 3, "32*h32", "32*w32"))
    return Part("image", EncodeImage(network), {"pixels": pixels}, ("embedding", "semantic", "middle", "fine"))


def text_part(network: SEEM) -> Part:
    """The text encoder."""
    ids = Array(("K", "T"), "int64", network.config.text_encoder.vocabulary)
    return Part("text", EncodeText(network), {"ids": ids, "mask": Array(("K", "T"), "int64")}, ("sentence", "tokens"))


def _map_inputs(config: SEEMConfig) -> dict[str, Array]:
    pixel = config.pixel_decoder
    return {
        "embedding": Array((1, pixel.dim, "h16", "w16")),
        "semantic": Array((1, pixel.semantic_dim, "h16", "w16")),
        "middle": Array((1, pixel.middle_dim, "2*h16", "2*w16")),
        "fine": Array((1, config.prompt_decoder.mask_dim, "4*h16", "4*w16")),
    }


def _prepared(config: SEEMConfig) -> dict[str, Array]:
    """What `Prepare` returns, in order."""
    c, joint = config.prompt_decoder, config.pixel_decoder.joint_dim
    return {
        "stream": Array((1, "h16", "w16", c.dim)),
        "first": Array((1, "h16", "w16", 3 * c.cross_dim)),
        "cells": Array(("h16", "w16", c.dim)),
        "middle_skip": Array((1, "2*h16", "2*w16", 64)),
        "fine_skip": Array((1, "4*h16", "4*w16", c.mask_dim)),
        "joint": Array(("2*h16", "2*w16", joint)),
        "length": Array(("2*h16", "2*w16", 1)),
        "bias1": Array((1, "h16", "w16", 3 * c.cross_dim)),
        "bias2": Array((1, "h16", "w16", c.cross_dim)),
    }


def _each_object(config: SEEMConfig) -> dict[str, Array]:
    """What a round says of its objects."""
    c, joint = config.prompt_decoder, config.pixel_decoder.joint_dim
    return {
        "size": Array((2,), "int32", 64),
        "points": Array(("N", "P", 2)),
        "kinds": Array(("N", "P"), "int32", 4),
        "tokens": Array(("N", "T", c.dim)),
        "has_token": Array(("N", "T")),
        "text": Array(("N", joint)),
        "previous": Array(("N", "4*h16", "4*w16")),
        "has_memory": Array(("N", "M")),
        "names": Array(("K", joint)),
    }
