"""Text, label, find, reference, composition and panoptic on two small photos with the fake model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seem.evaluation import composition, find, label, panoptic, reference, text
from seem.evaluation.datasets import DatasetError, open_dataset
from seem.evaluation.metrics import FALSE, TRUE
from seem.predict.model import Model
from seem.vocabulary import COCO_THING_NAMES
from tests.conftest import BLUE_BOX, RED_BOX, box_mask, make_photo
from tests.evaluation.conftest import coco_document, write_coco


def with_two_reds(root: Path) -> Path:
    """Photo 2's red square as two halves, left and right."""
    document = coco_document()
    left, right = ([[x, 30.0, x + 20, 30.0, x + 20, 70.0, x, 70.0]] for x in (20.0, 40.0))
    document["annotations"][1]["segmentation"] = left
    document["annotations"].append({**document["annotations"][1], "id": 24, "segmentation": right})
    return write_coco(root, document)


# ---- text ---------------------------------------------------------------------------------------------------------


def test_text_rows(model: Model, coco: Path) -> None:
    rows = list(text.evaluate(model, open_dataset(coco)))
    named = {r["name"]: r for r in rows if r["kind"] == "name"}
    assert set(named) == {"red", "green"}  # blue has a crowd beside it: nobody knows how many there are
    assert named["red"]["segment_iou"] > 0.8 and named["green"]["segment_iou"] > 0.8
    assert [r["name"] for r in rows if r["kind"] == "absent"] == ["yellow"]
    assert len({r["key"] for r in rows}) == len(rows)
    figures = text.figures(rows)
    assert (figures["n"], figures["n_large"]) == (2, 2)
    assert figures["iou"] == pytest.approx((named["red"]["iou"] + named["green"]["iou"]) / 2)
    assert figures["position"]["n"] == 0 and figures["position"]["right"] is None


def test_position_words_and_their_phrases(model: Model, tmp_path: Path) -> None:
    rows = list(text.evaluate(model, open_dataset(with_two_reds(tmp_path))))
    position = {r["word"]: r for r in rows if r["kind"] == "position"}
    assert set(position) == {"left", "right"}
    assert all(r["instances"] == 2 and r["name"] == "red" for r in position.values())
    assert text.figures(rows)["position"]["chance"] == 0.5


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([(0, 40, 20, 60), (80, 40, 100, 60)], {"left": 0, "right": 1}),
        ([(40, 0, 60, 20), (40, 80, 60, 100)], {"top": 0, "bottom": 1}),
        ([(0, 40, 40, 90), (50, 40, 60, 60)], {"left": 0, "right": 1, "top": 1, "bottom": 0, "largest": 0,
                                               "smallest": 1, "nearest": 0}),
        ([(0, 40, 20, 60), (2, 42, 22, 62)], {}),  # nothing is plain
        ([(0, 0, 20, 20), (40, 40, 60, 60), (80, 80, 100, 100)], {"left": 0, "right": 2, "top": 0, "bottom": 2}),
        ([(0, 0, 40, 40), (50, 50, 60, 60)], {"left": 0, "right": 1, "top": 0, "bottom": 1, "largest": 0,
                                              "smallest": 1}),  # the larger one stands higher: which is nearer?
    ],
)  # fmt: skip
def test_plain_words(boxes: list[tuple[int, int, int, int]], words: dict[str, int]) -> None:
    masks = []
    for x0, y0, x1, y1 in boxes:
        mask = np.zeros((100, 100), bool)
        mask[y0:y1, x0:x1] = True
        masks.append(mask)
    assert text.plain_words(masks) == words
    assert set(words) <= set(text.PHRASES)


def test_absent_names_are_the_same_in_any_subset() -> None:
    names = text.absent_names(COCO_THING_NAMES, {"dog", "cat"}, "x", 0)
    assert names == text.absent_names(COCO_THING_NAMES, {"dog", "cat"}, "x", 0)
    assert len(set(names)) == 5 and not {"dog", "cat"} & set(names)
    assert names != text.absent_names(COCO_THING_NAMES, {"dog", "cat"}, "y", 0)


