"""The published checkpoints: translated to our names once, every tensor accounted for, then read as safetensors.

`convert` is the only place that opens the published pickles, and only as `weights_only`. v0, v1 and demo share names
and shapes of all tensors, so the variant is what the caller says; it stands in the header of the converted file.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from seem.checkpoints.files import HEADER, CheckpointError, compare, sha256_of
from seem.model.official_config import OFFICIAL_VARIANTS, OfficialConfig, official_config
from seem.model.official_seem import BACKGROUND, OfficialSEEM
from seem.vocabulary import COCO_PANOPTIC

FORMAT = "seem-official-1"
_CODE = r"GLOBAL [\w.]+|call reduce [\w ]+|Can only (?:build|create|call)[\w ]+"  # in torch's refusals

# Official prefix <-> ours. The first that fits is taken, in both directions, so the special ones stand first.
_PREDICTOR = "sem_seg_head.predictor."
RENAMES: tuple[tuple[str, str], ...] = (
    (_PREDICTOR + "lang_encoder.lang_proj", "text_encoder.projection"),
    (_PREDICTOR + "lang_encoder.logit_scale", "text_encoder.logit_scale"),
    (_PREDICTOR + "lang_encoder.lang_encoder.", "text_encoder."),
    (_PREDICTOR + "mask_sptial_embed.", "decoder.visual_sampler.level_projection."),
    (_PREDICTOR + "pn_indicator.", "decoder.visual_sampler.sign."),
    (_PREDICTOR + "spatial_featured.", "decoder.memory_feat."),
    (_PREDICTOR + "spatial_embed.", "decoder.memory_embed."),
    (_PREDICTOR + "transformer_self_attention_layers.", "decoder.self_attention_layers."),
    (_PREDICTOR + "transformer_cross_attention_layers.", "decoder.cross_attention_layers."),
    (_PREDICTOR + "transformer_ffn_layers.", "decoder.ffn_layers."),
    (_PREDICTOR, "decoder."),
    ("sem_seg_head.pixel_decoder.", "pixel_decoder."),
    ("backbone.", "image_encoder."),
)
# Buffers of the training code: they may be there or not (demo has no criterion) and say nothing about the model.
IGNORED = frozenset({"dilation_kernel", "criterion.empty_weight"})


def our_name(official: str) -> str:
    """The name of an official tensor in ``OfficialSEEM``; unknown ones keep their name.

    >>> our_name("sem_seg_head.predictor.transformer_ffn_layers.0.norm.bias")
    'decoder.ffn_layers.0.norm.bias'
    """
    for prefix, ours in RENAMES:
        if official.startswith(prefix):
            return ours + official.removeprefix(prefix)
    return official


def official_name(ours: str) -> str:
    """The inverse of ``our_name``.

    >>> official_name("text_encoder.projection")
    'sem_seg_head.predictor.lang_encoder.lang_proj'
    """
    for official, prefix in RENAMES:
        if ours.startswith(prefix):
            return official + ours.removeprefix(prefix)
    return ours


def check_names(shapes: Mapping[str, tuple[int, ...]], config: OfficialConfig) -> None:
    """Compare official names and shapes with what the variant needs.

    Raises:
        ValueError: lists every missing, extra and misshapen tensor by its official name.
    """
    with torch.device("meta"):
        wanted = {name: tuple(t.shape) for name, t in OfficialSEEM(config).state_dict().items()}
    given = {our_name(name): (name, shape) for name, shape in shapes.items() if name not in IGNORED}
    if not set(wanted) & set(given):
        some = ", ".join(sorted(shapes)[:3]) or "none"
        raise ValueError(
            f"not a checkpoint of {config.name} but of another project: none of its {len(shapes)} tensors ({some}, …) "
            "has a name of SEEM's"
        )
    problems = [f"missing: {official_name(name)} {shape}" for name, shape in wanted.items() if name not in given]
    for name, (official, shape) in given.items():
        if name not in wanted:
            problems.append(f"extra: {official} {tuple(shape)}")
        elif tuple(shape) != wanted[name]:
            problems.append(f"misshapen: {official} is {tuple(shape)}, expected {wanted[name]}")
    if problems:
        raise ValueError(f"not a checkpoint of {config.name}: {len(problems)} tensors differ: {'; '.join(problems)}")


def convert_state_dict(official: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """An official state dict -> the state dict of ``OfficialSEEM`` for the variant ``name``.

    Raises:
        ValueError: unknown variant, or a tensor is missing, extra or misshapen; all of them are listed.
    """
    config = official_config(name)
    check_names({key: tuple(value.shape) for key, value in official.items()}, config)
    return {our_name(key): value for key, value in official.items() if key not in IGNORED}


# ---- files --------------------------------------------------------------------------------------------------------


def convert(path_pt: str | os.PathLike[str], path_out: str | os.PathLike[str], as_name: str) -> str:
    """Rewrite a published checkpoint as safetensors; returns the new file's sha256.

    The same checkpoint and name give the same bytes everywhere. A failure leaves nothing behind.

    Args:
        path_pt: the published ``.pt``. Its pickle may hold tensors only; anything else is refused before it runs.
        path_out: the file to write.
        as_name: the variant, such as "seem-focal-t-v1". The tensors cannot tell v0, v1 and demo apart: this decides.

    Raises:
        ValueError: no such variant, or the name of a published file that holds another one.
        CheckpointError: a ValueError; truncated, with code in it, or not of this variant, with all tensors listed.
        OSError: a file cannot be read or written.
    """
    source, out = Path(path_pt), Path(path_out)
    config = _named_config(as_name)
    _check_file_name(source, config)
    if not source.is_file():
        raise FileNotFoundError(f"no checkpoint at {source}")
    if out.exists() and out.samefile(source):
        raise ValueError(f"path_out: expected another file than the checkpoint itself, got {out}")
    try:
        state = convert_state_dict(_read_pickled(source), config.name)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None
    fields = {"format": FORMAT, "variant": config.name, "source_sha256": sha256_of(source)}
    _write(_separate(state), out, fields)
    return sha256_of(out)


def is_official(path: Path) -> bool:
    """Whether a file is one that `convert` wrote."""
    return _header(path).get("format") == FORMAT


def load_official(path: Path, name: str | None = None) -> OfficialSEEM:
    """Read a file of `convert`: the network on the CPU, ready for inference.

    Args:
        path: the file.
        name: the variant that it must hold; None takes what it holds.

    Raises:
        CheckpointError: truncated, of another variant, or not fitting its variant.
    """
    variant = _header(path).get("variant", "")
    if variant not in OFFICIAL_VARIANTS or (name is not None and variant != name):
        raise CheckpointError(f"{path} holds the variant {variant!r}; expected {name or 'an official one'}")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a complete safetensors file ({error})") from None
    with torch.device("meta"):  # hundreds of millions of parameters that need no random start
        network = OfficialSEEM(OFFICIAL_VARIANTS[variant])
    problems = compare(network.state_dict(), state)
    if problems:
        raise CheckpointError(f"{path} does not fit {variant}: {'; '.join(problems)}")
    network.load_state_dict(state, assign=True)
    network.known_names = {c.name: c.coco_name or c.name for c in COCO_PANOPTIC}
    return network.eval().requires_grad_(False)


def keep_class_names(network: OfficialSEEM, path: Path) -> None:
    """Let a network read COCO's class names from a file, and write it when it has encoded them for the first time.

    A name is 81 sentences, so 134 names take a minute of a laptop; they depend on the weights alone.
    """
    names = sorted({*network.known_names.values(), BACKGROUND})
    width = network.config.text_encoder.joint_dim

    def keep() -> None:
        if set(names) <= set(network.classes):
            network.on_new_classes = None
            with suppress(OSError):  # a cache that cannot be written is none
                table = torch.stack([network.classes[name] for name in names]).float().cpu()
                _write({"classes": table.contiguous()}, path, {"format": FORMAT, "classes": json.dumps(names)})

    with suppress(OSError, SafetensorError, ValueError, KeyError):
        if _header(path).get("classes") == json.dumps(names):
            table = load_file(path)["classes"]
            if table.shape == (len(names), width) and bool(torch.isfinite(table).all()):
                network.classes.update(zip(names, table, strict=True))
                return
    network.on_new_classes = keep


def _named_config(name: str) -> OfficialConfig:
    config = official_config(name)
    if config.name not in OFFICIAL_VARIANTS:
        raise ValueError(f"unknown official variant {name!r}; expected one of {', '.join(OFFICIAL_VARIANTS)}")
    return OFFICIAL_VARIANTS[config.name]


def _check_file_name(path: Path, config: OfficialConfig) -> None:
    """A published file's name says what it holds; a name that somebody else gave says nothing."""
    published = {c.checkpoint for c in OFFICIAL_VARIANTS.values() if c.checkpoint}
    for file in sorted(published):
        if path.name.lower().startswith(file.removesuffix(".pt")) and file != config.checkpoint:
            fitting = [c.name for c in OFFICIAL_VARIANTS.values() if c.checkpoint == file]
            raise ValueError(f"{path} is published as {' or '.join(fitting)}, not as {config.name}")


