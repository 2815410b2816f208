"""Readers of data sets' layouts, on small folders made here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seem import geometry
from seem.data.leaks import find_leaks
from seem.data.records import RecordError, Rules, make_object, polygon_mask, read_coco, read_masks, split_rim
from seem.data.sets import SETS, TrainingSet, evenly, prepare, read_set
from seem.training.samples import decode_rle, read_records


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, **options)


def note(key: int, image: int, category: int, box: list[int], segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": key, "image_id": image, "category_id": category, "bbox": box, "segmentation": segmentation, **more}


def coco(folder: Path) -> dict[str, Any]:
    """Two photos; a polygon, run lengths, a crowd, a teacher's bad mask and an empty mask."""
    for i in (1, 2):
        photo(folder / f"images/{i}.png", i)
    mask = np.zeros((30, 40), bool)
    mask[10:20, 10:20] = True
    rle, packed = geometry.rle_encode(mask, compressed=False), geometry.rle_encode(mask)
    empty = geometry.rle_encode(np.zeros((30, 40), bool), compressed=False)
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30, "split": s} for i, s in
                   ((1, "train2017"), (2, "val2017"))],
        "categories": [{"id": 1, "name": "Hot_Dog"}, {"id": 2, "name": "grass"}],
        "annotations": [
            note(10, 1, 1, [5, 5, 10, 10], [[5, 5, 15, 5, 15, 15, 5, 15]]),
            note(11, 1, 1, [10, 10, 10, 10], rle, iscrowd=1),
            note(12, 1, 1, [0, 0, 40, 30], packed, teacher_score=0.9),
            note(13, 1, 1, [1, 2, 3, 4], empty),
            note(14, 2, 2, [0, 0, 1, 1], rle),
            note(15, 2, 2, [0, 0, 1, 1], [[0, 0, 4, 0, 4, 4, 0, 4]]),
        ],
    }  # fmt: skip


def write(folder: Path, data: dict[str, Any]) -> Path:
    (folder / "instances.json").write_text(json.dumps(data))
    return folder / "instances.json"


def test_coco(tmp_path: Path) -> None:
    rules = Rules(complete=True, human_boxes=True, kinds={"grass": "stuff"}, dev=lambda i: i["id"] == 2)
    first, second = read_coco("toy", write(tmp_path, coco(tmp_path)), tmp_path / "images", rules)
    assert (first["id"], first["width"], first["height"], first["complete"], first["dev"]) == (
        "toy/1",
        40,
        30,
        True,
        False,
    )
    polygon, crowd, teacher, empty = first["objects"]
    assert polygon["name"] == "hot dog"
    assert polygon["box"] == [5, 5, 15, 15]
    assert polygon["area"] == 100
    assert decode_rle(polygon["rle"])[5:15, 5:15].all()
    assert crowd["crowd"]
    assert not crowd["doubtful"]
    assert (teacher["doubtful"], teacher["quality"]) == (True, 0.9)
    assert (empty["rle"], empty["doubtful"], empty["box"]) == (None, True, [1, 2, 4, 6])
    (grass,) = second["objects"]  # two regions of stuff are one
    assert (grass["kind"], grass["area"]) == ("stuff", 116)
    assert second["dev"]


def test_coco_semantic_and_kept(tmp_path: Path) -> None:
    rules = Rules(semantic=True, keep=lambda image: image["split"] == "train2017")
    (record,) = read_coco("toy", write(tmp_path, coco(tmp_path)), tmp_path / "images", rules)
    (region,) = record["objects"]
    assert region["semantic"]