def test_synonyms_are_twenty_of_coco() -> None:
    assert len(text.SYNONYMS) == 20 and set(text.SYNONYMS) <= set(COCO_THING_NAMES)
    assert not set(text.SYNONYMS.values()) & set(COCO_THING_NAMES)


def test_text_figures_by_hand() -> None:
    base = {"kind": "name", "image": "a", "segment_iou": 0.5, "score": 0.6}
    rows = [
        {**base, "key": "1", "name": "dog", "area": 0.2, "iou": 0.8, "synonym_iou": 0.6},
        {**base, "key": "2", "name": "cup", "area": 0.001, "iou": 0.0},
        {"kind": "absent", "image": "a", "key": "3", "name": "cat", "found": 2},
        {"kind": "absent", "image": "a", "key": "4", "name": "bus", "found": 0},
    ]
    figures = text.figures(rows)
    assert (figures["iou"], figures["iou_large"], figures["false_positive"]) == (0.4, 0.8, 0.5)
    assert figures["synonyms"] == {"n": 1, "iou_name": 0.8, "iou_synonym": 0.6}
    assert figures["calibration"]["mean_abs_error"] == pytest.approx(0.1)


# ---- label, find, panoptic ----------------------------------------------------------------------------------------


def test_label(model: Model, coco: Path) -> None:
    rows = list(label.evaluate(model, open_dataset(coco)))
    assert [(r["name"], r["names"][0]) for r in rows] == [("red", "red"), ("green", "green"), ("blue", "blue")]
    assert all(len(r["names"]) == 4 for r in rows)
    figures = label.figures(rows)
    assert (figures["top1"], figures["top5"], figures["wrong"]) == (1.0, 1.0, {})
    rows[0]["names"] = ["blue", "red"]
    figures = label.figures(rows)
    assert figures["top1"] == pytest.approx(2 / 3) and figures["top5"] == 1.0 and figures["wrong"] == {"red -> blue": 1}


def test_find_looks_at_classes_with_several_instances(model: Model, tmp_path: Path) -> None:
    dataset = open_dataset(with_two_reds(tmp_path))
    rows = list(find.evaluate(model, dataset))
    assert [(r["name"], r["instances"]) for r in rows] == [("red", 2)]
    assert all(find.LEAST <= s <= 1 for s in rows[0]["score"]) and len(rows[0]["score"]) == len(rows[0]["outcome"])


def test_find_zooms(model: Model, tmp_path: Path) -> None:
    dataset = open_dataset(with_two_reds(tmp_path))
    plain, zoomed = (list(find.evaluate(model, dataset, zoom=zoom)) for zoom in (False, True))
    assert [row["key"] for row in plain] == [row["key"] for row in zoomed]
    assert zoomed[0]["score"] and set(zoomed[0]["score"]) <= set(plain[0]["score"])


def test_find_figures_by_hand() -> None:
    rows = [
        {"image": "a", "key": "a#x", "name": "x", "instances": 2, "score": [0.9, 0.8], "outcome": [TRUE, TRUE]},
        {"image": "b", "key": "b#y", "name": "y", "instances": 2, "score": [0.7, 0.4], "outcome": [FALSE, TRUE]},
    ]
    figures = find.figures(rows)
    assert (figures["recall"], figures["precision"]) == (0.5, pytest.approx(2 / 3))  # at the default threshold, 0.5
    assert figures["ap50_default"] == 0.5
    assert figures["ap50"] == pytest.approx((1 + 0.5 * 51 / 101) / 2)
    assert figures["ap50_pooled"] == pytest.approx((51 + 0.75 * 25) / 101)


