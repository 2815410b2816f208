"""RefCOCO, RefCOCO+ and RefCOCOg (Yu et al., arXiv 1608.00272): sentences that mean one object of a COCO photo.

The sentences are published as a pickle, `refs(unc).p`. A pickle can run code when it is opened, so only those that hold
nothing but lists, dicts, sets, text and numbers are read; the same as JSON is read too.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from seem.data.coco import CocoFile, PhotoFinder, as_key, coco_records, entry_of
from seem.data.records import Record, RecordError, Repairs, Rules, read_json

TRAIN = "train"


def read_refcoco(
    name: str,
    refs: Path,
    index: Path,
    images: Path | Sequence[Path],
    split: str = TRAIN,
    rules: Rules | None = None,
    repairs: Repairs | None = None,
) -> Iterator[Record]:
    """Records of the photos that have sentences of a split, with all their objects; `phrases` stand at theirs.

    Args:
        name: of the set; ids are "NAME/FILE".
        refs: `refs(….).p` or the same as JSON.
        index: the instances JSON.
        images: folder, or folders, that COCO's photos may lie in.
        split: "train", "val", "test", "testA", "testB" or "all". For "train", photos that also have sentences of
            another split (the google split of RefCOCOg has them) are left out.

    Raises:
        RecordError: names the file and the ref that is wrong; or no ref is of this split.
    """
    rules, repairs = rules or Rules(), repairs if repairs is not None else Repairs()
    file = CocoFile.read(index, repairs)
    chosen = _add_phrases(refs, file, split, repairs)
    file = replace(file, images={key: entry for key, entry in file.images.items() if key in chosen})
    for _, record in coco_records(name, file, PhotoFinder(images), rules, repairs):
        yield record


def _add_phrases(path: Path, file: CocoFile, split: str, repairs: Repairs) -> set[str]:
    """Write a split's sentences into the file's annotations; returns the ids of its images."""
    annotations = {as_key(a.get("id")): a for found in file.annotations.values() for a in found}
    splits: dict[str, set[str]] = defaultdict(set)
    for position, ref in enumerate(read_refs(path)):
        image = entry_of(path, "ref", position, ref, "image_id")
        label = f"ref {ref.get('ref_id', f'number {position}')}"
        annotation = annotations.get(as_key(ref.get("ann_id")))
        if image not in file.images or annotation is None or as_key(annotation["image_id"]) != image:
            raise RecordError(f"{path}: {label}: {file.path} has no annotation {ref.get('ann_id')} of image {image}")
        splits[str(ref.get("split"))].add(image)
        if split not in ("all", ref.get("split")):
            continue
        said = sentences_of(path, label, ref)
        if not said:
            repairs.note("ref without a sentence", label)
        annotation["phrases"] = [*annotation.get("phrases", []), *said]
    if split == "all":
        return set().union(*splits.values())
    if split not in splits:
        raise RecordError(f"{path}: no ref of split {split!r}; got {', '.join(sorted(splits)) or 'none'}")
    if split != TRAIN:
        return splits[split]
    tested = set().union(*(found for part, found in splits.items() if part != TRAIN))
    for image in sorted(splits[TRAIN] & tested):
        repairs.note("photo of train with sentences of another split: left out", f"image {image}")
    return splits[TRAIN] - tested


def sentences_of(path: Path, label: str, ref: dict[str, Any]) -> list[str]:
    """What was said about a ref's object, blanks left out. Raises RecordError."""
    stated = ref.get("sentences")
    texts: list[Any] = [s.get("sent", s.get("raw")) if isinstance(s, dict) else s for s in stated or ()]
    if not isinstance(stated, list) or not all(isinstance(t, str) for t in texts):
        raise RecordError(f"{path}: {label}: expected sentences with their text, got {str(stated)[:60]}")
    return [t.strip() for t in texts if t.strip()]


# ---- the file of sentences ----------------------------------------------------------------------------------------


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, text and numbers; anything that would be looked up by name, and so could run, is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only plain lists, dicts and text are read")


def read_refs(path: Path) -> list[dict[str, Any]]:
    """The refs of a pickle of plain values, as Python 2 or 3 wrote it, or of a JSON file.

    Raises:
        RecordError: not a list of refs, or a pickle that holds anything else than plain values.
    """
    if path.suffix == ".json":
        refs = read_json(path)
    else:
        try:
            with path.open("rb") as file:
                refs = _PlainUnpickler(file, encoding="utf-8").load()
        except Exception as error:  # a broken pickle raises nearly anything
            raise RecordError(f"{path}: not readable as a pickle of plain values: {error}") from None
    if isinstance(refs, dict):
        refs = refs.get("refs")
    if not isinstance(refs, list):
        raise RecordError(f"{path}: expected a list of refs, got {str(refs)[:60]}")
    return refs
