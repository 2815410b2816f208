"""One line on stderr that says how far long work is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_TERMINAL_SECONDS, _LOG_SECONDS = 0.2, 30.0  # between two lines


class ProgressLine:
    """Written over again and again on a terminal; elsewhere a line now and then.

    Attributes:
        terminal: whether stderr is one.
    """

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self._began = self._last = time.monotonic()

    def show(self, line: Callable[[float], str]) -> None:
        """If it is time again, what `line` says of the seconds that passed."""
        now = time.monotonic()
        if now - self._last < (_TERMINAL_SECONDS if self.terminal else _LOG_SECONDS):
            return
        self._last = now
        text = line(now - self._began)
        print(f"\r{text:<79}" if self.terminal else text, end="" if self.terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def end(self) -> None:
        """Nothing is left of it on a terminal."""
        if self.terminal:
            print(f"\r{'':<79}\r", end="", file=sys.stderr, flush=True)
