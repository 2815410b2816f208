"""The published checkpoints, fetched from the Hugging Face hub once, converted once, and kept.

`huggingface_hub` downloads: it honours HF_ENDPOINT, HF_HUB_OFFLINE and HF_HOME, resumes a broken transfer and keeps
the published file in its own cache. It compares sizes only, so the sha256 that the hub states is checked here. The
converted file lies in our cache, and from then on nothing asks the network.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seem.checkpoints.files import sha256_of
from seem.checkpoints.official import convert
from seem.model.official_config import OFFICIAL_VARIANTS

REPOSITORY = "xdecoder/SEEM"


class DownloadError(RuntimeError):
    """A published file cannot be had; the message says which and why."""


def cache_dir() -> Path:
    """Where converted weights lie: ``SEEM_CACHE``, else ``seem`` in the platform's cache folder."""
    if own := os.environ.get("SEEM_CACHE"):
        return Path(own).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "seem" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "seem"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seem"


def converted_path(name: str) -> Path:
    """Where the converted file of a variant lies, or will."""
    return cache_dir() / "official" / f"{name}.safetensors"


def fetch(name: str) -> Path:
    """The converted weights of a published variant; the first call downloads and converts.

    Raises:
        ValueError: a variant without a published file.
        DownloadError: not reachable and not in the cache, damaged on the way, or no room for it.
        CheckpointError: the published file is not what it should be.
    """
    path = converted_path(name)
    if path.is_file():
        return path
    file = OFFICIAL_VARIANTS[name].checkpoint
    if file is None:
        raise ValueError(f"{name} has no published file; convert your own: seem convert FILE.pt OUT --as {name}")
    source = download(file)
    try:
        _check_space({path: source.stat().st_size}, file)
        convert(source, path, name)
    except OSError as error:
        raise DownloadError(f"{file} cannot be converted to {path}: {_line(error)}") from error
    return path


def download(file: str) -> Path:
    """One published file, in the hub's own cache, with the hash that the hub states."""
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants
    except ImportError as error:
        raise DownloadError(f"{file} is fetched with huggingface_hub, which is not installed") from error
    try:
        stated: Any = hub.get_hf_file_metadata(hub.hf_hub_url(REPOSITORY, file))
    except Exception as error:  # of requests, httpx or the hub, as its version has it; all mean: not reachable now
        kept = hub.try_to_load_from_cache(REPOSITORY, file)
        if not isinstance(kept, str):
            raise DownloadError(
                f"{file} is not in the cache and cannot be fetched from {REPOSITORY}: {_line(error)}; "
                "get it elsewhere and use: seem convert FILE.pt OUT.safetensors --as NAME"
            ) from error
        source = Path(kept)
        stated_hash = source.resolve().name  # the cache names contents by hash, where it can link to them
    else:
        stated_hash = stated.etag or ""
        if not _is_sha256(stated_hash):
            raise DownloadError(f"{file}: {stated.location} states no sha256 of it, so it cannot be trusted")
        if not isinstance(hub.try_to_load_from_cache(REPOSITORY, file, revision=stated.commit_hash), str):
            _check_space({Path(constants.HF_HUB_CACHE): stated.size or 0}, file)
        try:
            source = Path(hub.hf_hub_download(REPOSITORY, file))
        except Exception as error:
            raise DownloadError(f"{file} was not fetched whole from {REPOSITORY}: {_line(error)}") from error
    if _is_sha256(stated_hash) and (found := sha256_of(source)) != stated_hash:
        for path in (source, source.resolve()):
            path.unlink(missing_ok=True)
        raise DownloadError(f"{file} was damaged: its sha256 is {found}, the hub states {stated_hash}; try again")
    return source


def _is_sha256(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def _check_space(needs: Mapping[Path, int], file: str) -> None:
    """Better said before half of it is there."""
    for path, size in needs.items():
        folder = next(p for p in (path, *path.absolute().parents) if p.is_dir())
        free = shutil.disk_usage(folder).free
        if free < size:
            raise DownloadError(
                f"no room for {file}: {folder} has {free / 1e6:.0f} MB left, {size / 1e6:.0f} MB are needed"
            )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
