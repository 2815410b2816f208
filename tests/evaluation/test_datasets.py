from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seem.evaluation.datasets import DatasetError, from_records, open_dataset, read_only
from tests.conftest import BLUE_BOX, RED_BOX, box_mask, green_mask
from tests.evaluation.conftest import coco_document, write_coco
from tests.tiny import write_photos


def test_folder_with_ignored_band(folder: Path) -> None:
    dataset = open_dataset(folder)
    assert (dataset.name, [p.key for p in dataset.photos], dataset.names) == ("shapes", ["a", "b"], ())
    (a,), (b,) = (photo.targets((160, 120)) for photo in dataset.photos)
    assert np.array_equal(a.mask, box_mask(RED_BOX)) and a.ignore is None and a.key == "a"
    assert b.ignore is not None and b.ignore.any() and not (b.mask & b.ignore).any()
    assert np.array_equal(b.mask | b.ignore, green_mask())


def test_coco_takes_the_val_split_and_keeps_crowds_apart(coco: Path) -> None:
    dataset = open_dataset(coco)
    assert (dataset.split, [p.key for p in dataset.photos]) == ("val2017", ["2"])
    assert dataset.names == ("red", "green", "blue", "yellow")
    targets = dataset.photos[0].targets((160, 120))
    assert [(t.key, t.name, t.crowd) for t in targets] == [
        ("2#20", "red", False),
        ("2#21", "green", False),
        ("2#22", "blue", False),
        ("2#23", "blue", True),
    ]
    assert np.array_equal(targets[1].mask, green_mask())


def test_coco_polygon_split_and_only(coco: Path, tmp_path: Path) -> None:
    train = open_dataset(coco, split="train2017")
    assert np.array_equal(train.photos[0].targets()[0].mask, box_mask(BLUE_BOX))
    assert len(open_dataset(coco, split="all").photos) == 2
    listed = tmp_path / "dev.json"
    listed.write_text('{"coco": [1], "other": ["x"]}')
    dev = open_dataset(coco, only=read_only(listed, coco))
    assert ([p.key for p in dev.photos], dev.split) == (["1"], "all")


def test_coco_layout_with_annotations_folder_and_string_ids(tmp_path: Path) -> None:
    document = coco_document()
    for image in document["images"]:
        image["id"] = str(image["id"])
        del image["split"]
    root = write_coco(tmp_path / "own", document)
    (root / "annotations").mkdir()
    (root / "instances.json").rename(root / "annotations" / "instances_val2017.json")
    (root / "images").rename(root / "val2017")
    dataset = open_dataset(root)
    assert (dataset.name, dataset.split, len(dataset.photos)) == ("own", "all", 2)
    assert dataset.photos[0].path.is_file()


def write(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels.astype(np.uint8))
    if mode == "P":
        image = Image.fromarray(pixels.astype(np.uint8), "L")
        image.putpalette([i for n in range(256) for i in (n, 255 - n, 7 * n % 256)])
    image.save(path)


NUMBERS = np.zeros((8, 10), int)
NUMBERS[1:3, 1:3], NUMBERS[4:7, 4:8], NUMBERS[7, 9] = 1, 2, 255


def test_davis_folders_are_sequences(tmp_path: Path) -> None:
    for frame in ("00000", "00001"):
        write(tmp_path / "JPEGImages/480p/dog" / f"{frame}.jpg", np.zeros((8, 10, 3)))
        write(tmp_path / "Annotations/480p/dog" / f"{frame}.png", (NUMBERS == 1) * 255)
    dataset = open_dataset(tmp_path)
    assert [(p.key, p.sequence) for p in dataset.photos] == [("dog/00000", "dog"), ("dog/00001", "dog")]


