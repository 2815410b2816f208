"""The standard robot user: it clicks where the mask is most wrong.

The rule is RITM's (Sofiiuk et al., arXiv 2102.06583), which most published interactive figures were measured with: the
exact Euclidean distance transform of the missed pixels and of the wrongly taken ones, the image border counting as
outside; the deeper of the two maxima is the next click, a negative one when they are equal. Ignored pixels are in
neither region. No pixel is clicked twice.
"""

from __future__ import annotations

import numpy as np

from seem import geometry
from seem.prompts import Click

NAME = "standard"
MAX_CLICKS = 20
JITTER = 0.05  # of the square root of the object's area, in `--jitter`
_TRIES = 20


def depth(region: np.ndarray) -> np.ndarray:
    """(H, W) float: distance of every pixel to the nearest one that is not in the region; the border is outside."""
    from scipy.ndimage import distance_transform_edt

    distance = np.zeros(region.shape)
    box = geometry.box_of(region)
    if box is not None:
        x0, y0, x1, y1 = box  # nothing beyond the box is nearer than the ring around it
        distance[y0:y1, x0:x1] = distance_transform_edt(np.pad(region[y0:y1, x0:x1], 1))[1:-1, 1:-1]
    return distance


class Robot:
    """Clicks for one object.

    Args:
        target: (H, W) bool.
        ignore: (H, W) bool, pixels that count neither way.
        jitter: standard deviation of a Gaussian added to each click, in units of sqrt(area of the target); a click
            stays inside the region that it corrects.
        rng: for the jitter.
        negatives: False: it only ever clicks what is missed.
    """

    def __init__(
        self,
        target: np.ndarray,
        ignore: np.ndarray | None = None,
        jitter: float = 0.0,
        rng: np.random.Generator | None = None,
        negatives: bool = True,
    ) -> None:
        self.target = target
        self.valid = np.ones(target.shape, bool) if ignore is None else ~ignore
        self.free = np.ones(target.shape, bool)
        self.sigma = jitter * float(np.sqrt(target.sum()))
        self.rng = rng or np.random.default_rng(0)
        self.negatives = negatives

    def next_click(self, mask: np.ndarray | None = None) -> Click | None:
        """The next click for the present mask (none yet: an empty one); None if there is nothing left to click."""
        mask = np.zeros(self.target.shape, bool) if mask is None else mask
        missed, taken = self.target & ~mask & self.valid, mask & ~self.target & self.valid
        depth_missed, depth_taken = depth(missed) * self.free, depth(taken) * self.free
        positive = not self.negatives or bool(depth_missed.max() > depth_taken.max())
        deepest = depth_missed if positive else depth_taken
        if deepest.max() == 0:
            return None
        y, x = np.unravel_index(int(deepest.argmax()), deepest.shape)
        at = self.jittered(int(x), int(y), (missed if positive else taken) & self.free)
        self.free[at[1], at[0]] = False
        return Click(*at, positive)

    def jittered(self, x: int, y: int, region: np.ndarray) -> tuple[int, int]:
        """A pixel of the region near (x, y); itself if none is drawn in `_TRIES`."""
        height, width = region.shape
        for _ in range(_TRIES if self.sigma > 0 else 0):
            dx, dy = np.rint(self.rng.normal(0.0, self.sigma, 2)).astype(int).tolist()
            if 0 <= x + dx < width and 0 <= y + dy < height and region[y + dy, x + dx]:
                return x + dx, y + dy
        return x, y
