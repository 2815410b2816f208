"""`seem convert`: what it writes, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from seem.checkpoints import CheckpointError, load_network
from seem.checkpoints.official import convert, is_official, load_official, our_name
from seem.cli import main
from seem.model.official_seem import OfficialSEEM
from tests.official import FAMILY, official_state, reduced_variants, write_official

V1 = "seem-focal-t-v1"


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with reduced_variants(*FAMILY):
        yield


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_official(tmp_path_factory.mktemp("published") / "weights.pt", V1)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.safetensors"


def test_every_tensor_arrives(published: Path, out: Path) -> None:
    digest = convert(published, out, V1)
    official = torch.load(published, weights_only=True)
    converted = load_file(out)
    assert len(converted) == len(official) - 2
    assert all(torch.equal(converted[our_name(k)], v) for k, v in official.items() if our_name(k) in converted)
    assert is_official(out)
    network, weights = load_network(out)
    assert isinstance(network, OfficialSEEM)
    assert (network.config.name, weights) == (V1, f"sha256:{digest}")
    assert not network.training
    assert not any(p.requires_grad or p.is_meta for p in network.parameters())


def test_the_same_bytes_every_time(published: Path, out: Path, tmp_path: Path) -> None:
    assert convert(published, out, V1) == convert(published, tmp_path / "again.safetensors", V1)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["again.safetensors", "out.safetensors"]


@pytest.mark.parametrize("name", FAMILY)
def test_the_name_decides(published: Path, out: Path, name: str) -> None:
    convert(published, out, name)
    network = load_official(out)
    assert network.config.name == name
    assert network.config.semantics.name == name.rsplit("-", 1)[1]


def test_older_files_and_shared_memory(out: Path, tmp_path: Path) -> None:
    state = official_state(V1)
    big = torch.stack([state["backbone.norm0.bias"], state["backbone.norm0.weight"]])
    state |= {"backbone.norm0.bias": big[0], "backbone.norm0.weight": big[1]}
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    convert(tmp_path / "old.pt", out, V1)
    assert torch.equal(load_file(out)["image_encoder.norm0.weight"], big[1])


# ---- refused ------------------------------------------------------------------------------------------------------


def drop(state: dict[str, Any]) -> None:
    del state["backbone.norm0.bias"]


def add(state: dict[str, Any]) -> None:
    state["backbone.extra"] = torch.ones(1)


def misshape(state: dict[str, Any]) -> None:
    state["backbone.norm0.bias"] = torch.ones(7)
    state["sem_seg_head.predictor.decoder_norm.bias"] = torch.ones(3)


def integers(state: dict[str, Any]) -> None:
    state["backbone.norm0.bias"] = state["backbone.norm0.bias"].long()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (drop, ["1 tensors differ", "missing: backbone.norm0.bias (16,)"]),
        (add, ["1 tensors differ", "extra: backbone.extra (1,)"]),
        (misshape, ["2 tensors differ", "norm0.bias is (7,), expected (16,)", "decoder_norm.bias is (3,)"]),
        (integers, ["not plain floating point: backbone.norm0.bias"]),
        (lambda s: s.clear(), ["of another project"]),
        (lambda s: (s.clear(), s.update({"conv1.weight": torch.ones(3)})), ["another project", "conv1.weight"]),
        (lambda s: s.update({"epoch": 3}), ["expected names and tensors alone"]),
    ],
)
def test_another_content(
    change: Callable[[dict[str, Any]], Any], expected: list[str], out: Path, tmp_path: Path
) -> None:
    state = official_state(V1)
    change(state)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / "x.pt", out, V1)
    assert all(part in str(caught.value) for part in expected), caught.value
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_training_checkpoint_is_not_unwrapped(out: Path, tmp_path: Path) -> None:
    torch.save({"model": official_state(V1), "iteration": 5}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="of another project: it holds model, iteration"):
        convert(tmp_path / "x.pt", out, V1)


class Attack:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("modern", [True, False])
def test_code_is_refused_and_not_run(modern: bool, out: Path, tmp_path: Path) -> None:
    torch.save({"a": Attack(tmp_path / "owned")}, tmp_path / "x.pt", _use_new_zipfile_serialization=modern)
    with pytest.raises(CheckpointError, match=r"x\.pt is refused: its pickle asks for code .*mkdir.* nothing"):
        convert(tmp_path / "x.pt", out, V1)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.999])
def test_truncated(published: Path, keep: float, out: Path, tmp_path: Path) -> None:
    data = published.read_bytes()
    (tmp_path / "x.pt").write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match=r"x\.pt is (empty|not a complete PyTorch file)"):
        convert(tmp_path / "x.pt", out, V1)
    assert not out.exists()


@pytest.mark.parametrize("content", [b"hello, I am a text", b"\x80\x04K\x01.", b"<html></html>"])
def test_something_else(content: bytes, out: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pt is (not a complete|of another project)") as caught:
        convert(tmp_path / "x.pt", out, V1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("seem_focalt_v0.pt", "seem-focal-t-v1"),
        ("seem_focalt_v1.pt", "seem-focal-t-v0"),
        ("seem_focalt_v1.pt", "seem-focal-t-demo"),
        ("SEEM_FocalT_v1 (1).pt", "seem-focal-t-v0"),
        ("seem_focall_v1.pt", "seem-focal-t-v1"),
        ("seem_samvitb_v1.pt", "seem-davit-d3-v1"),
    ],
)
def test_published_names_are_believed(published: Path, file: str, name: str, out: Path, tmp_path: Path) -> None:
    (tmp_path / file).symlink_to(published)
    with pytest.raises(ValueError, match="is published as seem-"):
        convert(tmp_path / file, out, name)


def test_v0_is_demo_too(published: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "seem_focalt_v0.pt").symlink_to(published)
    convert(tmp_path / "seem_focalt_v0.pt", out, "seem-focal-t-demo")
    assert load_official(out).config.semantics.joint


def test_names_and_places(published: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown official variant 'seem-focal-x'; expected one of seem-focal-t-v0"):
        convert(published, out, "seem-focal-x")
    with pytest.raises(ValueError, match="unknown official variant"):
        convert(published, out, "samvitb_unicl_lang_demo")  # a wiring without a name of its own
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        convert(tmp_path / "none.pt", out, V1)
    with pytest.raises(ValueError, match="another file"):
        convert(published, published, V1)


def test_a_full_disk_leaves_nothing(
    published: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seem.checkpoints.official.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        convert(published, out, V1)
    assert list(tmp_path.iterdir()) == []


# ---- reading back -------------------------------------------------------------------------------------------------


def test_damaged_conversions(published: Path, out: Path, tmp_path: Path) -> None:
    convert(published, out, V1)
    with pytest.raises(CheckpointError, match="holds the variant 'seem-focal-t-v1'; expected seem-focal-t-v0"):
        load_official(out, "seem-focal-t-v0")
    state = load_file(out)
    header = {"seem": '{"format": "seem-official-1", "variant": "seem-focal-t-v1"}'}
    del state["decoder.decoder_norm.bias"]
    save_file(state, tmp_path / "less.safetensors", header)
    with pytest.raises(CheckpointError, match=r"1 missing: decoder\.decoder_norm\.bias"):
        load_network(tmp_path / "less.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(out.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_network(tmp_path / "cut.safetensors")


# ---- the command --------------------------------------------------------------------------------------------------


def test_command(published: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(published), str(out), "--as", V1]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert is_official(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{pt}", "{out}"], "--as"),
        (["{pt}", "{out}", "--as", "seem-focal-t-v9"], "unknown official variant"),
        (["{pt}", "{out}.pt", "--as", V1], "ends in .safetensors"),
        (["{pt}", "/nowhere/x.safetensors", "--as", V1], "no such folder"),
        (["none.pt", "{out}", "--as", V1], "no checkpoint at none.pt"),
        (["{pt}", "{out}", "--as", "seem-focal-l-v1"], "tensors differ"),
    ],
)
def test_command_is_told_wrong(
    arguments: list[str], message: str, published: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", *(a.format(pt=published, out=out) for a in arguments)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
