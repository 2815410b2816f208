"""What a complete shard is written as: COCO JSON, Parquet, or PNG masks with a COCO JSON that names them.

Every file is written under a temporary name and renamed, and its name depends on the photos' indices alone: writing a
shard again writes the same files.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from seem import geometry
from seem.batch.job import Row
from seem.batch.store import write_file

FORMATS = ("coco", "parquet", "png")
PER_PHOTO = 1_000_000  # ids of annotations that are set aside for a photo


def make_writer(name: str, kind: str, categories: Sequence[Mapping[str, Any]]) -> CocoWriter | ParquetWriter:
    """The writer of a format. Raises ValueError, and ImportError for Parquet without ``pyarrow``."""
    if name not in FORMATS:
        raise ValueError(f"--format: expected {', '.join(FORMATS)}, got {name}")
    if name == "parquet":
        return ParquetWriter()
    return CocoWriter(categories, panoptic=kind == "panoptic", masks=name == "png")


def file_stem(row: Row) -> str:
    """A name of a photo's own files: its number, and what it is called.

    >>> file_stem({"index": 6, "image": "s3://bucket/a b.jpg"})
    '000000007-a_b'
    """
    stem = PurePosixPath(row["image"].replace("\\", "/")).stem
    return f"{row['index'] + 1:09d}-{re.sub(r'[^A-Za-z0-9._-]', '_', stem)[:80]}"


class CocoWriter:
    """`shards/N.json`: COCO's instances, or its panoptic format beside `panoptic/*.png`.

    With ``masks``, `masks/*.png` hold each result's number, from 1, the first on top, and annotations have "mask" and
    "value" in the place of run lengths.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]], panoptic: bool, masks: bool) -> None:
        self.categories = [dict(c) for c in categories]
        self.panoptic, self.masks = panoptic, masks
        self._ids = {c["name"]: c["id"] for c in categories}

    def write(self, folder: Path, number: int, rows: Sequence[Row]) -> None:
        good = [row for row in rows if "error" not in row]
        annotations: list[dict[str, Any]] = []
        for row in good:
            if self.panoptic:
                annotations.append(self._write_panoptic(folder, row))
            else:
                annotations += self._instances(folder, row)
        document = {
            "images": [
                {"id": r["index"] + 1, "file_name": r["image"], "width": r["width"], "height": r["height"]}
                for r in good
            ],
            "annotations": annotations,
            "categories": self.categories,
        }
        write_file(folder / "shards" / f"{number:06d}.json", json.dumps(document, ensure_ascii=False).encode())

    def _instances(self, folder: Path, row: Row) -> list[dict[str, Any]]:
        segments = row["segments"]
        mask = f"masks/{file_stem(row)}.png" if self.masks and segments else None
        if mask is not None:
            (folder / "masks").mkdir(exist_ok=True)
            write_file(folder / mask, _numbers(row, range(1, len(segments) + 1)))
        annotations = []
        for value, segment in enumerate(segments, start=1):
            about = {
                "id": row["index"] * PER_PHOTO + value,
                "image_id": row["index"] + 1,
                "object_id": segment["id"],
                "category_id": self._ids[segment["label"]],
                "bbox": _bbox(segment["box"]),
                "area": segment["area"],
                "iscrowd": 0,
                "score": round(segment["score"], 5),
                "label_score": round(segment["label_score"], 5),
            }
            place = {"segmentation": segment["mask_rle"]} if mask is None else {"mask": mask, "value": value}
            annotations.append(about | place)
        return annotations

    def _write_panoptic(self, folder: Path, row: Row) -> dict[str, Any]:
        (folder / "panoptic").mkdir(exist_ok=True)
        name = f"{file_stem(row)}.png"
        write_file(folder / "panoptic" / name, _numbers(row, [s["id"] for s in row["segments"]], rgb=True))
        return {
            "image_id": row["index"] + 1,
            "file_name": name,
            "segments_info": [
                {
                    "id": s["id"],
                    "category_id": self._ids[s["label"]],
                    "isthing": int(s["is_thing"]),
                    "bbox": _bbox(s["box"]),
                    "area": s["area"],
                    "iscrowd": 0,
                    "score": round(s["score"], 5),
                }
                for s in row["segments"]
            ],
        }


class ParquetWriter:
    """`shards/N.parquet`: a row a photo, its results a list of structs, its error a string or null."""

    def __init__(self) -> None:
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise ImportError(
                "--format parquet: expected the package pyarrow; pip install 'seem-segment[batch]'"
            ) from error
        self._parquet = parquet

    @staticmethod
    def _schema() -> Any:
        import pyarrow as pa

        segment = pa.struct(
            [
                ("object_id", pa.int64()),
                ("label", pa.string()),
                ("label_score", pa.float32()),
                ("score", pa.float32()),
                ("is_thing", pa.bool_()),
                ("area", pa.int64()),
                ("box", pa.list_(pa.int32())),
                ("rle_size", pa.list_(pa.int32())),
                ("rle_counts", pa.string()),
            ]
        )
        return pa.schema(
            [
                ("image_id", pa.int64()),
                ("image", pa.string()),
                ("digest", pa.string()),
                ("width", pa.int32()),
                ("height", pa.int32()),
                ("error", pa.string()),
                ("segments", pa.list_(segment)),
            ]
        )

    def write(self, folder: Path, number: int, rows: Sequence[Row]) -> None:
        import pyarrow as pa

        table = pa.Table.from_pylist([self._row(row) for row in rows], self._schema())
        buffer = io.BytesIO()
        self._parquet.write_table(table, buffer, compression="zstd")
        write_file(folder / "shards" / f"{number:06d}.parquet", buffer.getvalue())

    @staticmethod
    def _row(row: Row) -> dict[str, Any]:
        segments = [
            {
                "object_id": s["id"],
                "label": s["label"],
                "label_score": s.get("label_score"),
                "score": s["score"],
                "is_thing": s.get("is_thing"),
                "area": s["area"],
                "box": s["box"],
                "rle_size": s["mask_rle"]["size"],
                "rle_counts": s["mask_rle"]["counts"],
            }
            for s in row.get("segments", ())
        ]
        plain = {key: row.get(key) for key in ("image", "digest", "width", "height", "error")}
        return {"image_id": row["index"] + 1, **plain, "segments": segments}


def _bbox(box: Sequence[int] | None) -> list[int]:
    """Half-open corners -> COCO's x, y, width, height; zeros for an empty mask."""
    return [0, 0, 0, 0] if box is None else [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _numbers(row: Row, values: Sequence[int], rgb: bool = False) -> bytes:
    """A PNG of each result's value: grey, 16 bits if it must be; with ``rgb`` as COCO's panoptic format has it."""
    numbers = np.zeros((row["height"], row["width"]), np.uint32)
    for segment, value in reversed(list(zip(row["segments"], values, strict=True))):
        numbers[geometry.rle_decode(segment["mask_rle"], max_pixels=numbers.size)] = value
    if rgb:
        channels = np.stack([numbers >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)
        picture = Image.fromarray(channels)
    else:
        picture = Image.fromarray(numbers.astype(np.uint8 if len(values) < 256 else np.uint16))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
