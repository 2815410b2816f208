"""A run's output folder: what is done, what is not, and results that appear whole or not at all.

| file | what it is |
|---|---|
| `job.json` | what is asked; a run that goes on must ask the same |
| `images.jsonl` | every photo with its shard, one a line; a photo's line number is its index |
| `journal/N.jsonl` | results of a shard that is not complete, one photo a line |
| `shards/`, `masks/`, `panoptic/` | results, see `formats` |
| `done/N.json` | shard N is complete: how many photos and results it has, and its errors |
| `errors.jsonl` | photos that could not be used, and why |

A photo's result is one line, written with one call; after a kill the line is there or it is not, and a torn line is cut
off. A shard is written from its journal, under temporary names, then `done/N.json` says so, then the journal goes: a
kill between these steps repeats the step. So no photo is lost and none is there twice.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from seem.batch.job import Row
from seem.locks import BusyError, exclusive

VERSION = 1


@dataclass
class Totals:
    """What a folder holds."""

    photos: int = 0
    segments: int = 0
    errors: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        self.photos += 1
        self.segments += len(row.get("segments", ()))
        self.errors += "error" in row


@dataclass
class _Shard:
    """One shard that is not complete."""

    indices: range
    rows: dict[int, Row] = field(default_factory=dict)
    journal: IO[bytes] | None = None


class Store:
    """An output folder that this process owns. Use as a context manager.

    Args:
        folder: made if it is not there.
        identity: what the run asks, as JSON.
        writer: writes a complete shard; `seem.batch.formats`.
        shard_size: photos of a shard.

    Raises:
        seem.locks.BusyError: another run writes to it.
        ValueError: it holds a run that asks something else, or files that are no run's.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], writer: Any, shard_size: int) -> None:
        self.folder, self.writer = folder, writer
        self.totals = Totals()
        self._identity = {"version": VERSION, **identity}
        self._size = shard_size
        self._sources: list[str] = []
        self._starts: list[int] = []  # first index of each shard
        self._open: dict[int, _Shard] = {}
        self._done: set[int] = set()

    def __enter__(self) -> Store:
        if self.folder.is_dir() and not (self.folder / "job.json").exists():
            strangers = [p.name for p in self.folder.iterdir() if p.name not in (".lock", "job.json")]
            if any(not name.startswith(".") for name in strangers):
                raise ValueError(f"expected a new or empty folder, or one of a run, got {self.folder}")
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as ours:
            self._hold(ours)
            self._check_job()
            for name in ("journal", "done", "shards"):
                (self.folder / name).mkdir(exist_ok=True)
            for leftover in (*self.folder.glob(".*.tmp"), *self.folder.glob("*/.*.tmp")):
                leftover.unlink()
            self._read()
            self._lock = ours.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        for shard in self._open.values():
            if shard.journal is not None:
                shard.journal.close()
        self._lock.close()

    def _hold(self, ours: ExitStack) -> None:
        """The folder, until the stack is closed."""
        try:
            ours.enter_context(exclusive(self.folder / ".lock"))
        except BusyError:
            raise BusyError(f"another run writes to {self.folder}; wait for it, or use another folder") from None

    # ---- what was there -------------------------------------------------------------------------------------------

    def _check_job(self) -> None:
        path = self.folder / "job.json"
        if not path.exists():
            write_file(path, json.dumps(self._identity, indent=1).encode())
            return
        before = json.loads(path.read_text())
        for key in sorted(set(before) | set(self._identity)):
            if before.get(key) != self._identity.get(key):
                was, now = (json.dumps(v)[:60] for v in (before.get(key), self._identity.get(key)))
                raise ValueError(f"{self.folder} holds a run with {key} {was}, not {now}; use another folder")

    def _read(self) -> None:
        manifest = self.folder / "images.jsonl"
        if manifest.exists():
            shard = -1
            for index, line in enumerate(manifest.read_text(encoding="utf-8").splitlines()):
                entry = json.loads(line)
                self._sources.append(entry["image"])
                if entry["shard"] != shard:
                    shard = entry["shard"]
                    self._starts.append(index)
        errors: list[dict[str, Any]] = []
        for path in sorted((self.folder / "done").glob("*.json")):
            about = json.loads(path.read_text())
            self._done.add(int(path.stem))
            self.totals.photos += about["photos"]
            self.totals.segments += about["segments"]
            self.totals.errors += len(about["errors"])
            errors += about["errors"]
            (self.folder / "journal" / f"{path.stem}.jsonl").unlink(missing_ok=True)
        write_file(self.folder / "errors.jsonl", b"".join(_line(e) for e in errors))

    def plan(self, sources: Iterable[str]) -> tuple[int, int]:
        """Add the photos that are new to the run: they become shards of their own.

        Returns:
            How many photos the run has, and how many of them are done.
        """
        known = set(self._sources)
        new = [s for s in dict.fromkeys(sources) if s not in known]
        for start in range(0, len(new), self._size):
            self._starts.append(len(self._sources))
            self._sources += new[start : start + self._size]
        if new:
            lines = (_line({"shard": k, "image": s}) for k, part in enumerate(self._shards()) for s in part)
            write_file(self.folder / "images.jsonl", b"".join(lines))
        for number in range(len(self._starts)):
            if number not in self._done:
                self._reopen(number)
        return len(self._sources), self.totals.photos

    def _shards(self) -> Iterator[list[str]]:
        ends = [*self._starts[1:], len(self._sources)]
        yield from (self._sources[a:b] for a, b in zip(self._starts, ends, strict=True))

    def _range(self, number: int) -> range:
        end = self._starts[number + 1] if number + 1 < len(self._starts) else len(self._sources)
        return range(self._starts[number], end)

    def _reopen(self, number: int) -> None:
        """A shard with what its journal holds, a torn last line cut off."""
        shard = self._open[number] = _Shard(self._range(number))
        path = self._journal(number)
        if not path.exists():
            return
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                row = json.loads(line)
                index = row["index"]
            except (ValueError, TypeError, KeyError):
                break
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            if index not in shard.rows:
                shard.rows[index] = row
                self.totals.add(row)
        os.truncate(path, whole)
        self._finish(number)

    def todo(self) -> Iterator[tuple[int, str]]:
        """(index, source) of every photo that has no result, in order."""
        for number in sorted(self._open):
            shard = self._open[number]
            yield from ((i, self._sources[i]) for i in shard.indices if i not in shard.rows)

    # ---- results --------------------------------------------------------------------------------------------------

    def _journal(self, number: int) -> Path:
        return self.folder / "journal" / f"{number:06d}.jsonl"

    def add(self, row: Row) -> None:
        """One photo's result, in any order. A second one of the same photo is left out: engines may repeat work."""
        number = self._shard_of(row["index"])
        shard = self._open.get(number)
        if shard is None or row["index"] in shard.rows:
            return
        if shard.journal is None:
            shard.journal = self._journal(number).open("ab", buffering=0)
        _append(shard.journal, _line(row))
        shard.rows[row["index"]] = row
        self.totals.add(row)
        self._finish(number)

    def _shard_of(self, index: int) -> int:
        return bisect_right(self._starts, index) - 1

    def _finish(self, number: int) -> None:
        """Write a shard that is complete."""
        shard = self._open[number]
        if len(shard.rows) < len(shard.indices):
            return
        rows = [shard.rows[i] for i in shard.indices]
        self.writer.write(self.folder, number, rows)
        errors = [{"image": r["image"], "error": r["error"]} for r in rows if "error" in r]
        segments = sum(len(r.get("segments", ())) for r in rows)
        about = {"photos": len(rows), "segments": segments, "errors": errors}
        write_file(self.folder / "done" / f"{number:06d}.json", json.dumps(about).encode())
        if errors:
            with (self.folder / "errors.jsonl").open("ab") as file:
                file.write(b"".join(_line(e) for e in errors))
        if shard.journal is not None:
            shard.journal.close()
        self._journal(number).unlink(missing_ok=True)
        self._done.add(number)
        del self._open[number]


def write_file(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _append(file: IO[bytes], data: bytes) -> None:
    """Write a line, or nothing of it: a full disk may take a part."""
    end = os.fstat(file.fileno()).st_size
    try:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
    except OSError:
        os.truncate(file.fileno(), end)
        raise


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
