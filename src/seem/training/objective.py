"""One photo's loss: interactive rounds, text, names, pixel-text alignment and object queries together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seem.model.pixel_decoder import PixelMaps, pool_masks
from seem.model.prompt_decoder import DecoderOutput
from seem.model.prompting import EncodedReference, ObjectPrompt, VisualPrompt
from seem.model.seem import SEEM, ImageFeatures
from seem.predict.obey import obey
from seem.training import simulate
from seem.training.expressions import describe, expression, places_of
from seem.training.losses import focal, importance_points, mask_bce, mask_dice, mask_iou, pairwise_cost
from seem.training.matching import assign
from seem.training.samples import Sample, Target, pad_to
from seem.vocabulary import COCO_PANOPTIC


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the terms and the mix of prompts; every field is a line of the training config."""

    objects_per_image: int = 6
    max_rounds: int = 4
    stop_rate: float = 0.4  # each round is the last one with this probability
    regions_per_image: int = 0  # stuff that is asked for by name
    lone_names: bool = False  # the name of a photo's only object is a text prompt also where others may be unannotated
    first_weight: float = 0.0  # of the first round's loss where others follow; 0: the last round alone is learned from
    prompt_mix: tuple[tuple[str, float], ...] = (
        ("click", 0.5),
        ("box", 0.12),
        ("scribble", 0.1),
        ("polygon", 0.06),
        ("mask", 0.06),
        ("text", 0.16),
        ("reference", 0.08),
    )
    mistakes: simulate.Mistakes = field(default_factory=simulate.Mistakes)  # of first prompts; none by default
    first_negative: float = 0.0  # share of visual first prompts that also say what is not the object
    forget: float = 0.15  # share of later rounds that see all prompts but not the previous mask
    text_with_click: float = 0.15  # share of visual prompts of named objects that also carry the name
    mask_weight: float = 1.0
    coarse_weight: float = 0.4
    iou_weight: float = 1.0
    name_weight: float = 0.5
    pixel_weight: float = 2.0
    query_weight: float = 0.5
    query_points: int = 2048
    classes_per_image: int = 24
    synonym_cosine: float = 0.75  # names closer than this are neither right nor wrong


class Vocabulary:
    """All names of the training records and which of them are too alike to be told apart."""

    def __init__(self, model: SEEM, names: list[str], config: ObjectiveConfig) -> None:
        self.names = names
        self.index = {n: i for i, n in enumerate(names)}
        self.raw = torch.stack([s for s, _ in model.raw_text(names)])
        things = {c.name for c in COCO_PANOPTIC if c.is_thing}
        self.annotated = torch.tensor([n in things for n in names], device=self.raw.device)
        alike = (self.raw @ self.raw.T) > config.synonym_cosine
        alike.fill_diagonal_(False)
        self.alike = alike

    def embed(self, model: SEEM) -> Tensor:
        return F.normalize(model.text_projection(self.raw), dim=-1)


@dataclass
class Item:
    """One prompted object of the current photo."""

    target: Target
    prompts: list[VisualPrompt]
    text: str | None
    coverage: Tensor  # (H4, W4) padded
    alternatives: list[Tensor]  # any of these is right too (a name shared by several instances)
    previous: Tensor | None = None
    reference: EncodedReference | None = None


Log = dict[str, float]
FindReference = Callable[[str, np.random.Generator], EncodedReference | None]


