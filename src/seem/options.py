"""What the commands share: options, prompts made of their values, loading, and how bad input is told.

Nothing here imports torch or numpy before a command asks for it: `seem --help` stays quick.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_type_hints

import typer

if TYPE_CHECKING:
    import numpy as np

    from seem.predict.model import Model
    from seem.predict.scene import Scene
    from seem.prompts import Prompt, Text, VisualPromptType

DEFAULT_MODEL = "seem-tiny"

T = TypeVar("T")


class InputError(Exception):
    """Something that the user gave is wrong; the message is one line."""


@contextmanager
def input_errors(name: str = "") -> Iterator[None]:
    """What goes wrong in here is the user's input, and its name goes in front of the message."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        raise InputError(f"{name}: {text}" if name else text) from error


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
QuickOption = Annotated[
    bool, typer.Option("--quick", help="Of --text: look only where the words point; misses more, a tenth of the time.")
]
TilesOption = Annotated[
    int | None,
    typer.Option(
        "--tiles", metavar="PIXELS", help="Look at a large image in tiles of this side, 1024 say; up to 1e9 pixels."
    ),
]
ZoomOption = Annotated[
    bool,
    typer.Option(
        "--zoom", help="Outline in a window of its own what has three clicks or a drawing, and what a text finds."
    ),
]
VocabularyOption = Annotated[
    list[str] | None,
    typer.Option("--vocabulary", metavar="A,B,C", help="Names to choose labels from. Default: COCO's 133."),
]


def _values(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text)


CLICK, BOX, POINTS = "X,Y", "X0,Y0,X1,Y1", '"X,Y X,Y …"'

ClickOption = Annotated[list[str] | None, _values("--click", CLICK, "A pixel of the object.")]
NegativeOption = Annotated[list[str] | None, _values("--negative", CLICK, "A pixel that is not it.")]
BoxOption = Annotated[list[str] | None, _values("--box", BOX, "A box around the object.")]
ScribbleOption = Annotated[list[str] | None, _values("--scribble", POINTS, "A stroke on the object.")]
NegativeScribbleOption = Annotated[
    list[str] | None, _values("--negative-scribble", POINTS, "A stroke on what is not it.")
]
ScribbleWidthOption = Annotated[
    float, _values("--scribble-width", "PIXELS", "The brush's width in pixels, of all scribbles.")
]
PolygonOption = Annotated[list[str] | None, _values("--polygon", POINTS, "An area of the object.")]
NegativePolygonOption = Annotated[list[str] | None, _values("--negative-polygon", POINTS, "An area that is not it.")]
MaskOption = Annotated[list[str] | None, _values("--mask", "FILE", "A black and white mask of it.")]
TextOption = Annotated[list[str] | None, _values("--text", "PHRASE", "What it is called.")]
AudioOption = Annotated[str | None, _values("--audio", "FILE.wav", "Its name, spoken; one of COCO's, or of the next.")]
AudioNamesOption = Annotated[list[str] | None, _values("--audio-names", "A,B,C", "Names that may be spoken.")]
ReferenceOption = Annotated[
    list[str] | None, _values("--reference", "IMAGE", "Another photo that shows one; with --reference-…")
]
ReferenceClickOption = Annotated[list[str] | None, _values("--reference-click", CLICK, "It is here.")]
ReferenceBoxOption = Annotated[list[str] | None, _values("--reference-box", BOX, "It is in there.")]
ReferenceScribbleOption = Annotated[list[str] | None, _values("--reference-scribble", POINTS, "It is along here.")]
ReferencePolygonOption = Annotated[list[str] | None, _values("--reference-polygon", POINTS, "It is this area.")]
ReferenceMaskOption = Annotated[list[str] | None, _values("--reference-mask", "FILE", "It is this mask.")]


@dataclass(frozen=True)
class PromptOptions:
    """What a command was given as prompts; `takes_prompts` makes options of the fields."""

    click: ClickOption = None
    negative: NegativeOption = None
    box: BoxOption = None
    scribble: ScribbleOption = None
    negative_scribble: NegativeScribbleOption = None
    scribble_width: ScribbleWidthOption = 5.0
    polygon: PolygonOption = None
    negative_polygon: NegativePolygonOption = None
    mask: MaskOption = None
    text: TextOption = None
    reference: ReferenceOption = None
    reference_click: ReferenceClickOption = None
    reference_box: ReferenceBoxOption = None
    reference_scribble: ReferenceScribbleOption = None
    reference_polygon: ReferencePolygonOption = None
    reference_mask: ReferenceMaskOption = None

    @property
    def references(self) -> list[str]:
        """The other photos."""
        return self.reference or []

    def drawn(self) -> list[VisualPromptType]:
        """Prompts on the image itself. Raises InputError."""
        with input_errors():
            return _visual_prompts(vars(self), self.scribble_width, "")

    def texts(self) -> list[Text]:
        """Phrases. Raises InputError."""
        from seem.prompts import Text

        return parse_each("--text", self.text, Text)

    def regions(self) -> list[VisualPromptType]:
        """Regions of the other photos. Raises InputError."""
        start = "reference_"
        given = {name.removeprefix(start): value for name, value in vars(self).items() if name.startswith(start)}
        with input_errors():
            return _visual_prompts(given, self.scribble_width, "reference-")


