"""Our network against tensors recorded from the official code.

    python -m benchmarks.parity FOLDER [FOLDER …]

A folder is named after an official configuration (``focalt_unicl_lang_v1``) and holds ``state_dict.tsv`` and recorded
``.npz`` files; ``inputs/`` and ``noise.json`` lie beside it (or ``--inputs``, ``--noise``). Weights come from their
names (``benchmarks.seeded_weights``), recorded random draws are injected. One JSON line per file; exit code 1 if a
target is missed, 2 if a folder cannot be read.

Error is max|a-b| / max|ref|. Backbone, pixel decoder and text must stay below 1e-4; the decoder's outputs below
max(3 x the recorded noise, 1e-3 x max|ref|). Chosen indices must be equal where the two best differ by more than
1e-4 x max|ref|, mask bits where |logit| > 1e-4 x max|logit|; the share left out is printed and below 0.1 %.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.seeded_weights import read_shapes, seeded_tensor
from seem.checkpoints.official import check_names, official_name
from seem.evaluation.official_robot import next_clicks, soft_distance
from seem.model.attention_rules import (
    AUDIO,
    GROUNDING,
    OBJECT,
    SPATIAL,
    TEXT,
    TEXT_TO_SPATIAL,
    VISUAL,
    VISUAL_TO_GROUNDING,
)
from seem.model.clip_text_encoder import tokenize, unit
from seem.model.official_config import official_config
from seem.model.official_decoder import DecoderOutput, DecoderPrompts, DecoderTrace, PreparedImage, mask_logits
from seem.model.official_postprocess import bicubic, instances, panoptic, resize_masks, semantic
from seem.model.official_seem import OfficialSEEM, match_text, normalise_image
from seem.model.official_visual_sampler import EvenDraws, OfficialDraws, Strokes, VisualTokens
from seem.vocabulary import COCO_PANOPTIC

FEATURES = 1e-4  # relative target of backbone, pixel decoder and text
DECODER = 1e-3
MARGIN = 1e-4
LEFT_OUT = 1e-3  # greatest share of mask bits that may be too close to call
PHRASES = ["the left person", "a red car on the street.", "dog"]
# positive masks of objects 0, 1, 2 by the letter of an interactive file; A also has a negative on object 0
SCENARIOS = {"A": ["point", "scribble", "boxmask"], "B": ["polygon", "point", "scribble"]}
USUAL_INPUTS = {
    "random_3x256x320.npy", "photo_512.npy", "refimg_3x192x224.npy", "masks_256x320.npz", "refmask_192x224.npz"
}  # fmt: skip
TRUTHS = ["gt_disc", "gt_box", "gt_blob"]


class Skip(Exception):
    """This file cannot be checked; says why."""


@dataclass
class Report:
    """What one file showed."""

    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    selected: dict[str, dict[str, Any]] = field(default_factory=dict)
    masks: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def values(self, key: str, ours: Tensor, recorded: np.ndarray, relative: float, noise: float = 0.0) -> None:
        """Compare numbers; ours may be of full resolution where the record is a subsample or one batch row."""
        self.seen.add(key)
        reference = torch.from_numpy(np.asarray(recorded, np.float32))
        fitted = fit(ours.detach().float().cpu(), tuple(reference.shape), named_stride(key))
        if fitted is None:
            shapes = f"ours {tuple(ours.shape)}, recorded {tuple(reference.shape)}"
            self.outputs[key] = {"ok": False, "reason": f"shapes differ: {shapes}"}
            return
        # what may not be chosen has the score -inf
        difference = (fitted - reference).abs().masked_fill(fitted == reference, 0.0)
        finite = reference[reference.isfinite()].abs()
        worst = float(difference.max()) if reference.numel() else 0.0
        scale = float(finite.max()) if finite.numel() else 0.0
        limit = max(3 * noise, relative * scale)
        self.outputs[key] = {
            "absolute": float(f"{worst:.3g}"),
            "relative": float(f"{worst / max(scale, 1e-30):.3g}"),
            "limit": float(f"{limit:.3g}"),
            "ok": worst <= limit,
        }

    def choice(self, key: str, ours: int, recorded: int, scores: Tensor) -> None:
        """Compare a chosen index; ``scores`` are ours, over all candidates."""
        possible = scores.float()[scores.isfinite()]
        best = possible.topk(min(2, possible.numel())).values
        close = len(best) > 1 and float(best[0] - best[1]) <= MARGIN * float(possible.abs().max())
        self.selected[key] = {"ours": ours, "recorded": recorded, "ok": ours == recorded or close}
        if close:
            self.selected[key]["too_close_to_call"] = True

    def bits(self, key: str, ours: Tensor, recorded: np.ndarray, logits: Tensor | None = None) -> None:
        """Compare booleans, where logits are given only at those that are not within rounding of 0."""
        self.seen.add(key)
        reference = torch.from_numpy(np.asarray(recorded, bool))
        fitted = fit(ours.cpu(), tuple(reference.shape))
        if fitted is None:
            shapes = f"ours {tuple(ours.shape)}, recorded {tuple(reference.shape)}"
            self.masks[key] = {"ok": False, "reason": f"shapes differ: {shapes}"}
            return
        clear = torch.ones_like(reference)
        if logits is not None:
            magnitude = fit(logits.detach().abs().cpu(), tuple(reference.shape))
            assert magnitude is not None
            clear = magnitude > MARGIN * float(magnitude.max())
        wrong = int(((fitted != reference) & clear).sum())
        unclear = int((~clear).sum())
        self.masks[key] = {
            "differ": wrong,
            "left_out": float(f"{unclear / max(clear.numel(), 1):.3g}"),
            "ok": not wrong and unclear <= max(1, LEFT_OUT * clear.numel()),  # of a tiny mask, one bit
        }

    def equal(self, key: str, same: bool, **facts: Any) -> None:
        self.seen.add(key)
        self.selected[key] = {"ok": bool(same), **facts}

    @property
    def ok(self) -> bool:
        checks = [*self.outputs.values(), *self.selected.values(), *self.masks.values()]
        return bool(checks) and all(c["ok"] for c in checks)


def named_stride(key: str) -> int | None:
    """The N of a key that ends in "subN"."""
    m = re.search(r"_sub(\d+)(?:_|$)", key)
    return int(m[1]) if m else None


def fit(ours: Tensor, shape: tuple[int, ...], stride: int | None = None) -> Tensor | None:
    """Bring ours to a record's shape: the first batch rows, every r-th cell of the last two axes; None if it cannot.

    Args:
        stride: the r that the record's key names. If it does not give the shape: the least power of two that does,
            else the least number.
    """
    if ours.numel() == int(np.prod(shape)) and [n for n in ours.shape if n > 1] == [n for n in shape if n > 1]:
        return ours.reshape(shape)
    while ours.dim() < len(shape):
        ours = ours[None]
    if ours.dim() != len(shape):
        return None
    for axis, n in enumerate(shape[:-2] if len(shape) > 2 else ()):
        if ours.shape[axis] < n:
            return None
        ours = ours.narrow(axis, 0, n)
    if len(shape) >= 2 and tuple(ours.shape[-2:]) != shape[-2:]:
        sides = list(zip(ours.shape[-2:], shape[-2:], strict=True))
        numbers = sorted(range(1, max(ours.shape[-2:]) + 1), key=lambda r: (r != stride, r & (r - 1) > 0, r))
        fitting = [r for r in numbers if all(-(-n // r) == wanted for n, wanted in sides)]
        if not fitting:
            return None
        ours = ours[..., :: fitting[0], :: fitting[0]]
    return ours if tuple(ours.shape) == shape else None


class RecordedDraws:
    """The draws that a file recorded, in its order."""

    def __init__(self, npz: dict[str, np.ndarray], prefix: str, semantics_per_prompt: bool, offset: int = 0) -> None:
        self.sets = [npz[k] for k in sorted(k for k in npz if re.fullmatch(prefix + r"points_\d+", k))]
        drawn = [(k.rsplit("_", 1)[1], npz[k]) for k in sorted(k for k in npz if k.startswith(prefix + "rng_"))]
        self.rows = [torch.from_numpy(v) for name, v in drawn if name == "randint"]
        memories = npz.get("memory_indices_per_layer")
        self.slots = [] if memories is None else [torch.from_numpy(m) for m in memories]
        self.indices = [v for name, v in drawn if name == "randperm"]
        if semantics_per_prompt:
            count = sum(1 for s in self.sets if s.shape[1])
            self.indices = [v for name, v in drawn if name == "multinomial"][:count]
        self.per_prompt = semantics_per_prompt
        self.known = False  # whether the prompt pixels are known, so that our own point sets can be checked
        self.mismatches = 0
        self._next = self._drawn = self._layer = 0

    def points(self, objects: Tensor, places: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        recorded = torch.from_numpy(self.sets[self._next])
        self._next += 1
        if self.known:
            self.mismatches += not self._same(objects, places, recorded, limit)
        if self.per_prompt:
            return recorded[0].long(), recorded[1:].T
        return torch.zeros(recorded.shape[1], dtype=torch.long), recorded.T

    def _same(self, objects: Tensor, places: Tensor, recorded: Tensor, limit: int) -> bool:
        """Whether our pixels, at the recorded indices, are the recorded points."""
        n = len(objects)
        if n and (self.per_prompt or n > limit):
            index = torch.from_numpy(self.indices[self._drawn]).flatten()[:limit]
            self._drawn += 1
            index = index.sort().values if self.per_prompt else index
            objects, places = objects[index], places[index]
        ours = places.T
        if self.per_prompt:
            ours = torch.cat([objects[None].float(), ours])
        return ours.shape == recorded.shape and bool(torch.allclose(ours, recorded, atol=1e-6))

    def query_rows(self, total: int, per_object: int, objects: int) -> Tensor:
        count = per_object * objects
        rows = self.rows[0]
        return rows.flatten() if rows.numel() == count else rows.reshape(-1, count)  # one draw for all rows, or each

    def memory_slots(self, slots: int, objects: int) -> Tensor:
        if not self.slots:
            return EvenDraws().memory_slots(slots, objects)
        row = self.slots[self._layer % len(self.slots)]
        self._layer += 1
        return row


class Folder:
    """One recorded configuration: its files, its network with seeded weights, and its encoded images."""

    def __init__(self, path: Path, inputs: Path | None, noise: Path | None) -> None:
        self.path = path
        self.config = official_config(path.name)
        self.inputs = inputs or path.parent / "inputs"
        noise = noise or path.parent / "noise.json"
        self.noise: dict[str, Any] = json.loads(noise.read_text()) if noise.exists() else {}
        with torch.device("meta"):
            self.network = OfficialSEEM(self.config).eval()
        self._loaded: set[str] = set()
        self._maps: dict[str, list[Tensor]] = {}
        self._decoded: dict[str, tuple[Tensor, list[Tensor]]] = {}
        self._prepared: dict[str, PreparedImage] = {}

    def part(self, name: str) -> Any:
        """image_encoder, pixel_decoder, text_encoder or decoder, with its weights."""
        module = self.network.get_submodule(name)
        if name not in self._loaded:
            self._loaded.add(name)
            shapes = {k: tuple(v.shape) for k, v in module.state_dict().items()}
            state = {k: seeded_tensor(official_name(f"{name}.{k}"), shape) for k, shape in shapes.items()}
            module.load_state_dict(state, assign=True)
            module.requires_grad_(False)
        return module

    def share(self, other: Folder) -> None:
        """Take parts and encoded images from a folder of the same architecture: equal names have equal weights."""
        for name in ("image_encoder", "pixel_decoder", "text_encoder", "decoder"):
            state = other.part(name).state_dict()
            self.network.get_submodule(name).load_state_dict(state, assign=True)
        self._loaded = other._loaded
        self._maps, self._decoded, self._prepared = other._maps, other._decoded, other._prepared

    def noise_of(self, key: str) -> float:
        """Recorded difference between float32 and float64 of one output, 0 if it was not measured."""
        return float(self.noise.get(key, {}).get("max_abs_diff", 0.0))

    def input_file(self, name: str) -> Path | None:
        """The recorded input of that name: "random", or "random_320x416" where there are several sizes."""
        stem, _, size = name.partition("_")
        found = {p.name: p for p in sorted(self.inputs.glob(f"{stem}_*{size}.np[yz]"))}
        usual = next((p for n, p in found.items() if n in USUAL_INPUTS), None)
        if len(found) > 1 and usual is None:
            raise Skip(f"which of {', '.join(found)} was recorded cannot be known")
        return usual or next(iter(found.values()), None)

    def image(self, name: str) -> Tensor:
        """(3, H, W) uint8: "random", "photo" or "ref", with a size where there are several, or with "-flipped"."""
        if name.endswith("-flipped"):
            return self.image(name.removesuffix("-flipped")).flip(-1)
        path = self.input_file(re.sub("^ref", "refimg", name))
        if path is not None:
            return torch.from_numpy(np.load(path))
        if name not in ("random", "ref"):
            raise Skip(f"{self.inputs} has no {name}")
        seed, shape = (0, (3, 256, 320)) if name == "random" else (1, (3, 192, 224))
        return torch.from_numpy(np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8))

    def pixels(self, name: str, canvas: tuple[int, int] | None = None) -> Tensor:
        x = normalise_image(self.image(name), self.config.image)
        if canvas is not None:
            x = F.pad(x, (0, canvas[1] - x.shape[-1], 0, canvas[0] - x.shape[-2]))
        return x

    def maps(self, name: str, canvas: tuple[int, int] | None = None) -> list[Tensor]:
        key = f"{name} {canvas}"
        if key not in self._maps:
            self._maps[key] = self.part("image_encoder")(self.pixels(name, canvas))
        return self._maps[key]

    def decoded(self, name: str, canvas: tuple[int, int] | None = None) -> tuple[Tensor, list[Tensor]]:
        key = f"{name} {canvas}"
        if key not in self._decoded:
            self._decoded[key] = self.part("pixel_decoder")(self.maps(name, canvas))
        return self._decoded[key]

    def prepared(self, *names: str) -> PreparedImage:
        key = " ".join(names)
        if key not in self._prepared:
            sizes = [tuple(self.pixels(n).shape[-2:]) for n in names]
            canvas = None if len(names) == 1 else (max(s[0] for s in sizes), max(s[1] for s in sizes))
            pairs = [self.decoded(n, canvas) for n in names]
            features = torch.cat([p[0] for p in pairs])
            levels = [torch.cat(m) for m in zip(*(p[1] for p in pairs), strict=True)]
            self._prepared[key] = self.part("decoder").prepare(features, levels)
        return self._prepared[key]

    @cached_property
    def classes(self) -> Tensor:
        """(134, 512) the table of class embeddings that the records used."""
        path, names = self.path / "text.npz", class_names()
        recorded = np.load(path).get("default_text_embeddings_noprompt") if path.exists() else None
        if recorded is not None and recorded.shape == (len(names), self.config.text_encoder.joint_dim):
            return torch.from_numpy(recorded)
        table: Tensor = self.part("text_encoder").encode_classes(names, templates=False)
        return table

    def stroke_masks(self) -> dict[str, Tensor]:
        path = self.input_file("masks")
        if path is None:
            raise Skip(f"{self.inputs} has no masks")
        return {k: torch.from_numpy(v) for k, v in np.load(path).items()}


def class_names() -> list[str]:
    return [c.coco_name or c.name for c in COCO_PANOPTIC] + ["background"]


# ---- what the recorded outputs are, in our terms ------------------------------------------------------------------


@dataclass
class Run:
    """One decoder call of ours, with everything that a record may be compared with."""

    folder: Folder
    image: PreparedImage
    out: DecoderOutput
    trace: DecoderTrace
    prompts: DecoderPrompts
    sentences: Tensor | None = None  # (phrases, D)
    chosen_masks: Tensor | None = None  # (B, N, h, w)
    chosen: Tensor | None = None  # (B, N): the query chosen for each object
    match: Tensor | None = None  # (B, Q, N): the scores it was chosen by

    def class_logits(self, embeddings: Tensor) -> Tensor:
        return self.folder.part("text_encoder").logit_scale.exp() * unit(embeddings) @ self.folder.classes.T

    def state(self, layer: int, group: str, kind: str) -> Tensor:
        normed = self.trace.states[layer][group]
        decoder = self.folder.part("decoder")
        return decoder.class_vectors(normed) if kind == "class" else decoder.mask_embed(normed)

    def resolve(self, key: str) -> Tensor | None:
        """Our tensor for a recorded key, None if there is none by that name."""
        if m := re.fullmatch(r"aux(\d+)_(pred_\w+)", key):
            return self.output(m[2], int(m[1]))
        if m := re.fullmatch(r"aux_(pred_[a-z]+)(?:_layers(\d+))?", key):
            layers = [int(c) for c in m[2]] if m[2] else range(len(self.trace.states) - 1)
            rows = [self.output(m[1], i) for i in layers]
            return None if rows[0] is None else torch.stack([r[0] for r in rows if r is not None])
        if m := re.fullmatch(r"class_embed_per_layer((?:_\d+)*)", key):
            picked = [int(n) for n in m[1].split("_")[1:]] or range(len(self.trace.states))
            return torch.stack([self.state(i, OBJECT, "class")[0] for i in picked])
        return self.output(re.sub(r"_sub\d+$", "", key), -1)

    def output(self, key: str, layer: int) -> Tensor | None:
        groups = {"": OBJECT, "g": GROUNDING, "s": SPATIAL}
        if key == "pred_logits":
            return self.class_logits(self.state(layer, OBJECT, "class"))
        if m := re.fullmatch(r"pred_([gs]?)masks", key):
            group = groups[m[1]]
            if group not in self.out.mask_embeddings:
                return None
            return mask_logits(self.state(layer, group, "mask"), self.image.mask_features)
        if key in ("pred_captions", "pred_gtexts", "pred_stexts"):
            group = {"pred_captions": OBJECT, "pred_gtexts": GROUNDING, "pred_stexts": SPATIAL}[key]
            return self.state(layer, group, "class") if group in self.out.class_embeddings else None
        if key in ("pred_maskembs", "pred_smaskembs"):
            group = OBJECT if key == "pred_maskembs" else SPATIAL
            return self.state(layer, group, "mask") if group in self.out.mask_embeddings else None
        tokens = self.prompts.reference if key.endswith("visuals") else self.prompts.visual
        if key in ("pred_pspatials", "pred_pvisuals") and tokens is not None:
            return tokens.positive
        if key in ("pred_nspatials", "pred_nvisuals") and tokens is not None:
            return tokens.negative
        if key == "prev_mask":
            return self.chosen_masks
        if key in ("match_logits", "out_prob"):
            return self.match
        return None


def decode(
    folder: Folder,
    images: Sequence[str],
    prompts: DecoderPrompts,
    draws: Any,
    batch: int,
    links: Sequence[tuple[str, str]] = (),
) -> Run:
    """The official call: every query group that the prompts bring into being."""
    semantics = folder.config.semantics
    groups = [OBJECT]
    if not semantics.joint:
        groups += [GROUNDING] * (prompts.text is not None) + [SPATIAL] * (prompts.visual is not None)
    trace = DecoderTrace()
    image = folder.prepared(*images)
    out = folder.part("decoder")(image, prompts, draws, groups, batch, links, trace)
    return Run(folder, image, out, trace, prompts)


def choose_by_visual(run: Run, tokens: VisualTokens) -> None:
    """SPEC 8: the query whose mask embedding is most like the mean prompt feature."""
    semantics = run.folder.config.semantics
    group = OBJECT if semantics.joint else SPATIAL
    scores = run.out.mask_embeddings[group] @ tokens.positive.transpose(1, 2)  # (B, Q, N)
    if semantics.queries_per_prompt is not None:
        owner = torch.arange(scores.shape[1]) // semantics.queries_per_prompt
        scores = scores.masked_fill(owner[:, None] != torch.arange(scores.shape[2]), float("-inf"))
    run.match, run.chosen = scores, scores.argmax(1)
    embeddings = run.out.mask_embeddings[group]
    picked = embeddings.gather(1, run.chosen[:, :, None].expand(-1, -1, embeddings.shape[2]))
    run.chosen_masks = mask_logits(picked, run.image.mask_features)


def encode_phrases(folder: Folder, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """All phrases as one sequence of tokens (1, T, C), and their sentences (n, D)."""
    sentences, tokens, mask = folder.part("text_encoder").encode(texts)
    return tokens[mask][None], sentences


# ---- one function per kind of file --------------------------------------------------------------------------------

Npz = dict[str, np.ndarray]


def check_backbone(folder: Folder, npz: Npz, report: Report, name: str) -> None:
    image = name.split("_", 1)[1]
    maps = folder.maps(image)
    for key, recorded in npz.items():
        if m := re.fullmatch(r"res([2-5])_sub\d+", key):
            report.values(key, maps[int(m[1]) - 2], recorded, FEATURES, folder.noise_of(f"res{m[1]}"))
        elif key.startswith("input_norm_padded"):
            report.values(key, folder.pixels(image), recorded, FEATURES)


def check_pixel_decoder(folder: Folder, npz: Npz, report: Report, name: str) -> None:
    image = name.removeprefix("pixel_decoder_")
    features, levels = folder.decoded(image)
    for key, recorded in npz.items():
        if key.startswith("mask_features"):
            report.values(key, features, recorded, FEATURES, folder.noise_of(key))
        elif m := re.match(r"multi_scale_(\d)", key):
            report.values(key, levels[int(m[1])], recorded, FEATURES, folder.noise_of(m[0]))
        elif key.startswith("transformer_encoder_features"):
            decoder = folder.part("pixel_decoder")
            encoded = decoder.encode(folder.maps(image)[-1]) if hasattr(decoder, "encode") else levels[0]
            report.values(key, encoded, recorded, FEATURES)
        elif key == "stats_mean_std":
            stats = torch.stack([torch.stack([t.mean(), t.std()]) for t in (features, *levels)])
            report.values(key, stats, recorded, FEATURES)


def check_text(folder: Folder, npz: Npz, report: Report, name: str) -> None:
    encoder = folder.part("text_encoder")
    prompts = npz["prompts"].tolist()
    ids, mask = tokenize(prompts)
    report.equal("input_ids", np.array_equal(ids.numpy(), npz["input_ids"]))
    report.equal("attention_mask", np.array_equal(mask.numpy(), npz["attention_mask"].astype(bool)))
    report.seen.add("prompts")
    tokens = encoder(ids)
    sentences, _, _ = encoder.encode(prompts)
    report.values("token_emb_first16", tokens[:, :16], npz["token_emb_first16"], FEATURES)
    report.values("class_emb", sentences, npz["class_emb"], FEATURES)
    report.values("forward_language_norm", unit(sentences), npz["forward_language_norm"], FEATURES)
    report.values("logit_scale", encoder.logit_scale, npz["logit_scale"], FEATURES)
    if "default_text_embeddings_noprompt" in npz:
        table = encoder.encode_classes(class_names(), templates=False)
        report.values("default_text_embeddings_noprompt", table, npz["default_text_embeddings_noprompt"], FEATURES)
    if "class4_template_mean" in npz:
        names = npz["class4_names"].tolist()
        report.seen.add("class4_names")
        rows = [encoder.encode_classes([n]) for n in names[:-1]]
        rows.append(encoder.encode_classes(["A background in coco."], templates=False))
        report.values("class4_template_mean", torch.cat(rows), npz["class4_template_mean"], FEATURES)


def check_generic(folder: Folder, npz: Npz, report: Report, name: str) -> None:
    run = decode(folder, [name.split("_", 1)[1]], DecoderPrompts(), EvenDraws(), 1)
    compare(run, npz, report, name)


def check_grounding(folder: Folder, npz: Npz, report: Report, name: str) -> None:
    texts = npz["texts"].tolist() if "texts" in npz else PHRASES
    report.seen.add("texts")
    tokens, sentences = encode_phrases(folder, texts)
    run = decode(folder, [name.split("_", 1)[1]], DecoderPrompts(text=tokens), EvenDraws(), 1)
    finish_grounding(run, sentences, npz, report, image=name.split("_", 1)[1])
    compare(run, npz, report, name)


def finish_grounding(run: Run, sentences: Tensor, npz: Npz, report: Report, image: str) -> None:
    group = OBJECT if run.folder.config.semantics.joint else GROUNDING
    scale = run.folder.part("text_encoder").logit_scale
    run.match = match_text(run.out.class_embeddings[group], sentences, scale)
    run.chosen = run.match[0].argmax(0)
    for n, recorded in enumerate(npz.get("matched_id", np.array([])).flatten().tolist()):
        if n < run.match.shape[2]:
            report.choice(f"matched_id[{n}]", int(run.chosen[n]), recorded, run.match[0, :, n])
    report.seen.add("matched_id")
    for key, recorded in npz.items():
        if key.startswith("final_grounding_mask"):
            size = run.folder.image(image).shape[-2:]
            picked = run.out.mask_embeddings[group][:, run.chosen]
            logits = mask_logits(picked, run.image.mask_features)[0]
            padded = tuple(4 * n for n in run.image.mask_features.shape[-2:])
            final = resize_masks(logits, (padded[0], padded[1]), (size[0], size[1]), (size[0], size[1]))
            report.values(key, final, recorded, DECODER, run.folder.noise_of("generic.pred_masks"))


def scenario(folder: Folder, name: str, height: int, width: int) -> tuple[Tensor, Tensor] | None:
    """Prompt masks (3, H, W), padded, of an interactive file; None if they cannot be known."""
    m = re.fullmatch(r"interactive_([A-Z])_round(\d+)", name)
    if m is None or m[1] not in SCENARIOS:
        return None
    masks = folder.stroke_masks()
    positive = torch.stack([masks[k] for k in SCENARIOS[m[1]]])
    negative = torch.zeros_like(positive)
    if m[1] == "A":
        negative[0] = masks["neg"]
    positive, negative = (pad_mask(x, height, width) for x in (positive, negative))
    if int(m[2]) == 0:
        return positive, negative
    before = folder.path / f"interactive_{m[1]}_round{int(m[2]) - 1}.npz"
    if not before.exists():
        return None
    recorded = np.load(before)
    shape = tuple(recorded["next_shape"].tolist())
    added = [torch.from_numpy(unpack(recorded[k], shape)).flatten(0, 1) for k in ("next_pos", "next_neg")]
    return positive | added[0], negative | added[1]


def check_interactive(folder: Folder, npz: Npz, report: Report, name: str) -> None:
    semantics = folder.config.semantics
    multi = semantics.queries_per_prompt is not None
    image = folder.prepared("random")
    h, w = (4 * n for n in image.mask_features.shape[-2:])
    known = scenario(folder, name, h, w)
    draws = RecordedDraws(npz, "", multi)
    draws.known = known is not None
    count = int(npz["prev_mask"].shape[1] if multi else npz["prev_mask"].shape[0])
    if known is None:
        report.notes.append("prompt masks unknown: the recorded points are taken as they are")
        known = (torch.zeros(count, h, w, dtype=torch.bool),) * 2
    positive, negative = known
    strokes = (
        [Strokes(positive, negative)]
        if multi
        else [Strokes(p[None], n[None]) for p, n in zip(positive, negative, strict=True)]
    )
    decoder = folder.part("decoder")
    previous = None
    number = int(re.findall(r"\d+", name)[-1])
    if number:
        before = folder.path / f"{name.removesuffix(str(number))}{number - 1}.npz"
        if not before.exists():
            raise Skip(f"{before.name} is missing; its prev_mask is this round's input")
        previous = torch.from_numpy(np.load(before)["prev_mask"])
    visual = decoder.read_prompts(image, strokes, draws)
    if draws.known:
        for key, stack in (("n_pos_px", positive), ("n_neg_px", negative)):
            ours = [int(stack.sum())] if multi else stack.sum((1, 2)).tolist()
            if key in npz:
                report.equal(key, ours == npz[key].tolist())
        report.equal("points", not draws.mismatches, sets=len(draws.sets), differ=draws.mismatches)
    run = decode(folder, ["random"], DecoderPrompts(visual=visual, previous=previous), draws, len(strokes))
    choose_by_visual(run, visual)
    check_chosen(run, npz, report)
    compare(run, npz, report, name)
    if "next_pos" in npz:
        check_next(folder, run, npz, report, positive, negative, draws.known)


def check_chosen(run: Run, npz: Npz, report: Report) -> None:
    """Which query the record chose, told by its mask."""
    if "seg_pred_smasks" not in npz or "prev_mask" not in npz or run.chosen is None or run.match is None:
        return
    candidates = torch.from_numpy(npz["seg_pred_smasks"])
    previous = torch.from_numpy(npz["prev_mask"])
    stride = previous.shape[-1] // candidates.shape[-1]
    previous = previous[..., ::stride, ::stride]
    for b in range(candidates.shape[0]):
        for n in range(previous.shape[1]):
            distance = (candidates[b] - previous[b, n]).abs().amax((1, 2))
            report.choice(f"chosen[{b},{n}]", int(run.chosen[b, n]), int(distance.argmin()), run.match[b, :, n])


def check_next(
    folder: Folder, run: Run, npz: Npz, report: Report, positive: Tensor, negative: Tensor, known: bool
) -> None:
    report.seen |= {"next_pos", "next_neg", "next_shape"}
    if not known:
        report.notes.append("next clicks not checked: the prompts of this round are unknown")
        return
    assert run.chosen_masks is not None
    masks = folder.stroke_masks()
    h, w = positive.shape[-2:]
    truth = pad_mask(torch.stack([masks[k] for k in TRUTHS]), h, w)
    ours = next_clicks(run.chosen_masks.flatten(0, 1), truth, positive, negative)
    shape = tuple(npz["next_shape"].tolist())
    for key, stack in zip(("next_pos", "next_neg"), ours, strict=True):
        report.bits(key, stack, unpack(npz[key], shape).reshape(stack.shape))


def reference_tokens(folder: Folder, npz: Npz, report: Report, image: str = "ref") -> VisualTokens:
    """Stage one: what the region of the other image looks like."""
    multi = folder.config.semantics.queries_per_prompt is not None
    path = folder.input_file("refmask")
    if path is None:
        raise Skip(f"{folder.inputs} has no refmask")
    prepared = folder.prepared(image)
    h, w = (4 * n for n in prepared.mask_features.shape[-2:])
    mask = pad_mask(torch.from_numpy(np.load(path)["refmask"])[None], h, w)
    draws: Any
    if any(k.startswith("ref_points_") for k in npz):
        draws = RecordedDraws(npz, "ref_", multi)
        draws.known = True
    else:
        torch.manual_seed(30)
        draws = OfficialDraws(multi)
        report.notes.append("reference points regenerated from seed 30")
    tokens: VisualTokens = folder.part("decoder").read_prompts(prepared, [Strokes(mask, torch.zeros_like(mask))], draws)
    if isinstance(draws, RecordedDraws):
        report.equal("ref_points", not draws.mismatches, sets=len(draws.sets), differ=draws.mismatches)
    noise = folder.noise_of("mask_features_sub2")
    for key, recorded in npz.items():
        if m := re.fullmatch(r"(?:vis_)?(?:spatial|visual)_query_(pos|neg)", key):
            report.values(key, tokens.positive if m[1] == "pos" else tokens.negative, recorded, DECODER, noise)
        elif m := re.fullmatch(r"src_(?:spatial|visual)_queries_(\d)", key):
            report.values(key, tokens.tokens[int(m[1])].transpose(0, 1), recorded, DECODER, noise)
        elif m := re.fullmatch(r"src_(?:spatial|visual)_maskings_(\d)", key):
            report.bits(key, tokens.padding[int(m[1])], recorded)
    return tokens


def check_reference(folder: Folder, npz: Npz, report: Report, name: str) -> None:
    tokens = reference_tokens(folder, npz, report)
    if "stage2_error" in npz:
        report.seen.add("stage2_error")
        report.notes.append("the official second stage crashes; only the tokens are compared")
        return
    joint = folder.config.semantics.joint
    prompts = DecoderPrompts(reference=tokens) if joint else DecoderPrompts(visual=tokens)
    torch.manual_seed(31)
    run = decode(folder, ["random"], prompts, OfficialDraws(folder.config.semantics.queries_per_prompt is not None), 1)
    choose_by_visual(run, tokens)
    check_match(run, npz, report)
    compare(run, npz, report, name)


def check_match(run: Run, npz: Npz, report: Report) -> None:
    report.seen.add("matched_id")
    if "matched_id" in npz and run.match is not None and run.chosen is not None:
        scores = run.match.transpose(1, 2).flatten(0, 1)  # (B * N, Q)
        for n, recorded in enumerate(npz["matched_id"].flatten().tolist()):
            report.choice(f"matched_id[{n}]", int(run.chosen.flatten()[n]), recorded, scores[n])


def check_demo(folder: Folder, npz: Npz, report: Report, name: str) -> None:
    """demo_* files: any mix of stroke, text, transcribed speech and reference; the name says which."""
    words = name.split("_")[1:]
    h, w = (4 * n for n in folder.prepared("random").mask_features.shape[-2:])
    visual = text = audio = reference = sentences = None
    if "visual" in words:
        reference = reference_tokens(folder, borrowed(folder, npz, "ref_points_"), report)
    if "stroke" in words:
        draws = RecordedDraws(npz, "", False)
        masks = folder.stroke_masks()
        named = next((k for k in ("scribble", "point", "polygon", "boxmask") if k in words), None)
        named = named or ("scribble" if draws.sets and draws.sets[0].shape[1] > 100 else "point")
        positive = pad_mask(masks[named][None], h, w)
        pixels = len(draws.indices[0]) if draws.indices else draws.sets[0].shape[1]
        draws.known = int(positive.sum()) == pixels and not draws.sets[1].shape[1]
        visual = folder.part("decoder").read_prompts(
            folder.prepared("random"), [Strokes(positive, torch.zeros_like(positive))], draws
        )
        if draws.known:
            report.equal("points", not draws.mismatches, sets=len(draws.sets), differ=draws.mismatches)
    if "text" in words:
        group = AUDIO if "audio" in words else TEXT
        phrases = phrases_of(npz, report, group)
        tokens, sentences = encode_phrases(folder, phrases)
        text, audio = (None, tokens) if group == AUDIO else (tokens, None)
    prompts = DecoderPrompts(text=text, audio=audio, visual=visual, reference=reference)
    run = decode(folder, ["random"], prompts, EvenDraws(), 1)
    if visual is not None or reference is not None:
        choose_by_visual(run, visual or reference)  # type: ignore[arg-type]
        check_match(run, npz, report)
    elif sentences is not None:
        finish_grounding(run, sentences, npz, report, "random")
    compare(run, npz, report, name)


def borrowed(folder: Folder, npz: Npz, prefix: str) -> Npz:
    """The file itself, or one beside it that recorded the same draws of the reference image."""
    if any(k.startswith(prefix) for k in npz):
        return npz
    for other in ("demo_visual_ref.npz", "refimg.npz"):
        if (folder.path / other).exists():
            return {k: v for k, v in np.load(folder.path / other).items() if k.startswith("ref_")}
    return npz


def phrases_of(npz: Npz, report: Report, group: str, batch_row: int = 0) -> list[str]:
    """The phrases of a record: written in it, or those of the usual ones that give its number of tokens."""
    for key in ("texts", "text", "phrases", "prompts", "audio_text", "caption"):
        if key in npz:
            report.seen.add(key)
            return [str(t) for t in np.atleast_1d(npz[key]).tolist()]
    names = npz.get("selfattn_names", np.array([])).tolist()
    if group not in names:
        raise Skip("the phrases are not recorded")
    start, end = npz["selfattn_index_l0"][names.index(group)].tolist()
    everything = [*PHRASES, "The corgi."]
    for candidate in ([t] for t in everything):
        if int(tokenize(candidate)[1].sum()) == end - start:
            report.notes.append(f"phrases not recorded; {candidate} has as many tokens")
            return candidate
    for candidate in (PHRASES, PHRASES[:2], PHRASES[1:]):
        if int(tokenize(candidate)[1].sum()) == end - start:
            report.notes.append(f"phrases not recorded; {candidate} have as many tokens")
            return list(candidate)
    raise Skip(f"the phrases are not recorded, and none of the usual ones has {end - start} tokens")


def check_composed(folder: Folder, npz: Npz, report: Report, name: str) -> None:
    """Text and strokes in one pass, on one image or on two."""
    semantics = folder.config.semantics
    multi = semantics.queries_per_prompt is not None
    draws = RecordedDraws(npz, "", multi)
    if not draws.sets:
        raise Skip("no recorded points")
    images = 2 if name.startswith("batch2") else 1
    # 2 signs x (mean + 3 levels) point sets per batch row
    batch = len(draws.sets) // 8
    objects = int(max((s[0].max() if s.shape[1] else 0) for s in draws.sets)) + 1 if multi else 1
    phrases = phrases_of(npz, report, TEXT)
    sequences = [phrases] * batch
    if images == 2:
        sequences = batch_phrases(npz, phrases)
        report.notes.append(f"phrases per image taken to be {sequences}")
    encoded = [encode_phrases(folder, s) for s in sequences]
    text = torch.nn.utils.rnn.pad_sequence([e[0][0] for e in encoded], batch_first=True)
    lengths = torch.tensor([e[0].shape[1] for e in encoded])
    padding = torch.arange(text.shape[1]) >= lengths[:, None]
    best: tuple[float, Run, str] | None = None
    for names in [("random",)] if images == 1 else [("random", "ref"), ("random", "random-flipped"), ("random",) * 2]:
        draws = RecordedDraws(npz, "", multi)
        prepared = folder.prepared(*names)
        h, w = (4 * n for n in prepared.mask_features.shape[-2:])
        none = torch.zeros(objects, h, w, dtype=torch.bool)
        visual = folder.part("decoder").read_prompts(prepared, [Strokes(none, none)] * batch, draws)
        prompts = DecoderPrompts(text=text, text_padding=padding if bool(padding.any()) else None, visual=visual)
        run = decode(folder, names, prompts, draws, batch, composition_links(npz, semantics.joint))
        ours = run.resolve("pred_logits")
        assert ours is not None
        recorded = npz.get("pred_logits", npz.get("seg_pred_logits"))
        fitted = None if recorded is None else fit(ours, recorded.shape)
        error = 0.0 if fitted is None else float((fitted - torch.from_numpy(recorded)).abs().max())
        if best is None or error < best[0]:
            best = (error, run, " and ".join(names))
    assert best is not None
    run = best[1]
    report.notes.append(f"images taken to be {best[2]}; points as recorded")
    if "out_prob" in npz:
        finish_grounding(run, encoded[0][1], npz, report, "random")
        assert run.match is not None
        report.values("out_prob", run.match, npz["out_prob"], DECODER)
    assert run.prompts.visual is not None
    choose_by_visual(run, run.prompts.visual)
    if "out_prob" not in npz:
        check_match(run, npz, report)
    check_chosen(run, npz, report)
    compare(run, npz, report, name)


def composition_links(npz: Npz, joint: bool) -> list[tuple[str, str]]:
    """Which of the two optional links the record was made with, read from its attention mask."""
    names = npz.get("selfattn_names", np.array([])).tolist()
    if joint or not {SPATIAL, TEXT, GROUNDING, VISUAL} <= set(names):
        return []
    index = dict(zip(names, npz["selfattn_index_l0"].tolist(), strict=True))
    mask = unpack(npz["selfattn_mask_l0_packed"], tuple(npz["selfattn_mask_l0_shape"].tolist()))
    links = []
    for row, column in (TEXT_TO_SPATIAL, VISUAL_TO_GROUNDING):
        block = mask[0, slice(*index[row]), slice(*index[column])]
        if not block.all():
            links.append((row, column))
    return links


def batch_phrases(npz: Npz, phrases: list[str]) -> list[list[str]]:
    """Split phrases over two images so that the padding is as recorded."""
    names = npz["selfattn_names"].tolist()
    index = dict(zip(names, npz["selfattn_index_l0"].tolist(), strict=True))
    mask = unpack(npz["selfattn_mask_l0_packed"], tuple(npz["selfattn_mask_l0_shape"].tolist()))
    span = slice(*index[TEXT])
    lengths = (~mask[:, span, span]).any(2).sum(1).tolist()
    usual = [*phrases, *PHRASES, "The corgi."]
    options = [[t] for t in usual] + [usual[i:j] for i in range(len(usual)) for j in range(i + 2, len(usual) + 1)]
    found = []
    for n in lengths:
        fitting = [o for o in options if int(tokenize(o)[1].sum()) == n]
        if not fitting:
            raise Skip(f"no usual phrases have {n} tokens")
        found.append(fitting[0])
    return found


def check_postprocess(folder: Folder, npz: Npz, report: Report, name: str) -> None:
    class_logits = torch.from_numpy(npz["mask_cls"])
    masks = torch.from_numpy(npz["mask_pred_float16"]).float()
    things = [c.is_thing for c in COCO_PANOPTIC]
    panoptic_map, segments = panoptic(class_logits, masks, things, float(npz["obj_thr"]), float(npz["overlap_thr"]))
    expected = official_config(f"focalt_unicl_lang_{name.split('_')[1]}")
    report.equal("obj_thr", expected.semantics.object_threshold == float(npz["obj_thr"]))
    report.equal("overlap_thr", expected.overlap_threshold == float(npz["overlap_thr"]))
    report.equal("panoptic_seg", np.array_equal(panoptic_map.numpy(), npz["panoptic_seg"]))
    found = [[s.id, int(s.is_thing), s.category] for s in segments]
    report.equal("segments_id_isthing_category", found == npz["segments_id_isthing_category"].tolist())
    report.seen |= {"mask_cls", "mask_pred_float16"}
    report.values("semseg_sub4", semantic(class_logits, masks), npz["semseg_sub4"], FEATURES)
    scores, classes, inside = instances(class_logits, masks, things)
    order = _canonical(scores, classes)
    recorded = _canonical(torch.from_numpy(npz["inst_scores"]), torch.from_numpy(npz["inst_classes"]))
    report.values("inst_scores", scores[order], npz["inst_scores"][recorded.numpy()], FEATURES)
    report.equal("inst_classes", classes[order].tolist() == npz["inst_classes"][recorded.numpy()].tolist())
    areas = inside.sum((1, 2)).float()[order]
    report.values("inst_mask_area", areas, npz["inst_mask_area"][recorded.numpy()], FEATURES)
    for key, value in npz.items():
        if m := re.fullmatch(r"sem_seg_postprocess_crop(\d+)x(\d+)_to_(\d+)x(\d+)_q(\d+)_(\d+)_sub\d+", key):
            ch, cw, oh, ow, first, last = map(int, m.groups())
            report.values(key, bicubic(masks[first:last, :ch, :cw], (oh, ow)), value, FEATURES)


def _canonical(scores: Tensor, classes: Tensor) -> Tensor:
    """An order that does not depend on how equal scores were listed."""
    return torch.tensor(sorted(range(len(scores)), key=lambda i: (-round(float(scores[i]), 6), int(classes[i]))))


def check_next_click(folder: Folder, npz: Npz, report: Report, name: str) -> None:
    masks = folder.stroke_masks()
    truth = torch.stack([masks[k] for k in TRUTHS])
    logits = torch.from_numpy(npz["prev_mask_64x80"])[0]
    positive, negative = torch.stack([masks[k] for k in SCENARIOS["A"]]), torch.zeros_like(truth)
    clicked = positive
    positive, negative = next_clicks(logits, truth, positive, negative)
    report.bits("next_pos", positive, npz["next_pos"])
    report.bits("next_neg", negative, npz["next_neg"])
    predicted = F.interpolate(logits[None], truth.shape[-2:], mode="bilinear", align_corners=False)[0] > 0
    report.bits("fp", ~truth & predicted & ~clicked, npz["fp"].reshape(truth.shape))
    report.values("dt_gt_blob_kornia070", soft_distance(truth[2]), npz["dt_gt_blob_kornia070"], FEATURES)
    low = torch.from_numpy(npz["prev_low_8x10"])
    raised = F.interpolate(low, (64, 80), mode="bilinear", align_corners=False)
    report.values("prev_mask_64x80", raised, npz["prev_mask_64x80"], FEATURES)
    report.seen.add("prev_low_8x10")


# ---- the parts that all decoder files share -----------------------------------------------------------------------


def compare(run: Run, npz: Npz, report: Report, name: str) -> None:
    """Every recorded output and attention mask that has a counterpart."""
    stem = re.sub(r"_(random|photo|ref)(_\d+x\d+)?$", "", name)
    for key, recorded in npz.items():
        if key in report.seen or re.match(r"(ref_)?(points|rng)_|memory_indices", key) or "attn_" in key:
            continue
        ours = run.resolve(key.removeprefix("seg_"))
        if ours is not None:
            report.values(key, ours, recorded, DECODER, run.folder.noise_of(f"{stem}.{key}"))
    if "selfattn_names" in npz:
        ours_names = [n for n, _ in run.trace.groups]
        report.equal("selfattn_names", ours_names == npz["selfattn_names"].tolist(), ours=ours_names)
    for key in [k for k in npz if re.fullmatch(r"(self|cross)attn_mask_l\d+_packed", k)]:
        layer = int(re.findall(r"\d+", key)[0])
        recorded = unpack(npz[key], tuple(npz[key.replace("packed", "shape")].tolist()))
        if key.startswith("self"):
            report.bits(key, run.trace.self_blocked[layer], recorded)
        else:
            report.bits(key, run.trace.cross_blocked[layer], recorded, run.trace.cross_logits[layer])


def unpack(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    bits = np.unpackbits(packed, axis=-1)[..., : shape[-1]]
    return bits.reshape(shape).astype(bool)


def pad_mask(mask: Tensor, height: int, width: int) -> Tensor:
    return F.pad(mask, (0, width - mask.shape[-1], 0, height - mask.shape[-2]))


CHECKS: list[tuple[str, Callable[[Folder, Npz, Report, str], None]]] = [
    (r"backbone_(random|photo|ref)(_\d+x\d+)?", check_backbone),
    (r"pixel_decoder_(random|photo|ref)(_\d+x\d+)?", check_pixel_decoder),
    (r"text", check_text),
    (r"generic_(random|photo|ref)(_\d+x\d+)?", check_generic),
    (r"grounding_(random|photo|ref)(_\d+x\d+)?", check_grounding),
    (r"interactive_[A-Z]_round\d+", check_interactive),
    (r"refimg|demo_visual_ref", check_reference),
    (r"demo_(stroke|text|audio|visual).*", check_demo),
    (r"composition_text_visual|batch2_text_visual", check_composed),
    (r"postproc_(v0|v1|demo)", check_postprocess),
    (r"next_click_unit", check_next_click),
]
_INPUTS = re.compile(r"(self|cross)attn_(names|index|mask)|(ref_)?(points|rng)_\w+|memory_indices_per_layer|next_shape")


def check_file(folder: Folder, path: Path) -> dict[str, Any]:
    """One file -> its JSON line."""
    started = time.time()
    line: dict[str, Any] = {"folder": folder.path.name, "file": path.name}
    check = next((c for pattern, c in CHECKS if re.fullmatch(pattern, path.stem)), None)
    if check is None:
        return line | {"status": "skipped", "reason": "unknown kind of file"}
    report = Report()
    npz = dict(np.load(path))
    try:
        with torch.inference_mode():
            check(folder, npz, report, path.stem)
    except Skip as reason:
        return line | {"status": "skipped", "reason": str(reason)}
    except (LookupError, RuntimeError, ValueError, AssertionError) as error:
        return line | {"status": "fail", "reason": f"{type(error).__name__}: {error}"}
    worst = [v["relative"] for v in report.outputs.values() if "relative" in v]
    unchecked = [k for k in npz if k not in report.seen and not _INPUTS.match(k)]
    return line | {
        "status": "pass" if report.ok else "fail",
        "worst_relative": max(worst, default=0.0),
        "outputs": report.outputs,
        "selected": report.selected,
        "masks": report.masks,
        "unchecked": unchecked,
        "notes": report.notes,
        "seconds": round(time.time() - started, 1),
    }


def check_folder(path: Path, inputs: Path | None, noise: Path | None) -> Iterator[dict[str, Any]]:
    """JSON lines of a folder: names and shapes first, then every recorded file."""
    folder = Folder(path, inputs, noise)
    line: dict[str, Any] = {"folder": path.name, "file": "state_dict.tsv"}
    files, names = sorted(path.glob("*.npz")), path / "state_dict.tsv"
    if not names.exists() and not files:
        raise Skip("no state_dict.tsv and no .npz file in it")
    if names.exists():
        shapes = read_shapes(names)
        try:
            check_names(shapes, folder.config)
            yield line | {"status": "pass", "tensors": len(shapes)}
        except ValueError as error:
            yield line | {"status": "fail", "reason": str(error)}
    else:
        yield line | {"status": "skipped", "reason": "not there"}
    for file in files:
        yield check_file(folder, file)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--inputs", type=Path, help="recorded inputs, if not beside the folder")
    parser.add_argument("--noise", type=Path, help="noise.json, if not beside the folder")
    options = parser.parse_args(arguments)
    failed = False
    for path in options.folders:
        try:
            for line in check_folder(path, options.inputs, options.noise):
                print(json.dumps(line), flush=True)
                failed |= line["status"] == "fail"
        except (ValueError, OSError, Skip) as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 2
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
