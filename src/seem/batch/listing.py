"""Which photos a run is about: files, folders, globs, lists of them, and addresses of object stores.

An address is anything with "://"; `fsspec` opens it, so every store that has an fsspec package works (s3fs, gcsfs,
adlfs, …). Everything else is on this machine.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seem.images import ImageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
ATTEMPTS, PAUSE = 3, 0.5  # of reading from a store, and seconds before the second; then twice that
_WILD = frozenset("*?[")


def list_photos(given: Iterable[str], exclude: Path | None = None) -> list[str]:
    """Every photo that the arguments of a command mean, each once, in the order given; folders sorted by name.

    Args:
        given: a file; a folder, with all below it; a glob; ``@FILE`` or a ``.txt`` file with one of these a line; or an
            address such as ``s3://bucket/photos``.
        exclude: a folder of which nothing is taken, even if it lies in another one: where results are written.

    Raises:
        ValueError: something that is not there, or no photo at all.
        ImportError: an address, and ``fsspec`` or the store's own package is not installed.
    """
    hidden = None if exclude is None else exclude.resolve()
    found: dict[str, None] = {}
    for name in given:
        for photo in _expand(name):
            if hidden is None or "://" in photo or hidden not in Path(photo).resolve().parents:
                found.setdefault(photo)
    if not found:
        raise ValueError("PHOTOS: expected at least one photo, found none")
    return list(found)


def _expand(name: str, from_list: str = "") -> Iterator[str]:
    where = f"{from_list}: " if from_list else ""
    if not from_list and (name.startswith("@") or name.lower().endswith(".txt")):
        for line in _read_list(name.removeprefix("@")):
            yield from _expand(line, name)
    elif "://" in name:
        yield from _expand_address(name)
    elif Path(name).is_dir():
        yield from (str(p) for p in sorted(Path(name).rglob("*")) if _is_photo(p))
    elif Path(name).is_file():
        yield name
    elif _WILD & set(name):
        matches = [p for p in sorted(glob.glob(name, recursive=True)) if Path(p).suffix.lower() in SUFFIXES]
        if not matches:
            raise ValueError(f"{where}{name}: no photo matches it")
        yield from matches
    elif from_list:
        yield name  # one of many that is missing is a bad file like others, and told in errors.jsonl
    else:
        raise ValueError(f"{name}: no such file or folder")


def _read_list(name: str) -> list[str]:
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "expected a list of photos in UTF-8"
        raise ValueError(f"{name}: {reason}") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


# ---- object stores ------------------------------------------------------------------------------------------------


def _expand_address(name: str) -> Iterator[str]:
    try:
        files, path = _file_system(name)
        if _WILD & set(path):
            matches = sorted(files.glob(path))
        elif files.isdir(path):
            matches = sorted(files.find(path))
        else:
            yield name
            return
        yield from (files.unstrip_protocol(p) for p in matches if Path(p).suffix.lower() in SUFFIXES)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: cannot be listed: {error}") from None


def _file_system(name: str) -> tuple[Any, str]:
    """The store behind an address, and the path in it."""
    try:
        import fsspec
    except ImportError as error:
        raise ImportError(f"{name}: expected the package fsspec; pip install 'seem-segment[batch]'") from error
    files, path = fsspec.core.url_to_fs(name)
    return files, str(path)


def read_photo(name: str) -> str | bytes:
    """What `seem.load_image` takes: a path, or the bytes behind an address.

    Raises:
        ImageError: the store does not have it, or did not answer `ATTEMPTS` times.
    """
    if "://" not in name:
        return name
    for attempt in range(ATTEMPTS):
        try:
            files, path = _file_system(name)
            data: bytes = files.cat_file(path)
            return data
        except FileNotFoundError:
            raise ImageError(f"{name}: no such file") from None
        except (OSError, ValueError) as error:
            if attempt == ATTEMPTS - 1:
                raise ImageError(f"{name}: cannot be read: {' '.join(str(error).split())[:120]}") from None
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError("unreachable")
