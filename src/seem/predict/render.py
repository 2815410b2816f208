"""A picture of a result: the photo with its masks tinted, outlined and named, and the prompts that made them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from seem import geometry, images
from seem.predict.panoptic import Panoptic
from seem.predict.segmentation import Segmentation
from seem.prompts import Box, Click, Mask, Polygon, Prompt, Reference, Scribble, Text
from seem.vocabulary import OTHERS

Colour = tuple[int, int, int]

# Distinct in hue and lightness, none close to grass, sky or skin; neighbours in the list differ most.
PALETTE: tuple[Colour, ...] = (
    (38, 132, 255),
    (255, 122, 0),
    (214, 51, 170),
    (0, 184, 148),
    (247, 201, 16),
    (125, 84, 255),
    (235, 59, 59),
    (0, 188, 222),
    (146, 205, 24),
    (176, 98, 46),
    (255, 130, 190),
    (120, 150, 250),
)
POSITIVE: Colour = (18, 183, 84)
NEGATIVE: Colour = (232, 45, 45)
WHITE: Colour = (255, 255, 255)
INK: Colour = (17, 22, 32)
SLATE: Colour = (84, 94, 110)  # what has no name

_TINT = 0.42
_STUFF_TINT = 0.55


def draw(
    image: object, result: Segmentation | Sequence[Segmentation] | Panoptic, prompts: Sequence[Prompt] = ()
) -> Image.Image:
    """Draw a result on its photo.

    Args:
        image: the photo, anything that `Model.encode` takes.
        result: one segmentation, several, or a panoptic result, of that photo.
        prompts: drawn on top: clicks as a green plus or a red minus, boxes, scribbles, polygons; a `Mask` as its
            outline; a `Text` in a corner. A `Reference` lies on another photo and is left out.

    Returns:
        An RGB picture of the photo's size. Lines and letters grow with it.

    Raises:
        ValueError: the photo has another size than the result.

    Example:
        >>> seem.draw("photo.jpg", scene.segment(click), [click]).save("overlay.png")                  # doctest: +SKIP
    """
    pixels = images.load_image(image)
    size = (pixels.shape[1], pixels.shape[0])
    results = [] if isinstance(result, Panoptic) else [result] if isinstance(result, Segmentation) else list(result)
    for expected in [result.size] if isinstance(result, Panoptic) else [r.mask.shape[::-1] for r in results]:
        if expected != size:
            raise ValueError(f"image: expected {expected[0]}x{expected[1]} as the result, got {size[0]}x{size[1]}")
    canvas = _Canvas(pixels)
    if isinstance(result, Panoptic):
        _draw_panoptic(canvas, result)
    else:
        _draw_segmentations(canvas, results)
    for prompt in prompts:
        _draw_prompt(canvas, prompt)
    return canvas.image()


def _draw_segmentations(canvas: _Canvas, results: Sequence[Segmentation]) -> None:
    for i in range(len(results) - 1, -1, -1):  # the best on top
        canvas.tint(results[i].mask, PALETTE[i % len(PALETTE)], _TINT)
    for i in range(len(results) - 1, -1, -1):
        canvas.outline(results[i].mask, PALETTE[i % len(PALETTE)])
    for i, r in enumerate(results):
        if r.area:
            name = f"{r.label} {r.score:.2f}" if r.label else f"{r.score:.2f}"
            canvas.pill(r.mask, name, PALETTE[i % len(PALETTE)])


def _draw_panoptic(canvas: _Canvas, result: Panoptic) -> None:
    colours = {s.id: PALETTE[i % len(PALETTE)] for i, s in enumerate(result.segments)}
    strengths = {s.id: _TINT if s.is_thing else _STUFF_TINT for s in result.segments}
    for segment in result.segments:
        if segment.label == OTHERS:
            colours[segment.id], strengths[segment.id] = SLATE, _TINT
    canvas.tint_map(result.map, colours, strengths)
    smallest = canvas.unit**2 * 60  # a name larger than its region says nothing
    for segment in sorted(result.segments, key=lambda s: s.is_thing):
        if segment.area >= smallest:
            canvas.pill(result.map == segment.id, segment.label, colours[segment.id], centred=not segment.is_thing)


# ---- prompts ------------------------------------------------------------------------------------------------------


def _draw_prompt(canvas: _Canvas, prompt: Prompt) -> None:
    colour = POSITIVE if getattr(prompt, "positive", True) else NEGATIVE
    match prompt:
        case Click():
            canvas.click(prompt.x, prompt.y, prompt.positive)
        case Box():
            x0, y0, x1, y1 = prompt.xyxy
            canvas.line([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, closed=True)
        case Scribble():
            canvas.line(prompt.points, colour, width=max(prompt.width, canvas.unit * 2))
        case Polygon():
            canvas.line(prompt.points, colour, closed=True)
        case Mask():
            if prompt.size == canvas.size:
                canvas.outline(prompt.array, colour)
        case Text():
            canvas.caption(prompt.phrase)
        case Reference():
            pass


class _Canvas:
    """The photo as floats, and the few things that are drawn on it. `unit` is the width of a thin line."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels.astype(np.float32)
        self.size = (pixels.shape[1], pixels.shape[0])
        self.unit = float(np.clip(np.sqrt(self.size[0] * self.size[1]) / 400, 1.0, 20.0))
        self.font_size = max(9, round(9.0 * self.unit**0.85 + 2))
        self._taken: list[tuple[float, float, float, float]] = []  # where names are already
        self._captions = 0

    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels.round().clip(0, 255).astype(np.uint8))

    # ---- areas ----------------------------------------------------------------------------------------------------

    def tint(self, mask: np.ndarray, colour: Colour, strength: float) -> None:
        box = geometry.box_of(mask)
        if box is not None:
            window = np.s_[box[1] : box[3], box[0] : box[2]]
            self._mix(window, mask[window].astype(np.float32) * strength, colour)

    def tint_map(self, ids: np.ndarray, colours: dict[int, Colour], strengths: dict[int, float]) -> None:
        """All segments at once, a light line where two meet."""
        table = np.array([(0, 0, 0), *(colours[i] for i in range(1, len(colours) + 1))], np.float32)
        strength = np.array([0.0, *(strengths[i] for i in range(1, len(colours) + 1))], np.float32)
        alpha = strength[ids][..., None]
        self.pixels = self.pixels * (1 - alpha) + table[ids] * alpha
        border = np.zeros(ids.shape, bool)
        border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
        border[1:] |= ids[1:] != ids[:-1]
        line = self._smooth(border, 0.45 * self.unit)
        self._mix(np.s_[:, :], np.clip(line * 2.2 * self.unit, 0, 0.9), WHITE)

    def outline(self, mask: np.ndarray, colour: Colour) -> None:
        """A line along the mask's border in its colour, with a light one outside it, both with soft edges."""
        box = geometry.box_of(mask)
        if box is None:
            return
        margin = int(4 * self.unit) + 2
        window = np.s_[max(0, box[1] - margin) : box[3] + margin, max(0, box[0] - margin) : box[2] + margin]
        # A blurred mask is 0.5 on the border and falls off evenly: a cheap signed distance, in pixels.
        sigma = 2.0 * self.unit
        padded = np.pad(mask[window], margin, mode="edge")  # no line along the image's own border
        soft = self._smooth(padded, sigma)[margin:-margin, margin:-margin]
        distance = (soft - 0.5) * sigma * 2.5
        half = 0.75 * self.unit
        self._mix(window, np.clip(half + 0.5 + 0.8 * self.unit - np.abs(distance), 0, 1) * 0.75, WHITE)
        self._mix(window, np.clip(half + 0.5 - np.abs(distance), 0, 1), colour)

    def _mix(self, window: tuple[slice, slice], alpha: np.ndarray, colour: Colour) -> None:
        part = self.pixels[window]
        part += alpha[..., None] * (np.array(colour, np.float32) - part)

    @staticmethod
    def _smooth(mask: np.ndarray, sigma: float) -> np.ndarray:
        blurred = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(sigma))
        result: np.ndarray = np.asarray(blurred, np.float32) / 255
        return result

    # ---- lines and signs, drawn at three times the size for smooth edges ------------------------------------------

    def line(
        self, points: Sequence[tuple[float, float]], colour: Colour, width: float | None = None, closed: bool = False
    ) -> None:
        thin = width is None
        width = self.unit * 1.8 if width is None else width
        xy = np.array([*points, points[0]] if closed else points, np.float64)
        self._shape(xy, width + 2 * self.unit, WHITE, 0.8)
        self._shape(xy, width, colour, 1.0 if thin else 0.75)

    def _shape(self, xy: np.ndarray, width: float, colour: Colour, strength: float) -> None:
        margin = width + 2
        x0, y0 = np.floor(xy.min(0) - margin).clip(0).astype(int)
        x1, y1 = np.ceil(xy.max(0) + margin).clip(None, self.size).astype(int)
        if x0 >= x1 or y0 >= y1:
            return
        scale = 3 if (x1 - x0) * (y1 - y0) < 8_000_000 else 1
        mask = Image.new("L", ((x1 - x0) * scale, (y1 - y0) * scale))
        brush = ImageDraw.Draw(mask)
        at = [((x - x0) * scale, (y - y0) * scale) for x, y in xy.tolist()]
        if len(at) > 1:
            brush.line(at, fill=255, width=max(1, round(width * scale)), joint="curve")
        radius = width * scale / 2
        for x, y in (at[0], at[-1]):
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        self._stamp(mask.reduce(scale) if scale > 1 else mask, int(x0), int(y0), colour, strength)

    def click(self, x: float, y: float, positive: bool) -> None:
        """A coloured disk with a white rim and a white plus or minus."""
        x, y = np.floor(x) + 0.5, np.floor(y) + 0.5
        radius = 5.2 * self.unit
        colour = POSITIVE if positive else NEGATIVE
        self._shape(np.array([(x, y)]), 2 * radius + 2.4 * self.unit, INK, 0.35)
        self._shape(np.array([(x, y)]), 2 * radius + 1.6 * self.unit, WHITE, 1.0)
        self._shape(np.array([(x, y)]), 2 * radius, colour, 1.0)
        arm, stroke = radius * 0.55, max(1.0, 1.1 * self.unit)
        self._shape(np.array([(x - arm, y), (x + arm, y)]), stroke, WHITE, 1.0)
        if positive:
            self._shape(np.array([(x, y - arm), (x, y + arm)]), stroke, WHITE, 1.0)

    def _stamp(self, mask: Image.Image, x: int, y: int, colour: Colour, strength: float) -> None:
        """Mix a colour in where a grey picture, whose corner lies at (x, y), is light; parts outside are cut."""
        alpha = np.asarray(mask, np.float32) / 255 * strength
        left, top = max(0, -x), max(0, -y)
        alpha = alpha[top : max(0, self.size[1] - y), left : max(0, self.size[0] - x)]
        if alpha.size:
            window = np.s_[y + top : y + top + alpha.shape[0], x + left : x + left + alpha.shape[1]]
            self._mix(window, alpha, colour)

    # ---- names ----------------------------------------------------------------------------------------------------

    def pill(self, mask: np.ndarray, text: str, colour: Colour, centred: bool = False) -> None:
        """A name in a rounded box: in the middle of a region, or above its highest point; never on another name."""
        box = geometry.box_of(mask)
        assert box is not None
        width, height, _ = self._measure(text)
        gap = 3 * self.unit
        step_x, step_y = max(1, (box[2] - box[0]) // 200), max(1, (box[3] - box[1]) // 200)  # a coarse look is enough
        ys, xs = np.nonzero(mask[box[1] : box[3] : step_y, box[0] : box[2] : step_x])
        xs, ys = xs * step_x + box[0], ys * step_y + box[1]
        middle = _inner_point(xs, ys, step_y) if len(xs) else ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        inside = (middle[0] - width / 2, middle[1] - height / 2)
        top = xs[ys == ys.min()].mean() if len(xs) else middle[0]
        above = (top - width / 2, box[1] - height - gap)
        below = (middle[0] - width / 2, box[3] + gap)
        places = [inside, above, below] if centred else [above, below, inside]
        if not centred and above[1] < 0:
            places = [below, inside, above] if box[3] + gap + height <= self.size[1] else [inside, above, below]
        places += [(inside[0], inside[1] + k * (height + self.unit)) for k in (1, -1, 2, -2, 3, -3)]
        x, y = self._free_place(places, width, height)
        self._text_box(text, x, y, colour)

    def caption(self, text: str) -> None:
        """A user's phrase, in the lower left corner."""
        _, height, _ = self._measure(f"“{text}”")
        margin = 4 * self.unit
        y = self.size[1] - margin - (height + self.unit * 2) * (self._captions + 1)
        self._captions += 1
        self._text_box(f"“{text}”", margin, max(0.0, y), INK)

    def _free_place(self, places: Sequence[tuple[float, float]], width: float, height: float) -> tuple[float, float]:
        """The first place that covers no other name, else the first; moved into the picture."""
        inside = [
            (min(max(0.0, x), max(0.0, self.size[0] - width)), min(max(0.0, y), max(0.0, self.size[1] - height)))
            for x, y in places
        ]
        for x, y in inside:
            if not any(x < b[2] and b[0] < x + width and y < b[3] and b[1] < y + height for b in self._taken):
                return x, y
        return inside[0]

    def _measure(self, text: str) -> tuple[float, float, float]:
        """Width and height of a name's box, and its padding."""
        pad = self.font_size * 0.45
        return _font(self.font_size).getlength(_fit(text)) + 2 * pad, self.font_size * 1.5, pad

    def _text_box(self, text: str, x: float, y: float, colour: Colour) -> None:
        width, height, pad = self._measure(text)
        self._taken.append((x, y, x + width, y + height))
        scale = 3
        shape = Image.new("L", (round(width * scale), round(height * scale)))
        ImageDraw.Draw(shape).rounded_rectangle(
            (0, 0, shape.width - 1, shape.height - 1), height * scale * 0.3, fill=255
        )
        plate = shape.resize((round(width), round(height)), Image.Resampling.BOX)
        self._stamp(
            plate, round(x) + max(1, round(self.unit * 0.6)), round(y) + max(1, round(self.unit * 0.6)), INK, 0.3
        )
        self._stamp(plate, round(x), round(y), colour, 0.95)
        letters = Image.new("L", plate.size)
        ImageDraw.Draw(letters).text(
            (pad, plate.height / 2), _fit(text), fill=255, font=_font(self.font_size), anchor="lm"
        )
        luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
        self._stamp(letters, round(x), round(y), INK if luminance > 150 else WHITE, 1.0)


def _inner_point(xs: np.ndarray, ys: np.ndarray, step: int) -> tuple[float, float]:
    """A point well inside a region: in the column of the median, the middle of its longest run."""
    x = np.sort(xs)[len(xs) // 2]
    column = np.sort(ys[xs == x])
    runs = np.split(column, np.flatnonzero(np.diff(column) > step) + 1)
    longest = max(runs, key=len)
    return float(x), float((longest[0] + longest[-1]) / 2)


def _fit(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
