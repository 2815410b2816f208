"""The paper's loss against a slow recomputation, and what it may and may not change."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seem.model.attention_rules import GROUNDING, OBJECT, SPATIAL
from seem.model.clip_text_encoder import unit
from seem.model.official_decoder import DecoderPrompts
from seem.model.official_visual_sampler import OfficialDraws, Strokes
from seem.training.paper.lesson import Lesson
from seem.training.paper.objective import PaperObjective
from seem.training.paper.points import PointSampler
from tests.training.paper import config, lesson, network, picture

VERSIONS = ("v0", "v1", "demo")


class EveryPixel(PointSampler):
    """Masks are compared at the centre of every pixel, so that nothing is left to chance."""

    canvas = (64, 96)

    def anywhere(self, rows: int, count: int | None = None) -> Tensor:
        h, w = self.canvas
        y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
        return torch.stack([x, y], -1).flatten(0, 1)[None].expand(rows, -1, -1)

    def undecided(self, logits: Tensor) -> Tensor:
        return self.anywhere(len(logits))


@pytest.fixture
def every_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    made = PaperObjective._sampler
    monkeypatch.setattr(PaperObjective, "_sampler", lambda self, x: EveryPixel(**vars(made(self, x))))


@torch.no_grad()
def slow_masks(embeddings: Tensor, features: Tensor, truth: Tensor) -> tuple[list[list[float]], list[list[float]]]:
    """BCE and dice of every embedding with every mask, pixel by pixel at full size."""
    logits = torch.einsum("qc,chw->qhw", embeddings, features[0])
    p = F.interpolate(logits[None], truth.shape[-2:], mode="bilinear", align_corners=False)[0].sigmoid().double()
    bce, dice = [], []
    for q in p:
        bce.append([float(-(torch.where(t, q, 1 - q)).log().mean()) for t in truth])
        dice.append([float(1 - (2 * q[t].sum() + 1) / (q.sum() + t.sum() + 1)) for t in truth])
    return bce, dice


def cheapest(costs: list[list[float]]) -> list[int]:
    """For every column the row that it gets, by trying everything."""
    columns = range(len(costs[0]))
    ways = itertools.permutations(range(len(costs)), len(columns))
    return list(min(ways, key=lambda rows: sum(costs[r][c] for r, c in zip(rows, columns, strict=True))))


def costs_of(
    weights: tuple[float, float, float], likeness: Tensor, bce: list[list[float]], dice: list[list[float]]
) -> list[list[float]]:
    a, b, c = weights
    return [
        [b * bce[q][t] + c * dice[q][t] - a * likeness[q, t].item() for t in range(len(bce[0]))]
        for q in range(len(bce))
    ]


@pytest.mark.parametrize("hidden", [False, True])
def test_generic_loss_is_what_the_specification_says(every_pixel: None, hidden: bool) -> None:
    model, c = network(), config(tasks=("generic",))
    photo_annotations = picture()[1]
    if hidden:  # only the square is sure to be what it is
        photo_annotations[1] = replace(photo_annotations[1], usable=False)
    x = lesson(model, c, annotations=photo_annotations, complete=not hidden)
    objective = PaperObjective(model, c)
    loss, log = objective(x, objective.counts(x))

    features = model.encode_image(x.pixels, x.size)
    text = torch.stack([unit(model.text_encoder.encode([s])[0])[0] for s in x.sentences])
    out = model.decoder(features.prepared, DecoderPrompts(), OfficialDraws(False), [OBJECT], 1)
    assert len(out.states) == 10
    expected, left_out = 0.0, 0
    for state in out.states:
        classes = unit(state[OBJECT][0] @ model.decoder.class_embed)
        logits = (model.text_encoder.logit_scale.exp() * classes @ text.T).double()
        embeddings = model.decoder.mask_embed(state[OBJECT])[0]
        bce, dice = slow_masks(embeddings, features.mask_features, x.masks)
        probability = logits.softmax(-1)
        rows = cheapest(costs_of((2, 5, 5), probability[:, x.classes], bce, dice))
        ce = weights = 0.0
        for q in range(12):
            wanted = int(x.classes[rows.index(q)]) if q in rows else 3
            w = 1.0 if q in rows else 0.1
            weights += w
            if hidden and q not in rows:
                inside = F.interpolate(
                    torch.einsum("c,chw->hw", embeddings[q], features.mask_features[0])[None, None],
                    (64, 96), mode="bilinear", align_corners=False,
                )[0, 0] > 0  # fmt: skip
                if 2 * int((inside & x.ignore).sum()) > int(inside.sum()):
                    left_out += 1
                    continue
            ce -= w * math.log(probability[q, wanted].item())
        n = len(rows)
        expected += 2 * ce / weights
        expected += 5 * sum(bce[q][t] + dice[q][t] for t, q in enumerate(rows)) / n
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert log["object_bce"] == pytest.approx(sum(bce[q][t] for t, q in enumerate(rows)) / n, rel=1e-4)
    assert (left_out > 0) == hidden  # otherwise this test shows nothing


@pytest.mark.parametrize(("spoken", "factor"), [(False, 0.5), (True, 2.0)])
def test_referring_loss_shares_targets_among_equal_phrases(every_pixel: None, spoken: bool, factor: float) -> None:
    model, c = network(), config(tasks=("referring",))
    x = replace(
        lesson(model, c), phrases=("a thing", "the disk", "a thing"), named=torch.tensor([0, 1, 1]), spoken=spoken
    )
    objective = PaperObjective(model, c)
    loss, _ = objective(x, objective.counts(x))

    features = model.encode_image(x.pixels, x.size)
    encoded = [model.text_encoder.encode([p]) for p in x.phrases]
    sentences = torch.cat([unit(s) for s, _, _ in encoded])
    tokens = torch.cat([t[0] for _, t, _ in encoded])
    out = model.decoder(
        features.prepared, DecoderPrompts(text=tokens[None]), OfficialDraws(False), [GROUNDING], 1
    )  # fmt: skip
    truth = x.masks[x.named]
    expected = 0.0
    for state in out.states:
        classes = unit(state[GROUNDING][0] @ model.decoder.class_embed)
        likeness = (model.text_encoder.logit_scale.exp().clamp(max=100) * classes @ sentences.T).double().softmax(0)
        bce, dice = slow_masks(model.decoder.mask_embed(state[GROUNDING])[0], features.mask_features, truth)
        rows = cheapest(costs_of((2, 5, 5), likeness, bce, dice))
        shared = [[rows[0], rows[2]], [rows[1]], [rows[0], rows[2]]]
        ce = -sum(math.log(float(likeness[q, p])) / len(shared[p]) for p in range(3) for q in shared[p])
        expected += 0.4 * factor * ce / 3 + sum(bce[q][t] + dice[q][t] for t, q in enumerate(rows)) / 3
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("quirks", "cost"), [(False, (5, 2, 2)), (True, (2, 5, 5))])
def test_interactive_loss_is_what_the_specification_says(
    every_pixel: None, version: str, quirks: bool, cost: tuple[float, float, float]
) -> None:
    model, c = network(version, official_quirks=quirks), config(tasks=("interactive",), official_quirks=quirks)
    x = lesson(model, c)
    objective = PaperObjective(model, c)
    loss, _ = objective(x, objective.counts(x))

    features = model.encode_image(x.pixels, x.size)
    draws = OfficialDraws(version == "v1", torch.Generator().manual_seed(x.seed))
    nothing = torch.zeros_like(x.strokes)
    if version == "v1":
        strokes = [Strokes(x.strokes, nothing)]
    else:
        strokes = [Strokes(x.strokes[i : i + 1], nothing[i : i + 1]) for i in range(2)]
    tokens = model.decoder.read_prompts(features.prepared, strokes, draws)
    group = OBJECT if version == "demo" else SPATIAL
    out = model.decoder(features.prepared, DecoderPrompts(visual=tokens), draws, [group], len(strokes))
    expected = 0.0
    for state in out.states:
        for i in range(2):
            row, of_row = (0, i) if version == "v1" else (i, 0)
            own = range(3 * i, 3 * i + 3) if version == "v1" else range(12)
            embeddings = model.decoder.mask_embed(state[group])[row]
            likeness = (embeddings @ tokens.positive[row, of_row]).double().softmax(0)[:, None]
            bce, dice = slow_masks(embeddings, features.mask_features, x.masks[x.objects[i : i + 1]])
            costs = costs_of(cost, likeness, bce, dice)
            best = min(own, key=lambda q: costs[q][0])
            expected += (-0.4 * math.log(float(likeness[best])) + bce[best][0] + dice[best][0]) / 2
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_joint_matching_compares_prompts_with_class_embeddings(every_pixel: None) -> None:
    losses = {}
    for how in ("separate", "joint"):
        model, c = network(), config(tasks=("interactive",), matching=how)
        with torch.no_grad():  # class embeddings that are mask embeddings make the two the same
            for layer in (0, 1, 2):
                model.decoder.mask_embed.layers[layer].weight.copy_(torch.eye(32))
                model.decoder.mask_embed.layers[layer].bias.zero_()
            model.decoder.class_embed.copy_(torch.eye(32))
            model.decoder.decoder_norm.bias.fill_(10.0)  # no value below 0 that the ReLUs would cut
        x = lesson(model, c)
        objective = PaperObjective(model, c)
        losses[how, "same"] = float(objective(x, objective.counts(x))[0].detach())
        with torch.no_grad():
            model.decoder.class_embed.mul_(-1)
        losses[how, "turned"] = float(objective(x, objective.counts(x))[0].detach())
    assert losses["joint", "same"] == pytest.approx(losses["separate", "same"])
    assert losses["separate", "turned"] == losses["separate", "same"]
    assert losses["joint", "turned"] != pytest.approx(losses["joint", "same"])


@pytest.mark.parametrize("version", VERSIONS)
def test_parts_of_a_step_add_up_to_the_whole(version: str) -> None:
    model, c = network(version), config(rounds=1)
    objective = PaperObjective(model, c)
    few = picture(1)[1][:1]
    lessons = [lesson(model, c, 0), lesson(model, c, 1, seed=5, annotations=few), lesson(model, c, 2, annotations=[])]
    counts = sum((objective.counts(x) for x in lessons), torch.zeros(4, dtype=torch.float64))

    def gradients(batch: list[Lesson]) -> dict[str, Tensor]:
        model.zero_grad()
        total = sum((objective(x, counts)[0] for x in batch), torch.zeros(()))
        total.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    whole, parts = gradients(lessons), [gradients([x]) for x in lessons]
    assert whole["decoder.class_embed"].any()
    for name, gradient in whole.items():
        added = sum((p[name] for p in parts if name in p), torch.zeros_like(gradient))
        torch.testing.assert_close(added, gradient, rtol=1e-4, atol=1e-5)


def test_counts_are_those_of_the_photo() -> None:
    model, c = network(), config()
    objective = PaperObjective(model, c)
    x = lesson(model, c)
    assert objective.counts(x).tolist() == pytest.approx([2, 2 + 0.1 * 10, len(x.phrases), 2])
    assert objective.counts(lesson(model, c, annotations=[])).tolist() == pytest.approx([0, 1.2, 0, 0])


@pytest.mark.parametrize("version", VERSIONS)
def test_same_seed_same_loss(version: str) -> None:
    c = config(rounds=2)
    losses = []
    for seed in (3, 3, 4):
        model = network(version)
        objective = PaperObjective(model, c)
        x = replace(lesson(model, c, seed=seed), rounds=2)
        torch.manual_seed(len(losses))  # the global generator has no say
        losses.append(float(objective(x, objective.counts(x))[0].detach()))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("learned", [("decoder.",), ("decoder.", "pixel_decoder."), ("decoder.", "text_encoder.")])
def test_only_the_learned_parts_get_gradients(learned: tuple[str, ...]) -> None:
    model, c = network("v1", learned), config(rounds=2)
    objective = PaperObjective(model, c)
    x = replace(lesson(model, c), rounds=2)
    objective(x, objective.counts(x))[0].backward()
    got = {n for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert {n.split(".")[0] + "." for n in got} == set(learned)
    wanted = {n for n, p in model.named_parameters() if n.startswith("decoder.")}
    assert wanted <= got  # with memory and clicks of both signs, all of the decoder learns


def test_rounds_bring_memory_and_clicks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, bool]] = []
    ask = PaperObjective._ask

    def spy(self: PaperObjective, photo: Any, strokes: Strokes, previous: Tensor | None) -> Any:
        seen.append((int(strokes.positive.sum()), int(strokes.negative.sum()), torch.is_grad_enabled()))
        assert (previous is None) == (len(seen) % 4 == 1)
        if previous is not None:
            assert float(previous[:, 15:].max()) < 0 and float(previous[:, :, 23:].max()) < 0  # padding is outside
        return ask(self, photo, strokes, previous)

    monkeypatch.setattr(PaperObjective, "_ask", spy)
    for negative in (True, False):
        seen.clear()
        model, c = network("v1"), config(tasks=("interactive",), rounds=3, negative_prompts=negative)
        objective = PaperObjective(model, c)
        objective(replace(lesson(model, c), rounds=3), objective.counts(lesson(model, c)))
        positives, negatives, gradients = (list(x) for x in zip(*seen, strict=True))
        assert gradients == [False, False, False, True]
        assert positives == sorted(positives) and negatives == sorted(negatives)
        assert positives[-1] + negatives[-1] > positives[0] or not negative
        assert negative or negatives[-1] == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_few_steps_learn_the_photos(version: str) -> None:
    model, c = network(version, ("decoder.", "pixel_decoder.")), config(rounds=1, points=512)
    objective = PaperObjective(model, c)
    lessons = [lesson(model, c, i, seed=i) for i in range(2)]
    counts = sum((objective.counts(x) for x in lessons), torch.zeros(4, dtype=torch.float64))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 2e-3)
    history = []
    for _ in range(7):
        optimizer.zero_grad()
        totals = [objective(x, counts)[0] for x in lessons]
        for total in totals:
            total.backward()
        optimizer.step()
        history.append(sum(float(t.detach()) for t in totals))
    assert np.mean(history[-3:]) < 0.8 * history[0]


def test_a_photo_without_objects_teaches_nothing_but_nothing() -> None:
    model, c = network(), config()
    objective = PaperObjective(model, c)
    x = lesson(model, c, annotations=[])
    loss, log = objective(x, objective.counts(x))
    loss.backward()
    assert set(log) == {"object_ce"} and float(loss.detach()) > 0
    unknown = lesson(model, c, annotations=[], complete=False)
    loss, _ = objective(unknown, objective.counts(unknown))
    assert bool(torch.isfinite(loss))
