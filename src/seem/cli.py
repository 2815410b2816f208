"""The command `seem`.

Exit codes: 0; 2 for bad usage or bad input, with one line on stderr; 1 for any other failure, also in one line
(set SEEM_TRACEBACK=1 to see where it happened). `--json` prints one JSON document on stdout and nothing else.
Nothing is written before everything succeeded. torch is imported by the commands that need it, not by `seem --help`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    import numpy as np

    from seem.predict.model import Model
    from seem.predict.scene import Scene
    from seem.predict.segmentation import Segmentation
    from seem.prompts import Prompt, VisualPromptType

DEFAULT_MODEL = "seem-tiny"
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
TRACEBACK = "SEEM_TRACEBACK"

# Typer's copy of click is private and has moved before; its base classes are reached through what Typer exports.
_UsageError: type[Exception]
_ClickException: type[Exception]
_UsageError, _ClickException = typer.BadParameter.__mro__[1:3]

T = TypeVar("T")

app = typer.Typer(
    name="seem",
    help="Segment anything in a photo from clicks, boxes, scribbles, polygons, masks, text and other photos.",
    epilog="Example:  seem segment photo.jpg --click 320,200 --out overlay.png",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


class InputError(Exception):
    """Something that the user gave is wrong; the message is one line."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        code = app(args=args, prog_name="seem", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except InputError as error:
        return _report(str(error), 2)
    except _ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(getattr(error, "message", ""))
            return 2
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        message = error.format_message()  # type: ignore[attr-defined]
        return _report(f"{message}{hint}", 2 if isinstance(error, _UsageError) else 1)
    except (KeyboardInterrupt, typer.Abort):
        return _report("interrupted", 1)
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        return _report(f"failed: {type(error).__name__}: {error} (set {TRACEBACK}=1 for the traceback)", 1)


def _report(message: str, code: int) -> int:
    print("seem: " + " ".join(message.split()), file=sys.stderr)
    return code


