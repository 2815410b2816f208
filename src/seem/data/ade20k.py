"""ADE20K scene parsing (Zhou et al., CVPR 2017): a class number for every pixel, 0 unlabelled, 150 names.

images/{training,validation}/STEM.jpg and annotations/{training,validation}/STEM.png; the names stand in
objectInfo150.txt, or in names.json (a list, or number -> name) or names.txt (one a line).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from seem.data.masks import fit, label_map_objects, read_names, read_numbers
from seem.data.records import Record, RecordError, Rules, find_photos, make_record, read_header, read_json

SPLITS = {"train": "training", "val": "validation"}
NAME_FILES = ("objectInfo150.txt", "names.json", "names.txt")
# fmt: off
STUFF = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "grass", "sidewalk", "earth", "mountain", "plant",
    "curtain", "water", "sea", "field", "fence", "rock", "railing", "sand", "skyscraper", "grandstand", "path",
    "stairs", "runway", "stairway", "river", "hill", "dirt track", "land", "bannister", "stage", "swimming pool",
    "waterfall", "lake", "pier", "escalator", "step", "food", "base",
)
# fmt: on
NAMES = {  # as people would say them
    "windowpane": "window",
    "earth": "ground",
    "signboard": "sign",
    "plaything": "toy",
    "apparel": "clothes",
    "minibike": "motorbike",
    "ashcan": "trash can",
    "conveyer belt": "conveyor belt",
    "hovel": "hut",
    "glass": "drinking glass",
    "hood": "range hood",
    "base": "pedestal",
    "case": "display case",
    "palm": "palm tree",
    "cradle": "crib",
    "bannister": "banister",
    "trade name": "brand sign",
    "tank": "storage tank",
    "blind": "window blind",
    "step": "stair step",
    "washer": "washing machine",
    "television": "tv",
    "bar": "bar counter",
}
RULES = Rules(kinds=dict.fromkeys(STUFF, "stuff"), names=NAMES)


def read_ade20k(name: str, root: Path, split: str = "train", rules: Rules = RULES) -> Iterator[Record]:
    """Records with a region for every name in a photo; unlabelled pixels are ignored.

    Args:
        name: of the set; ids are "NAME/STEM".
        root: the folder with images/ and annotations/.
        split: "train", "val", or a folder of annotations/; "all" for every one.

    Raises:
        RecordError: names the photo or annotation that is wrong.
    """
    names = _names(root)
    known = [rules.display(n) for n in names.values()]
    pairs = [pair for part in _parts(root, split) for pair in _pairs(root, part)]
    stems = [stem for stem, _, _ in pairs]
    for stem, photo, path in pairs:
        header = read_header(photo)
        pixels = fit(path, read_numbers(path), header)
        objects, unknown = label_map_objects(path, pixels, names, rules)
        dev = rules.dev({"stem": stem, "stems": stems})
        yield make_record(
            name, stem, photo, header.size, objects, complete=rules.complete, dev=dev, annotated=known, ignore=unknown
        )


def _parts(root: Path, split: str) -> list[str]:
    """Folders below images/ and annotations/; "" where the files lie there directly."""
    folders = sorted(p.name for p in (root / "annotations").iterdir() if p.is_dir())
    if not folders:
        return [""]
    wanted = SPLITS.get(split, split)
    if split != "all" and wanted not in folders:
        raise RecordError(f"{root / 'annotations'}: no folder {wanted!r}; got {', '.join(folders)}")
    return folders if split == "all" else [wanted]


def _pairs(root: Path, part: str) -> list[tuple[str, Path, Path]]:
    photos, masks = (find_photos(root / kind / part) for kind in ("images", "annotations"))
    for stem, path in masks.items():
        if stem not in photos:
            raise RecordError(f"{path}: no photo of this name in {root / 'images' / part}")
    return [(stem, photos[stem], path) for stem, path in masks.items()]


def _names(root: Path) -> dict[int, str]:
    path = next((root / f for f in NAME_FILES if (root / f).is_file()), None)
    if path is None:
        raise RecordError(f"{root}: expected {', '.join(NAME_FILES[:-1])} or {NAME_FILES[-1]} with the names")
    if path.suffix == ".json":
        data = read_json(path)
        return read_names(path, data.get("values", data) if isinstance(data, dict) else data)
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not readable: {error}") from None
    if path.name == "names.txt":
        return read_names(path, [line.strip() for line in lines])
    columns = [[c.strip() for c in re.split(r"\t+| {2,}", line.strip())] for line in lines]
    names = {int(c[0]): re.split("[,;]", c[-1])[0] for c in columns if c[0].isdigit() and len(c) > 1}
    if not names:
        raise RecordError(f"{path}: expected lines of a number, columns and a name")
    return names
