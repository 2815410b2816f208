"""What a SEEM is made of: one dataclass per part, and the JSON form that stands in every weights file."""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from typing import Any

from seem.model.closer_look import CloserLookConfig
from seem.model.image_encoder.efficientnet_lite import EfficientNetLiteConfig
from seem.model.image_encoder.tiny_vit import TinyViTConfig
from seem.model.sentence_encoder import SentenceEncoderConfig

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class ImageConfig:
    """How a photo becomes the network's input: resize, normalise, then zero-pad right and bottom."""

    resize: str = "long"  # which side is brought to `target`: "long" or "short"
    target: int = 512
    max: int | None = None  # cap of the other side
    pad_multiple: int = 32
    pad_to: int | None = None  # a fixed square canvas instead of a multiple
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class PixelDecoderConfig:
    """The light feature pyramid: widths of the maps that it keeps."""

    dim: int = 256  # stride 16, the prompt decoder's image stream
    semantic_dim: int = 128  # stride 16, what things are
    middle_dim: int = 96  # stride 8
    joint_dim: int = 256  # the space shared with text


@dataclass(frozen=True)
class PromptDecoderConfig:
    """The prompt decoder. The last block of fields are experiments that the official model does not have."""

    dim: int = 256
    heads: int = 8
    cross_dim: int = 128  # width inside attention between tokens and image
    ffn_dim: int = 2048
    two_way_layers: int = 2  # tokens and the stride-16 image stream attend each other
    masked_layers: int = 4  # masked cross-attention of the object queries, cycling strides 32, 16, 8
    masked_prompts: bool = False  # prompted queries go through them too (no gain for clicks, half as slow again)
    object_queries: int = 64
    candidates: int = 4  # query rows (and masks) per prompted object
    memory_tokens: int = 8
    mask_dim: int = 32
    max_points: int = 32  # points that one prompt contributes at most
    position_canvas: int = 512  # pixels that the unit square of the position encoding covers
    token_position: bool = True  # visual tokens know where they are
    dense_mask: bool = True  # the previous mask and mask prompts also enter as a map
    dense_similarity: bool = True  # text and reference also enter as a map of similarity


@dataclass(frozen=True)
class SEEMConfig:
    """A whole model. ``SEEMConfig.from_json(c.to_json()) == c``."""

    name: str = "seem-tiny"
    image: ImageConfig = field(default_factory=ImageConfig)
    image_encoder: TinyViTConfig = field(default_factory=TinyViTConfig)
    semantic_encoder: EfficientNetLiteConfig = field(default_factory=EfficientNetLiteConfig)
    text_encoder: SentenceEncoderConfig = field(default_factory=SentenceEncoderConfig)
    pixel_decoder: PixelDecoderConfig = field(default_factory=PixelDecoderConfig)
    prompt_decoder: PromptDecoderConfig = field(default_factory=PromptDecoderConfig)
    closer_look: CloserLookConfig = field(default_factory=CloserLookConfig)
    # How sure `find` is: a slope for each kind of `seem.predict.instances.phrase_evidence`, or for the first of them,
    # and a bias, fitted on the development split by benchmarks/fit_match.py; empty means the plain product.
    match_weights: tuple[float, ...] = ()
    # The score of a mask that a phrase alone made, from the same evidence; empty means the predicted IoU as it is.
    text_score_weights: tuple[float, ...] = ()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> SEEMConfig:
        """Raises ValueError for an unknown or misspelt field."""
        return typing.cast(SEEMConfig, build(cls, json.loads(text)))


def build(cls: type, data: dict[str, Any]) -> Any:
    """A dataclass from its JSON form. Raises ValueError for a field that it does not have."""
    if not isinstance(data, dict):
        raise ValueError(f"{cls.__name__} is {type(data).__name__}; expected an object")
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; expected some of {', '.join(known)}")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _value(hints[name], value) for name, value in data.items()})


def _value(hint: Any, value: Any) -> Any:
    """JSON has only lists and objects; the hint says which tuple or dataclass they were."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return build(typing.cast(type, hint), value)
    if isinstance(value, list):
        inner = typing.get_args(hint)
        each = inner[0] if len(inner) == 2 and inner[1] is ... else None
        return tuple(_value(each, v) for v in value)
    return value
