"""Which photos are meant, prompts of each photo from files, and the cache of scenes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seem import geometry
from seem.batch import listing
from seem.batch.cache import SceneCache, parse_bytes
from seem.batch.listing import list_photos, read_photo
from seem.batch.prompt_files import match_photos, read_prompts
from seem.images import ImageError

DIGEST, WEIGHTS = "sha256:" + "a" * 64, "sha256:" + "b" * 64


# ---- photos -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a/2.jpg", "a/1.PNG", "a/deep/3.webp", "a/.hidden.jpg", "a/notes.md", "b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a"], ["a/1.PNG", "a/2.jpg", "a/deep/3.webp"]),
        (["b.jpg", "a/2.jpg", "b.jpg"], ["b.jpg", "a/2.jpg"]),
        (["a/*.jpg"], ["a/2.jpg"]),
        (["**/*.webp"], ["a/deep/3.webp"]),
        (["@list"], ["b.jpg", "a/deep/3.webp", "gone.jpg"]),
    ],
)
def test_photos_in_order_and_once(tree: Path, given: list[str], expected: list[str]) -> None:
    (tree / "list").write_text("b.jpg\n\n# comment\na/deep\nb.jpg\ngone.jpg\n")
    assert list_photos(given) == expected


def test_the_folder_of_results_is_left_out(tree: Path) -> None:
    assert list_photos(["."], exclude=tree / "a") == ["b.jpg"]


@pytest.mark.parametrize(("given", "message"), [("gone", "no such file"), ("a/*.gif", "no photo"), ("@no", "no:")])
def test_what_is_not_there_is_told(tree: Path, given: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list_photos([given])


def test_object_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for name in ("/bucket/x/1.jpg", "/bucket/x/y/2.png", "/bucket/x/readme.txt"):
        store.pipe_file(name, name.encode())
    assert list_photos(["memory://bucket/x"]) == ["memory:///bucket/x/1.jpg", "memory:///bucket/x/y/2.png"]
    assert list_photos(["memory://bucket/x/*.jpg"]) == ["memory:///bucket/x/1.jpg"]
    assert read_photo("memory:///bucket/x/1.jpg") == b"/bucket/x/1.jpg"
    with pytest.raises(ImageError, match="no such file"):
        read_photo("memory://bucket/x/9.jpg")
    tries: list[int] = []

    def flaky(path: str) -> bytes:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("connection reset")
        return b"data"

    monkeypatch.setattr(listing, "PAUSE", 0.0)
    monkeypatch.setattr(type(store), "cat_file", lambda self, path: flaky(path))
    assert read_photo("memory://bucket/x/1.jpg") == b"data"
    monkeypatch.setattr(type(store), "cat_file", lambda self, path: flaky.__call__(tries.clear() or path))
    with pytest.raises(ImageError, match="cannot be read: connection reset"):
        read_photo("memory://bucket/x/1.jpg")


# ---- prompts ------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_jsonl(tmp_path: Path) -> None:
    click = {"type": "click", "x": 1, "y": 2}
    lines = [{"image": "a.jpg", "objects": [{"id": 3, "prompts": [click]}]}, {"image": "b.jpg", "prompts": [click]}]
    found = read_prompts(write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n"))
    assert found == {"a.jpg": [{"id": 3, "prompts": [click]}], "b.jpg": [{"id": 1, "prompts": [click]}]}


def test_csv(tmp_path: Path) -> None:
    rows = "image,object,text,x,y,positive,x0,y0,x1,y1\n"
    rows += "a.jpg,1,,3,4,,,,,\na.jpg,1,,5,6,0,,,,\na.jpg,2,,,,,1,2,3,4\nb.jpg,,red car\n"
    assert read_prompts(write(tmp_path / "p.csv", rows)) == {
        "a.jpg": [
            {"id": 1, "prompts": [{"type": "click", "x": 3.0, "y": 4.0, "positive": True},
                                  {"type": "click", "x": 5.0, "y": 6.0, "positive": False}]},
            {"id": 2, "prompts": [{"type": "box", "xyxy": [1.0, 2.0, 3.0, 4.0]}]},
        ],
        "b.jpg": [{"id": 1, "prompts": [{"type": "text", "text": "red car"}]}],
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["box", "mask", "click", "name"])
def test_coco(tmp_path: Path, kind: str) -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:8, 5:15] = True
    annotation = {"image_id": 7, "category_id": 1, "bbox": [5, 4, 10, 4], "segmentation": geometry.rle_encode(mask)}
    document = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 30, "height": 20}],
        "annotations": [{"id": 11, **annotation}, {"id": 12, **annotation}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    objects = read_prompts(write(tmp_path / "c.json", json.dumps(document)), kind)["a.jpg"]
    expected: dict[str, dict[str, Any]] = {
        "box": {"type": "box", "xyxy": [5, 4, 15, 8]},
        "mask": {"type": "mask", "rle": geometry.rle_encode(mask)},
        "click": {"type": "click", "x": 10.0, "y": 6.0},
        "name": {"type": "text", "text": "dog"},
    }
    assert objects[0] == {"id": 11, "prompts": [expected[kind]]}
    assert len(objects) == (1 if kind == "name" else 2)  # a name is looked for once


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.xml", "", "ends in .jsonl, .csv, .json"),
        ("p.jsonl", "", "at least one photo"),
        ("p.jsonl", '{"image": "a"}', "line 1: expected"),
        ("p.jsonl", '{"image": "a", "prompts": []}', "line 1: object 1: expected at least one prompt"),
        ("p.jsonl", '{"image": "a", "prompts": [{"type": "dot"}]}', "line 1: prompt.type"),
        ("p.jsonl", '{"image": "a", "prompts": [{"type": "text", "text": "a"}]}\n' * 2, "line 2: a: expected every"),
        ("p.jsonl", "{", "line 1"),
        ("p.csv", "photo,x,y\na,1,2\n", "expected a first line with image"),
        ("p.csv", "image,x,y\na,1,\n", "line 2: expected an image, and text"),
        ("p.csv", "image,x,y\na,1,nan\n", "line 2: Click.y: expected a finite"),
        ("p.json", "[]", "expected COCO's images and annotations"),
        ("p.json", '{"images": [], "annotations": [{"image_id": 1}]}', "annotation number 0: expected the field 1"),
    ],
)
def test_bad_prompt_files_name_the_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_prompts(write(tmp_path / name, text))


def test_names_are_matched_to_photos() -> None:
    photos = ["set/a/1.jpg", "set/b/1.jpg", "s3://bucket/c/2.jpg"]
    found, missing = match_photos(photos, {"a/1.jpg": [], "2.jpg": [], "set/b/1.jpg": [], "9.jpg": []})
    assert (set(found), missing) == (set(photos), ["9.jpg"])
    with pytest.raises(ValueError, match="expected one photo of that name"):
        match_photos(photos, {"1.jpg": []})
    with pytest.raises(ValueError, match="a second one"):
        match_photos(photos, {"a/1.jpg": [], "set/a/1.jpg": []})


# ---- the cache ----------------------------------------------------------------------------------------------------


def test_the_least_recently_used_scenes_go(tmp_path: Path) -> None:
    cache = SceneCache(tmp_path, budget=1000)
    names = [f"sha256:{i:064x}" for i in range(4)]
    for age, name in zip((40, 30, 20), names, strict=False):
        cache.put(name, WEIGHTS, b"x" * 300)
        path = cache._path(name, WEIGHTS)
        os.utime(path, (time.time() - age, time.time() - age))
    assert cache.get(names[0], WEIGHTS) == b"x" * 300  # used now
    cache.put(names[3], WEIGHTS, b"x" * 300)
    assert [cache.get(n, WEIGHTS) is not None for n in names] == [True, False, True, True]
    assert (cache.hits, cache.misses) == (4, 1)
    cache.put(DIGEST, WEIGHTS, b"x" * 2000)  # larger than the budget: not kept
    assert cache.get(DIGEST, WEIGHTS) is None


def test_other_weights_are_another_scene_and_the_budget_holds_for_all(tmp_path: Path) -> None:
    cache, other = SceneCache(tmp_path, budget=10_000), "sha256:" + "c" * 64
    cache.put(DIGEST, WEIGHTS, b"one")
    assert cache.get(DIGEST, other) is None
    for i in range(40):
        SceneCache(tmp_path, budget=10_000).put(f"sha256:{i:064x}", other, b"x" * 1000)  # as many processes would
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= 10_000
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(("text", "size"), [("5", 5), ("2 kb", 2000), ("1.5GB", 1_500_000_000), ("3T", 3 * 10**12)])
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1EB", "much"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_bytes(text)
