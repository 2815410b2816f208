"""Graphs as ONNX files: exported from a loaded model, their weights packed small, written whole or not at all.

What is packed is the storage, not the arithmetic: a weight lies in the file as float16, or as int8 with a scale per
channel, and the first nodes of the graph turn it into float32 again, which a runtime does once, when it loads the file.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from seem.checkpoints.hub import cache_dir
from seem.export import decoder
from seem.export import parts as parts_module
from seem.export.parts import Array, Part, decoder_parts, encoder_part, text_part
from seem.export.shapes import as_operators
from seem.model.config import SEEMConfig
from seem.model.seem import MAX_TEXT_TOKENS, SEEM
from seem.model.visual_sampler import MASK_PROMPT_LOGIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from seem.predict.model import Model

FORMAT = 2  # of decoder.json and of the graphs' inputs
PRECISIONS = ("fp32", "fp16", "int8", "packed")
PARTS = ("decoder", "image", "text")
OPSET = 20
EXACT = 0.01  # of a step of int8: weights that were stored in it come this close
SMALL = 1024  # elements; below this a tensor stays float32
_LOCK = threading.Lock()


def decoder_files(model: Model, precision: str = "packed", apart: bool = False) -> dict[str, Path]:
    """The decoder of a model for a browser: prepare.onnx, maps.onnx, decode.onnx and decoder.json, by name.

    The first call for some weights exports (about half a minute) into the cache folder; later ones find the files.
    Shipped weights lie in int8 and float16, so "packed" loses next to nothing of them.

    Args:
        precision: see `export_onnx`.
        apart: export in a process of its own. Tracing replaces parts of torch for all threads of its process, so a
            model that is used meanwhile needs this.

    Raises:
        ImportError: the packages of the extra "onnx" are not installed.
        ValueError: a model that cannot be exported, an official one for example; an unknown precision.

    Example:
        >>> decoder_files(seem.load())["decoder.json"]                       # doctest: +SKIP
    """
    _check(model, precision)
    folder = cache_dir() / "decoder" / _cache_key(model.weights, precision)
    with _LOCK:
        if (found := _complete(folder)) is None:
            if apart:
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    process.submit(_write_decoder_folder, model, folder, precision).result()
            else:
                _write_decoder_folder(model, folder, precision)
            found = _complete(folder)
    if found is None:
        raise OSError(f"{folder}: expected the files that were just written there")
    return found


def export_onnx(
    model: Model,
    out: Path,
    precision: str = "fp32",
    parts: Iterable[str] = PARTS,
) -> list[Path]:
    """Write a model's parts as ONNX files into a folder, which is made if it is not there.

    Args:
        out: the folder; files of the same names are replaced, each whole.
        precision: how weights are stored: "fp32", "fp16", "int8", or "packed": int8 where that changes nothing, as in
            weights that come from int8, else float16.
        parts: some of "decoder" (prepare.onnx, maps.onnx, decode.onnx, decoder.json), "image" (image.onnx) and "text"
            (text.onnx, tokenizer.json).

    Raises:
        ImportError, ValueError: as `decoder_files`; a part that there is not.
    """
    _check(model, precision)
    wanted = list(parts)
    if unknown := [part for part in wanted if part not in PARTS]:
        raise ValueError(f"parts: expected some of {', '.join(PARTS)}, got {unknown[0]!r}")
    written: list[Path] = []
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as temporary:
        into = Path(temporary)
        if "decoder" in wanted:
            _write_decoder(model, into, precision)
        if "image" in wanted:
            _write_part(encoder_part(model.network), into, precision)
        if "text" in wanted:
            _write_part(text_part(model.network), into, precision)
            if (tokenizer := model.network.text_encoder.tokenizer_json) is not None:
                (into / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        for path in sorted(into.iterdir()):
            target = out / path.name
            os.replace(path, target)
            written.append(target)
    return written


def _cache_key(weights: str, precision: str) -> str:
    """Of the weights, the form, and the code that the graphs are made of."""
    code = b"".join(path.read_bytes() for path in (Path(decoder.__file__), Path(parts_module.__file__)))
    told = f"{weights} {FORMAT} {OPSET} {precision} ".encode()
    return hashlib.sha256(told + hashlib.sha256(code).digest()).hexdigest()[:32]


def _check(model: Model, precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected {', '.join(PRECISIONS)}, got {precision!r}")
    if not isinstance(model.network, SEEM) or not isinstance(model.network.config, SEEMConfig):
        raise ValueError(f"export: expected a model of the seem-tiny kind, got {model.name}")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError('export needs onnx and onnxscript: pip install "seem-segment[onnx]"') from error


# ---- files --------------------------------------------------------------------------------------------------------


def _complete(folder: Path) -> dict[str, Path] | None:
    """The decoder's files, if all of them lie there whole."""
    try:
        described = json.loads((folder / "decoder.json").read_text(encoding="utf-8"))["files"]
        paths = {name: folder / name for name in described}
        if any(paths[name].stat().st_size != file["bytes"] for name, file in described.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return paths | {"decoder.json": folder / "decoder.json"}


def _write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """A folder that appears with all its files at once; one that another process made meanwhile is as good."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".export-"))
    try:
        write(temporary)
        temporary.chmod(0o755)
        if folder.exists() and _complete(folder) is None:
            shutil.rmtree(folder)
        try:
            temporary.rename(folder)
        except OSError:
            if _complete(folder) is None:
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_decoder_folder(model: Model, folder: Path, precision: str) -> None:
    _write_folder(folder, lambda into: _write_decoder(model, into, precision))


def _write_decoder(model: Model, folder: Path, precision: str) -> None:
    network = model.network if model.device.type == "cpu" else copy.deepcopy(model.network).cpu()
    parts = decoder_parts(network)
    for part in parts:
        _write_part(part, folder, precision)
    config = network.config
    c = config.prompt_decoder
    document = {
        "version": FORMAT,
        "model": model.name,
        "weights": model.weights,
        "precision": precision,
        "pad_multiple": config.image.pad_multiple,
        "mask_stride": 4,
        "dim": c.dim,
        "joint_dim": config.pixel_decoder.joint_dim,
        "max_points": c.max_points,
        "memory_tokens": c.memory_tokens,
        "mask_logit": MASK_PROMPT_LOGIT,
        "max_text_tokens": MAX_TEXT_TOKENS,
        "graphs": {part.name: _signature(part) for part in parts},
        "files": {path.name: _describe(path) for path in sorted(folder.glob("*.onnx"))},
    }
    (folder / "decoder.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


def _signature(part: Part) -> dict[str, Any]:
    def entry(array: Array) -> dict[str, Any]:
        return {"dtype": array.dtype, "shape": list(array.shape)}

    return {
        "inputs": {name: entry(array) for name, array in part.inputs.items()},
        "outputs": list(part.outputs),
    }


def _describe(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


# ---- graphs -------------------------------------------------------------------------------------------------------


def _write_part(part: Part, folder: Path, precision: str) -> None:
    import onnx

    model = export_part(part)
    pack_weights(model, precision)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / f"{part.name}.onnx"))


def export_part(part: Part) -> onnx.ModelProto:
    """One graph with float32 weights, all symbols of its inputs' shapes being free."""
    dims: dict[str, Any] = {}
    shapes = {name: _dynamic(array, dims) for name, array in part.inputs.items()}
    generator = torch.Generator().manual_seed(0)
    examples = {name: array.example(generator) for name, array in part.inputs.items()}
    training = part.module.training
    with torch.no_grad(), _quiet(), as_operators(part.module) as translations:
        program = torch.onnx.export(
            part.module.eval(),
            kwargs=examples,
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            custom_translation_table=translations,
            verbose=False,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
        )
    part.module.train(training)
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _forget_origin(model)
    return model


def _dynamic(array: Array, dims: dict[str, Any]) -> dict[int, Any]:
    """The free axes of an input, as `torch.export` wants them named."""
    axes: dict[int, Any] = {}
    for axis, size in enumerate(array.shape):
        if isinstance(size, str):
            *factor, symbol = size.split("*")
            dim = dims.setdefault(symbol, torch.export.Dim(symbol))
            axes[axis] = int(factor[0]) * dim if factor else dim
    return axes


def _forget_origin(model: onnx.ModelProto) -> None:
    """Stack traces and paths of the machine that exported are nobody's business, and take room."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of packages that it could also have used."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def pack_weights(model: onnx.ModelProto, precision: str) -> None:
    """Store the float32 weights of a graph smaller, in place; `export_onnx` says what the precisions mean.

    int8 is for tensors of two axes and more, with a scale per channel of the axis that rounds least (which of the axes
    is the output channel depends on the operator); other tensors become float16. Tensors of fewer than `SMALL`
    elements, and such as float16 cannot hold, stay as they are.
    """
    from onnx import TensorProto, helper, numpy_helper

    if precision == "fp32":
        return
    kept: list[Any] = []
    nodes: list[Any] = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor) if tensor.data_type == TensorProto.FLOAT else None
        if values is None or values.size < SMALL or not np.isfinite(values).all():
            kept.append(tensor)
            continue
        name = tensor.name
        found = quantize(values) if precision != "fp16" and values.ndim >= 2 else None
        if found is not None and precision == "packed" and np.abs(found[0] - values / found[1]).max() > EXACT:
            found = None
        if found is not None:
            whole, scale = found
            kept += [numpy_helper.from_array(whole, f"{name}.int8"), numpy_helper.from_array(scale, f"{name}.scale")]
            nodes.append(helper.make_node("Cast", [f"{name}.int8"], [f"{name}.float"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name]))
        elif np.abs(values).max() < np.finfo(np.float16).max:
            kept.append(numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
            nodes.append(helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
        else:
            kept.append(tensor)
    rest = list(model.graph.node)
    del model.graph.initializer[:]
    del model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes + rest)


def quantize(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(…) float32 -> int8 in -127..127 and float32 scales that multiply it back, one per channel of the best axis.

    >>> whole, scale = quantize(np.array([[127.0, 1.0], [0.5, -0.25]], np.float32))
    >>> bool(np.abs(whole * scale - [[127, 1], [0.5, -0.25]]).max() < 0.002), scale.shape
    (True, (2, 1))
    """
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for axis in (0, 1):
        others = tuple(a for a in range(values.ndim) if a != axis)
        scale = (np.abs(values).max(others, keepdims=True) / 127).astype(np.float32)
        scale[scale == 0] = 1  # a channel of zeros stays zeros
        whole = np.clip(np.rint(values / scale), -127, 127)
        error = float(np.square(whole * scale - values).sum())
        if best is None or error < best[0]:
            best = (error, whole.astype(np.int8), scale)
    assert best is not None
    return best[1], best[2]
