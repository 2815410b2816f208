"""The training sets that the default model learns from: one row each, and how a folder becomes records.

`NOTICE` and the model card name their sources and terms. A folder that is not in the table is read by its layout.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seem.data import ade20k
from seem.data.layouts import EXPECTED, default_rules, find_layout, read_dataset
from seem.data.leaks import find_leaks
from seem.data.records import IMAGE_SUFFIXES, Record, RecordError, Repairs, Rules, write_records

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
        TrainingSet("duts_tr", Rules(dev=evenly(150)), photos=10400),
        TrainingSet("ade20k_val", ade20k.RULES, photos=2000),
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
    roots: Sequence[Path],
    out: Path,
    *,
    complete: bool = False,
    layout: str = "auto",
    split: str | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, int]:
    """Write OUT/SET.jsonl for every set found, OUT/dev_split.json and OUT/leaks.json.

    Args:
        roots: folders that hold sets of the table by name, or that are a data set themselves, in any layout.
        complete: of a folder that is not in the table: every instance of COCO's 80 classes is annotated.
        layout, split: of folders that are a data set themselves, as `read_dataset` takes them.
        report: is given a line a set, and a line for every kind of repair.

    Returns:
        Photos written, by set.

    Raises:
        RecordError: a file or record that cannot be used, or nothing to read in any folder.
    """
    tests = held_out_photos(roots)
    counts, leaks, dev = {}, [], {}
    for row, folder, found in _found(roots, complete, layout):
        name, repairs = row.name, Repairs()
        kept = read_set(row, folder, repairs, found, split)
        leaked = find_leaks({r["id"]: Path(r["image"]) for r in kept}, tests)
        leaks += leaked
        remove = {leak.train for leak in leaked}
        kept = [r for r in kept if r["id"] not in remove]
        counts[name] = write_records(kept, out / f"{name}.jsonl")
        if any(r["dev"] for r in kept):
            dev[name] = sorted(r.get("coco_id", r["id"].split("/", 1)[1]) for r in kept if r["dev"])
        objects = sum(len(r["objects"]) for r in kept)
        report(f"{name}: {counts[name]} photos, {objects} objects, {len(remove)} leaks removed")
        for line in repairs.lines():
            report(f"{name}: repaired {line}")
    if not counts:
        raise RecordError(f"{', '.join(map(str, roots))}: no known set; expected {EXPECTED}")
    (out / "dev_split.json").write_text(json.dumps(dev, indent=1) + "\n")
    (out / "leaks.json").write_text(json.dumps([leak.to_json() for leak in leaks], indent=1) + "\n")
    return counts


def _found(roots: Sequence[Path], complete: bool, given: str) -> Iterator[tuple[TrainingSet, Path, str]]:
    """Every set with its folder and layout."""
    for root in roots:
        if not root.is_dir():
            raise RecordError(f"{root}: no such folder")
        layout = find_layout(root) if given == "auto" else given
        if layout is not None:
            own = replace(default_rules(layout), complete=complete)
            yield SETS.get(root.name, TrainingSet(root.resolve().name, own)), root, layout
            continue
        for row in SETS.values():
            if (root / row.name).is_dir():
                yield row, root / row.name, "auto"


def read_set(
    row: TrainingSet, folder: Path, repairs: Repairs | None = None, layout: str = "auto", split: str | None = None
) -> list[Record]:
    """The records of one set, in the order of their ids.

    Args:
        row: of the table, or made for a folder of one's own.
        folder: where the set lies; `REFERRING` lies beside it, for a row that must leave its images out.
        repairs: is told what was put right.
        layout, split: as `read_dataset` takes them.

    Raises:
        RecordError: a file or record that cannot be used.
    """
    rules = row.rules
    if row.not_referring:
        banned = _referring_images(folder.parent / REFERRING)
        rules = replace(rules, keep=lambda image: image.get("id") not in banned)
    records = list(read_dataset(folder, layout, split, name=row.name, rules=rules, repairs=repairs))
    records.sort(key=lambda r: str(r["id"]))
    if row.photos is None:
        return records
    dev = [r for r in records if r["dev"]]
    train = [r for r in records if not r["dev"]]
    drawn = random.Random(0).sample(train, min(row.photos, len(train)))
    return sorted(dev + drawn, key=lambda r: str(r["id"]))


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
