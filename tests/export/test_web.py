"""The page's decoder (TypeScript, onnxruntime-web) against onnxruntime and torch, on the same photos and prompts.

web/src/decoder/parity.test.ts runs in Node and answers in a file. Needs `npm ci` in web/; CI has it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seem
from seem import Box, Click, Mask, Polygon, Reference, Scribble, Text
from seem.export import runner
from seem.geometry import rle_decode
from seem.model.visual_sampler import dense_prompt
from seem.predict.model import Model
from seem.predict.obey import obey
from seem.predict.scene import Scene
from seem.predict.tiles import TiledScene, TiledSegmentation

WEB = Path(__file__).parents[2] / "web"
NAMES = ["red square", "disk", "the green disk", "blue"]

if shutil.which("node") is None or not (WEB / "node_modules" / "onnxruntime-web").is_dir():
    pytest.skip("needs Node and npm ci in web/", allow_module_level=True)
pytest.importorskip("onnxruntime")


def photos() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3)).astype(np.uint8) for size in ((90, 160), (131, 47), (40, 40))]


def blob(height: int, width: int) -> Mask:
    y, x = np.mgrid[:height, :width]
    return Mask((x - width / 3) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 3) ** 2)


def rounds_of(scene: Scene, other: Scene) -> list[tuple[list[list[Any]], int | None]]:
    """(prompts of each object, the round that the first object remembers)."""
    w, h = scene.size
    rng = np.random.default_rng(w)
    star = [(w * (0.5 + 0.4 * r * np.cos(a)), h * (0.5 + 0.4 * r * np.sin(a)))
            for r, a in zip(rng.uniform(0.3, 1.3, 12), np.arange(12) / 2, strict=True)]  # fmt: skip
    walk = [tuple(p) for p in (rng.normal(size=(40, 2)).cumsum(0) * 6 + (w / 2, h / 2)).tolist()]
    click, negative = Click(w / 3, h / 2), Click(w - 1, 0, positive=False)
    region = Reference(other, Box(3, 4, 30, 30))
    return [
        ([[click]], None),
        ([[click, negative]], 0),
        ([[negative]], 1),
        ([[Box(-5, 3.25, w * 0.7, h + 9)]], None),
        ([[Scribble(walk), Scribble([(-20, -3), (w + 20, h)], positive=False, width=9)]], None),
        ([[Scribble([(5, 6)]), Scribble([(2, 2), (2, 2)]), Scribble([(1, 1), (30, 30), (1, 30)])]], None),
        ([[Polygon(star)]], None),
        ([[Polygon([(-30, -10), (w * 0.6, h * 0.2), (w * 0.4, h + 50)]), Polygon(star, positive=False), click]], None),
        ([[blob(h, w), negative]], 5),
        ([[Text("red square")]], None),
        ([[Text("red  square"), Text("the green disk"), click]], None),
        ([[region]], None),
        ([[region, Text("disk"), click, Reference(other, Click(20, 20))]], 9),
        ([[click], [Polygon(star), negative], [Text("blue")], [Box(1, 1, 20, 20)]], 3),
    ]


def zoomed_rounds() -> list[list[list[Any]]]:
    """Of each object its rounds, with all prompts so far, on a photo to zoom into."""
    clicks = [Click(300, 200), Click(330, 240), Click(280, 260, positive=False), Click(10, 10, positive=False)]
    return [
        [[Box(250, 150, 390, 300)], [Box(250, 150, 390, 300), clicks[0]]],
        [clicks[:1], clicks[:2], clicks[:3], clicks],
        [[Scribble([(60, 60), (120, 90)], width=9)], [Scribble([(60, 60), (120, 90)], width=9), Text("disk")]],
        [[Polygon([(400, 300), (500, 310), (470, 390)]), clicks[3]]],
        [[Text("red square"), *clicks[:3]]],
    ]


def add_zoomed(job: dict[str, Any], model: Model, folder: Path) -> list[list[seem.Segmentation]]:
    """Adds a photo, its windows and the rounds on it to the job; returns what Python says of each object's rounds."""
    photo = np.random.default_rng(1).integers(0, 255, (12, 16, 3)).astype(np.uint8).repeat(40, 0).repeat(40, 1)
    scene = model.encode_large(photo, zoom=True)

    def play() -> list[list[seem.Segmentation]]:
        answers: list[list[seem.Segmentation]] = []
        for rounds in zoomed_rounds():
            found: list[seem.Segmentation] = []
            for prompts in rounds:
                found.append(scene.segment(*prompts, previous=found[-1] if found else None, vocabulary=NAMES))
            answers.append(found)
        return answers

    play()  # encodes the windows
    scene = TiledScene.from_bytes(scene.to_bytes(), model, photo)
    for n, (window, (kept, _)) in enumerate(scene._scenes.items()):
        (folder / f"window{n}.safetensors").write_bytes(kept.to_bytes())
        whole = window == (0, 0, 640, 480)
        key = scene.digest if whole else f"{scene.digest}@{','.join(map(str, window))}"
        job["scenes" if whole else "windows"][key] = f"window{n}.safetensors"
    for rounds in zoomed_rounds():
        for n, prompts in enumerate(rounds):
            entry: dict[str, Any] = {"id": 0, "prompts": [p.to_json() for p in prompts]}
            if n > 0:
                entry["after"] = len(job["rounds"]) - 1
            job["rounds"].append({"image": scene.digest, "objects": [entry], "zoom": True})
    found = play()
    assert scene.encoded == 0
    return found


