"""RefCOCO: sentences at their objects, splits kept apart, and pickles that cannot run anything."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seem.data.records import RecordError, Repairs, Rules
from seem.data.refcoco import read_refcoco, read_refs
from tests.data.toy import coco, photo, write


def ref(number: int, image: int, annotation: int, split: str, *sentences: Any) -> dict[str, Any]:
    return {
        "ref_id": number, "image_id": image, "ann_id": annotation, "category_id": 1, "split": split,
        "file_name": f"{image}_{number}.jpg", "sent_ids": (1, 2),
        "sentences": [{"sent": s, "raw": s, "tokens": str(s).split(), "sent_id": 1} for s in sentences],
    }  # fmt: skip


REFS = [
    ref(1, 1, 10, "train", "the left dog", " "),
    ref(2, 1, 12, "train", "large hot dog"),
    ref(3, 1, 10, "train", "not the right one"),
    ref(4, 2, 14, "testA", "grass below"),
    ref(5, 3, 16, "train", "dog one"),
    ref(6, 3, 17, "val", "dog two"),
]


def dataset(folder: Path, refs: Any = REFS, suffix: str = ".p", protocol: int = 2) -> tuple[Path, Path]:
    data = coco(folder)
    photo(folder / "images/3.png", 3)
    data["images"].append({"id": 3, "file_name": "COCO_train2014_3.png", "width": 40, "height": 30})
    square = [[5, 5, 15, 5, 15, 15, 5, 15]]
    for key in (16, 17):
        data["annotations"].append({"id": key, "image_id": 3, "category_id": key - 15, "segmentation": square})
    path = folder / f"refs(unc){suffix}"
    path.write_bytes(pickle.dumps(refs, protocol) if suffix == ".p" else json.dumps(refs).encode())
    return path, write(folder, data)


def read(folder: Path, split: str = "train", **options: Any) -> tuple[list[dict[str, Any]], Repairs]:
    repairs = Repairs()
    refs, index = dataset(folder, **options)
    return list(read_refcoco("ref", refs, index, folder / "images", split, Rules(), repairs)), repairs


@pytest.mark.parametrize("options", [{"protocol": p} for p in range(6)] + [{"suffix": ".json"}])
def test_sentences_stand_at_their_objects(options: dict[str, Any], tmp_path: Path) -> None:
    (record,), repairs = read(tmp_path, **options)
    assert record["id"] == "ref/1"
    assert [o.get("phrases") for o in record["objects"]] == [
        ["the left dog", "not the right one"],
        None,
        ["large hot dog"],
        None,
    ]
    assert repairs.examples["photo of train with sentences of another split: left out"] == ["image 3"]


def test_python_2_pickles(tmp_path: Path) -> None:
    """Protocol 0 as Python 2 wrote text: str, unicode, a long and a bool."""
    (tmp_path / "refs.p").write_bytes(
        b"(lp0\n(dp1\nS'split'\np2\nS'val'\np3\nsS'raw'\nVcaf\\u00e9\nsS'id'\nL7L\nsS'yes'\nI01\nsa."
    )
    assert read_refs(tmp_path / "refs.p") == [{"split": "val", "raw": "caf\u00e9", "id": 7, "yes": True}]


@pytest.mark.parametrize(
    ("split", "ids"), [("testA", ["ref/2"]), ("val", ["ref/3"]), ("all", ["ref/1", "ref/2", "ref/3"])]
)
def test_splits(split: str, ids: list[str], tmp_path: Path) -> None:
    records, _ = read(tmp_path, split)
    assert [r["id"] for r in records] == ids
    said = {s for r in records for o in r["objects"] for s in o.get("phrases", ())}
    assert ("dog one" in said) == (split == "all")


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_runs_nothing(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "refs.p").write_bytes(pickle.dumps([Evil(tmp_path / "owned")], protocol))
    with pytest.raises(RecordError, match=r"refs\.p: .*it asks for posix\.mkdir|nt\.mkdir"):
        read_refs(tmp_path / "refs.p")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([np.float64(1)]), "only plain lists, dicts and text are read"),
        (pickle.dumps(OrderedDict(a=1)), r"it asks for collections\.OrderedDict"),
        (b"", "not readable as a pickle of plain values"),
        (b"\x80\x02X\xff\xff\xff\xff", "not readable as a pickle of plain values"),
        (pickle.dumps(REFS)[:-9], "not readable as a pickle of plain values"),
        (pickle.dumps({"a": 1}), "expected a list of refs, got None"),
    ],
)
def test_bad_pickles(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(RecordError, match=message):
        read_refs(tmp_path / "refs.p")


@pytest.mark.parametrize(
    ("refs", "message"),
    [
        ([ref(1, 1, 99, "train", "x")], r"refs\(unc\)\.p: ref 1: .*instances\.json has no annotation 99 of image 1"),
        ([ref(1, 2, 10, "train", "x")], r"ref 1: .* has no annotation 10 of image 2"),
        ([{"ref_id": 1}], "ref number 0: expected an object with 'image_id'"),
        ([ref(1, 1, 10, "train", None)], "ref 1: expected sentences with their text"),
        ([ref(1, 1, 10, "train") | {"sentences": None}], "ref 1: expected sentences with their text"),
        ([ref(1, 1, 10, "val", "x")], "no ref of split 'train'; got val"),
    ],
)
def test_bad_refs(refs: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        read(tmp_path, refs=refs)
