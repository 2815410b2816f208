"""Cut recorded folders down to what a clone can carry.

    python -m benchmarks.make_parity_fixtures REFERENCE OUT

Writes folders of the same form, which ``benchmarks.parity`` reads: inputs and draws whole, outputs thinned to every
r-th cell of their last two axes.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch

from benchmarks.parity import fit

KEPT = {
    "focalt_unicl_lang_v1": [
        "backbone_random",
        "pixel_decoder_random",
        "generic_random",
        "grounding_random",
        "interactive_A_round0",
        "interactive_A_round1",
        "next_click_unit",
        "text",
    ],
    "focalt_unicl_lang_v0": ["interactive_A_round0", "refimg"],
    "focalt_unicl_lang_demo": ["demo_stroke_point", "demo_visual_ref"],
}
WHOLE = ("rng_", "points_", "ref_", "memory_indices", "selfattn_names", "selfattn_index", "crossattn_names", "next_")
CELLS = 3000  # that are kept of an output
POINTS = 512  # of a permutation, the rest is never looked at
EXACT = ("prev_mask", "prev_low_8x10", "prev_mask_64x80")
DROPPED = (
    "_mask_l1_",
    "_mask_l2_",
    "final_grounding_mask",
    "_queries_0",
    "_queries_1",
    "_queries_2",
)


def thin(value: np.ndarray) -> np.ndarray:
    """Every r-th cell of the last two axes, r such that a parity check can tell it from the shapes."""
    if value.ndim < 2 or value.size <= CELLS:
        return value
    for stride in range(2, max(value.shape[-2:])):
        cut = value[..., ::stride, ::stride]
        if cut.size <= CELLS:
            found = fit(torch.from_numpy(np.asarray(value, np.float32)), cut.shape)
            if found is not None and np.array_equal(found.numpy(), np.asarray(cut, np.float32)):
                return cut
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    for folder, files in KEPT.items():
        (options.out / folder).mkdir(parents=True, exist_ok=True)
        for name in files:
            kept = {}
            for key, value in np.load(options.reference / folder / f"{name}.npz").items():
                whole = key.startswith(WHOLE) or key in EXACT or "attn_mask" in key or value.dtype.kind != "f"
                if key.endswith("randperm"):
                    value = value[:POINTS]
                if not any(d in key for d in DROPPED):
                    kept[key] = value if whole else thin(value)
            np.savez_compressed(options.out / folder / f"{name}.npz", **kept)  # type: ignore[arg-type]
    first = next(iter(KEPT))  # the three have the same names
    shutil.copyfile(options.reference / first / "state_dict.tsv", options.out / first / "state_dict.tsv")
    (options.out / "inputs").mkdir(exist_ok=True)
    for name in ("masks_256x320.npz", "refmask_192x224.npz"):
        shutil.copyfile(options.reference / "inputs" / name, options.out / "inputs" / name)
    shutil.copyfile(options.reference / "noise.json", options.out / "noise.json")


if __name__ == "__main__":
    main()
