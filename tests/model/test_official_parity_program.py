"""`benchmarks.parity` on folders that a reduced network of our own recorded: every kind of file, and a spoilt one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import parity
from seem.model.attention_rules import TEXT_TO_SPATIAL
from seem.model.official_config import OfficialConfig, official_config, reduced
from seem.model.official_decoder import DecoderPrompts
from seem.model.official_visual_sampler import OfficialDraws, Strokes
from tests.model.test_official_variants import official_lines

FIXTURES = Path(__file__).parents[1] / "fixtures" / "official"


class Recording(OfficialDraws):
    """Official draws that remember what they drew, as the recorded files do."""

    def __init__(self, per_prompt: bool) -> None:
        super().__init__(per_prompt)
        self.found: dict[str, np.ndarray] = {}
        self.slots: list[np.ndarray] = []

    def points(self, objects: Tensor, places: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        objects, places = super().points(objects, places, limit)
        rows = torch.cat([objects[None].float(), places.T]) if self.per_prompt else places.T
        self.found[f"points_{len(self.found):02d}"] = rows.numpy()
        return objects, places

    def query_rows(self, total: int, per_object: int, objects: int) -> Tensor:
        rows = super().query_rows(total, per_object, objects)
        self.found["rng_900_randint"] = rows.numpy()
        return rows


def small(name: str) -> OfficialConfig:
    return reduced(official_config(name))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> parity.Folder:
    monkeypatch.setattr(parity, "official_config", small)
    monkeypatch.setattr("seem.checkpoints.official.official_config", small)
    path = tmp_path / f"focalt_unicl_lang_{request.param}"
    path.mkdir()
    lines = official_lines(path.name, small(path.name))
    rows = ["name\tshape\tdtype\tkind", *("\t".join(line.split(" ")) + "\tfloat32\tparam" for line in lines)]
    (path / "state_dict.tsv").write_text("\n".join(rows) + "\n")
    return parity.Folder(path, FIXTURES / "inputs", None)


def record(folder: parity.Folder, name: str, images: list[str], phrases: list[list[str]], links: Any = ()) -> Path:
    """Text and strokes in one pass, in the form of the recorded files."""
    multi = folder.config.semantics.queries_per_prompt is not None
    masks = folder.stroke_masks()
    image = folder.prepared(*images)
    encoded = [parity.encode_phrases(folder, p)[0][0] for p in phrases]
    text = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True)
    padding = torch.arange(text.shape[1]) >= torch.tensor([len(e) for e in encoded])[:, None]
    draws = Recording(multi)
    stack = torch.stack([masks["point"], masks["scribble"]])[: 2 if multi else 1]
    strokes = [Strokes(stack, torch.zeros_like(stack))] * len(phrases)
    visual = folder.part("decoder").read_prompts(image, strokes, draws)
    prompts = DecoderPrompts(text=text, text_padding=padding, visual=visual)
    run = parity.decode(folder, images, prompts, draws, len(phrases), links)
    parity.choose_by_visual(run, visual)
    joint = folder.config.semantics.joint
    keys = ["pred_logits", "pred_masks", "class_embed_per_layer", "pred_pspatials"]
    keys += ["pred_maskembs"] if joint else ["pred_gmasks", "pred_smasks", "prev_mask", "aux_pred_smaskembs_layers048"]
    values = {key: run.resolve(key).numpy() for key in keys}  # type: ignore[union-attr]
    names, start = [], 0
    for layer in (0, 1):
        mask = run.trace.self_blocked[layer].numpy()
        values[f"selfattn_mask_l{layer}_packed"] = np.packbits(mask, axis=-1)
        values[f"selfattn_mask_l{layer}_shape"] = np.array(mask.shape)
    index = []
    for group, length in run.trace.groups:
        names.append(group)
        index.append([start, start + length])
        start += length
    values |= {"selfattn_names": np.array(names), "selfattn_index_l0": np.array(index)}
    path = folder.path / f"{name}.npz"
    np.savez(path, **values, **draws.found)
    return path


@pytest.mark.parametrize("folder", ["v0", "v1", "demo"], indirect=True)
def test_kinds_that_no_fixture_has(folder: parity.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.inference_mode():
        links = [] if folder.config.semantics.joint else [TEXT_TO_SPATIAL]
        record(folder, "composition_text_visual", ["random"], [parity.PHRASES], links)
        record(folder, "batch2_text_visual", ["random", "ref"], [["the left person"], ["dog"]])
    np.savez(folder.path / "poetry.npz", lines=np.zeros(3))
    arguments = [str(folder.path), "--inputs", str(FIXTURES / "inputs")]
    assert parity.main(arguments) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(d["file"], d["status"]) for d in lines] == [
        ("state_dict.tsv", "pass"),
        ("batch2_text_visual.npz", "pass"),
        ("composition_text_visual.npz", "pass"),
        ("poetry.npz", "skipped"),
    ]
    assert not lines[1]["unchecked"]
    assert not lines[2]["unchecked"]
    spoilt = dict(np.load(folder.path / "composition_text_visual.npz"))
    spoilt["pred_masks"] = spoilt["pred_masks"] + 0.1
    np.savez(folder.path / "composition_text_visual.npz", **spoilt)
    assert parity.main(arguments) == 1


def test_unreadable_folder(tmp_path: Path) -> None:
    (tmp_path / "focalt_unicl_lang_v1").mkdir()
    assert parity.main([str(tmp_path / "focalt_unicl_lang_v1")]) == 2
    assert parity.main([str(tmp_path / "nonsense")]) == 2
