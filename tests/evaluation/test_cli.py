from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from seem.evaluation import cli, interactive
from seem.evaluation.compare import compare
from seem.evaluation.datasets import DatasetError
from seem.evaluation.results import FIGURES, Results
from seem.predict.model import Model

runner = CliRunner()


@pytest.fixture
def fake(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load_model", lambda name, device: model)


@pytest.mark.parametrize("task", FIGURES)
def test_every_task_prints_one_json_document(task: str, fake: None, folder: Path, coco: Path, tmp_path: Path) -> None:
    document = json.loads((coco / "instances.json").read_text())
    for annotation in document["annotations"]:  # every photo with two reds, and one blue that is alone in it
        annotation["iscrowd"] = 0
    extra = [
        {**document["annotations"][3], "id": 50, "category_id": 1},
        {**document["annotations"][3], "id": 51, "category_id": 2, "image_id": 1},
    ]
    document["annotations"] += extra
    (coco / "instances.json").write_text(json.dumps(document))
    data = [str(folder)] if task == "interactive" else [str(coco), "--split", "all"]
    out = tmp_path / "out.json"
    done = runner.invoke(cli.eval_app, [task, *data, "--json", "--out", str(out)])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["task"] == task and summary["model"] == "seem-tiny" and summary["n"] >= 1
    assert {"dataset", "command", "commit"} <= set(summary)
    saved = json.loads(out.read_text())
    assert all(saved[key] == value for key, value in summary.items())
    assert Results.load(out).summary() == summary
    done = runner.invoke(cli.eval_app, ["compare", str(out), str(out), "--json", "--resamples", "20"])
    assert done.exit_code == 0, done.output
    compared = json.loads(done.stdout)
    assert compared["n"] == len(saved["rows"]) and compared["differs"] == []
    assert all(f["difference"] == f["low"] == f["high"] == 0 for f in compared["figures"].values())
    assert list(tmp_path.glob(".*")) == []


def test_interactive_json_has_the_agreed_fields(fake: None, folder: Path) -> None:
    options = ["--prompt", "box", "--jitter", "--limit", "1"]
    summary = json.loads(runner.invoke(cli.eval_app, ["interactive", str(folder), *options, "--json"]).stdout)
    assert (summary["n"], summary["dataset"], summary["prompt"], summary["robot"]) == (1, "shapes", "box", "standard")
    assert summary["jitter"] == 0.05 and summary["limit"] == 1
    assert set(summary["noc"]) == set(summary["never"]) == {"80", "85", "90", "95"}
    assert list(summary["iou_at"]) == [str(k) for k in range(1, 21)]
    assert summary["seconds_per_click"] > 0


def test_a_table_without_json(fake: None, folder: Path) -> None:
    done = runner.invoke(cli.eval_app, ["interactive", str(folder)])
    assert done.exit_code == 0 and "noc 90" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["interactive", "DATA", "--prompt", "wish"], "--prompt: expected one of"),
        (["interactive", "nowhere"], "nowhere: no such file or folder"),
        (["interactive", "DATA", "--out", "no/where.json"], "--out: no folder"),
        (["text", "DATA"], "expected a data set with class names"),
        (["interactive", "DATA", "--min-area", "2"], "nothing in 2 photos"),
        (["compare", "DATA/images/a.png", "DATA/images/a.png"], "not a results file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(fake: None, folder: Path, arguments: list[str], says: str) -> None:
    done = runner.invoke(cli.eval_app, [a.replace("DATA", str(folder)) for a in arguments])
    assert done.exit_code == 2 and done.stdout == ""
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("task", [*FIGURES, "compare"])
def test_help_has_an_example(task: str) -> None:
    done = runner.invoke(cli.eval_app, [task, "--help"])
    assert done.exit_code == 0 and f"seem eval {task}" in done.stdout


# ---- compare ------------------------------------------------------------------------------------------------------


def results(shift: float, photos: int = 30, **settings: object) -> Results:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(photos):
        iou = np.clip(np.sort(rng.random(20)) + shift, 0, 1).tolist()
        row = {"image": str(i // 2), "key": str(i), "iou": iou, "score": iou, "seconds": [0.1] * 20}
        rows.append({**row, "encode_seconds": 1.0})
    return Results("interactive", "m", "d", {"jitter": 0.0, **settings}, rows)


def test_compare_finds_a_difference_and_its_interval() -> None:
    report = compare(results(0.0), results(0.05, jitter=0.05), resamples=200)
    iou = report["figures"]["iou_at.1"]
    assert iou["difference"] == pytest.approx(0.05, abs=1e-3)
    assert 0.04 < iou["low"] <= iou["difference"] <= iou["high"] < 0.06  # paired: the spread of the rows cancels
    assert report["figures"]["noc.90"]["difference"] < 0
    assert (report["n"], report["photos"], report["differs"]) == (30, 15, ["jitter"])
    assert report == compare(results(0.0), results(0.05, jitter=0.05), resamples=200)


def test_compare_takes_the_rows_in_common() -> None:
    report = compare(results(0.0), results(0.0, photos=20), resamples=20)
    assert (report["n"], report["unpaired"]) == (20, 10)
    other = Results("interactive", "m", "d", {}, [{**results(0).rows[0], "key": "other"}])
    with pytest.raises(DatasetError, match="rows in common"):
        compare(results(0.0), other)
    with pytest.raises(DatasetError, match="results of one dataset, got 'd' and 'e'"):
        compare(results(0.0), Results("interactive", "m", "e", {}, results(0.0).rows))


def test_results_refuse_other_files(tmp_path: Path) -> None:
    for text in ("[]", "{}", '{"version": 1, "task": "x"}', '{"version": 1, "task": "text", "rows": [1]}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DatasetError, match=r"x\.json: "):
            Results.load(tmp_path / "x.json")


def test_results_never_write_nan(tmp_path: Path) -> None:
    broken = Results("label", "m", "d", {"x": float("nan")}, [])
    assert broken.summary()["x"] is None
    broken.save(tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["top1"] is None


def test_figures_of_no_rows() -> None:
    for figures in FIGURES.values():
        figures([])
    assert interactive.figures([]) == {}
