"""The work itself: plain methods of a model, called in threads by one engine and in other processes by another.

What goes in and comes out is bytes, JSON values and arrays. A scene always comes from its bytes, so an answer does
not depend on what was in memory, on which machine it was made, or on whether the browser made it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import safetensors.torch
import torch

from seem import geometry, images
from seem.predict.encoding import given_logits, visual_prompts
from seem.predict.scene import Scene
from seem.predict.tiles import TiledScene, TiledSegmentation, Window
from seem.predict.zoomed_photo import MissingWindows, ZoomedPhoto
from seem.prompts import VISUAL_TYPES, Mask, Prompt, check, prompt_from_json
from seem.vocabulary import parse_vocabulary

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.panoptic import Panoptic
    from seem.predict.segmentation import Segmentation

JSON = dict[str, Any]
EVERYTHING_THRESHOLD, EVERYTHING_OVERLAP = 0.05, 0.3  # of `everything`: all that may be a region, not what is sure


@dataclass(frozen=True)
class Encoded:
    """An image that was encoded.

    Attributes:
        digest: "sha256:…" of its pixels.
        size: (width, height) of the photo.
        encoded: (height, width) as the network saw it.
        scene: `Scene.to_bytes`.
    """

    digest: str
    size: tuple[int, int]
    encoded: tuple[int, int]
    scene: bytes


@dataclass(frozen=True)
class Memory:
    """What a round leaves for the object's next one.

    Attributes:
        logits: (h/4, w/4) float32.
        window: of the photo that they show, half-open x0, y0, x1, y1; None for a round that was not to zoom.
    """

    logits: np.ndarray
    window: Window | None = None


@dataclass(frozen=True)
class Wanted:
    """Instead of an answer: windows that have to be among the scenes."""

    windows: list[Window]


def window_key(digest: str, window: Window) -> str:
    """What a window's scene is called among scenes."""
    return f"{digest}@{','.join(map(str, window))}"


class Scenes:
    """Scenes ready for the decoder, least recently used ones forgotten.

    Args:
        model: that they belong to.
        capacity: how many are kept.
        fetch: turns what a caller passes for a scene into its bytes.
    """

    def __init__(self, model: Model, capacity: int, fetch: Callable[[Any], bytes]) -> None:
        self._model, self._capacity, self._fetch = model, capacity, fetch
        self._kept: OrderedDict[str, Scene] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: str, source: Any) -> Scene:
        """The scene of an image; `source` is its bytes, or what `fetch` takes."""
        with self._lock:
            scene = self._kept.get(digest)
            if scene is not None:
                self._kept.move_to_end(digest)
                return scene
        scene = Scene.from_bytes(self._fetch(source), self._model)
        with self._lock:
            scene = self._kept.setdefault(digest, scene)  # another thread may have been faster
            self._kept.move_to_end(digest)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return scene

    def __len__(self) -> int:
        return len(self._kept)


