"""Words for an object, made from its name, place, size and neighbours: there are no human ones to learn from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from seem.words import plural

# {} is the name, {a} its article, {s} its plural.
NAME_FORMS = ("{}", "{}", "the {}", "{a} {}", "a photo of {a} {}", "{s}")
PLACES = {
    "left": ("left {}", "{} on the left", "the {} on the left", "the {} to the left", "leftmost {}",
             "the leftmost {}", "the left {}", "{} on the left side", "the left one of the {s}"),
    "right": ("right {}", "{} on the right", "the {} on the right", "the {} to the right", "rightmost {}",
              "the rightmost {}", "the right {}", "{} on the right side", "the right one of the {s}"),
    "top": ("top {}", "{} at the top", "the {} at the top", "upper {}", "the upper {}", "topmost {}",
            "the topmost {}", "the highest {}", "the upper one of the {s}"),
    "bottom": ("bottom {}", "{} at the bottom", "the {} at the bottom", "lower {}", "the lower {}", "bottommost {}",
               "the bottommost {}", "the lowest {}", "the lower one of the {s}"),
    "upper left": ("upper left {}", "top left {}", "the {} at the top left", "the {} in the upper left"),
    "upper right": ("upper right {}", "top right {}", "the {} at the top right", "the {} in the upper right"),
    "lower left": ("lower left {}", "bottom left {}", "the {} at the bottom left", "the {} in the lower left"),
    "lower right": ("lower right {}", "bottom right {}", "the {} at the bottom right", "the {} in the lower right"),
    "largest": ("largest {}", "biggest {}", "the big {}", "the largest {}", "the biggest {}", "large {}",
                "largest one of the {s}", "the bigger one of the {s}"),
    "smallest": ("smallest {}", "the small {}", "the smallest {}", "small {}", "tiniest {}",
                 "smallest one of the {s}", "the smaller one of the {s}"),
    "nearest": ("nearest {}", "the nearest {}", "closest {}", "the closest {}", "the {} in front", "front {}",
                "the {} in the foreground", "{} closest to the camera"),
    "farthest": ("farthest {}", "the farthest {}", "the {} in the background", "background {}", "the {} at the back",
                 "{} farthest from the camera"),
    "middle": ("middle {}", "{} in the middle", "the {} in the middle", "the {} in the center", "center {}",
               "the {} between the others"),
    "second from the left": ("second {} from the left", "the second {} from the left", "{} second from left"),
    "second from the right": ("second {} from the right", "the second {} from the right", "{} second from right"),
    "third from the left": ("third {} from the left", "the third {} from the left"),
    "third from the right": ("third {} from the right", "the third {} from the right"),
}  # fmt: skip
RATIO = 1.5  # of areas, for a size to be plain


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
    """The words of `PLACES` that clearly pick out one of several instances of a class.

    ``margin``: by how much centres have to differ, in units of the image's side.
    """
    me, others = instances[target], [o for i, o in enumerate(instances) if i != target]
    if not others:
        return []
    left, right = [o.x < me.x - margin for o in others], [o.x > me.x + margin for o in others]
    above, below = [o.y < me.y - margin for o in others], [o.y > me.y + margin for o in others]
    larger, smaller = [o.area > RATIO * me.area for o in others], [me.area > RATIO * o.area for o in others]
    plain = {
        "left": all(right),
        "right": all(left),
        "top": all(below),
        "bottom": all(above),
        "upper left": _corner(right, below, left, above),
        "upper right": _corner(left, below, right, above),
        "lower left": _corner(right, above, left, below),
        "lower right": _corner(left, above, right, below),
        "largest": all(smaller),
        "smallest": all(larger),
        # what is nearer looks larger and stands lower
        "nearest": all(smaller) and all(me.bottom > o.bottom - 0.02 for o in others),
        "farthest": all(larger) and all(me.bottom < o.bottom - margin / 2 for o in others),
        "middle": any(left) and any(right) and all(abs(me.x - 0.5) < abs(o.x - 0.5) - margin / 2 for o in others),
    }
    apart = all(a or b for a, b in zip(left, right, strict=True))
    for rank, word in ((1, "second"), (2, "third")):
        plain[f"{word} from the left"] = apart and _ordered(left, right, others, rank, margin)
        plain[f"{word} from the right"] = apart and _ordered(right, left, others, rank, margin)
    return [word for word, holds in plain.items() if holds]


def _corner(beyond_x: list[bool], beyond_y: list[bool], before_x: list[bool], before_y: list[bool]) -> bool:
    """Some are beyond me along x and some along y, each along at least one, and none before me."""
    each = all(a or b for a, b in zip(beyond_x, beyond_y, strict=True))
    return each and any(beyond_x) and any(beyond_y) and not any(before_x) and not any(before_y)


def _ordered(before: list[bool], after: list[bool], others: list[Instance], rank: int, margin: float) -> bool:
    """Exactly ``rank`` come before me, one after another with clear gaps, and at least one comes after."""
    xs = sorted(o.x for o, is_before in zip(others, before, strict=True) if is_before)
    return len(xs) == rank and any(after) and all(b - a > margin for a, b in pairwise(xs))


def expression(name: str, places: list[str], rng: np.random.Generator) -> str:
    """A phrase: the name alone, or with one of the places."""
    forms = PLACES[places[int(rng.integers(len(places)))]] if places else NAME_FORMS
    return phrase(forms[int(rng.integers(len(forms)))], name)


def phrase(form: str, name: str) -> str:
    """A form of `NAME_FORMS` or `PLACES` with a name in it."""
    return form.format(name, a="an" if name[:1].lower() in "aeiou" else "a", s=plural(name))


# ---- mirrored photos ----------------------------------------------------------------------------------------------

_SIDE = re.compile(
    r"""
    # what is not a side: "all right", "right now", "left over", and "right behind" unless it is "on the right behind"
    \b(?: all[ ]right (?![ ]of\b)
        | right[ -](?: now | away | there | here | angles? | angled | side[ -]up )
        | left[ -](?: overs? | alone | unattended )
        | (?<!\bon[ ]) (?<!\bto[ ]) (?<!\bthe[ ]) (?<!\bfar[ ]) (?<!\btop[ ]) (?<!\bupper[ ]) (?<!\blower[ ])
          (?<!\bbottom[ ]) (?<!\bfront[ ]) (?<!\bback[ ])
          (?: right[ ](?: next[ ]to | beside | behind | in[ ]front | in[ ]the[ ](?:middle|cent(?:er|re)) | above | below
                        | under | underneath )
            | left[ ]behind )
      )\b
    | \b(?P<side> left | right )(?= (?: most | hand | handed | side | wards? )?\b )
    """,
    re.IGNORECASE | re.VERBOSE,
)


def flip_expression(text: str) -> str:
    """The expression that names the same object in the mirrored photo: left and right change places.

    >>> flip_expression("Leftmost dog, on the right-hand side")
    'Rightmost dog, on the left-hand side'
    >>> flip_expression("the leftover pizza right behind the left cup")
    'the leftover pizza right behind the right cup'
    """
    return _SIDE.sub(_swap, text)


def _swap(match: re.Match[str]) -> str:
    side = match["side"]
    if side is None:
        return match[0]
    other = "right" if side.lower() == "left" else "left"
    return other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other
