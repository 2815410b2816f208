"""Everything that a scene promises, on all official semantics and architectures: narrow networks, random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seem
from seem.checkpoints.official import convert
from seem.compat import SamPredictor
from seem.model.clip_text_encoder import ClipTextEncoder
from seem.model.official_seem import OfficialSEEM
from seem.predict.instances import label_probabilities
from seem.vocabulary import COCO_PANOPTIC, COCO_PANOPTIC_NAMES
from tests.conftest import box_mask, make_photo
from tests.official import ARCHITECTURES, FAMILY, reduced_variants, write_official

SIZE = (160, 120)
NAMES = (*FAMILY, *ARCHITECTURES)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    folder = tmp_path_factory.mktemp("official")
    with reduced_variants(*NAMES) as patch:
        patch.setenv("SEEM_CACHE", str(folder / "cache"))
        paths = {}
        for name in NAMES:
            paths[name] = folder / f"{name}.safetensors"
            convert(write_official(folder / f"{name}.pt", name), paths[name], name)
        yield paths


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, files: dict[str, Path]) -> seem.Model:
    return seem.load(files[request.param], device="cpu")


@pytest.fixture(scope="module")
def scene(model: seem.Model) -> seem.Scene:
    return model.encode(make_photo())


@pytest.fixture(scope="module")
def other(model: seem.Model) -> seem.Scene:
    return model.encode(make_photo()[:100, ::-1])


CLICK, MISS = seem.Click(40, 50), seem.Click(110, 40, positive=False)
PROMPTS: dict[str, Callable[[seem.Scene], list[Any]]] = {
    "click": lambda other: [CLICK],
    "clicks": lambda other: [CLICK, MISS, seem.Click(0, 119), seem.Click(159.9, 0)],
    "box": lambda other: [seem.Box(20, 30, 60, 70)],
    "scribble": lambda other: [seem.Scribble([(5, 5), (150, 100)], width=4)],
    "polygon": lambda other: [seem.Polygon([(20, 30), (60, 30), (60, 70)]), MISS],
    "mask": lambda other: [seem.Mask(box_mask((20, 30, 60, 70)))],
    "text": lambda other: [seem.Text("the red square on the left")],
    "text and what it is not": lambda other: [seem.Text("square"), MISS],
    "composition": lambda other: [seem.Text("square"), CLICK, MISS],
    "reference": lambda other: [seem.Reference(other, seem.Box(1, 2, 30, 40))],
    "everything": lambda other: [
        CLICK,
        MISS,
        seem.Text("square"),
        seem.Text("red"),
        seem.Reference(other, seem.Click(3, 3)),
        seem.Reference(other, seem.Mask(np.ones((100, 160), bool))),
        seem.Box(20, 30, 60, 70),
    ],
}


def check(result: seem.Segmentation, scene: seem.Scene) -> None:
    assert result.mask.shape == SIZE[::-1]
    assert result.logits.shape == scene.geometry.mask_size
    assert np.isfinite(result.logits).all()
    assert 0 <= result.score <= 1
    assert result.score_kind == "mean_probability"
    assert result.label in COCO_PANOPTIC_NAMES
    assert result.label_score is not None and 0 < result.label_score <= 1


@pytest.mark.parametrize("kind", PROMPTS)
def test_every_prompt(scene: seem.Scene, other: seem.Scene, kind: str) -> None:
    result = scene.segment(*PROMPTS[kind](other))
    check(result, scene)
    again = scene.segment(*PROMPTS[kind](other))
    assert np.array_equal(result.logits, again.logits)
    assert (result.label, result.label_score) == (again.label, again.label_score)
    following = scene.segment(*PROMPTS[kind](other), MISS, previous=result)
    check(following, scene)


def test_prompts_matter(scene: seem.Scene, other: seem.Scene) -> None:
    """No prompt is dropped on the way: each changes what its mask was made from."""
    seen = [scene.segment(*make(other), label=False).logits for make in PROMPTS.values()]
    assert len({logits.tobytes() for logits in seen}) > len(PROMPTS) // 2


def test_a_negative_click_alone_continues_a_round(scene: seem.Scene) -> None:
    first = scene.segment(CLICK)
    check(scene.segment(MISS, previous=first), scene)
    with pytest.raises(ValueError, match="only negative"):
        scene.segment(MISS)


def test_several_objects_are_what_each_is_alone(scene: seem.Scene, other: seem.Scene) -> None:
    objects = [make(other) for make in PROMPTS.values()]
    before = [None] * (len(objects) - 1) + [scene.segment(CLICK)]
    together = scene.segment_all(objects, previous=before)
    for prompts, previous, result in zip(objects, before, together, strict=True):
        alone = scene.segment(*prompts, previous=previous)
        np.testing.assert_allclose(result.logits, alone.logits, rtol=1e-3, atol=1e-3)
        assert result.score == pytest.approx(alone.score, abs=1e-3)


def test_candidates(scene: seem.Scene) -> None:
    found = scene.candidates(CLICK)
    assert len(found) == 3
    assert np.array_equal(found[0].logits, scene.segment(CLICK).logits)


def test_find(scene: seem.Scene) -> None:
    found = scene.find("red square", threshold=0.0)
    assert found
    assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)
    assert {r.label for r in found} == {"red square"}
    assert all(r.mask.any() and r.score_kind == "match" for r in found)
    assert len(scene.find("red square", threshold=0.0, limit=1)) == 1
    assert scene.find("red square", threshold=1.0) == []


def test_panoptic(model: seem.Model, scene: seem.Scene) -> None:
    whole = scene.panoptic(threshold=0.0)
    assert whole.map.shape == SIZE[::-1]
    assert {s.label for s in whole.segments} <= set(COCO_PANOPTIC_NAMES)
    assert set(np.unique(whole.map)) - {0} == {s.id for s in whole.segments}
    own = scene.panoptic(["cat", ("sky", "stuff")], background=True, threshold=0.0)
    assert {s.label for s in own.segments} <= {"cat", "sky", "others"}
    assert (own.map > 0).all()
    assert model.network.panoptic_rule.threshold == (0.4 if model.name.endswith("demo") else 0.8)
    assert np.array_equal(scene.panoptic().map, scene.panoptic(threshold=model.network.panoptic_rule.threshold).map)


def test_panoptic_scores_are_the_official_ones(model: seem.Model, scene: seem.Scene) -> None:
    """P(class | class or nothing) as SPEC section 13 has it, from the table with "background" last."""
    network = model.network
    assert isinstance(network, OfficialSEEM)
    with torch.no_grad():
        queries = network.decode_objects(scene._features)
        ours = label_probabilities(network, queries.embeddings, COCO_PANOPTIC_NAMES) * queries.scores[:, None]
        spelt = [c.coco_name or c.name for c in COCO_PANOPTIC]
        table = network.text_encoder.encode_classes([*spelt, "background"])
        official = network.class_logits(queries.embeddings, table).softmax(-1)[:, :-1]
    torch.testing.assert_close(ours, official, rtol=1e-4, atol=1e-6)


def test_label(scene: seem.Scene) -> None:
    names = scene.label(box_mask((20, 30, 60, 70)), top=3)
    assert len(names) == 3
    assert sum(p for _, p in scene.label(box_mask((0, 0, 160, 120)), ["cat", "dog"])) == pytest.approx(1)
    result = scene.segment(CLICK)
    assert scene.label(result)[0] == (result.label, pytest.approx(result.label_score))


def test_saved_and_loaded(model: seem.Model, scene: seem.Scene, tmp_path: Path, files: dict[str, Path]) -> None:
    scene.save(tmp_path / "scene.safetensors")
    back = seem.Scene.load(tmp_path / "scene.safetensors", model)
    a, b = (s.segment(CLICK, seem.Text("square")).logits for s in (scene, back))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99  # int8; random weights hold no clear decisions
    again = seem.Scene.load(tmp_path / "scene.safetensors", model)
    assert np.array_equal(again.segment(CLICK, seem.Text("square")).logits, b)
    another = seem.load(files[next(n for n in NAMES if n != model.name)], device="cpu")
    with pytest.raises(ValueError, match="expected one of the weights"):
        seem.Scene.load(tmp_path / "scene.safetensors", another)
    with pytest.raises(ValueError, match="same model"):
        another.encode(make_photo()).segment(seem.Reference(scene, CLICK))


def test_session(scene: seem.Scene, other: seem.Scene) -> None:
    session = scene.session()
    session.add(1, CLICK)
    session.add(1, MISS)
    session.add(2, seem.Text("square"))
    session.add_all({1: [seem.Click(42, 52)], 2: [seem.Reference(other, seem.Click(3, 3))]})
    session.undo()
    session.redo()
    replayed = seem.Session.replay(scene, session.log(), {other.digest: other}.__getitem__)
    for number, item in session.objects.items():
        assert np.array_equal(item.result.logits, replayed.objects[number].result.logits)


def test_sam_predictor(model: seem.Model) -> None:
    predictor = SamPredictor(model)
    predictor.set_image(make_photo())
    masks, scores, low = predictor.predict(np.array([[40, 50]]), np.array([1]))
    assert (masks.shape, scores.shape, low.shape) == ((3, 120, 160), (3,), (3, 256, 256))
    masks, _, _ = predictor.predict(box=np.array([20, 30, 60, 70]), mask_input=low[:1], multimask_output=False)
    assert masks.shape == (1, 120, 160)


def test_bit_for_bit(model: seem.Model, scene: seem.Scene, other: seem.Scene) -> None:
    torch.manual_seed(1)
    fresh, fresh_other = model.encode(make_photo()), model.encode(make_photo()[:100, ::-1])
    for make in PROMPTS.values():
        a, b = scene.segment(*make(other)), fresh.segment(*make(fresh_other))
        assert np.array_equal(a.logits, b.logits)


def test_class_names_are_encoded_once(
    model: seem.Model, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.encode(make_photo()).segment(CLICK)  # labelled, so the table is written by now
    monkeypatch.setattr(ClipTextEncoder, "encode_classes", lambda *args: pytest.fail("encoded again"))
    loaded = seem.load(files[model.name], device="cpu")
    result = loaded.encode(make_photo()).segment(CLICK)
    assert (result.label, result.label_score) == (expected.label, pytest.approx(expected.label_score))


def test_a_damaged_table_of_names_is_made_anew(model: seem.Model, files: dict[str, Path]) -> None:
    expected = model.encode(make_photo()).segment(CLICK)
    for path in (files[model.name].parent / "cache" / "class-names").iterdir():
        path.write_bytes(b"broken")
    result = seem.load(files[model.name], device="cpu").encode(make_photo()).segment(CLICK)
    assert result.label == expected.label
