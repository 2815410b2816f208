"""The results file: one JSON document with the figures, what made them, and the rows they come from.

    {"task", "model", "dataset", "n", …settings, …figures, "command", "commit",
     "settings", "version": 1, "rows": [{"image", "key", …}]}

`seem eval … --json` prints the same without the second line.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seem.evaluation import (
    ablation,
    composition,
    find,
    interactive,
    label,
    panoptic,
    reference,
    referring,
    speed,
    text,
    video,
)
from seem.evaluation.datasets import DatasetError

Row = dict[str, Any]
VERSION = 1
FIGURES: dict[str, Callable[[Sequence[Row]], dict[str, Any]]] = {
    "interactive": interactive.figures,
    "text": text.figures,
    "label": label.figures,
    "find": find.figures,
    "reference": reference.figures,
    "composition": composition.figures,
    "panoptic": panoptic.figures,
    "referring": referring.figures,
    "video": video.figures,
    "ablation": ablation.figures,
    "speed": speed.figures,
}


@dataclass(frozen=True)
class Results:
    """What one run of `seem eval` found.

    Attributes:
        task: a key of `FIGURES`.
        model: name or path as given.
        dataset: name of its folder.
        settings: what else decides the figures (split, prompt, jitter, …), plain JSON.
        rows: one per object, pair or photo; "image" says which photo.
        command, commit: what made it; commit None outside a checkout.
    """

    task: str
    model: str
    dataset: str
    settings: dict[str, Any]
    rows: Sequence[Row] = field(repr=False)
    command: str = ""
    commit: str | None = None

    def figures(self) -> dict[str, Any]:
        """The task's own numbers, from the rows."""
        return FIGURES[self.task](self.rows)

    def summary(self) -> dict[str, Any]:
        """What `--json` prints: DESIGN's fields, then the task's own figures, numbers rounded to 5 digits."""
        figures = self.figures()
        head = {"task": self.task, "model": self.model, "dataset": self.dataset, "n": figures.pop("n", len(self.rows))}
        tail = {"command": self.command, "commit": self.commit}
        result: dict[str, Any] = _plain({**head, **self.settings, **figures, **tail})
        return result

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        path = Path(path)
        document = {**self.summary(), "settings": _plain(self.settings), "version": VERSION, "rows": _plain(self.rows)}
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            partial.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read a file that `save` wrote. Raises DatasetError if it is something else."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path}: not a results file: {error}") from None
        if not isinstance(data, dict) or data.get("version") != VERSION or data.get("task") not in FIGURES:
            raise DatasetError(f"{path}: expected a file that seem eval --out wrote (version {VERSION})")
        rows = data.get("rows")
        if not isinstance(rows, list) or not all(isinstance(r, dict) and {"image", "key"} <= set(r) for r in rows):
            raise DatasetError(f"{path}: expected a list of rows with an image and a key each")
        made: Any = {name: data.get(name) for name in ("task", "model", "dataset", "settings", "command", "commit")}
        return cls(**made, rows=rows)


def this_command() -> str:
    """The command line of this process as a user would type it."""
    program = Path(sys.argv[0]).name if sys.argv else "seem"
    return shlex.join(["seem" if program in ("__main__.py", "cli.py", "-c") else program, *sys.argv[1:]])


def this_commit() -> str | None:
    """Commit of the checkout that this package lies in, with "-dirty" for changed files; None if it is installed."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _plain(value: Any) -> Any:
    """The value as JSON can say it: floats rounded, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value
