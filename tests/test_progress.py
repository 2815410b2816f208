"""The line on stderr."""

from __future__ import annotations

import sys

import pytest

from seem import progress
from seem.progress import ProgressLine


@pytest.mark.parametrize(("terminal", "every"), [(True, 0.2), (False, 30.0)])
def test_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool, every: float
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    line = ProgressLine()
    for _ in range(4):
        now[0] += 0.6 * every
        line.show(lambda seconds: f"{seconds:.2f} s")
    line.end()
    shown = capsys.readouterr().err
    texts = [f"{0.6 * k * every:.2f} s" for k in (2, 4)]
    if terminal:
        assert shown == "".join(f"\r{text:<79}" for text in texts) + f"\r{'':<79}\r"
    else:
        assert shown == "".join(f"{text}\n" for text in texts)
