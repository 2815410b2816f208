"""Small data sets on disk, in the layouts that the evaluator reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seem import geometry
from tests.conftest import BLUE_BOX, RED_BOX, box_mask, green_mask, make_photo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """images/ + masks/: a photo with the red square, and one with the green disk and an ignored band."""
    root = tmp_path / "shapes"
    band = green_mask() & ~geometry.rasterise_polygon(np.array([[0, 0], [160, 0], [160, 100], [0, 100]]), (160, 120))
    masks = {"a": box_mask(RED_BOX) * 255, "b": np.where(band, 128, green_mask() * 255)}
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for name, mask in masks.items():
        Image.fromarray(make_photo()).save(root / "images" / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / f"{name}.png")
    return root


def coco_document() -> dict:
    """Photo 1 (train): the blue square. Photo 2 (val): red, green, two blue halves, one of them as a crowd."""
    x0, y0, x1, y1 = BLUE_BOX
    polygon = [float(v) for v in (x0, y0, x1, y0, x1, y1, x0, y1)]
    upper, lower = box_mask((x0, y0, x1, 40)), box_mask((x0, 40, x1, y1))
    names = {1: "red", 2: "green", 3: "blue", 4: "yellow"}
    objects = [
        (10, 1, 3, [polygon], 0),
        (20, 2, 1, geometry.rle_encode(box_mask(RED_BOX)), 0),
        (21, 2, 2, geometry.rle_encode(green_mask(), compressed=False), 0),
        (22, 2, 3, geometry.rle_encode(upper), 0),
        (23, 2, 3, geometry.rle_encode(lower), 1),
    ]
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 160, "height": 120, "split": split}
            for i, split in ((1, "train2017"), (2, "val2017"))
        ],
        "categories": [{"id": i, "name": name} for i, name in names.items()],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}
            for i, image, category, segmentation, crowd in objects
        ],
    }


def write_coco(root: Path, document: dict) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for image in document["images"]:
        Image.fromarray(make_photo()).save(root / "images" / image["file_name"])
    (root / "instances.json").write_text(json.dumps(document))
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco", coco_document())


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """DAVIS: a red and a blue square for four frames, numbered 1 and 2; the red one moves 4 pixels a frame."""
    root = tmp_path / "davis"
    for frame in range(4):
        numbers = np.zeros((120, 160), np.uint8)
        photo = np.full((120, 160, 3), 128, np.uint8)
        for number, (box, colour) in enumerate(((RED_BOX, (240, 10, 10)), (BLUE_BOX, (10, 10, 240))), start=1):
            shift = 4 * frame if number == 1 else 0
            window = np.s_[box[1] : box[3], box[0] + shift : box[2] + shift]
            numbers[window], photo[window] = number, colour
        for kind, pixels in (("JPEGImages", photo), ("Annotations", numbers)):
            (root / kind / "480p/squares").mkdir(parents=True, exist_ok=True)
            suffix = "jpg" if kind == "JPEGImages" else "png"
            Image.fromarray(pixels).save(root / kind / "480p/squares" / f"{frame:05}.{suffix}")
    return root


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """A list of boxes on a photo that is stored at half the size it was annotated at, two about one box."""
    photos = tmp_path / "photos" / "images"
    photos.mkdir(parents=True)
    Image.fromarray(make_photo()).save(photos / "000000000007.png")
    boxes = [("red", RED_BOX), ("the red thing", RED_BOX), ("blue", BLUE_BOX), ("green", RED_BOX)]
    records = [
        {"image_id": 7, "sentence": s, "box_xyxy": [2 * v for v in box], "width": 320, "height": 240}
        for s, box in boxes
    ]
    root = tmp_path / "sentences"
    root.mkdir()
    (root / "list.json").write_text(json.dumps(records))
    return root
