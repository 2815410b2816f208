"""Small made photos to try training out on: coloured shapes of one or two parts that touch and hide each other.

    python -m benchmarks.shapes --out runs/shapes [--count 240] [--seed 0]

Writes OUT/images and OUT/shapes.jsonl; every sixth photo is set aside for measuring ("dev"). An object may have two
parts of different colours, and neighbours may share a colour, so that one click often does not say what is meant.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from seem.data.records import make_object, make_record, write_records

SIZE = (128, 96)
COLOURS = {"red": (210, 60, 50), "green": (60, 170, 80), "blue": (60, 90, 200), "yellow": (220, 200, 70)}
KINDS = ("disk", "square", "triangle", "cross", "mushroom")


def outline(kind: str, centre: np.ndarray, radius: float, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """The parts of a shape, (h, w) bool each."""
    u, v = (x - centre[0]) / radius, (y - centre[1]) / radius
    if kind == "disk":
        return [u**2 + v**2 < 1]
    if kind == "square":
        return [(abs(u) < 0.85) & (abs(v) < 0.85)]
    if kind == "triangle":
        return [(v < 0.8) & (v > 2 * abs(u) - 1)]
    if kind == "cross":
        return [((abs(u) < 0.35) & (abs(v) < 1)) | ((abs(v) < 0.35) & (abs(u) < 1))]
    cap = (u**2 + (v + 0.1) ** 2 < 0.95) & (v < 0)
    return [cap, (abs(u) < 0.3) & (v >= 0) & (v < 1)]


def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """One photo and its (name, visible mask) from back to front."""
    w, h = SIZE
    y, x = np.mgrid[:h, :w]
    slope = rng.normal(0, 0.3, 2)
    photo = 120 + slope[0] * (x - w / 2) + slope[1] * (y - h / 2) + rng.normal(0, 14, (h, w))
    photo = np.stack([photo] * 3, -1) + rng.normal(0, 6, (1, 1, 3))
    shapes: list[tuple[str, np.ndarray]] = []
    for _ in range(int(rng.integers(2, 5))):
        kind = str(rng.choice(KINDS))
        parts = outline(kind, rng.uniform((14, 14), (w - 14, h - 14)), rng.uniform(11, 26), x, y)
        for part, colour in zip(parts, rng.choice(list(COLOURS), len(parts)), strict=True):
            photo[part] = COLOURS[str(colour)] + rng.normal(0, 12, (int(part.sum()), 3)) + rng.normal(0, 8, 3)
        whole = np.any(parts, 0)
        shapes = [(name, mask & ~whole) for name, mask in shapes] + [(kind, whole)]
    return photo.clip(0, 255).astype(np.uint8), [(name, mask) for name, mask in shapes if mask.sum() >= 60]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    (args.out / "images").mkdir(parents=True, exist_ok=True)
    records = []
    for i in range(args.count):
        photo, shapes = draw(np.random.default_rng([args.seed, i]))
        path = args.out / "images" / f"{i:04}.png"
        Image.fromarray(photo).save(path)
        objects = [make_object(mask, name) for name, mask in shapes]
        dev = i % 6 == 0
        records.append(make_record("shapes", f"{i:04}", path, SIZE, objects, dev=dev, annotated=KINDS))
    print(f"{write_records(records, args.out / 'shapes.jsonl')} photos in {args.out}")


if __name__ == "__main__":
    main()
