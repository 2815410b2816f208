"""What a user says about one object: clicks, boxes, scribbles, polygons, masks, texts and regions of other images.

Coordinates are (x, y) in pixels of the original image, origin top left; pixel (i, j) covers [i, i+1) x [j, j+1).
Prompts are immutable, compare by value, and say what is wrong with a bad value when they are made. What only the
image can tell (a click outside it, a mask of another size) is checked by `check`, which `Scene` calls.

    >>> Click(320, 200, positive=False).to_json()
    {'type': 'click', 'x': 320, 'y': 200, 'positive': False}
    >>> prompt_from_json({"type": "box", "xyxy": [40, 60, 300, 400]})
    Box(x0=40.0, y0=60.0, x1=300.0, y1=400.0)
    >>> Click(float("nan"), 3)
    Traceback (most recent call last):
    ...
    ValueError: Click.x: expected a finite number, got nan
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Protocol

import numpy as np

from seem import geometry

MAX_PROMPTS = 1000  # of one call, over all its objects
MAX_POINTS = 10_000  # of one scribble or polygon
MAX_TEXT = 1000  # characters
DEFAULT_WIDTH = 5.0  # of a scribble's brush, pixels

Point = tuple[float, float]
JSON = dict[str, Any]


class EncodedImage(Protocol):
    """What a `Reference` needs of another image; `seem.Scene` is one."""

    @property
    def digest(self) -> str:
        """ "sha256:" and 64 hex digits of the image's pixels."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the original image."""


# ---- prompts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Click:
    """A pixel that belongs to the object, or, with ``positive=False``, does not. Floats are floored."""

    x: float
    y: float
    positive: bool = True

    def __post_init__(self) -> None:
        _set(self, x=_number("Click.x", self.x), y=_number("Click.y", self.y))
        _set(self, positive=_bool("Click.positive", self.positive))

    def to_json(self) -> JSON:
        """{"type": "click", "x", "y", "positive"}"""
        return {"type": "click", "x": _plain(self.x), "y": _plain(self.y), "positive": self.positive}


@dataclass(frozen=True)
class Box:
    """A box around the object, half-open: x0 <= x < x1, y0 <= y < y1."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        for name in ("x0", "y0", "x1", "y1"):
            _set(self, **{name: _number(f"Box.{name}", getattr(self, name))})
        if not (self.x0 < self.x1 and self.y0 < self.y1):
            raise ValueError(f"Box: expected x0 < x1 and y0 < y1, got {_show(self.xyxy)}")

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1)"""
        return self.x0, self.y0, self.x1, self.y1

    def to_json(self) -> JSON:
        """{"type": "box", "xyxy"}"""
        return {"type": "box", "xyxy": [_plain(v) for v in self.xyxy]}


@dataclass(frozen=True)
class Scribble:
    """A stroke through the object, or, with ``positive=False``, through what is not it.

    Args:
        points: 1 to 10,000 (x, y) vertices; a list of pairs or an (n, 2) array.
        positive: whether the stroke is on the object.
        width: the brush width in pixels of the original image.
    """

    points: tuple[Point, ...]
    positive: bool = True
    width: float = DEFAULT_WIDTH

    def __post_init__(self) -> None:
        _set(self, points=_points("Scribble.points", self.points, at_least=1))
        _set(self, positive=_bool("Scribble.positive", self.positive), width=_number("Scribble.width", self.width))
        if self.width <= 0:
            raise ValueError(f"Scribble.width: expected more than 0, got {_show(self.width)}")

    def to_json(self) -> JSON:
        """{"type": "scribble", "points", "width", "positive"}"""
        points = [[_plain(x), _plain(y)] for x, y in self.points]
        return {"type": "scribble", "points": points, "width": _plain(self.width), "positive": self.positive}


