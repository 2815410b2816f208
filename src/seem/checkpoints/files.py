"""Weights on disk: safetensors with the config as JSON in the header, checked by sha256, never a pickle.

A model is one file, or a small file that names by hash the shared base (frozen encoders and text side) beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from seem.checkpoints.quantize import pack, unpack
from seem.model.config import SEEMConfig
from seem.model.seem import SEEM

FORMAT = "seem-1"
HEADER = "seem"
PINNED = "pinned_text."
TOKENIZER = "text_encoder.tokenizer_json"
BASE_PREFIXES = ("image_encoder.", "semantic_encoder.", "text_encoder.", "visual_sampler.position.")
STORAGE_RULES = (  # the first that fits; int8 costs nothing measurable but where a line says otherwise
    ("text_encoder.position_embedding.*", "float32"),
    ("*position.projection", "float32"),
    ("logit_scale", "float32"),
    ("heat_*", "float32"),
    ("semantic_encoder.*", "float16"),
    ("*bias_table", "float16"),
    ("*mask_embed*", "float16"),
    ("*_queries.weight", "float16"),
    ("*_token.weight", "float16"),
    ("*kind.weight", "float16"),
    ("*", "int8"),
)


class CheckpointError(ValueError):
    """A weights file that cannot be used; the message names the file and what is wrong with it."""


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def save_model(model: SEEM, path: Path, base: Path | None = None, extra: Mapping[str, Any] | None = None) -> str:
    """Write a model; returns the file's sha256.

    Args:
        model: what to write.
        path: the file; written to a temporary name first, so a failure leaves nothing half done.
        base: an existing base file. Then only what differs from it is written, with the base's hash.
        extra: anything JSON to keep in the header (vocabulary, recipe, numbers).
    """
    state = model.state_dict()
    if base is not None:
        shared, stored = read(base)[0], as_stored(state)
        state = {k: v for k, v in state.items() if k not in shared or not torch.equal(stored[k], shared[k])}
    return _write(model, state, path, {"base": sha256_of(base) if base else ""}, extra, with_tokenizer=base is None)


def save_base(model: SEEM, path: Path) -> str:
    """Write the parts that training leaves alone; see `save_model`."""
    state = {k: v for k, v in model.state_dict().items() if k.startswith(BASE_PREFIXES)}
    return _write(model, state, path, {"part": "base"}, None, with_tokenizer=True)


def _write(
    model: SEEM,
    state: Mapping[str, Tensor],
    path: Path,
    header: dict[str, str],
    extra: Mapping[str, Any] | None,
    *,
    with_tokenizer: bool,
) -> str:
    packed, packing = _pack(state)
    if with_tokenizer and model.text_encoder.tokenizer_json:
        packed[TOKENIZER] = torch.frombuffer(bytearray(model.text_encoder.tokenizer_json.encode()), dtype=torch.uint8)
    pinned = model.pinned_text if with_tokenizer else {}
    for i, (sentence, tokens) in enumerate(pinned.values()):
        packed[f"{PINNED}{i}"] = torch.cat([sentence[None], tokens]).float().cpu().contiguous()
    header = {**header, "pinned": json.dumps(list(pinned))}
    fields = {"format": FORMAT, "config": model.config.to_json(), "extra": json.dumps(extra or {}), **header, **packing}
    metadata = {HEADER: json.dumps(fields, sort_keys=True)}  # one entry: safetensors writes several in random order
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(packed, temporary, metadata)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return sha256_of(path)


def _pack(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    return pack(state, [rule for rule in STORAGE_RULES if any(fnmatchcase(name, rule[0]) for name in state)])


def as_stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values that a state dict will have after it was written and read."""
    return unpack(*_pack(state))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (float32) and header of one file. Raises CheckpointError or FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    try:
        with safe_open(path, "pt") as f:
            metadata = _header((f.metadata() or {}).get(HEADER))
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}); pickles are never loaded"
        ) from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a SEEM weights file: its format is {metadata.get('format')!r}, expected {FORMAT!r}"
        )
    try:
        return unpack(tensors, metadata), metadata
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def _header(text: str | None) -> dict[str, str]:
    try:
        fields = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in fields.items()} if isinstance(fields, dict) else {}


def load_model(path: Path, base: Path | None = None, device: str | torch.device = "cpu") -> tuple[SEEM, dict[str, Any]]:
    """Read a model and the ``extra`` of its header.

    Args:
        path: a file of `save_model`.
        base: where the shared base lies, for a file that needs one.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: truncated, a pickle, another project's, of another config, or beside another base.
    """
    state, metadata = read(path)
    if metadata.get("part") == "base":
        raise CheckpointError(f"{path} holds the base weights alone; expected a whole model")
    wanted = metadata.get("base")
    if wanted:
        if base is None or not base.is_file():
            raise CheckpointError(f"{path} needs the base weights {wanted[:12]}…, which are not beside it")
        if sha256_of(base) != wanted:
            raise CheckpointError(f"{path} was made with another base than {base}")
        shared, shared_metadata = read(base)
        state = {**shared, **state}
        metadata["pinned"] = shared_metadata.get("pinned", "[]")
    try:
        config = SEEMConfig.from_json(metadata["config"])
        extra = json.loads(metadata.get("extra", "{}"))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its config cannot be read ({error})") from None
    tokenizer = state.pop(TOKENIZER, None)
    pinned = {
        name: (rows[0], rows[1:])
        for i, name in enumerate(json.loads(metadata.get("pinned", "[]")))
        if (rows := state.pop(f"{PINNED}{i}", None)) is not None
    }
    model = SEEM(config)  # not on the meta device: that imports a second's worth of compiler
    problems = compare(model.state_dict(), state)
    if problems:
        raise CheckpointError(f"{path} does not fit its config: {'; '.join(problems)}")
    model.load_state_dict(state, assign=True)
    model.pinned_text = pinned
    model.own_names = tuple(extra.get("own_names", ()))
    if tokenizer is not None:
        model.text_encoder.tokenizer_json = bytes(tokenizer.to(torch.uint8).numpy()).decode()
    for encoder in (model.image_encoder, model.semantic_encoder):
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(device).eval().requires_grad_(False), extra


def compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What keeps a state dict from loading: missing, extra and misshapen tensors, all of them named."""
    problems = []
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing:
        problems.append(f"{len(missing)} missing: {', '.join(missing)}")
    if extra:
        problems.append(f"{len(extra)} unexpected: {', '.join(extra)}")
    shapes = [
        f"{n} is {tuple(found[n].shape)}, expected {tuple(expected[n].shape)}"
        for n in sorted(set(expected) & set(found))
        if expected[n].shape != found[n].shape
    ]
    if shapes:
        problems.append(f"{len(shapes)} of another shape: {', '.join(shapes)}")
    return problems
