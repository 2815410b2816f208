"""The work on one photo: read, encode, decode. Every engine does exactly this, so their results are the same bits.

Masks of a photo are always decoded from its scene as it is saved, in half precision: then it does not matter whether a
scene was just encoded, came from the cache, or travelled from another machine. With tiles the parts of a photo are
encoded as they are asked for, so there is no scene that could be kept or sent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from seem.batch.cache import SceneCache
from seem.batch.job import Item, Job, Row, answer
from seem.batch.listing import read_photo
from seem.predict import tiles
from seem.predict.model import Model
from seem.predict.scene import Scene
from seem.predict.tiles import TiledScene

BAD_PHOTO = (ValueError, TypeError, OSError)  # what one photo or its prompts can be blamed for


@dataclass(frozen=True)
class Loaded:
    """A photo that was read: its pixels, or its scene if that is known already, or why it cannot be used."""

    item: Item
    digest: str = ""
    pixels: Any = None
    scene: bytes | None = None
    error: str = ""


class Worker:
    """A model and what it is asked."""

    def __init__(self, job: Job, model: Model, cache: SceneCache | None = None) -> None:
        self.job, self.model, self.cache = job, model, cache
        self._references: dict[str, Scene] = {}

    def load(self, item: Item) -> Loaded:
        """Read a photo; safe to call from several threads."""
        from seem import images

        try:
            most = self.model.max_pixels if self.job.tiles is None else tiles.MAX_PIXELS
            pixels = images.load_image(read_photo(item.source), most)
        except BAD_PHOTO as error:
            return Loaded(item, error=str(error))
        digest = images.digest(pixels)
        scene = self.cache.get(digest, self.model.weights) if self.cache is not None else None
        return Loaded(item, digest, pixels, scene)

    def encode(self, loaded: Loaded) -> bytes:
        """The scene of a photo that was read without an error."""
        if loaded.scene is not None:
            return loaded.scene
        data = self.model.encode(loaded.pixels).to_bytes()
        if self.cache is not None:
            self.cache.put(loaded.digest, self.model.weights, data)
        return data

    def decode(self, item: Item, scene: Scene | TiledScene) -> Row:
        """{"index", "image", "digest", "width", "height", "segments"}, or {"index", "image", "error"}."""
        row: Row = {"index": item.index, "image": item.source}
        try:
            objects = self.job.objects if item.objects is None else item.objects
            segments = answer(scene, self.job, objects, self._reference)
        except BAD_PHOTO as error:
            return row | {"error": str(error)}
        width, height = scene.size
        return row | {"digest": scene.digest, "width": width, "height": height, "segments": segments}

    def work(self, loaded: Loaded) -> Row:
        """Encode and decode one photo."""
        if loaded.error:
            return error_row(loaded.item, loaded.error)
        if self.job.in_windows:
            tile = tiles.TILE if self.job.tiles is None else self.job.tiles
            large = self.model.encode_large(loaded.pixels, tile, tiles.MAX_PIXELS, zoom=self.job.zoom)
            return self.decode(loaded.item, large)
        try:
            scene = Scene.from_bytes(self.encode(loaded), self.model)
        except ValueError:  # a broken file of the cache
            if loaded.scene is None or self.cache is None:
                raise
            self.cache.drop(loaded.digest, self.model.weights)
            scene = Scene.from_bytes(self.encode(replace(loaded, scene=None)), self.model)
        return self.decode(loaded.item, scene)

    def _reference(self, digest: str) -> Scene:
        if digest not in self._references:
            self._references[digest] = Scene.from_bytes(self.job.references[digest], self.model)
        return self._references[digest]


def error_row(item: Item, error: str) -> Row:
    """What is recorded of a photo that cannot be used."""
    return {"index": item.index, "image": item.source, "error": error}
