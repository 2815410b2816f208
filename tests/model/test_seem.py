"""The default network as a whole, at reduced width and with random weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seem.model.config import SEEMConfig
from seem.model.image_input import network_input
from seem.model.prompting import ObjectPrompt, ReferencePrompt, VisualPrompt
from seem.model.seem import SEEM, ClickRule, Decoded, ImageFeatures, box_agreement
from seem.model.visual_sampler import along_line, dense_prompt, even_subset, interior_points, prompt_points
from tests.tiny import click, encode, tiny_config, tiny_model

NONE = np.zeros((0, 2), np.float32)


@pytest.fixture(scope="module")
def model() -> SEEM:
    torch.set_num_threads(1)
    return tiny_model().requires_grad_(False)


@pytest.fixture(scope="module")
def image(model: SEEM) -> ImageFeatures:
    return encode(model)


def mask_prompt() -> VisualPrompt:
    mask = np.zeros((50, 64), bool)
    mask[10:30, 20:40] = True
    return VisualPrompt("mask", True, NONE, mask=mask)


PROMPTS: dict[str, tuple[VisualPrompt, ...]] = {
    "click": (click(20.5, 30.5),),
    "clicks": (click(20.5, 30.5), click(50.5, 10.5), click(3.5, 4.5, positive=False)),
    "box": (VisualPrompt("box", True, np.array([[4, 5], [40, 30]], np.float32)),),
    "scribble": (VisualPrompt("scribble", True, np.array([[4, 5], [40, 30], [60, 45]], np.float32), 5.0),),
    "polygon": (VisualPrompt("polygon", True, np.array([[4, 5], [40, 6], [30, 40]], np.float32)),),
    "mask": (mask_prompt(),),
}


def memory(seed: int = 0) -> Tensor:
    return torch.randn(13, 16, generator=torch.Generator().manual_seed(seed)) * 4


def objects(other: ImageFeatures) -> dict[str, ObjectPrompt]:
    """One of every kind, and mixes."""
    every = {name: ObjectPrompt(visual=prompts) for name, prompts in PROMPTS.items()}
    reference = ReferencePrompt(other, (click(30.5, 20.5), click(1.5, 1.5, positive=False)))
    return every | {
        "text": ObjectPrompt(texts=("the red square",)),
        "text and click": ObjectPrompt(visual=PROMPTS["click"], texts=("disk",)),
        "reference": ObjectPrompt(references=(reference,)),
        "memory": ObjectPrompt(visual=PROMPTS["clicks"], previous=memory()),
        "everything": ObjectPrompt(PROMPTS["box"], ("a disk", "blue"), (reference,), memory(1)),
    }


KINDS = [*PROMPTS, "text", "text and click", "reference", "memory", "everything"]


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_determinism(model: SEEM, image: ImageFeatures, kind: str) -> None:
    prompt = objects(encode(model, 1, (64, 40)))[kind]
    first, again = model.decode(image, [prompt]), model.decode(image, [prompt])
    s, d = model.config.prompt_decoder.candidates, model.config.pixel_decoder.joint_dim
    assert first.logits.shape == (1, s, 13, 16) == (1, s, *image.mask_size)
    assert first.scores.shape == (1, s)
    assert ((first.scores >= 0) & (first.scores <= 1)).all()
    assert first.embeddings.shape == (1, s, d)
    torch.testing.assert_close(first.embeddings.norm(dim=-1), torch.ones(1, s))
    assert first.selected.shape == (1,)
    for field in ("logits", "scores", "embeddings", "selected"):
        assert torch.equal(getattr(first, field), getattr(again, field))


def test_every_prompt_changes_the_mask(model: SEEM, image: ImageFeatures) -> None:
    prompts = objects(encode(model, 1, (64, 40)))
    logits = {name: model.decode(image, [p]).logits for name, p in prompts.items()}
    names = list(logits)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not torch.allclose(logits[a], logits[b], atol=1e-4), (a, b)


def close(together: Decoded, row: int, alone: Decoded) -> None:
    for field in ("logits", "scores", "embeddings"):
        torch.testing.assert_close(getattr(together, field)[row], getattr(alone, field)[0], rtol=1e-3, atol=1e-4)


def test_several_visual_objects_equal_each_alone(model: SEEM, image: ImageFeatures) -> None:
    """Objects of different lengths are padded to one; the padding must not show."""
    prompts = [ObjectPrompt(visual=p) for p in PROMPTS.values()] + [ObjectPrompt(PROMPTS["box"], previous=memory())]
    together = model.decode(image, prompts)
    for i, prompt in enumerate(prompts):
        close(together, i, model.decode(image, [prompt]))


def test_mixed_objects_equal_each_alone(model: SEEM, image: ImageFeatures) -> None:
    """A click beside a text: what the text adds to its own image stream must not reach the click."""
    prompts = list(objects(encode(model, 1, (64, 40))).values())
    together = model.decode(image, prompts)
    for i, prompt in enumerate(prompts):
        close(together, i, model.decode(image, [prompt]))


@pytest.mark.parametrize("field", ["token_position", "dense_mask", "dense_similarity"])
def test_experiments_can_be_switched_off(field: str) -> None:
    config = tiny_config()
    off: dict[str, Any] = {field: False}
    model = tiny_model(config=replace(config, prompt_decoder=replace(config.prompt_decoder, **off)))
    with torch.no_grad():
        image = encode(model)
        assert model.decode(image, list(objects(image).values())).logits.isfinite().all()


def test_object_queries(model: SEEM, image: ImageFeatures) -> None:
    found = model.decode_objects(image)
    q = model.config.prompt_decoder.object_queries
    assert found.logits.shape == (q, 13, 16)
    assert found.embeddings.shape == (q, model.config.pixel_decoder.joint_dim)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


# ---- image features -----------------------------------------------------------------------------------------------


def test_saved_features_give_the_same_masks(model: SEEM, image: ImageFeatures) -> None:
    tensors = image.to_tensors()
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    again = ImageFeatures.from_tensors(model, tensors, image.size)
    prompt = ObjectPrompt(visual=PROMPTS["clicks"])
    a, b = model.decode(image, [prompt]).logits, model.decode(again, [prompt]).logits
    assert (a - b).abs().max() < 0.02 * a.abs().max()
    twice = ImageFeatures.from_tensors(model, again.to_tensors(), image.size)
    torch.testing.assert_close(model.decode(twice, [prompt]).logits, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("fine"), r"scene tensors are \['embedding', 'middle', 'semantic'\]"),
        (lambda t: t.update(extra=torch.zeros(1)), "scene tensors are"),
        (lambda t: t.update(fine=torch.zeros(1, 8, 3, 3)), r"scene tensor fine has shape \(1, 8, 3, 3\)"),
        (lambda t: t["fine"].fill_(torch.nan), "scene tensor fine is not finite"),
        (lambda t: t.update(fine=t["fine"].int()), "scene tensor fine is not finite"),
    ],
)
def test_bad_features_are_refused(
    model: SEEM, image: ImageFeatures, edit: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    tensors = image.to_tensors()
    edit(tensors)
    with pytest.raises(ValueError, match=message):
        ImageFeatures.from_tensors(model, tensors, image.size)


def test_padding_of_the_image_is_cut_off(model: SEEM) -> None:
    for size in ((64, 64), (33, 61), (20, 64), (1, 64)):
        with torch.no_grad():
            image = encode(model, 0, size)
        assert image.mask_size == (-(-size[0] // 4), -(-size[1] // 4))
        assert model.decode(image, [ObjectPrompt(visual=(click(5.5, 0.5),))]).logits.shape[-2:] == image.mask_size
        assert model.text_heatmap(image, model.encode_text(["red"]).sentence).shape == (
            1,
            -(-size[0] // 8),
            -(-size[1] // 8),
        )


def test_network_input() -> None:
    config = tiny_config().image
    pixels = np.random.default_rng(0).integers(0, 255, (30, 60, 3), np.uint8)
    values, size = network_input(pixels, config)
    assert size == (32, 64)
    assert values.shape == (1, 3, 32, 64)
    wide, size = network_input(pixels[:20], config)
    assert size == (21, 64)
    assert wide.shape == (1, 3, 32, 64)
    assert not wide[..., 21:, :].any()  # normalised first, then padded


# ---- what depends on the image alone ------------------------------------------------------------------------------


def test_a_click_projects_only_what_it_changes(
    model: SEEM, image: ImageFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first layer's keys and values were projected with the image; the object queries' levels are not read."""
    projected: list[int] = []
    original = model.prompt_decoder._project_stream

    def counted(stream: Tensor, bias: Tensor, i: int) -> Tensor:
        projected.append(i)
        return original(stream, bias, i)

    monkeypatch.setattr(model.prompt_decoder, "_project_stream", counted)
    monkeypatch.setattr(model.prompt_decoder, "levels", lambda *_: pytest.fail("a click read the levels"))
    model.decode(image, [ObjectPrompt(visual=PROMPTS["click"])])
    assert projected == list(range(1, len(model.prompt_decoder.two_way) + 1))