@dataclass(frozen=True)
class Polygon:
    """The inside of a polygon (even-odd where it crosses itself) that is, or is not, the object.

    Args:
        points: 3 to 10,000 (x, y) vertices, closed by itself; a list of pairs or an (n, 2) array.
        positive: whether the inside belongs to the object.
    """

    points: tuple[Point, ...]
    positive: bool = True

    def __post_init__(self) -> None:
        _set(self, points=_points("Polygon.points", self.points, at_least=3))
        _set(self, positive=_bool("Polygon.positive", self.positive))
        if not geometry.spans_area(np.array(self.points)):
            raise ValueError(f"Polygon.points: expected an area above 0, got {len(self.points)} points on one line")

    def to_json(self) -> JSON:
        """{"type": "polygon", "points", "positive"}"""
        points = [[_plain(x), _plain(y)] for x, y in self.points]
        return {"type": "polygon", "points": points, "positive": self.positive}


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask of the object, the size of the original image.

    Args:
        array: (H, W) bool, or integers that are 0 and 1, or 0 and 255. A copy is kept.
    """

    array: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        _set(self, array=_mask_array("Mask.array", self.array))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self.array.shape[1], self.array.shape[0]

    @cached_property
    def _rle(self) -> JSON:
        return geometry.rle_encode(self.array)

    def to_json(self) -> JSON:
        """{"type": "mask", "rle": {"size", "counts"}}, COCO's compressed run lengths"""
        return {"type": "mask", "rle": dict(self._rle, size=list(self._rle["size"]))}

    def __eq__(self, other: object) -> bool:
        return np.array_equal(self.array, other.array) if isinstance(other, Mask) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.array.shape, self.array.tobytes()))

    def __repr__(self) -> str:
        return f"Mask({self.size[0]}x{self.size[1]}, {int(self.array.sum())} pixels)"


@dataclass(frozen=True)
class Text:
    """A phrase that names the object: "dog", "the dog on the left"; 1 to 1000 characters."""

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(f"Text.text: expected a string, got {_show(self.text)}")
        if not self.text.strip():
            raise ValueError(f"Text.text: expected a phrase, got {self.text[:20]!r}")
        if len(self.text) > MAX_TEXT:
            raise ValueError(f"Text.text: expected at most {MAX_TEXT} characters, got {len(self.text)}")
        if any("\ud800" <= c <= "\udfff" for c in self.text):
            raise ValueError(f"Text.text: expected valid Unicode, got {self.text[:20]!r}")

    @property
    def phrase(self) -> str:
        """The text with runs of white space as one space, as the text encoder reads it."""
        return " ".join(self.text.split())

    def to_json(self) -> JSON:
        """{"type": "text", "text"}"""
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, eq=False)
class Reference:
    """A region of another image: "find here what is shown there".

    Args:
        image: the other image, a `seem.Scene` of the same model.
        prompt: what marks the region there: one positive Click, Box, Scribble, Polygon or Mask, in that image's pixels.
    """

    image: EncodedImage
    prompt: VisualPromptType

    def __post_init__(self) -> None:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", str(getattr(self.image, "digest", ""))):
            raise TypeError(f"Reference.image: expected a Scene, got {_show(self.image)}")
        prompt: object = self.prompt
        if not isinstance(prompt, VISUAL_TYPES):
            expected = "a Click, Box, Scribble, Polygon or Mask"
            raise TypeError(f"Reference.prompt: expected {expected}, got {_show(prompt)}")
        if not is_positive(prompt):
            raise ValueError(f"Reference.prompt: expected a positive prompt, got {_show(prompt)}")
        check(prompt, self.image.size, name="Reference.prompt")

    def to_json(self) -> JSON:
        """{"type": "reference", "image": "sha256:…", "prompt": {…}}"""
        return {"type": "reference", "image": self.image.digest, "prompt": self.prompt.to_json()}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return self.image.digest == other.image.digest and self.prompt == other.prompt

    def __hash__(self) -> int:
        return hash((self.image.digest, self.prompt))

    def __repr__(self) -> str:
        return f"Reference({self.image.digest[:15]}…, {self.prompt!r})"


VisualPromptType = Click | Box | Scribble | Polygon | Mask
Prompt = VisualPromptType | Text | Reference
VISUAL_TYPES = (Click, Box, Scribble, Polygon, Mask)
PROMPT_TYPES = (*VISUAL_TYPES, Text, Reference)


def is_positive(prompt: Prompt) -> bool:
    """Whether a prompt says what the object is, rather than what it is not."""
    return bool(getattr(prompt, "positive", True))


# ---- against an image ---------------------------------------------------------------------------------------------