@pytest.fixture(scope="module")
def parity(
    exported: tuple[Model, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], list[tuple[seem.Segmentation, dict[str, Any]]]]:
    """What torch and onnxruntime say, and what the page's decoder says, of every object of every round; and of
    the rounds that zoom, what torch and the page say."""
    model, files = exported
    folder = tmp_path_factory.mktemp("parity")
    scenes = [Scene.from_bytes(model.encode(photo).to_bytes(), model) for photo in photos()]
    job: dict[str, Any] = {"scenes": {}, "phrases": {}, "regions": [], "rounds": [], "windows": {}}
    answers: list[dict[str, Any]] = []
    for path in files.iterdir():
        shutil.copy(path, folder)
    text = model.network.encode_text
    for phrase in {"red square", "the green disk", "disk", "blue"}:
        known = text([phrase])
        tokens = known.tokens[0][known.mask[0]]
        job["phrases"][phrase] = {"sentence": known.sentence[0].tolist(), "tokens": tokens.flatten().tolist()}
    names = text(NAMES).sentence
    job["names"] = {"names": NAMES, "embeddings": names.flatten().tolist()}
    sessions = runner.load_graphs(files.iterdir())
    for i, scene in enumerate(scenes):
        (folder / f"{i}.safetensors").write_bytes(scene.to_bytes())
        job["scenes"][scene.digest] = f"{i}.safetensors"
    for scene, other in zip(scenes, scenes[1:] + scenes[:1], strict=True):
        with torch.no_grad():
            prepared = runner.prepare(sessions, scene._features)
        first = len(job["rounds"])
        kept: list[seem.Segmentation] = []
        for prompts, after in rounds_of(scene, other):
            before = [None if after is None else kept[after]] + [None] * (len(prompts) - 1)
            results = scene.segment_all(prompts, previous=before, vocabulary=NAMES)
            kept.append(results[0])
            objects = [scene._check_object(p, b, "") for p, b in zip(prompts, before, strict=True)]
            with torch.no_grad():
                found = runner.decode(sessions, model.network, scene._features, prepared, objects, names)
                references = [p for each in prompts for p in each if isinstance(p, Reference)]
                job["regions"] += [_region(model, scene, p) for p in references]
            entries = [{"id": n, "prompts": [p.to_json() for p in each]} for n, each in enumerate(prompts)]
            if after is not None:
                entries[0]["after"] = first + after
            job["rounds"].append({"image": scene.digest, "objects": entries})
            for n, result in enumerate(results):
                answers.append({"scene": scene, "torch": result, "object": objects[n], "logits": found["logits"][n]})
    zoomed = add_zoomed(job, model, folder)
    (folder / "job.json").write_text(json.dumps(job))
    command = ["npx", "vitest", "run", "src/decoder/parity.test.ts"]
    done = subprocess.run(
        command, cwd=WEB, env=os.environ | {"SEEM_PARITY": str(folder)}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    page = [found for each in json.loads((folder / "out.json").read_text()) for found in each]
    assert len(answers) == 3 * 17
    both = [answer | {"page": found} for answer, found in zip(answers, page[: len(answers)], strict=True)]
    return both, list(zip([r for rounds in zoomed for r in rounds], page[len(answers) :], strict=True))


@pytest.fixture(scope="module")
def answers(parity: tuple[list[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    return parity[0]


def _region(model: Model, scene: Scene, prompt: Reference) -> dict[str, Any]:
    known = model.network.encode_reference(scene._reference(prompt, ""))
    tokens = model.network.visual_sampler.reference_tokens(known.samples, known.kinds)
    return {
        "prompt": prompt.to_json(),
        "tokens": tokens.flatten().tolist(),
        "embedding": known.embedding.tolist(),
    }


def test_prompts_become_the_same_arrays(answers: list[dict[str, Any]], exported: tuple[Model, Path]) -> None:
    sampler = exported[0].network.visual_sampler
    for answer in answers:
        size = answer["scene"]._features.size
        xy, kinds = sampler.points(answer["object"].visual, size)
        assert answer["page"]["kinds"] == kinds.tolist()
        assert np.abs(np.array(answer["page"]["points"]).reshape(-1, 2) - xy.numpy()).max(initial=0) < 1e-4
        drawn = dense_prompt(answer["object"].visual, size)
        assert (drawn is None) == (answer["page"]["drawn"] is None)
        if drawn is not None:
            assert np.array_equal(drawn.ravel(), np.array(answer["page"]["drawn"], np.float32))


def test_masks_agree(answers: list[dict[str, Any]]) -> None:
    """torch = onnxruntime = onnxruntime-web, but for pixels whose logit is next to nothing (DESIGN 8)."""
    left_out = pixels = 0
    for answer in answers:
        result, scene = answer["torch"], answer["scene"]
        large = scene.geometry.upsample(torch.tensor(result.logits)).numpy()
        sure = np.abs(large) > 1e-4 * np.abs(large).max()
        h, w = scene.geometry.mask_size
        logits = obey(torch.tensor(answer["logits"][:h, :w]), scene._features.maps.fine[0], answer["object"])
        native = scene.geometry.upsample(logits).numpy() > 0
        page = rle_decode(answer["page"]["rle"])
        assert np.array_equal(native[sure], result.mask[sure])
        assert np.array_equal(page[sure], result.mask[sure])
        left_out, pixels = left_out + int((~sure).sum()), pixels + sure.size
    print(f"left out {left_out} of {pixels} pixels")
    assert left_out < 1e-3 * pixels


def test_the_rest_agrees(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        result, page = answer["torch"], answer["page"]
        mask = rle_decode(page["rle"])
        assert page["score"] == pytest.approx(result.score, abs=1e-4)
        assert page["label"] == result.label
        assert page["labelScore"] == pytest.approx(result.label_score, abs=1e-4)
        assert page["area"] == int(mask.sum())
        box = seem.geometry.box_of(mask)
        assert page["box"] == (None if box is None else list(box))


def test_zoomed_masks_agree(parity: tuple[Any, list[tuple[seem.Segmentation, dict[str, Any]]]]) -> None:
    """The same windows, memories and choices, to the last pixel but for logits that are next to nothing."""
    sizes = []
    for result, page in parity[1]:
        assert isinstance(result, TiledSegmentation)
        sizes.append(result.window[2] - result.window[0])
        mask = rle_decode(page["rle"])
        assert np.count_nonzero(mask != result.mask) <= 1e-3 * mask.size
        assert page["score"] == pytest.approx(result.score, abs=1e-4)
        assert (page["label"], page["area"]) == (result.label, int(mask.sum()))
        box = seem.geometry.box_of(mask)
        assert page["box"] == (None if box is None else list(box))
    print(sizes)
    assert min(sizes) < 640 == max(sizes)
