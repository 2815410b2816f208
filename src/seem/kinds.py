"""Other words for COCO's names, names of their kinds, and words above them: "sofa" is a couch, "puppy" and "poodle" are
dogs, and a dog is an animal.

A model learns the names that its data bear. WordNet (Fellbaum 1998) says which further words belong to them;
`benchmarks/make_kinds.py` made that table. The words above several names are COCO's own supercategories (Lin et al.,
arXiv 1405.0312) and a few like them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from seem.vocabulary import COCO_PANOPTIC_NAMES
from seem.words import bare, singular

GROUPS = {
    "vehicle": "bicycle, car, motorcycle, airplane, bus, train, truck, boat",
    "animal": "bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe",
    "pet": "cat, dog",
    "food": "banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, fruit",
    "fruit": "banana, apple, orange",
    "vegetable": "broccoli, carrot",
    "furniture": "chair, couch, bed, dining table, table, bench, cabinet, shelf",
    "seat": "chair, couch, bench",
    "appliance": "microwave, oven, toaster, refrigerator",
    "electronics": "tv, laptop, mouse, remote, keyboard, cell phone",
    "bag": "backpack, handbag, suitcase",
    "luggage": "backpack, handbag, suitcase",
    "cutlery": "fork, knife, spoon",
    "tableware": "bottle, wine glass, cup, fork, knife, spoon, bowl",
    "toy": "teddy bear, kite, frisbee",
    "plant": "potted plant, tree, flower, grass",
    "vegetation": "tree, grass, flower, potted plant",
}
OTHERWISE = ("hot dog", "teddy bear")  # not a kind of their last word

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
    words = bare(phrase)
    if words in COCO_PANOPTIC_NAMES:  # "skis" is a name, not the plural of another word
        return None
    return table.get(words) or table.get(singular(words))


def members_of(phrase: str) -> tuple[str, ...]:
    """The COCO names that a word stands for, if it stands for others than itself.

    >>> members_of("pets"), members_of("wall"), members_of("dog")
    (('cat', 'dog'), ('brick wall', 'stone wall', 'tiled wall', 'wooden wall'), ())
    """
    word = singular(bare(phrase))
    listed = set(GROUPS[word].split(", ")) if word in GROUPS else set()
    return tuple(
        name
        for name in COCO_PANOPTIC_NAMES
        if name != word and (name in listed or (name.endswith(f" {word}") and name not in OTHERWISE))
    )


@cache
def _table() -> dict[str, Kind]:
    read = json.loads(KINDS_FILE.read_text())
    parts = (("words", False), ("learned", True))
    return {
        word: Kind(name, learned) for part, learned in parts for name, words in read[part].items() for word in words
    }
