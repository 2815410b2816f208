"""Does it help to encode several photos in one batch? Seconds a photo; the batch sizes take turns.

python -m benchmarks.batching --rounds 7
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

import seem

BATCHES = (1, 2, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    model = seem.load(device=args.device)
    seconds: dict[int, list[float]] = {size: [] for size in BATCHES}
    with torch.no_grad():
        for turn in range(args.rounds + 1):
            for size in BATCHES:
                pixels = torch.randn(size, 3, args.side, args.side, device=model.device)
                began = time.perf_counter()
                model.network.encode_image(pixels, (args.side, args.side))
                if model.device.type == "cuda":
                    torch.cuda.synchronize()
                if turn:  # the first warms up
                    seconds[size].append((time.perf_counter() - began) / size)
    median = {size: float(np.median(values)) for size, values in seconds.items()}
    found = {
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "seconds_a_photo": {str(size): round(value, 4) for size, value in median.items()},
        "against_one_at_a_time": {str(size): round(value / median[1], 3) for size, value in median.items()},
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
