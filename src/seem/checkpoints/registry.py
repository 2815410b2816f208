"""Names of models and how a name becomes a network."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from seem.checkpoints.files import CheckpointError, load_model, sha256_of
from seem.model.seem import SEEM

DEFAULT = "seem-tiny"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True)
class NamedModel:
    """One row of ``seem models``."""

    name: str
    summary: str
    file: str  # inside the package
    base: str | None = None

    @property
    def path(self) -> Path:
        return WEIGHTS / self.file

    @property
    def base_path(self) -> Path | None:
        return WEIGHTS / self.base if self.base else None

    @property
    def size(self) -> int:
        """Bytes on disk, 0 if it is not installed."""
        paths = [p for p in (self.path, self.base_path) if p is not None and p.is_file()]
        return sum(p.stat().st_size for p in paths)


MODELS = {
    m.name: m
    for m in (
        NamedModel(
            "seem-tiny",
            "TinyViT-5M + EfficientNet-Lite0 at 512 px, MiniLM text; ships with the package, made for CPUs",
            "seem-tiny.safetensors",
            "seem-tiny-base.safetensors",
        ),
    )
}


def load_network(source: str | os.PathLike[str] = DEFAULT) -> tuple[SEEM, str]:
    """A network on the CPU, by name or by path of a weights file, and the "sha256:…" of its weights.

    Raises:
        ValueError: no such name.
        FileNotFoundError: no such file.
        CheckpointError: a file that cannot be used, or shipped weights that were changed.
    """
    if isinstance(source, str) and source in MODELS:
        model = MODELS[source]
        _verify(model)
        return load_model(model.path, model.base_path)[0], f"sha256:{_hashes()[model.file]}"
    path = Path(source)
    if path.suffix == "" and not path.exists():
        raise ValueError(f"model is {str(source)!r}; expected one of {', '.join(MODELS)} or the path of a weights file")
    beside = path.parent / MODELS[DEFAULT].base if MODELS[DEFAULT].base else None  # type: ignore[operator]
    base = beside if beside is not None and beside.is_file() else MODELS[DEFAULT].base_path
    return load_model(path, base)[0], f"sha256:{sha256_of(path)}"


_verified: set[Path] = set()


def _verify(model: NamedModel) -> None:
    """Shipped files against the shipped hashes, once a process."""
    if model.path in _verified:
        return
    expected = _hashes()
    for path in (model.path, model.base_path):
        if path is not None and path.is_file() and sha256_of(path) != expected.get(path.name):
            raise CheckpointError(f"{path} is not the file that was shipped (sha256 differs); reinstall the package")
    _verified.add(model.path)


@cache
def _hashes() -> dict[str, str]:
    hashes: dict[str, str] = json.loads((WEIGHTS / "sha256.json").read_text())
    return hashes
