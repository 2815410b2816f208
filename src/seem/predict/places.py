"""Phrases with a place: "the dog on the left" is the leftmost of what "dog" names.

The network learns what a name looks like; which of several bears a place is geometry, and geometry is exact. So a
phrase that is a name and a place is answered in two steps: find every instance of the name, then choose among them.
Of a phrase with any other relation ("the dog behind the sofa") that is to give one mask the name is looked for: an
embedding of the whole sentence is as near to sofas as to dogs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seem.words import bare, singular


class Place(NamedTuple):
    """A phrase taken apart.

    Attributes:
        name: what is meant, without articles.
        word: "left", "right", "top", "bottom", two of them such as "top left", "largest", "smallest", "nearest",
            "farthest", "middle".
        rank: 1 for the first in that direction, 2 for "second from the left" and so on.
    """

    name: str
    word: str
    rank: int = 1


_SIDES = {
    "left": "left", "leftmost": "left", "left-most": "left", "left hand": "left", "left-hand": "left",
    "far left": "left", "right": "right", "rightmost": "right", "right-most": "right", "right hand": "right",
    "right-hand": "right", "far right": "right", "top": "top", "topmost": "top", "upper": "top", "uppermost": "top",
    "highest": "top", "bottom": "bottom", "bottommost": "bottom", "lower": "bottom", "lowest": "bottom",
    "top left": "top left", "upper left": "top left", "top right": "top right", "upper right": "top right",
    "bottom left": "bottom left", "lower left": "bottom left", "bottom right": "bottom right",
    "lower right": "bottom right",
}  # fmt: skip
_BEFORE = _SIDES | {
    "large": "largest", "big": "largest", "small": "smallest",
    "largest": "largest", "biggest": "largest", "bigger": "largest", "larger": "largest", "smallest": "smallest",
    "tiniest": "smallest", "smaller": "smallest", "nearest": "nearest", "closest": "nearest", "nearer": "nearest",
    "closer": "nearest", "farthest": "farthest", "furthest": "farthest", "middle": "middle", "center": "middle",
    "centre": "middle", "central": "middle",
}  # fmt: skip
_BEHIND = {
    "front": "nearest", "foreground": "nearest", "back": "farthest", "background": "farthest", "middle": "middle",
    "center": "middle", "centre": "middle",
}  # fmt: skip
_RANKS = {"second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4}


def _any(words: Sequence[str]) -> str:
    return "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))


_PICTURE = r"(?: of the (?:image|picture|photo|frame))?"
_ONE_OF = re.compile(rf"(?P<place>{_any([*_BEFORE])}) one (?:of|among) (?:the )?(?P<name>.+)")
_RANKED = re.compile(
    rf"(?P<rank>{_any([*_RANKS])}) (?P<name>.+?) (?:from|on) the (?P<place>left|right|top|bottom){_PICTURE}"
    rf"|(?P<name2>.+?) (?P<rank2>{_any([*_RANKS])}) from (?:the )?(?P<place2>left|right|top|bottom){_PICTURE}"
)
_AFTER = re.compile(
    rf"(?P<name>.+?)(?: that is| which is)? (?:on|at|to|in|towards?) (?:the )?(?P<place>{_any([*_SIDES, *_BEHIND])})"
    rf"(?: side| corner| part| edge)?{_PICTURE}"
)
_CAMERA = re.compile(r"(?P<name>.+?) (?P<place>nearest|closest|nearer|closer|farthest|furthest) (?:to|from) (?:the )?"
                     r"(?:camera|viewer|us|me)")  # fmt: skip
_PREFIX = re.compile(rf"(?P<place>{_any([*_BEFORE])}) (?P<name>.+)")
_RELATIONS = (
    "that", "which", "who", "whose", "whom", "where", "with", "without", "in", "on", "at", "near", "next", "behind",
    "beside", "besides", "under", "underneath", "below", "above", "over", "between", "among", "against", "along", "by",
    "from", "to", "inside", "outside", "across", "around", "through", "is", "are", "has", "have", "not", "being",
    "wearing", "holding", "carrying", "riding", "sitting", "standing", "lying", "laying", "walking", "running",
    "eating", "drinking", "looking", "facing", "leaning", "hanging", "playing", "watching", "talking", "using",
    "taking", "having", "flying", "driving", "parked", "covered", "surrounded", "located", "placed", "seated",
    "obscured", "partially", "partly", "mostly", "nearest", "closest", "farthest", "furthest",
)  # fmt: skip
_RELATED = re.compile(rf"^(?P<name>.+?)(?:,| (?:{_any(_RELATIONS)})\b)")


def parse_place(phrase: str) -> Place | None:
    """A phrase that is a name with one place, or None.

    >>> parse_place("the second dog from the left")
    Place(name='dog', word='left', rank=2)
    >>> parse_place("Largest one of the buses").word, parse_place("a dog behind the sofa")
    ('largest', None)
    """
    text = _plain(phrase)
    if match := _RANKED.fullmatch(text):
        rank = _RANKS[match["rank"] or match["rank2"]]
        return _place(match["name"] or match["name2"], match["place"] or match["place2"], rank)
    if match := _ONE_OF.fullmatch(text):
        return _place(singular(match["name"]), _BEFORE[match["place"]])
    if match := _CAMERA.fullmatch(text):
        return _place(match["name"], _BEFORE[match["place"]])
    if match := _AFTER.fullmatch(text):
        return _place(match["name"], _SIDES.get(match["place"]) or _BEHIND[match["place"]])
    if match := _PREFIX.fullmatch(text):
        return _place(match["name"], _BEFORE[match["place"]])
    return None


def _place(name: str, word: str, rank: int = 1) -> Place | None:
    plain = bare(name)
    # two places, or a relation to something else, are not one name and one place
    if not plain or re.search(rf"\b(?:{_any([*_BEFORE])}|from|of|behind|beside|near|under|above|with)\b", plain):
        return None
    return Place(plain, word, rank)


def _plain(phrase: str) -> str:
    return bare(" ".join(phrase.split()).strip(" .,!"))


def main_name(phrase: str) -> str:
    """What a phrase is about, without what it says of it; a phrase without a relation stays as it is.

    >>> main_name("the red car that is parked behind the bus"), main_name("a man, not in a hat"), main_name("Stop sign")
    ('red car', 'man', 'Stop sign')
    """
    text = _plain(phrase)
    match = _RELATED.match(text)
    return match["name"] if match else phrase


def choose(place: Place, masks: Sequence[np.ndarray]) -> int | None:
    """Which of several masks a place means.

    Args:
        place: of `parse_place`.
        masks: (h, w) bool each, none empty, all of one size.

    Returns:
        An index, or None if there are not enough masks for it.
    """
    if len(masks) < max(2, place.rank):
        return None
    height, width = masks[0].shape
    pixels = [np.nonzero(mask) for mask in masks]
    x = np.array([(columns.mean() + 0.5) / width for _, columns in pixels])
    y = np.array([(rows.mean() + 0.5) / height for rows, _ in pixels])
    area = np.array([len(rows) / (height * width) for rows, _ in pixels])
    foot = np.array([(rows.max() + 1) / height for rows, _ in pixels])
    value = {
        "left": x,
        "right": -x,
        "top": y,
        "bottom": -y,
        "top left": x + y,
        "top right": y - x,
        "bottom left": x - y,
        "bottom right": -x - y,
        "largest": -area,
        "smallest": area,
        # what is nearer looks larger and stands lower
        "nearest": -np.sqrt(area) - 0.5 * foot,
        "farthest": np.sqrt(area) + 0.5 * foot,
        "middle": np.hypot(x - np.median(x), y - np.median(y)) + 1e-3 * np.abs(x - 0.5),
    }[place.word]
    return int(np.argsort(value, kind="stable")[place.rank - 1])