def test_cached_projection_is_the_fresh_one(model: SEEM, image: ImageFeatures) -> None:
    """A mask of no pixel leaves the stream as it is but takes the path that projects anew."""
    prompt = ObjectPrompt(visual=PROMPTS["click"])
    batch, _, _ = model.batch(image, [prompt])
    cached = model.prompt_decoder(image.state, batch)
    batch.dense = torch.zeros(1, 1, *(4 * s for s in image.state.grid))
    assert not batch.has_dense.any()
    fresh = model.prompt_decoder(image.state, batch)
    torch.testing.assert_close(cached.logits, fresh.logits, rtol=1e-3, atol=1e-4)


def test_decoding_leaves_the_image_alone(model: SEEM, image: ImageFeatures) -> None:
    before = copy.deepcopy(image)
    model.decode(image, list(objects(image).values()))
    model.decode_objects(image)
    assert torch.equal(before.state.stream, image.state.stream)
    assert torch.equal(before.joint, image.joint)
    assert torch.equal(before.maps.fine, image.maps.fine)


def test_memory_reads_only_the_previous_mask(
    model: SEEM, image: ImageFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First cross-attention: rows of memory tokens do not change with what lies outside the previous mask."""
    previous = torch.full((13, 16), -9.0)
    previous[:, 8:] = 9.0  # the right half
    prompt = ObjectPrompt(visual=PROMPTS["click"], previous=previous)
    cross = model.prompt_decoder.two_way[0].to_image
    original, read = cross.attend, []

    def recorded(query: Tensor, keys: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        read.append(original(query, keys, mask))
        return read[-1]

    monkeypatch.setattr(cross, "attend", recorded)
    for half in (slice(0, 2), slice(2, 4)):  # of the 4 x 4 cells at stride 16
        other = copy.deepcopy(image)
        other.state.stream = other.state.stream.clone()  # else it is a view of the map that clicks read
        h, w = other.state.grid
        other.state.stream.view(1, h, w, -1)[:, :, half] += 1.0
        read.clear()
        model.decode(image, [prompt])
        model.decode(other, [prompt])
        tokens = model.config.prompt_decoder.memory_tokens
        a, b = read[0][0], read[1][0]
        assert not torch.allclose(a[:-tokens], b[:-tokens], atol=1e-5)
        assert torch.allclose(a[-tokens:], b[-tokens:], atol=1e-5) == (half == slice(0, 2))


# ---- text ---------------------------------------------------------------------------------------------------------


def test_text(model: SEEM) -> None:
    texts = model.encode_text(["red", "the blue square on the left", "red"])
    assert texts.tokens.shape == (3, 8, 32)
    assert texts.mask.sum(1).tolist() == [3, 8, 3]
    assert torch.equal(texts.sentence[0], texts.sentence[2])
    torch.testing.assert_close(texts.sentence.norm(dim=-1), torch.ones(3))
    alone = model.encode_text(["red"])
    torch.testing.assert_close(alone.sentence[0], texts.sentence[0], rtol=1e-4, atol=1e-5)


def test_text_is_encoded_once(image: ImageFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    seen: list[str] = []
    original = model.text_encoder.tokenize
    monkeypatch.setattr(model.text_encoder, "tokenize", lambda texts: seen.extend(texts) or original(texts))
    for _ in range(3):
        model.encode_text(["red", "blue", "red"])
    assert seen == ["red", "blue"]


def test_class_embeddings_of_masks(model: SEEM, image: ImageFeatures) -> None:
    masks = torch.zeros(2, 13, 16)
    masks[0, 2:8, 2:8] = 1
    found = model.embed_masks(image, masks)
    assert found.norm(dim=-1).tolist() == pytest.approx([1, 0], abs=1e-5)  # an empty mask has no class
    text = model.encode_text(["red", "blue", "disk"]).sentence
    assert model.class_logits(found, text).shape == (2, 3)


# ---- gradient -----------------------------------------------------------------------------------------------------


def test_gradient_reaches_every_parameter_that_learns() -> None:
    model = tiny_model().train()
    image, other = encode(model), encode(model, 1, (64, 40))
    prompts = list(objects(other).values())
    batch, _, _ = model.batch(image, prompts)
    out = model.prompt_decoder(image.state, batch)
    text = model.encode_text(["red"]).sentence
    loss = out.logits.square().mean() + out.iou.square().mean() + out.coarse_logits.mean()
    loss = loss + model.class_logits(model.class_embeddings(image, out), text).square().mean()
    loss = loss + model.text_heatmap(image, text).mean()
    for found in model.prompt_decoder.objects(image.state, model.levels(image)):
        loss = loss + found.logits.square().mean() + found.iou.mean()
        loss = loss + model.object_embeddings(image, found)[0, :, 0].sum()
    loss.backward()
    without = {n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())}
    text_side = {n for n in without if n.startswith("text_encoder.")}  # always frozen: `raw_text` has no gradient
    assert without == text_side


# ---- prompts as points --------------------------------------------------------------------------------------------


def test_even_subset() -> None:
    points = np.arange(10)[:, None]
    assert even_subset(points, 4)[:, 0].tolist() == [0, 3, 6, 9]
    assert even_subset(points, 20) is points


@pytest.mark.parametrize("seed", range(4))
def test_interior_points(seed: int) -> None:
    mask = np.random.default_rng(seed).random((20, 30)) > 0.6
    points = interior_points(mask, 16)
    x, y = np.floor(points).astype(int).T
    assert 1 <= len(points) <= 16
    assert mask[y, x].all()
    assert len(interior_points(np.zeros((3, 3), bool), 16)) == 0


def test_points_of_prompts() -> None:
    points, kinds = prompt_points(PROMPTS["scribble"][0], (50, 64), 8)
    assert len(points) == 8
    assert kinds.tolist() == [1] * 8
    gaps = np.linalg.norm(np.diff(along_line(np.array([[0, 0], [30, 0], [40, 0]], np.float32), 6), axis=0), axis=1)
    np.testing.assert_allclose(gaps, 8.0, rtol=1e-5)
    assert prompt_points(PROMPTS["box"][0], (50, 64), 8)[1].tolist() == [2, 3]


def test_dense_prompt() -> None:
    assert dense_prompt(PROMPTS["clicks"], (50, 64)) is None
    drawn = dense_prompt((mask_prompt(),), (50, 64))
    assert drawn is not None
    assert drawn.shape == (13, 16)
    assert drawn[4, 6] == 8
    assert drawn[0, 0] == -8


def test_config_round_trip() -> None:
    for config in (SEEMConfig(), tiny_config()):
        assert SEEMConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="SEEMConfig has no field nam"):
        SEEMConfig.from_json('{"nam": "x"}')


def test_regions_are_the_queries_and_what_a_grid_of_clicks_finds(model: SEEM, image: ImageFeatures) -> None:
    queries, found = model.decode_objects(image), model.regions(image)
    q = model.config.prompt_decoder.object_queries
    assert torch.equal(found.logits[:q], queries.logits)
    assert torch.equal(found.scores[:q], queries.scores)
    assert len(found.logits) == len(found.scores) == len(found.embeddings)
    assert (found.scores[q:] > ClickRule().sure).all()
    assert torch.equal(found.logits, model.regions(image).logits)


@pytest.mark.parametrize(
    ("mask", "boxes", "expected"),
    [
        ((2, 1, 6, 5), [(8, 4, 24, 20)], 1.0),
        ((2, 1, 6, 5), [(8, 4, 16, 20)], 0.5),
        ((2, 1, 6, 5), [(24, 20, 32, 28)], 0.0),
        ((2, 1, 6, 5), [(8, 4, 12, 8), (20, 16, 24, 20)], 1.0),  # the smallest box around both
        (None, [(8, 4, 24, 20)], 0.0),
        ((2, 1, 6, 5), [], 0.0),
    ],
)
def test_box_agreement(
    mask: tuple[int, int, int, int] | None, boxes: list[tuple[int, int, int, int]], expected: float
) -> None:
    """A mask's extent in cells of four pixels against boxes in pixels."""
    logits = torch.full((1, 2, 8, 10), -1.0)
    if mask is not None:
        x0, y0, x1, y1 = mask
        logits[0, 1, y0:y1, x0:x1] = 1
    points = torch.tensor([(1.0, 1.0), *((b[k], b[k + 1]) for b in boxes for k in (0, 2))])
    kinds = torch.tensor([1, *(k for _ in boxes for k in (2, 3))])
    found = box_agreement(logits, points[None], kinds[None])
    assert found.tolist() == [[0.0, pytest.approx(expected)]]
