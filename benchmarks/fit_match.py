"""Fit how sure `find` and a phrase's mask are, on the development split: `SEEMConfig.match_weights` and
`text_score_weights` (a slope for each kind of `seem.predict.instances.phrase_evidence`, and a bias).

    python -m benchmarks.fit_match COCO_FOLDER --split benchmarks/dev_split.json [--model FILE]

For every class in a photo and five that are not, every proposed region is a row: does it overlap an instance by half or
more? A logistic regression on the evidence is fitted; its bias is then moved so that a score of 0.5 answers 8 % of
absent names. The second weights make the score of `segment(Text)`, which chooses from fewer regions, as near as they
can to the IoU of its mask, for classes with one instance. Prints the weights and, at several thresholds, the IoU of the
best region for a class's only instance and how often an absent name is answered.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import seem
from seem.evaluation.datasets import Target, open_dataset, read_only
from seem.evaluation.text import absent_names
from seem.predict.instances import likeliest, match_probabilities, phrase_evidence
from seem.predict.scene import Scene

ANSWERED = 0.08  # share of absent names that may find an answer at a score of 0.5


def rows_of(model: seem.Model, photo, names) -> list[dict[str, Any]]:  # type: ignore[no-untyped-def]
    scene = model.encode(photo.path)
    targets = [t for t in photo.targets(scene.size) if t.mask.any()]
    present = {t.name for t in targets}
    out: list[dict[str, Any]] = []
    for name in [*sorted(n for n in present if n), *absent_names(names, present, photo.key, 0)]:
        instances = [t for t in targets if t.name == name and not t.crowd]
        if len(instances) != sum(t.name == name for t in targets):
            continue  # a crowd: nobody knows what is right
        row = {"name": name, "present": bool(instances), "n": len(instances)}
        row["x"], row["iou"] = evidence(scene, name, instances)
        if len(instances) == 1:  # what `segment(Text)` chooses from
            row["quick"] = evidence(scene, name, instances, quick=True)
        out.append(row)
    return out


def evidence(scene: Scene, name: str, instances: list[Target], quick: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(Q, K) evidence that each region is what a name means, and (Q, instances or 1) IoUs."""
    with torch.no_grad():
        found = replace(scene._see(name, quick), few=quick)
        named = match_probabilities(scene._network, found.embeddings, [name], found.looked)[:, 0]
        x = phrase_evidence(found, named).T.numpy()
    iou = np.zeros((len(named), max(1, len(instances))), np.float32)
    masks = (found.logits > 0).flatten(1)
    if instances:
        small = torch.stack(
            [torch.from_numpy(np.array(scene.geometry.mask_to_encoded(t.mask))).float() for t in instances]
        )
        shrunk = torch.nn.functional.interpolate(small[:, None], scene.geometry.mask_size, mode="area")
        truth = shrunk[:, 0].flatten(1) > 0.5
        both = masks.float() @ truth.float().T
        union = masks.sum(1)[:, None] + truth.sum(1)[None] - both
        iou[:] = (both / union.clamp(min=1)).numpy() * truth.any(1).numpy()
    return x, iou


def scores_of(x: np.ndarray, weights: list[float]) -> torch.Tensor:
    return (torch.from_numpy(x) @ torch.tensor(weights[:-1]) + weights[-1]).sigmoid()


def fit_score(rows: list[dict[str, Any]], match: list[float], steps: int = 2000) -> tuple[list[float], float]:
    """Weights of a phrase's answer, and the mean |score - IoU| that they leave."""
    single = [r["quick"] for r in rows if r["n"] == 1]
    answers = [likeliest(scores_of(x, match)) for x, _ in single]
    x = torch.from_numpy(np.stack([each[q] for (each, _), q in zip(single, answers, strict=True)]))
    y = torch.tensor([float(iou[q].max()) for (_, iou), q in zip(single, answers, strict=True)])
    weights = torch.zeros(x.shape[1] + 1)
    weights[2] = 1.0  # the predicted IoU as it is
    weights.requires_grad_()
    optimizer = torch.optim.Adam([weights], 0.02)
    for _ in range(steps):
        loss = ((x @ weights[:-1] + weights[-1]).sigmoid() - y).abs().mean() + 1e-3 * weights[:-1].square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = [round(float(w), 4) for w in weights.detach()]
    left = float(((x @ torch.tensor(found[:-1]) + found[-1]).sigmoid() - y).abs().mean())
    return found, round(left, 4)


def fit(rows: list[dict[str, Any]], steps: int = 2000) -> list[float]:
    x = torch.from_numpy(np.concatenate([r["x"] for r in rows]))  # type: ignore[misc]
    y = torch.from_numpy(np.concatenate([r["iou"].max(1) >= 0.5 for r in rows]).astype(np.float32))  # type: ignore[attr-defined]
    weights = torch.zeros(x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.Adam([weights], 0.05)
    for _ in range(steps):
        logits = x @ weights[:-1] + weights[-1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y) + 1e-4 * weights[:-1].square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    slopes, bias = weights.detach().numpy()[:-1], float(weights.detach()[-1])
    absent = sorted(float((r["x"] @ slopes).max()) + bias for r in rows if not r["present"])  # type: ignore[operator]
    bias -= absent[int(len(absent) * (1 - ANSWERED))]
    return [round(float(w), 4) for w in (*slopes, bias)]


def report(rows: list[dict[str, Any]], weights: list[float]) -> list[dict[str, float]]:
    table = []
    for threshold in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        single: list[float] = []
        wrong, absent = 0, 0
        for r in rows:
            score = scores_of(r["x"], weights)
            best = int(score.argmax())
            answered = bool(score[best] >= threshold)
            if r["present"]:
                if r["n"] == 1:
                    single.append(float(r["iou"][best].max()) if answered else 0.0)  # type: ignore[index]
            else:
                absent += 1
                wrong += answered
        table.append(
            {
                "threshold": threshold,
                "iou": round(float(np.mean(single)), 4),
                "false_positive": round(wrong / absent, 4),
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--model", default="seem-tiny")
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    model = seem.load(args.model, device="cpu")
    dataset = open_dataset(args.data, only=read_only(args.split, args.data))
    rows: list[dict[str, Any]] = []
    for photo in dataset.photos[: args.limit]:
        rows += rows_of(model, photo, dataset.names)
    weights = fit(rows)
    score, left = fit_score(rows, weights)
    print(
        json.dumps(
            {
                "match_weights": weights,
                "text_score_weights": score,
                "text_score_error": left,
                "rows": len(rows),
                "table": report(rows, weights),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
