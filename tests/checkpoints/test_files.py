"""Weights files: written, read back, and refused when anything is wrong with them."""

from __future__ import annotations

import ast
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import seem
from seem.checkpoints.files import HEADER, CheckpointError, compare, load_model, save_base, save_model, sha256_of
from seem.model.config import SEEMConfig
from seem.model.prompting import ObjectPrompt
from seem.model.seem import SEEM
from tests.tiny import click, encode, tiny_config, tiny_model

SOURCE = Path(seem.__file__).parent


@pytest.fixture(scope="module")
def model() -> SEEM:
    return tiny_model().requires_grad_(False)


@pytest.fixture
def whole(model: SEEM, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "m.safetensors", extra={"step": 3})
    return tmp_path / "m.safetensors"


def rewrite(path: Path, tensors: Callable[[dict[str, Any]], Any] | None = None, **metadata: str) -> None:
    """The same file with some tensors or header fields changed."""
    with safe_open(path, "pt") as f:
        header = dict(f.metadata())
    state = load_file(path)
    if tensors is not None:
        tensors(state)
    fields = json.loads(header[HEADER]) | metadata
    save_file(state, path, header | {HEADER: json.dumps(fields)})


def test_round_trip(model: SEEM, whole: Path) -> None:
    loaded, extra = load_model(whole)
    assert extra == {"step": 3}
    assert loaded.config == model.config
    assert not loaded.training
    prompts = [ObjectPrompt(visual=(click(9.5, 9.5),)), ObjectPrompt(texts=("the red square",))]
    a = model.decode(encode(model), prompts).logits
    b = loaded.decode(encode(loaded), prompts).logits
    assert (a - b).abs().max() < 0.05 * a.abs().max()
    again = whole.with_name("again.safetensors")
    assert save_model(loaded, again, extra={"step": 3}) == sha256_of(again)
    assert load_file(again).keys() == load_file(whole).keys()
    assert not list(whole.parent.glob("*.tmp"))


def test_with_a_shared_base(model: SEEM, tmp_path: Path) -> None:
    base, small = tmp_path / "base.safetensors", tmp_path / "small.safetensors"
    save_base(model, base)
    save_model(model, small, base)
    assert not any(k.startswith(("image_encoder.", "text_encoder.")) for k in load_file(small))
    loaded, _ = load_model(small, base)
    assert loaded.text_encoder.tokenizer_json == model.text_encoder.tokenizer_json
    with pytest.raises(CheckpointError, match="holds the base weights alone"):
        load_model(base)
    with pytest.raises(CheckpointError, match=r"needs the base weights .*, which are not beside it"):
        load_model(small)
    other = tmp_path / "other.safetensors"
    save_base(tiny_model(5), other)
    with pytest.raises(CheckpointError, match=r"small\.safetensors was made with another base than .*other"):
        load_model(small, other)


def test_what_differs_from_the_base_stands_in_the_models_own_file(model: SEEM, tmp_path: Path) -> None:
    base, own = tmp_path / "base.safetensors", tmp_path / "m.safetensors"
    save_base(model, base)
    thawed = tiny_model()
    thawed.load_state_dict(model.state_dict())
    with torch.no_grad():
        thawed.image_encoder.neck[0].weight += 0.5
    save_model(thawed, own, base)
    assert {n for n in load_file(own) if n.startswith("image_encoder.")} == {"image_encoder.neck.0.weight"}
    loaded = load_model(own, base)[0].image_encoder.state_dict()
    for name, value in thawed.image_encoder.state_dict().items():
        assert torch.allclose(loaded[name], value, atol=0.02 * float(value.abs().max()) + 1e-6), name


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated(whole: Path, share: float) -> None:
    content = whole.read_bytes()
    whole.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"m\.safetensors is not a complete safetensors file"):
        load_model(whole)


def test_pickles_are_not_even_opened(tmp_path: Path) -> None:
    class Boom:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (pytest.fail, ("a pickle was executed",))

    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(Boom()))
    with pytest.raises(CheckpointError, match="pickles are never loaded"):
        load_model(path)
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="pickles are never loaded"):
        load_model(path)


def test_another_projects_file(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.safetensors is not a SEEM weights file: its format is None"):
        load_model(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no weights file at .*b\.safetensors"):
        load_model(tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        load_model(tmp_path)


@pytest.mark.parametrize("config", ["{", "[]", '{"nam": 1}', '{"image": {"side": 3}}'])
def test_a_config_that_cannot_be_read(whole: Path, config: str) -> None:
    rewrite(whole, config=config)
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        load_model(whole)


def test_another_config(whole: Path) -> None:
    tiny = tiny_config()
    changed = replace(tiny, prompt_decoder=replace(tiny.prompt_decoder, candidates=3, memory_tokens=5))
    rewrite(whole, config=changed.to_json())
    with pytest.raises(CheckpointError) as caught:
        load_model(whole)
    assert "prompt_decoder.memory.weight is (2, 32), expected (5, 32)" in str(caught.value)
    assert "unexpected: prompt_decoder.mask_embed.3" in str(caught.value)
    rewrite(whole, config=SEEMConfig().to_json())
    with pytest.raises(CheckpointError, match=r"does not fit its config: .* missing: .* of another shape: "):
        load_model(whole)


def test_all_problems_are_listed(whole: Path) -> None:
    def edit(state: dict[str, Any]) -> None:
        del state["logit_scale"], state["joint.middle.bias"]
        state["stranger"] = torch.zeros(2)
        state["class_embed.bias"] = torch.zeros(3)

    rewrite(whole, edit)
    with pytest.raises(CheckpointError) as caught:
        load_model(whole)
    assert "2 missing: joint.middle.bias, logit_scale; 1 unexpected: stranger" in str(caught.value)
    assert "1 of another shape: class_embed.bias is (3,), expected (16,)" in str(caught.value)


def test_compare() -> None:
    a = {"x": torch.zeros(1), "y": torch.zeros(2)}
    assert compare(a, a) == []


def test_a_failed_write_leaves_nothing(model: SEEM, tmp_path: Path) -> None:
    broken = tiny_model()
    with torch.no_grad():
        broken.joint.middle.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"joint\.middle\.bias"):
        save_model(broken, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_header_is_json(whole: Path) -> None:
    with safe_open(whole, "pt") as f:
        header = json.loads(f.metadata()[HEADER])
    assert SEEMConfig.from_json(header["config"]) == tiny_config()
    assert json.loads(header["extra"]) == {"step": 3}


# ---- trust --------------------------------------------------------------------------------------------------------

CONVERTERS = ("checkpoints",)  # the only room where published pickles are translated


def test_no_pickle_is_loaded_elsewhere() -> None:
    """`torch.load` only in the converters, always and literally with weights_only=True."""
    places = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert not (module == "torch" and "load" in names), f"{path}:{node.lineno}: torch.load under another name"
            if not isinstance(node, ast.Call):
                continue
            options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            assert options.get("allow_pickle") is not True, f"{path}:{node.lineno}"
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "torch.load":
                assert options.get("weights_only") is True, f"{path}:{node.lineno}"
                places.append(path.relative_to(SOURCE))
    assert {p.parts[0] for p in places} <= set(CONVERTERS)
    assert len(set(places)) <= 2
