"""`read_dataset` knows a data set by what lies there."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seem.data.layouts import find_layout, read_dataset
from seem.data.records import RecordError, Rules
from tests.data import test_label_pictures as pictures
from tests.data import test_lvis, test_refcoco
from tests.data.toy import coco, photo, save_mask, write


def instances(root: Path) -> None:
    write(root, coco(root))


def coco_2017(root: Path) -> None:
    """As published: photos in two folders, an index for each, and panoptic ones beside them."""
    for part, number in (("train2017", 1), ("val2017", 2)):
        photo(root / part / f"{number}.png", number)
        data = coco(root)
        data["images"] = data["images"][number - 1 : number]
        write(root, data, f"annotations/instances_{part}.json")
    write(root, {}, "annotations/captions_train2017.json")
    write(root, pictures.panoptic(root), "annotations/panoptic_train2017.json")


def roboflow(root: Path) -> None:
    data = coco(root)
    for i in (1, 2):
        (root / "train").mkdir(exist_ok=True)
        (root / f"images/{i}.png").rename(root / f"train/{i}.png")
    (root / "images").rmdir()
    write(root, data, "train/_annotations.coco.json")


def only_panoptic(root: Path) -> None:
    write(root, pictures.panoptic(root), "annotations/panoptic_train2017.json")


def lvis(root: Path) -> None:
    write(root, test_lvis.lvis(root), "lvis_v1_train.json")


def refcoco(root: Path) -> None:
    test_refcoco.dataset(root)


def folders(root: Path) -> None:
    photo(root / "images/1.png")
    save_mask(root / "masks/1.png", np.full((30, 40), 255))


@pytest.mark.parametrize(
    ("make", "layout", "ids"),
    [
        (instances, "coco", ["1", "2"]),
        (coco_2017, "coco", ["1"]),
        (roboflow, "coco", ["1", "2"]),
        (only_panoptic, "coco-panoptic", ["000000000001"]),
        (lvis, "lvis", ["000000000001"]),
        (refcoco, "refcoco", ["1"]),
        (pictures.voc, "voc", ["2007_000001"]),
        (pictures.ade, "ade20k", ["ADE_train_1"]),
        (folders, "folders", ["1"]),
    ],
)
def test_layouts(make: Callable[[Path], None], layout: str, ids: list[str], tmp_path: Path) -> None:
    root = tmp_path / "mine"
    make(root)
    assert find_layout(root) == layout
    assert [r["id"].rsplit("/", 1)[1] for r in read_dataset(root)] == ids
    assert {r["set"] for r in read_dataset(root)} == {"mine"}
    assert {r["set"] for r in read_dataset(root, layout, name="x")} == {"x"}


@pytest.mark.parametrize(
    ("make", "layout", "split", "ids"),
    [
        (coco_2017, "auto", "val", ["2"]),
        (coco_2017, "coco-panoptic", None, ["000000000001"]),
        (instances, "auto", "val2017", ["2"]),  # by the images' own field
        (instances, "auto", "all", ["1", "2"]),
        (refcoco, "auto", "testA", ["2"]),
        (pictures.voc, "auto", "all", ["2007_000001", "2007_000002"]),
        (pictures.ade, "auto", "val", ["ADE_val_1"]),
    ],
)
def test_splits(make: Callable[[Path], None], layout: str, split: str | None, ids: list[str], tmp_path: Path) -> None:
    make(tmp_path)
    assert [r["id"].rsplit("/", 1)[1] for r in read_dataset(tmp_path, layout, split)] == ids


def test_files(tmp_path: Path) -> None:
    """An index by itself says what it is; the photos may lie elsewhere."""
    instances(tmp_path / "photos")
    path = write(tmp_path / "labels", coco(tmp_path / "photos"), "export.json")
    assert [r["id"] for r in read_dataset(path, images=tmp_path / "photos/images")] == ["labels/1", "labels/2"]
    only_panoptic(tmp_path / "panoptic")
    (record,) = read_dataset(tmp_path / "panoptic/annotations/panoptic_train2017.json")
    assert record["id"] == "panoptic/000000000001"
    refcoco(tmp_path / "refs")
    assert len(list(read_dataset(tmp_path / "refs/refs(unc).p"))) == 1


def test_coco_with_lvis(tmp_path: Path) -> None:
    lvis(tmp_path)
    data = test_lvis.lvis(tmp_path)
    data["images"][0]["file_name"] = "000000000001.png"
    data["annotations"] = data["annotations"][:1]
    data["annotations"][0]["segmentation"] = [[5, 5, 15, 5, 15, 14, 5, 14]]
    write(tmp_path, data, "instances_train2017.json")
    assert find_layout(tmp_path) == "coco"
    assert [o["area"] for r in read_dataset(tmp_path, "coco+lvis") for o in r["objects"]] == [100]


def two_refs(root: Path) -> None:
    refcoco(root)
    (root / "refs(google).p").write_bytes(pickle.dumps([]))


def empty(root: Path) -> None:
    root.mkdir(exist_ok=True)


def no_images(root: Path) -> None:
    write(root, {"images": [], "annotations": [], "categories": []})


def two_files(root: Path) -> None:
    for name in ("instances_a.json", "instances_b.json"):
        write(root, coco(root), name)


@pytest.mark.parametrize(
    ("make", "layout", "split", "message"),
    [
        (empty, "auto", None, "mine: expected COCO, panoptic or LVIS JSON"),
        (empty, "cityscapes", None, "layout: expected auto, coco, .*, got 'cityscapes'"),
        (lambda root: None, "auto", None, "mine: no such file or folder"),
        (no_images, "auto", None, "mine: no photo"),
        (instances, "auto", "test", "mine: no photo of split 'test'"),
        (coco_2017, "auto", "test", "expected one index for 'test', got instances_train2017.json, instances_val2017"),
        (two_files, "auto", None, "expected one index for 'train', got instances_a.json, instances_b.json"),
        (two_refs, "auto", None, r"expected one index, got refs\(google\).p, refs\(unc\).p"),
        (instances, "lvis", None, "expected one index for 'train', got none"),
        (empty, "folders", None, "images: no such folder"),
        (empty, "voc", None, "JPEGImages: no such folder"),
        (empty, "ade20k", None, "expected objectInfo150.txt"),
    ],
)
def test_refused(make: Callable[[Path], None], layout: str, split: str | None, message: str, tmp_path: Path) -> None:
    make(tmp_path / "mine")
    with pytest.raises(RecordError, match=message):
        list(read_dataset(tmp_path / "mine", layout, split))


def test_rules_reach_the_reader(tmp_path: Path) -> None:
    instances(tmp_path)
    rules = Rules(complete=True, kinds={"grass": "stuff"}, keep=lambda image: image["id"] == 2)
    (record,) = read_dataset(tmp_path, rules=rules)
    assert record["complete"] and [o["kind"] for o in record["objects"]] == ["stuff"]
