"""Words for an object, made from its name, place, size and neighbours: there are no human ones to learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NAME_FORMS = ("{}", "{}", "the {}", "a {}", "a photo of a {}", "{}s")
PLACES = {
    "left": ("left {}", "{} on the left", "the {} on the left", "the {} to the left", "leftmost {}"),
    "right": ("right {}", "{} on the right", "the {} on the right", "the {} to the right", "rightmost {}"),
    "top": ("top {}", "{} at the top", "the {} on top", "upper {}", "topmost {}"),
    "bottom": ("bottom {}", "{} at the bottom", "the {} at the bottom", "lower {}", "bottommost {}"),
    "largest": ("largest {}", "biggest {}", "the big {}", "the largest {}", "large {}"),
    "smallest": ("smallest {}", "the small {}", "the smallest {}", "small {}", "tiniest {}"),
    "nearest": ("nearest {}", "closest {}", "the {} in front", "{} closest to the camera"),
    "middle": ("middle {}", "{} in the middle", "the {} in the center", "center {}"),
}


@dataclass(frozen=True)
class Instance:
    """Where an instance is, in units of the image: centre, area and lower edge in 0..1."""

    x: float
    y: float
    area: float
    bottom: float


def describe(mask: np.ndarray) -> Instance:
    """Of a (h, w) bool mask with at least one pixel."""
    ys, xs = np.nonzero(mask)
    h, w = mask.shape
    return Instance((xs.mean() + 0.5) / w, (ys.mean() + 0.5) / h, len(xs) / (h * w), (ys.max() + 1) / h)


def places_of(target: int, instances: list[Instance], margin: float = 0.08) -> list[str]:
    """The words of `PLACES` that clearly pick out one of several instances of a class."""
    me, others = instances[target], [o for i, o in enumerate(instances) if i != target]
    if not others:
        return []
    found = []
    if all(me.x < o.x - margin for o in others):
        found.append("left")
    if all(me.x > o.x + margin for o in others):
        found.append("right")
    if all(me.y < o.y - margin for o in others):
        found.append("top")
    if all(me.y > o.y + margin for o in others):
        found.append("bottom")
    if all(me.area > 1.5 * o.area for o in others):
        found.append("largest")
        if all(me.bottom > o.bottom - 0.02 for o in others):
            found.append("nearest")
    if all(1.5 * me.area < o.area for o in others):
        found.append("smallest")
    between = any(o.x < me.x - margin for o in others) and any(o.x > me.x + margin for o in others)
    if between and all(abs(me.x - 0.5) < abs(o.x - 0.5) - margin / 2 for o in others):
        found.append("middle")
    return found


def expression(name: str, places: list[str], rng: np.random.Generator) -> str:
    """A phrase: the name alone, or with one of the places."""
    if places:
        place = places[int(rng.integers(len(places)))]
        forms = PLACES[place]
        return forms[int(rng.integers(len(forms)))].format(name)
    return NAME_FORMS[int(rng.integers(len(NAME_FORMS)))].format(name)
