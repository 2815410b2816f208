"""Tracking against simpler ways with the same model, on clips made from photos; where choices are made.

    python -m benchmarks.tracking DUTS_TR [--clips 8] [--frames 12]

DUTS_TR is a folder with images/ and masks/; only photos of the development split are used. Even clips move a camera
over a photo; odd ones move an object, cut out, over another photo. Everything bends, turns, scales and changes in
brightness smoothly. Prints JSON: the mean IoU over the frames after the first, whose mask is given, and seconds a
frame.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import seem
from seem.geometry import mask_iou

WIDTH, HEIGHT = 480, 272
SPLIT = Path(__file__).parent / "dev_split.json"
SMALLEST, LARGEST = 600, 0.6  # pixels, and share of the frame, of an object worth following

Clip = tuple[list[np.ndarray], list[np.ndarray]]  # frames and masks
Way = Callable[[seem.Model, list[np.ndarray], np.ndarray], Iterator[np.ndarray]]


# ---- clips --------------------------------------------------------------------------------------------------------


def make_clip(folder: Path, names: list[str], seed: int, count: int) -> Clip:
    """One clip; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    photo, mask = _load(folder, names[2 * seed % len(names)])
    behind, _ = _load(folder, names[(2 * seed + 1) % len(names)])
    camera, path, light = _walk(rng, count, 4, 0.25), _walk(rng, count, 4, 0.3), _walk(rng, count, 1, 0.12)
    bends = F.interpolate(torch.from_numpy(rng.normal(0, 0.04, (3, 2, 4, 6))).float(), (HEIGHT, WIDTH), mode="bicubic")
    phases = rng.uniform(0, 2 * np.pi, 3)
    frames, masks = [], []
    for t in range(count):
        waves = [np.sin(p + 2 * np.pi * (i + 1) * t / count) - np.sin(p) for i, p in enumerate(phases)]
        bend = sum(float(wave) * b.permute(1, 2, 0) for wave, b in zip(waves, bends, strict=True))
        assert isinstance(bend, Tensor)
        if seed % 2 == 0:
            grid = _grid(0.75 * np.exp(0.8 * camera[t, 0]), 0.5 * camera[t, 1], 0.6 * camera[t, 2:]) + 0.5 * bend
            picture, inside = _read(photo, grid, "reflection"), _read(mask, grid, "zeros")
        else:
            grid = _grid(1.5 * np.exp(0.8 * path[t, 0]), 0.8 * path[t, 1], 1.3 * path[t, 2:]) + bend
            still = _grid(0.85 * np.exp(0.4 * camera[t, 0]), 0.2 * camera[t, 1], 0.4 * camera[t, 2:])
            inside = _read(mask, grid, "zeros")
            picture = _read(behind, still, "reflection") * (1 - inside) + _read(photo, grid, "reflection") * inside
        noise = torch.from_numpy(rng.normal(0, 0.01, (3, HEIGHT, WIDTH))).float()
        picture = (picture * (1 + float(light[t, 0])) + noise).clamp(0, 1)
        frames.append((picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
        masks.append((inside[0] > 0.5).numpy())
    return frames, masks


def _load(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    pixels = np.asarray(Image.open(folder / "images" / f"{name}.jpg").convert("RGB"), np.float32) / 255
    mask = np.asarray(Image.open(folder / "masks" / f"{name}.png").convert("L")) > 127
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(mask).float()[None]


def _walk(rng: np.random.Generator, count: int, width: int, size: float) -> np.ndarray:
    """(count, width) smooth paths from 0 that end far from where they began."""
    t = np.linspace(0, 1, count)[:, None]
    straight, swing, speed = rng.normal(0, size, width), rng.normal(0, size / 2, width), rng.uniform(1, 3, width)
    path: np.ndarray = straight * t + swing * np.sin(2 * np.pi * speed * t)
    return path


def _grid(scale: float, angle: float, shift: np.ndarray) -> Tensor:
    aspect, c, s = WIDTH / HEIGHT, np.cos(angle), np.sin(angle)
    rows = [[scale * c, -scale * s * aspect, shift[0]], [scale * s / aspect, scale * c, shift[1]]]
    return F.affine_grid(torch.tensor([rows], dtype=torch.float32), [1, 1, HEIGHT, WIDTH], align_corners=False)[0]


def _read(picture: Tensor, grid: Tensor, outside: str) -> Tensor:
    return F.grid_sample(picture[None], grid[None], align_corners=False, padding_mode=outside)[0]


# ---- ways to follow the first mask --------------------------------------------------------------------------------


def track(model: seem.Model, frames: list[np.ndarray], first: np.ndarray) -> Iterator[np.ndarray]:
    return (masks[1].mask for masks in model.track(frames, {1: [seem.Mask(first)]}))


def copy(model: seem.Model, frames: list[np.ndarray], first: np.ndarray) -> Iterator[np.ndarray]:
    return (first for _ in frames)


def previous_mask(model: seem.Model, frames: list[np.ndarray], first: np.ndarray) -> Iterator[np.ndarray]:
    """Each mask is the prompt on the next frame."""
    yield first
    for frame in frames[1:]:
        if first.any():
            first = model.encode(frame).segment(seem.Mask(first), label=False).mask
        yield first


def reference(model: seem.Model, frames: list[np.ndarray], first: np.ndarray) -> Iterator[np.ndarray]:
    """The first frame's region is the prompt, the mask before is memory: the paper's recipe."""
    scene = model.encode(frames[0])
    region, before = seem.Reference(scene, seem.Mask(first)), scene.segment(seem.Mask(first), label=False)
    yield first
    for frame in frames[1:]:
        before = model.encode(frame).segment(region, previous=before.logits, label=False)
        yield before.mask


WAYS: dict[str, Way] = {"copy": copy, "previous mask": previous_mask, "reference": reference, "track": track}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=12)
    args = parser.parse_args()
    names = json.loads(SPLIT.read_text())["duts_tr"]
    model = seem.load()
    scores: dict[str, list[float]] = {way: [] for way in WAYS}
    seconds = dict.fromkeys(WAYS, 0.0)
    seed = done = 0
    while done < args.clips:
        frames, masks = make_clip(args.folder, names, seed, args.frames)
        seed += 1
        if masks[0].sum() < SMALLEST or masks[0].mean() > LARGEST:
            continue
        done += 1
        for name, way in WAYS.items():
            began = time.perf_counter()
            found = list(way(model, frames, masks[0]))
            seconds[name] += time.perf_counter() - began
            scores[name].append(float(np.mean([mask_iou(a, b) for a, b in zip(found[1:], masks[1:], strict=True)])))
    rows = {
        name: {"iou": round(float(np.mean(v)), 4), "seconds_per_frame": round(seconds[name] / done / args.frames, 3)}
        for name, v in scores.items()
    }
    print(json.dumps({"clips": done, "frames": args.frames, "ways": rows, "each": scores}, indent=1))


if __name__ == "__main__":
    main()
