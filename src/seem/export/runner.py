"""The exported decoder in onnxruntime: what `SEEM.decode` does, by the graphs.

The network is asked only for what a machine without torch would get from elsewhere: points of prompts, embeddings of
phrases and references. docs/export.md has the arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seem.export.decoder import NO_POINT
from seem.model.prompting import EncodedReference, ObjectPrompt
from seem.model.seem import SEEM, ImageFeatures
from seem.model.visual_sampler import dense_prompt

Arrays = dict[str, np.ndarray]
Sessions = Mapping[str, Any]  # "prepare", "maps" and "decode" -> onnxruntime.InferenceSession
MAP_NAMES = ("embedding", "semantic", "middle", "fine")


def load_graphs(paths: Iterable[Path], threads: int = 1) -> dict[str, Any]:
    """An onnxruntime session for each .onnx file, by its name without the ending. Needs the package onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return {path.stem: onnxruntime.InferenceSession(str(path), options) for path in paths if path.suffix == ".onnx"}


def prepare(sessions: Sessions, features: ImageFeatures) -> Arrays:
    """The outputs of `Prepare`."""
    feeds = {name: getattr(features.maps, name).numpy() for name in MAP_NAMES}
    names = [output.name for output in sessions["prepare"].get_outputs()]
    return dict(zip(names, sessions["prepare"].run(None, feeds), strict=True))


def decode(
    sessions: Sessions,
    network: SEEM,
    features: ImageFeatures,
    prepared: Arrays,
    objects: Sequence[ObjectPrompt],
    names: torch.Tensor,
) -> Arrays:
    """One round by the graphs: logits, score, class_embedding, probabilities."""
    told = arrays(network, features, objects)
    n = len(objects)
    feeds = prepared | {k: told[k] for k in ("points", "kinds", "tokens", "has_token")}
    feeds |= {k: told[k] for k in ("text", "previous")}
    remembers = told["has_previous"][:, None]
    count = network.config.prompt_decoder.memory_tokens if remembers.any() else 1
    feeds["has_memory"] = np.repeat(remembers, count, 1)
    feeds |= {"names": names.numpy(), "size": np.array(features.size, np.int32), "which": np.zeros(n, np.int32)}
    flags = ("has_drawn", "has_previous", "has_text", "has_reference")
    if any(told[flag].any() for flag in flags):
        wanted = {i.name for i in sessions["maps"].get_inputs()}
        added = sessions["maps"].run(None, {k: v for k, v in (prepared | told).items() if k in wanted})
        feeds |= {"stream": added[0], "first": added[1], "which": np.arange(n, dtype=np.int32)}
    outputs = [output.name for output in sessions["decode"].get_outputs()]
    return dict(zip(outputs, sessions["decode"].run(None, feeds), strict=True))


def arrays(network: SEEM, features: ImageFeatures, objects: Sequence[ObjectPrompt]) -> Arrays:
    """What N objects are told, as the graphs take it."""
    c, joint = network.config.prompt_decoder, network.config.pixel_decoder.joint_dim
    n, (h4, w4) = len(objects), (4 * features.state.grid[0], 4 * features.state.grid[1])
    rows = [_one(network, features, o) for o in objects]
    p, t, r = (max(1, *(len(row[k]) for row in rows)) for k in ("points", "tokens", "references"))
    out = {
        "points": np.zeros((n, p, 2), np.float32),
        "kinds": np.full((n, p), NO_POINT, np.int32),
        "tokens": np.zeros((n, t, c.dim), np.float32),
        "has_token": np.zeros((n, t), np.float32),
        "references": np.zeros((n, r, joint), np.float32),
        "has_reference": np.zeros((n, r), np.float32),
        "text": np.zeros((n, joint), np.float32),
        "has_text": np.zeros(n, np.float32),
        "drawn": np.zeros((n, h4, w4), np.float32),
        "has_drawn": np.zeros(n, np.float32),
        "previous": np.zeros((n, h4, w4), np.float32),
        "has_previous": np.zeros(n, np.float32),
    }
    for i, row in enumerate(rows):
        out["points"][i, : len(row["points"])] = row["points"]
        out["kinds"][i, : len(row["points"])] = row["kinds"]
        for name, flag in (("tokens", "has_token"), ("references", "has_reference")):
            out[name][i, : len(row[name])] = row[name]
            out[flag][i, : len(row[name])] = 1
        for name in ("text", "drawn", "previous"):
            if (value := row[name]) is not None:
                out[name][i][tuple(slice(s) for s in value.shape)] = value
                out[f"has_{name}"][i] = 1
    return out


def _one(network: SEEM, features: ImageFeatures, item: ObjectPrompt) -> dict[str, Any]:
    xy, kinds = network.visual_sampler.points(item.visual, features.size)
    dim, joint = network.config.prompt_decoder.dim, network.config.pixel_decoder.joint_dim
    tokens, references, text = [torch.zeros(0, dim)], [torch.zeros(0, joint)], None
    if item.texts:
        encoded = network.encode_text(item.texts)
        tokens.append(encoded.tokens[encoded.mask])
        text = encoded.sentence.mean(0).numpy()
    for reference in item.references:
        known = reference if isinstance(reference, EncodedReference) else network.encode_reference(reference)
        tokens.append(network.visual_sampler.reference_tokens(known.samples, known.kinds))
        references.append(known.embedding[None])
    return {
        "points": xy.numpy(),
        "kinds": kinds.numpy(),
        "tokens": torch.cat(tokens).numpy(),
        "references": torch.cat(references).numpy(),
        "text": text,
        "drawn": dense_prompt(item.visual, features.size),
        "previous": None if item.previous is None else item.previous.numpy(),
    }
