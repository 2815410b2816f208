"""Encoded scenes on disk, so that the next question to the same photos costs no encoding.

A scene's file is named by the photo's pixels and the model's weights: a photo in another folder or format is the same,
a changed photo or model is another. The least recently used go when the budget is exceeded. Several processes may share
a folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import uuid
from pathlib import Path

from seem.predict.scene_files import SCENE_VERSION

KEEP = 0.9  # of the budget is left after files were removed
FULL = (errno.ENOSPC, errno.EDQUOT)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_bytes(text: str) -> int:
    """ "20GB", "500 MB" or "1000000" as bytes. Raises ValueError.

    >>> parse_bytes("1.5GB")
    1500000000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"expected a size such as 20GB, got {text[:40]!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


class SceneCache:
    """A folder of scenes with a budget of bytes.

    Attributes:
        hits, misses: of `get`.
    """

    def __init__(self, folder: str | os.PathLike[str], budget: int) -> None:
        self.folder, self.budget = Path(folder), budget
        self.hits = self.misses = 0
        self._lock = threading.Lock()
        self._bytes: int | None = None  # in the folder, as far as this process knows

    def _path(self, image: str, weights: str) -> Path:
        digest, model = image.removeprefix("sha256:"), weights.removeprefix("sha256:")
        return self.folder / f"v{SCENE_VERSION}-{model[:32]}" / digest[:2] / f"{digest}.safetensors"

    def get(self, image: str, weights: str) -> bytes | None:
        """The scene of an image's digest, or None. It counts as used now."""
        path = self._path(image, weights)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            self.misses += 1
            return None
        self.hits += 1
        return data

    def put(self, image: str, weights: str, data: bytes) -> None:
        """Keep a scene. A full disk is no error: then nothing is kept."""
        if len(data) > self.budget:
            return
        path = self._path(image, weights)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        with self._lock:
            self._bytes = self._scan() if self._bytes is None else self._bytes + len(data)
            if self._bytes > self.budget:
                self._bytes = self._evict()

    def drop(self, image: str, weights: str) -> None:
        """Forget a scene, for instance one that is broken."""
        with contextlib.suppress(OSError):
            self._path(image, weights).unlink()

    def _files(self) -> list[tuple[float, int, Path]]:
        files = []
        for path in self.folder.glob("*/*/*.safetensors"):
            with contextlib.suppress(OSError):  # another process may have removed it
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        return files

    def _scan(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _evict(self) -> int:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= KEEP * self.budget:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size
        return total
