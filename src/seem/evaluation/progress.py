"""One line on stderr that says how far a run is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 30.0
_BAR = 16  # characters


def show(
    rows: Iterable[dict[str, Any]], photos: int, describe: Callable[[list[dict[str, Any]]], str] | None = None
) -> Iterator[dict[str, Any]]:
    """Pass rows on and report photos done, rows, time left and what `describe` says of the rows so far."""
    terminal = sys.stderr.isatty()
    seen: list[dict[str, Any]] = []
    images: set[str] = set()
    began = last = time.monotonic()
    for row in rows:
        yield row
        seen.append(row)
        images.add(row["image"])
        now = time.monotonic()
        if now - last >= (_TERMINAL_SECONDS if terminal else _LOG_SECONDS):
            last = now
            left = (now - began) / len(images) * max(photos - len(images), 0)
            bar = f"[{'#' * round(_BAR * len(images) / max(photos, len(images))):<{_BAR}}] " if terminal else ""
            line = f"{bar}{len(images)}/{photos} photos, {len(seen)} rows, {left:.0f} s left"
            line += f", {describe(seen)}" if describe else ""
            print(f"\r{line:<79}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)
    if terminal:
        print(f"\r{'':<79}\r", end="", file=sys.stderr, flush=True)
