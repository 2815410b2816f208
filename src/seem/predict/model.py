"""A network with its weights, ready for photos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from seem import images
from seem.geometry import ImageGeometry
from seem.model.image_input import network_input
from seem.predict import tiles
from seem.predict.closer import keep_photo
from seem.predict.precision import pick_precision, speed_up
from seem.predict.scene import Scene

if TYPE_CHECKING:
    import os

    from seem.model.seem import SEEM
    from seem.predict.segmentation import Segmentation
    from seem.predict.tiles import TiledScene

DEFAULT_MODEL = "seem-tiny"
BATCH_SIZE = 8  # images that go through the encoders together, where that is faster


class Model:
    """What `seem.load` returns. It holds no state between calls and may be shared by threads.

    Attributes:
        network: the `torch` module, in evaluation mode.
        weights: "sha256:…" of its weights.
        max_pixels: the most pixels that an image may have.
        precision: of the image encoders: "float32", "bfloat16", "float16" or "int8".
    """

    def __init__(
        self, network: SEEM, weights: str, max_pixels: int = images.MAX_PIXELS, precision: str = "float32"
    ) -> None:
        self.network = network.eval()
        self.weights = weights
        self.max_pixels = max_pixels
        self.precision = precision

    def __repr__(self) -> str:
        return f"<Model {self.name} on {self.device}>"

    @property
    def name(self) -> str:
        """ "seem-tiny", for example."""
        return str(self.network.config.name)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.network.device

    def encode(self, image: object) -> Scene:
        """Look at an image: the heavy part, done once; every prompt after it is cheap.

        Args:
            image: a path, the bytes of a file, a `PIL.Image.Image`, or a uint8 (H, W, 3) RGB array. EXIF orientation
                is applied, so coordinates are those of the photo as it is seen.

        Raises:
            seem.ImageError: a ValueError; the image is missing, broken, too large or of a refused format.
            TypeError: not an image.

        Example:
            >>> scene = model.encode("photo.jpg")                          # doctest: +SKIP
        """
        pixels = images.load_image(image, self.max_pixels)
        sizes = ImageGeometry.of((pixels.shape[1], pixels.shape[0]), self.network.config.image)
        values, size = network_input(pixels, self.network.config.image, self.device)
        with torch.no_grad():
            features = self.network.encode_image(values, size)
        photo = keep_photo(self.network, pixels)
        return Scene(self.network, features, sizes, images.digest(pixels), self.weights, photo)

    def encode_large(
        self,
        image: object,
        tile: int = tiles.TILE,
        max_pixels: int = tiles.MAX_PIXELS,
        cache_bytes: int = tiles.CACHE_BYTES,
        zoom: bool = False,
    ) -> TiledScene:
        """Open an image that is far larger than a photo, or a photo to zoom into: its parts are encoded as they are
        asked for.

        Args:
            image: as in `encode`.
            tile: pixels of a tile's side, from 64. Things from about 1/30 of it are seen in their tile; smaller tiles
                see smaller things, and there are more of them.
            max_pixels: the most pixels that the image may have.
            cache_bytes: of encoded tiles that are kept in memory.
            zoom: outline objects in a window of their own, from their third click on and where something is drawn. It
                costs another encoding for each, and the rounds after it none; small and thin things gain (docs).

        Raises:
            seem.ImageError, TypeError: as `encode`.
            ValueError: a tile below 64 pixels.

        Example:
            >>> scene = model.encode_large("orthophoto.tif", tile=1024)                             # doctest: +SKIP
            >>> scene.segment(seem.Click(8300, 412)).box                                            # doctest: +SKIP
        """
        if isinstance(tile, bool) or not isinstance(tile, int) or tile < tiles.SMALLEST_TILE:
            raise ValueError(f"tile: expected a whole number of pixels from {tiles.SMALLEST_TILE}, got {tile!r}")
        return tiles.TiledScene(self, images.load_image(image, max_pixels), tile, cache_bytes, zoom)

    def encode_batch(self, images: Sequence[object], batch_size: int | None = None) -> list[Scene]:
        """Encode several images; the same as `encode` on each, up to rounding.

        Args:
            images: each as in `encode`. All are read before the first is encoded.
            batch_size: how many of one padded size go through the encoders together. By default 1 on a CPU, where
                more are no faster (docs/fast.md), and 8 elsewhere.

        Raises:
            seem.ImageError, TypeError: as `encode`, with the image's number.
            ValueError: a batch size below 1.

        Example:
            >>> cat, dog = model.encode_batch(["cat.jpg", "dog.jpg"])                               # doctest: +SKIP
        """
        from seem.predict.batching import encode_batch

        if batch_size is None:
            batch_size = 1 if self.device.type == "cpu" else BATCH_SIZE
        return encode_batch(self, images, batch_size)

    def track(self, frames: object, prompts: Mapping[int, Any], start: int = 0) -> Iterator[dict[int, Segmentation]]:
        """Follow objects through a video; frames are read and encoded one at a time, as results are asked for.

        Args:
            frames: the path of a video, a folder of images (in order of their names), a sequence of images, or an
                iterator of them such as a webcam; images as in `encode`, all of one size.
            prompts: {object id: [prompts]} on frame ``start``, or {frame: {object id: [prompts]}}; ids and frames
                count from 0. Later prompts of an object correct it: they see its mask there as memory. Frames before
                them, back to half of the way to the prompts before, are tracked again.
            start: the frame that the prompts are of, where they do not name one.

        Yields:
            For each frame every object's mask; an empty one, with score 0, where the object is not in the frame.
            Masks of one frame do not overlap. From an iterator, frames before an object's first prompts are empty.

        Raises:
            ValueError, TypeError: prompts or frames that are not as above; while it runs, for a frame that cannot be
                used, or a video that ends before a frame that has prompts.

        Example:
            >>> for masks in model.track("dog.mp4", {1: [seem.Click(320, 200)]}):                   # doctest: +SKIP
            ...     print(masks[1].box)
        """
        from seem.predict.tracking import track

        return track(self, frames, prompts, start)


def load(
    name: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str = "auto",
    *,
    precision: str = "float32",
    compile: bool = False,
) -> Model:
    """Load a model.

    Args:
        name: a model's name (see `seem models`), or the path of a safetensors file.
        device: "auto" takes CUDA, else Apple's MPS, else the CPU; or what `torch.device` understands.
        precision: of the image encoders. "float32", exact; "bfloat16", "float16" or "int8" (CPU; saves memory), faster
            where the hardware has units for it; "auto" takes bfloat16 there, else float32. docs/fast.md says what
            each gains and costs.
        compile: let `torch.compile` make kernels for the image encoders: a minute at the first image, a C++ compiler
            on the machine.

    Raises:
        ValueError: an unknown name or precision, or a device that is not there.

    Example:
        >>> model = seem.load()                                            # doctest: +SKIP
        >>> model = seem.load(precision="auto")                            # doctest: +SKIP
    """
    from seem.checkpoints import load_network

    where = pick_device(device)
    chosen = pick_precision(precision, where)
    network, weights = load_network(name)
    network.to(where)
    speed_up(network, chosen, compile)
    return Model(network, weights, precision=chosen)


def pick_device(device: str = "auto") -> torch.device:
    """The torch device for "auto", or for a name that must be available. Raises ValueError if it is not."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f'device: expected "auto", "cpu", "cuda" or "mps", got {device!r}') from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(chosen.type, True):
        raise ValueError(f"device: expected one that this machine has, got {device!r}")
    return chosen