class Objective:
    """Callable on one photo; holds no state between photos.

    ``find_reference(name, rng)`` gives a region of another photo that shows what is named, or None.
    """

    def __init__(
        self, model: SEEM, vocabulary: Vocabulary, config: ObjectiveConfig, find_reference: FindReference | None = None
    ) -> None:
        self.model, self.vocabulary, self.config, self.find_reference = model, vocabulary, config, find_reference

    def __call__(
        self, features: ImageFeatures, sample: Sample, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, Log]:
        grid = (features.state.grid[0] * 4, features.state.grid[1] * 4)
        text = self.vocabulary.embed(self.model)
        coverage = {id(t): pad_to(torch.from_numpy(t.coverage), grid).to(self.model.device) for t in sample.targets}
        log: Log = {}
        total = features.joint.sum() * 0
        items = self._items(sample, coverage, rng)
        if items:
            total = total + self._prompted(features, items, text, rng, log)
        total = total + self._names(features.joint, sample, coverage, text, log)
        total = total + self._pixels(features.joint, sample, coverage, text, rng, log)
        if sample.complete and self.config.query_weight:
            total = total + self.config.query_weight * self._queries(features, sample, coverage, text, generator, log)
        log["total"] = float(total.detach())
        return total, log

    # ---- prompted objects -----------------------------------------------------------------------------------------

    def _items(self, sample: Sample, coverage: dict[int, Tensor], rng: np.random.Generator) -> list[Item]:
        c = self.config
        usable = [t for t in sample.targets if t.single and t.sure and t.mask.sum() >= 64]
        regions = self._region_items(sample, coverage, rng)
        if not usable:
            return regions
        kinds, weights = zip(*c.prompt_mix, strict=True)
        p = np.array(weights) / sum(weights)
        order = list(rng.permutation(len(usable)))
        while len(order) < c.objects_per_image and len(order) < 3 * len(usable):
            order += list(rng.permutation(len(usable)))
        items = []
        for i in order[: c.objects_per_image]:
            target = usable[i]
            same = [t for t in usable if target.name is not None and t.name == target.name]
            kind = str(rng.choice(kinds, p=p))
            alone = c.lone_names and len(sample.targets) == 1
            named = target.name is not None and (sample.complete or alone)
            phrase, others = None, []
            if kind == "text" and not (named or target.phrases):
                kind = "click"
            reference = None
            if kind == "reference":
                reference = self.find_reference(str(target.name), rng) if named and self.find_reference else None
                kind = "reference" if reference else "click"
            if reference:
                others = [coverage[id(t)] for t in same] if len(same) > 1 else []
            if kind == "text" and target.phrases:
                phrase = str(rng.choice(target.phrases))
            elif named and (kind == "text" or (kind != "reference" and rng.random() < c.text_with_click)):
                assert target.name is not None
                places = []
                if kind == "text" and len(same) > 1:
                    me = next(j for j, t in enumerate(same) if t is target)
                    places = places_of(me, [describe(t.mask) for t in same])
                    if not places:
                        others = [coverage[id(t)] for t in same]
                phrase = expression(target.name, places, rng)
            visual = kind not in ("text", "reference")
            prompts = [simulate.first_prompt(kind, target.mask, rng, c.mistakes)] if visual else []
            if visual and c.first_negative and rng.random() < c.first_negative:
                negative = simulate.first_negative(str(rng.choice(["click", "scribble"])), target.mask, rng)
                prompts += [negative] if negative else []
            items.append(Item(target, prompts, phrase, coverage[id(target)], others, reference=reference))
        return items[: max(1, c.objects_per_image - len(regions))] + regions

    def _region_items(self, sample: Sample, coverage: dict[int, Tensor], rng: np.random.Generator) -> list[Item]:
        """Stuff that is annotated as one region a name, asked for by its name."""
        known = [
            t for t in sample.targets
            if t.kind == "stuff" and t.name in sample.annotated and t.name not in sample.unsure
        ]  # fmt: skip
        chosen = [known[i] for i in rng.permutation(len(known))[: self.config.regions_per_image]]
        return [Item(t, [], expression(str(t.name), [], rng), coverage[id(t)], []) for t in chosen]

    def _prompted(
        self, features: ImageFeatures, items: list[Item], text: Tensor, rng: np.random.Generator, log: Log
    ) -> Tensor:
        """A random number of rounds: the last one and, if `first_weight` says so, the first one are learned from."""
        c = self.config
        rounds = min(int(rng.geometric(c.stop_rate)) - 1, c.max_rounds)
        total = features.joint.sum() * 0
        for i in range(rounds):
            if i == 0 and c.first_weight:
                loss, out = self._learn(features, items, text, {})
                total = total + c.first_weight * loss
                logits = out.logits[..., : features.mask_size[0], : features.mask_size[1]].detach()
                selected = self._select(features, out, logits, items)
            else:
                with torch.no_grad():
                    decoded = self.model.decode(features, [self._prompt(i) for i in items])
                logits, selected = decoded.logits, decoded.selected
            self._next_round(items, features.maps.fine[0], logits, selected, rng)
        if rounds and rng.random() < c.forget:
            for item in items:
                item.previous = None
        loss, _ = self._learn(features, items, text, log)
        log["rounds"] = rounds
        return total + loss

    @torch.no_grad()
    def _select(self, features: ImageFeatures, out: DecoderOutput, logits: Tensor, items: list[Item]) -> Tensor:
        """The candidate that `SEEM.decode` would have chosen for each object."""
        _, texts, points = self.model.batch(features, [self._prompt(i) for i in items])
        return self.model.select(logits, out.iou.clamp(0, 1), self.model.class_embeddings(features, out), texts, points)

    def _next_round(
        self, items: list[Item], fine: Tensor, logits: Tensor, selected: Tensor, rng: np.random.Generator
    ) -> None:
        """Every object remembers its mask, as a user would see it, and gets the robot's click on the largest error."""
        h, w = logits.shape[-2:]
        for j, item in enumerate(items):
            chosen = obey(logits[j, selected[j]].float(), fine.detach(), self._prompt(item))
            click = simulate.next_click(item.coverage[:h, :w].cpu().numpy() > 0.5, chosen.cpu().numpy() > 0, rng, 0.6)
            item.previous = chosen
            if click is not None:
                item.prompts.append(click)
                item.alternatives = []  # a click says which one is meant

    def _learn(
        self, features: ImageFeatures, items: list[Item], text: Tensor, log: Log
    ) -> tuple[Tensor, DecoderOutput]:
        """One round's loss: masks, predicted IoU and names of all objects."""
        h, w = features.mask_size
        batch, _, _ = self.model.batch(features, [self._prompt(i) for i in items])
        out = self.model.prompt_decoder(features.state, batch)
        target = torch.stack([i.coverage for i in items])[:, None]  # (N, 1, H4, W4)
        inside = torch.zeros(out.logits.shape[-2:], device=out.logits.device)
        inside[:h, :w] = 1
        loss = self._mask_loss(out.logits, target, inside)
        for j, item in enumerate(items):  # a name that several instances bear: the one it drew is right
            if item.alternatives:
                options = torch.stack(item.alternatives)
                overlap = mask_iou(out.logits[j, :1].detach().expand_as(options), options)
                chosen = options[int(overlap.argmax())]
                target = target.clone()
                target[j, 0] = chosen
                loss = loss.clone()
                loss[j] = self._mask_loss(out.logits[j : j + 1], target[j : j + 1], inside)[0]
        single = torch.tensor([len(i.prompts) <= 1 for i in items], device=loss.device)
        best = loss[:, 1:].min(1).values if loss.shape[1] > 1 else loss[:, 0]
        per_object = loss[:, 0] + torch.where(single, 1.0, 0.3) * best
        if out.coarse_logits is not out.logits:
            coarse = self._mask_loss(out.coarse_logits, target, inside)
            per_object = per_object + self.config.coarse_weight * (coarse[:, 0] + 0.3 * coarse[:, 1:].min(1).values)
        iou = mask_iou(out.logits.detach(), target.expand_as(out.logits))
        iou_loss = F.mse_loss(out.iou, iou)
        # names from the masks that were predicted
        log["mask"], log["iou_error"] = float(per_object.detach().mean()), float((out.iou.detach() - iou).abs().mean())
        log["iou0"] = float(iou[:, 0].mean())
        total = self.config.mask_weight * per_object.mean() + self.config.iou_weight * iou_loss
        named = [j for j, i in enumerate(items) if i.target.name in self.vocabulary.index]
        if named:
            embeddings = self.model.class_embeddings(features, out)[named, 0]
            names = torch.tensor([self.vocabulary.index[str(items[j].target.name)] for j in named], device=text.device)
            total = total + 0.3 * self.config.name_weight * self._name_loss(embeddings, text, names)
        return total, out

    def _prompt(self, item: Item) -> ObjectPrompt:
        references = (item.reference,) if item.reference else ()
        return ObjectPrompt(tuple(item.prompts), (item.text,) if item.text else (), references, item.previous)

    @staticmethod
    def _mask_loss(logits: Tensor, target: Tensor, inside: Tensor) -> Tensor:
        """(N, S): BCE, more of it near the border, and dice; padding does not count."""
        ce = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
        border = (F.max_pool2d(target, 7, 1, 3) + F.max_pool2d(-target, 7, 1, 3)).clamp(0, 1)
        weight = (1 + 3 * border) * inside
        bce = (ce * weight).flatten(-2).sum(-1) / weight.flatten(-2).sum(-1)
        # the same error matters more on a small object
        share = (target * inside).flatten(-2).mean(-1).clamp(0.01, 0.25)
        return 0.5 * bce / share.sqrt() + mask_dice(logits.masked_fill(inside == 0, -20), target)

    # ---- names ----------------------------------------------------------------------------------------------------

    def _name_loss(self, embeddings: Tensor, text: Tensor, names: Tensor) -> Tensor:
        logits = self.model.class_logits(embeddings, text)
        logits = logits.masked_fill(self.vocabulary.alike[names], -1e4)
        return F.cross_entropy(logits, names)

    def light(self, maps: PixelMaps, sample: Sample, rng: np.random.Generator) -> tuple[Tensor, Log]:
        """Names and pixels alone: a tenth of the cost of a whole photo, so the joint space sees more photos."""
        grid = (maps.fine.shape[-2], maps.fine.shape[-1])
        coverage = {id(t): pad_to(torch.from_numpy(t.coverage), grid).to(self.model.device) for t in sample.targets}
        joint, text = self.model.joint(maps), self.vocabulary.embed(self.model)
        log: Log = {}
        total = self._names(joint, sample, coverage, text, log)
        return total + self._pixels(joint, sample, coverage, text, rng, log), log

    def _names(self, joint: Tensor, sample: Sample, coverage: dict[int, Tensor], text: Tensor, log: Log) -> Tensor:
        """Pooled pixel embeddings of every annotated mask against its name."""
        named = [t for t in sample.targets if t.name in self.vocabulary.index]
        if not named:
            return joint.sum() * 0
        pooled = F.normalize(pool_masks(joint, torch.stack([coverage[id(t)] for t in named])), dim=-1)
        names = torch.tensor([self.vocabulary.index[str(t.name)] for t in named], device=text.device)
        loss = self._name_loss(pooled, text, names)
        with torch.no_grad():
            log["top1"] = float((self.model.class_logits(pooled, text).argmax(-1) == names).float().mean())
        log["name"] = float(loss.detach())
        return self.config.name_weight * loss

    def _pixels(
        self,
        joint: Tensor,
        sample: Sample,
        coverage: dict[int, Tensor],
        text: Tensor,
        rng: np.random.Generator,
        log: Log,
    ) -> Tensor:
        """Every pixel against names in and not in the photo; only where the annotation says what is background.

        A name is known everywhere if all of it is annotated, else only where something else of the photo is.
        """
        present: dict[int, Tensor] = {}
        for t in sample.targets:
            if t.name in self.vocabulary.index and t.name not in sample.unsure:
                i = self.vocabulary.index[str(t.name)]
                present[i] = torch.maximum(present[i], coverage[id(t)]) if i in present else coverage[id(t)]
        if not present:
            return joint.sum() * 0
        unknown = self.vocabulary.alike[list(present)].any(0)
        unknown[[self.vocabulary.index[n] for n in sample.unsure if n in self.vocabulary.index]] = True
        everywhere = torch.tensor([n in sample.annotated for n in self.vocabulary.names], device=text.device)
        if sample.complete:  # that is said of COCO's things only: a sky that nobody drew is not absent
            everywhere |= self.vocabulary.annotated
        if bool(everywhere.any()):
            unknown |= ~everywhere
        absent = [i for i in rng.permutation(len(self.vocabulary.names)) if i not in present and not unknown[i]]
        chosen = [*present, *absent[: max(4, self.config.classes_per_image - len(present))]]
        size = joint.shape[-2:]
        target = torch.zeros(len(chosen), *size, device=joint.device)
        stacked = torch.stack(list(present.values()))[None]
        target[: len(present)] = F.interpolate(stacked, size, mode="area")[0]
        logits = self.model.heat(F.normalize(joint, dim=1), text[chosen])
        known = (target[: len(present)].amax(0) > 0.5).float()  # elsewhere the same thing may be unannotated
        if sample.complete:  # names beyond COCO's are known as far as those are
            everywhere[:] = True
        weight = torch.where(everywhere[chosen][:, None, None], torch.ones_like(target), known)
        if sample.ignore is not None:
            padded = pad_to(torch.from_numpy(sample.ignore)[None, None].float(), (8 * size[0], 8 * size[1]))
            weight *= F.interpolate(padded, size, mode="area")[0].to(weight.device) < 0.5
        weight[:, -(-sample.size[0] // 8) :] = 0
        weight[:, :, -(-sample.size[1] // 8) :] = 0
        loss = (focal(logits, target) * weight).sum() / weight.sum().clamp_min(1)
        dice = mask_dice(logits[: len(present)].masked_fill(weight[: len(present)] == 0, -20), target[: len(present)])
        dice = (dice * everywhere[chosen[: len(present)]]).sum() / len(present)
        log["pixel"], log["pixel_dice"] = float(loss.detach()), float(dice.detach())
        return self.config.pixel_weight * (4 * loss + 0.25 * dice)

    # ---- object queries -------------------------------------------------------------------------------------------

    def _queries(
        self,
        features: ImageFeatures,
        sample: Sample,
        coverage: dict[int, Tensor],
        text: Tensor,
        generator: torch.Generator,
        log: Log,
    ) -> Tensor:
        """Hungarian matching on class and sampled mask points, at every prediction point (SPEC section 11)."""
        targets = [t for t in sample.targets if t.single and t.kind == "thing" and t.name in self.vocabulary.index]
        outputs = self.model.prompt_decoder.objects(features.state, self.model.levels(features))
        total = features.joint.sum() * 0
        masks = (
            torch.stack([coverage[id(t)] for t in targets])
            if targets
            else torch.zeros(0, *outputs[0].logits.shape[-2:], device=text.device)
        )
        names = torch.tensor(
            [self.vocabulary.index[str(t.name)] for t in targets], dtype=torch.long, device=text.device
        )
        for i, out in enumerate(outputs):
            if i not in (0, 2, len(outputs) - 1):
                continue
            logits = out.logits[0].flatten(1)
            points = importance_points(logits.detach(), self.config.query_points, generator)
            embeddings = self.model.object_embeddings(features, out)[0]
            wanted = torch.zeros(len(logits), device=logits.device)
            if len(targets):
                similarity = self.model.class_logits(embeddings, text)
                with torch.no_grad():
                    cost = pairwise_cost(logits[:, points], masks.flatten(1)[:, points])
                    cost = cost - 2 * similarity.softmax(-1)[:, names]
                    rows, columns = assign(cost.float().cpu().numpy())
                q, t = torch.from_numpy(rows).to(text.device), torch.from_numpy(columns).to(text.device)
                matched, wanted_masks = logits[q][:, points], masks.flatten(1)[t][:, points]
                mask_loss = (
                    mask_bce(matched[:, None], wanted_masks[:, None])
                    + mask_dice(matched[:, None], wanted_masks[:, None])
                ).mean()
                name_loss = self._name_loss(embeddings[q], text, names[t])
                wanted[q] = mask_iou(out.logits[0][q].detach(), masks[t])
                total = total + 2 * mask_loss + 0.3 * name_loss
                log["query_iou"] = float(wanted[q].mean())
            objectness = F.binary_cross_entropy_with_logits(out.iou[0], wanted, reduction="none")
            total = total + 2 * (objectness * torch.where(wanted > 0, 1.0, 0.3)).mean()
        log["query"] = float(total.detach())
        return total