def test_voc_holds_an_object_per_number_and_ignores_255(tmp_path: Path) -> None:
    write(tmp_path / "JPEGImages/x.jpg", np.zeros((8, 10, 3)))
    write(tmp_path / "JPEGImages/not_annotated.jpg", np.zeros((8, 10, 3)))
    write(tmp_path / "SegmentationObject/x.png", NUMBERS, "P")
    (photo,) = open_dataset(tmp_path).photos
    first, second = photo.targets((10, 8))
    assert (first.key, int(first.mask.sum()), second.key, int(second.mask.sum())) == ("x#0", 4, "x#1", 12)
    assert first.ignore is not None and first.ignore.sum() == 1


def test_voc_names_its_instances(tmp_path: Path) -> None:
    write(tmp_path / "JPEGImages/x.jpg", np.zeros((8, 10, 3)))
    write(tmp_path / "SegmentationObject/x.png", NUMBERS, "P")
    classes = np.where(NUMBERS == 1, 8, np.where(NUMBERS == 2, 15, NUMBERS))  # cat and person
    write(tmp_path / "SegmentationClass/x.png", classes, "P")
    dataset = open_dataset(tmp_path)
    first, second = dataset.photos[0].targets((10, 8))
    assert [(t.key, t.name, int(t.mask.sum())) for t in (first, second)] == [("x#0", "cat", 4), ("x#1", "person", 12)]
    assert first.ignore is not None and first.ignore.sum() == 1 and "cat" in dataset.names


def test_training_records_are_a_data_set(tmp_path: Path) -> None:
    records = write_photos(tmp_path)
    records[0]["objects"][1]["crowd"] = True
    dataset = from_records(records, "toy")
    assert dataset.names == ("blue square", "disk", "green square", "red square")
    square, disk = dataset.photos[0].targets((64, 48))
    assert (square.key, square.name, square.crowd, disk.crowd) == ("toy/0#0", "red square", False, True)
    assert square.mask.sum() == 20 * 24


def test_several_mask_files_of_one_photo(tmp_path: Path) -> None:
    write(tmp_path / "images/x.jpg", np.zeros((8, 10, 3)))
    for i in (1, 2):
        write(tmp_path / f"masks/x#{i}.png", (i == NUMBERS) * 255)
    (photo,) = open_dataset(tmp_path).photos
    assert [int(t.mask.sum()) for t in photo.targets()] == [4, 12]


def test_colour_masks_are_one_object(tmp_path: Path) -> None:
    write(tmp_path / "img/x.jpg", np.zeros((8, 10, 3)))
    write(tmp_path / "gt/x.png", np.stack([(NUMBERS == 1) * 128, (NUMBERS == 2) * 90, NUMBERS * 0], -1))
    assert [int(t.mask.sum()) for t in open_dataset(tmp_path).photos[0].targets()] == [16]