@contextmanager
def _input(name: str = "") -> Iterator[None]:
    """What goes wrong in here is the user's input, and its name goes in front of the message."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        raise InputError(f"{name}: {text}" if name else text) from error


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        from seem import __version__

        print(__version__)
        raise typer.Exit


# ---- options that several commands share ---------------------------------------------------------------------------

ImageArgument = Annotated[str, typer.Argument(metavar="IMAGE", help="The photo: JPEG, PNG, WebP, BMP, TIFF or GIF.")]
ModelOption = Annotated[str, typer.Option("--model", metavar="NAME|FILE", help="A model's name or weights file.")]
DeviceOption = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or mps.")]
OutOption = Annotated[
    str | None,
    typer.Option("--out", metavar="FILE", help="The picture: .png, .jpg or .webp. Default: IMAGE-seem.png, here."),
]
MaskOutOption = Annotated[str | None, typer.Option("--mask-out", metavar="FILE", help="The mask as a .png.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document; no picture unless --out.")]
VocabularyOption = Annotated[
    list[str] | None,
    typer.Option("--vocabulary", metavar="A,B,C", help="Names to choose labels from. Default: COCO's 133."),
]


def _points_option(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text)


_CLICK, _BOX, _POINTS = "X,Y", "X0,Y0,X1,Y1", '"X,Y X,Y …"'


# ---- segment ------------------------------------------------------------------------------------------------------


@app.command(short_help="Segment one object from prompts.")
def segment(
    image: ImageArgument,
    click: Annotated[list[str] | None, _points_option("--click", _CLICK, "A pixel of the object.")] = None,
    negative: Annotated[list[str] | None, _points_option("--negative", _CLICK, "A pixel that is not it.")] = None,
    box: Annotated[list[str] | None, _points_option("--box", _BOX, "A box around the object.")] = None,
    scribble: Annotated[list[str] | None, _points_option("--scribble", _POINTS, "A stroke on the object.")] = None,
    negative_scribble: Annotated[
        list[str] | None, _points_option("--negative-scribble", _POINTS, "A stroke on what is not it.")
    ] = None,
    scribble_width: Annotated[
        float, typer.Option(metavar="PIXELS", help="The brush's width in pixels, of all scribbles.")
    ] = 5.0,
    polygon: Annotated[list[str] | None, _points_option("--polygon", _POINTS, "An area of the object.")] = None,
    negative_polygon: Annotated[
        list[str] | None, _points_option("--negative-polygon", _POINTS, "An area that is not it.")
    ] = None,
    mask: Annotated[list[str] | None, typer.Option(metavar="FILE", help="A black and white mask of it.")] = None,
    text: Annotated[list[str] | None, typer.Option(metavar="PHRASE", help="What it is called.")] = None,
    reference: Annotated[
        list[str] | None, typer.Option(metavar="IMAGE", help="Another photo that shows one; with --reference-…")
    ] = None,
    reference_click: Annotated[list[str] | None, _points_option("--reference-click", _CLICK, "It is here.")] = None,
    reference_box: Annotated[list[str] | None, _points_option("--reference-box", _BOX, "It is in there.")] = None,
    reference_scribble: Annotated[
        list[str] | None, _points_option("--reference-scribble", _POINTS, "It is along here.")
    ] = None,
    reference_polygon: Annotated[
        list[str] | None, _points_option("--reference-polygon", _POINTS, "It is this area.")
    ] = None,
    reference_mask: Annotated[list[str] | None, typer.Option(metavar="FILE", help="It is this mask.")] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE.json", help='Objects: [{"id": 1, "prompts": [{"type": "click", …}]}, …].'),
    ] = None,
    vocabulary: VocabularyOption = None,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    out: OutOption = None,
    mask_out: MaskOutOption = None,
    json_: JsonOption = False,
) -> None:
    """Segment one object from any mix of prompts, or several from a file.

    Coordinates are pixels of the photo as it is seen, x to the right and y down from the top left. All prompts of
    one call are about one object; options repeat. With --prompts the mask holds each object's number, from 1.

    \b
    Examples:
      seem segment cat.jpg --click 210,150 --negative 20,30 --out overlay.png
      seem segment cat.jpg --text cat --mask-out mask.png --json
      seem segment street.jpg --reference car.jpg --reference-box 40,60,300,200
    """
    outputs = _Outputs(image, picture=out, mask=mask_out, default=not json_ and mask_out is None)
    with _input():
        drawn: list[Prompt] = _visual(click, negative, box, scribble, negative_scribble, scribble_width, polygon,
                                      negative_polygon, mask, "--")  # fmt: skip
        drawn += _each("--text", text, _prompt_type("Text"))
        regions = _regions(reference_click, reference_box, reference_scribble, reference_polygon, reference_mask,
                           scribble_width)  # fmt: skip
    document = None if prompts is None else _read_json(prompts)
    if document is None:
        pairs = _pair(reference or [], regions)
        if not drawn and not pairs:
            raise InputError("expected at least one prompt: --click, --box, --scribble, --text, … (see --help)")
    elif drawn or regions:
        raise InputError("--prompts: expected no other prompt beside it, only --reference for the images it names")
    pixels = _load_image(image)
    names = _parse_vocabulary(vocabulary)
    loaded = _load_model(model, device)
    scene = _encode(loaded, pixels)
    references = {path: _encode(loaded, _load_image(path)) for path in reference or []}
    if document is None:
        from seem.prompts import Reference

        with _input("--reference"):
            objects = [drawn + [Reference(references[path], region) for path, region in pairs]]
    else:
        objects = _objects(prompts or "", document, {scene.digest: scene for scene in references.values()})
    with _input("" if document is None else f"--prompts {prompts}"):
        if document is None:
            results = [scene.segment(*objects[0], vocabulary=names)]
        else:
            results = scene.segment_all(objects, vocabulary=names)
    outputs.write_segments(pixels, results, [p for each in objects for p in each], numbered=document is not None)
    _print_segments(scene, results, outputs, json_)


@app.command(short_help="Find every instance of a phrase.")
def find(
    image: ImageArgument,
    text: Annotated[list[str], typer.Option(metavar="PHRASE", help="What to look for.")],
    threshold: Annotated[float | None, typer.Option(help="Least score of a result, 0 to 1.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many of each phrase.")] = None,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    out: OutOption = None,
    mask_out: MaskOutOption = None,
    json_: JsonOption = False,
) -> None:
    """Find every instance that a text names, best first; there may be none.

    The mask holds each result's number, from 1; 0 is none.

    \b
    Example:
      seem find street.jpg --text "car" --text "traffic light" --out found.png
    """
    outputs = _Outputs(image, picture=out, mask=mask_out, default=not json_ and mask_out is None)
    with _input():
        phrases = _each("--text", text, _prompt_type("Text"))
    pixels = _load_image(image)
    scene = _encode(_load_model(model, device), pixels)
    options: dict[str, Any] = {"limit": limit} | ({} if threshold is None else {"threshold": threshold})
    with _input():
        results = [result for phrase in phrases for result in scene.find(phrase.text, **options)]
    results.sort(key=lambda result: -result.score)
    outputs.write_segments(pixels, results, phrases, numbered=True)
    _print_segments(scene, results, outputs, json_)


@app.command(short_help="Divide the whole photo into named regions.")
def panoptic(
    image: ImageArgument,
    vocabulary: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B,C", help='Names; "sky:stuff" is stuff, else things. Default: COCO\'s 133.'),
    ] = None,
    background: Annotated[bool, typer.Option("--background", help='Give what is left to "others".')] = False,
    threshold: Annotated[float | None, typer.Option(help="Least score of a segment, 0 to 1.")] = None,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    out: OutOption = None,
    map_out: Annotated[
        str | None, typer.Option("--map-out", metavar="FILE", help="The segment ids as COCO's panoptic .png.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Divide the whole photo into named things and stuff, without any prompt.

    \b
    Examples:
      seem panoptic street.jpg --out street-panoptic.png
      seem panoptic kitchen.jpg --vocabulary "cup,kettle,wall:stuff" --background --map-out map.png --json
    """
    outputs = _Outputs(image, picture=out, mask=map_out, default=not json_ and map_out is None, mask_option="--map-out")
    pixels = _load_image(image)
    names = _parse_vocabulary(vocabulary)
    scene = _encode(_load_model(model, device), pixels)
    with _input():
        options = {} if threshold is None else {"threshold": threshold}
        result = scene.panoptic(vocabulary=names, background=background, **options)
    outputs.write(lambda: _draw(pixels, result), result.to_png)
    if json_:
        _print_json(result.to_json())
        return
    for found in result.segments:
        kind = "thing" if found.is_thing else "stuff"
        print(f"{found.id:3d}  {found.label}  ({kind}, score {found.score:.2f}, {found.area} pixels)")
    outputs.tell()