class Worker:
    """A model and the scenes that it works on. Thread-safe.

    Every operation takes `scenes`, a mapping from an image's digest to its scene: of the image itself, and of those
    that references name; and from `window_key` to a window's scene.

    Args:
        model: to work with.
        hot_scenes: scenes kept ready.
        fetch: see `Scenes`.
    """

    def __init__(self, model: Model, hot_scenes: int, fetch: Callable[[Any], bytes] = bytes) -> None:
        self.model = model
        self._scenes = Scenes(model, hot_scenes, fetch)

    # ---- images ---------------------------------------------------------------------------------------------------

    def encode(self, data: bytes, max_pixels: int) -> Encoded:
        """A file's bytes -> its scene. Raises ImageError as `seem.load_image`."""
        pixels = images.load_image(data, min(max_pixels, self.model.max_pixels))
        scene = self.model.encode(pixels)
        width, height = scene.geometry.encoded
        return Encoded(scene.digest, scene.size, (height, width), scene.to_bytes())

    def encode_window(self, data: bytes, max_pixels: int, window: Window) -> bytes:
        """A file's bytes -> `Scene.to_bytes` of a window of its photo. Raises as `encode`."""
        pixels = images.load_image(data, min(max_pixels, self.model.max_pixels))
        return TiledScene(self.model, pixels).scene(window).to_bytes()

    # ---- prompted -------------------------------------------------------------------------------------------------

    def segment(
        self,
        digest: str,
        scenes: Mapping[str, Any],
        objects: Sequence[Sequence[JSON]],
        previous: Sequence[Memory | JSON | None],
        vocabulary: Sequence[Any] | None,
        label: bool = True,
    ) -> tuple[list[JSON], list[Memory]]:
        """One round for several objects.

        Args:
            digest: the image.
            scenes: see the class.
            objects: of each its prompts as JSON.
            previous: of each what its round before left, or a mask as run lengths, or None.
            vocabulary: names for the label.
            label: False leaves labels out.

        Returns:
            Of each object its JSON and its memory, for the next round.
        """
        scene = self._scenes.get(digest, scenes[digest])
        prompts = self._objects(objects, scenes)
        memory = [self._logits(scene, p, f"objects[{i}].previous") for i, p in enumerate(previous)]
        names = _names(vocabulary)
        if len(prompts) == 1:
            results = [scene.segment(*prompts[0], previous=memory[0], vocabulary=names, label=label)]
        else:
            results = scene.segment_all(prompts, previous=memory, vocabulary=names, label=label)
        return [_segment_json(r) for r in results], [Memory(r.logits) for r in results]

    def segment_zoomed(
        self,
        digest: str,
        scenes: Mapping[str, Any],
        objects: Sequence[Sequence[JSON]],
        previous: Sequence[Memory | JSON | None],
        vocabulary: Sequence[Any] | None,
        label: bool = True,
    ) -> tuple[list[JSON], list[Memory]] | Wanted:
        """`segment`, zooming in as `Model.encode_large(zoom=True)`; or the windows that it has to see for that."""
        photo = self._zoomed(digest, scenes)
        prompts = self._objects(objects, scenes)
        memory: list[Any] = []
        for i, p in enumerate(previous):
            if isinstance(p, Memory) and p.window is not None:
                memory.append(photo.remembered(p.logits, p.window))
            else:
                memory.append(self._logits(photo.whole, p, f"objects[{i}].previous"))
        try:
            found = photo.segment_all(prompts, memory, _names(vocabulary), label)
        except MissingWindows as missing:
            return Wanted(missing.windows)
        results = [cast(TiledSegmentation, r) for r in found]
        return (
            [{**_segment_json(r), "window": list(r.window)} for r in results],
            [Memory(r.logits, r.window) for r in results],
        )

    def _zoomed(self, digest: str, scenes: Mapping[str, Any]) -> ZoomedPhoto:
        def find(window: Window) -> Scene | None:
            key = window_key(digest, window)
            return self._scenes.get(key, scenes[key]) if key in scenes else None

        return ZoomedPhoto(self.model, self._scenes.get(digest, scenes[digest]), find)

    def _logits(self, scene: Scene, previous: Memory | JSON | None, name: str) -> np.ndarray | None:
        """The round before as logits of the photo: what was kept, or a mask's share of each cell, from -8 to 8."""
        if previous is None:
            return None
        if isinstance(previous, Memory):
            if previous.window is None:
                return previous.logits
            return ZoomedPhoto(self.model, scene, lambda window: None).flat(previous.logits, previous.window)
        try:
            mask = _mask(previous, scene.size)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name}.rle: {error}") from None
        return given_logits(scene.geometry, mask.array)

    def _objects(self, objects: Sequence[Sequence[JSON]], scenes: Mapping[str, Any]) -> list[list[Prompt]]:
        return [self._prompts(listed, scenes, f"objects[{i}].prompts") for i, listed in enumerate(objects)]

    def _prompts(self, listed: Sequence[JSON], scenes: Mapping[str, Any], name: str) -> list[Prompt]:
        def resolve(digest: str) -> Scene:
            return self._scenes.get(digest, scenes[digest])

        prompts = []
        for i, item in enumerate(listed):
            try:
                prompts.append(prompt_from_json(item, resolve))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{name}[{i}]: {error}") from None
        return prompts

    # ---- unprompted -----------------------------------------------------------------------------------------------

    def find(
        self,
        digest: str,
        scenes: Mapping[str, Any],
        text: str,
        threshold: float | None,
        limit: int | None,
        quick: bool = False,
    ) -> list[JSON]:
        """Every instance of a text, best first."""
        options: JSON = {"limit": limit, "quick": quick} | ({} if threshold is None else {"threshold": threshold})
        return [_segment_json(r) for r in self._scenes.get(digest, scenes[digest]).find(text, **options)]

    def panoptic(
        self,
        digest: str,
        scenes: Mapping[str, Any],
        vocabulary: Sequence[Any] | None,
        background: bool,
        threshold: float | None,
    ) -> JSON:
        """`Panoptic.to_json`."""
        scene = self._scenes.get(digest, scenes[digest])
        return scene.panoptic(_names(vocabulary), background=background, threshold=threshold).to_json()

    def everything(self, digest: str, scenes: Mapping[str, Any], vocabulary: Sequence[Any] | None) -> JSON:
        """All regions that the model sees by itself, also unsure ones; they do not overlap. JSON as `panoptic`."""
        scene = self._scenes.get(digest, scenes[digest])
        found: Panoptic = scene.panoptic(_names(vocabulary), threshold=EVERYTHING_THRESHOLD, overlap=EVERYTHING_OVERLAP)
        return found.to_json()

    def label(
        self,
        digest: str,
        scenes: Mapping[str, Any],
        masks: Sequence[JSON],
        vocabulary: Sequence[Any] | None,
        top: int,
    ) -> list[list[tuple[str, float]]]:
        """Of each mask its most likely names."""
        scene = self._scenes.get(digest, scenes[digest])
        names = _names(vocabulary)
        answers = []
        for i, rle in enumerate(masks):
            try:
                answers.append(scene.label(_mask(rle, scene.size), names, top))
            except (ValueError, TypeError) as error:
                raise ValueError(f"mask_rle[{i}]: {error}") from None
        return answers

    # ---- for the decoder in a browser -----------------------------------------------------------------------------

    def text(self, texts: Sequence[str]) -> bytes:
        """Phrases as the decoder reads them: safetensors with sentence (K, D) and tokens (K, T, dim) float32, and
        mask (K, T) uint8, 1 where there is a token."""
        phrases = [" ".join(text.split()) for text in texts]
        with torch.no_grad():
            found = self.model.network.encode_text(phrases)
        return _tensors(sentence=found.sentence, tokens=found.tokens, mask=found.mask.to(torch.uint8))

    def reference(self, digest: str, scenes: Mapping[str, Any], prompts: Sequence[JSON]) -> bytes:
        """A region as a prompt for another image: safetensors with tokens (R, dim) and embedding (D,), float32."""
        from seem.model.prompting import ReferencePrompt

        scene = self._scenes.get(digest, scenes[digest])
        parsed = self._prompts(prompts, scenes, "prompts")
        visual = []
        for i, prompt in enumerate(parsed):
            if not isinstance(prompt, VISUAL_TYPES):
                raise ValueError(f"prompts[{i}]: expected a click, box, scribble, polygon or mask")
            check(prompt, scene.size, f"prompts[{i}]")
            visual += visual_prompts(prompt, scene.geometry)
        network = self.model.network
        if not hasattr(network, "encode_reference"):
            raise ValueError(f"reference: expected a model whose references can be sent, got {self.model.name}")
        with torch.no_grad():
            known = network.encode_reference(ReferencePrompt(scene._features, tuple(visual)))
            tokens = network.visual_sampler.reference_tokens(known.samples, known.kinds)
        return _tensors(tokens=tokens, embedding=known.embedding)

    # ---- video ----------------------------------------------------------------------------------------------------

    def track(
        self, path: str, prompts: Mapping[int, Mapping[int, Sequence[JSON]]], scenes: Mapping[str, Any]
    ) -> Iterator[list[JSON]]:
        """Of each frame its objects: {"id", "mask_rle", "score", "label", "box", "area"}."""
        from seem.video.reader import Video

        schedule = {
            frame: {i: self._prompts(listed, scenes, f"prompts.{frame}.{i}") for i, listed in objects.items()}
            for frame, objects in prompts.items()
        }
        tracked = self.model.track(Video(path), schedule)
        return ([{"id": i, **_segment_json(r)} for i, r in results.items()] for results in tracked)


# ---- values -------------------------------------------------------------------------------------------------------


def _names(vocabulary: Sequence[Any] | None) -> list[Any] | None:
    """JSON's pairs are lists; a vocabulary's are tuples."""
    if vocabulary is None:
        return None
    names: list[Any] = [tuple(n) if isinstance(n, list) else n for n in vocabulary]
    parse_vocabulary(names)
    return names


def _mask(rle: object, size: tuple[int, int]) -> Mask:
    mask = Mask(geometry.rle_decode(rle, size[0] * size[1]))
    check(mask, size, "mask")
    return mask


def _segment_json(result: Segmentation) -> JSON:
    return {**result.to_json(), "score_kind": result.score_kind}


def _tensors(**tensors: torch.Tensor) -> bytes:
    own = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    return safetensors.torch.save({k: v.float() if v.is_floating_point() else v for k, v in own.items()})
