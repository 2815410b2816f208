"""What is built and how it is served, without a browser."""

from __future__ import annotations

import gzip
import re

import pytest

pytest.importorskip("fastapi")

from starlette.exceptions import HTTPException

from seem.serving.page import STATIC, page_file

ASSETS = sorted(path.name for path in (STATIC / "assets").glob("*"))


def test_the_page_is_built_and_small() -> None:
    index = (STATIC / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="\./([^"]+)"', index):
        assert (STATIC / name).is_file(), f"{name}: npm run build in web/"
    assert sum(path.stat().st_size for path in STATIC.rglob("*") if path.is_file()) < 15 << 20


def test_no_script_stands_in_the_document_and_nothing_comes_from_elsewhere() -> None:
    index = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", index) == []
    assert re.findall(r"\son\w+=", index) == []
    assert re.findall(r'(?:src|href)="(?:https?:)?//', index) == []


def test_the_runtime_is_sent_packed() -> None:
    packed = [name for name in ASSETS if name.endswith(".wasm.gz")]
    assert packed
    assert not [name for name in ASSETS if name.endswith(".wasm")]
    for name in packed:
        answer = page_file(f"assets/{name.removesuffix('.gz')}")
        assert answer.media_type == "application/wasm"
        assert answer.headers["content-encoding"] == "gzip"
        assert "immutable" in answer.headers["cache-control"]
        assert gzip.decompress((STATIC / "assets" / name).read_bytes())[:4] == b"\0asm"
        with pytest.raises(HTTPException):
            page_file(f"assets/{name}")  # only under the name that the page asks for
