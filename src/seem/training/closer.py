"""Teach a model its closer look (`seem.model.closer_look`): names of regions, and which of them are whole things.

The encoders and the decoder stay as they are, so what they see of every region is computed once (`collect`) and the
head learns from that in a minute (`fit`). Regions are of two kinds: those that people annotated, which teach names, and
those that a grid of clicks proposes on photos where all of COCO's classes are annotated. Of these, the ones that
overlap an instance by half teach names too, and all teach what a whole thing is.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
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

from seem.images import load_image
from seem.model.closer_look import CloserLook, CloserLookConfig, region_boxes
from seem.model.config import build
from seem.model.image_input import network_input
from seem.model.seem import (
    CLOSER_OVERLAP,
    CLOSER_REGIONS,
    CLOSER_RULE,
    SEEM,
    ImageFeatures,
    click_grid,
    click_masks,
    stability,
    unlike,
)
from seem.predict.closer import make_photo, read_photo
from seem.training.samples import decode_rle, read_records, resize_mask

WHOLE = 0.5  # IoU with an instance from which a region is one
UNKNOWN = 0.3  # weight of a proposal that touches nothing annotated: it may be a thing without a name


@dataclass
class Examples:
    """What is learned from: N regions.

    ``label`` is a number of ``names`` or -1; ``iou`` that with the best instance, or -1 where nobody knows.
    """

    looked: Tensor  # (N, F) half
    embeddings: Tensor  # (N, D) half
    scores: Tensor  # (N,)
    stability: Tensor  # (N,)
    label: Tensor  # (N,) long
    closed: Tensor  # (N,) bool: of a complete photo, where nothing but the names of complete sets is annotated
    iou: Tensor  # (N,)
    touched: Tensor  # (N,) bool: overlaps something annotated
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
                tables = [torch.tensor([*(index[n] for n in p.names), -1]) for p in parts]
                fields["label"] = torch.cat([t[p.label] for t, p in zip(tables, parts, strict=True)])
            elif f.name != "names":
                fields[f.name] = torch.cat([getattr(p, f.name) for p in parts])
        return Examples(**fields, names=names)


@dataclass(frozen=True)
class LookConfig:
    """A training run of a closer look."""

    start: str = ""  # the model that gets it: a name or a weights file, its base beside it
    # records file, views of each annotated region, photos on which regions are proposed
    sets: tuple[tuple[str, int, int], ...] = ()
    grid: int = 12
    steps: int = 2500
    seed: int = 0
    synonym_cosine: float = 0.75  # names closer than this are neither right nor wrong
    look: CloserLookConfig = field(default_factory=lambda: CloserLookConfig(hidden=512))
    match_weights: tuple[float, ...] = ()  # of `SEEMConfig`, fitted again with the closer look

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
    from seem.checkpoints.files import load_model, save_model, sha256_of

    start = Path(config.start)
    base = start.with_name(f"{start.stem}-base.safetensors")
    network, extra = load_model(start, base if base.exists() else None)
    parts = []
    for name, views, proposals in config.sets:
        file = out / f"{Path(name).stem}-{views}-{proposals}-{config.grid}.safetensors"
        if not file.exists():
            records = [r for r in read_records([Path(name)]) if not r.get("dev")]

            def tell(done: int, count: int = len(records), name: str = name) -> None:
                if done % 50 == 0 or done == count:
                    report(f"{name}: {done} of {count} photos")

            collect(network, records, views, proposals, config.grid, config.look, tell).save(file)
        parts.append(Examples.load(file))
    examples = Examples.join(parts)
    report(f"{len(examples.scores)} regions, {len(examples.names)} names")
    network.closer_look = fit(network, examples, config)
    network.config = dataclasses.replace(
        network.config,
        closer_look=config.look,
        match_weights=config.match_weights or network.config.match_weights,
    )
    files = [out / "weights" / path.name for path in (base, start) if path.exists()]
    files[-1].parent.mkdir(parents=True, exist_ok=True)
    if len(files) == 2:
        shutil.copyfile(base, files[0])
    save_model(network, files[-1], files[0] if len(files) == 2 else None, extra)
    hashes = {path.name: sha256_of(path) for path in files}
    files[-1].with_name("sha256.json").write_text(json.dumps(hashes, indent=1) + "\n")
    return hashes


@torch.no_grad()
def collect(
    network: SEEM,
    records: Sequence[dict[str, Any]],
    views: int = 1,
    proposals: int = 0,
    grid: int = 12,
    config: CloserLookConfig | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Examples:
    """What a model's encoders see of the records' regions.

    Args:
        network: a model; whether it has a closer look does not matter.
        records: of `seem.training.samples.read_records`.
        views: of every annotated region but people: the first as it will be looked at, others moved and mirrored.
        proposals: number of photos, the first ones, on which clicks propose regions too, if they are complete.
        grid: such clicks a side.
        config: how closely is looked; the default for seem-tiny.
        report: called with the number of photos done.

    Raises:
        ValueError: a record's mask cannot be read.
    """
    look = new_look(network, config)
    names = sorted({o["name"] for r in records for o in r["objects"] if o.get("name")})
    rows: dict[str, list[Tensor]] = {f.name: [] for f in dataclasses.fields(Examples) if f.name != "names"}
    for done, record in enumerate(records, 1):
        photo = _Photo(network, look, record, names)
        photo.annotated(rows, views)
        if done <= proposals and record["complete"]:
            photo.proposed(rows, grid)
        report(done)
    return Examples(**{name: torch.cat(parts) for name, parts in rows.items()}, names=names)


def new_look(network: SEEM, config: CloserLookConfig | None = None) -> CloserLook:
    """An untrained closer look that fits a network."""
    channels = network.config.semantic_encoder.feature_channels
    dim, width = network.config.pixel_decoder.joint_dim, network.config.text_encoder.width
    made = CloserLook(config or CloserLookConfig(hidden=512), channels["s16"], channels["s32"], dim, width)
    made.text_projection.load_state_dict(network.text_projection.state_dict())
    return made


class _Photo:
    """One record, encoded."""

    def __init__(self, network: SEEM, look: CloserLook, record: dict[str, Any], names: list[str]) -> None:
        self.network, self.look, self.names, self.record = network, look, names, record
        pixels = load_image(record["image"])
        self.photo = read_photo(network, make_photo(pixels))
        self.input, self.size = network_input(pixels, network.config.image)
        self.objects, masks = [], []
        for o in record["objects"]:
            if o.get("rle") and o.get("name"):
                try:
                    mask = resize_mask(decode_rle(o["rle"]), self.size)
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"record {record['id']}, object {o['name']!r}: {error}") from None
                if mask.any():
                    self.objects.append(o)
                    masks.append(torch.from_numpy(mask.copy()))
        self.masks = torch.stack(masks) if masks else torch.zeros(0, *self.size, dtype=torch.bool)

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
        """Annotated regions; the decoder has said nothing of them."""
        n = len(chosen)
        rows["looked"].append(looked.half())
        rows["embeddings"].append(torch.zeros(n, self.network.config.pixel_decoder.joint_dim).half())
        rows["scores"].append(torch.zeros(n))
        rows["stability"].append(torch.zeros(n))
        rows["label"].append(torch.tensor([self.names.index(self.objects[i]["name"]) for i in chosen]))
        rows["closed"].append(torch.full((n,), bool(self.record["complete"])))
        rows["iou"].append(torch.full((n,), -1.0))
        rows["touched"].append(torch.ones(n, dtype=torch.bool))

    def proposed(self, rows: dict[str, list[Tensor]], grid: int) -> None:
        network = self.network
        features: ImageFeatures = network.encode_image(self.input, self.size)
        found = unlike(
            click_masks(network, features, click_grid(self.size, grid), CLOSER_RULE), CLOSER_OVERLAP, CLOSER_REGIONS
        )
        if not len(found.scores):
            return
        h, w = self.size
        large = F.interpolate(found.logits[None], scale_factor=4, mode="bilinear", align_corners=False)[0, :, :h, :w]
        masks = large > 0
        kept = masks.flatten(1).any(1)
        masks = masks[kept]
        rows["looked"].append(self._see(masks).half())
        rows["embeddings"].append(found.embeddings[kept].half())
        rows["scores"].append(found.scores[kept])
        rows["stability"].append(stability(found.logits[kept]))
        label, iou, touched = self._match(masks)
        rows["label"].append(label)
        rows["iou"].append(iou)
        rows["touched"].append(touched)
        rows["closed"].append(torch.ones(len(label), dtype=torch.bool))

    def _match(self, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each proposal's name, IoU with the best instance, and whether it touches anything annotated."""
        n = len(masks)
        if not self.objects:
            return torch.full((n,), -1), torch.zeros(n), torch.zeros(n, dtype=torch.bool)
        flat, truth = masks.flatten(1).float(), self.masks.flatten(1).float()
        both = flat @ truth.T
        inside = both / flat.sum(1, keepdim=True)
        iou = both / (flat.sum(1, keepdim=True) + truth.sum(1) - both)
        crowd = torch.tensor([bool(o.get("crowd")) for o in self.objects])
        doubtful = torch.tensor([bool(o.get("doubtful")) for o in self.objects])
        best = (iou * ~crowd).max(1)
        touched = ((inside >= 0.5) | (iou >= 0.1)).any(1)
        unknown = (inside[:, crowd] >= 0.5).any(1) | doubtful[best.indices] & (best.values >= 0.2)
        numbers = torch.tensor([self.names.index(o["name"]) for o in self.objects])
        label = torch.where((best.values >= WHOLE) & ~unknown, numbers[best.indices], -1)
        return label, torch.where(unknown, -1.0, best.values), touched


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
    named = torch.nonzero(examples.label >= 0)[:, 0]
    counts = torch.bincount(examples.label[named]).float()
    rare = counts[examples.label[named]].pow(-0.4)
    judged = torch.nonzero(examples.iou >= 0)[:, 0]
    optimizer = torch.optim.AdamW([p for p in look.parameters() if p.requires_grad], 1e-3, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / 50) * (0.5 + 0.5 * float(np.cos(np.pi * i / steps)))
    )
    look.train()
    for _ in range(steps):
        rows = named[torch.multinomial(rare, 256, replacement=True)]
        loss = _name_loss(look, examples, rows, names, unlike_names)
        if len(judged):
            loss = loss + _whole_loss(look, examples, judged[torch.randint(len(judged), (256,))])
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
    annotated[examples.label[examples.closed & (examples.label >= 0)]] = True
    return ~close, ~close & annotated


def _see(look: CloserLook, examples: Examples, rows: Tensor) -> Any:
    return look(
        examples.looked[rows].float(),
        examples.embeddings[rows].float(),
        examples.scores[rows],
        examples.stability[rows],
    )


def _name_loss(
    look: CloserLook, examples: Examples, rows: Tensor, names: Tensor, wrong: tuple[Tensor, Tensor]
) -> Tensor:
    label = examples.label[rows]
    logits = look.name_logits(_see(look, examples, rows).embeddings, names)
    against = torch.where(examples.closed[rows][:, None], wrong[1][label], wrong[0][label])
    right = F.one_hot(label, len(names)).bool()
    return F.cross_entropy(logits.masked_fill(~(against | right), -1e4), label)


def _whole_loss(look: CloserLook, examples: Examples, rows: Tensor) -> Tensor:
    target = (examples.iou[rows] >= WHOLE).float()
    weight = torch.where(examples.touched[rows], 1.0, UNKNOWN)
    loss = F.binary_cross_entropy_with_logits(_see(look, examples, rows).whole, target, reduction="none")
    return (loss * weight).mean()
