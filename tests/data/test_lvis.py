"""LVIS: what is known of a photo, and its masks for COCO's objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seem import geometry
from seem.data.lvis import merge_masks, read_coco_with_lvis, read_lvis
from seem.data.records import Record, RecordError, Repairs, Rules, make_object, make_record
from tests.data.toy import mask_of, note, photo, rectangle, write

NAMES = ("aerosol_can", "dog_collar", "person", "sky", "cat")


def lvis(folder: Path) -> dict[str, Any]:
    """A can, all of them marked; a collar among others that are not; no cat; nothing said about the rest."""
    photo(folder / "train2017/000000000001.png")
    return {
        "images": [{
            "id": 1, "coco_url": "http://images.cocodataset.org/train2017/000000000001.png", "width": 40, "height": 30,
            "neg_category_ids": [5], "not_exhaustive_category_ids": [2],
        }],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)],
        "annotations": [
            note(1, 1, 1, [5, 5, 10, 10], [[5, 5, 15, 5, 15, 15, 5, 15]]),
            note(2, 1, 2, [20, 5, 10, 10], geometry.rle_encode(rectangle(20, 5, 30, 15))),
        ],
    }  # fmt: skip


def test_lvis(tmp_path: Path) -> None:
    repairs = Repairs()
    (record,) = read_lvis("lvis", write(tmp_path, lvis(tmp_path)), tmp_path, Rules(), repairs)
    assert [o["name"] for o in record["objects"]] == ["aerosol can", "dog collar"]
    assert record["annotated"] == ["aerosol can", "cat"]
    assert record["id"] == "lvis/train2017/000000000001"
    assert not repairs.counts


def test_unknown_categories(tmp_path: Path) -> None:
    data = lvis(tmp_path)
    data["images"][0]["neg_category_ids"] = [9]
    with pytest.raises(RecordError, match=r"image 1: neg_category_ids: 9 is not among the categories"):
        list(read_lvis("lvis", write(tmp_path, data), tmp_path))


@pytest.mark.parametrize(
    ("box", "replaced"),
    [
        ((10, 10, 20, 20), True),
        ((10, 10, 20, 18), True),  # 0.8
        ((10, 10, 20, 17), False),  # exactly 0.7
        ((11, 11, 21, 21), False),
        ((30, 20, 40, 30), False),
    ],
)
def test_merge_rule(box: tuple[int, int, int, int], replaced: bool) -> None:
    theirs = make_object(rectangle(*box), "lvis name")
    other = make_object(rectangle(0, 0, 3, 3), "far away")
    ours = make_object(rectangle(10, 10, 20, 20), "dog")
    assert theirs and other
    (merged,) = merge_masks(record_of(ours), [other, theirs])["objects"]
    assert (mask_of(merged) == rectangle(*(box if replaced else (10, 10, 20, 20)))).all()
    assert merged["name"] == "dog"
    assert merged["area"] == (rectangle(*box).sum() if replaced else 100)


def record_of(*objects: Any) -> Record:
    return make_record("toy", "1", Path("1.png"), (40, 30), objects)


def test_the_most_similar_box_wins_and_crowds_stay() -> None:
    mask = rectangle(10, 10, 20, 20)
    near, nearer = (make_object(rectangle(10, 10, 20, y), "x") for y in (18, 19))
    assert near and nearer
    record = record_of(
        make_object(mask, "dog"),
        make_object(mask, "dog", crowd=True),
        make_object(mask, "sky", "stuff"),
        make_object(mask, "dogs", semantic=True),
        make_object(mask & False, "cat", box=(10, 10, 20, 20)),
    )
    merged = merge_masks(record, [near, nearer])
    assert [o["area"] for o in merged["objects"]] == [90, 100, 100, 100, 0]
    assert merge_masks(record, []) == record


def test_coco_with_lvis(tmp_path: Path) -> None:
    """COCO's names and objects, LVIS's mask for the one whose box agrees."""
    better = write(tmp_path, lvis(tmp_path), "lvis_v1_train.json")
    photo(tmp_path / "train2017/000000000002.png", 2)
    square = [[5, 5, 15, 5, 15, 14, 5, 14]]
    data = {
        "images": [{"id": i, "file_name": f"00000000000{i}.png", "width": 40, "height": 30} for i in (1, 2)],
        "categories": [{"id": 44, "name": "bottle"}],
        "annotations": [note(1, 1, 44, None, square), note(2, 2, 44, None, square)],
    }
    index = write(tmp_path, data, "instances_train2017.json")
    first, second = read_coco_with_lvis("coco", index, better, tmp_path / "train2017")
    assert [(o["name"], o["area"]) for o in first["objects"]] == [("bottle", 100)]
    assert [(o["name"], o["area"]) for o in second["objects"]] == [("bottle", 90)]
