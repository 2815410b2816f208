"""images/ beside masks/."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seem.data.folders import read_masks
from seem.data.records import RecordError, Rules
from seem.data.sets import evenly
from tests.data.toy import mask_of, photo, rectangle, save_mask, turned_photo

INSIDE = rectangle(5, 5, 15, 15)


def test_binary_masks(tmp_path: Path) -> None:
    for i in range(4):
        photo(tmp_path / f"images/{i}.jpg", i)
        save_mask(tmp_path / f"masks/{i}.png", INSIDE * 255 if i else INSIDE * 0)
    photo(tmp_path / "images/alone.jpg")
    (tmp_path / "names.json").write_text(json.dumps({"values": {"255": "object"}, "files": {"1": ["Gold_fish", "x"]}}))
    records = list(read_masks("toy", tmp_path, Rules(dev=evenly(2))))
    assert [len(r["objects"]) for r in records] == [0, 1, 1, 1]
    assert [r["objects"][0]["name"] for r in records[1:]] == ["gold fish", None, None]
    assert [r["dev"] for r in records] == [True, False, True, False]
    assert (mask_of(records[1]["objects"][0]) == INSIDE).all()


def test_zero_and_one(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.png")
    save_mask(tmp_path / "masks/a.png", INSIDE)
    (record,) = read_masks("toy", tmp_path)
    assert (mask_of(record["objects"][0]) == INSIDE).all()


def test_label_maps(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.png")
    values = rectangle(0, 0, 40, 10) + 2 * rectangle(0, 20, 40, 30)
    save_mask(tmp_path / "masks/a.png", values)
    names = {"0": "none", "1": "sky", "2": "windowpane", "3": "sea"}
    (tmp_path / "names.json").write_text(json.dumps({"values": names}))
    (record,) = read_masks("toy", tmp_path, Rules(kinds={"sky": "stuff"}, names={"windowpane": "window"}))
    assert [(o["name"], o["kind"], o.get("semantic", False)) for o in record["objects"]] == [
        ("sky", "stuff", False),
        ("window", "thing", True),
    ]
    assert record["annotated"] == ["sea", "sky", "window"]  # the sea is absent
    assert (mask_of({"rle": record["ignore"]}) == (values == 0)).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (rectangle(0, 0, 9, 9) * 4, r"a\.png: value 4 has no name"),
        (rectangle(0, 0, 9, 9)[:20], r"a\.png: 40x20, its photo is 40x30"),
        (None, r"a\.png: not a readable mask"),
    ],
)
def test_bad_label_maps(values: np.ndarray | None, message: str, tmp_path: Path) -> None:
    photo(tmp_path / "images/a.png")
    (tmp_path / "names.json").write_text(json.dumps({"values": {"1": "sky"}}))
    if values is None:
        photo(tmp_path / "masks/a.png").write_bytes(b"not a picture")
    else:
        save_mask(tmp_path / "masks/a.png", values)
    with pytest.raises(RecordError, match=message):
        list(read_masks("toy", tmp_path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([1], r"names\.json: expected objects 'values' or 'files'"),
        ({"values": {"one": "sky"}}, r"names\.json: expected a list of names, or numbers with names"),
        (None, r"a\.png: expected 0 and 255, got numbers up to 7; names\.json can name them"),
    ],
)
def test_numbers_without_names(names: object, message: str, tmp_path: Path) -> None:
    photo(tmp_path / "images/a.png")
    save_mask(tmp_path / "masks/a.png", INSIDE * 7)
    if names is not None:
        (tmp_path / "names.json").write_text(json.dumps(names))
    with pytest.raises(RecordError, match=message):
        list(read_masks("toy", tmp_path))


def test_one_name_twice(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        photo(tmp_path / "images" / name)
    save_mask(tmp_path / "masks/a.png", INSIDE)
    with pytest.raises(RecordError, match=r"a\.png: a\.jpg has the same name"):
        list(read_masks("toy", tmp_path))


@pytest.mark.parametrize("drawn_on", ["seen", "stored"])
def test_exif_rotation(drawn_on: str, tmp_path: Path) -> None:
    turned_photo(tmp_path / "images/a.jpg", 6)
    stored = rectangle(0, 0, 10, 5)
    save_mask(tmp_path / "masks/a.png", 255 * (stored if drawn_on == "stored" else np.rot90(stored, -1)))
    (record,) = read_masks("toy", tmp_path)
    assert (record["width"], record["height"]) == (30, 40)
    assert (mask_of(record["objects"][0]) == np.rot90(stored, -1)).all()
