"""Packing of weights, the cache of decoders, and the command, without the slow part: exporting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seem.cli import main
from seem.export import decoder_files, export_onnx, files
from seem.predict.model import Model
from tests.fakes import WEIGHTS, FakeNetwork
from tests.tiny import tiny_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
STEP = RNG.uniform(0.01, 0.1, (1, 48)).astype(np.float32)
IN_STEPS = RNG.integers(-127, 128, (64, 48)).astype(np.float32) * STEP
IN_STEPS[0] = 127 * STEP  # as in any channel that was stored as int8, the largest is 127
FREE = RNG.normal(size=(48, 40)).astype(np.float32)
BIAS = RNG.normal(size=(2000,)).astype(np.float32)
SHORT = RNG.normal(size=(40,)).astype(np.float32)


def graph() -> onnx.ModelProto:
    """x @ steps @ free + short, and bias as it is."""
    h, t = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        h.make_node("MatMul", ["x", "steps"], ["a"]),
        h.make_node("MatMul", ["a", "free"], ["b"]),
        h.make_node("Add", ["b", "short"], ["y"]),
        h.make_node("Identity", ["bias"], ["z"]),
    ]
    weights = [
        onnx.numpy_helper.from_array(value, name)
        for name, value in (("steps", IN_STEPS), ("free", FREE), ("bias", BIAS), ("short", SHORT))
    ]
    x, y, z = (h.make_tensor_value_info(n, t, s) for n, s in (("x", [None, 64]), ("y", [None, 40]), ("z", [2000])))
    made = h.make_graph(nodes, "g", [x], [y, z], weights)
    return h.make_model(made, opset_imports=[h.make_opsetid("", 20)], ir_version=10)


def types(model: onnx.ModelProto) -> dict[str, str]:
    names = {t.name: onnx.TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer}
    return {name: kind for name, kind in names.items() if not name.endswith(".scale")}


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    onnx.checker.check_model(model)
    x = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
    result: list[np.ndarray] = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    return result


@pytest.mark.parametrize(
    ("precision", "kept", "y_error", "z_error"),
    [
        ("fp32", {"steps": "FLOAT", "free": "FLOAT", "bias": "FLOAT"}, 0, 0),
        ("fp16", {"steps.fp16": "FLOAT16", "free.fp16": "FLOAT16", "bias.fp16": "FLOAT16"}, 2e-3, 1e-3),
        ("int8", {"steps.int8": "INT8", "free.int8": "INT8", "bias.fp16": "FLOAT16"}, 2e-2, 1e-3),
        ("packed", {"steps.int8": "INT8", "free.fp16": "FLOAT16", "bias.fp16": "FLOAT16"}, 2e-3, 1e-3),
    ],
)
def test_weights_are_packed(precision: str, kept: dict[str, str], y_error: float, z_error: float) -> None:
    model, plain = graph(), run(graph())
    files.pack_weights(model, precision)
    assert types(model) == kept | {"short": "FLOAT"}
    for got, want, error in zip(run(model), plain, (y_error, z_error), strict=True):
        assert np.abs(got - want).max() <= error * np.abs(want).max()
    if precision != "fp32":
        assert model.ByteSize() < graph().ByteSize() * 0.62


def test_int8_gives_back_weights_that_were_int8() -> None:
    whole, scale = files.quantize(IN_STEPS)
    assert scale.shape == (1, 48)
    assert np.abs(whole * scale - IN_STEPS).max() < 1e-6


def test_what_float16_cannot_hold_stays() -> None:
    model = graph()
    large = onnx.numpy_helper.from_array(np.full(2000, 1e6, np.float32), "bias")
    model.graph.initializer[2].CopyFrom(large)
    files.pack_weights(model, "fp16")
    assert types(model)["bias"] == "FLOAT"


# ---- the cache ----------------------------------------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A cache folder of its own, and a list of the weights that were exported, which is quick here."""
    calls: list[str] = []

    def write(model: Model, folder: Path, precision: str) -> None:
        calls.append(model.weights)
        (folder / "decode.onnx").write_bytes(b"graph")
        described = {"files": {"decode.onnx": files._describe(folder / "decode.onnx")}}
        (folder / "decoder.json").write_text(json.dumps(described))

    monkeypatch.setenv("SEEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "_write_decoder", write)
    return calls


def test_a_decoder_is_exported_once_for_its_weights(written: list[str]) -> None:
    network = tiny_model(0)
    one, other = Model(network, WEIGHTS), Model(network, "sha256:" + "1" * 64)
    first = decoder_files(one)
    assert set(first) == {"decode.onnx", "decoder.json"}
    assert decoder_files(one) == first
    assert decoder_files(other) != first
    assert decoder_files(one, "fp16") != first
    assert written == [WEIGHTS, other.weights, WEIGHTS]
    assert all(path.is_file() for path in first.values())


def test_a_damaged_decoder_is_exported_again(written: list[str]) -> None:
    model = Model(tiny_model(0), WEIGHTS)
    path = decoder_files(model)["decode.onnx"]
    path.write_bytes(b"half")
    assert decoder_files(model)["decode.onnx"].read_bytes() == b"graph"
    path.unlink()
    assert decoder_files(model)["decode.onnx"].read_bytes() == b"graph"
    assert len(written) == 3
    assert [p.name for p in path.parents[1].iterdir()] == [path.parent.name]  # nothing unfinished is left


def test_a_failed_export_leaves_nothing(written: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(model: Model, folder: Path, precision: str) -> None:
        (folder / "decode.onnx").write_bytes(b"half")
        raise RuntimeError("no room")

    monkeypatch.setattr(files, "_write_decoder", fail)
    with pytest.raises(RuntimeError, match="no room"):
        decoder_files(Model(tiny_model(0), WEIGHTS))
    assert list((tmp_path / "cache" / "decoder").iterdir()) == []


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    model = Model(tiny_model(0), WEIGHTS)
    with pytest.raises(ValueError, match=r"precision: expected fp32, fp16, int8, packed, got 'int4'"):
        decoder_files(model, "int4")
    with pytest.raises(ValueError, match=r"parts: expected some of decoder, image, text, got 'video'"):
        export_onnx(model, tmp_path / "out", parts=["video"])
    with pytest.raises(ValueError, match="export: expected a model of the seem-tiny kind"):
        decoder_files(Model(FakeNetwork(), WEIGHTS))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "x", "--parts", "encoder"], "--parts: expected some of decoder, image, text, got 'encoder'"),
        (["--out", "x", "--parts", ","], "--parts"),
        (["--out", "x", "--precision", "int4"], "--precision: expected fp32, fp16, int8, packed, got 'int4'"),
        (["--out", __file__], "--out: expected a folder, got a file"),
        (["--out", "x", "--model", "nothing"], "nothing"),
        ([], "--out"),
    ],
)
def test_the_command_refuses(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "onnx", *options]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not Path("x").exists()


def test_the_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "onnx", "--help"]) == 0
    assert "seem export onnx --out onnx" in capsys.readouterr().out