def check(prompt: Any, size: tuple[int, int], name: str | None = None) -> Prompt:
    """Check a prompt against the image that it is meant for, and clip what reaches over the border.

    Args:
        prompt: any prompt. A `Text` and a `Reference` fit every image.
        size: (width, height) of the original image.
        name: how the prompt is called in the error message; its type by default.

    Returns:
        The prompt; a Box partly outside is cut at the image border. A Scribble or Polygon comes back whole: what of
        it lies outside is left out when it is used.

    Raises:
        ValueError: a click outside, a box, scribble or polygon wholly outside, a mask of another size or empty.
        TypeError: not a prompt.
    """
    width, height = size
    label = name or type(prompt).__name__
    image = f"the image of {width}x{height}"
    if isinstance(prompt, Click):
        if not (0 <= prompt.x < width and 0 <= prompt.y < height):
            at = f"({_show(prompt.x)}, {_show(prompt.y)})"
            raise ValueError(f"{label}: expected 0 <= x < {width} and 0 <= y < {height}, got {at}")
    elif isinstance(prompt, Box):
        x0, y0, x1, y1 = max(prompt.x0, 0.0), max(prompt.y0, 0.0), min(prompt.x1, width), min(prompt.y1, height)
        if not (x0 < x1 and y0 < y1):
            raise ValueError(f"{label}: expected a box that overlaps {image}, got {_show(prompt.xyxy)}")
        return Box(x0, y0, x1, y1)
    elif isinstance(prompt, Scribble):
        if not geometry.clip_polyline(np.array(prompt.points), size):
            raise ValueError(f"{label}: expected a line that enters {image}, got none of it inside")
    elif isinstance(prompt, Polygon):
        if not geometry.spans_area(geometry.clip_polygon(np.array(prompt.points), size)):
            raise ValueError(f"{label}: expected a polygon that overlaps {image}, got none of it inside")
    elif isinstance(prompt, Mask):
        if prompt.size != (width, height):
            raise ValueError(f"{label}: expected a mask of {width}x{height}, got {prompt.size[0]}x{prompt.size[1]}")
        if not prompt.array.any():
            raise ValueError(f"{label}: expected at least one pixel inside, got an empty mask")
    elif not isinstance(prompt, (Text, Reference)):
        expected = "a Click, Box, Scribble, Polygon, Mask, Text or Reference"
        raise TypeError(f"{name or 'prompt'}: expected {expected}, got {_show(prompt)}")
    result: Prompt = prompt
    return result


# ---- JSON ---------------------------------------------------------------------------------------------------------

Resolver = Callable[[str], EncodedImage]

_FIELDS: dict[str, tuple[set[str], set[str]]] = {  # type -> required, optional
    "click": ({"x", "y"}, {"positive"}),
    "box": ({"xyxy"}, set()),
    "scribble": ({"points"}, {"width", "positive"}),
    "polygon": ({"points"}, {"positive"}),
    "mask": ({"rle"}, set()),
    "text": ({"text"}, set()),
    "reference": ({"image", "prompt"}, set()),
}


def prompt_from_json(data: object, resolver: Resolver | None = None) -> Prompt:
    """The prompt that `to_json` wrote. Nothing is fetched: only `resolver` turns an image's digest into a Scene.

    Args:
        data: what `to_json` gave, after any trip through JSON.
        resolver: called with "sha256:…" of a reference's image; raises KeyError if it has no such image.

    Raises:
        TypeError, ValueError: for anything that is not a valid prompt, naming the field.

    Example:
        >>> prompt_from_json({"type": "text", "text": "a red car"})
        Text(text='a red car')
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"prompt: expected a JSON object, got {_show(data)}")
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise ValueError(f"prompt.type: expected one of {', '.join(_FIELDS)}, got {_show(kind)}")
    required, optional = _FIELDS[kind]
    given = {str(key) for key in data} - {"type"}
    if missing := sorted(required - given):
        raise ValueError(
            f"{kind}: expected the field {', '.join(missing)}, got only {', '.join(sorted(given)) or 'type'}"
        )
    if unknown := sorted(given - required - optional):
        raise ValueError(
            f"{kind}: expected no field but {', '.join(sorted(required | optional))}, got {unknown[0][:50]!r}"
        )
    values = {key: value for key, value in data.items() if key != "type"}
    match kind:
        case "click":
            return Click(**values)
        case "box":
            xyxy = values["xyxy"]
            if not isinstance(xyxy, Sequence) or isinstance(xyxy, str) or len(xyxy) != 4:
                raise ValueError(f"box.xyxy: expected [x0, y0, x1, y1], got {_show(xyxy)}")
            return Box(*xyxy)
        case "scribble":
            return Scribble(**values)
        case "polygon":
            return Polygon(**values)
        case "mask":
            return Mask(geometry.rle_decode(values["rle"]))
        case "text":
            return Text(**values)
    return _reference_from_json(values, resolver)


def _reference_from_json(values: JSON, resolver: Resolver | None) -> Reference:
    digest = values["image"]
    if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(f'reference.image: expected "sha256:" and 64 hex digits, got {_show(digest)}')
    inner = values["prompt"]
    if not isinstance(inner, Mapping) or inner.get("type") in ("reference", "text"):
        raise ValueError(f"reference.prompt: expected a click, box, scribble, polygon or mask, got {_show(inner)}")
    if resolver is None:
        raise ValueError(f"reference.image: expected a resolver that knows {digest}, got none")
    try:
        image = resolver(digest)
    except KeyError:
        raise ValueError(f"reference.image: expected an image that was encoded before, got {digest}") from None
    return Reference(image, prompt_from_json(inner))  # type: ignore[arg-type]


def object_to_json(object_id: int, prompts: Iterable[Prompt]) -> JSON:
    """{"id", "prompts"}: one object with everything said about it."""
    return {"id": object_id, "prompts": [prompt.to_json() for prompt in prompts]}


def object_from_json(data: object, resolver: Resolver | None = None) -> tuple[int, list[Prompt]]:
    """The (id, prompts) that `object_to_json` wrote. Raises TypeError or ValueError for anything else."""
    if not isinstance(data, Mapping) or set(data) != {"id", "prompts"}:
        raise ValueError(f'object: expected {{"id", "prompts"}}, got {_show(data)}')
    prompts = data["prompts"]
    if not isinstance(prompts, list) or len(prompts) > MAX_PROMPTS:
        raise ValueError(f"object.prompts: expected a list of at most {MAX_PROMPTS} prompts, got {_show(prompts)}")
    return parse_id("object.id", data["id"]), [prompt_from_json(prompt, resolver) for prompt in prompts]


def parse_id(name: str, value: Any) -> int:
    """An object's id: a whole number of at least 0."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected a whole number, got {_show(value)}")
    number = int(value)
    if not 0 <= number < 2**31:
        raise ValueError(f"{name}: expected 0 to 2147483647, got {_show(value)}")
    return number


