"""The exported decoder answers as the network does, whatever it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seem
from seem.export import runner
from seem.model.prompting import ObjectPrompt, ReferencePrompt, VisualPrompt
from seem.model.seem import SEEM, ImageFeatures
from seem.predict.model import Model
from tests import tiny
from tests.export.expected import expected, vocabulary

pytest.importorskip("onnxruntime")

SIZES = [(50, 64), (64, 64), (64, 23)]  # padded differently; the last is no multiple of 4
RNG = np.random.default_rng(0)


def visual(kind: str, *points: tuple[float, float], positive: bool = True) -> VisualPrompt:
    return VisualPrompt(kind, positive, np.array(points, np.float32))


def mask(size: tuple[int, int]) -> VisualPrompt:
    inside = np.zeros(size, bool)
    inside[7:20, 5:17] = True
    return VisualPrompt("mask", True, np.zeros((0, 2), np.float32), mask=inside)


def memory(size: tuple[int, int]) -> torch.Tensor:
    h, w = -(-size[0] // 4), -(-size[1] // 4)
    return torch.randn(h, w, generator=torch.Generator().manual_seed(5)) * 4


CLICK, OTHER = visual("click", (10.5, 12.5)), visual("click", (20.5, 40.5))
NEGATIVE = visual("click", (3.5, 30.5), positive=False)
BOX = visual("box", (4, 6), (19, 33))
LINE = visual("scribble", (2, 3), (18, 9), (20, 44))
POLYGON = visual("polygon", (3, 4), (20, 8), (15, 40))
HOLE = visual("polygon", (8, 10), (14, 12), (12, 20), positive=False)


def cases(size: tuple[int, int], other: ImageFeatures) -> dict[str, list[ObjectPrompt]]:
    reference = ReferencePrompt(other, (visual("box", (5, 5), (30, 30)),))
    second = ReferencePrompt(other, (visual("click", (40.5, 20.5)),))
    before, texts = memory(size), ("red square", "disk")
    return {
        "click": [ObjectPrompt((CLICK,))],
        "clicks": [ObjectPrompt((CLICK, NEGATIVE, OTHER))],
        "box": [ObjectPrompt((BOX,))],
        "scribble": [ObjectPrompt((LINE,))],
        "polygon": [ObjectPrompt((POLYGON, HOLE))],
        "mask": [ObjectPrompt((mask(size), CLICK))],
        "text": [ObjectPrompt(texts=texts[:1])],
        "texts": [ObjectPrompt(texts=texts)],
        "text and click": [ObjectPrompt((CLICK,), texts[:1])],
        "reference": [ObjectPrompt(references=(reference,))],
        "references": [ObjectPrompt((NEGATIVE, CLICK), texts, (reference, second))],
        "memory": [ObjectPrompt((CLICK, NEGATIVE), previous=before)],
        "only negative, with memory": [ObjectPrompt((NEGATIVE,), previous=before)],
        "empty memory": [ObjectPrompt((CLICK,), previous=-before.abs())],
        "memory and polygon": [ObjectPrompt((POLYGON,), previous=before)],
        "memory and text": [ObjectPrompt(texts=texts[:1], previous=before)],
        "two objects": [ObjectPrompt((CLICK,)), ObjectPrompt((BOX, OTHER))],
        "all at once": [
            ObjectPrompt((CLICK,)),
            ObjectPrompt((POLYGON,), previous=before),
            ObjectPrompt(texts=texts),
            ObjectPrompt((LINE, NEGATIVE), references=(reference,)),
            ObjectPrompt((OTHER,), previous=before),
        ],
    }


CASES = list(cases((8, 8), None))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sessions(exported: tuple[Model, Path]) -> dict[str, Any]:
    return runner.load_graphs(exported[1].iterdir())


@pytest.fixture(scope="module", params=SIZES, ids=str)
def scene(request: pytest.FixtureRequest, exported: tuple[Model, Path], sessions: dict[str, Any]) -> Any:
    network = exported[0].network
    with torch.no_grad():
        features = tiny.encode(network, 1, request.param)
        other = tiny.encode(network, 2, (48, 64))
    return network, features, runner.prepare(sessions, features), cases(request.param, other)


def assert_close(got: np.ndarray, want: np.ndarray, share: float) -> None:
    """Largest difference as a share of the largest value."""
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= share * np.abs(want).max()


def compare(
    sessions: dict[str, Any], network: SEEM, features: ImageFeatures, prepared: runner.Arrays, objects: Any
) -> None:
    names = vocabulary(network.config.pixel_decoder.joint_dim)
    with torch.no_grad():
        got = runner.decode(sessions, network, features, prepared, objects, names)
        want = {k: v.numpy() for k, v in expected(network, features, objects, names).items()}
    h, w = features.mask_size
    logits, reference = got["logits"][:, :h, :w], want["logits"]
    assert_close(logits, reference, 1e-3)
    sure = np.abs(reference) > 1e-4 * np.abs(reference).max()
    assert ((logits > 0) == (reference > 0))[sure].all()
    assert (~sure).sum() <= max(2, 1e-3 * sure.size)  # 0.1 %, which of a small map is less than a cell
    for name in ("score", "class_embedding", "probabilities"):
        assert_close(got[name], want[name], 1e-3)


@pytest.mark.parametrize("case", CASES)
def test_graphs_answer_as_the_network(sessions: dict[str, Any], scene: Any, case: str) -> None:
    network, features, prepared, objects = scene
    compare(sessions, network, features, prepared, objects[case])


def test_prompts_change_the_answer(sessions: dict[str, Any], scene: Any) -> None:
    """Otherwise the tests above would compare constants."""
    network, features, prepared, objects = scene
    names = vocabulary(network.config.pixel_decoder.joint_dim)
    with torch.no_grad():
        logits = [
            runner.decode(sessions, network, features, prepared, objects[case], names)["logits"][0]
            for case in ("click", "clicks", "box", "polygon", "text", "texts", "reference", "memory", "empty memory")
        ]
    for i, one in enumerate(logits):
        for other in logits[:i]:
            assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()


def test_objects_do_not_see_each_other(sessions: dict[str, Any], scene: Any) -> None:
    network, features, prepared, objects = scene
    names = vocabulary(network.config.pixel_decoder.joint_dim)
    many = objects["all at once"]
    with torch.no_grad():
        together = runner.decode(sessions, network, features, prepared, many, names)["logits"]
        for i, item in enumerate(many):
            alone = runner.decode(sessions, network, features, prepared, [item], names)["logits"][0]
            assert_close(together[i], alone, 1e-4)


def test_description_names_what_the_graphs_take(exported: tuple[Model, Path], sessions: dict[str, Any]) -> None:
    model, folder = exported
    described = json.loads((folder / "decoder.json").read_text())
    assert described["weights"] == model.weights
    assert set(described["files"]) == {"prepare.onnx", "maps.onnx", "decode.onnx"}
    for name, graph in described["graphs"].items():
        session = sessions[name]
        assert list(graph["inputs"]) == [i.name for i in session.get_inputs()]
        assert graph["outputs"] == [o.name for o in session.get_outputs()]
        for given in session.get_inputs():
            shape = graph["inputs"][given.name]["shape"]
            assert len(shape) == len(given.shape)
            assert all(a == b for a, b in zip(shape, given.shape, strict=True) if isinstance(a, int))


@pytest.mark.slow
def test_shipped_weights() -> None:
    """The decoder that a browser gets, in int8, against the network that it was made of."""
    from seem.export import decoder_files

    model = seem.load(device="cpu")
    photo = Path(__file__).parents[2] / "examples" / "photos" / "coffee.jpg"
    scene = model.encode(photo)
    sessions = runner.load_graphs(decoder_files(model).values(), threads=2)
    network, features = model.network, scene._features
    with torch.no_grad():
        other = network.encode_text(["cup"])
        assert other.sentence.shape[0] == 1
        prepared = runner.prepare(sessions, features)
        h, w = features.mask_size
        click = visual("click", (0.45 * features.size[1], 0.5 * features.size[0]))
        first = [ObjectPrompt((click,))]
        before = expected(network, features, first, network.encode_text(["cup", "table"]).sentence)["logits"][0]
        assert before.shape == (h, w)
        for objects in (
            first,
            [ObjectPrompt((click, NEGATIVE), previous=before)],
            [ObjectPrompt((BOX,)), ObjectPrompt(texts=("cup",)), ObjectPrompt((POLYGON,), ("table",))],
        ):
            compare(sessions, network, features, prepared, objects)
