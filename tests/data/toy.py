"""Small photos, masks and COCO files that the tests of the readers write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seem import geometry
from seem.data.records import Object
from seem.training.samples import decode_rle

WIDTH, HEIGHT = 40, 30


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def turned_photo(path: Path, orientation: int, seed: int = 0) -> Path:
    """Stored as 40 x 30, with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return photo(path, seed, exif=exif)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def save_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def save_palette(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), "L").convert("P")
    image.putdata(values.astype(np.uint8).ravel().tolist())
    image.save(path)


def mask_of(made: Object) -> np.ndarray:
    return decode_rle(made["rle"])


def note(key: Any, image: Any, category: Any, box: Any, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": key, "image_id": image, "category_id": category, "bbox": box, "segmentation": segmentation, **more}


def coco(folder: Path) -> dict[str, Any]:
    """Two photos; a polygon, run lengths, a crowd, a teacher's bad mask and an empty mask."""
    for i in (1, 2):
        photo(folder / f"images/{i}.png", i)
    mask = rectangle(10, 10, 20, 20)
    rle, packed = geometry.rle_encode(mask, compressed=False), geometry.rle_encode(mask)
    empty = geometry.rle_encode(np.zeros((HEIGHT, WIDTH), bool), compressed=False)
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT, "split": s} for i, s in
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


def write(folder: Path, data: Any, name: str = "instances.json") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(data), encoding="utf-8")
    return folder / name
