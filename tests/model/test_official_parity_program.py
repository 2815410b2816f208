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
from seem.evaluation.official_robot import next_clicks
from seem.model.attention_rules import OBJECT, TEXT_TO_SPATIAL
from seem.model.official_config import OfficialConfig, official_config, reduced
from seem.model.official_decoder import DecoderPrompts
from seem.model.official_seem import match_text
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
        kept, index = super().points(objects, torch.arange(len(objects)), limit)
        rows = torch.cat([kept[None].float(), places[index].T]) if self.per_prompt else places[index].T
        if len(objects) and (self.per_prompt or len(objects) > limit):
            self.found[f"rng_{len(self.found):03d}_{'multinomial' if self.per_prompt else 'randperm'}"] = index.numpy()
        self.found[f"points_{sum(k.startswith('points') for k in self.found):02d}"] = rows.numpy()
        return kept, places[index]

    def memory_slots(self, slots: int, objects: int) -> Tensor:
        drawn = super().memory_slots(slots, objects)
        self.slots.append(drawn.numpy())
        return drawn

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
    return save(folder, name, run, keys, draws)


def save(folder: parity.Folder, name: str, run: parity.Run, keys: list[str], draws: Recording, **more: Any) -> Path:
    """One decoder call as a recorded file: its outputs, draws and attention masks."""
    values = {key: run.resolve(key.removeprefix("seg_")).numpy() for key in keys}  # type: ignore[union-attr]
    for layer in (0, 1):
        for kind, masks in (("self", run.trace.self_blocked), ("cross", run.trace.cross_blocked)):
            values[f"{kind}attn_mask_l{layer}_packed"] = np.packbits(masks[layer].numpy(), axis=-1)
            values[f"{kind}attn_mask_l{layer}_shape"] = np.array(masks[layer].shape)
    ends = np.cumsum([length for _, length in run.trace.groups])
    values["selfattn_names"] = np.array([name for name, _ in run.trace.groups])
    values["selfattn_index_l0"] = np.stack([np.array([0, *ends[:-1]]), ends], 1)
    if draws.per_prompt and draws.slots:
        values["memory_indices_per_layer"] = np.stack(draws.slots)
    path = folder.path / f"{name}.npz"
    np.savez(path, **values, **draws.found, **more)
    return path


def record_rounds(folder: parity.Folder, letter: str, rounds: int) -> None:
    """Rounds of three objects, each with the mask and the next click of the one before."""
    multi = folder.config.semantics.queries_per_prompt is not None
    masks = folder.stroke_masks()
    positive = torch.stack([masks[k] for k in parity.SCENARIOS[letter]])
    negative = torch.zeros_like(positive)
    truth = torch.stack([masks[k] for k in parity.TRUTHS])
    previous = None
    for number in range(rounds):
        draws = Recording(multi)
        strokes = [Strokes(positive, negative)]
        if not multi:
            strokes = [Strokes(p[None], n[None]) for p, n in zip(positive, negative, strict=True)]
        visual = folder.part("decoder").read_prompts(folder.prepared("random"), strokes, draws)
        prompts = DecoderPrompts(visual=visual, previous=previous)
        run = parity.decode(folder, ["random"], prompts, draws, len(strokes))
        parity.choose_by_visual(run, visual)
        assert run.chosen_masks is not None
        added = next_clicks(run.chosen_masks.flatten(0, 1), truth, positive, negative)
        clicks = {k: np.packbits(m.numpy(), axis=-1) for k, m in zip(("next_pos", "next_neg"), added, strict=True)}
        keys = ["prev_mask", "seg_pred_smasks", "seg_pred_logits", "seg_pred_stexts", "seg_pred_nspatials"]
        shape = np.array((1, 3, *added[0].shape[1:]) if multi else (3, 1, *added[0].shape[1:]))
        name = f"interactive_{letter}_round{number}"
        save(folder, name, run, keys, draws, **clicks, next_shape=shape)
        positive, negative, previous = positive | added[0], negative | added[1], run.chosen_masks