@app.command(short_help="List the models.")
def models(json_: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the models that --model knows by name.

    \b
    Example:
      seem models
    """
    from seem.checkpoints.registry import DEFAULT, MODELS

    rows: list[dict[str, Any]] = [
        {
            "name": m.name,
            "default": m.name == DEFAULT,
            "installed": m.size > 0,
            "bytes": m.size,
            "source": m.source,
            "summary": m.summary,
        }
        for m in MODELS.values()
    ]
    if json_:
        _print_json({"models": rows})
        return
    for row in rows:
        state = f"{row['bytes'] / 1e6:.1f} MB" if row["installed"] else row["source"]
        print(f"{row['name']}{' (default)' if row['default'] else ''}  {state}\n    {row['summary']}")


@app.command(short_help="Convert an official checkpoint.")
def convert(
    checkpoint: Annotated[str, typer.Argument(metavar="OFFICIAL.pt", help="A published checkpoint.")],
    out: Annotated[str, typer.Argument(metavar="OUT.safetensors", help="The file to write.")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="What it is: seem-focal-t-v1, … (seem models).")],
) -> None:
    """Convert an official SEEM checkpoint to safetensors, which --model then takes.

    The tensors of v0, v1 and demo are alike, so --as decides what the file will do.

    \b
    Example:
      seem convert seem_focalt_v1.pt focal-t.safetensors --as seem-focal-t-v1
    """
    from seem.checkpoints import official

    target = Path(out)
    if target.suffix != ".safetensors":
        raise InputError(f"OUT: expected a name that ends in .safetensors, got {out}")
    if not target.parent.is_dir():
        raise InputError(f"OUT: no such folder: {target.parent}")
    with _input():
        official.convert(checkpoint, target, name)
    print(f"wrote {out}")


# ---- commands of other parts, imported when they are called ---------------------------------------------------------

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command("eval", short_help="Measure a model on a data set.", context_settings=_PASS_ON, add_help_option=False)
def evaluate(context: typer.Context) -> None:
    """Measure a model on a data set: seem eval --help.

    \b
    Example:
      seem eval interactive $SEEM_DATA/grabcut --json
    """
    from seem.evaluation.cli import eval_app

    _pass_on(eval_app, context)


@app.command(short_help="Train a model.", context_settings=_PASS_ON, add_help_option=False)
def train(context: typer.Context) -> None:
    """Train a model: seem train --help.

    \b
    Example:
      seem train configs/seem-tiny.toml --out runs/tiny --time-budget 3600
    """
    from seem.training.cli import train_app

    _pass_on(train_app, context)


@app.command(short_help="Teach a model the objects of a COCO file.")
def finetune(
    images: Annotated[Path, typer.Option(help="Folder of the photos.")],
    coco: Annotated[Path, typer.Option(help="COCO instances JSON: polygons or run lengths.")],
    out: Annotated[Path, typer.Option(help="Folder for the model and the report; a stopped run goes on.")],
    start: Annotated[str, typer.Option("--from", help="Model to begin with, by name or path.")] = "seem-tiny",
    steps: Annotated[int, typer.Option(min=1, help="Training steps of two photos.")] = 150,
    time_budget: Annotated[float | None, typer.Option(min=0, help="Stop after this many seconds.")] = None,
    mix: Annotated[Path | None, typer.Option(help="A data set whose photos are mixed in, to keep more.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split and of everything that is drawn.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")] = False,
) -> None:
    """Teach a model the objects of a COCO file; a fifth of the photos is held out and measured before and after.

    \b
    Example:
      seem finetune --images photos --coco instances.json --out mine
    """
    from seem.training.finetune import FinetuneConfig, table
    from seem.training.finetune import finetune as run

    with _input(), redirect_stdout(sys.stderr):
        config = FinetuneConfig(steps=steps, seed=seed)
        result = run(images, coco, out, start, config, time_budget, mix, lambda line: typer.echo(line, err=True))
    typer.echo(json.dumps(result, indent=1) if as_json else table(result))
    typer.echo(f"{out / 'model.safetensors'}: seem segment PHOTO --model {out / 'model.safetensors'} …", err=True)


@app.command(short_help="Follow objects through a video.", context_settings=_PASS_ON, add_help_option=False)
def video(context: typer.Context) -> None:
    """Follow objects through a video: seem video --help.

    \b
    Example:
      seem video dog.mp4 overlay.mp4 --click 320,200
    """
    from seem.video.cli import video_app

    _pass_on(video_app, context)


@app.command(short_help="Serve a model and the page over HTTP.", context_settings=_PASS_ON, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Serve a model and the page over HTTP: seem serve --help.

    \b
    Example:
      seem serve --port 8000
    """
    from seem.serving.cli import serve_app

    _pass_on(serve_app, context)


@app.command(short_help="Write a model as ONNX files.", context_settings=_PASS_ON, add_help_option=False)
def export(context: typer.Context) -> None:
    """Write a model's parts as files for other runtimes: seem export --help.

    \b
    Example:
      seem export onnx --out onnx --precision fp16
    """
    from seem.export.cli import export_app

    _pass_on(export_app, context)


def _pass_on(sub_app: typer.Typer, context: typer.Context) -> None:
    code = sub_app(args=context.args, prog_name=context.command_path, standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else 0)


# ---- prompts from options -----------------------------------------------------------------------------------------


def _prompt_type(name: str) -> Any:
    """A prompt class; `seem.prompts` is imported late, because `seem --help` needs none of it."""
    import seem

    return getattr(seem, name)


def _each(option: str, values: Sequence[str] | None, make: Callable[[str], T]) -> list[T]:
    made = []
    for value in values or []:
        with _input(option):
            made.append(make(value))
    return made


def _visual(
    click: Sequence[str] | None,
    negative: Sequence[str] | None,
    box: Sequence[str] | None,
    scribble: Sequence[str] | None,
    negative_scribble: Sequence[str] | None,
    width: float,
    polygon: Sequence[str] | None,
    negative_polygon: Sequence[str] | None,
    mask: Sequence[str] | None,
    prefix: str,
) -> list[Any]:
    """Prompts in the order of this signature; `prefix` is how their options begin, for messages."""
    from seem.prompts import Box, Click, Mask, Polygon, Scribble

    return [
        *_each(f"{prefix}click", click, lambda v: Click(*_point(v))),
        *_each(f"{prefix}negative", negative, lambda v: Click(*_point(v), positive=False)),
        *_each(f"{prefix}box", box, lambda v: Box(*_numbers(v, 4, _BOX))),
        *_each(f"{prefix}scribble", scribble, lambda v: Scribble(_points(v), width=width)),
        *_each(f"{prefix}negative-scribble", negative_scribble, lambda v: Scribble(_points(v), False, width)),
        *_each(f"{prefix}polygon", polygon, lambda v: Polygon(_points(v))),
        *_each(f"{prefix}negative-polygon", negative_polygon, lambda v: Polygon(_points(v), False)),
        *_each(f"{prefix}mask", mask, lambda v: Mask(_read_mask(v))),
    ]


def _regions(
    click: Sequence[str] | None,
    box: Sequence[str] | None,
    scribble: Sequence[str] | None,
    polygon: Sequence[str] | None,
    mask: Sequence[str] | None,
    width: float,
) -> list[VisualPromptType]:
    return _visual(click, None, box, scribble, None, width, polygon, None, mask, "--reference-")


def _pair(images: Sequence[str], regions: Sequence[VisualPromptType]) -> list[tuple[str, VisualPromptType]]:
    """Which region is of which reference image: all of one image, or one of each, in order, of one kind."""
    if not images and not regions:
        return []
    if not images or not regions:
        raise InputError("--reference: expected an image and --reference-box (-click, -mask, …), got only one of them")
    if len(images) == 1:
        return [(images[0], region) for region in regions]
    if len(images) != len(regions) or len({type(region) for region in regions}) != 1:
        raise InputError(f"--reference: expected {len(images)} regions of one kind, in the order of the images")
    return list(zip(images, regions, strict=True))


def _numbers(text: str, count: int, form: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise ValueError(f"expected {form}, got {text[:60]!r}")
    return values


def _point(text: str, form: str = _CLICK) -> tuple[float, float]:
    x, y = _numbers(text, 2, form)
    return x, y


def _points(text: str) -> tuple[tuple[float, float], ...]:
    parts = text.replace(", ", ",").split()
    if not parts:
        raise ValueError(f"expected {_POINTS}, got {text[:60]!r}")
    return tuple(_point(part, _POINTS) for part in parts)


def _read_mask(path: str) -> np.ndarray:
    """(H, W) bool of a black and white picture."""
    import numpy as np

    from seem.images import load_image

    pixels = load_image(path)
    levels = np.unique(pixels.reshape(-1, 3), axis=0)
    white = levels[levels.any(axis=1)]
    if len(white) > 1 or (len(white) == 1 and white[0].tolist() not in ([1] * 3, [255] * 3)):
        raise ValueError(f"{path}: expected a black and white mask (0 and 255), got {len(levels)} colours")
    result: np.ndarray = pixels[:, :, 0] > 0
    return result


def _read_json(path: str) -> Any:
    with _input("--prompts"):
        try:
            return json.loads(Path(path).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: expected JSON: {error}") from None


def _objects(path: str, document: Any, references: dict[str, Scene]) -> list[list[Prompt]]:
    """The prompts of each object of a --prompts file: one object or a list of them."""
    from seem.prompts import object_from_json

    with _input(f"--prompts {path}"):
        entries = document if isinstance(document, list) else [document]
        if not entries:
            raise ValueError("expected at least one object, got none")
        parsed = [object_from_json(entry, references.__getitem__) for entry in entries]
        ids = [number for number, _ in parsed]
        if len(set(ids)) != len(ids):
            raise ValueError(f"expected every object's id once, got {ids}")
        return [prompts for _, prompts in parsed]


def _parse_vocabulary(values: Sequence[str] | None) -> list[str | tuple[str, str]] | None:
    """ "a,b:stuff" -> ["a", ("b", "stuff")], checked."""
    if values is None:
        return None
    from seem.vocabulary import parse_vocabulary

    names: list[str | tuple[str, str]] = []
    for part in ",".join(values).split(","):
        name, _, kind = part.strip().partition(":")
        names.append((name.strip(), kind.strip()) if kind else name)
    with _input("--vocabulary"):
        parse_vocabulary(names)
    return names


# ---- work ---------------------------------------------------------------------------------------------------------


def _load_image(path: str) -> np.ndarray:
    from seem.images import load_image

    with _input():
        return load_image(path)


def _load_model(name: str, device: str) -> Model:
    import seem
    from seem.predict.model import pick_device

    with _input("--device"):
        pick_device(device)
    with _input("--model"):
        return seem.load(name, device=device)


def _encode(model: Model, pixels: np.ndarray) -> Scene:
    with _input():
        return model.encode(pixels)


def _draw(pixels: np.ndarray, result: Any, prompts: Sequence[Prompt] = ()) -> Any:
    import seem

    return seem.draw(pixels, result, prompts)


# ---- output -------------------------------------------------------------------------------------------------------


class _Outputs:
    """The files a command writes: checked before the work, written after all of it succeeded."""

    def __init__(
        self, image: str, picture: str | None, mask: str | None, default: bool, mask_option: str = "--mask-out"
    ) -> None:
        if picture is None and default:
            picture = re.sub(r"\.[^.]*$", "", Path(image).name) + "-seem.png"
        self.picture = None if picture is None else self._check("--out", picture, tuple(PICTURES), image)
        self.mask = None if mask is None else self._check(mask_option, mask, (".png",), image)
        if self.picture is not None and self.picture == self.mask:
            raise InputError(f"{mask_option}: expected another file than --out, got {mask}")

    @staticmethod
    def _check(option: str, name: str, endings: tuple[str, ...], image: str) -> Path:
        path = Path(name)
        if path.suffix.lower() not in endings:
            raise InputError(f"{option}: expected a name that ends in {', '.join(endings)}, got {name}")
        if not path.parent.is_dir():
            raise InputError(f"{option}: no such folder: {path.parent}")
        if path.is_dir():
            raise InputError(f"{option}: expected a file, got a folder: {name}")
        if path.exists() and Path(image).exists() and path.samefile(image):
            raise InputError(f"{option}: expected another file than the photo itself, got {name}")
        return path

    def write_segments(
        self, pixels: np.ndarray, results: Sequence[Segmentation], prompts: Sequence[Prompt], numbered: bool
    ) -> None:
        """A picture of the results, and a mask: of one object 0 and 255, else each object's number."""
        size = pixels.shape[:2]
        self.write(
            lambda: _draw(pixels, results, prompts),
            lambda: _number_map(size, results) if numbered else results[0].to_png(),
        )

    def write(self, picture: Callable[[], Any], mask: Callable[[], bytes]) -> None:
        """Everything is made in memory, then written under temporary names, then renamed."""
        contents: dict[Path, bytes] = {}
        if self.picture is not None:
            contents[self.picture] = _encode_picture(picture(), self.picture.suffix.lower())
        if self.mask is not None:
            contents[self.mask] = mask()
        temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
        try:
            for path, data in contents.items():
                temporary[path].write_bytes(data)
            for path in contents:
                temporary[path].replace(path)
        finally:
            for leftover in temporary.values():
                leftover.unlink(missing_ok=True)

    def tell(self) -> None:
        for path in (self.picture, self.mask):
            if path is not None:
                print(f"wrote {path}")


def _encode_picture(picture: Any, suffix: str) -> bytes:
    import io

    buffer = io.BytesIO()
    options = {} if suffix == ".png" else {"quality": 92}
    picture.save(buffer, PICTURES[suffix], **options)
    return buffer.getvalue()


def _number_map(size: tuple[int, int], results: Sequence[Segmentation]) -> bytes:
    """A grey PNG of result numbers from 1, the first on top; 16 bits if there are more than 255."""
    import io

    import numpy as np
    from PIL import Image

    numbers = np.zeros(size, np.uint8 if len(results) < 256 else np.uint16)
    for number in range(len(results), 0, -1):
        numbers[results[number - 1].mask] = number
    buffer = io.BytesIO()
    Image.fromarray(numbers).save(buffer, "PNG")
    return buffer.getvalue()


def _print_segments(scene: Scene, results: Sequence[Segmentation], outputs: _Outputs, as_json: bool) -> None:
    if as_json:
        from seem.predict.segmentation import segments_to_json

        _print_json(segments_to_json(scene.size, results))
        return
    for number, result in enumerate(results, start=1):
        name = f"{result.label} ({result.label_score:.2f})" if result.label is not None else "object"
        box = "empty" if result.box is None else "box " + ",".join(map(str, result.box))
        print(f"{number}  {name}  score {result.score:.2f}  {box}  {result.area} pixels")
    if not results:
        print("nothing found")
    outputs.tell()


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document))
