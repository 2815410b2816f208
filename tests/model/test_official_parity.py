"""Our network against a small part of the tensors recorded from the official code, full size, seeded weights."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.parity import Folder, check_file

FIXTURES = Path(__file__).parents[1] / "fixtures" / "official"
FILES = sorted(p.relative_to(FIXTURES) for p in FIXTURES.glob("focalt*/*.npz"))


@pytest.fixture(scope="module")
def folders() -> dict[str, Folder]:
    """The three semantics over the same weights, made once."""
    found = {p.name: Folder(p, None, None) for p in sorted(FIXTURES.glob("focalt*"))}
    first = found["focalt_unicl_lang_v1"]
    for other in found.values():
        other.share(first)
    return found


@pytest.mark.parametrize("file", FILES, ids=str)
def test_recorded_tensors(file: Path, folders: dict[str, Folder]) -> None:
    line: dict[str, Any] = check_file(folders[file.parent.name], FIXTURES / file)
    wrong = {
        key: value
        for part in ("outputs", "selected", "masks")
        for key, value in line.get(part, {}).items()
        if not value["ok"]
    }
    assert line["status"] == "pass", (wrong, line)
    assert not line["unchecked"]


def test_unknown_kind_is_skipped_not_passed(folders: dict[str, Folder], tmp_path: Path) -> None:
    line = check_file(folders["focalt_unicl_lang_v1"], tmp_path / "poetry.npz")
    assert line["status"] == "skipped"
