"""The training sets that the default model learns from: one row each, and how a folder becomes records.

`NOTICE` and the model card name their sources and terms. A folder that is not in the table is read by its layout.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seem.data.leaks import find_leaks
from seem.data.records import IMAGE_SUFFIXES, Record, RecordError, Rules, read_coco, read_masks, write_records

TESTS = ("grabcut/images", "davis16_val/JPEGImages/480p")  # photos that no training set may hold; and coco_mini's val
VIDEO_STEP = 10  # neighbouring frames look alike
REFERRING = "refcocos_text/refcocos.json"  # its images are for testing only


@dataclass(frozen=True)
class TrainingSet:
    """One row of the table.

    Attributes:
        name: of the folder and of the records file.
        rules: what the layout does not say.
        photos: how many are used at most, drawn with a fixed seed; reading features costs 0.6 s and 3.5 MB a photo.
        not_referring: leave out the images of `REFERRING`.
    """

    name: str
    rules: Rules = field(default_factory=Rules)
    photos: int | None = None
    not_referring: bool = False


def evenly(count: int) -> Callable[[Mapping[str, Any]], bool]:
    """A development split: ``count`` names evenly spaced among all, in order."""

    def chosen(photo: Mapping[str, Any]) -> bool:
        stems: Sequence[str] = photo["stems"]
        return photo["stem"] in {stems[k * len(stems) // count] for k in range(count)}

    return chosen


_COCO = Rules(complete=True, human_boxes=True)
_MSRC_STUFF = ("grass", "tree", "building", "sky", "water", "road", "mountain")
# fmt: off
_ADE_STUFF = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "grass", "sidewalk", "earth", "mountain", "plant",
    "curtain", "water", "sea", "field", "fence", "rock", "railing", "sand", "skyscraper", "grandstand", "path",
    "stairs", "runway", "stairway", "river", "hill", "dirt track", "land", "bannister", "stage", "swimming pool",
    "waterfall", "lake", "pier", "escalator", "step", "food", "base",
)
# fmt: on
_ADE_NAMES = {  # ADE20K's names as people would say them
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

SETS: dict[str, TrainingSet] = {
    s.name: s
    for s in (
        TrainingSet(
            "coco_mini",
            replace(_COCO, keep=lambda i: i.get("split") == "train2017", dev=lambda i: i["id"] % 5 == 0),
        ),
        TrainingSet("coco_boxes", _COCO, not_referring=True),
        TrainingSet("coco_extra", _COCO),
        TrainingSet("ecssd", Rules(dev=evenly(50))),
        TrainingSet("duts_tr", Rules(dev=evenly(150)), photos=5000),
        TrainingSet("ade20k_val", Rules(kinds=dict.fromkeys(_ADE_STUFF, "stuff"), names=_ADE_NAMES), photos=1200),
        TrainingSet(
            "msrc_v2",
            Rules(semantic=True, kinds=dict.fromkeys(_MSRC_STUFF, "stuff") | {"face": "part", "body": "part"}),
            photos=250,
        ),
        TrainingSet("animals7"),
        TrainingSet("animals7_rest", photos=200),
        TrainingSet("pets"),
        TrainingSet("pets_more", photos=150),
        TrainingSet("pennfudan", photos=100),
        TrainingSet("via_mix"),
        TrainingSet("voc2007_44"),
        TrainingSet("car_parts", Rules(kind="part"), photos=60),
        TrainingSet("feral_cat", photos=150),
        TrainingSet("facade_night", Rules(kinds=dict.fromkeys(("fence", "street", "vegetation"), "stuff")), photos=80),
        TrainingSet("ccp", Rules(kind="part"), photos=100),
    )
}


def prepare(
    roots: Sequence[Path], out: Path, *, complete: bool = False, report: Callable[[str], None] = print
) -> dict[str, int]:
    """Write OUT/SET.jsonl for every set found, OUT/dev_split.json and OUT/leaks.json.

    Args:
        roots: folders that hold sets of the table by name, or that are a data set themselves.
        complete: of a folder that is not in the table: every instance of COCO's 80 classes is annotated.

    Returns:
        Photos written, by set.

    Raises:
        RecordError: a file or record that cannot be used, or nothing to read in any folder.
    """
    tests = held_out_photos(roots)
    counts, leaks, dev = {}, [], {}
    for name, records in _found(roots, complete):
        kept = list(records)
        leaked = find_leaks({r["id"]: Path(r["image"]) for r in kept}, tests)
        leaks += leaked
        remove = {leak.train for leak in leaked}
        kept = [r for r in kept if r["id"] not in remove]
        counts[name] = write_records(kept, out / f"{name}.jsonl")
        if any(r["dev"] for r in kept):
            dev[name] = sorted(r.get("coco_id", r["id"].split("/", 1)[1]) for r in kept if r["dev"])
        objects = sum(len(r["objects"]) for r in kept)
        report(f"{name}: {counts[name]} photos, {objects} objects, {len(remove)} leaks removed")
    if not counts:
        raise RecordError(f"{', '.join(map(str, roots))}: no known set, no instances JSON and no images/ beside masks/")
    (out / "dev_split.json").write_text(json.dumps(dev, indent=1) + "\n")
    (out / "leaks.json").write_text(json.dumps([leak.to_json() for leak in leaks], indent=1) + "\n")
    return counts


def _found(roots: Sequence[Path], complete: bool) -> Iterator[tuple[str, Iterable[Record]]]:
    for root in roots:
        if not root.is_dir():
            raise RecordError(f"{root}: no such folder")
        own = _layout(root)
        if own is not None:
            known = SETS.get(root.name, TrainingSet(root.resolve().name, Rules(complete=complete)))
            yield known.name, read_set(known, root, root.parent)
            continue
        for row in SETS.values():
            if (root / row.name).is_dir():
                yield row.name, read_set(row, root / row.name, root)


def read_set(row: TrainingSet, folder: Path, root: Path | None = None) -> list[Record]:
    """The records of one set, in the order of their ids.

    Args:
        row: of the table, or made for a folder of one's own.
        folder: where the set lies.
        root: where `REFERRING` lies, for a row that must leave its images out.
    """
    layout = _layout(folder)
    if layout is None:
        raise RecordError(f"{folder}: expected instances*.json or images/ beside masks/")
    rules = row.rules
    if row.not_referring:
        banned = _referring_images((root or folder.parent) / REFERRING)
        rules = replace(rules, keep=lambda image: image.get("id") not in banned)
    if layout == folder:
        records = list(read_masks(row.name, folder, rules))
    else:
        records = list(read_coco(row.name, layout, _image_folder(folder, layout), rules))
    records.sort(key=lambda r: str(r["id"]))
    if row.photos is None:
        return records
    dev = [r for r in records if r["dev"]]
    train = [r for r in records if not r["dev"]]
    drawn = random.Random(0).sample(train, min(row.photos, len(train)))
    return sorted(dev + drawn, key=lambda r: str(r["id"]))


def _layout(folder: Path) -> Path | None:
    """The instances JSON of a COCO folder, the folder itself for images/ beside masks/, None for neither."""
    for place in (folder, folder / "annotations"):
        found = sorted(place.glob("instances*.json"))
        train = [p for p in found if "val" not in p.name] or found
        if len(train) > 1:
            raise RecordError(f"{place}: expected one instances*.json, got {', '.join(p.name for p in train)}")
        if train:
            return train[0]
    return folder if (folder / "images").is_dir() and (folder / "masks").is_dir() else None


def _image_folder(folder: Path, index: Path) -> Path:
    beside = (folder / "images", folder / index.stem.removeprefix("instances_"), folder)
    return next((p for p in beside if p.is_dir()), folder)


def _referring_images(path: Path) -> set[int]:
    try:
        return {int(row["image_id"]) for row in json.loads(path.read_text())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: its images must be left out of training, but it cannot be read: {error}") from None


def held_out_photos(roots: Sequence[Path]) -> dict[str, Path]:
    """The photos of the test sets that lie in any of the folders, by a key."""
    found: dict[str, Path] = {}
    for root in roots:
        for place in TESTS:
            for folder in (root / place, *sorted(p for p in (root / place).glob("*") if p.is_dir())):
                photos = sorted(p for p in folder.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
                step = VIDEO_STEP if folder != root / place else 1
                found |= {p.relative_to(root).as_posix(): p for p in photos[::step]}
        index = root / "coco_mini/instances.json"
        if index.is_file():
            images = json.loads(index.read_text())["images"]
            names = [i["file_name"] for i in images if i.get("split") == "val2017"]
            found |= {f"coco_mini/{n}": root / "coco_mini/images" / n for n in names}
    return found
