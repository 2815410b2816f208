"""What the exported decoder costs and loses, by how its weights are stored.

    python -m benchmarks.export_loss [--grabcut FOLDER] [--photos 6] [--limit 10]

Exports the default model's decoder once, packs it as fp32, fp16, int8 and packed, and runs each in onnxruntime: IoU of
its masks with those of torch in float32 on the example photos (a click, a second click, a box, a text), and,
with a GrabCut folder, clicks to IoU 0.85 and 0.90 by the standard robot on its first photos. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import seem
from seem.evaluation.datasets import open_dataset
from seem.evaluation.interactive import evaluate, figures
from seem.export import runner
from seem.export.files import PRECISIONS, export_part, pack_weights
from seem.export.parts import decoder_parts
from seem.geometry import mask_iou
from seem.model.prompting import ObjectPrompt
from seem.model.seem import SEEM, Decoded, ImageFeatures
from seem.predict.model import Model

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"


def exported(network: SEEM, sessions: dict[str, Any]) -> SEEM:
    """The same network whose prompts are decoded by the graphs."""
    last: dict[int, tuple[ImageFeatures, runner.Arrays]] = {}  # of the last image

    def prepared(features: ImageFeatures) -> runner.Arrays:
        if id(features) not in last:
            last.clear()
            last[id(features)] = (features, runner.prepare(sessions, features))
        return last[id(features)][1]

    class Exported(SEEM):
        def decode(self, features: ImageFeatures, objects: Sequence[ObjectPrompt]) -> Decoded:
            names = torch.zeros(1, self.config.pixel_decoder.joint_dim)
            found = runner.decode(sessions, self, features, prepared(features), objects, names)
            h, w = features.mask_size
            return Decoded(
                torch.from_numpy(found["logits"][:, None, :h, :w]),
                torch.from_numpy(found["score"][:, None]),
                torch.from_numpy(found["class_embedding"][:, None]),
                torch.zeros(len(objects), dtype=torch.long),
            )

    other = copy.copy(network)
    other.__class__ = Exported
    return other


def answers(model: Model, photos: Sequence[Path]) -> list[np.ndarray]:
    """Masks of a few prompts on each photo."""
    masks = []
    for photo in photos:
        scene = model.encode(photo)
        w, h = scene.size
        for x, y in ((0.5, 0.5), (0.3, 0.6), (0.7, 0.4)):
            first = scene.segment(seem.Click(w * x, h * y), label=False)
            away = seem.Click(w * (1 - x), h * 0.05, positive=False)
            second = scene.segment(seem.Click(w * x, h * y), away, previous=first, label=False)
            masks += [first.mask, second.mask]
        masks.append(scene.segment(seem.Box(w * 0.2, h * 0.2, w * 0.8, h * 0.9), label=False).mask)
        masks.append(scene.segment(seem.Text("person"), label=False).mask)
    return masks


def clicks(model: Model, folder: Path, limit: int) -> dict[str, float]:
    """Clicks to an IoU of 0.85 and 0.90."""
    noc = figures(list(evaluate(model, open_dataset(folder).first(limit))))["noc"]
    return {key: noc[key] for key in ("85", "90")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--grabcut", type=Path)
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--limit", type=int, default=10, help="GrabCut photos")
    args = parser.parse_args()
    model = seem.load(device="cpu")
    photos = sorted(PHOTOS.glob("*.jpg"))[: args.photos]
    plain = answers(model, photos)
    graphs = {part.name: export_part(part) for part in decoder_parts(model.network)}
    result: dict[str, Any] = {"masks": len(plain), "precisions": {}}
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            for name, graph in graphs.items():
                packed = copy.deepcopy(graph)
                pack_weights(packed, precision)
                (Path(folder) / f"{name}.onnx").write_bytes(packed.SerializeToString())
            files = sorted(Path(folder).iterdir())
            row: dict[str, Any] = {"bytes": sum(path.stat().st_size for path in files)}
            other = Model(exported(model.network, runner.load_graphs(files)), model.weights)
            ious = [mask_iou(a, b) for a, b in zip(plain, answers(other, photos), strict=True)]
            row |= {"iou_mean": round(float(np.mean(ious)), 5), "iou_min": round(min(ious), 5)}
            if args.grabcut is not None:
                row["noc"] = clicks(other, args.grabcut, args.limit)
            result["precisions"][precision] = row
    if args.grabcut is not None:
        result["noc_torch"] = clicks(model, args.grabcut, args.limit)
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
