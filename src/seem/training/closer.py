"""Teach a model its closer look (`seem.model.closer_look`): the names of regions.

The encoders and the decoder stay as they are, so what they see of every annotated region is computed once (`collect`)
and the head learns from that in minutes (`fit`).
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from seem.checkpoints.files import load_model
from seem.geometry import ImageGeometry
from seem.images import load_image
from seem.model.closer_look import CloserLook, CloserLookConfig, region_boxes
from seem.model.config import build
from seem.model.seem import SEEM
from seem.predict.closer import make_photo, read_photo
from seem.training.export import copy_base, write_weights
from seem.training.samples import decode_rle, read_records, resize_mask

RARE = -0.4  # power of a name's count that its regions are drawn with


@dataclass
class Examples:
    """What is learned from: N regions."""

    looked: Tensor  # (N, F) half
    label: Tensor  # (N,) long, a number of ``names``
    closed: Tensor  # (N,) bool: of a complete photo, where nothing but the names of complete sets is annotated
    share: Tensor  # (N,) of what is learned from: rare names more often than they occur
    names: list[str]

    def save(self, path: Path) -> None:
        """One safetensors file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f.name: getattr(self, f.name).contiguous() for f in dataclasses.fields(self) if f.name != "names"}
        save_file(tensors, path, {"names": json.dumps(self.names)})

    @staticmethod
    def load(path: Path) -> Examples:
        """What `save` wrote."""
        with safe_open(path, "pt") as f:
            names = json.loads(f.metadata()["names"])
        return Examples(**load_file(path), names=names)

    @staticmethod
    def join(parts: Sequence[Examples]) -> Examples:
        """One after another, with one list of names."""
        names = sorted({n for p in parts for n in p.names})
        index = {n: i for i, n in enumerate(names)}
        fields: dict[str, Tensor] = {}
        for f in dataclasses.fields(Examples):
            if f.name == "label":
                tables = [torch.tensor([index[n] for n in p.names], dtype=torch.long) for p in parts]
                fields["label"] = torch.cat([t[p.label] for t, p in zip(tables, parts, strict=True)])
            elif f.name != "names":
                fields[f.name] = torch.cat([getattr(p, f.name) for p in parts])
        return Examples(**fields, names=names)


@dataclass(frozen=True)
class LookConfig:
    """A training run of a closer look."""

    start: str = ""  # weights file of the model that gets it, its base beside it
    sets: tuple[tuple[str, int, float], ...] = ()  # records file, views of each region, share of what is learned from
    steps: int = 2500
    seed: int = 0
    synonym_cosine: float = 0.75  # names closer than this are neither right nor wrong
    look: CloserLookConfig = field(default_factory=lambda: CloserLookConfig(hidden=512))
    match_weights: tuple[float, ...] = ()  # of `SEEMConfig`, fitted again with the closer look
    text_score_weights: tuple[float, ...] = ()

    @classmethod
    def read(cls, path: Path) -> LookConfig:
        """Raises ValueError for a field that does not exist, or nothing to learn from."""
        config: LookConfig = build(cls, tomllib.loads(path.read_text()))
        if not config.start or not config.sets:
            raise ValueError(f"{path}: expected start and sets")
        return config


def train_look(config: LookConfig, out: Path, report: Callable[[str], None] = print) -> dict[str, str]:
    """Collect, fit and write the model with its closer look; what was collected before is read again.

    Returns the sha256 of the files in ``out / "weights"``, by name.
    """
    start = Path(config.start)
    base = start.with_name(f"{start.stem}-base.safetensors")
    network, extra = load_model(start, base if base.exists() else None)
    parts = []
    for name, views, share in config.sets:
        file = out / f"{Path(name).stem}-{views}.safetensors"
        if not file.exists():
            records = [r for r in read_records([Path(name)]) if not r.get("dev")]

            def tell(done: int, count: int = len(records), name: str = name) -> None:
                if done % 50 == 0 or done == count:
                    report(f"{name}: {done} of {count} photos")

            collect(network, records, views, config.look, tell).save(file)
        part = Examples.load(file)
        parts.append(dataclasses.replace(part, share=part.share * share / part.share.sum()))
    examples = Examples.join(parts)
    report(f"{len(examples.label)} regions, {len(examples.names)} names")
    network.closer_look = fit(network, examples, config)
    network.config = dataclasses.replace(
        network.config,
        closer_look=config.look,
        match_weights=config.match_weights or network.config.match_weights,
        text_score_weights=config.text_score_weights or network.config.text_score_weights,
    )
    copy_base(config.start, out / "weights" / base.name)
    return write_weights(
        network, out / "weights" / start.name, out / "weights" / base.name if base.exists() else None, extra
    )


