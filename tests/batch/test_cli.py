"""`seem batch`: what it writes, going on after a cut, and what it says to bad input."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seem import geometry
from seem.batch import store
from seem.batch.store import Store
from seem.geometry import mask_iou
from tests.batch.conftest import PHOTOS, Run, coco, results
from tests.conftest import RED_BOX, box_mask
from tests.fakes import FakeNetwork


def red(i: int) -> np.ndarray:
    """Where the red square is in photo i."""
    return np.roll(box_mask(RED_BOX), 3 * i, axis=1)


# ---- results ------------------------------------------------------------------------------------------------------


def test_a_phrase_finds_every_instance_as_coco(run: Run, folder: Path) -> None:
    code, out, err = run("photos", "--text", "red", "--text", "zebra", "--out", "out", "--shard-size", "4", "--json")
    assert (code, err) == (0, "")
    about = json.loads(out)
    assert (about["photos"], about["new"], about["errors"]) == (PHOTOS, PHOTOS, 0)
    assert [p.name for p in sorted((folder / "out" / "shards").iterdir())] == [f"00000{i}.json" for i in range(3)]
    found = coco(folder / "out")
    assert [i["id"] for i in found["images"]] == list(range(1, PHOTOS + 1))
    names = {c["id"]: c["name"] for c in found["categories"]}
    reds = [a for a in found["annotations"] if names[a["category_id"]] == "red"]
    assert about["segments"] == len(found["annotations"])
    assert {a["image_id"] for a in reds} == set(range(1, PHOTOS + 1))
    best = {a["image_id"]: a for a in reversed(reds)}
    for i in range(6):  # further on it lies across the middle, where that network cuts what it finds
        assert mask_iou(geometry.rle_decode(best[i + 1]["segmentation"]), red(i)) > 0.85
    assert len({a["id"] for a in found["annotations"]}) == len(found["annotations"])


def test_pycocotools_reads_a_shard(run: Run, folder: Path) -> None:
    tools = pytest.importorskip("pycocotools.coco")
    assert run("photos", "--click", "40,50", "--out", "out")[0] == 0
    index = tools.COCO(str(folder / "out" / "shards" / "000000.json"))
    annotation = index.anns[next(iter(index.anns))]
    assert index.annToMask(annotation).sum() == annotation["area"]
    x, y, w, h = annotation["bbox"]
    assert geometry.box_of(index.annToMask(annotation) > 0) == (x, y, x + w, y + h)


def test_the_same_bits_as_from_a_saved_scene(run: Run, folder: Path, network: FakeNetwork) -> None:
    from seem.predict.model import Model
    from seem.predict.scene import Scene
    from seem.prompts import Click
    from tests.fakes import WEIGHTS

    assert run("photos/00.png", "--click", "40,50", "--out", "out")[0] == 0
    model = Model(network, WEIGHTS)  # type: ignore[arg-type]
    scene = Scene.from_bytes(model.encode("photos/00.png").to_bytes(), model)
    assert coco(folder / "out")["annotations"][0]["segmentation"] == scene.segment(Click(40, 50)).to_rle()


def test_parquet_has_a_row_a_photo(run: Run, folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (folder / "photos" / "05.png").write_bytes(b"no picture")
    assert run("photos", "--text", "red", "--out", "out", "--format", "parquet", "--shard-size", "6")[0] == 0
    rows = parquet.ParquetDataset(folder / "out" / "shards").read().to_pylist()
    assert [row["image_id"] for row in rows] == list(range(1, PHOTOS + 1))
    assert [bool(row["error"]) for row in rows] == [i == 5 for i in range(PHOTOS)]
    first = rows[0]["segments"][0]
    mask = geometry.rle_decode({"size": first["rle_size"], "counts": first["rle_counts"]})
    assert first["label"] == "red"
    assert mask_iou(mask, red(0)) > 0.85


def test_png_masks_hold_the_results_numbers(run: Run, folder: Path) -> None:
    (folder / "prompts.jsonl").write_text(
        json.dumps({"image": "00.png", "objects": [
            {"id": 7, "prompts": [{"type": "click", "x": 40, "y": 50}]},
            {"id": 9, "prompts": [{"type": "click", "x": 110, "y": 40}]},
        ]}) + "\n"
    )  # fmt: skip
    assert run("photos", "--prompts", "prompts.jsonl", "--format", "png", "--out", "out")[0] == 0
    found = coco(folder / "out")
    assert [(a["object_id"], a["value"], a["mask"]) for a in found["annotations"]] == [
        (7, 1, "masks/000000001-00.png"),
        (9, 2, "masks/000000001-00.png"),
    ]
    numbers = np.asarray(Image.open(folder / "out" / "masks" / "000000001-00.png"))
    assert mask_iou(numbers == 1, red(0)) > 0.85
    assert (numbers == 2).any()


def test_panoptic_is_cocos_format(run: Run, folder: Path) -> None:
    assert run("photos", "--panoptic", "--vocabulary", "red,blue,grey:stuff", "--out", "out")[0] == 0
    found = coco(folder / "out")
    assert len(found["annotations"]) == PHOTOS
    first = found["annotations"][0]
    pixels = np.asarray(Image.open(folder / "out" / "panoptic" / first["file_name"]).convert("RGB")).astype(int)
    ids = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
    names = {c["id"]: c["name"] for c in found["categories"]}
    assert set(np.unique(ids)) - {0} == {s["id"] for s in first["segments_info"]}
    for segment in first["segments_info"]:
        assert (ids == segment["id"]).sum() == segment["area"]
    square = next(s for s in first["segments_info"] if names[s["category_id"]] == "red")
    assert mask_iou(ids == square["id"], red(0)) > 0.85


def test_everything(run: Run, folder: Path) -> None:
    assert run("photos/00.png", "--everything", "--points", "8", "--limit", "3", "--out", "out")[0] == 0
    assert 0 < len(coco(folder / "out")["annotations"]) <= 3


def test_a_reference_is_one_region_for_all_photos(run: Run, folder: Path) -> None:
    code = run("photos", "--reference", "photos/00.png", "--reference-box", "25,35,55,65", "--out", "out")[0]
    assert code == 0
    found = coco(folder / "out")["annotations"]
    assert all(mask_iou(geometry.rle_decode(a["segmentation"]), red(i)) > 0.85 for i, a in enumerate(found))


# ---- bad photos ---------------------------------------------------------------------------------------------------


def test_a_bad_photo_is_recorded_and_skipped(run: Run, folder: Path) -> None:
    (folder / "photos" / "03.png").write_bytes(b"no picture")
    (folder / "list.txt").write_text("# a list\nphotos\nphotos/gone.png\n")
    code, out, _ = run("@list.txt", "--click", "40,50", "--out", "out", "--shard-size", "4")
    assert code == 0
    assert "2 photos could not be used" in out
    errors = [json.loads(line) for line in (folder / "out" / "errors.jsonl").read_text().splitlines()]
    assert [e["image"] for e in errors] == ["photos/03.png", "photos/gone.png"]
    assert "expected a JPEG" in errors[0]["error"]
    assert "no such file" in errors[1]["error"]
    assert len(coco(folder / "out")["images"]) == PHOTOS - 1
    assert "(11 of them before)" in run("@list.txt", "--click", "40,50", "--out", "out", "--shard-size", "4")[1]
    assert (folder / "out" / "errors.jsonl").read_text().count("\n") == 2  # not told twice


def test_prompts_that_do_not_fit_a_photo_are_its_error(run: Run, folder: Path) -> None:
    Image.new("RGB", (30, 30)).save(folder / "photos" / "small.png")
    assert run("photos", "--click", "40,50", "--out", "out")[0] == 0
    (error,) = (folder / "out" / "errors.jsonl").read_text().splitlines()
    assert "small.png" in error and "expected 0 <= x < 30" in error


# ---- going on -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of one process")
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_nothing_is_lost_or_doubled(run: Run, folder: Path, seed: int) -> None:
    (folder / "photos" / "03.png").write_bytes(b"no picture")
    command = ["photos", "--click", "40,50", "--format", "png", "--shard-size", "3"]
    assert run(*command, "--out", "whole")[0] == 0
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.batch.killed", str(seed), *command, "--out", "cut"],
        capture_output=True, text=True, check=True, cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
    )  # fmt: skip
    assert int(done.stdout) >= 2, "too quick to be killed in the middle"
    assert results(folder / "cut") == results(folder / "whole")


def test_a_torn_line_is_done_again_and_whole_ones_are_not(run: Run, folder: Path, network: FakeNetwork) -> None:
    command = ("photos", "--click", "40,50", "--shard-size", "4", "--out", "out")
    assert run(*command)[0] == 0
    whole = results(folder / "out")
    path = folder / "out" / "done" / "000001.json"
    rows = [json.dumps({"index": i, "image": f"photos/{i:02d}.png", "error": "from the journal"}) for i in (4, 5)]
    path.unlink()
    (folder / "out" / "shards" / "000001.json").unlink()
    (folder / "out" / "journal" / "000001.jsonl").write_text("\n".join(rows) + '\n{"index": 6, "ima')
    network.calls.clear()
    assert run(*command)[0] == 0
    assert len(network.calls) == 2  # photos 6 and 7
    assert (folder / "out" / "errors.jsonl").read_text().count("from the journal") == 2
    after = results(folder / "out")
    assert {k: v for k, v in after.items() if "000001" not in k and k != "errors.jsonl"} == {
        k: v for k, v in whole.items() if "000001" not in k and k != "errors.jsonl"
    }


def test_new_photos_are_added_to_a_run(run: Run, folder: Path, network: FakeNetwork) -> None:
    command = ("photos", "--click", "40,50", "--shard-size", "4", "--out", "out")
    assert run(*command)[0] == 0
    before = results(folder / "out")
    first = Image.open(folder / "photos" / "00.png")
    first.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "photos" / "0.png")
    network.calls.clear()
    assert run(*command)[0] == 0
    assert len(network.calls) == 1
    after = results(folder / "out")
    assert {k: after[k] for k in before if k.startswith("shards")} == {k: v for k, v in before.items() if "shards" in k}
    assert [i["id"] for i in coco(folder / "out")["images"]] == list(range(1, PHOTOS + 2))


def test_a_run_that_asks_something_else_is_refused(run: Run, folder: Path) -> None:
    assert run("photos", "--text", "red", "--out", "out")[0] == 0
    code, _, err = run("photos", "--text", "blue", "--out", "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "holds a run with objects" in err


def test_two_runs_on_one_folder_are_refused(run: Run, folder: Path) -> None:
    class Writer:
        def write(self, *args: Any) -> None: ...

    with Store(folder / "out", {}, Writer(), 4):
        code, _, err = run("photos", "--text", "red", "--out", "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "another run writes to" in err


def test_a_folder_with_other_files_is_refused(run: Run, folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "diary.txt").write_text("dear diary")
    code, _, err = run("photos", "--text", "red", "--out", "other")
    assert code == 2 and "expected a new or empty folder" in err


@pytest.mark.parametrize("where", ["journal", "shards"])
def test_a_full_disk_is_told_and_the_run_goes_on(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    command = ("photos", "--click", "40,50", "--shard-size", "4", "--out", "out")
    real_append, real_write, calls = store._append, store.write_file, {"journal": 0, "shards": 0}

    def full(name: str) -> None:
        calls[name] += 1
        if name == where and calls[name] == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    def append(file: Any, data: bytes) -> None:
        full("journal")
        real_append(file, data)

    def write(path: Path, data: bytes) -> None:
        if path.parent.name == "shards":
            full("shards")
        real_write(path, data)

    monkeypatch.setattr(store, "_append", append)
    monkeypatch.setattr("seem.batch.formats.write_file", write)
    code, _, err = run(*command)
    assert (code, err.count("\n")) == (1, 1)
    assert "no space left for out" in err and "run it again" in err
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run_again(run, monkeypatch, command) == 0
    assert run_again(run, monkeypatch, (*command[:-1], "fresh")) == 0
    assert results(folder / "out") == results(folder / "fresh")


def run_again(run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> int:
    import seem
    from seem.predict.model import Model
    from tests.fakes import WEIGHTS

    monkeypatch.setattr(seem, "load", lambda name, device="auto": Model(FakeNetwork(), WEIGHTS))  # type: ignore[arg-type]
    return run(*command)[0]


def test_a_short_write_leaves_no_part_of_a_line(tmp_path: Path) -> None:
    class Short:
        def __init__(self, path: Path) -> None:
            self.file, self.name = path.open("ab", buffering=0), str(path)

        def fileno(self) -> int:
            return self.file.fileno()

        def write(self, data: bytes) -> int:
            return self.file.write(data[:3])

    path = tmp_path / "journal"
    path.write_bytes(b"whole\n")
    with pytest.raises(OSError, match="space"):
        store._append(Short(path), b"second\n")  # type: ignore[arg-type]
    assert path.read_bytes() == b"whole\n"


# ---- large images -------------------------------------------------------------------------------------------------


def write_large(path: Path) -> np.ndarray:
    """640 x 480, grey, with a red square of 30 pixels."""
    pixels = np.full((480, 640, 3), 128, np.uint8)
    pixels[300:330, 500:530] = (240, 10, 10)
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    return (pixels[:, :, 0] == 240) & (pixels[:, :, 1] == 10)


def test_large_images_are_looked_at_in_tiles(run: Run, folder: Path, network: FakeNetwork) -> None:
    from seem.predict.model import Model
    from seem.prompts import Click
    from tests.fakes import WEIGHTS

    square = write_large(folder / "large" / "a.png")
    command = ("large", "--click", "515,315", "--json", "--out")
    assert run(*command, "plain")[0] == 0
    assert run(*command, "tiled", "--tiles", "160")[0] == 0
    plain, tiled = (
        geometry.rle_decode(coco(folder / out)["annotations"][0]["segmentation"]) for out in ("plain", "tiled")
    )
    assert mask_iou(tiled, square) > max(0.85, mask_iou(plain, square) + 0.2)
    model = Model(network, WEIGHTS)  # type: ignore[arg-type]
    expected = model.encode_large("large/a.png", 160).segment(Click(515, 315))
    assert np.array_equal(tiled, expected.mask)
    code, _, err = run(*command, "tiled", "--tiles", "320")
    assert (code, err.count("\n")) == (2, 1) and "holds a run with tiles 160, not 320" in err


def test_what_is_boxed_is_zoomed_into(run: Run, folder: Path, network: FakeNetwork) -> None:
    from seem.predict.model import Model
    from seem.prompts import Box
    from tests.fakes import WEIGHTS

    square = write_large(folder / "large" / "a.png")
    command = ("large", "--box", "500,300,530,330", "--json", "--out")
    assert run(*command, "plain")[0] == run(*command, "zoomed", "--zoom")[0] == 0
    plain, zoomed = (
        geometry.rle_decode(coco(folder / out)["annotations"][0]["segmentation"]) for out in ("plain", "zoomed")
    )
    assert mask_iou(zoomed, square) > max(0.85, mask_iou(plain, square) + 0.2)
    scene = Model(network, WEIGHTS).encode_large("large/a.png", zoom=True)  # type: ignore[arg-type]
    assert np.array_equal(zoomed, scene.segment(Box(500, 300, 530, 330)).mask)
    code, _, err = run(*command, "plain", "--zoom")  # another question than the folder holds
    assert (code, err.count("\n")) == (2, 1)


def test_tiles_of_everything_and_panoptic(run: Run, folder: Path) -> None:
    square = write_large(folder / "large" / "a.png")
    assert run("large", "--everything", "--points", "4", "--tiles", "160", "--out", "all")[0] == 0
    masks = [geometry.rle_decode(a["segmentation"]) for a in coco(folder / "all")["annotations"]]
    assert max(mask_iou(mask, square) for mask in masks) > 0.85
    options = ("--panoptic", "--vocabulary", "red,grey:stuff", "--tiles", "160")
    assert run("large", *options, "--out", "map")[0] == 0
    assert coco(folder / "map")["annotations"][0]["segments_info"]


def test_a_worker_of_the_cluster_does_both_parts_of_a_large_image(run: Run, folder: Path) -> None:
    from seem.batch.job import Job
    from seem.batch.ray_engine import Both
    from tests.fakes import WEIGHTS

    write_large(folder / "large" / "a.png")
    assert run("large", "--click", "515,315", "--tiles", "160", "--out", "local")[0] == 0
    objects = [{"id": 1, "prompts": [{"type": "click", "x": 515, "y": 315}]}]
    actor = Both(Job("prompts", "fake", WEIGHTS, objects=objects, tiles=160), str(folder), None)
    batch = {"index": [0, 1], "source": ["large/a.png", "large/none.png"], "objects": ["", ""]}
    rows = [json.loads(text) for made in actor(batch) for text in made["row"]]
    assert rows[0]["segments"][0]["mask_rle"] == coco(folder / "local")["annotations"][0]["segmentation"]
    assert "none.png" in rows[1]["error"]


# ---- the cache ----------------------------------------------------------------------------------------------------


def test_scenes_are_encoded_once_for_all_runs(run: Run, folder: Path, network: FakeNetwork) -> None:
    cache = ("--cache", "1GB", "--cache-dir", "scenes")
    assert run("photos", "--text", "red", "--out", "plain")[0] == 0
    network.encodes = 0
    assert run("photos", "--text", "red", "--out", "first", *cache)[0] == 0
    assert network.encodes == PHOTOS
    code, out, _ = run("photos", "--text", "red", "--out", "second", *cache, "--json")
    assert (code, json.loads(out)["cache_hits"], network.encodes) == (0, PHOTOS, PHOTOS)
    assert results(folder / "plain") == results(folder / "first") == results(folder / "second")
    for path in (folder / "scenes").glob("*/*/*"):
        path.write_bytes(b"broken")
    assert run("photos", "--text", "red", "--out", "third", *cache)[0] == 0
    assert results(folder / "third") == results(folder / "plain")


# ---- bad usage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["photos"], "expected one of"),
        (["photos", "--text", "red", "--panoptic"], "got prompts and --panoptic"),
        (["nothing", "--text", "red"], "nothing: no such file or folder"),
        (["photos/*.gif", "--text", "red"], "no photo matches"),
        (["@nolist", "--text", "red"], "nolist"),
        (["photos", "--text", "red", "--format", "xml"], "--format: expected coco, parquet, png"),
        (["photos", "--text", "red", "--engine", "spark"], "--engine: expected local, ray"),
        (["photos", "--text", "red", "--cache", "much"], "--cache: expected a size"),
        (["photos", "--text", "red", "--cache-dir", "x"], "expected --cache SIZE"),
        (["photos", "--text", "red", "--threshold", "2"], "--threshold: expected 0 to 1"),
        (["photos", "--click", "1,1", "--threshold", "0.2"], "expected them with --text alone"),
        (["photos", "--click", "1,1", "--quick"], "expected them with --text alone"),
        (["photos", "--panoptic", "--quick"], "--quick: expected it with --text only"),
        (["photos", "--everything", "--points", "0"], "--points: expected 1 to 128"),
        (["photos", "--text", "red", "--points", "3"], "--points: expected it with --everything"),
        (["photos", "--prompts", "none.jsonl"], "none.jsonl"),
        (["photos", "--text", ""], "--text"),
        (["photos", "--text", "red", "--tiles", "9"], "--tiles: expected 64 pixels or more, got 9"),
        (
            ["photos", "--text", "red", "--tiles", "256", "--cache", "1GB"],
            "--cache: expected no --tiles or --zoom beside it",
        ),
        (["photos", "--click", "5,5", "--zoom", "--cache", "1GB"], "--cache: expected no --tiles or --zoom beside it"),
        (["memory://nowhere/*.jpg", "--text", "red"], "found none"),
    ],
)
def test_bad_usage_is_one_line(run: Run, folder: Path, args: list[str], expected: str) -> None:
    code, out, err = run(*args, "--out", "out")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert expected in err
    assert not (folder / "out").exists()
