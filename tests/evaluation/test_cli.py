from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from seem.evaluation import cli, interactive, pictures, report, speed
from seem.evaluation.compare import compare
from seem.evaluation.datasets import DatasetError
from seem.evaluation.results import FIGURES, Results
from seem.predict.model import Model

runner = CliRunner()


@pytest.fixture
def fake(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load_model", lambda name, device: model)
    monkeypatch.setattr(speed, "cold_start", lambda *_: {"import_ms": 1.0, "first_result_ms": 9.0, "peak_bytes": None})


@pytest.fixture
def arguments(folder: Path, coco: Path, davis: Path, sentences: Path, tmp_path: Path) -> dict[str, list[str]]:
    """What each task is called with."""
    document = json.loads((coco / "instances.json").read_text())
    for annotation in document["annotations"]:  # every photo with two reds, and one blue that is alone in it
        annotation["iscrowd"] = 0
    extra = [
        {**document["annotations"][3], "id": 50, "category_id": 1},
        {**document["annotations"][3], "id": 51, "category_id": 2, "image_id": 1},
    ]
    document["annotations"] += extra
    (coco / "instances.json").write_text(json.dumps(document))
    special = {
        "interactive": [str(folder), "--jitter"],
        "ablation": ["memory", str(folder)],
        "referring": [str(sentences)],
        "video": [str(davis), "--predictions", str(davis / "Annotations/480p")],
        "speed": [str(folder / "images/a.png"), "--rounds", "1"],
    }
    return {task: [task, *special.get(task, [str(coco), "--split", "all"])] for task in FIGURES}


@pytest.mark.parametrize("task", FIGURES)
def test_every_task_prints_one_document_and_a_report(
    task: str, fake: None, arguments: dict[str, list[str]], tmp_path: Path
) -> None:
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    done = runner.invoke(cli.eval_app, [*arguments[task], "--json", "--out", str(out), "--html", str(page)])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["task"] == task and summary["n"] >= 1
    assert summary["model"] == (arguments["video"][-1] if task == "video" else "seem-tiny")
    assert {"dataset", "command", "commit"} <= set(summary)
    saved = json.loads(out.read_text())
    assert all(saved[key] == value for key, value in summary.items())
    assert Results.load(out).summary() == summary
    check_page(page, pictures=task != "speed")
    compare_options = ["--json", "--resamples", "20", "--html", str(page)]
    done = runner.invoke(cli.eval_app, ["compare", str(out), str(out), *compare_options])
    assert done.exit_code == 0, done.output
    compared = json.loads(done.stdout)
    assert compared["n"] == len(saved["rows"]) and compared["differs"] == []
    assert all(f["difference"] == f["low"] == f["high"] == 0 for f in compared["figures"].values())
    check_page(page, pictures=False)
    assert list(tmp_path.glob(".*")) == []


class _Page(HTMLParser):
    """Remembers tags and attributes, and that every one opened was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


def check_page(path: Path, *, pictures: bool) -> None:
    text = path.read_text()
    page = _Page()
    page.feed(text)
    assert "script" not in page.tags and "link" not in page.tags  # opens without a network
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert "prefers-color-scheme:dark" in text and "url(" not in text
    assert bool(page.links) == pictures
    assert {"h1", "table"} <= set(page.tags)


def test_a_report_escapes_what_it_quotes(tmp_path: Path) -> None:
    evil = Results("label", "<script>", "d", {"only": "<b>"}, [label_row(0.9)], "seem '<i>'")
    report.write(tmp_path / "x.html", evil, {})
    text = (tmp_path / "x.html").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text and "&lt;i&gt;" in text


def label_row(probability: float, said: str = "cat") -> dict:
    found = {"names": [said], "probability": probability}
    return {"image": "a", "key": f"{probability}", "name": "cat", "area": 0.1, **found}


def test_best_median_and_worst_are_different_rows() -> None:
    rows = [label_row(k / 100) for k in range(1, 12)] + [label_row(0.5, "dog")]
    chosen = pictures.choose("label", rows)
    found = {name: [(r["names"][0], r["probability"]) for r in each] for name, each in chosen.items()}
    assert found["worst"] == [("dog", 0.5), ("cat", 0.01), ("cat", 0.02)]
    assert found["best"] == [("cat", 0.11), ("cat", 0.1), ("cat", 0.09)]
    assert found["median"] == [("cat", 0.04), ("cat", 0.05), ("cat", 0.06)]
    assert [len(each) for each in pictures.choose("label", rows[:2]).values()] == [1, 0, 1]
    assert pictures.choose("speed", [{"image": "a", "key": "a"}]) == {}


def test_interactive_json_has_the_agreed_fields(fake: None, folder: Path) -> None:
    options = ["--prompt", "box", "--jitter", "--limit", "1"]
    summary = json.loads(runner.invoke(cli.eval_app, ["interactive", str(folder), *options, "--json"]).stdout)
    assert (summary["n"], summary["dataset"], summary["prompt"], summary["robot"]) == (1, "shapes", "box", "standard")
    assert summary["jitter"] == 0.05 and summary["limit"] == 1
    assert set(summary["jittered"]) == {"noc", "iou_at", "never", "seconds_per_click"}
    assert set(summary["noc"]) == set(summary["never"]) == {"80", "85", "90", "95"}
    assert list(summary["iou_at"]) == [str(k) for k in range(1, 21)]
    assert summary["seconds_per_click"] > 0


def test_zoom_is_told_and_measured(fake: None, folder: Path) -> None:
    command = ["interactive", str(folder), "--prompt", "box", "--limit", "1", "--json"]
    plain, zoomed = (json.loads(runner.invoke(cli.eval_app, [*command, *more]).stdout) for more in ((), ("--zoom",)))
    assert zoomed["zoom"] is True and "zoom" not in plain
    assert zoomed["iou_at"]["1"] > 0.5 and zoomed["iou_at"] != plain["iou_at"]


def test_a_table_without_json(fake: None, folder: Path) -> None:
    done = runner.invoke(cli.eval_app, ["interactive", str(folder)])
    assert done.exit_code == 0 and "noc 90" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["interactive", "DATA", "--prompt", "wish"], "--prompt: expected one of"),
        (["interactive", "DATA", "--robot", "r2d2"], "--robot: expected one of standard, seem"),
        (["interactive", "DATA", "--robot", "seem", "--jitter"], "--jitter: expected the standard robot"),
        (["interactive", "DATA", "--split", "test"], "expected a list test.txt"),
        (["interactive", "DATA", "--html", "no/where.html"], "--html: no folder"),
        (["ablation", "colour", "DATA"], "PART: expected one of memory, negatives"),
        (["video", "DATA"], "expected a folder of frames per video"),
        (["referring", "DATA"], "expected one refs(….).p or one JSON list"),
        (["speed", "DATA/masks/none.png"], "none.png"),
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


def test_speed_figures_are_medians_of_what_was_measured(fake: None, folder: Path) -> None:
    photos = [str(folder / f"images/{name}.png") for name in "ab"]
    done = runner.invoke(cli.eval_app, ["speed", *photos, "--rounds", "1", "--json"])
    summary = json.loads(done.stdout)
    assert summary["n"] == 3 and summary["first_result_ms"] == 9.0 and summary["peak_bytes"] is None
    assert summary["encode_ms"] > 0 and summary["click_ms"] > 0 and summary["next_click_ms"] > 0


@pytest.mark.slow
def test_cold_start_of_the_shipped_model(folder: Path) -> None:
    found = speed.cold_start("seem-tiny", "cpu", folder / "images/a.png")
    assert 0 < found["import_ms"] < found["first_result_ms"] and found["peak_bytes"] > 1e7
    with pytest.raises(RuntimeError, match=r"cold start: .*none\.png"):
        speed.cold_start("seem-tiny", "cpu", folder / "none.png")