def change(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("annotations", to=3), "expected COCO's images, annotations and categories"),
        (change("annotations", 0, "category_id", to=9), "annotation 10: category_id 9 is not among the categories"),
        (change("annotations", 0, "image_id", to=9), "annotation of image 9: there is no such image"),
        (change("annotations", 0, "segmentation", to=[[1, 2]]), "annotation 10: segmentation: expected x, y of 3"),
        (change("annotations", 0, "segmentation", to="x"), "annotation 10: segmentation: expected polygons"),
        (change("annotations", 1, "segmentation", "counts", to=[5]), "annotation 11: rle.counts"),
        (change("annotations", 1, "segmentation", "size", to=[40, 30]), "annotation 11: segmentation is 30x40"),
        (change("annotations", 0, "bbox", to=[1]), "annotation 10"),
        (change("images", 0, "width", to=41), "image 1: 41x30 stated, .*1.png is 40x30"),
        (change("images", 0, "file_name", to="no.png"), "no.png: not a readable image"),
        (change("images", 0, to=7), "image 7: no 'file_name'"),
    ],
)
def test_bad_coco_records_are_named(edit: Callable[[dict[str, Any]], None], message: str, tmp_path: Path) -> None:
    data = coco(tmp_path)
    edit(data)
    with pytest.raises(RecordError, match=message):
        list(read_coco("toy", write(tmp_path, data), tmp_path / "images", Rules(human_boxes=True)))
    (tmp_path / "instances.json").write_text("{")
    with pytest.raises(RecordError, match=r"instances\.json: not readable as JSON"):
        list(read_coco("toy", tmp_path / "instances.json", tmp_path / "images"))


def save_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def test_binary_masks(tmp_path: Path) -> None:
    for i in range(4):
        photo(tmp_path / f"images/{i}.jpg", i)
        values = np.zeros((30, 40))
        values[5:15, 5:15] = 255
        save_mask(tmp_path / f"masks/{i}.png", values if i else np.zeros((30, 40)))
    photo(tmp_path / "images/alone.jpg")
    (tmp_path / "names.json").write_text(json.dumps({"values": {"255": "object"}, "files": {"1": ["Gold_fish", "x"]}}))
    records = list(read_masks("toy", tmp_path, Rules(dev=evenly(2))))
    assert [len(r["objects"]) for r in records] == [0, 1, 1, 1]
    assert [r["objects"][0]["name"] for r in records[1:]] == ["gold fish", None, None]
    assert [r["dev"] for r in records] == [True, False, True, False]


