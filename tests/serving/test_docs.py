"""The examples of docs/serving.md and examples/ are run as they stand."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.serving.conftest import Running

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="needs curl and bash")
def test_curl_examples(server: Running, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    blocks = [b for b in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "curl -sf" in b]
    assert len(blocks) == 1
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    script = "set -euo pipefail\n" + blocks[0].replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout[-500:]
    assert done.stdout.count('"segments"') == 6 and '"ready"' in done.stdout
    assert Image.open(tmp_path / "cut.png").mode == "RGBA"
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("cat.scene", "part-of-cat.scene"))
    assert (tmp_path / "texts.safetensors").stat().st_size > 100


def test_remote_example(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mask.png"
    photo = str(ROOT / "examples" / "photos" / "cat.jpg")
    monkeypatch.setattr(sys, "argv", ["remote.py", photo, "--server", server.url, "--out", str(out)])
    runpy.run_path(str(ROOT / "examples" / "remote.py"), run_name="__main__")
    assert "score" in capsys.readouterr().out
    assert Image.open(out).size == (451, 300)
