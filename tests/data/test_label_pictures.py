"""Layouts whose masks are pictures of numbers: COCO panoptic, PASCAL VOC, ADE20K."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seem.data.ade20k import read_ade20k
from seem.data.coco_panoptic import read_panoptic
from seem.data.records import RecordError, Repairs, Rules
from seem.data.voc import read_voc
from tests.data.toy import mask_of, photo, rectangle, save_mask, save_palette, turned_photo, write

TOP, LEFT, RIGHT, FAR = (
    rectangle(0, 0, 40, 10),
    rectangle(0, 10, 10, 30),
    rectangle(10, 10, 20, 30),
    rectangle(30, 20, 40, 30),
)

# ---- COCO panoptic ------------------------------------------------------------------------------------------------

SKY, DOG, DOGS, SKY_TOO = 1 + 256 * 2, 70000, 3, 65536 * 255


def save_segments(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(path)


def panoptic(folder: Path) -> dict[str, Any]:
    photo(folder / "train2017/000000000001.jpg")
    ids = TOP * SKY + LEFT * DOG + RIGHT * DOGS + FAR * SKY_TOO
    save_segments(folder / "annotations/panoptic_train2017/000000000001.png", ids)
    segments = [
        {"id": SKY, "category_id": 187, "iscrowd": 0},
        {"id": DOG, "category_id": 18, "iscrowd": 0, "bbox": [0, 10, 10, 20], "area": 200},
        {"id": DOGS, "category_id": 18, "iscrowd": 1},
        {"id": SKY_TOO, "category_id": 187},
    ]
    return {
        "images": [{"id": 1, "file_name": "000000000001.jpg", "width": 40, "height": 30}],
        "annotations": [{"image_id": 1, "file_name": "000000000001.png", "segments_info": segments}],
        "categories": [{"id": 18, "name": "dog", "isthing": 1}, {"id": 187, "name": "sky-other-merged", "isthing": 0}],
    }


def read_panoptic_file(folder: Path, data: dict[str, Any]) -> tuple[list[dict[str, Any]], Repairs]:
    repairs = Repairs()
    index = write(folder, data, "annotations/panoptic_train2017.json")
    return list(read_panoptic("toy", index, folder / "train2017", None, Rules(complete=True), repairs)), repairs


def test_panoptic(tmp_path: Path) -> None:
    ((record,), repairs) = read_panoptic_file(tmp_path, panoptic(tmp_path))
    dog, dogs, sky = record["objects"]
    assert [(o["name"], o["kind"], o["crowd"]) for o in (dog, dogs, sky)] == [
        ("dog", "thing", False),
        ("dog", "thing", True),
        ("sky", "stuff", False),
    ]
    for made, mask in ((dog, LEFT), (dogs, RIGHT), (sky, TOP | FAR)):
        assert (mask_of(made) == mask).all()
    assert record["annotated"] == ["dog", "sky"] and record["complete"]
    assert (mask_of({"rle": record["ignore"]}) == ~(TOP | LEFT | RIGHT | FAR)).all()
    assert not repairs.counts


def test_panoptic_segment_that_is_not_drawn(tmp_path: Path) -> None:
    data = panoptic(tmp_path)
    data["annotations"][0]["segments_info"].append({"id": 5, "category_id": 18})
    ((record,), repairs) = read_panoptic_file(tmp_path, data)
    assert len(record["objects"]) == 3
    assert repairs.examples == {"segment that its PNG does not show: left out": ["segment 5 of image 1"]}


def no_annotation(data: dict[str, Any]) -> None:
    data["annotations"] = []


def no_segment(data: dict[str, Any]) -> None:
    del data["annotations"][0]["segments_info"][1]


def no_category(data: dict[str, Any]) -> None:
    data["annotations"][0]["segments_info"][0]["category_id"] = 5


def no_list(data: dict[str, Any]) -> None:
    data["annotations"][0]["segments_info"] = None


def no_file_name(data: dict[str, Any]) -> None:
    del data["annotations"][0]["file_name"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (no_annotation, r"panoptic_train2017\.json: image 1: expected one annotation, got 0"),
        (no_segment, rf"image 1: its PNG shows segment {DOG}, which is not in segments_info"),
        (no_category, rf"image 1: segment {SKY}: category_id 5 is not among the categories"),
        (no_list, "image 1: expected a list of segments_info, got None"),
        (no_file_name, "annotation of image 1: expected a file_name, got None"),
    ],
)
def test_bad_panoptic(edit: Any, message: str, tmp_path: Path) -> None:
    data = panoptic(tmp_path)
    edit(data)
    with pytest.raises(RecordError, match=message):
        read_panoptic_file(tmp_path, data)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((30, 40), np.uint8), r"000000000001\.png: not a readable panoptic PNG: expected a colour PNG"),
        (np.zeros((20, 40, 3), np.uint8), r"000000000001\.png: 40x20, its photo is 40x30"),
        (None, r"000000000001\.png: not a readable panoptic PNG"),
    ],
)
def test_bad_panoptic_png(pixels: np.ndarray | None, message: str, tmp_path: Path) -> None:
    data = panoptic(tmp_path)
    path = tmp_path / "annotations/panoptic_train2017/000000000001.png"
    path.unlink()
    if pixels is not None:
        Image.fromarray(pixels).save(path)
    with pytest.raises(RecordError, match=message):
        read_panoptic_file(tmp_path, data)


# ---- PASCAL VOC ---------------------------------------------------------------------------------------------------


def voc(folder: Path) -> None:
    """Two dogs and half a sofa; a void rim, and a person whom no instance shows."""
    for stem in ("2007_000001", "2007_000002"):
        photo(folder / f"JPEGImages/{stem}.jpg")
        rim = rectangle(20, 10, 22, 30)
        save_palette(folder / f"SegmentationObject/{stem}.png", LEFT * 1 + RIGHT * 2 + FAR * 3 + rim * 255)
        classes = LEFT * 12 + RIGHT * 12 + FAR * 18 + rim * 255 + TOP * 15
        classes[29, 39] = 12
        save_palette(folder / f"SegmentationClass/{stem}.png", classes)
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000001\n")
    (lists / "val.txt").write_text("2007_000002\n")


def test_voc(tmp_path: Path) -> None:
    voc(tmp_path)
    repairs = Repairs()
    (record,) = read_voc("voc", tmp_path, "train", Rules(), repairs)
    assert record["id"] == "voc/2007_000001"
    assert [o["name"] for o in record["objects"]] == ["dog", "dog", "couch"]
    for made, mask in zip(record["objects"], (LEFT, RIGHT, FAR), strict=True):
        assert (mask_of(made) == mask).all()
    assert (mask_of({"rle": record["ignore"]}) == (rectangle(20, 10, 22, 30) | TOP)).all()
    assert len(record["annotated"]) == 20
    assert repairs.examples == {"instance of two classes: the larger part taken": ["2007_000001 instance 3"]}
    assert [r["id"] for r in read_voc("voc", tmp_path, "all")] == ["voc/2007_000001", "voc/2007_000002"]


def test_bad_voc(tmp_path: Path) -> None:
    voc(tmp_path)
    with pytest.raises(RecordError, match=r"no list test\.txt; got train, val"):
        list(read_voc("voc", tmp_path, "test"))
    save_palette(tmp_path / "SegmentationClass/2007_000001.png", LEFT * 12)
    with pytest.raises(RecordError, match=r"2007_000001\.png: instance 2 has no class"):
        list(read_voc("voc", tmp_path))
    save_palette(tmp_path / "SegmentationObject/2007_000001.png", np.zeros((5, 5)))
    with pytest.raises(RecordError, match=r"SegmentationObject/2007_000001\.png: 5x5, its photo is 40x30"):
        list(read_voc("voc", tmp_path))
    (tmp_path / "SegmentationClass/2007_000002.png").unlink()
    with pytest.raises(RecordError, match=r"SegmentationClass/2007_000002\.png: not a readable mask"):
        list(read_voc("voc", tmp_path, "val"))
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("no\n")
    with pytest.raises(RecordError, match="no: no photo of this name in JPEGImages"):
        list(read_voc("voc", tmp_path, "val"))


# ---- ADE20K -------------------------------------------------------------------------------------------------------

INFO = "Idx\tRatio\tTrain\tVal\tName\n1\t0.15\t11664\t1172\twall      \n2\t0.1\t6046\t612\tbuilding, edifice\n" \
       "9\t0.01\t1\t2\twindowpane, window\n"  # fmt: skip


def ade(folder: Path) -> None:
    for part, stem in (("training", "ADE_train_1"), ("validation", "ADE_val_1")):
        photo(folder / f"images/{part}/{stem}.jpg")
        save_mask(folder / f"annotations/{part}/{stem}.png", TOP * 1 + LEFT * 9)
    (folder / "objectInfo150.txt").write_text(INFO)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("objectInfo150.txt", INFO),
        ("objectInfo150.txt", INFO.replace("\t", "    ")),
        ("names.json", json.dumps({"1": "wall", "2": "building", "9": "windowpane"})),
        ("names.json", json.dumps({"values": {"0": "x", "1": "wall", "2": "building", "9": "windowpane"}})),
        ("names.txt", "wall\nbuilding\n" + "\n".join(f"n{i}" for i in range(6)) + "\nwindowpane\n"),
    ],
)
def test_ade20k(file: str, content: str, tmp_path: Path) -> None:
    ade(tmp_path)
    (tmp_path / "objectInfo150.txt").unlink()
    (tmp_path / file).write_text(content)
    (record,) = read_ade20k("ade", tmp_path)
    assert record["id"] == "ade/ADE_train_1"
    wall, window = record["objects"]
    assert [(o["name"], o["kind"], o.get("semantic")) for o in (wall, window)] == [
        ("wall", "stuff", None),
        ("window", "thing", True),
    ]
    assert (mask_of(wall) == TOP).all() and (mask_of(window) == LEFT).all()
    assert (mask_of({"rle": record["ignore"]}) == ~(TOP | LEFT)).all()
    assert {"wall", "building", "window"} <= set(record["annotated"])


def test_stuff_goes_by_the_name_in_the_file(tmp_path: Path) -> None:
    """ "earth" is stuff and is shown as "ground"."""
    ade(tmp_path)
    (tmp_path / "objectInfo150.txt").write_text("1\t0\tearth\n9\t0\tdoor\n")
    (record,) = read_ade20k("ade", tmp_path)
    assert [(o["name"], o["kind"]) for o in record["objects"]] == [("ground", "stuff"), ("door", "thing")]


def test_ade20k_parts(tmp_path: Path) -> None:
    ade(tmp_path)
    assert [r["id"] for r in read_ade20k("ade", tmp_path, "val")] == ["ade/ADE_val_1"]
    assert len(list(read_ade20k("ade", tmp_path, "all"))) == 2
    with pytest.raises(RecordError, match=r"annotations: no folder 'test'; got training, validation"):
        list(read_ade20k("ade", tmp_path, "test"))
    turned_photo(tmp_path / "images/training/ADE_train_1.jpg", 6)  # the annotation is turned with it
    (record,) = read_ade20k("ade", tmp_path)
    assert (mask_of(record["objects"][0]) == np.rot90(TOP, -1)).all()
    photo(tmp_path / "images/training/ADE_train_1.jpg", size=(20, 30))
    with pytest.raises(RecordError, match=r"ADE_train_1\.png: 40x30, its photo is 20x30"):
        list(read_ade20k("ade", tmp_path))
    (tmp_path / "images/training/ADE_train_1.jpg").unlink()
    with pytest.raises(RecordError, match=r"ADE_train_1\.png: no photo of this name"):
        list(read_ade20k("ade", tmp_path))
    (tmp_path / "objectInfo150.txt").write_text("nothing\n")
    with pytest.raises(RecordError, match=r"objectInfo150\.txt: expected lines of a number, columns and a name"):
        list(read_ade20k("ade", tmp_path))
    (tmp_path / "objectInfo150.txt").unlink()
    with pytest.raises(RecordError, match=r"expected objectInfo150\.txt, names\.json or names\.txt"):
        list(read_ade20k("ade", tmp_path))
