"""What the network itself answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from seem.model.prompting import ObjectPrompt
from seem.model.seem import SEEM, ImageFeatures


def expected(
    network: SEEM, features: ImageFeatures, objects: Sequence[ObjectPrompt], names: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The same round by the network."""
    found = network.decode(features, objects)
    row = torch.arange(len(objects))
    embedding = found.embeddings[row, found.selected]
    return {
        "logits": found.logits[row, found.selected],
        "score": found.scores[row, found.selected],
        "class_embedding": embedding,
        "probabilities": network.class_logits(embedding, names).softmax(-1),
    }


def vocabulary(width: int, count: int = 7) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(3)), dim=-1)
