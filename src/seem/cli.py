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
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seem.options import (
    DEFAULT_MODEL,
    AudioNamesOption,
    AudioOption,
    DeviceOption,
    ImageArgument,
    InputError,
    JsonOption,
    MaskOutOption,
    ModelOption,
    OutOption,
    PromptOptions,
    QuickOption,
    TilesOption,
    VocabularyOption,
    ZoomOption,
    encode,
    input_errors,
    load_model,
    pair_references,
    parse_each,
    parse_names,
    parse_objects,
    print_json,
    prompt_type,
    read_image,
    read_json,
    spoken_prompt,
    takes_prompts,
)

if TYPE_CHECKING:
    import numpy as np

    from seem.predict.scene import Scene
    from seem.predict.segmentation import Segmentation
    from seem.prompts import Prompt

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
TRACEBACK = "SEEM_TRACEBACK"

# Typer's copy of click is private and has moved before; its base classes are reached through what Typer exports.
_UsageError: type[Exception]
_ClickException: type[Exception]
_UsageError, _ClickException = typer.BadParameter.__mro__[1:3]

app = typer.Typer(
    name="seem",
    help="Segment anything in a photo from clicks, boxes, scribbles, polygons, masks, text and other photos.",
    epilog="Example:  seem segment photo.jpg --click 320,200 --out overlay.png",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


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


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        from seem import __version__

        print(__version__)
        raise typer.Exit


# ---- segment ------------------------------------------------------------------------------------------------------


@app.command(short_help="Segment one object from prompts.")
@takes_prompts
def segment(
    image: ImageArgument,
    asked: PromptOptions,
    audio: AudioOption = None,
    audio_names: AudioNamesOption = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE.json", help='Objects: [{"id": 1, "prompts": [{"type": "click", …}]}, …].'),
    ] = None,
    vocabulary: VocabularyOption = None,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    tiles: TilesOption = None,
    zoom: ZoomOption = False,
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
      seem segment crab.jpg --box 180,110,270,170 --zoom
      seem segment street.jpg --reference car.jpg --reference-box 40,60,300,200
    """
    outputs = _Outputs(image, picture=out, mask=mask_out, default=not json_ and mask_out is None)
    drawn: list[Prompt] = [*asked.drawn(), *asked.texts(), *spoken_prompt(audio, audio_names)]
    regions = asked.regions()
    document = None if prompts is None else read_json(prompts)
    if document is None:
        pairs = pair_references(asked.references, regions)
        if not drawn and not pairs:
            raise InputError("expected at least one prompt: --click, --box, --scribble, --text, … (see --help)")
    elif drawn or regions:
        raise InputError("--prompts: expected no other prompt beside it, only --reference for the images it names")
    pixels = read_image(image, tiles)
    outputs.check_picture(pixels)
    names = parse_names(vocabulary)
    loaded = load_model(model, device)
    scene = encode(loaded, pixels, tiles, zoom)
    references = {path: encode(loaded, read_image(path)) for path in asked.references}
    if document is None:
        from seem.prompts import Reference

        with input_errors("--reference"):
            objects = [drawn + [Reference(references[path], region) for path, region in pairs]]
    else:
        objects = parse_objects(prompts or "", document, {scene.digest: scene for scene in references.values()})
    with input_errors("" if document is None else f"--prompts {prompts}"):
        if document is None:
            results = [scene.segment(*objects[0], vocabulary=names)]
        else:
            results = scene.segment_all(objects, vocabulary=names)
    outputs.write_segments(pixels, results, [p for each in objects for p in each], numbered=document is not None)
    _print_segments(scene, results, outputs, json_)


@app.command(short_help="Find every instance of a phrase.")
def find(
    image: ImageArgument,
    text: Annotated[list[str] | None, typer.Option(metavar="PHRASE", help="What to look for.")] = None,
    audio: AudioOption = None,
    audio_names: AudioNamesOption = None,
    threshold: Annotated[float | None, typer.Option(help="Least score of a result, 0 to 1.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many of each phrase.")] = None,
    quick: QuickOption = False,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    tiles: TilesOption = None,
    zoom: ZoomOption = False,
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
    with input_errors():
        phrases = parse_each("--text", text, prompt_type("Text")) + spoken_prompt(audio, audio_names)
    if not phrases:
        raise InputError("expected at least one --text, or --audio")
    pixels = read_image(image, tiles)
    outputs.check_picture(pixels)
    scene = encode(load_model(model, device), pixels, tiles, zoom)
    options: dict[str, Any] = {"limit": limit, "quick": quick}
    options |= {} if threshold is None else {"threshold": threshold}
    with input_errors():
        results = [result for phrase in phrases for result in scene.find(phrase.text, **options)]
    results.sort(key=lambda result: -result.score)
    outputs.write_segments(pixels, results, phrases, numbered=True)
    _print_segments(scene, results, outputs, json_)


@app.command(short_help="All masks of a photo, without a prompt.")
def everything(
    image: ImageArgument,
    points: Annotated[int | None, typer.Option(help="Clicks a side of the grid. Default: 32.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Least score of a mask, 0 to 1.")] = None,
    stability: Annotated[float | None, typer.Option(help="Least stability of a mask, 0 to 1.")] = None,
    overlap: Annotated[float | None, typer.Option(help="Most IoU of two masks, 0 to 1.")] = None,
    min_area: Annotated[float | None, typer.Option(help="Pixels of the smallest mask, island and hole.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many, the best.")] = None,
    vocabulary: VocabularyOption = None,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    tiles: TilesOption = None,
    out: OutOption = None,
    mask_out: MaskOutOption = None,
    json_: JsonOption = False,
) -> None:
    """All masks that clicks all over the photo give: things and their parts, named and scored, best first.

    The mask holds each result's number, from 1, the best on top; 0 is none.

    \b
    Example:
      seem everything kitchen.jpg --points 24 --out everything.png
    """
    outputs = _Outputs(image, picture=out, mask=mask_out, default=not json_ and mask_out is None)
    pixels = read_image(image, tiles)
    outputs.check_picture(pixels)
    names = parse_names(vocabulary)
    scene = encode(load_model(model, device), pixels, tiles)
    given = {"points_per_side": points, "threshold": threshold, "stability": stability, "overlap": overlap,
             "min_area": min_area, "limit": limit}  # fmt: skip
    with input_errors():
        options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        results = scene.everything(vocabulary=names, **options)
    outputs.write_segments(pixels, results, [], numbered=True)
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
    tiles: TilesOption = None,
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
    pixels = read_image(image, tiles)
    outputs.check_picture(pixels)
    names = parse_names(vocabulary)
    scene = encode(load_model(model, device), pixels, tiles)
    with input_errors():
        options = {} if threshold is None else {"threshold": threshold}
        result = scene.panoptic(vocabulary=names, background=background, **options)
    outputs.write(lambda: _draw(pixels, result), result.to_png)
    if json_:
        print_json(result.to_json())
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
        print_json({"models": rows})
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
    with input_errors():
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

    with input_errors(), redirect_stdout(sys.stderr):
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


@app.command(short_help="Segment a collection of photos.", context_settings=_PASS_ON, add_help_option=False)
def batch(context: typer.Context) -> None:
    """Segment a whole collection: seem batch --help.

    \b
    Example:
      seem batch photos --text dog --out dogs
    """
    from seem.batch.cli import batch_app

    _pass_on(batch_app, context)


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

    def check_picture(self, pixels: np.ndarray) -> None:
        """A photo that is too large to be drawn on is told before the work."""
        from seem.images import MAX_PIXELS

        if self.picture is not None and pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
            raise InputError(f"--out: expected at most {MAX_PIXELS} pixels to draw on; use --json or a mask instead")

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

        print_json(segments_to_json(scene.size, results))
        return
    for number, result in enumerate(results, start=1):
        name = f"{result.label} ({result.label_score:.2f})" if result.label is not None else "object"
        box = "empty" if result.box is None else "box " + ",".join(map(str, result.box))
        print(f"{number}  {name}  score {result.score:.2f}  {box}  {result.area} pixels")
    if not results:
        print("nothing found")
    outputs.tell()
