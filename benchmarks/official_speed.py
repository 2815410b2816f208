"""Encode and per-click time of an official variant, beside our own plain path, in one run.

    python -m benchmarks.official_speed [--name seem-focal-t-v1] [--sizes 512,1024] [--threads 2] [--rounds 5]

Weights are made from the tensors' names (`benchmarks.seeded_weights`), the photo is noise: time does not depend on
either. The plain path is what a click costs when nothing is kept between clicks and nothing is left out: keys and
values projected anew, all 101 object queries decoded beside the click's own, every mask multiplied out. It is timed
twice: with the predictions of the last layer alone, and (``plain_click_all_layers``) with those of all ten prediction
points, which is what the official code computes for a click. The paths take turns, so other load falls on all; what
counts is the ratio of the medians. The masks must agree, else exit code 1. Peak memory is the process's, weights
included, from before the encode on. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.seeded_weights import seeded_tensor
from seem.checkpoints.official import official_name
from seem.model.attention_rules import OBJECT, SPATIAL
from seem.model.official_config import official_config
from seem.model.official_decoder import DecoderPrompts, DecoderTrace, mask_logits
from seem.model.official_seem import OfficialFeatures, OfficialSEEM, normalise_image
from seem.model.official_visual_sampler import EvenDraws, Strokes, rasterise
from seem.model.prompting import ObjectPrompt, VisualPrompt

TOLERANCE = 1e-3  # of the largest logit: DESIGN's bound for decoder outputs
NEAR_ZERO = 1e-4  # of the largest logit: bits there say nothing


def build(name: str, device: torch.device) -> OfficialSEEM:
    with torch.device("meta"):
        network = OfficialSEEM(official_config(name))
    state = {k: seeded_tensor(official_name(k), tuple(v.shape)) for k, v in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return network.to(device).eval().requires_grad_(False)


def click_at(x: float, y: float) -> VisualPrompt:
    return VisualPrompt("click", True, np.array([[x, y]], np.float32))


def plain_click(
    network: OfficialSEEM, features: OfficialFeatures, click: VisualPrompt, all_layers: bool = False
) -> Tensor:
    """The click's best mask at stride 4, without anything that was computed before or left out.

    Args:
        all_layers: multiply out every query's mask, and its class embedding, at all ten prediction points.
    """
    decoder, semantics = network.decoder, network.config.semantics
    image = decoder.prepare(features.mask_features, features.maps, features.size)
    height, width = (4 * n for n in features.mask_features.shape[-2:])
    masks = torch.zeros(2, 1, height, width, dtype=torch.bool, device=network.device)
    h, w = features.size
    masks[0, 0, :h, :w] = torch.from_numpy(rasterise([click], features.size, True))
    visual = decoder.read_prompts(image, [Strokes(masks[0], masks[1])], EvenDraws())
    group = OBJECT if semantics.joint else SPATIAL
    groups = list(dict.fromkeys([OBJECT, group]))
    trace = DecoderTrace() if all_layers else None
    out = decoder(image, DecoderPrompts(visual=visual), EvenDraws(), groups, 1, trace=trace)
    for normed in trace.states[:-1] if trace is not None else []:
        for g in groups:
            decoder.class_vectors(normed[g])
            mask_logits(decoder.mask_embed(normed[g]), image.mask_features)
    everything = {g: mask_logits(out.mask_embeddings[g], image.mask_features) for g in groups}
    best = (out.mask_embeddings[group][0] @ visual.positive[0, 0]).argmax()
    return everything[group][0, best, : features.mask_size[0], : features.mask_size[1]]


def agreement(fast: Tensor, plain: Tensor) -> dict[str, Any]:
    largest = float(plain.abs().max())
    decided = plain.abs() > NEAR_ZERO * largest
    return {
        "relative_error": float((fast - plain).abs().max()) / largest,
        "bits_differ": int(((fast > 0) != (plain > 0))[decided].sum()),
    }


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from what is in use now


def peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if Path("/proc/self/status").exists():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def measure(network: OfficialSEEM, side: int, rounds: int) -> dict[str, Any]:
    """Figures for a square photo of that side."""
    device = network.device
    noise = np.random.default_rng(0).integers(0, 256, (3, side, side), np.uint8)
    pixels = normalise_image(torch.from_numpy(noise), network.config.image).to(device)
    where = click_at(side * 0.4, side * 0.6)
    reset_peak(device)
    features = network.encode_image(pixels, (side, side))
    encode_peak = peak_mb(device)
    first = network.decode(features, [ObjectPrompt(visual=(where,))])
    best = first.logits[0, first.selected[0]]
    again = ObjectPrompt(visual=(where, VisualPrompt("click", False, np.array([[9, 9]], np.float32))), previous=best)
    tasks: dict[str, Callable[[], Any]] = {
        "encode": lambda: network.encode_image(pixels, (side, side)),
        "click": lambda: network.decode(features, [ObjectPrompt(visual=(where,))]),
        "next_click": lambda: network.decode(features, [again]),
        "plain_click": lambda: plain_click(network, features, where),
        "plain_click_all_layers": lambda: plain_click(network, features, where, all_layers=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            task()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "side": side,
        "median_ms": {name: round(1000 * value, 1) for name, value in median.items()},
        "min_ms": {name: round(1000 * min(values), 1) for name, values in seconds.items()},
        "over_click": {name: round(median[name] / median["click"], 1) for name in median if name.startswith("plain")},
        "peak_mb": {"encode": round(encode_peak), "all": round(peak_mb(device))},
        **agreement(best, plain_click(network, features, where)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--name", default="seem-focal-t-v1")
    parser.add_argument("--sizes", default="512,1024", help="sides of the photos, as encoded")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network = build(args.name, torch.device(args.device))
    with torch.no_grad():
        sizes = [measure(network, int(side), args.rounds) for side in args.sizes.split(",")]
    result = {"model": args.name, "device": args.device, "threads": args.threads, "rounds": args.rounds, "sizes": sizes}
    json.dump(result, sys.stdout, indent=1)
    print()
    return int(any(s["relative_error"] > TOLERANCE or s["bits_differ"] for s in sizes))


if __name__ == "__main__":
    sys.exit(main())