def _read_pickled(path: Path) -> dict[str, Tensor]:
    """The state dict of a ``.pt``. Only this function opens one, and no code in it is run."""
    if not path.stat().st_size:
        raise CheckpointError(f"{path} is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols; what cannot be read is an error below
            # mapped where the format allows, so that memory holds the weights once
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except MemoryError:
        raise
    except Exception as error:  # whatever a hostile or broken file makes of the reader
        message = " ".join(str(error).split())
        if code := re.search(_CODE, message):
            raise CheckpointError(
                f"{path} is refused: its pickle asks for code to be run ({code[0][:80]}); nothing of it was run"
            ) from None
        raise CheckpointError(f"{path} is not a complete PyTorch file: {message[:200]}") from None
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    ):
        held = f"holds {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else "is no state dict"
        raise CheckpointError(f"{path} is of another project: it {held}; expected names and tensors alone")
    used = {k: v for k, v in content.items() if k not in IGNORED}
    if odd := [k for k, v in used.items() if not v.is_floating_point() or v.layout != torch.strided]:
        raise CheckpointError(f"{path}: {len(odd)} tensors are not plain floating point: {', '.join(odd)}")
    return dict(content)


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """float32, contiguous, and no two tensors in one memory: what safetensors can write."""
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        value = tensor.detach().float().contiguous()
        storage = value.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != value.numel() * value.element_size():
            value = value.clone()
        seen.add(storage.data_ptr())
        separate[name] = value
    return separate


def _write(tensors: dict[str, Tensor], path: Path, fields: Mapping[str, str]) -> None:
    """Under a temporary name first, so that nobody ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        try:
            save_file(tensors, temporary, {HEADER: json.dumps(dict(fields), sort_keys=True)})
        except SafetensorError as error:  # what it makes of a full disk, among others
            raise OSError(f"cannot write {path}: {error}") from None
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _header(path: Path) -> dict[str, str]:
    """Our header of a safetensors file; empty if it has none or is something else."""
    try:
        with safe_open(path, "pt") as f:
            fields = json.loads((f.metadata() or {}).get(HEADER, "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in fields.items()} if isinstance(fields, dict) else {}
