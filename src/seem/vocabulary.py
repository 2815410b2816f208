"""Names the model is asked about when the user gives none: COCO's 133 panoptic categories.

COCO's own spelling ("wall-other-merged") is kept beside a name that a person, and a text encoder, understands.
Names and ids: Lin et al., "Microsoft COCO", arXiv 1405.0312; Kirillov et al., "Panoptic Segmentation",
arXiv 1801.00868.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_NAMES = 1000
MAX_NAME_LENGTH = 200
OTHERS = "others"


@dataclass(frozen=True)
class Category:
    """One name that a region may get.

    Attributes:
        name: what is shown and what the text encoder reads.
        is_thing: True for countable objects, False for stuff such as sky (regions of one stuff name are merged).
        coco_id: the id in COCO's panoptic files, None for a user's own name.
        coco_name: COCO's spelling, None for a user's own name.
    """

    name: str
    is_thing: bool = True
    coco_id: int | None = None
    coco_name: str | None = None


_THINGS = """
1 person|2 bicycle|3 car|4 motorcycle|5 airplane|6 bus|7 train|8 truck|9 boat|10 traffic light|11 fire hydrant
13 stop sign|14 parking meter|15 bench|16 bird|17 cat|18 dog|19 horse|20 sheep|21 cow|22 elephant|23 bear|24 zebra
25 giraffe|27 backpack|28 umbrella|31 handbag|32 tie|33 suitcase|34 frisbee|35 skis|36 snowboard|37 sports ball|38 kite
39 baseball bat|40 baseball glove|41 skateboard|42 surfboard|43 tennis racket|44 bottle|46 wine glass|47 cup|48 fork
49 knife|50 spoon|51 bowl|52 banana|53 apple|54 sandwich|55 orange|56 broccoli|57 carrot|58 hot dog|59 pizza|60 donut
61 cake|62 chair|63 couch|64 potted plant|65 bed|67 dining table|70 toilet|72 tv|73 laptop|74 mouse|75 remote
76 keyboard|77 cell phone|78 microwave|79 oven|80 toaster|81 sink|82 refrigerator|84 book|85 clock|86 vase|87 scissors
88 teddy bear|89 hair drier|90 toothbrush
"""

_STUFF = """
92 banner|93 blanket|95 bridge|100 cardboard|107 counter|109 curtain|112 door-stuff=door|118 floor-wood=wooden floor
119 flower|122 fruit|125 gravel|128 house|130 light|133 mirror-stuff=mirror|138 net|141 pillow|144 platform
145 playingfield=playing field|147 railroad|148 river|149 road|151 roof|154 sand|155 sea|156 shelf|159 snow|161 stairs
166 tent|168 towel|171 wall-brick=brick wall|175 wall-stone=stone wall|176 wall-tile=tiled wall
177 wall-wood=wooden wall|178 water-other=water|180 window-blind=window blind|181 window-other=window
184 tree-merged=tree|185 fence-merged=fence
186 ceiling-merged=ceiling|187 sky-other-merged=sky|188 cabinet-merged=cabinet|189 table-merged=table
190 floor-other-merged=floor|191 pavement-merged=pavement|192 mountain-merged=mountain|193 grass-merged=grass
194 dirt-merged=dirt|195 paper-merged=paper|196 food-other-merged=food|197 building-other-merged=building
198 rock-merged=rock|199 wall-other-merged=wall|200 rug-merged=rug
"""


def _parse(table: str, is_thing: bool) -> tuple[Category, ...]:
    categories = []
    for entry in table.strip().replace("\n", "|").split("|"):
        number, names = entry.split(" ", 1)
        coco_name, _, name = names.partition("=")
        categories.append(Category(name or coco_name, is_thing, int(number), coco_name))
    return tuple(categories)


COCO_THINGS: tuple[Category, ...] = _parse(_THINGS, is_thing=True)
"""The 80 countable categories, in COCO's order."""
COCO_PANOPTIC: tuple[Category, ...] = COCO_THINGS + _parse(_STUFF, is_thing=False)
"""All 133 categories: the 80 things, then the 53 kinds of stuff, in COCO's order."""
COCO_THING_NAMES: tuple[str, ...] = tuple(category.name for category in COCO_THINGS)
COCO_PANOPTIC_NAMES: tuple[str, ...] = tuple(category.name for category in COCO_PANOPTIC)

VocabularyLike = Iterable["str | tuple[str, str] | Category"]


def parse_vocabulary(vocabulary: VocabularyLike | None) -> tuple[Category, ...]:
    """Turn what a user writes into categories; None means COCO's 133.

    Args:
        vocabulary: names ("dog", a thing), pairs (("grass", "stuff") or ("dog", "thing")), or `Category` objects.

    Raises:
        TypeError: if it is one string instead of a list of names, or an entry is neither a name nor a pair.
        ValueError: if it is empty, longer than 1000 names, or has an empty, overlong or repeated name.

    Example:
        >>> [(c.name, c.is_thing) for c in parse_vocabulary(["dog", ("grass", "stuff")])]
        [('dog', True), ('grass', False)]
    """
    if vocabulary is None:
        return COCO_PANOPTIC
    if isinstance(vocabulary, str) or not isinstance(vocabulary, Iterable):
        raise TypeError(f"vocabulary: expected a list of names, got {vocabulary!r}")
    categories: list[Category] = []
    for entry in vocabulary:
        categories.append(_parse_entry(entry))
        if len(categories) > MAX_NAMES:
            raise ValueError(f"vocabulary: expected at most {MAX_NAMES} names, got more")
    if not categories:
        raise ValueError("vocabulary: expected at least one name, got none")
    seen: set[str] = set()
    for category in categories:
        if category.name.casefold() in seen:
            raise ValueError(f"vocabulary: expected each name once, got {category.name!r} twice")
        seen.add(category.name.casefold())
    return tuple(categories)


def _parse_entry(entry: object) -> Category:
    if isinstance(entry, Category):
        return entry
    kind: object = "thing"
    if isinstance(entry, (tuple, list)) and len(entry) == 2:
        entry, kind = entry
    if not isinstance(entry, str) or not isinstance(kind, str):
        raise TypeError(f'vocabulary: expected a name or (name, "stuff"), got {entry!r}')
    if kind not in ("thing", "stuff"):
        raise ValueError(f'vocabulary: expected "thing" or "stuff" beside {entry!r}, got {kind!r}')
    name = " ".join(entry.split())
    if not name or len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"vocabulary: expected names of 1 to {MAX_NAME_LENGTH} characters, got {entry[:50]!r}")
    return Category(name, kind == "thing")