def test_sbd(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    for name in ("x", "y"):
        write(tmp_path / f"img/{name}.jpg", np.zeros((8, 10, 3)))
        (tmp_path / "inst").mkdir(exist_ok=True)
        io.savemat(tmp_path / f"inst/{name}.mat", {"GTinst": {"Segmentation": NUMBERS.astype(np.uint8)}})
    (tmp_path / "val.txt").write_text("y\n")
    (photo,) = open_dataset(tmp_path).photos
    assert [(t.key, int(t.mask.sum())) for t in photo.targets((10, 8))] == [("y#0", 4), ("y#1", 12)]


# ---- what is wrong, and where -------------------------------------------------------------------------------------


def set_value(part: str, index: int, key: str, value: object) -> Callable[[dict], None]:
    def change(document: dict) -> None:
        if value is None:
            del document[part][index][key]
        else:
            document[part][index][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_value("annotations", 1, "category_id", 99), "annotation 20: category_id 99"),
        (set_value("annotations", 1, "image_id", None), "annotation 20: expected an object with 'image_id'"),
        (set_value("annotations", 1, "segmentation", "x"), "annotation 20 of image 2: segmentation: expected polygons"),
        (set_value("annotations", 1, "segmentation", {"size": [2, 2], "counts": [9]}), "20 of image 2: rle.counts"),
        (set_value("annotations", 1, "segmentation", {"size": [2, 2], "counts": [1, 3]}), "segmentation is 2x2"),
        (set_value("images", 1, "width", 80), "image 2: 80x120 stated"),
        (set_value("images", 1, "file_name", None), "image 2: expected a file_name"),
        (set_value("images", 1, "file_name", "gone.png"), "image 2: 'gone.png' is not in"),
        (set_value("categories", 0, "name", None), "category 1: expected a name"),
    ],
)
def test_bad_coco_records_are_named(tmp_path: Path, change: Callable[[dict], None], says: str) -> None:
    document = coco_document()
    root = write_coco(tmp_path, document)
    change(document)
    (root / "instances.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError) as error:
        _ = [photo.targets((160, 120)) for photo in open_dataset(root).photos]
    assert says in str(error.value)
    assert "instances.json" in str(error.value) or "2.png" in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_value("annotations", 1, "image_id", 99), "annotation of an image that is not listed: left out"),
        (set_value("annotations", 1, "id", 10), "annotation id twice: both kept"),
        (set_value("annotations", 1, "id", None), "annotation without an id"),
        (set_value("annotations", 1, "segmentation", [[1, 2, 3, 4]]), "a polygon of fewer than 3 points: left out"),
        (set_value("images", 1, "width", None), "no width or height: read from the file"),
        (set_value("images", 1, "file_name", "elsewhere/2.png"), "file_name of another folder"),
    ],
)
def test_coco_files_are_mended_as_in_training(tmp_path: Path, change: Callable[[dict], None], says: str) -> None:
    document = coco_document()
    root = write_coco(tmp_path, document)
    change(document)
    (root / "instances.json").write_text(json.dumps(document))
    dataset = open_dataset(root)
    targets = dataset.photos[0].targets((160, 120))
    assert says in " ".join(dataset.repairs.lines())
    assert np.array_equal(next(t for t in targets if t.name == "green").mask, green_mask())
    assert len({t.key for t in targets}) == len(targets)


@pytest.mark.parametrize("text", ["", "[", "[]", '{"images": []}', '{"images": 1, "annotations": 2, "categories": 3}'])
def test_not_a_coco_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(DatasetError, match=r"instances\.json"):
        open_dataset(tmp_path)


def test_empty_or_missing(tmp_path: Path, coco: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="expected images/"):
        open_dataset(tmp_path / "coco" / "images")
    for name in ("images", "masks"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    with pytest.raises(DatasetError, match="no photos"):
        open_dataset(tmp_path / "empty")
    with pytest.raises(DatasetError, match="'test'; got train2017, val2017"):
        open_dataset(coco, split="test")
    with pytest.raises(DatasetError, match="no photos"):
        open_dataset(coco, only=["77"])


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.arange(240).reshape(12, 20), "expected 0, 128 and 255, or at most 100 instance numbers"),
        (np.zeros((5, 5)), "expected a mask of 160x120 as the image, got 5x5"),
    ],
)
def test_bad_mask_files_are_named(folder: Path, pixels: np.ndarray, says: str) -> None:
    write(folder / "masks" / "a.png", pixels)
    with pytest.raises(DatasetError, match=says) as error:
        open_dataset(folder).photos[0].targets((160, 120))
    assert "a.png" in str(error.value)


def test_unreadable_and_unpaired_mask_files(folder: Path) -> None:
    (folder / "masks" / "a.png").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"masks.a\.png: not a readable mask"):
        open_dataset(folder).photos[0].targets()
    write(folder / "masks" / "c.png", np.zeros((4, 4)))
    with pytest.raises(DatasetError, match=r"c\.png: no photo of this name"):
        open_dataset(folder)


@pytest.mark.parametrize("text", ["{}", "1", "[[]]", "nonsense"])
def test_bad_photo_lists(tmp_path: Path, text: str) -> None:
    (tmp_path / "only.json").write_text(text)
    with pytest.raises(DatasetError, match=r"only\.json"):
        read_only(tmp_path / "only.json", tmp_path)
