"""Every official variant: names and shapes at full size, forward and backward at reduced width."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from seem.checkpoints.official import IGNORED, check_names, convert_state_dict, official_name, our_name
from seem.model.attention_rules import OBJECT
from seem.model.official_config import OFFICIAL_VARIANTS, OfficialConfig, official_config, reduced, with_semantics
from seem.model.official_decoder import DecoderPrompts, mask_logits
from seem.model.official_seem import OfficialSEEM
from seem.model.official_visual_sampler import EvenDraws

FIXTURES = Path(__file__).parents[1] / "fixtures" / "official"
RECORDED = json.loads((FIXTURES / "state_dicts.json").read_text())
ENCODERS = ["seem-focal-t-v1", "seem-focal-l-v1", "seem-davit-d3-v1", "seem-davit-d5-v1", "seem-sam-vit-b-v1"]


def official_lines(name: str, config: OfficialConfig | None = None) -> list[str]:
    """``name shape`` of our tensors under their official names, the renaming inverted."""
    with torch.device("meta"):
        ours = OfficialSEEM(config or official_config(name)).state_dict()
    lines = [f"{official_name(k)} {','.join(map(str, v.shape))}" for k, v in ours.items()]
    lines.append("dilation_kernel 1,1,3,3")
    if not name.endswith("demo"):
        lines.append("criterion.empty_weight 134")
    return sorted(lines)


@pytest.mark.parametrize("name", RECORDED)
def test_names_and_shapes_are_the_official_ones(name: str) -> None:
    lines = official_lines(name)
    assert len(lines) == RECORDED[name]["tensors"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == RECORDED[name]["sha256"]


@pytest.mark.parametrize("name", ENCODERS)
def test_forward_backward_and_storage(name: str) -> None:
    torch.manual_seed(0)
    config = reduced(official_config(name))
    network = OfficialSEEM(config)
    side = config.image.pad_to or 64
    maps = network.image_encoder(torch.randn(1, 3, side, side))
    assert [tuple(m.shape[-2:]) for m in maps] == [(side // s, side // s) for s in (4, 8, 16, 32)]
    mask_features, levels = network.pixel_decoder(maps)
    assert mask_features.shape == (1, 32, side // 4, side // 4)
    assert [m.shape[-1] for m in levels] == [side // 32, side // 16, side // 8]
    prepared = network.decoder.prepare(mask_features, levels)
    out = network.decoder(prepared, DecoderPrompts(), EvenDraws(), [OBJECT], 1)
    masks = mask_logits(out.mask_embeddings[OBJECT], mask_features)
    (out.class_embeddings[OBJECT].sum() + masks.square().sum()).backward()
    unused = ("text_encoder", "decoder.visual_sampler", "decoder.memory")
    silent = [k for k, p in network.named_parameters() if p.grad is None and not k.startswith(unused)]
    assert not silent, silent
    clone = OfficialSEEM(config)
    clone.load_state_dict(load(save(network.state_dict())))
    again = clone.image_encoder(torch.zeros(1, 3, side, side))
    assert all(
        torch.equal(a, b) for a, b in zip(network.image_encoder(torch.zeros(1, 3, side, side)), again, strict=True)
    )


@pytest.mark.parametrize("size", [(61, 70), (64, 96)])
@pytest.mark.parametrize("name", ENCODERS[:4])
def test_any_size_gives_maps(name: str, size: tuple[int, int]) -> None:
    network = OfficialSEEM(reduced(official_config(name))).eval()
    with torch.inference_mode():
        maps = network.image_encoder(torch.randn(1, 3, *size))
    assert all(torch.isfinite(m).all() for m in maps)


def test_sam_vit_takes_its_canvas_only() -> None:
    network = OfficialSEEM(reduced(official_config("seem-sam-vit-b-v1")))
    with pytest.raises(ValueError, match="128 x 128"):
        network.image_encoder(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("name", OFFICIAL_VARIANTS)
def test_table_of_variants(name: str) -> None:
    config = OFFICIAL_VARIANTS[name]
    assert config.name == name
    assert config.semantics.name == name.rsplit("-", 1)[1]
    assert config.checkpoint is None or config.checkpoint.startswith("seem_")


def test_unknown_variant() -> None:
    with pytest.raises(ValueError, match="seem-focal-t-v1"):
        official_config("seem-focal-x-v1")


def test_other_semantics_have_no_file() -> None:
    assert with_semantics(official_config("seem-sam-vit-b-v1"), "demo").checkpoint is None


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    lines = official_lines("seem-focal-t-v1")
    return {line.split(" ")[0]: tuple(int(n) for n in line.split(" ")[1].split(",") if n) for line in lines}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("backbone.norm0.bias"), "missing: backbone.norm0.bias"),
        (lambda s: s.update({"backbone.extra": (1,)}), "extra: backbone.extra"),
        (lambda s: s.update({"backbone.norm0.bias": (7,)}), "misshapen: backbone.norm0.bias"),
        (lambda s: s.update({"module.other": (1,)}), "extra: module.other"),
    ],
)
def test_every_key_is_accounted_for(shapes, change, message: str) -> None:  # type: ignore[no-untyped-def]
    wrong = dict(shapes)
    change(wrong)
    with pytest.raises(ValueError, match=message):
        check_names(wrong, official_config("seem-focal-t-v1"))


def test_names_go_both_ways(shapes: dict[str, tuple[int, ...]]) -> None:
    assert all(official_name(our_name(name)) == name for name in shapes)


def test_another_architecture_is_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="not a checkpoint of seem-focal-l-v1"):
        check_names(shapes, official_config("seem-focal-l-v1"))


def test_conversion_drops_training_buffers_only(shapes: dict[str, tuple[int, ...]]) -> None:
    official = {k: torch.empty(s, device="meta") for k, s in shapes.items()}
    converted = convert_state_dict(official, "seem-focal-t-v1")
    assert len(converted) == len(official) - len(IGNORED)
