"""English plurals, as far as the names of data sets and what people ask for need them."""

from __future__ import annotations

import re

_IRREGULAR = {"person": "people", "mouse": "mice", "knife": "knives", "man": "men", "woman": "women",
              "child": "children", "leaf": "leaves", "shelf": "shelves", "loaf": "loaves", "calf": "calves",
              "foot": "feet", "tooth": "teeth", "goose": "geese", "sheep": "sheep", "fish": "fish",
              "scissors": "scissors", "skis": "skis", "stairs": "stairs", "bus": "buses",
              "glass": "glasses"}  # fmt: skip
_SINGULAR = {many: one for one, many in _IRREGULAR.items()}


def plural(name: str) -> str:
    """The plural of a name, whose last word is the noun.

    >>> plural("teddy bear"), plural("bus"), plural("puppy"), plural("person")
    ('teddy bears', 'buses', 'puppies', 'people')
    """
    first, space, last = name.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif re.search(r"(s|x|z|ch|sh)$", last):
        last += "es"
    elif re.search(r"[^aeiou]y$", last):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return first + space + last


def singular(name: str) -> str:
    """The singular of a name, whose last word is the noun; a name in the singular stays as it is.

    >>> singular("teddy bears"), singular("buses"), singular("puppies"), singular("glass")
    ('teddy bear', 'bus', 'puppy', 'glass')
    """
    first, space, last = name.rpartition(" ")
    if last in _SINGULAR:
        last = _SINGULAR[last]
    elif last in _IRREGULAR:
        pass
    elif re.search(r"(?:ss|x|z|ch|sh|us)es$", last):
        last = last[:-2]
    elif re.search(r"..ies$", last):
        last = last[:-3] + "y"
    elif last.endswith("s") and not re.search(r"(?:ss|us|is)$", last):
        last = last[:-1]
    return first + space + last
