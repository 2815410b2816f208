from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from seem import geometry
from seem.evaluation import referring
from seem.evaluation.datasets import DatasetError
from seem.evaluation.expressions import open_expressions
from seem.predict.model import Model
from tests.conftest import BLUE_BOX, RED_BOX, box_mask, make_photo


@pytest.fixture
def refcoco(tmp_path: Path) -> Path:
    """RefCOCO's layout: two references on one photo, the first with two sentences; a third to train on."""
    photos, root = tmp_path / "train2014", tmp_path / "refcoco"
    photos.mkdir()
    root.mkdir()
    Image.fromarray(make_photo()).save(photos / "COCO_train2014_000000000007.png")
    instances = {
        "images": [{"id": 7, "width": 160, "height": 120, "file_name": "COCO_train2014_000000000007.jpg"}],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": 1, "segmentation": geometry.rle_encode(box_mask(box))}
            for i, box in ((1, RED_BOX), (2, BLUE_BOX))
        ],
        "categories": [{"id": 1, "name": "square"}],
    }
    references = [
        {"ref_id": 10, "ann_id": 1, "split": "val", "sentences": ["red", "the red square"]},
        {"ref_id": 11, "ann_id": 2, "split": "val", "sentences": ["red"]},  # wrong on purpose
        {"ref_id": 12, "ann_id": 2, "split": "train", "sentences": ["blue"]},
    ]
    for reference in references:
        reference |= {"image_id": 7, "sentences": [{"sent": s, "raw": s} for s in reference["sentences"]]}
    (root / "instances.json").write_text(json.dumps(instances))
    (root / "refs(unc).json").write_text(json.dumps(references))
    return root


def test_refcoco(model: Model, refcoco: Path) -> None:
    data = open_expressions(refcoco)
    assert (data.name, data.split) == ("refcoco", "val")
    assert [(e.key, e.sentence, e.first) for e in data.items] == [
        ("7#10.0", "red", True),
        ("7#10.1", "the red square", False),
        ("7#11.0", "red", True),
    ]
    assert open_expressions(refcoco, split="train").items[0].sentence == "blue"
    rows = list(referring.evaluate(model, data))
    assert [r["iou"] > 0.8 for r in rows] == [True, True, False] and rows[2]["both"] == 0
    figures = referring.figures(rows)
    assert figures["kind"] == "mask"
    assert figures["ciou"] == pytest.approx(sum(r["both"] for r in rows) / sum(r["union"] for r in rows))
    assert figures["miou"] == pytest.approx(sum(r["iou"] for r in rows) / 3)
    assert figures["precision"]["50"] == pytest.approx(2 / 3) and set(figures["precision"]) == {
        "50",
        "60",
        "70",
        "80",
        "90",
    }
    assert figures["first_sentences"]["precision"]["50"] == 0.5


def test_boxes_are_scaled_to_the_stored_photo(model: Model, sentences: Path) -> None:
    data = open_expressions(sentences)
    assert [(e.sentence, e.first, e.size) for e in data.items[:2]] == [
        ("red", True, (320, 240)),
        ("the red thing", False, (320, 240)),
    ]
    assert referring.scaled_box(data.items[0], (160, 120)) == RED_BOX
    rows = list(referring.evaluate(model, data))
    assert [r["iou"] > 0.8 for r in rows] == [True, True, True, False]
    figures = referring.figures(rows)
    assert figures["kind"] == "box" and figures["ciou"] is None and figures["precision"]["50"] == 0.75


def set_record(**values: object) -> Callable[[list[dict]], None]:
    return lambda records: records[1].update(values)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_record(box_xyxy=[1, 2, 3]), "record 1: expected a sentence and a box"),
        (set_record(box_xyxy=[5, 2, 3, 9]), "record 1: expected a sentence and a box"),
        (set_record(sentence=" "), "record 1: expected a sentence and a box"),
        (set_record(box_xyxy="x"), "record 1: expected image_id, sentence"),
        (set_record(image_id=8), "record 1: no photo of image_id 8"),
        (lambda records: records[1].pop("width"), "record 1: expected image_id, sentence"),
        (list.clear, "no sentences to evaluate"),
    ],
)
def test_bad_sentences_are_named(sentences: Path, change: Callable[[list[dict]], object], says: str) -> None:
    records = json.loads((sentences / "list.json").read_text())
    change(records)
    (sentences / "list.json").write_text(json.dumps(records))
    with pytest.raises(DatasetError, match=says) as error:
        open_expressions(sentences)
    assert "list.json" in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_record(ann_id=99), "reference 11: ann_id 99"),
        (set_record(sentences=[{}]), "reference 11: expected sentences with their text"),
        (lambda records: [r.update(split="train") for r in records], "no reference has split 'val'; got train"),
    ],
)
def test_bad_references_are_named(refcoco: Path, change: Callable[[list[dict]], object], says: str) -> None:
    path = refcoco / "refs(unc).json"
    records = json.loads(path.read_text())
    change(records)
    path.write_text(json.dumps(records))
    with pytest.raises(DatasetError, match=says):
        open_expressions(refcoco)


def test_masks_of_another_size_than_the_photo(model: Model, refcoco: Path) -> None:
    Image.fromarray(make_photo()[:60]).save(refcoco.parent / "train2014" / "COCO_train2014_000000000007.png")
    with pytest.raises(DatasetError, match=r"000000000007\.png: 7#10\.0: expected a photo of 160x120"):
        list(referring.evaluate(model, open_expressions(refcoco)))


def test_references_as_published_and_a_pickle_that_would_run(model: Model, refcoco: Path) -> None:
    as_json = refcoco / "refs(unc).json"
    (refcoco / "refs(unc).p").write_bytes(pickle.dumps(json.loads(as_json.read_text()), protocol=2))
    as_json.unlink()
    assert [e.key for e in open_expressions(refcoco).items] == ["7#10.0", "7#10.1", "7#11.0"]
    (refcoco / "refs(unc).p").write_bytes(pickle.dumps(Path))
    with pytest.raises(DatasetError, match=r"refs\(unc\)\.p: not readable"):
        open_expressions(refcoco)
