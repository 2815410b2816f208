"""One line from an image to plain results, with the outputs of the pipelines of `transformers`.

Code that was written for ``transformers.pipeline("mask-generation")``, ``"image-segmentation"`` or
``"zero-shot-object-detection"`` reads the same keys here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from seem.vocabulary import VocabularyLike

if TYPE_CHECKING:
    import os

    from seem.predict.model import Model
    from seem.predict.panoptic import Panoptic
    from seem.predict.scene import Scene

SUBTASKS = ("panoptic", "instance", "semantic")


class Pipeline:
    """What `pipeline` returns: call it with an image, or with a list of them for a list of results."""

    def __init__(self, task: str, model: Model) -> None:
        self.task = task
        self.model = model

    def __repr__(self) -> str:
        return f"<Pipeline {self.task} of {self.model!r}>"

    def __call__(self, images: object, **options: Any) -> Any:
        """Results of one image, or of each of a list; images and errors as in `Model.encode`."""
        run = _TASKS[self.task]
        if isinstance(images, list | tuple):
            return [run(self.model.encode(image), **options) for image in images]
        return run(self.model.encode(images), **options)


def pipeline(
    task: str, model: Model | str | os.PathLike[str] | None = None, device: str = "auto", **options: Any
) -> Pipeline:
    """One line from an image to plain results.

    Args:
        task: and what calling the pipeline with an image gives:

            - "mask-generation": ``{"masks": [(H, W) bool, …], "scores": [float, …]}``, every mask without a prompt.
            - "image-segmentation": ``[{"label", "score", "mask": PIL image of 0 and 255}, …]``; with
              ``subtask="panoptic"`` (the default), "instance" (only things) or "semantic" (one mask a name, score
              None). Options: ``vocabulary``, ``threshold``.
            - "zero-shot-object-detection": ``[{"label", "score", "box": {"xmin", "ymin", "xmax", "ymax"}}, …]`` of
              ``candidate_labels=["cat", …]``, best first. Option: ``threshold``.
        model: a `seem.Model`, or what `seem.load` takes; the default model if it is None.
        device, options: for `seem.load`, where ``model`` is none yet.

    Raises:
        ValueError: an unknown task, or options beside a model that is loaded.

    Example:
        >>> pipe = seem.pipeline("image-segmentation")                                          # doctest: +SKIP
        >>> [found["label"] for found in pipe("photo.jpg")]                                     # doctest: +SKIP
        ['cat', 'couch']
    """
    import seem
    from seem.predict.model import DEFAULT_MODEL

    if task not in _TASKS:
        raise ValueError(f"task: expected one of {', '.join(_TASKS)}, got {task!r}")
    if not isinstance(model, seem.Model):
        return Pipeline(task, seem.load(DEFAULT_MODEL if model is None else model, device, **options))
    if options or device != "auto":
        raise ValueError("model: expected a name or file to load with these options, got a model that is loaded")
    return Pipeline(task, model)


def _generate_masks(scene: Scene, **options: Any) -> dict[str, Any]:
    found = scene.everything(label=False, **options)
    return {"masks": [result.mask for result in found], "scores": [result.score for result in found]}


def _segment_image(
    scene: Scene,
    subtask: str = "panoptic",
    vocabulary: VocabularyLike | None = None,
    threshold: float | None = None,
) -> list[dict[str, Any]]:
    if subtask not in SUBTASKS:
        raise ValueError(f"subtask: expected one of {', '.join(SUBTASKS)}, got {subtask!r}")
    result = scene.panoptic(vocabulary=vocabulary, threshold=threshold)
    if subtask == "semantic":
        return _merged(result)
    return [
        {"label": segment.label, "score": segment.score, "mask": _picture(result.map == segment.id)}
        for segment in result.segments
        if segment.is_thing or subtask == "panoptic"
    ]


def _merged(result: Panoptic) -> list[dict[str, Any]]:
    """One mask a name, in the order of their first segment."""
    ids: dict[str, list[int]] = {}
    for segment in result.segments:
        ids.setdefault(segment.label, []).append(segment.id)
    return [
        {"label": label, "score": None, "mask": _picture(np.isin(result.map, numbers))}
        for label, numbers in ids.items()
    ]


def _detect(scene: Scene, candidate_labels: Sequence[str], **options: Any) -> list[dict[str, Any]]:
    if isinstance(candidate_labels, str):
        raise TypeError("candidate_labels: expected a list of names, got str")
    found = [result for name in candidate_labels for result in scene.find(name, **options)]
    return [
        {"label": r.label, "score": r.score, "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), r.box, strict=True))}
        for r in sorted(found, key=lambda r: -r.score)
        if r.box is not None
    ]


def _picture(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)


_TASKS: dict[str, Callable[..., Any]] = {
    "mask-generation": _generate_masks,
    "image-segmentation": _segment_image,
    "zero-shot-object-detection": _detect,
}
