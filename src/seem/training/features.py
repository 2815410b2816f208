"""Features of the frozen encoders, computed once and kept on disk: training reads them instead of photos."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from seem.images import load_image
from seem.model.config import ImageConfig, SEEMConfig
from seem.model.image_input import network_input
from seem.model.seem import SEEM
from seem.training.samples import read_records
from seem.training.warm_start import warm_start


def load_pixels(path: str, config: ImageConfig) -> tuple[Tensor, tuple[int, int]]:
    """A photo as (1, 3, H, W) normalised and padded, and its unpadded (h, w); the same pixels as at inference."""
    return network_input(load_image(path), config)


def feature_path(folder: Path, key: str) -> Path:
    return folder / (key.replace("/", "__") + ".safetensors")


@torch.inference_mode()
def raw_features(model: SEEM, pixels: Tensor) -> dict[str, Tensor]:
    """Both encoders' maps, half precision, without the batch axis."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    maps = {f"spatial.{k}": v for k, v in model.image_encoder(pixels).items()}
    maps |= {f"semantic.{k}": v for k, v in model.semantic_encoder(pixels).items()}
    return {k: v[0].to(torch.float16).contiguous() for k, v in maps.items()}


def write_features(model: SEEM, records: list[dict[str, Any]], folder: Path, part: int = 0, parts: int = 1) -> None:
    """One file a photo; what is there already is kept, so this resumes."""
    folder.mkdir(parents=True, exist_ok=True)
    started, done = time.monotonic(), 0
    for i, record in enumerate(records[part::parts]):
        path = feature_path(folder, record["id"])
        if path.exists():
            continue
        pixels, size = load_pixels(record["image"], model.config.image)
        temporary = path.with_suffix(f".tmp{os.getpid()}")
        save_file(raw_features(model, pixels), temporary, {"size": json.dumps(size)})
        temporary.replace(path)
        done += 1
        if done % 50 == 0:
            seconds = (time.monotonic() - started) / done
            print(f"{i + 1}/{len(records[part::parts])} {seconds:.3f} s each", flush=True)


def read_size(path: Path) -> tuple[int, int]:
    """(h, w) of the encoded, unpadded photo whose features a file holds."""
    with safe_open(path, "pt") as f:
        h, w = json.loads(f.metadata()["size"])
    return h, w


def read_features(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(spatial, semantic) maps, float32, batch 1."""
    maps = load_file(path)
    split: dict[str, dict[str, Tensor]] = {"spatial": {}, "semantic": {}}
    for key, value in maps.items():
        encoder, name = key.split(".")
        split[encoder][name] = value.float()[None]
    return split["spatial"], split["semantic"]


def write_features_of(
    model_config: SEEMConfig, base: Path, records: list[Path], folder: Path, part: int = 0, parts: int = 1
) -> None:
    """One process's share (every ``parts``-th photo from ``part``) of `write_features`, on one thread."""
    torch.set_num_threads(1)
    model = warm_start(model_config, base).eval()
    model.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.semantic_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    write_features(model, read_records(records), folder, part, parts)


if __name__ == "__main__":  # BASE OUT PART PARTS RECORDS...; `seem train features` starts several of these
    base, out, part, parts, *lists = sys.argv[1:]
    write_features_of(SEEMConfig(), Path(base), [Path(f) for f in lists], Path(out), int(part), int(parts))
