"""Every notebook of examples/ runs from top to bottom, as a user would run it."""

from __future__ import annotations

import os
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
NEEDS = {"serve": "seem.serving"}

nbformat = pytest.importorskip("nbformat")


def test_there_is_one_for_each_main_use() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"segment", "everything", "video", "finetune", "batch"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_they_are_valid_clean_and_listed(path: Path) -> None:
    book = nbformat.read(path, 4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    for cell in code:
        compile(cell.source, path.name, "exec")
    assert f"notebooks/{path.name}" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_they_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec(NEEDS.get(path.stem, "seem")) is None:
        pytest.skip(f"needs {NEEDS[path.stem]}")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    shutil.copytree(EXAMPLES / "photos", tmp_path / "photos")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SEEM_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
    book = nbformat.read(path, 4)
    nbclient.NotebookClient(
        book, timeout=600, startup_timeout=300, resources={"metadata": {"path": str(folder)}}
    ).execute()
    assert all(cell.execution_count for cell in book.cells if cell.cell_type == "code")
