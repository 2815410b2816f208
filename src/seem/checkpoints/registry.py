"""Names of models and how a name becomes a network."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from seem.checkpoints import hub, official
from seem.checkpoints.files import CheckpointError, load_model, sha256_of
from seem.model.official_config import OFFICIAL_VARIANTS
from seem.model.seem import SEEM

DEFAULT = "seem-tiny"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True)
class NamedModel:
    """One row of ``seem models``: weights that ship with the package."""

    name: str
    summary: str
    file: str  # inside the package
    base: str | None = None

    @property
    def source(self) -> str:
        """Where the weights come from, for people."""
        return "ships with the package"

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


@dataclass(frozen=True)
class HubModel:
    """One row of ``seem models``: an official variant, fetched and converted when it is first asked for."""

    name: str
    summary: str
    file: str  # in the hub's repository
    parameters: int

    @property
    def source(self) -> str:
        """Where the weights come from, for people."""
        return f"{4 * self.parameters / 1e6:.0f} MB from huggingface.co/{hub.REPOSITORY} ({self.file}) on first use"

    @property
    def path(self) -> Path:
        """The converted file in the cache."""
        return hub.converted_path(self.name)

    @property
    def size(self) -> int:
        """Bytes on disk, 0 if it was not fetched yet."""
        return self.path.stat().st_size if self.path.is_file() else 0


_ENCODERS = {  # name of the image encoder and parameters of the whole model (SPEC section 15)
    "seem-focal-t": ("FocalNet-T", 164_619_249),
    "seem-focal-l": ("FocalNet-L", 341_181_177),
    "seem-sam-vit-b": ("SAM ViT-B", 215_563_649),
    "seem-sam-vit-l": ("SAM ViT-L", 440_538_689),
}
_SEMANTICS = {
    "v0": "one object at a time",
    "v1": "several objects at a time",
    "demo": "v0's weights wired as in the public demo: prompts of all kinds condition one set of queries",
}


def _hub_models() -> list[HubModel]:
    rows = []
    for name, config in OFFICIAL_VARIANTS.items():
        if config.checkpoint is not None:
            encoder, parameters = _ENCODERS[name.rsplit("-", 1)[0]]
            wiring = _SEMANTICS[config.semantics.name]
            summary = f"official SEEM, {encoder}, {parameters / 1e6:.0f} M parameters; {wiring}"
            rows.append(HubModel(name, summary, config.checkpoint, parameters))
    return rows


_SHIPPED = NamedModel(
    "seem-tiny",
    "TinyViT-5M + EfficientNet-Lite0 at 512 px, MiniLM text; ships with the package, made for CPUs",
    "seem-tiny.safetensors",
    "seem-tiny-base.safetensors",
)
MODELS: dict[str, NamedModel | HubModel] = {_SHIPPED.name: _SHIPPED, **{m.name: m for m in _hub_models()}}


def load_network(source: str | os.PathLike[str] = DEFAULT) -> tuple[SEEM, str]:
    """A network on the CPU, by name or by path of a weights file, and the "sha256:…" of its weights.

    An official variant is a `seem.model.official_seem.OfficialSEEM`, which answers the same calls as `SEEM`.

    Raises:
        ValueError: no such name.
        FileNotFoundError: no such file.
        CheckpointError: a file that cannot be used, or shipped weights that were changed.
        DownloadError: official weights that cannot be fetched.
    """
    model = MODELS.get(source) if isinstance(source, str) else None
    if isinstance(model, HubModel):
        return _load_official(hub.fetch(model.name), model.name)
    if model is not None:
        _verify(model)
        return load_model(model.path, model.base_path)[0], f"sha256:{_hashes()[model.file]}"
    path = Path(source)
    if path.suffix == "" and not path.exists():
        raise ValueError(f"model is {str(source)!r}; expected one of {', '.join(MODELS)} or the path of a weights file")
    if path.is_file() and official.is_official(path):
        return _load_official(path)
    return load_model(path, _base_beside(path))[0], f"sha256:{sha256_of(path)}"


def _base_beside(path: Path) -> Path | None:
    """``m-base.safetensors`` beside ``m.safetensors``, else a copy of the shipped base there, else the shipped one."""
    names = [f"{path.stem}-base{path.suffix}", _SHIPPED.base]
    beside = [path.parent / name for name in names if name]
    return next((p for p in beside if p.is_file()), _SHIPPED.base_path)


def _load_official(path: Path, name: str | None = None) -> tuple[SEEM, str]:
    network = official.load_official(path, name)
    digest = sha256_of(path)
    official.keep_class_names(network, hub.cache_dir() / "class-names" / f"{digest[:16]}.safetensors")
    return cast(SEEM, network), f"sha256:{digest}"


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
