"""One writer at a time, also among processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class BusyError(ValueError):
    """Somebody else is writing there."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; it is gone afterwards, and free when the process ends, however it ends.

    Raises:
        BusyError: somebody holds it.
    """
    with _locked(path):
        try:
            yield
        finally:
            if os.name != "nt":  # before the lock is free, so that nobody takes a file that is about to go
                path.unlink(missing_ok=True)
    if os.name == "nt":  # there an open file cannot be removed
        path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[bytes]:
    """The open file at a path, locked by us."""
    while True:
        file = path.open("ab")
        try:
            _lock(file)
            if os.name == "nt" or os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass  # its last holder removed it between our opening and locking it: lock the next one
        except OSError:
            file.close()
            raise BusyError(f"{path}: held by another run") from None
        file.close()


def _lock(file: IO[bytes]) -> None:
    """Raises OSError if somebody holds it."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