def test_label_maps(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.png")
    values = np.zeros((30, 40))
    values[:10], values[20:] = 1, 2
    save_mask(tmp_path / "masks/a.png", values)
    (tmp_path / "names.json").write_text(json.dumps({"values": {"0": "none", "1": "sky", "2": "windowpane"}}))
    rules = Rules(kinds={"sky": "stuff"}, names={"windowpane": "window"})
    (record,) = read_masks("toy", tmp_path, rules)
    assert [(o["name"], o["kind"], o.get("semantic", False)) for o in record["objects"]] == [
        ("sky", "stuff", False),
        ("window", "thing", True),
    ]
    save_mask(tmp_path / "masks/a.png", values * 2)
    with pytest.raises(RecordError, match=r"a\.png: value 4 has no name"):
        list(read_masks("toy", tmp_path, rules))
    save_mask(tmp_path / "masks/a.png", values[:20])
    with pytest.raises(RecordError, match=r"a\.png: 40x20, its photo is 40x30"):
        list(read_masks("toy", tmp_path, rules))
    (tmp_path / "masks/a.png").write_bytes(b"not a picture")
    with pytest.raises(RecordError, match=r"a\.png: not a readable mask"):
        list(read_masks("toy", tmp_path, rules))


def test_rim_is_halved() -> None:
    values = np.zeros((9, 9), np.uint8)
    values[:, :3], values[:, 3:7] = 255, 128
    assert split_rim(values)[4].tolist() == [True] * 5 + [False] * 4


def test_polygon_mask() -> None:
    assert polygon_mask([[1, 1, 3, 1, 3, 3, 1, 3]], (5, 5)).sum() == 4
    assert polygon_mask([[0, 0, 4, 0, 4, 2, 0, 2], [0, 1, 4, 1, 4, 4, 0, 4]], (4, 4)).all()  # a union
    assert polygon_mask([[1.1, 1.1, 1.6, 1.1, 1.6, 1.6, 1.1, 1.6]], (5, 5)).sum() == 1  # small, but not lost
    assert not polygon_mask([[9, 9, 12, 9, 12, 12]], (5, 5)).any()
    assert not polygon_mask([], (5, 5)).any()


def test_nothing_left_of_an_object() -> None:
    assert make_object(np.zeros((3, 3), bool), None) is None
    assert make_object(np.zeros((3, 3), bool), "dog") is None


def test_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(tmp_path / "images/a.jpg", exif=exif)
    save_mask(tmp_path / "masks/a.png", np.full((40, 30), 255))
    (record,) = read_masks("toy", tmp_path)
    assert (record["width"], record["height"]) == (30, 40)


# ---- sets ---------------------------------------------------------------------------------------------------------


def test_leaks_are_found(tmp_path: Path) -> None:
    for i in range(5):
        photo(tmp_path / f"{i}.png", i, (160, 120))
    with Image.open(tmp_path / "3.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((90, 70)).save(tmp_path / "copy.jpg", quality=70)
    train = {str(i): tmp_path / f"{i}.png" for i in range(5)}
    (leak,) = find_leaks(train, {"test": tmp_path / "copy.jpg"})
    assert (leak.train, leak.test) == ("3", "test")
    assert find_leaks({}, {}) == []


def test_prepare(tmp_path: Path) -> None:
    """A known set, one of one's own, a leak, relative paths."""
    data = coco(tmp_path / "data/coco_mini")
    write(tmp_path / "data/coco_mini", data)
    (tmp_path / "data/grabcut/images").mkdir(parents=True)
    for i in (8, 9):
        photo(tmp_path / f"own/images/{i}.png", i)
        save_mask(tmp_path / f"own/masks/{i}.png", np.full((30, 40), 255))
    photo(tmp_path / "data/grabcut/images/x.png", 9, (80, 60))
    lines: list[str] = []
    counts = prepare([tmp_path / "data", tmp_path / "own"], tmp_path / "out", report=lines.append)
    assert counts == {"coco_mini": 1, "own": 1}
    assert [leak["train"] for leak in json.loads((tmp_path / "out/leaks.json").read_text())] == ["own/9"]
    assert any("1 leaks removed" in line for line in lines)
    (record,) = read_records([tmp_path / "out/coco_mini.jsonl"])
    assert not Path(json.loads((tmp_path / "out/coco_mini.jsonl").read_text())["image"]).is_absolute()
    assert Path(record["image"]).is_file()
    with pytest.raises(RecordError, match="no known set"):
        prepare([tmp_path / "out"], tmp_path / "out2")
    with pytest.raises(RecordError, match="no such folder"):
        prepare([tmp_path / "nowhere"], tmp_path / "out2")


def test_referring_images_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "coco_boxes", coco(tmp_path / "coco_boxes"))
    row = SETS["coco_boxes"]
    with pytest.raises(RecordError, match=r"refcocos\.json: its images must be left out"):
        read_set(row, tmp_path / "coco_boxes", tmp_path)
    (tmp_path / "refcocos_text").mkdir()
    (tmp_path / "refcocos_text/refcocos.json").write_text('[{"image_id": 1}]')
    assert [r["id"] for r in read_set(row, tmp_path / "coco_boxes", tmp_path)] == ["coco_boxes/2"]


def test_photos_are_drawn_with_a_fixed_seed(tmp_path: Path) -> None:
    for i in range(6):
        photo(tmp_path / f"images/{i}.png", i)
        save_mask(tmp_path / f"masks/{i}.png", np.full((30, 40), 255))
    row = TrainingSet("toy", Rules(dev=evenly(1)), photos=2)
    ids = [r["id"] for r in read_set(row, tmp_path)]
    assert len(ids) == 3  # one of them of the development split
    assert ids == [r["id"] for r in read_set(row, tmp_path)]


def test_table_says_what_it_should() -> None:
    assert {n for n, s in SETS.items() if s.rules.complete} == {"coco_mini", "coco_boxes", "coco_extra"}
    assert not {"grabcut", "davis16_val", "weizmann_horses"} & set(SETS)
