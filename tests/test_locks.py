"""One writer at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seem import locks
from seem.locks import BusyError, exclusive


def test_the_second_is_refused_and_the_next_is_not(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with exclusive(path):
        with pytest.raises(BusyError, match="held by another run"), exclusive(path):
            pass
        assert path.exists()
    assert not path.exists()
    with exclusive(path):
        assert path.exists()


def test_it_is_free_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyError), exclusive(tmp_path / ".lock"):
        raise KeyError
    with exclusive(tmp_path / ".lock"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="there an open file cannot be removed")
@pytest.mark.parametrize("another", [True, False])
def test_a_file_that_its_holder_has_removed_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    """Whoever opened it before that would hold what nobody else looks at."""
    path, lock, calls = tmp_path / ".lock", locks._lock, []

    def removed_just_before(file: object) -> None:
        calls.append(file)
        if len(calls) == 1:
            path.unlink()
            if another:
                path.touch()
        lock(file)  # type: ignore[arg-type]

    monkeypatch.setattr(locks, "_lock", removed_just_before)
    with exclusive(path):
        monkeypatch.undo()
        with pytest.raises(BusyError), exclusive(path):
            pass
    assert len(calls) == 2
