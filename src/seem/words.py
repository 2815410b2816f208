"""English plurals and articles, as far as the names of data sets and what people ask for need them."""

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
    before, noun = _parts(name)
    if noun in _IRREGULAR:
        return before + _IRREGULAR[noun]
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return name + "es"
    return name[:-1] + "ies" if re.search(r"[^aeiou]y$", noun) else name + "s"


def singular(name: str) -> str:
    """The singular of a name, whose last word is the noun; a name in the singular stays as it is.

    >>> singular("teddy bears"), singular("buses"), singular("puppies"), singular("glass")
    ('teddy bear', 'bus', 'puppy', 'glass')
    """
    before, noun = _parts(name)
    if noun in _SINGULAR:
        return before + _SINGULAR[noun]
    if noun in _IRREGULAR or re.search(r"(?:ss|us|is)$", noun):
        return name
    if re.search(r"(?:ss|x|z|ch|sh|us)es$", noun):
        return name[:-2]
    if re.search(r"..ies$", noun):
        return name[:-3] + "y"
    return name.removesuffix("s")


def _parts(name: str) -> tuple[str, str]:
    """What stands before the noun, and the noun."""
    before, space, noun = name.rpartition(" ")
    return before + space, noun


def bare(phrase: str) -> str:
    """In small letters, with single spaces and without an article.

    >>> bare("The  Dog")
    'dog'
    """
    return re.sub(r"^(an?|the) ", "", " ".join(phrase.casefold().split()))
