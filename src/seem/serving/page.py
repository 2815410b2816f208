"""The page's files and the bundled samples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response

from seem.serving.middleware import PAGE_POLICY

STATIC = Path(__file__).parent / "static"
HASHED = re.compile(r"[-.][A-Za-z0-9_-]{8,}\.[a-z0-9.]+$")  # a build's name with the hash of its content
FOREVER = "public, max-age=31536000, immutable"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}

_NO_PAGE = """<!doctype html><html lang="en"><title>seem</title>
<p>The server runs. Its page is not built in this checkout: see web/README.md, or use the API.</p></html>"""


@cache
def _names(folder: Path) -> dict[str, Path]:
    """Every file of a folder by its path in it: what is asked for is looked up, never put together."""
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}


def page_file(name: str) -> Response:
    """A file of the page. Raises HTTPException 404 for any other name."""
    if not (STATIC / "index.html").is_file():
        if name in ("", "index.html"):
            return HTMLResponse(_NO_PAGE, headers={"Content-Security-Policy": PAGE_POLICY})
        raise HTTPException(404)
    name = name or "index.html"
    files = _names(STATIC)
    path = files.get(name) or files.get(f"{name}.gz")  # what is large lies there as gzip, which every browser takes
    kind = TYPES.get(Path(name).suffix)
    if path is None or kind is None:
        raise HTTPException(404)
    cache_control = FOREVER if HASHED.search(name) else "no-cache"
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": cache_control}
    if path.suffix == ".gz":
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return FileResponse(path, media_type=kind, headers=headers)


@dataclass(frozen=True)
class SamplePhoto:
    """A bundled photo.

    Attributes:
        id, name: its name, and as people read it.
        path: of the JPEG.
        size: (width, height).
    """

    id: str
    name: str
    path: Path
    size: tuple[int, int]


@cache
def samples() -> dict[str, SamplePhoto]:
    """The photos of examples/photos, which a wheel holds as serving/samples, by id."""
    from PIL import Image

    inside = Path(__file__).parent / "samples"
    folder = inside if inside.is_dir() else Path(__file__).parents[3] / "examples" / "photos"
    found = {}
    for path in sorted(folder.glob("*.jpg")) if folder.is_dir() else []:
        with Image.open(path) as image:
            found[path.stem] = SamplePhoto(path.stem, path.stem.replace("-", " ").capitalize(), path, image.size)
    return found