def test_panoptic(model: Model, coco: Path) -> None:
    dataset = open_dataset(coco)
    rows = list(panoptic.evaluate(model, dataset))
    assert {r["name"] for r in rows if r["instances"]} == {"red", "green", "blue"}
    figures = panoptic.figures(rows)
    assert figures["n"] == 1 and panoptic.scope(dataset) == "things only" and set(figures["pq"]) == {"things"}
    assert figures["ap50"] > 0.3 and figures["ap"] <= figures["ap50"]
    assert figures["pq"]["things"] <= figures["rq"]["things"]
    assert figures["miou"]["things"] > 0.5


def test_panoptic_figures_by_hand() -> None:
    def row(name: str, stuff: bool, segments: tuple[int, int, int, float], pixels: tuple[int, int, int]) -> dict:
        made = {"image": "a", "key": name, "name": name, "stuff": stuff}
        made["segments"] = dict(zip(("hits", "wrong", "missed", "iou"), segments, strict=True))
        made["pixels"] = dict(zip(("both", "answer", "truth"), pixels, strict=True))
        return made

    things = row("cat", False, (2, 1, 1, 1.4), (30, 40, 60))
    things |= {"instances": 1, "score": [0.9], "outcome": [[TRUE]] * 5 + [[FALSE]] * 5}  # IoU 0.5 to 0.7
    invented = row("dog", False, (0, 1, 0, 0.0), (0, 10, 0)) | {"instances": 0, "score": [], "outcome": [[]] * 10}
    figures = panoptic.figures([things, invented, row("sky", True, (1, 0, 0, 0.9), (90, 100, 90))])
    assert figures["sq"]["stuff"] == figures["pq"]["stuff"] == pytest.approx(0.9)
    assert figures["pq"]["things"] == pytest.approx((0.7 * 2 / 3 + 0) / 2)
    assert figures["pq"]["all"] == pytest.approx((0.7 * 2 / 3 + 0 + 0.9) / 3)
    assert figures["miou"] == {"all": pytest.approx((3 / 7 + 0.9) / 2), "things": pytest.approx(3 / 7), "stuff": 0.9}
    assert (figures["ap"], figures["ap50"], figures["ap75"]) == (0.5, 1.0, 0.0)


def write_panoptic(root: Path) -> Path:
    """COCO's panoptic layout: red and blue squares (blue a crowd), sky everywhere but in a corner that is unknown."""
    ids = np.full((120, 160), 70000)
    ids[box_mask(RED_BOX)], ids[box_mask(BLUE_BOX)], ids[:20, :20] = 300, 7, 0
    maps, photos = root / "annotations/panoptic_val2017", root / "val2017"
    maps.mkdir(parents=True)
    photos.mkdir()
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(maps / "1.png")
    Image.fromarray(make_photo()).save(photos / "1.jpg")
    categories = [(1, "red", 1), (2, "blue", 1), (187, "sky-other-merged", 0)]
    segments = [(300, 1, 0), (7, 2, 1), (70000, 187, 0)]
    info = [{"id": i, "category_id": c, "iscrowd": crowd} for i, c, crowd in segments]
    document = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 160, "height": 120}],
        "categories": [{"id": i, "name": name, "isthing": thing} for i, name, thing in categories],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": info}],
    }
    index = root / "annotations/panoptic_val2017.json"
    index.write_text(json.dumps(document))
    return index


