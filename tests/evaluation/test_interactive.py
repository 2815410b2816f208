from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from seem import geometry
from seem.evaluation import ablation, interactive
from seem.evaluation.datasets import Target, open_dataset
from seem.evaluation.robot import Robot
from seem.predict.model import Model
from seem.prompts import Box, Click, Mask, Polygon, Prompt, Scribble, check
from tests.conftest import RED_BOX, box_mask, green_mask


@dataclass
class Answer:
    mask: np.ndarray
    score: float = 0.5


@dataclass
class Listener:
    """A scene that answers with given masks and remembers what it was asked."""

    answers: list[np.ndarray]
    calls: list[tuple[tuple[Prompt, ...], Answer | None]] = field(default_factory=list)

    def segment(self, *prompts: Prompt, previous: Answer | None = None) -> Answer:
        self.calls.append((prompts, previous))
        return Answer(self.answers[min(len(self.calls), len(self.answers)) - 1])


def run(answers: list[np.ndarray], target: np.ndarray, ignore: np.ndarray | None = None) -> tuple[dict, Listener]:
    scene, robot = Listener(answers), Robot(target, ignore)
    first = interactive.first_prompt("click", target, robot)
    row = interactive.segment_with_robot(scene, Target("x", target, ignore=ignore), robot, first)  # type: ignore[arg-type]
    return row, scene


def test_every_round_passes_all_prompts_and_the_result_before() -> None:
    red, whole = box_mask(RED_BOX), np.ones((120, 160), bool)
    row, scene = run([whole, ~whole, red], red)
    assert row["iou"] == [round(1600 / 19200, 5), 0.0, 1.0]
    assert len(row["score"]) == len(row["seconds"]) == 3
    prompts, previous = zip(*scene.calls, strict=True)
    assert [len(p) for p in prompts] == [1, 2, 3] and prompts[2][:2] == prompts[1]
    assert [p.positive for p in prompts[2] if isinstance(p, Click)] == [True, False, True]
    assert previous[0] is None and previous[1].mask is whole and not previous[2].mask.any()


def test_twenty_rounds_at_most_and_none_without_anything_to_click() -> None:
    red = box_mask(RED_BOX)
    row, scene = run([~red], red)
    assert len(row["iou"]) == len(scene.calls) == 20
    places = [(p.x, p.y) for p in scene.calls[-1][0] if isinstance(p, Click)]
    assert len(set(places)) == 20
    ignore = ~box_mask(RED_BOX)
    row, _ = run([np.ones_like(red)], red, ignore)  # all that is wrong is ignored
    assert row["iou"] == [1.0]


@pytest.mark.parametrize("kind", interactive.PROMPTS)
@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_first_prompts_fit_the_image_and_the_object(kind: str, jitter: float) -> None:
    size = (160, 120)
    expected = {"click": Click, "box": Box, "scribble": Scribble, "polygon": Polygon, "circle": Polygon, "mask": Mask}
    for target in (box_mask(RED_BOX), green_mask(), box_mask((0, 0, 160, 2)), box_mask((7, 7, 8, 8))):
        prompt = interactive.first_prompt(kind, target, Robot(target, jitter=jitter))
        assert isinstance(prompt, expected[kind])
        check(prompt, size)
        if isinstance(prompt, Scribble):
            assert all(target[int(y), int(x)] for x, y in prompt.points)
        if isinstance(prompt, Polygon) and target.sum() > 1000:
            covered = geometry.rasterise_polygon(np.array(prompt.points), size)
            assert geometry.mask_iou(covered, target) > (0.4 if kind == "circle" else 0.6)
        if isinstance(prompt, Box) and not jitter:
            assert prompt.xyxy == geometry.box_of(target)
        if isinstance(prompt, Mask):
            assert (prompt.array | target == prompt.array).all() and prompt.array.sum() < 2.5 * target.sum() + 4


def test_first_prompt_of_another_kind() -> None:
    with pytest.raises(ValueError, match="prompt: expected one of click"):
        interactive.first_prompt("wish", box_mask(RED_BOX), Robot(box_mask(RED_BOX)))


def test_figures_by_hand() -> None:
    def row(image: str, iou: list[float], score: list[float]) -> dict:
        seconds = [0.1] * len(iou)
        return {"image": image, "key": image, "iou": iou, "score": score, "seconds": seconds, "encode_seconds": 1.0}

    good = row("a", [0.5, 0.86, 0.96], [0.6, 0.8, 0.9])
    never = row("b", [0.4] * 20, [0.5] * 20)
    figures = interactive.figures([good, never])
    assert figures["noc"] == {"80": 11.0, "85": 11.0, "90": 11.5, "95": 11.5}
    assert figures["never"] == {"80": 0.5, "85": 0.5, "90": 0.5, "95": 0.5}
    assert figures["iou_at"]["1"] == pytest.approx(0.45)
    assert figures["iou_at"]["20"] == pytest.approx((0.96 + 0.4) / 2)
    assert figures["seconds_per_click"] == pytest.approx(0.1)
    assert figures["calibration"]["n"] == 5
    assert figures["calibration"]["at"]["1"] == pytest.approx(0.1)
    assert interactive.figures([]) == {}


