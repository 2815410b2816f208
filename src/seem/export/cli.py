"""`seem export onnx`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from seem.export.files import PARTS, PRECISIONS, export_onnx
from seem.options import DEFAULT_MODEL, InputError, ModelOption, input_errors, load_model

export_app = typer.Typer(
    name="export",
    help="Write a model's parts as files for other runtimes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@export_app.callback()
def _export() -> None:
    """Write a model's parts as files for other runtimes."""


@export_app.command(short_help="ONNX files of the prompt decoder and the encoders.")
def onnx(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder; it is made if it is not there.")],
    model: ModelOption = DEFAULT_MODEL,
    precision: Annotated[
        str, typer.Option(metavar="|".join(PRECISIONS), help="How weights are stored; all compute in float32.")
    ] = "fp32",
    parts: Annotated[
        str, typer.Option(metavar="A,B,C", help="Which: decoder (prepare, maps, decode), image, text.")
    ] = ",".join(PARTS),
) -> None:
    """Write the prompt decoder, the image encoder and the text encoder as ONNX files.

    Sizes of images and numbers of prompts and objects are free. docs/export.md says what goes in and what comes out.

    \b
    Example:
      seem export onnx --out onnx --precision fp16 --parts decoder
    """
    wanted = [part.strip() for part in parts.split(",") if part.strip()]
    if not wanted or set(wanted) - set(PARTS):
        raise InputError(f"--parts: expected some of {', '.join(PARTS)}, got {parts!r}")
    if precision not in PRECISIONS:
        raise InputError(f"--precision: expected {', '.join(PRECISIONS)}, got {precision!r}")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: expected a folder, got a file: {out}")
    loaded = load_model(model, "cpu")
    with input_errors(), redirect_stdout(sys.stderr):  # the exporter prints
        written = export_onnx(loaded, out, precision, wanted)
    for path in written:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