# ---- values -------------------------------------------------------------------------------------------------------


def _set(instance: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)  # a frozen dataclass is only written while it is made


def _show(value: object) -> str:
    text = repr(_plain(value)) if isinstance(value, float) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(value: Any) -> Any:
    """A float without a fraction as an int, so that JSON reads 320 and not 320.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _number(name: str, value: object) -> float:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {_show(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {_show(value)}")
    return number + 0.0  # no negative zero


def _bool(name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {_show(value)}")
    return bool(value)


def _points(name: str, value: Any, at_least: int) -> tuple[Point, ...]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a list of (x, y), got {_show(value)}")
    if isinstance(value, np.ndarray):
        if value.ndim != 2 or value.shape[1] != 2 or value.dtype.kind not in "fiu":
            shape = f"shape {value.shape} and dtype {value.dtype}"
            raise ValueError(f"{name}: expected an array of numbers of shape (n, 2), got {shape}")
        _count(name, len(value), at_least)
        if not np.isfinite(value).all():
            raise ValueError(f"{name}: expected finite numbers, got {_show(value[~np.isfinite(value)].tolist()[0])}")
        return tuple((float(x) + 0.0, float(y) + 0.0) for x, y in value.tolist())
    pairs = value if isinstance(value, Sequence) else list(value)
    _count(name, len(pairs), at_least)
    points = []
    for i, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes)) or not isinstance(pair, (Sequence, np.ndarray)) or len(pair) != 2:
            raise ValueError(f"{name}[{i}]: expected (x, y), got {_show(pair)}")
        points.append((_number(f"{name}[{i}].x", pair[0]), _number(f"{name}[{i}].y", pair[1])))
    return tuple(points)


def _count(name: str, count: int, at_least: int) -> None:
    if not at_least <= count <= MAX_POINTS:
        raise ValueError(f"{name}: expected {at_least} to {MAX_POINTS} points, got {count}")


def _mask_array(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a numpy array of shape (H, W), got {_show(value)}")
    if value.ndim != 2 or 0 in value.shape:
        raise ValueError(f"{name}: expected shape (H, W), got {value.shape}")
    if value.dtype.kind not in "biu":
        raise TypeError(f"{name}: expected bool, or integers 0 and 1 or 0 and 255, got dtype {value.dtype}")
    if value.dtype != bool:
        inside = value != 0
        levels = np.unique(value[inside])
        if len(levels) > 1 or (len(levels) == 1 and levels[0] not in (1, 255)):
            raise ValueError(f"{name}: expected 0 and 1, or 0 and 255, got {_show(levels[:5].tolist())}")
        value = inside
    result: np.ndarray = value.astype(bool, order="C", copy=True)
    result.setflags(write=False)
    return result
