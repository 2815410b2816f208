"""Masks as other tools' files, read back by those tools' rules."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seem import geometry
from seem.export.annotations import (
    AnnotatedImage,
    AnnotatedObject,
    cutout,
    from_coco,
    safe_name,
    to_coco,
    to_cutouts,
    to_labelme,
    to_masks,
    to_project,
    to_yolo,
)


def ring() -> np.ndarray:
    """(30, 40): a square with a hole, and an island apart."""
    mask = np.zeros((30, 40), bool)
    mask[5:20, 5:20] = True
    mask[9:14, 9:14] = False
    mask[24:28, 30:38] = True
    return mask


def bar() -> np.ndarray:
    mask = np.zeros((30, 40), bool)
    mask[2:4, 25:39] = True
    return mask


@pytest.fixture
def images() -> list[AnnotatedImage]:
    first = AnnotatedImage(
        "a.jpg", 40, 30, [AnnotatedObject.of(4, "ring", ring(), 0.5), AnnotatedObject.of(9, "bar", bar())]
    )
    second = AnnotatedImage("sub/a.jpg", 40, 30, [AnnotatedObject.of(1, "bar", bar()[::-1])])
    return [first, second, AnnotatedImage("empty.png", 8, 6, [AnnotatedObject.of(1, "none", np.zeros((6, 8), bool))])]


def opened(data: bytes) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    return archive


def test_coco_is_read_by_pycocotools(images: list[AnnotatedImage], tmp_path: Any) -> None:
    COCO = pytest.importorskip("pycocotools.coco").COCO
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(to_coco(images)))
    coco = COCO(str(path))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["ring", "bar", "none"]
    rows = coco.loadAnns(coco.getAnnIds())
    assert [r["image_id"] for r in rows] == [1, 1, 2]  # the empty mask is left out
    for row, mask in zip(rows, (ring(), bar(), bar()[::-1]), strict=True):
        np.testing.assert_array_equal(coco.annToMask(row).astype(bool), mask)
        assert row["area"] == mask.sum()
    assert rows[0]["bbox"] == [5, 5, 33, 23]
    assert rows[0]["score"] == 0.5 and "score" not in rows[1]


def test_track_ids() -> None:
    frames = [AnnotatedImage(f"{i}.jpg", 40, 30, [AnnotatedObject.of(7, "a", bar())]) for i in range(2)]
    rows = to_coco(frames, track_ids=True)["annotations"]
    assert [(r["id"], r["track_id"]) for r in rows] == [(1, 7), (2, 7)]


def test_coco_comes_back(images: list[AnnotatedImage]) -> None:
    found = from_coco(json.loads(json.dumps(to_coco(images))))
    assert [(i.file_name, i.width, i.height) for i in found] == [(i.file_name, i.width, i.height) for i in images]
    assert [[o.name for o in i.objects] for i in found] == [["ring", "bar"], ["bar"], []]
    np.testing.assert_array_equal(found[0].objects[0].mask, ring())


def coco(segmentation: Any, **row: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 5, "file_name": "a", "width": 40, "height": 30}],
        "categories": [{"id": 2, "name": "thing"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 2, "segmentation": segmentation, **row}],
    }


@pytest.mark.parametrize(
    ("segmentation", "area"),
    [
        ([[2, 3, 12, 3, 12, 8, 2, 8]], 50),
        ([[2, 3, 12, 3, 12, 8, 2, 8], [20.0, 3, 24, 3, 24, 8, 20, 8]], 70),
        ([[2, 3, 12, 3, 12, 8, 2, 8], [4, 3, 14, 3, 14, 8, 4, 8]], 60),  # polygons that overlap are one region
        ([[30, 0, 60, 0, 60, 60, 30, 60]], 300),  # cut at the border
        ({"size": [30, 40], "counts": [0, 30, 1170]}, 30),
        ([], None),
        (None, None),
    ],
)
def test_coco_segmentations(segmentation: Any, area: int | None) -> None:
    objects = from_coco(coco(segmentation))[0].objects
    assert [int(o.mask.sum()) for o in objects] == ([] if area is None else [area])


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "JSON object"),
        ({}, "coco.categories"),
        (coco([[1, 2, 3]]), r"annotations\[0\].segmentation: expected polygons"),
        (coco([[1, 2, 3, 4, 5, "6"]]), "polygons"),
        (coco([[1, 2, 3, 4, 5, float("nan")]]), "polygons"),
        (coco([1, 2, 3, 4, 5, 6]), "polygons"),
        (coco("abc"), "polygons or run lengths"),
        (coco({"size": [3, 3], "counts": [9]}), "size"),
        (coco({"size": [10**6, 10**6], "counts": [10**12]}), "rle"),
        (coco([], image_id=6), "id of an image"),
        (coco([], category_id="2"), "category_id: expected a whole number"),
        (coco([]) | {"images": [{"id": 5, "file_name": "a", "width": 10**6, "height": 10**6}]}, "pixels"),
        (coco([]) | {"images": [{"id": 5, "file_name": "", "width": 4, "height": 4}]}, "file_name"),
        (coco([]) | {"images": [{"id": 5, "file_name": "a", "width": 4, "height": 4}] * 2}, "once"),
        (coco([]) | {"annotations": [3]}, r"annotations\[0\]"),
    ],
)
def test_bad_coco_says_where(document: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_coco(document)


def test_yolo_lines_fill_to_the_masks(images: list[AnnotatedImage]) -> None:
    archive = opened(to_yolo(images, tolerance=0))
    assert archive.namelist() == ["data.yaml", "labels/a.txt", "labels/a-2.txt", "labels/empty.txt"]
    assert 'names:\n  0: "ring"\n  1: "bar"' in archive.read("data.yaml").decode()
    lines = archive.read("labels/a.txt").decode().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1"]
    for line, mask in zip(lines, (ring(), bar()), strict=True):
        xy = np.array(line.split()[1:], float).reshape(-1, 2)
        assert xy.min() >= 0 and xy.max() <= 1
        np.testing.assert_array_equal(geometry.rasterise_polygon(xy * (40, 30), (40, 30)), mask)
    assert archive.read("labels/empty.txt") == b""


def test_labelme(images: list[AnnotatedImage]) -> None:
    archive = opened(to_labelme(images, tolerance=0))
    assert archive.namelist() == ["a.json", "a-2.json", "empty.json"]
    document = json.loads(archive.read("a.json"))
    assert (document["imagePath"], document["imageWidth"], document["imageHeight"]) == ("a.jpg", 40, 30)
    assert [(s["label"], s["group_id"]) for s in document["shapes"]] == [("ring", 4), ("ring", 4), ("bar", 9)]
    total = np.zeros((30, 40), bool)
    for shape in document["shapes"][:2]:
        total |= geometry.rasterise_polygon(np.array(shape["points"]), (40, 30))
    np.testing.assert_array_equal(total, ring())


def picture(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(archive.read(name))))


def test_masks(images: list[AnnotatedImage]) -> None:
    archive = opened(to_masks(images))
    np.testing.assert_array_equal(picture(archive, "a.png"), ring() * 1 + bar() * 2)
    np.testing.assert_array_equal(picture(archive, "a/1-ring.png"), ring() * 255)
    names = json.loads(archive.read("names.json"))
    assert names["a"]["objects"][1] == {"number": 2, "id": 9, "name": "bar"}
    assert names["a-2"]["file_name"] == "sub/a.jpg"


def test_cutouts(images: list[AnnotatedImage]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    data, suffix = to_cutouts([AnnotatedImage("a", 40, 30, images[0].objects[:1])], lambda place: pixels)
    assert suffix == ".png"
    found = np.asarray(Image.open(io.BytesIO(data)))
    mask = ring()[5:28, 5:38]
    assert found.shape == (23, 33, 4)
    np.testing.assert_array_equal(found[..., 3], mask * 255)
    np.testing.assert_array_equal(found[mask][:, :3], pixels[5:28, 5:38][mask])
    data, suffix = to_cutouts(images[:2], lambda place: pixels)
    assert suffix == ".zip"
    assert opened(data).namelist() == ["a/1-ring.png", "a/2-bar.png", "a-2/1-bar.png"]
    with pytest.raises(ValueError, match="empty mask"):
        cutout(pixels, np.zeros((30, 40), bool))
    with pytest.raises(ValueError, match="size"):
        cutout(pixels, np.ones((3, 4), bool))


def test_project_holds_the_photos_and_reads_back(images: list[AnnotatedImage]) -> None:
    archive = opened(to_project(images, lambda place: [b"first", b"second", None][place]))
    assert archive.namelist() == ["images/a.jpg", "images/a-2.jpg", "annotations.json"]
    assert archive.read("images/a-2.jpg") == b"second"
    found = from_coco(json.loads(archive.read("annotations.json")))
    assert [i.file_name for i in found] == ["a.jpg", "a-2.jpg", "empty.png"]


def test_the_same_masks_make_the_same_file(images: list[AnnotatedImage]) -> None:
    assert to_masks(images) == to_masks(images)


def test_a_mask_of_another_size_is_named() -> None:
    wrong = AnnotatedImage("a.jpg", 10, 10, [AnnotatedObject.of(3, "x", bar())])
    for make in (to_coco, to_yolo, to_labelme, to_masks):
        with pytest.raises(ValueError, match=r"a.jpg, object 3: expected a mask of \[10, 10\]"):
            make([wrong])


def test_from_results() -> None:
    from seem.predict.model import Model
    from seem.prompts import Click
    from tests.conftest import make_photo
    from tests.fakes import WEIGHTS, FakeNetwork

    scene = Model(FakeNetwork(), WEIGHTS).encode(make_photo())  # type: ignore[arg-type]
    result = scene.segment(Click(30, 40), vocabulary=["red"])
    image = AnnotatedImage.of("a.png", [result], scene.size)
    assert image.objects == [AnnotatedObject(1, "red", result.to_rle(), result.score)]


@given(st.text(max_size=300))
def test_safe_names_are_one_plain_name(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe) <= 101
    assert not set(safe) & set('/\\:*?"<>|\0\n\r') and safe not in (".", "..") and safe[0] != "."
    assert safe_name(safe) == safe


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("photo 1.jpg", "photo 1.jpg"),
        ("../../../etc/passwd", "passwd"),
        ("..\\..\\evil.exe", "evil.exe"),
        ("con", "_con"),
        ("NUL.png", "_NUL.png"),
        (".hidden", "hidden"),
        ("猫.jpg", "猫.jpg"),
        ("a" * 300 + ".jpeg", "a" * 90 + ".jpeg"),
        ("", "image"),
    ],
)
def test_safe_name(name: str, safe: str) -> None:
    assert safe_name(name) == safe
