"""Other words for COCO's names, and names of their kinds: "sofa" is a couch, "puppy" and "poodle" are dogs.

A model learns the names that its data bear. WordNet (Fellbaum 1998) says which further words belong to them;
`benchmarks/make_kinds.py` made the table.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from seem.vocabulary import COCO_PANOPTIC_NAMES

KINDS_FILE = Path(__file__).with_name("kinds.json")


class Kind(NamedTuple):
    """What a word belongs to.

    Attributes:
        name: one of COCO's 133.
        learned: the default model has seen regions of that very name, so its own embedding is worth most.
    """

    name: str
    learned: bool


def kind_of(phrase: str) -> Kind | None:
    """The COCO name that a phrase means or is a kind of; None if it is not such a word, or is itself such a name.

    >>> kind_of("a puppy"), kind_of("Lorries"), kind_of("dog")
    (Kind(name='dog', learned=False), Kind(name='truck', learned=False), None)
    """
    table = _table()
    words = re.sub(r"^(an?|the)\s+", "", " ".join(phrase.casefold().split()))
    if words in COCO_PANOPTIC_NAMES:  # "skis" is a name, not the plural of another word
        return None
    for word in (words, *_singulars(words)):
        if word in table:
            return table[word]
    return None


def _singulars(word: str) -> list[str]:
    endings = (("ies", "y"), ("es", ""), ("s", ""))
    return [word.removesuffix(plural) + single for plural, single in endings if word.endswith(plural)]


@cache
def _table() -> dict[str, Kind]:
    read = json.loads(KINDS_FILE.read_text())
    parts = (("words", False), ("learned", True))
    return {
        word: Kind(name, learned) for part, learned in parts for name, words in read[part].items() for word in words
    }
