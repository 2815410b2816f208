"""A tiny deterministic network that segments by colour, with the real one's interface.

It has no weights worth the name, so tests of everything around the network take milliseconds and can say what must
come out: a click on the red square gives the red square, and its label is "red".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from seem import geometry
from seem.model.config import ImageConfig
from seem.model.prompting import ObjectPrompt, VisualPrompt
from seem.model.seem import Decoded, ObjectQueries, PanopticRule, TextFeatures

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "white": (1, 1, 1),
    "black": (0, 0, 0),
    "grey": (0.5, 0.5, 0.5),
}
DIM = 64  # of the joint space: one axis per colour, the rest for all other words
WEIGHTS = "sha256:" + "f" * 64


@dataclass(frozen=True)
class FakeConfig:
    name: str = "fake"
    image: ImageConfig = field(default_factory=lambda: ImageConfig(target=160))


@dataclass
class FakeFeatures:
    colours: Tensor  # (1, 3, h4, w4), 0..1
    size: tuple[int, int]

    @property
    def mask_size(self) -> tuple[int, int]:
        return -(-self.size[0] // 4), -(-self.size[1] // 4)

    def to_tensors(self) -> dict[str, Tensor]:
        return {"colours": self.colours.half().contiguous()}

    @staticmethod
    def from_tensors(network: FakeNetwork, tensors: dict[str, Tensor], size: tuple[int, int]) -> FakeFeatures:
        if set(tensors) != {"colours"}:
            raise ValueError(f"tensors {sorted(tensors)}, expected colours")
        colours, want = tensors["colours"], (1, 3, -(-size[0] // 4), -(-size[1] // 4))
        if tuple(colours.shape) != want or not colours.is_floating_point() or not bool(colours.isfinite().all()):
            raise ValueError(f"colours of shape {tuple(colours.shape)}, expected finite numbers of shape {want}")
        return FakeFeatures(colours.float(), size)


class FakeNetwork(nn.Module):
    """Mask logits fall with the squared distance from the mean colour under the positive prompts."""

    features_type: ClassVar[type] = FakeFeatures

    def __init__(self, config: FakeConfig | None = None) -> None:
        super().__init__()
        self.config = config or FakeConfig()
        self.register_buffer("palette", torch.tensor(list(COLOURS.values())))
        self.calls: list[int] = []  # objects of each decode
        self.encodes = 0

    @property
    def device(self) -> torch.device:
        return self.palette.device

    def encode_image(self, pixels: Tensor, size: tuple[int, int]) -> FakeFeatures:
        assert pixels.shape[:2] == (1, 3)
        assert pixels.dtype == torch.float32
        self.encodes += 1
        c = self.config.image
        mean, std = (torch.tensor(v)[None, :, None, None] for v in (c.mean, c.std))
        colours = ((pixels * std + mean) / 255).clamp(0, 1)
        h, w = size
        colours = nn.functional.pad(colours[..., :h, :w], (0, -w % 4, 0, -h % 4), mode="replicate")
        return FakeFeatures(nn.functional.avg_pool2d(colours, 4), size)

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        rows = torch.stack([_word(text) for text in texts])
        return TextFeatures(rows, rows[:, None], torch.ones(len(texts), 1, dtype=torch.bool))

    def decode(self, features: FakeFeatures, objects: Sequence[ObjectPrompt]) -> Decoded:
        self.calls.append(len(objects))
        masks = torch.stack([self._decode_one(features, item) for item in objects])  # (N, h4, w4)
        logits = torch.stack([masks - 1.0, masks, masks + 1.0], 1)
        inside = logits.sigmoid()
        scores = ((logits > 0) * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1e-6)
        embeddings = torch.stack([self.embed_masks(features, inside[:, s]) for s in range(3)], 1)
        return Decoded(logits, scores, embeddings, torch.ones(len(objects), dtype=torch.long))

    def semantic_regions(self, features: FakeFeatures, text: Tensor) -> Tensor | None:
        return None

    def propose(self, features: FakeFeatures, phrase: str) -> ObjectQueries:
        return self.decode_objects(features)

    panoptic_rule = PanopticRule(threshold=0.3, overlap=0.8)

    closer_look = None

    def regions(self, features: FakeFeatures) -> ObjectQueries:
        return self.decode_objects(features)

    def decode_objects(self, features: FakeFeatures) -> ObjectQueries:
        """One query per palette colour and half of the image."""
        distance = (features.colours - self.palette[:, :, None, None]).square().sum(1)  # (7, h4, w4)
        logits = 6.0 - 40.0 * distance
        left = torch.arange(logits.shape[-1]) < logits.shape[-1] // 2
        logits = torch.cat([logits.where(left, -9.0), logits.where(~left, -9.0)])
        scores = (logits > 0).flatten(1).sum(1).clamp(max=4) / 4 * 0.9
        return ObjectQueries(logits, self.embed_masks(features, (logits > 0).float()), scores)

    def embed_masks(self, features: FakeFeatures, masks: Tensor) -> Tensor:
        colours = features.colours[0]
        mean = torch.einsum("nhw,chw->nc", masks, colours) / masks.sum((1, 2))[:, None].clamp(min=1e-6)
        near = (-20 * torch.cdist(mean, self.palette).square()).exp()
        return nn.functional.normalize(nn.functional.pad(near, (0, DIM - near.shape[1])) + 1e-4, dim=-1)

    def class_logits(self, embeddings: Tensor, text: Tensor) -> Tensor:
        return embeddings @ text.T * 20.0

    # ---- one object ---------------------------------------------------------------------------------------------

    def _decode_one(self, features: FakeFeatures, item: ObjectPrompt) -> Tensor:
        positive, negative = [], []
        for prompt in item.visual:
            (positive if prompt.positive else negative).append(_read(features, prompt))
        for reference in item.references:
            positive += [_read(reference.features, prompt) for prompt in reference.prompts]
        for text in item.texts:
            positive += [torch.tensor(c, dtype=torch.float32) for name, c in COLOURS.items() if name in text.split()]
        h, w = features.mask_size
        colours = features.colours[0]
        logits = torch.zeros(h, w)
        if positive:
            mean = torch.stack(positive).mean(0)
            logits = 6.0 - 40.0 * (colours - mean[:, None, None]).square().sum(0)
        for colour in negative:
            logits = logits - 12.0 * (-40.0 * (colours - colour[:, None, None]).square().sum(0)).exp()
        return logits if item.previous is None else logits + 0.1 * item.previous.clamp(-5, 5)


def _read(features: FakeFeatures, prompt: VisualPrompt) -> Tensor:
    """The mean colour under a prompt, (3,)."""
    h, w = features.size
    if prompt.kind == "box":
        (x0, y0), (x1, y1) = prompt.points.tolist()
        mask = geometry.rasterise_polygon(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), (w, h))
    elif prompt.kind == "polygon":
        mask = geometry.rasterise_polygon(prompt.points, (w, h))
    elif prompt.kind == "scribble":
        mask = geometry.rasterise_scribble(prompt.points, prompt.width, (w, h))
    elif prompt.kind == "mask":
        assert prompt.mask is not None
        mask = prompt.mask
    else:
        mask = np.zeros((h, w), bool)
        x, y = prompt.points[0].astype(int)
        mask[y, x] = True
    assert mask.shape == (h, w)
    ys, xs = np.nonzero(mask) if mask.any() else prompt.points[:1, ::-1].astype(int).clip(0, [h - 1, w - 1]).T
    return features.colours[0][:, ys // 4, xs // 4].mean(1)


def _word(text: str) -> Tensor:
    """A unit vector: a colour's own axis if the text names one, else one made from the text's hash."""
    vector = torch.zeros(DIM)
    for i, name in enumerate(COLOURS):
        if name in text.split():
            vector[i] = 1.0
    if not bool(vector.any()):
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        vector[len(COLOURS) :] = torch.from_numpy(np.random.default_rng(seed).normal(size=DIM - len(COLOURS))).float()
    return nn.functional.normalize(vector, dim=0)
