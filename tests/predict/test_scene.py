"""Scenes: every prompt, every question, and what is refused, on a network whose right answers are known."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

import seem
from seem.geometry import mask_iou
from seem.model.config import ImageConfig
from seem.predict.model import Model, pick_device
from seem.predict.scene import Scene
from seem.predict.segmentation import Segmentation
from seem.prompts import Box, Click, Mask, Polygon, Prompt, Reference, Scribble, Text
from tests.conftest import BLUE_BOX, RED_BOX, box_mask, green_mask
from tests.fakes import WEIGHTS, FakeConfig, FakeNetwork

COLOURS = ["red", "green", "blue", "yellow"]
RED, BLUE = Click(40, 50), Click(110, 40)


# ---- segment ------------------------------------------------------------------------------------------------------

ON_RED: list[Prompt] = [
    Click(40, 50),
    Click(40.9, 50.2),
    Box(*RED_BOX),
    Box(-50, 30, 60, 70),
    Scribble([(25, 40), (50, 60)]),
    Scribble(np.array([[-30, 50], [50, 50]])),
    Polygon([(25, 35), (55, 35), (40, 60)]),
    Mask(box_mask(RED_BOX)),
    Text("the red thing"),
]


@pytest.mark.parametrize("prompt", ON_RED, ids=lambda p: type(p).__name__)
def test_every_prompt_finds_the_object(scene: Scene, prompt: Prompt) -> None:
    result = scene.segment(prompt, vocabulary=COLOURS)
    assert mask_iou(result.mask, box_mask(RED_BOX)) > (0.1 if isinstance(prompt, (Box, Scribble)) else 0.85)
    assert result.label == "red"


def test_result(scene: Scene) -> None:
    r = scene.segment(RED)
    assert isinstance(r, Segmentation)
    assert (r.mask.shape, r.mask.dtype) == ((120, 160), bool)
    assert (r.logits.shape, r.logits.dtype) == ((30, 40), np.float32)
    assert r.embedding.ndim == 1
    assert 0 <= r.score <= 1
    assert r.score_kind == "predicted_iou"
    assert r.label in seem.vocabulary.COCO_PANOPTIC_NAMES
    assert r.label_score is not None
    assert 0 < r.label_score <= 1
    assert r.image == scene.digest
    assert r.area == r.mask.sum()
    assert "160x120" in repr(r)


def test_the_label_is_left_out_only_when_asked(scene: Scene) -> None:
    r = scene.segment(RED, label=False)
    assert (r.label, r.label_score) == (None, None)
    assert "160x120" in repr(r)
    assert np.array_equal(r.mask, scene.segment(RED).mask)


def test_composition(scene: Scene) -> None:
    """One decode sees the text and the click: with the click on the red square, "green" gives neither alone."""
    both = scene.segment(Text("green"), Click(40, 50))
    assert not np.array_equal(both.logits, scene.segment(Text("green")).logits)
    assert not np.array_equal(both.logits, scene.segment(Click(40, 50)).logits)


def test_negative_prompts_take_away(scene: Scene) -> None:
    wide = scene.segment(Box(20, 30, 61, 71), Scribble([(5, 5), (5, 100)]))
    narrow = scene.segment(Box(20, 30, 61, 71), Scribble([(5, 5), (5, 100)]), Click(5, 5, positive=False))
    assert narrow.area < wide.area


def test_reference(model: Model, scene: Scene, photo: np.ndarray) -> None:
    other = model.encode(photo[:, ::-1])
    result = scene.segment(Reference(other, Click(160 - 110, 40)))
    assert mask_iou(result.mask, box_mask(BLUE_BOX)) > 0.85


def test_next_round(scene: Scene) -> None:
    first = scene.segment(RED)
    second = scene.segment(RED, Click(5, 5, positive=False), previous=first)
    assert not np.array_equal(first.logits, second.logits)
    from_logits = scene.segment(RED, Click(5, 5, positive=False), previous=first.logits)
    assert np.array_equal(second.logits, from_logits.logits)
    assert scene.segment(Click(5, 5, positive=False), previous=first).mask.shape == (120, 160)


def test_candidates(scene: Scene) -> None:
    found = scene.candidates(RED)
    assert len(found) == 3
    assert found[0].area <= found[1].area <= found[2].area
    assert np.array_equal(found[1].logits, scene.segment(RED).logits)
    assert found[0].label is None


# ---- what is refused ----------------------------------------------------------------------------------------------

REFUSED: list[tuple[list[Any], dict[str, Any], type[Exception], str]] = [
    ([], {}, ValueError, "prompts: expected at least one prompt, got none"),
    ([Click(1, 2, positive=False)], {}, ValueError, "expected a positive prompt, or previous, got only negative ones"),
    ([Scribble([(1, 2)], positive=False), Click(1, 2, False)], {}, ValueError, "got only negative ones"),
    ([Click(160, 2)], {}, ValueError, "prompts[0] (Click): expected 0 <= x < 160 and 0 <= y < 120, got (160, 2)"),
    ([RED, Box(160, 0, 170, 9)], {}, ValueError, "prompts[1] (Box): expected a box that overlaps"),
    ([Scribble([(-9, -9), (-2, -2)])], {}, ValueError, "prompts[0] (Scribble): expected a line that enters"),
    ([Polygon([(200, 5), (220, 5), (210, 30)])], {}, ValueError, "prompts[0] (Polygon): expected a polygon"),
    ([Mask(np.ones((160, 120), bool))], {}, ValueError, "prompts[0] (Mask): expected a mask of 160x120, got 120x160"),
    ([Mask(np.zeros((120, 160), bool))], {}, ValueError, "got an empty mask"),
    ([(3, 4)], {}, TypeError, "prompts[0]: expected a Click, Box"),
    (["dog"], {}, TypeError, "prompts[0]: expected a Click, Box"),
    ([[RED]], {}, TypeError, "prompts[0]: expected a Click, Box"),
    ([None], {}, TypeError, "prompts[0]: expected a Click, Box"),
    ([RED] * 1001, {}, ValueError, "prompts: expected at most 1000, got 1001"),
    ([RED], {"previous": "mask"}, TypeError, "previous: expected a Segmentation or its logits, got 'mask'"),
    ([RED], {"previous": np.zeros((3, 3), np.float32)}, ValueError, "expected float logits of shape (30, 40)"),
    ([RED], {"previous": np.zeros((30, 40), bool)}, ValueError, "got shape (30, 40) and dtype bool"),
    ([RED], {"previous": np.full((30, 40), np.nan, np.float32)}, ValueError, "previous: expected finite logits"),
    ([RED], {"vocabulary": []}, ValueError, "vocabulary: expected at least one name"),
    ([RED], {"vocabulary": "dog"}, TypeError, "vocabulary: expected a list of names, got 'dog'"),
]


@pytest.mark.parametrize(("prompts", "options", "error", "message"), REFUSED)
def test_refused(
    scene: Scene, prompts: list[Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        scene.segment(*prompts, **options)
    assert message in str(caught.value)


def test_results_and_references_of_others_are_refused(model: Model, scene: Scene, photo: np.ndarray) -> None:
    other = model.encode(photo[::-1])
    with pytest.raises(ValueError, match="previous: expected a result of this image"):
        scene.segment(RED, previous=other.segment(RED))
    foreign = Model(FakeNetwork(), "sha256:" + "e" * 64).encode(photo)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Reference\.image: expected a scene of the same model"):
        scene.segment(Reference(foreign, RED))


# ---- segment_all --------------------------------------------------------------------------------------------------


def test_segment_all_equals_segment(scene: Scene, network: FakeNetwork) -> None:
    objects: list[list[Prompt]] = [[RED], [BLUE, Click(5, 5, positive=False)], [Text("green")]]
    network.calls.clear()
    together = scene.segment_all(objects)
    assert network.calls == [3]
    for prompts, result in zip(objects, together, strict=True):
        alone = scene.segment(*prompts)
        assert result.logits == pytest.approx(alone.logits, abs=1e-4)
        assert result.label == alone.label
    again = scene.segment_all(objects, previous=[together[0], None, together[2]])
    assert again[0].logits == pytest.approx(scene.segment(RED, previous=together[0]).logits, abs=1e-4)
    assert again[1].logits == pytest.approx(together[1].logits, abs=1e-4)


def test_segment_all_in_several_passes(scene: Scene, network: FakeNetwork) -> None:
    network.calls.clear()
    assert len(scene.segment_all([[RED]] * 70)) == 70
    assert network.calls == [32, 32, 6]
    assert scene.segment_all([]) == []


@pytest.mark.parametrize(
    ("objects", "previous", "message"),
    [
        ([[RED], []], None, "objects[1]: prompts: expected at least one prompt, got none"),
        ([[RED], [Click(200, 3)]], None, "objects[1]: prompts[0] (Click): expected 0 <= x < 160"),
        ([RED], None, "objects[0]: expected a list of prompts, got Click"),
        (RED, None, "objects: expected a list of lists of prompts, got Click"),
        (["dog"], None, "objects[0]: expected a list of prompts, got 'dog'"),
        ([[RED]], [None, None], "previous: expected 1 results or None, got 2"),
        ([[RED] * 600] * 2, None, "objects: expected at most 1000 prompts in all, got 1200"),
    ],
)
def test_segment_all_refuses(scene: Scene, objects: Any, previous: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        scene.segment_all(objects, previous=previous)
    assert message in str(caught.value)


# ---- find, label --------------------------------------------------------------------------------------------------


def test_find(scene: Scene) -> None:
    (red,) = scene.find("red")
    assert mask_iou(red.mask, box_mask(RED_BOX)) > 0.8
    assert (red.label, red.score_kind) == ("red", "match")
    assert red.label_score is not None
    assert red.score <= red.label_score
    assert len(scene.find("grey")) == 2  # the fake sees each half of the image for itself
    assert len(scene.find(Text("grey"), limit=1)) == 1
    assert scene.find("purple cow") == []
    assert scene.find("yellow") == []
    scores = [r.score for r in scene.find("grey", threshold=0)]
    assert scores == sorted(scores, reverse=True)


def test_instances(scene: Scene) -> None:
    found = scene.instances([*COLOURS, ("grey", "stuff")], threshold=0.1)
    by_label = {r.label: r for r in found}
    assert mask_iou(by_label["red"].mask, box_mask(RED_BOX)) > 0.8
    assert set(by_label) == {"red", "green", "blue"}  # grey is stuff, yellow is not there
    scores = [r.score for r in found]
    assert scores == sorted(scores, reverse=True) and min(scores) > 0.1
    assert all(r.label_score is not None and r.score <= r.label_score for r in found)
    assert [r.score for r in scene.instances([*COLOURS, ("grey", "stuff")], 0.1, limit=1)] == scores[:1]
    assert scene.instances(["purple cow"]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 2}, "threshold: expected 0 to 1, got 2"),
        ({"limit": 0}, "limit: expected a whole number from 1, got 0"),
        ({"vocabulary": []}, "vocabulary: expected"),
    ],
)
def test_instances_refuses(scene: Scene, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        scene.instances(**options)
    assert message in str(caught.value)


def test_what_the_image_alone_decides_is_computed_once(
    scene: Scene, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scene.panoptic(["red"]).segments
    monkeypatch.setattr(network, "decode_objects", None)  # not asked again
    assert scene.panoptic(["blue"]).segments


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "Text.text: expected a phrase"),
        (7, {}, "Text.text: expected a string"),
        ("dog", {"threshold": 1.5}, "threshold: expected 0 to 1, got 1.5"),
        ("dog", {"threshold": float("nan")}, "threshold: expected 0 to 1, got nan"),
        ("dog", {"threshold": "high"}, "threshold: expected a number from 0 to 1, got 'high'"),
        ("dog", {"limit": 0}, "limit: expected None or a whole number from 1, got 0"),
        ("dog", {"limit": True}, "limit: expected None or a whole number from 1"),
    ],
)
def test_find_refuses(scene: Scene, text: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        scene.find(text, **options)
    assert message in str(caught.value)


def test_label(scene: Scene) -> None:
    names = scene.label(green_mask(), COLOURS)
    assert names[0][0] == "green"
    assert sum(p for _, p in names) == pytest.approx(1)
    assert len(scene.label(Mask(green_mask()))) == 5
    assert len(scene.label(green_mask(), COLOURS, top=2)) == 2
    result = scene.segment(RED, vocabulary=COLOURS)
    name, probability = scene.label(result, COLOURS, top=1)[0]
    assert (name, probability) == (result.label, pytest.approx(result.label_score))


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (np.ones((5, 5), bool), {}, "mask: expected a mask of 160x120, got 5x5"),
        (np.zeros((120, 160), bool), {}, "mask: expected at least one pixel inside"),
        ("mask", {}, "Mask.array: expected a numpy array"),
        (np.ones((120, 160), bool), {"top": 0}, "top: expected a whole number from 1, got 0"),
        (np.ones((120, 160), bool), {"vocabulary": ["a", "A"]}, "vocabulary: expected each name once, got 'A' twice"),
    ],
)
def test_label_refuses(scene: Scene, mask: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        scene.label(mask, **options)
    assert message in str(caught.value)


# ---- sameness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ON_RED, ids=lambda p: type(p).__name__)
def test_same_image_same_prompts_same_bits(model: Model, scene: Scene, photo: np.ndarray, prompt: Prompt) -> None:
    a, b = scene.segment(prompt), model.encode(photo.copy()).segment(prompt)
    assert a.logits.tobytes() == b.logits.tobytes()
    assert a.mask.tobytes() == b.mask.tobytes()
    assert (a.score, a.label, a.label_score) == (b.score, b.label, b.label_score)


def test_nothing_mutable_leaks(scene: Scene) -> None:
    r = scene.segment(RED)
    for array in (r.mask, r.logits, r.embedding, scene.panoptic(COLOURS).map):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        r.score = 1.0  # type: ignore[misc]


def test_threads_share_a_scene(scene: Scene) -> None:
    prompts = [RED, BLUE, Click(110, 90), Click(3, 3)] * 5
    expected = [scene.segment(p).logits for p in prompts]
    results: list[Any] = [None] * len(prompts)

    def work(start: int) -> None:
        for i in range(start, len(prompts), 4):
            results[i] = scene.segment(prompts[i]).logits

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(expected, results, strict=True))


# ---- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (300, 7), (33, 47), (641, 479)])
@pytest.mark.parametrize(
    "config", [ImageConfig(target=64), ImageConfig("short", 48, max=96), ImageConfig(target=64, pad_to=64)]
)
def test_images_of_any_size(size: tuple[int, int], config: ImageConfig) -> None:
    model = Model(FakeNetwork(FakeConfig(image=config)), WEIGHTS)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    scene = model.encode(rng.integers(0, 255, (size[1], size[0], 3), np.uint8))
    last = Click(size[0] - 1, size[1] - 1)
    for prompt in (last, Box(0, 0, *size), Mask(np.ones((size[1], size[0]), bool)), Scribble([(0, 0), size])):
        assert scene.segment(prompt).mask.shape == (size[1], size[0])
    assert scene.panoptic().map.shape == (size[1], size[0])


# ---- saved or sent ------------------------------------------------------------------------------------------------


def test_save_and_load(model: Model, scene: Scene, tmp_path: Path) -> None:
    scene.save(tmp_path / "scene.safetensors")
    again = Scene.load(tmp_path / "scene.safetensors", model)
    assert (again.size, again.digest, again.weights, again.geometry) == (
        scene.size,
        scene.digest,
        WEIGHTS,
        scene.geometry,
    )
    assert mask_iou(again.segment(RED).mask, scene.segment(RED).mask) > 0.99
    assert again.to_bytes() == scene.to_bytes()


def with_header(data: bytes, **changes: Any) -> bytes:
    tensors = safetensors.torch.load(data)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["seem.scene"])
    return safetensors.torch.save(tensors, {"seem.scene": json.dumps({**header, **changes})})


def test_scenes_that_are_refused(model: Model, scene: Scene) -> None:
    data = scene.to_bytes()
    tensors = safetensors.torch.load(data)
    metadata = {
        "seem.scene": json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["seem.scene"]
    }
    nan = {"colours": tensors["colours"] * float("nan")}
    cases: list[tuple[bytes, str]] = [
        (b"", "expected a safetensors file"),
        (b"\x00" * 100, "expected a safetensors file"),
        (b"\xff" * 100, "expected a safetensors file"),
        (data[: len(data) // 2], "scene: expected"),
        (data + b"more", "scene: expected"),
        (safetensors.torch.save(tensors), "got no scene header"),
        (safetensors.torch.save(tensors, {"seem.scene": "[1]"}), "expected a JSON object as header"),
        (with_header(data, version=2), "expected format version 1, got 2"),
        (with_header(data, weights="sha256:other"), "expected one of the weights sha256:ffff"),
        (with_header(data, image="photo.jpg"), 'expected the image as "sha256:"'),
        (with_header(data, original=[160]), "expected [width, height]"),
        (with_header(data, original=[160, 0]), "expected [width, height]"),
        (with_header(data, original=[160.0, 120]), "expected [width, height]"),
        (with_header(data, original=[10**6, 10**6]), "of at most 100000000 pixels"),
        (with_header(data, original=[120, 160]), "expected encoded size (120, 160)"),
        (with_header(data, encoded=[64, 64]), "expected encoded size (160, 120), got [64, 64]"),
        (safetensors.torch.save({"x": tensors["colours"]}, metadata), "expected this model's features"),
        (
            safetensors.torch.save({"colours": tensors["colours"][:, :, 1:].clone()}, metadata),
            "expected this model's features",
        ),
        (safetensors.torch.save({"colours": tensors["colours"].int()}, metadata), "expected this model's features"),
        (safetensors.torch.save(nan, metadata), "expected this model's features"),
    ]
    for broken, message in cases:
        with pytest.raises(ValueError, match="scene: expected") as caught:
            Scene.from_bytes(broken, model)
        assert message in str(caught.value)


# ---- model --------------------------------------------------------------------------------------------------------


def test_model(model: Model, network: FakeNetwork, photo: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    seem.draw(photo, []).save(path)
    scene = model.encode(path)
    assert (scene.size, scene.digest) == ((160, 120), model.encode(photo).digest)
    assert network.encodes == 2
    scene.segment(RED)
    scene.find("red")
    assert network.encodes == 2  # every prompt after the first costs only the decoder
    assert (model.name, model.device.type) == ("fake", "cpu")
    assert "fake on cpu" in repr(model)
    assert "160x120" in repr(scene)
    assert not network.training


def test_images_that_are_too_large_for_a_model(network: FakeNetwork, photo: np.ndarray) -> None:
    with pytest.raises(seem.ImageError, match="expected at most 1000 pixels, got 160x120"):
        Model(network, WEIGHTS, max_pixels=1000).encode(photo)  # type: ignore[arg-type]


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device().type in ("cpu", "cuda", "mps")
    for name in ("gpu", "", "cuda:99x"):
        with pytest.raises(ValueError, match="device: expected"):
            pick_device(name)
