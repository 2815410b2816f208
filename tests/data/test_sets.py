"""The table of training sets, `prepare`, and the check for leaks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seem.data.leaks import find_leaks, photos_of
from seem.data.records import RecordError, Rules, make_object
from seem.data.sets import SETS, TrainingSet, evenly, prepare, read_set
from seem.training.samples import read_records
from tests.data.toy import coco, photo, save_mask, write

FULL = np.full((30, 40), 255)


def test_leaks_are_found(tmp_path: Path) -> None:
    for i in range(5):
        photo(tmp_path / f"train/{i % 2}/{i}.png", i, (160, 120))
    with Image.open(tmp_path / "train/1/3.png") as image:
        copy = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((90, 70))
        turned = image.transpose(Image.Transpose.ROTATE_90)
    (tmp_path / "test").mkdir()
    copy.save(tmp_path / "test/copy.jpg", quality=70)
    (leak,) = find_leaks(photos_of(tmp_path / "train"), photos_of(tmp_path / "test"))
    assert (leak.train, leak.test) == ("1/3.png", "copy.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "test/copy.jpg", exif=exif)  # stored on its side, seen upright
    records = [{"id": "own/3", "image": str(tmp_path / "train/1/3.png")}]
    (leak,) = find_leaks(photos_of(records), photos_of(tmp_path / "test"))
    assert (leak.train, leak.test) == ("own/3", "copy.jpg")
    assert find_leaks({}, {}) == []


def test_leaks_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such folder"):
        photos_of(tmp_path / "no")
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(RecordError, match=r"a\.png: not a readable image"):
        find_leaks(photos_of(tmp_path), photos_of(tmp_path))


def test_many_photos_are_compared_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seem.data.leaks.CHUNK", 2)
    for i in range(5):
        photo(tmp_path / f"{i}.png", i)
    assert [leak.train for leak in find_leaks(photos_of(tmp_path), photos_of(tmp_path))] == [
        f"{i}.png" for i in range(5)
    ]


def test_prepare(tmp_path: Path) -> None:
    """A known set, one of one's own, a leak, relative paths, and a repair that is reported."""
    data = coco(tmp_path / "data/coco_mini")
    del data["images"][0]["width"]
    write(tmp_path / "data/coco_mini", data)
    (tmp_path / "data/grabcut/images").mkdir(parents=True)
    for i in (8, 9):
        photo(tmp_path / f"own/images/{i}.png", i)
        save_mask(tmp_path / f"own/masks/{i}.png", FULL)
    photo(tmp_path / "data/grabcut/images/x.png", 9, (80, 60))
    lines: list[str] = []
    counts = prepare([tmp_path / "data", tmp_path / "own"], tmp_path / "out", report=lines.append)
    assert counts == {"coco_mini": 1, "own": 1}
    assert [leak["train"] for leak in json.loads((tmp_path / "out/leaks.json").read_text())] == ["own/9"]
    assert "own: 1 photos, 1 objects, 1 leaks removed" in lines
    assert "coco_mini: repaired 1 × no width or height: read from the file (image 1)" in lines
    (record,) = read_records([tmp_path / "out/coco_mini.jsonl"])
    assert not Path(json.loads((tmp_path / "out/coco_mini.jsonl").read_text())["image"]).is_absolute()
    assert Path(record["image"]).is_file()
    with pytest.raises(RecordError, match="no known set; expected COCO"):
        prepare([tmp_path / "out"], tmp_path / "out2")
    with pytest.raises(RecordError, match="no such folder"):
        prepare([tmp_path / "nowhere"], tmp_path / "out2")


def test_prepare_reads_any_layout(tmp_path: Path) -> None:
    root = tmp_path / "scenes"
    photo(root / "images/training/a.jpg")
    save_mask(root / "annotations/training/a.png", FULL * 0 + 1)
    (root / "names.txt").write_text("earth\n")
    assert prepare([root], tmp_path / "out", complete=True, report=lambda line: None) == {"scenes": 1}
    (record,) = read_records([tmp_path / "out/scenes.jsonl"])
    assert record["complete"] and record["annotated"] == ["ground"]
    assert record["objects"][0]["kind"] == "stuff"


def test_referring_images_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "coco_boxes", coco(tmp_path / "coco_boxes"))
    row = SETS["coco_boxes"]
    with pytest.raises(RecordError, match=r"refcocos\.json: its images must be left out"):
        read_set(row, tmp_path / "coco_boxes")
    (tmp_path / "refcocos_text").mkdir()
    (tmp_path / "refcocos_text/refcocos.json").write_text('[{"image_id": 1}]')
    assert [r["id"] for r in read_set(row, tmp_path / "coco_boxes")] == ["coco_boxes/2"]


def test_photos_are_drawn_with_a_fixed_seed(tmp_path: Path) -> None:
    for i in range(6):
        photo(tmp_path / f"images/{i}.png", i)
        save_mask(tmp_path / f"masks/{i}.png", FULL)
    row = TrainingSet("toy", Rules(dev=evenly(1)), photos=2)
    ids = [r["id"] for r in read_set(row, tmp_path)]
    assert len(ids) == 3  # one of them of the development split
    assert ids == [r["id"] for r in read_set(row, tmp_path)]


def test_table_says_what_it_should() -> None:
    assert {n for n, s in SETS.items() if s.rules.complete} == {"coco_mini", "coco_boxes", "coco_extra"}
    assert not {"grabcut", "davis16_val", "weizmann_horses"} & set(SETS)


def test_nothing_left_of_an_object() -> None:
    assert make_object(np.zeros((3, 3), bool), None) is None
    assert make_object(np.zeros((3, 3), bool), "dog") is None


def test_prepare_takes_a_layout_and_a_split(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"layout: expected auto, .*coco-panoptic.*, got 'coc'"):
        prepare([tmp_path], tmp_path / "out", layout="coc")
    with pytest.raises(RecordError):
        prepare([tmp_path], tmp_path / "out", layout="voc", split="val")
