"""Scenes as files: one safetensors file each, whose JSON header says what it is, of which image and of which weights.

    key in the header    `Scene`                            `TiledScene`
    version              1                                  1
    kind                 missing                            "tiled"
    weights, image       "sha256:…" of the model's weights and of the image's pixels
    original             [width, height]                    the same
    encoded, padded      sizes of the encoded image         missing
    tile, windows        missing                            pixels of a tile's side; [x0, y0, x1, y1] of each window
    tensors              `ImageFeatures.to_tensors`, and    the same of window i, named "i/…"
                         "photo", a JPEG, if kept

A file may come from anywhere: no length, size or shape in it is trusted, and nothing is unpickled.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

if TYPE_CHECKING:
    from seem.geometry import ImageGeometry
    from seem.model.seem import ImageFeatures
    from seem.predict.model import Model

SCENE_VERSION = 1
MAX_HEADER = 1 << 20  # bytes of a scene file's header


def write_scene(header: dict[str, Any], tensors: dict[str, Tensor]) -> bytes:
    """The content of a file; the version is added."""
    return safetensors.torch.save(tensors, {"seem.scene": json.dumps({"version": SCENE_VERSION, **header})})


def read_header(data: bytes, model: Model, kind: str | None, max_pixels: int) -> dict[str, Any]:
    """The header, where all that every kind of scene has is checked: its weights are the model's, its sizes are sizes.

    Raises:
        ValueError: not a scene, another version or kind, other weights, no digest, no sizes, or too many pixels.
    """
    header = _parse_header(data)
    if header.get("version") != SCENE_VERSION:
        raise ValueError(f"scene: expected format version {SCENE_VERSION}, got {_show(header.get('version'))}")
    if header.get("kind") != kind:
        raise ValueError(f"scene: expected {_named(kind)}, got {_named(header.get('kind'))}")
    if header.get("weights") != model.weights:
        raise ValueError(f"scene: expected one of the weights {model.weights}, got {_show(header.get('weights'))}")
    digest = header.get("image")
    if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(f'scene: expected the image as "sha256:" and 64 hex digits, got {_show(digest)}')
    original: Any = header.get("original")
    if not is_integers(original, 2) or min(original) < 1 or original[0] * original[1] > max_pixels:
        raise ValueError(f"scene: expected [width, height] of at most {max_pixels} pixels, got {_show(original)}")
    return header


def read_tensors(data: bytes) -> dict[str, Tensor]:
    """All tensors of a file. Raises ValueError."""
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"scene: expected this model's features, got: {error}") from None


def make_features(tensors: dict[str, Tensor], sizes: ImageGeometry, model: Model) -> ImageFeatures:
    """What `ImageFeatures.to_tensors` wrote, of an image or window of these sizes. Raises ValueError."""
    width, height = sizes.encoded
    try:
        with torch.no_grad():
            made: ImageFeatures = model.network.features_type.from_tensors(model.network, tensors, (height, width))
    except (ValueError, KeyError) as error:
        raise ValueError(f"scene: expected this model's features, got: {error}") from None
    return made


def is_integers(value: object, count: int) -> bool:
    """Whether JSON holds a list of so many whole numbers."""
    return isinstance(value, list) and len(value) == count and all(type(v) is int for v in value)


def _parse_header(data: bytes) -> dict[str, Any]:
    """The JSON header, read without trusting any length in the file."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 0 < length <= min(len(data) - 8, MAX_HEADER):
        raise ValueError(f"scene: expected a safetensors file, got {len(data)} bytes of something else")
    try:
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["seem.scene"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("scene: expected a file that Scene.save wrote, got no scene header") from None
    if not isinstance(header, dict):
        raise ValueError("scene: expected a JSON object as header, got something else")
    return header


def _named(kind: object) -> str:
    """How a kind is called in a message."""
    if kind is None:
        return "a file of Scene.save"
    return "a file of TiledScene.save" if kind == "tiled" else f"kind {_show(kind)}"


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