def takes_prompts(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter ``asked: PromptOptions`` stands for all of those options."""
    options = get_type_hints(PromptOptions, include_extras=True)

    @wraps(command)
    def run(**given: Any) -> None:
        asked = PromptOptions(**{name: given.pop(name) for name in options})
        command(asked=asked, **given)

    parameters: list[Parameter] = []
    for parameter in signature(command, eval_str=True).parameters.values():
        if parameter.annotation is PromptOptions:
            parameters += [
                Parameter(f.name, Parameter.KEYWORD_ONLY, default=f.default, annotation=options[f.name])
                for f in fields(PromptOptions)
            ]
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {}  # typer is to look at the signature alone
    return run


# ---- prompts from options -----------------------------------------------------------------------------------------


def prompt_type(name: str) -> Any:
    """A prompt class; `seem.prompts` is imported late, because `seem --help` needs none of it."""
    import seem

    return getattr(seem, name)


def parse_each(option: str, values: Sequence[str] | None, make: Callable[[str], T]) -> list[T]:
    """What each value of a repeated option becomes; `option` goes in front of a complaint."""
    made = []
    for value in values or []:
        with input_errors(option):
            made.append(make(value))
    return made


def spoken_prompt(audio: str | None, names: Sequence[str] | None) -> list[Any]:
    """The text that somebody says in a file, if there is one."""
    if audio is None:
        if names:
            raise InputError("--audio-names: expected --audio FILE.wav beside it")
        return []
    from seem.friends.speech import hear
    from seem.prompts import Text

    allowed = None if names is None else [part.strip() for part in ",".join(names).split(",")]
    with input_errors("--audio"):
        return [Text(hear(audio, allowed))]


def _visual_prompts(given: Mapping[str, Sequence[str] | None], width: float, prefix: str) -> list[VisualPromptType]:
    """Prompts of the values of each option, in the order below; `prefix` is how the options begin, for messages."""
    from seem.prompts import Box, Click, Mask, Polygon, Scribble

    make: dict[str, Callable[[str], VisualPromptType]] = {
        "click": lambda v: Click(*_point(v)),
        "negative": lambda v: Click(*_point(v), positive=False),
        "box": lambda v: Box(*_numbers(v, 4, BOX)),
        "scribble": lambda v: Scribble(_points(v), width=width),
        "negative_scribble": lambda v: Scribble(_points(v), False, width),
        "polygon": lambda v: Polygon(_points(v)),
        "negative_polygon": lambda v: Polygon(_points(v), False),
        "mask": lambda v: Mask(_read_mask(v)),
    }
    return [
        prompt
        for name, one in make.items()
        for prompt in parse_each(f"--{prefix}{name.replace('_', '-')}", given.get(name), one)
    ]


def pair_references(images: Sequence[str], regions: Sequence[VisualPromptType]) -> list[tuple[str, VisualPromptType]]:
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


def _point(text: str, form: str = CLICK) -> tuple[float, float]:
    x, y = _numbers(text, 2, form)
    return x, y


def _points(text: str) -> tuple[tuple[float, float], ...]:
    parts = text.replace(", ", ",").split()
    if not parts:
        raise ValueError(f"expected {POINTS}, got {text[:60]!r}")
    return tuple(_point(part, POINTS) for part in parts)


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


def read_json(path: str) -> Any:
    """The content of a --prompts file."""
    with input_errors("--prompts"):
        try:
            return json.loads(Path(path).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: expected JSON: {error}") from None


def parse_objects(path: str, document: Any, references: dict[str, Scene]) -> list[list[Prompt]]:
    """The prompts of each object of a --prompts file: one object or a list of them."""
    from seem.prompts import object_from_json

    with input_errors(f"--prompts {path}"):
        entries = document if isinstance(document, list) else [document]
        if not entries:
            raise ValueError("expected at least one object, got none")
        parsed = [object_from_json(entry, references.__getitem__) for entry in entries]
        ids = [number for number, _ in parsed]
        if len(set(ids)) != len(ids):
            raise ValueError(f"expected every object's id once, got {ids}")
        return [prompts for _, prompts in parsed]


def parse_names(values: Sequence[str] | None) -> list[str | tuple[str, str]] | None:
    """ "a,b:stuff" -> ["a", ("b", "stuff")], checked."""
    if values is None:
        return None
    from seem.vocabulary import parse_vocabulary

    names: list[str | tuple[str, str]] = []
    for part in ",".join(values).split(","):
        name, _, kind = part.strip().partition(":")
        names.append((name.strip(), kind.strip()) if kind else name)
    with input_errors("--vocabulary"):
        parse_vocabulary(names)
    return names


# ---- work ---------------------------------------------------------------------------------------------------------


def read_image(path: str, tiles: int | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB; with --tiles it may be larger."""
    from seem.images import MAX_PIXELS, load_image

    if tiles is not None:
        from seem.predict.tiles import MAX_PIXELS
    with input_errors():
        return load_image(path, MAX_PIXELS)


def load_model(name: str, device: str) -> Model:
    """`seem.load` for --model and --device."""
    import seem
    from seem.predict.model import pick_device

    with input_errors("--device"):
        pick_device(device)
    with input_errors("--model"):
        return seem.load(name, device=device)


def encode(model: Model, pixels: np.ndarray, tiles: int | None = None, zoom: bool = False) -> Scene:
    """`Model.encode` of what the user gave; with --tiles or --zoom `encode_large`, which answers the same questions."""
    if tiles is None and not zoom:
        with input_errors():
            return model.encode(pixels)
    from seem.predict.tiles import TILE

    with input_errors("--tiles"):
        return cast("Scene", model.encode_large(pixels, tile=TILE if tiles is None else tiles, zoom=zoom))


def print_json(document: dict[str, Any]) -> None:
    """One document on stdout."""
    print(json.dumps(document))