def test_on_a_folder_with_the_fake_model(model: Model, folder: Path) -> None:
    rows = list(interactive.evaluate(model, open_dataset(folder)))
    assert [r["key"] for r in rows] == ["a", "b"]
    assert all(max(r["iou"]) > 0.8 for r in rows)
    shaky = list(interactive.evaluate(model, open_dataset(folder), jitter=0.5))
    assert [r["iou"] for r in shaky] == [r["iou"] for r in rows]  # the steady hand stands beside, unchanged
    assert any(r["jittered"]["iou"] != r["iou"] for r in shaky)
    (alone,) = interactive.evaluate(model, open_dataset(folder, only=["b"]), jitter=0.5)
    assert shaky[1]["jittered"]["iou"] == alone["jittered"]["iou"]  # a subset gives the same rows
    figures = interactive.figures(shaky)
    assert figures["jittered"]["iou_at"]["1"] == pytest.approx(np.mean([r["jittered"]["iou"][0] for r in shaky]))


def test_crowds_and_small_objects_are_left_out(model: Model, coco: Path) -> None:
    dataset = open_dataset(coco)
    assert [r["key"] for r in interactive.evaluate(model, dataset)] == ["2#20", "2#21", "2#22"]
    assert [r["key"] for r in interactive.evaluate(model, dataset, min_area=0.05)] == ["2#20", "2#21"]


def test_the_official_robot_is_content_earlier(model: Model, folder: Path) -> None:
    rows = list(interactive.evaluate(model, open_dataset(folder), robot="seem"))
    assert {r["robot"] for r in rows} == {"seem"}
    figures = interactive.figures(rows)
    assert set(figures["noc"]) == set(figures["never"]) == {"80", "85", "90"}  # it stops before 95
    for row in rows:
        assert len(row["iou"]) <= 20 and all(iou < 0.925 for iou in row["iou"][:-1])
    for wrong, says in (
        ({"robot": "r2d2"}, "robot: expected standard or seem"),
        ({"robot": "seem", "jitter": 1}, "jitter"),
    ):
        with pytest.raises(ValueError, match=says):
            next(interactive.evaluate(model, open_dataset(folder), **wrong))


# ---- ablations ----------------------------------------------------------------------------------------------------


def test_without_memory_no_result_is_passed_on() -> None:
    red = box_mask(RED_BOX)
    scene, robot = Listener([~red]), Robot(red)
    interactive.segment_with_robot(scene, Target("x", red), robot, Click(30, 40), memory=False)  # type: ignore[arg-type]
    assert len(scene.calls) == 20 and all(previous is None for _, previous in scene.calls)


@pytest.mark.parametrize("part", ablation.PARTS)
def test_ablation_measures_with_and_without_on_the_same_objects(part: str, model: Model, folder: Path) -> None:
    rows = list(ablation.evaluate(model, open_dataset(folder), part=part))
    plain = list(interactive.evaluate(model, open_dataset(folder)))
    assert [r["with"]["iou"] for r in rows] == [r["iou"] for r in plain]
    assert [r["without"]["iou"][0] for r in rows] == [r["iou"][0] for r in plain]  # the first round has neither
    with pytest.raises(ValueError, match="part: expected memory or negatives"):
        next(ablation.evaluate(model, open_dataset(folder), part="colour"))


def test_ablation_figures_by_hand() -> None:
    def row(image: str, good: list[float], bad: list[float]) -> dict:
        sides = {way: {"iou": iou, "seconds": [0.1] * len(iou)} for way, iou in (("with", good), ("without", bad))}
        return {"image": image, "key": image, **sides}

    figures = ablation.figures([row("a", [0.5, 0.96], [0.5, 0.7, 0.96]), row("b", [0.96], [0.96])])
    assert figures["gain"]["noc"]["90"]["mean"] == pytest.approx(-0.5)
    assert figures["gain"]["iou_at"]["2"]["mean"] == pytest.approx(0.13)
    assert figures["gain"]["iou_at"]["3"] == dict.fromkeys(("mean", "low", "high"), 0.0)
    assert figures["with"]["noc"]["90"] == 1.5 and figures["without"]["noc"]["90"] == 2.0
