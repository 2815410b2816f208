"""SEEM: one promptable segmentation model for clicks, boxes, scribbles, polygons, masks, text and references.

    >>> import seem
    >>> model = seem.load()                                        # doctest: +SKIP
    >>> scene = model.encode("photo.jpg")                          # doctest: +SKIP
    >>> result = scene.segment(seem.Click(320, 200))               # doctest: +SKIP
    >>> result.mask.shape, result.label, result.score              # doctest: +SKIP

Names are loaded when first used, so `import seem` alone takes no noticeable time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_EXPORTS = {
    "Box": "seem.prompts",
    "Click": "seem.prompts",
    "Mask": "seem.prompts",
    "Polygon": "seem.prompts",
    "Prompt": "seem.prompts",
    "Reference": "seem.prompts",
    "Scribble": "seem.prompts",
    "Text": "seem.prompts",
    "prompt_from_json": "seem.prompts",
    "ImageError": "seem.images",
    "load_image": "seem.images",
    "Model": "seem.predict.model",
    "load": "seem.predict.model",
    "pipeline": "seem.friends.pipelines",
    "Panoptic": "seem.predict.panoptic",
    "Scene": "seem.predict.scene",
    "Segmentation": "seem.predict.segmentation",
    "Session": "seem.predict.session",
    "TiledScene": "seem.predict.tiles",
    "draw": "seem.predict.render",
}

if TYPE_CHECKING:
    from seem.friends.pipelines import pipeline as pipeline
    from seem.images import ImageError as ImageError
    from seem.images import load_image as load_image
    from seem.predict.model import Model as Model
    from seem.predict.model import load as load
    from seem.predict.panoptic import Panoptic as Panoptic
    from seem.predict.render import draw as draw
    from seem.predict.scene import Scene as Scene
    from seem.predict.segmentation import Segmentation as Segmentation
    from seem.predict.session import Session as Session
    from seem.predict.tiles import TiledScene as TiledScene
    from seem.prompts import Box as Box
    from seem.prompts import Click as Click
    from seem.prompts import Mask as Mask
    from seem.prompts import Polygon as Polygon
    from seem.prompts import Prompt as Prompt
    from seem.prompts import Reference as Reference
    from seem.prompts import Scribble as Scribble
    from seem.prompts import Text as Text
    from seem.prompts import prompt_from_json as prompt_from_json

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> object:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module 'seem' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
