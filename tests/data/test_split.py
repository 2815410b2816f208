"""Parts of one's own data."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from seem.data.leaks import find_leaks, photos_of
from seem.data.records import RecordError
from seem.data.split import split
from tests.data.toy import photo


def records(folder: Path, *names: str) -> list[dict[str, Any]]:
    """A photo for each entry, with objects named by its letters."""
    return [
        {"id": f"toy/{i}", "image": str(photo(folder / f"{i}.png", i)), "objects": [{"name": n} for n in found]}
        for i, found in enumerate(names)
    ]


def test_shares_of_every_name(tmp_path: Path) -> None:
    given = records(tmp_path, *["a"] * 30, *["b"] * 10, *["ab"] * 10, "c", *[""] * 10)
    learned, held = split(given, 0.2)
    assert sorted(r["id"] for r in [*learned, *held]) == sorted(r["id"] for r in given)
    assert len(held) in (11, 12, 13)
    counts = Counter(o["name"] for r in held for o in r["objects"])
    assert counts["a"] in (7, 8, 9) and counts["b"] in (3, 4, 5) and counts["c"] == 0
    assert sum(not r["objects"] for r in held) == 2
    assert [r["id"] for r in learned] == [r["id"] for r in given if r in learned]  # the order stays


def test_it_is_the_same_again_and_another_with_another_seed(tmp_path: Path) -> None:
    given = records(tmp_path, *["a"] * 20)
    ids = {seed: {r["id"] for r in split(given, 0.2, seed)[1]} for seed in (0, 1)}
    assert ids[0] == {r["id"] for r in split(given[::-1])[1]}
    assert ids[0] != ids[1] and len(ids[0]) == len(ids[1]) == 4


def test_copies_stay_together(tmp_path: Path) -> None:
    given = records(tmp_path, *["a"] * 10)
    for r in list(given):
        for copy in range(2):
            path = Path(r["image"]).with_name(f"copy{copy}-{Path(r['image']).name}")
            given.append(r | {"id": f"{r['id']}-{copy}", "image": shutil.copy(r["image"], path)})
    learned, held = split(given)
    assert (len(learned), len(held)) == (24, 6)
    assert {Path(r["image"]).read_bytes() for r in learned}.isdisjoint(Path(r["image"]).read_bytes() for r in held)
    assert find_leaks(photos_of(learned), photos_of(held)) == []


def test_few_photos_of_many_names(tmp_path: Path) -> None:
    learned, held = split(records(tmp_path, "a", "b", "c"))
    assert (len(learned), len(held)) == (2, 1)
    learned, held = split(records(tmp_path, "a", "b"), 0.9)
    assert (len(learned), len(held)) == (1, 1)


def test_refused(tmp_path: Path) -> None:
    given = records(tmp_path, "a")
    with pytest.raises(RecordError, match="at least 2 different photos to split, got 1"):
        split([*given, *given])
    with pytest.raises(ValueError, match="share: expected more than 0 and less than 1, got 1"):
        split(given, 1)
    with pytest.raises(RecordError, match=r"record x: .*no\.png cannot be read"):
        split([{"id": "x", "image": str(tmp_path / "no.png"), "objects": []}])
