"""`import seem` is quick, and every name it promises is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import seem


def test_every_export_exists() -> None:
    for name in seem.__all__:
        assert getattr(seem, name) is not None
    assert set(seem.__all__) <= set(dir(seem))
    with pytest.raises(AttributeError, match="no attribute 'Clik'"):
        _ = seem.Clik  # type: ignore[attr-defined]


def test_importing_is_lazy() -> None:
    code = "import sys, seem; seem.Click(1, 2); print(sorted({'torch', 'fastapi', 'ray', 'scipy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
