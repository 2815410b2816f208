"""Features of the frozen encoders, computed once and kept on disk: training reads them instead of photos."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from seem.model.config import ImageConfig
from seem.model.seem import SEEM


def encoded_size(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """(h, w) after the resize rule."""
    scale = config.target / (max(width, height) if config.resize == "long" else min(width, height))
    if config.max is not None:
        scale = min(scale, config.max / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def load_pixels(path: str, config: ImageConfig) -> tuple[Tensor, tuple[int, int]]:
    """A photo as (1, 3, H, W) normalised and padded, and its unpadded (h, w)."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    h, w = encoded_size(image.width, image.height, config)
    array = np.asarray(image.resize((w, h), Image.Resampling.BILINEAR), np.float32)
    array = (array - np.array(config.mean, np.float32)) / np.array(config.std, np.float32)
    m = config.pad_multiple
    padded = np.zeros((-(-h // m) * m, -(-w // m) * m, 3), np.float32)
    padded[:h, :w] = array
    return torch.from_numpy(padded).permute(2, 0, 1)[None], (h, w)


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
            print(f"{i + 1}/{len(records[part::parts])} {(time.monotonic() - started) / done:.3f} s each", flush=True)


def read_features(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(spatial, semantic) maps, float32, batch 1."""
    maps = load_file(path)
    split = {name: {k.split(".")[1]: v.float()[None] for k, v in maps.items() if k.startswith(name)} for name in ("spatial", "semantic")}
    return split["spatial"], split["semantic"]


if __name__ == "__main__":
    from seem.model.config import SEEMConfig
    from seem.training.warm_start import warm_start

    base, out, part, parts, *lists = sys.argv[1:]
    torch.set_num_threads(1)
    network = warm_start(SEEMConfig(), Path(base)).eval()
    network.image_encoder.to(memory_format=torch.channels_last)
    network.semantic_encoder.to(memory_format=torch.channels_last)
    todo = [json.loads(line) for name in lists for line in Path(name).open()]
    write_features(network, todo, Path(out), int(part), int(parts))