def test_panoptic_layout_of_coco(model: Model, tmp_path: Path) -> None:
    dataset = open_dataset(write_panoptic(tmp_path).parent.parent)
    assert dataset.names == ("red", "blue", "sky") and dataset.stuff == {"sky"}
    targets = {t.name: t for t in dataset.photos[0].targets((160, 120))}
    assert np.array_equal(targets["red"].mask, box_mask(RED_BOX))
    assert [t.crowd for t in targets.values()] == [False, True, False]
    rows = {r["name"]: r for r in panoptic.evaluate(model, dataset)}
    assert rows["red"]["segments"]["hits"] == 1 and rows["blue"]["segments"]["missed"] == 0
    assert rows["sky"]["stuff"] and rows["sky"]["pixels"]["truth"] == int(targets["sky"].mask.sum())
    assert panoptic.scope(dataset) == "things and stuff"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["annotations"][0]["segments_info"][0].update(category_id=9), "category_id 9 is not among"),
        (lambda d: d["annotations"][0].update(image_id=9), "no annotation's image_id is among the images; first: 9"),
        (lambda d: d["annotations"][0].update(file_name="gone.png"), "gone.png: not a readable panoptic PNG"),
        (
            lambda d: d["annotations"][0]["segments_info"].pop(),
            "image 1: its PNG shows segment 70000, which is not in segments_info",
        ),
        (
            lambda d: d["annotations"][0]["segments_info"][0].update(id=301),
            "image 1: its PNG shows segment 300, which is not in segments_info",
        ),
        (lambda d: d["annotations"].append({"image_id": 1}), "image 1: expected one annotation, got 2"),
    ],
)
def test_bad_panoptic_records_are_named(tmp_path: Path, change: Callable[[dict], None], says: str) -> None:
    index = write_panoptic(tmp_path)
    document = json.loads(index.read_text())
    change(document)
    index.write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=re.escape(says)):
        open_dataset(index).photos[0].targets((160, 120))


# ---- reference, composition ---------------------------------------------------------------------------------------


def test_reference_pairs_of_photos(model: Model, coco: Path) -> None:
    document = coco_document()
    document["annotations"][3]["image_id"] = 1  # photo 1 has blue twice, the rest once each
    document["annotations"][4]["iscrowd"] = 0
    document["annotations"].append({**document["annotations"][1], "id": 30, "image_id": 1})
    dataset = open_dataset(write_coco(coco, document), split="all")
    rows = list(reference.evaluate(model, dataset))
    assert sorted((r["reference"], r["image"], r["name"]) for r in rows) == [("1", "2", "red"), ("2", "1", "red")]
    assert all(r["iou"] > 0.8 for r in rows)
    assert len(list(reference.evaluate(model, dataset, prompt="box", pairs=1))) == 1
    with pytest.raises(ValueError, match="prompt: expected mask or box"):
        next(reference.evaluate(model, dataset, prompt="text"))


def test_reference_in_a_video(model: Model, tmp_path: Path) -> None:
    for frame in range(4):
        for kind, pixels in (("JPEGImages", make_photo()), ("Annotations", np.full((120, 160), 255, np.uint8))):
            folder = tmp_path / kind / "480p" / "walk"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{frame:05}.{'jpg' if kind == 'JPEGImages' else 'png'}")
    rows = list(reference.evaluate(model, open_dataset(tmp_path)))
    assert [(r["reference"], r["image"]) for r in rows] == [("walk/00000", f"walk/0000{i}") for i in (1, 2, 3)]


def test_nothing_to_refer_to(model: Model, folder: Path) -> None:
    with pytest.raises(DatasetError, match="expected two photos"):
        next(reference.evaluate(model, open_dataset(folder)))


def test_composition(model: Model, tmp_path: Path) -> None:
    rows = list(composition.evaluate(model, open_dataset(with_two_reds(tmp_path))))
    assert [(r["name"], r["instances"]) for r in rows] == [("red", 2)]
    figures = composition.figures(rows)
    assert set(figures["iou"]) == set(composition.WAYS) and set(figures["gain"]) == {"text", "click", "ensemble"}


@pytest.mark.parametrize("task", [text, label, find, composition, panoptic])
def test_tasks_that_need_names_say_so(task: object, model: Model, folder: Path) -> None:
    with pytest.raises(DatasetError, match="class names"):
        next(task.evaluate(model, open_dataset(folder)))  # type: ignore[attr-defined]
