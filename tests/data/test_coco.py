"""COCO instances JSON as published, and as people really have it: repaired, or refused with the record's id."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seem import geometry
from seem.data.coco import PhotoFinder, read_coco
from seem.data.records import Header, Record, RecordError, Repairs, Rules, turn
from tests.data.toy import coco, mask_of, note, photo, rectangle, turned_photo, write

SQUARE = [5, 5, 15, 5, 15, 15, 5, 15]
Edit = Callable[[dict[str, Any]], None]


def change(*path: Any, to: Any) -> Edit:
    def apply(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = to

    return apply


def drop(*path: Any) -> Edit:
    def apply(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return apply


def read(folder: Path, data: Any, rules: Rules | None = None) -> tuple[list[Record], Repairs]:
    repairs = Repairs()
    return list(read_coco("toy", write(folder, data), folder / "images", rules, repairs)), repairs


def test_a_clean_file(tmp_path: Path) -> None:
    rules = Rules(complete=True, human_boxes=True, kinds={"grass": "stuff"}, dev=lambda i: i["id"] == 2)
    (first, second), repairs = read(tmp_path, coco(tmp_path), rules)
    head = {k: first[k] for k in ("id", "width", "height", "complete", "dev", "coco_id")}
    assert head == {"id": "toy/1", "width": 40, "height": 30, "complete": True, "dev": False, "coco_id": 1}
    assert "annotated" not in first and "ignore" not in first
    polygon, crowd, teacher, empty = first["objects"]
    assert (polygon["name"], polygon["box"], polygon["area"]) == ("hot dog", [5, 5, 15, 15], 100)
    assert (mask_of(polygon) == rectangle(5, 5, 15, 15)).all()
    assert crowd["crowd"] and not crowd["doubtful"]
    assert (teacher["doubtful"], teacher["quality"]) == (True, 0.9)
    assert (empty["rle"], empty["doubtful"], empty["box"]) == (None, True, [1, 2, 4, 6])
    (grass,) = second["objects"]  # two regions of stuff are one
    assert (grass["kind"], grass["area"]) == ("stuff", 116)
    assert second["dev"]
    assert repairs.counts == {"no mask: its box kept": 1}


def test_semantic_and_kept(tmp_path: Path) -> None:
    data = coco(tmp_path)
    del data["annotations"][3]
    rules = Rules(semantic=True, keep=lambda image: image["split"] == "train2017")
    ((region,),) = [r["objects"] for r in read(tmp_path, data, rules)[0]]
    assert region["semantic"]


# ---- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("annotations", to=3), "expected COCO's images, annotations and categories"),
        (drop("categories"), "expected COCO's images, annotations and categories"),
        (change("annotations", 0, "category_id", to=0), r"annotation 10: category_id 0 .* \(1, 2\); are they counted"),
        (change("annotations", 0, "category_id", to=True), "annotation 10: category_id True is not among"),
        (drop("annotations", 0, "image_id"), "annotation 10: expected an object with 'image_id'"),
        (change("annotations", 0, to="x"), "annotation number 0: expected an object with 'image_id', got x"),
        (change("annotations", 0, "segmentation", to="x"), "annotation 10 of image 1: segmentation: expected polygons"),
        (change("annotations", 0, "segmentation", to=[["x"] * 6]), "annotation 10 .*: segmentation: expected numbers"),
        (change("annotations", 0, "segmentation", to=[[1] * 6, "x"]), "annotation 10 .*: expected lists of x, y"),
        (change("annotations", 1, "segmentation", "counts", to=[5]), "annotation 11 of image 1: rle.counts"),
        (change("annotations", 1, "segmentation", "counts", to=None), "annotation 11 of image 1: rle.counts"),
        (change("annotations", 1, "segmentation", "size", to=[40, 30]), "annotation 11 .*: segmentation is 30x40"),
        (change("annotations", 1, "segmentation", "size", to=None), "annotation 11 of image 1: rle.size"),
        (change("annotations", 0, "iscrowd", to="maybe"), "annotation 10 of image 1: iscrowd: expected 0 or 1"),
        (change("annotations", 2, "teacher_score", to="good"), "annotation 12 of image 1: could not convert"),
        (change("annotations", 0, "phrases", to="a dog"), "annotation 10 of image 1: phrases: expected a list"),
        (change("images", 0, "width", to=41), "image 1: 41x30 stated, .*1.png is 40x30"),
        (change("images", 0, "file_name", to="no.png"), "image 1: 'no.png' is not in"),
        (change("images", 0, "file_name", to="../instances.json"), "image 1: '../instances.json' is not in"),
        (change("images", 0, "file_name", to=None), "image 1: expected a file_name, got None"),
        (change("images", 0, "file_name", to="2.png"), "image 2: .*2.png is image 1 already"),
        (change("images", 0, "id", to=2), "image 2: the id is there twice, with file_name '1.png' and '2.png'"),
        (change("images", 0, "id", to=None), "image number 0: expected an object with 'id'"),
        (change("images", 0, to=7), "image number 0: expected an object with 'id', got 7"),
        (change("categories", 0, "name", to=" "), "category 1: expected a name, got ' '"),
        (change("categories", 0, "name", to=None), "category 1: expected a name, got None"),
        (change("categories", 0, "id", to=2), "category 2: the id is there twice, with name 'Hot_Dog' and 'grass'"),
        (change("images", to=[{"id": 9, "file_name": "1.png"}]), "no annotation's image_id is among the images"),
    ],
)  # fmt: skip
def test_refused(edit: Edit, message: str, tmp_path: Path) -> None:
    data = coco(tmp_path)
    edit(data)
    with pytest.raises(
        RecordError, match=rf"instances\.json: .*{message}" if "expected COCO" not in message else message
    ):
        read(tmp_path, data, Rules(human_boxes=True))


def test_no_json(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text("{")
    with pytest.raises(RecordError, match=r"instances\.json: not readable as JSON"):
        list(read_coco("toy", tmp_path / "instances.json", tmp_path))


# ---- repaired -----------------------------------------------------------------------------------------------------


def one(segmentation: Any, **more: Any) -> Callable[[dict[str, Any]], None]:
    """A file of one photo with one annotation."""

    def apply(data: dict[str, Any]) -> None:
        data["images"] = data["images"][:1]
        data["annotations"] = [note(10, 1, 1, [5, 5, 10, 10], segmentation) | more]

    return apply


@pytest.mark.parametrize(
    ("edit", "what", "area"),
    [
        (one([SQUARE, [1, 1, 2, 2]]), "a polygon of fewer than 3 points: left out", 100),
        (one([[*SQUARE, 9]]), "a polygon of odd length: its last number left out", 100),
        (one([SQUARE, [1, 2, None, 4, 5, 6]]), "a polygon with null or NaN: left out", 100),
        (one([SQUARE, [1, 2, float("nan"), 4, 5, 6]]), "a polygon with null or NaN: left out", 100),
        (one(SQUARE), "one flat polygon: taken as a list of one", 100),
        (one([[[5, 5], [15, 5], [15, 15], [5, 15]]]), "a polygon of points instead of numbers: flattened", 100),
        (one({"a": SQUARE}), "polygons in a dict: its values taken", 100),
        (one({"a": [SQUARE], "b": [[0, 0, 5, 0, 5, 5, 0, 5]]}), "polygons in a dict: its values taken", 125),
        (one([[50, 50, 60, 50, 60, 60]]), "polygons that cover nothing of the photo", 0),
        (one([[1, 1, 2, 2]]), "no mask: its box kept", 0),
        (one([]), "no mask: its box kept", 0),
        (one(None), "no mask: its box kept", 0),
        (one([SQUARE], bbox=[5, 5, 0, 10]), "bbox that is no x, y, width, height in the photo: left out", 100),
        (one([SQUARE], bbox=["x"]), "bbox that is no x, y, width, height in the photo: left out", 100),
        (one([SQUARE], id=None), "annotation without an id", 100),
        (one([SQUARE], category_id=None), "annotation without a category: an object without a name", 100),
    ],
)
def test_repaired_annotations(edit: Edit, what: str, area: int, tmp_path: Path) -> None:
    data = coco(tmp_path)
    edit(data)
    (record,), repairs = read(tmp_path, data)
    (made,) = record["objects"]
    assert made["area"] == area
    assert repairs.counts[what] == 1
    assert made["box"] == ([0, 0, 15, 15] if area == 125 else [5, 5, 15, 15])


@pytest.mark.parametrize("iscrowd", [None, 0, "0", False, 1, "1", True])
def test_crowd_is_whatever_says_so(iscrowd: Any, tmp_path: Path) -> None:
    data = coco(tmp_path)
    one([SQUARE], iscrowd=iscrowd)(data)
    assert read(tmp_path, data)[0][0]["objects"][0]["crowd"] == (iscrowd in (1, "1"))


def test_nothing_to_keep_of_an_annotation(tmp_path: Path) -> None:
    data = coco(tmp_path)
    one([], bbox=None)(data)
    (record,), repairs = read(tmp_path, data)
    assert record["objects"] == []
    assert repairs.examples["no mask and no box: left out"] == ["annotation 10 of image 1"]


def test_a_polygon_beyond_the_photo_is_cut(tmp_path: Path) -> None:
    data = coco(tmp_path)
    one([[-1e6, -50, 10, -50, 10, 1e9, -1e6, 1e9]])(data)
    assert (mask_of(read(tmp_path, data)[0][0]["objects"][0]) == rectangle(0, 0, 10, 30)).all()


def test_sparse_fields(tmp_path: Path) -> None:
    """No area, iscrowd or bbox anywhere; null where COCO has lists."""
    data = coco(tmp_path)
    data["images"] = data["images"][:1]
    data["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [SQUARE], "area": None}]
    (record,), repairs = read(tmp_path, data)
    assert record["objects"][0]["box"] == [5, 5, 15, 15]
    assert not repairs.counts


def test_ids_as_text(tmp_path: Path) -> None:
    data = coco(tmp_path)
    for image in data["images"]:
        image["id"] = str(image["id"])
    for a in data["annotations"]:
        a["category_id"] = float(a["category_id"])
    records, repairs = read(tmp_path, data)
    assert [len(r["objects"]) for r in records] == [4, 2]
    assert repairs.counts["image id written as text"] == 2


def test_doubles(tmp_path: Path) -> None:
    data = coco(tmp_path)
    data["images"].append(dict(data["images"][0]))
    data["categories"] += [{"id": 2, "name": "grass"}, {"id": 3, "name": "hot_dog"}]
    data["annotations"] += [dict(data["annotations"][0], id=99), dict(data["annotations"][0], category_id=3)]
    records, repairs = read(tmp_path, data)
    assert [len(r["objects"]) for r in records] == [5, 2]
    assert {o["name"] for o in records[0]["objects"]} == {"hot dog"}
    assert repairs.counts == {
        "image entry twice: one left out": 1,
        "category entry twice: one left out": 1,
        "two categories of one name: taken as one": 1,
        "annotation id twice: both kept": 1,
        "the same annotation twice: one left out": 1,
        "no mask: its box kept": 1,
    }


def test_photos_without_annotations_and_annotations_without_photos(tmp_path: Path) -> None:
    data = coco(tmp_path)
    for a in data["annotations"][4:]:
        a["image_id"] = 77
    records, repairs = read(tmp_path, data)
    assert [len(r["objects"]) for r in records] == [4, 0]
    assert repairs.examples["annotation of an image that is not listed: left out"] == ["annotation 14", "annotation 15"]


@pytest.mark.parametrize("size", [{}, {"width": None, "height": 0}, {"width": "x", "height": 30}])
def test_size_is_read_from_the_photo(size: dict[str, Any], tmp_path: Path) -> None:
    data = coco(tmp_path)
    data["images"][0] = {"id": 1, "file_name": "1.png"} | size
    records, repairs = read(tmp_path, data)
    assert (records[0]["width"], records[0]["height"]) == (40, 30)
    assert repairs.examples["no width or height: read from the file"] == ["image 1"]


@pytest.mark.parametrize(
    ("stated", "file"),
    [
        ("/home/me/data/a/1.png", "a/1.png"),
        ("C:\\data\\a\\1.png", "a/1.png"),
        ("a\\1.png", "a/1.png"),
        ("elsewhere/1.png", "1.png"),
        ("http://host/train2017/1.png", "1.png"),
        ("../../1.png", "1.png"),
        ("1.PNG", "deep/er/1.png"),
        ("Cafe\u0301.png", "Caf\u00e9.png"),
        ("COCO_train2014_000000000009.png", "000000000009.png"),
    ],
)
def test_file_names_are_found(stated: str, file: str, tmp_path: Path) -> None:
    photo(tmp_path / "images" / file)
    entry = {"id": 1, "file_name": stated, "width": 40, "height": 30}
    data = {"images": [entry], "annotations": [], "categories": []}
    (record,), repairs = read(tmp_path, data)
    assert record["image"] == str(tmp_path / "images" / file)
    assert record["id"] == "toy/" + file.removesuffix(".png")
    assert sum(repairs.counts.values()) == 1


def test_file_names_in_folders_keep_their_folder(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "b/1.jpg"):
        photo(tmp_path / "images" / name)
    images = [
        {"id": i, "file_name": n, "width": 40, "height": 30} for i, n in enumerate(("a/1.png", "b/1.png", "b/1.jpg"))
    ]
    records, repairs = read(tmp_path, {"images": images, "annotations": [], "categories": []})
    assert [r["id"] for r in records] == ["toy/a/1", "toy/b/1", "toy/b/1.jpg"]
    assert not repairs.counts
    with pytest.raises(ValueError, match=r"'1\.PNG' may be .*a/1\.png or .*b/1\.png"):
        PhotoFinder(tmp_path / "images").find("1.PNG")


def test_unicode_names_and_a_byte_order_mark(tmp_path: Path) -> None:
    data = coco(tmp_path)
    data["categories"][0]["name"] = "Cafe\u0301_犬 "
    path = write(tmp_path, data)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(data, ensure_ascii=False).encode())
    (first, _) = read_coco("toy", path, tmp_path / "images")
    assert first["objects"][0]["name"] == "caf\u00e9 犬"


# ---- EXIF ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_a_mask_is_turning_the_photo(orientation: int) -> None:
    """The header's rules against Pillow's."""
    from PIL import Image, ImageOps

    mask = rectangle(3, 5, 17, 9)
    image = Image.fromarray(mask.astype(np.uint8))
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image)) > 0
    assert (turn(mask, orientation) == expected).all()
    header = Header((expected.shape[1], expected.shape[0]), (40, 30), orientation)
    assert header.box_as_seen((3, 5, 17, 9)) == geometry.box_of(expected)


@pytest.mark.parametrize("orientation", [6, 8])
@pytest.mark.parametrize("size", ["stored", "seen", None])
def test_annotations_of_a_turned_photo(orientation: int, size: str | None, tmp_path: Path) -> None:
    turned_photo(tmp_path / "images/1.jpg", orientation)
    stored = rectangle(5, 5, 15, 10)
    expected = turn(stored, orientation) if size == "stored" else stored.T  # in the file: x and y swapped
    square = [5, 5, 15, 5, 15, 10, 5, 10] if size == "stored" else [5, 5, 10, 5, 10, 15, 5, 15]
    box = [5, 5, 10, 5] if size == "stored" else [5, 5, 5, 10]
    entry: dict[str, Any] = {"id": 1, "file_name": "1.jpg"}
    if size is not None:
        entry |= {"width": 40, "height": 30} if size == "stored" else {"width": 30, "height": 40}
    rle = geometry.rle_encode(stored if size == "stored" else stored.T)
    data = {
        "images": [entry],
        "annotations": [note(1, 1, 1, box, [square]), note(2, 1, 1, box, rle), note(3, 1, 1, box, None)],
        "categories": [{"id": 1, "name": "x"}],
    }
    (record,), repairs = read(tmp_path, data)
    assert (record["width"], record["height"]) == (30, 40)
    polygon, run_lengths, boxed = record["objects"]
    assert (mask_of(polygon) == expected).all()
    assert (mask_of(run_lengths) == expected).all()
    assert tuple(boxed["box"]) == geometry.box_of(expected)
    assert ("annotated before the EXIF rotation: turned" in repairs.counts) == (size == "stored")


def test_run_lengths_of_the_stored_photo(tmp_path: Path) -> None:
    turned_photo(tmp_path / "images/1.jpg", 6)
    rle = geometry.rle_encode(rectangle(5, 5, 15, 10))
    entry = {"id": 1, "file_name": "1.jpg", "width": 30, "height": 40}
    data = {"images": [entry], "annotations": [note(1, 1, 1, None, rle)], "categories": [{"id": 1, "name": "x"}]}
    (record,), repairs = read(tmp_path, data)
    assert (mask_of(record["objects"][0]) == turn(rectangle(5, 5, 15, 10), 6)).all()
    assert repairs.counts == {"run lengths from before the EXIF rotation: turned": 1}