def check_all(folder: parity.Folder, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Every file passes with nothing left unchecked."""
    assert parity.main([str(folder.path), "--inputs", str(folder.inputs)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()][1:]
    assert lines
    assert all(d["status"] == "pass" and not d["unchecked"] for d in lines), lines
    return lines


@pytest.mark.parametrize("folder", ["v0", "v1"], indirect=True)
def test_rounds_with_memory(folder: parity.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.inference_mode():
        record_rounds(folder, "B", 3)
    lines = check_all(folder, capsys)
    assert len(lines) == 3
    for line in lines:
        assert line["selected"]["points"] == {"ok": True, "sets": line["selected"]["points"]["sets"], "differ": 0}
        assert line["masks"]["next_pos"]["ok"]
    last = folder.path / "interactive_B_round2.npz"
    spoilt = dict(np.load(last))
    spoilt["prev_mask"] = np.roll(spoilt["prev_mask"], 1, 1 if folder.path.name.endswith("v1") else 0)
    np.savez(last, **spoilt)
    assert parity.main([str(folder.path), "--inputs", str(folder.inputs)]) == 1


@pytest.mark.parametrize("folder", ["demo"], indirect=True)
@pytest.mark.parametrize("name", ["demo_text", "demo_audio_text", "demo_text_stroke", "demo_stroke_scribble"])
def test_demo_kinds(folder: parity.Folder, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    draws = Recording(False)
    with torch.inference_mode():
        tokens, sentences = parity.encode_phrases(folder, ["the left person"])
        said: dict[str, Any] = {"audio" if "audio" in name else "text": tokens} if "text" in name else {}
        if "stroke" in name:
            stroke = folder.stroke_masks()["scribble"][None]
            strokes = [Strokes(stroke, torch.zeros_like(stroke))]
            said["visual"] = folder.part("decoder").read_prompts(folder.prepared("random"), strokes, draws)
        run = parity.decode(folder, ["random"], DecoderPrompts(**said), draws, 1)
        if "visual" in said:
            parity.choose_by_visual(run, said["visual"])
        else:
            run.match = match_text(run.out.class_embeddings[OBJECT], sentences, folder.part("text_encoder").logit_scale)
            run.chosen = run.match.argmax(1)
    assert run.chosen is not None
    save(folder, name, run, ["pred_logits", "pred_masks", "match_logits"], draws, matched_id=run.chosen[0].numpy())
    check_all(folder, capsys)


@pytest.mark.parametrize("folder", ["v1"], indirect=True)
def test_other_sizes_and_thinned_records(folder: parity.Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """A photo that is not square and fits no stride, beside the usual one; only every fifth cell of the masks."""
    folder.inputs = folder.path / "inputs"
    folder.inputs.mkdir()
    for size, seed in (((512, 771), 0), ((90, 131), 1)):
        pixels = np.random.RandomState(seed).randint(0, 256, (3, *size)).astype(np.uint8)
        name = "photo_512.npy" if size[0] == 512 else f"photo_{size[0]}x{size[1]}.npy"
        np.save(folder.inputs / name, pixels)
    with torch.inference_mode():
        run = parity.decode(folder, ["photo_90x131"], DecoderPrompts(), Recording(True), 1)
    path = save(folder, "generic_photo_90x131", run, ["pred_logits", "pred_masks"], Recording(True))
    values = dict(np.load(path))
    values["pred_masks_sub5"] = values.pop("pred_masks")[..., ::5, ::5]
    assert values["pred_masks_sub5"].shape[-2:] == (5, 8)
    np.savez(path, **values)
    check_all(folder, capsys)


def test_an_impossible_candidate_is_no_close_call() -> None:
    report = parity.Report()
    scores = torch.tensor([1.0, -torch.inf, 0.5])
    report.choice("close", 2, 0, scores)
    report.choice("equal", 0, 0, scores)
    assert [c["ok"] for c in report.selected.values()] == [False, True]


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
