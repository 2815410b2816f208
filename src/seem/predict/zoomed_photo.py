"""A photo to zoom into whose windows were encoded elsewhere: servers encode in one place and decode in another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from seem.predict.tiles import TILE, TiledScene, TiledSegmentation, Window

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.scene import Scene


class MissingWindows(LookupError):
    """Windows that have to be encoded before the question can be asked again.

    Attributes:
        windows: half-open x0, y0, x1, y1 in pixels of the photo.
    """

    def __init__(self, windows: Sequence[Window]) -> None:
        super().__init__(windows)
        self.windows = list(windows)


class ZoomedPhoto(TiledScene):
    """`segment` and `segment_all` answer as those of `Model.encode_large(photo, zoom=True)`, with the first look at the
    whole photo however large it is.

    Args:
        model: that the scenes belong to.
        photo: the scene of the whole photo.
        find: the scene of a window, as `TiledScene.scene` makes it, or None where it is not here; then the question
            raises `MissingWindows`.

    Attributes:
        whole: the scene of the whole photo.
    """

    def __init__(self, model: Model, photo: Scene, find: Callable[[Window], Scene | None]) -> None:
        self._describe(model, photo.digest, photo.size, max(TILE, *photo.size), zoom=True)
        self.whole, self._find = photo, find

    def scene(self, window: Window) -> Scene:
        """A window's scene. Raises MissingWindows."""
        found = self.whole if window == self._whole else self._find(window)
        if found is None:
            raise MissingWindows([window])
        return found

    def _need(self, windows: Iterable[Window]) -> None:
        missing = [window for window in windows if window != self._whole and self._find(window) is None]
        if missing:
            raise MissingWindows(missing)

    def remembered(self, logits: np.ndarray, window: Window) -> TiledSegmentation:
        """An earlier result as `previous` takes it, from what was kept: its logits (h/4, w/4) and their window."""
        sizes, nothing = self._sizes(window), np.zeros(0, np.float32)
        if logits.shape != sizes.mask_size:
            raise ValueError(f"previous: expected logits of shape {sizes.mask_size}, got {logits.shape}")
        return TiledSegmentation(logits, 0.0, "given", None, None, self.digest, sizes, nothing, window, self.size)

    def flat(self, logits: np.ndarray, window: Window) -> np.ndarray:
        """Logits of a window -> (h/4, w/4) float32 of the whole photo, far outside where the window shows nothing."""
        return self._read(self.remembered(logits, window), self._whole)
