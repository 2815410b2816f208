"""The product's calls on a reduced official network, for all three semantics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from seem.model.attention_rules import OBJECT, SPATIAL
from seem.model.official_config import official_config, reduced
from seem.model.official_decoder import DecoderPrompts, mask_logits
from seem.model.official_layers import Linear
from seem.model.official_seem import OfficialFeatures, OfficialSEEM, normalise_image
from seem.model.official_visual_sampler import EvenDraws, Strokes, rasterise
from seem.model.prompting import ObjectPrompt, ReferencePrompt, VisualPrompt

SIZE = (61, 75)


def click(x: float, y: float, positive: bool = True) -> VisualPrompt:
    return VisualPrompt("click", positive, np.array([[x, y]], np.float32))


SCRIBBLE = VisualPrompt("scribble", True, np.array([[5, 5], [60, 50]], np.float32), width=6.0)


@pytest.fixture(scope="module", params=["v0", "v1", "demo"])
def network(request: pytest.FixtureRequest) -> OfficialSEEM:
    torch.manual_seed(0)
    built = OfficialSEEM(reduced(official_config(f"seem-focal-t-{request.param}"))).eval()
    built.requires_grad_(False)
    return built


@pytest.fixture
def scene(network: OfficialSEEM) -> OfficialFeatures:
    return encode(network, 0)


def encode(network: OfficialSEEM, seed: int) -> OfficialFeatures:
    image = torch.from_numpy(np.random.RandomState(seed).randint(0, 256, (3, *SIZE)).astype(np.uint8))
    return network.encode_image(normalise_image(image, network.config.image), SIZE)


OBJECTS = {
    "click": lambda other: ObjectPrompt(visual=(click(20, 30),)),
    "negative": lambda other: ObjectPrompt(visual=(click(20, 30), click(60, 10, False))),
    "scribble": lambda other: ObjectPrompt(visual=(SCRIBBLE,)),
    "text": lambda other: ObjectPrompt(texts=("a dog", "the left one")),
    "composition": lambda other: ObjectPrompt(visual=(click(20, 30),), texts=("dog",)),
    "reference": lambda other: ObjectPrompt(references=(ReferencePrompt(other, (click(10, 10),)),)),
    "everything": lambda other: ObjectPrompt(
        (click(20, 30),), ("dog",), (ReferencePrompt(other, (SCRIBBLE,)),), torch.randn(16, 19)
    ),
    "memory": lambda other: ObjectPrompt(visual=(click(20, 30),), previous=torch.randn(16, 19)),
    "memory and negative": lambda other: ObjectPrompt(visual=(click(9, 9, False),), previous=torch.randn(16, 19)),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_prompt_gives_masks_and_twice_the_same(network: OfficialSEEM, scene: OfficialFeatures, kind: str) -> None:
    item = OBJECTS[kind](encode(network, 1))
    first, second = network.decode(scene, [item]), network.decode(scene, [item])
    assert first.logits.shape == (1, 3, 16, 19)
    assert first.embeddings.shape == (1, 3, 32)
    assert first.score_kind == "mean_probability"
    assert ((first.scores >= 0) & (first.scores <= 1)).all()
    assert torch.isfinite(first.logits).all()
    assert torch.equal(first.logits, second.logits)


def test_several_objects_give_what_each_gives_alone(network: OfficialSEEM, scene: OfficialFeatures) -> None:
    torch.manual_seed(1)
    other = encode(network, 1)
    items = [OBJECTS[kind](other) for kind in ("click", "scribble", "composition", "everything", "memory")]
    together = network.decode(scene, items)
    for i, item in enumerate(items):
        alone = network.decode(scene, [item])
        torch.testing.assert_close(together.logits[i], alone.logits[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(together.embeddings[i], alone.embeddings[0], rtol=1e-3, atol=1e-4)


def test_few_queries_give_what_all_give(network: OfficialSEEM, scene: OfficialFeatures) -> None:
    """The fast path of a click (its own queries, cached keys) against the plain one (all queries, nothing kept)."""
    found = network.decode(scene, [ObjectPrompt(visual=(click(20, 30),))])
    decoder, semantics = network.decoder, network.config.semantics
    plain_image = decoder.prepare(scene.mask_features, scene.maps, scene.size)
    positive = np.pad(rasterise([click(20, 30)], SIZE, True), ((0, 3), (0, 21)))
    strokes = Strokes(torch.from_numpy(positive)[None], torch.zeros(1, *positive.shape, dtype=torch.bool))
    visual = decoder.read_prompts(plain_image, [strokes], EvenDraws())
    group = OBJECT if semantics.joint else SPATIAL
    out = decoder(plain_image, DecoderPrompts(visual=visual), EvenDraws(), list({OBJECT: 0, group: 0}), 1)
    masks = mask_logits(out.mask_embeddings[group], plain_image.mask_features)[0]  # every query's
    match = out.mask_embeddings[group][0] @ visual.positive[0, 0]
    best = masks[match.argmax(), :16, :19]
    torch.testing.assert_close(found.logits[0, 0], best, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 8, 9])
@pytest.mark.parametrize("bias", [True, False])
def test_few_rows_are_multiplied_as_many(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(24, 16, bias=bias)
    x = torch.randn(1, rows, 24)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert layer(x).is_contiguous()


def test_padding_is_not_attended(network: OfficialSEEM) -> None:
    """What lies outside the photo changes nothing but what the encoder itself makes of it."""
    scene = encode(network, 0)
    h, w = SIZE
    maps = []
    for level in scene.maps:
        stride = 64 // level.shape[-2]
        changed = level.clone()
        changed[..., -(-h // stride) :, :] = 7.0
        changed[..., -(-w // stride) :] = 7.0
        maps.append(changed)
    other = network.project(scene.mask_features, maps, SIZE)
    a, b = network.decode_objects(scene), network.decode_objects(other)
    torch.testing.assert_close(a.logits, b.logits)


def test_more_points_than_fit_are_taken_evenly() -> None:
    objects, places = torch.zeros(1000, dtype=torch.long), torch.arange(2000.0).view(1000, 2)
    kept = EvenDraws().points(objects, places, 100)[1][:, 0] / 2
    assert kept.tolist() == list(range(5, 1000, 10))


def test_quirks_are_random_and_seeded() -> None:
    torch.manual_seed(0)
    network = OfficialSEEM(reduced(official_config("seem-focal-t-v1")), official_quirks=True).eval()
    scene = encode(network, 0)
    item = ObjectPrompt(visual=(SCRIBBLE,))
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(network.decode(scene, [item]).logits)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_objects_labels_and_storage(network: OfficialSEEM, scene: OfficialFeatures) -> None:
    objects = network.decode_objects(scene)
    assert objects.logits.shape == (12, 16, 19)
    table = network.text_encoder.encode_classes(["dog", "cat"], templates=False)
    assert network.class_logits(objects.embeddings, table).shape == (12, 2)
    best = network.embed_masks(scene, objects.logits[3:4].sigmoid())
    torch.testing.assert_close(best[0], objects.embeddings[3])
    back = OfficialFeatures.from_tensors(network, scene.to_tensors(), SIZE)
    assert back.mask_size == scene.mask_size
    pairs = [(back.mask_features, scene.mask_features), *zip(back.maps, scene.maps, strict=True)]
    for stored, exact in pairs:  # half a step of 1/127 of each channel's largest value
        step = exact.abs().amax((0, 2, 3), keepdim=True) / 127
        assert ((stored - exact).abs() <= 0.501 * step).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("map1"), "scene tensors are"),
        (lambda t: t.update(map1=t["map1"][..., :1]), "scene tensor map1 has shape"),
        (lambda t: t.update(map1=t["map1"].float()), "torch.float32; expected .* torch.int8"),
        (lambda t: t["map1.scale"].fill_(float("nan")), "scene tensor map1.scale is not finite"),
    ],
)
def test_stored_scene_is_checked(
    network: OfficialSEEM, scene: OfficialFeatures, damage: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    tensors = scene.to_tensors()
    damage(tensors)
    with pytest.raises(ValueError, match=message):
        OfficialFeatures.from_tensors(network, tensors, SIZE)


@pytest.mark.parametrize(
    ("prompt", "pixels"),
    [
        (click(0.2, 0.2), 4),  # the corner: 2 x 2 of the 3 x 3 are inside
        (click(20.9, 30.1), 9),
        (VisualPrompt("box", True, np.array([[10, 10], [20, 30]], np.float32)), 9),
        (VisualPrompt("polygon", True, np.array([[10, 10], [20, 10], [20, 20], [10, 20]], np.float32)), 100),
        (VisualPrompt("mask", True, np.zeros((0, 2), np.float32), mask=np.ones(SIZE, bool)), 61 * 75),
        (VisualPrompt("scribble", True, np.array([[10, 10.5], [20, 10.5]], np.float32), width=1.0), 11),
    ],
)
def test_rasterise(prompt: VisualPrompt, pixels: int) -> None:
    assert rasterise([prompt], SIZE, True).sum() == pytest.approx(pixels, abs=1 if prompt.kind != "mask" else 0)
    assert not rasterise([prompt], SIZE, False).any()