@torch.no_grad()
def collect(
    network: SEEM,
    records: Sequence[dict[str, Any]],
    views: int = 1,
    config: CloserLookConfig | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Examples:
    """What a model's encoders see of the records' regions.

    Args:
        network: a model; whether it has a closer look does not matter.
        records: of `seem.training.samples.read_records`.
        views: of every annotated region but people: the first as it will be looked at, others moved and mirrored.
        config: how closely is looked; the default for seem-tiny.
        report: called with the number of photos done.

    Raises:
        ValueError: a record's mask cannot be read.
    """
    look = new_look(network, config)
    names = sorted({o["name"] for r in records for o in r["objects"] if o.get("name")})
    rows: dict[str, list[Tensor]] = {
        f.name: [] for f in dataclasses.fields(Examples) if f.name not in ("names", "share")
    }
    for done, record in enumerate(records, 1):
        _Photo(network, look, record, names).annotated(rows, views)
        report(done)
    merged = {name: torch.cat(parts) for name, parts in rows.items()}
    return Examples(**merged, share=torch.bincount(merged["label"]).float()[merged["label"]].pow(RARE), names=names)


def new_look(network: SEEM, config: CloserLookConfig | None = None) -> CloserLook:
    """An untrained closer look that fits a network."""
    channels = network.config.semantic_encoder.feature_channels
    dim, width = network.config.pixel_decoder.joint_dim, network.config.text_encoder.width
    made = CloserLook(config or CloserLookConfig(hidden=512), channels["s16"], channels["s32"], dim, width)
    made.text_projection.load_state_dict(network.text_projection.state_dict())
    return made


class _Photo:
    """One record's photo, as a scene keeps it, and its masks."""

    def __init__(self, network: SEEM, look: CloserLook, record: dict[str, Any], names: list[str]) -> None:
        self.network, self.look, self.names, self.record = network, look, names, record
        pixels = load_image(record["image"])
        self.photo = read_photo(network, make_photo(pixels))
        width, height = ImageGeometry.of((pixels.shape[1], pixels.shape[0]), network.config.image).encoded
        self.objects, masks = [], []
        for o in record["objects"]:
            if o.get("rle") and o.get("name"):
                try:
                    mask = resize_mask(decode_rle(o["rle"]), (height, width))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"record {record['id']}, object {o['name']!r}: {error}") from None
                if mask.any():
                    self.objects.append(o)
                    masks.append(torch.from_numpy(mask.copy()))
        self.masks = torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.bool)

    def annotated(self, rows: dict[str, list[Tensor]], views: int) -> None:
        chosen = [i for i, o in enumerate(self.objects) if not o.get("crowd")]
        if not chosen:
            return
        rng = np.random.default_rng(zlib.crc32(self.record["id"].encode()))
        self._add(rows, self._see(self.masks[chosen]), chosen)
        again = [i for i in chosen if self.objects[i]["name"] != "person"]
        for _ in range(1, views if again else 1):
            boxes = region_boxes(self.masks[again])
            sizes = boxes[:, 2:] - boxes[:, :2]
            scale, move = (torch.from_numpy(rng.uniform(*r, (len(again), 2))) for r in ((0.7, 1.35), (-0.14, 0.14)))
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + move.float() * sizes
            half = sizes * scale[:, :1].float() / 2
            boxes = torch.cat([centres - half, centres + half], 1)
            self._add(rows, self._see(self.masks[again], boxes, mirrored=bool(rng.random() < 0.5)), again)

    def _see(self, masks: Tensor, boxes: Tensor | None = None, mirrored: bool = False) -> Tensor:
        photo = self.photo
        if mirrored and boxes is not None:
            photo, masks = photo.flip(-1), masks.flip(-1)
            boxes = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
        return self.look.look(self.network.semantic_encoder, photo, masks, boxes)

    def _add(self, rows: dict[str, list[Tensor]], looked: Tensor, chosen: list[int]) -> None:
        n = len(chosen)
        rows["looked"].append(looked.half())
        rows["label"].append(torch.tensor([self.names.index(self.objects[i]["name"]) for i in chosen]))
        rows["closed"].append(torch.full((n,), bool(self.record["complete"])))


def fit(network: SEEM, examples: Examples, config: LookConfig) -> CloserLook:
    """A closer look that learned from examples; the network is not changed."""
    torch.manual_seed(config.seed)
    steps = config.steps
    look = new_look(network, config.look)
    look.text_projection.requires_grad_(False)
    known = examples.looked.float()
    look.shift.copy_(known.mean(0))
    look.scale.copy_(known.std(0) + 1e-3)
    sentences = torch.stack([s for s, _ in network.raw_text(examples.names)])
    names = look.text(sentences)
    unlike_names = _wrong_names(sentences, examples, config.synonym_cosine)
    optimizer = torch.optim.AdamW([p for p in look.parameters() if p.requires_grad], 1e-3, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / 50) * (0.5 + 0.5 * float(np.cos(np.pi * i / steps)))
    )
    look.train()
    for _ in range(steps):
        rows = torch.multinomial(examples.share, 256, replacement=True)
        loss = _name_loss(look, examples, rows, names, unlike_names)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return look.eval().requires_grad_(False)


def _wrong_names(sentences: Tensor, examples: Examples, cosine: float) -> tuple[Tensor, Tensor]:
    """(K, K) bool: which names are wrong for a region of each name; on photos where all names are annotated, and on
    complete ones, where those are that some complete photo has."""
    close = F.normalize(sentences, dim=-1) @ F.normalize(sentences, dim=-1).T > cosine
    annotated = torch.zeros(len(examples.names), dtype=torch.bool)
    annotated[examples.label[examples.closed]] = True
    return ~close, ~close & annotated


def _name_loss(
    look: CloserLook, examples: Examples, rows: Tensor, names: Tensor, wrong: tuple[Tensor, Tensor]
) -> Tensor:
    label = examples.label[rows]
    logits = look.name_logits(look(examples.looked[rows].float()), names)
    against = torch.where(examples.closed[rows][:, None], wrong[1][label], wrong[0][label])
    right = F.one_hot(label, len(names)).bool()
    return F.cross_entropy(logits.masked_fill(~(against | right), -1e4), label)
