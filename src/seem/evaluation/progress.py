"""How far an evaluation is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from seem.progress import ProgressLine

_BAR = 16  # characters


def show(
    rows: Iterable[dict[str, Any]], photos: int, describe: Callable[[list[dict[str, Any]]], str] | None = None
) -> Iterator[dict[str, Any]]:
    """Pass rows on and report photos done, rows, time left and what `describe` says of the rows so far."""
    progress = ProgressLine()
    seen: list[dict[str, Any]] = []
    images: set[str] = set()

    def line(seconds: float) -> str:
        left = seconds / len(images) * max(photos - len(images), 0)
        done = "#" * round(_BAR * len(images) / max(photos, len(images)))
        text = f"[{done:<{_BAR}}] " if progress.terminal else ""
        text += f"{len(images)}/{photos} photos, {len(seen)} rows, {left:.0f} s left"
        return text + (f", {describe(seen)}" if describe else "")

    for row in rows:
        yield row
        seen.append(row)
        images.add(row["image"])
        progress.show(line)
    progress.end()
