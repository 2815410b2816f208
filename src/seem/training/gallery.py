"""`seem train gallery`: one sheet of what a photo and a mask become in training, to look at before a long run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from seem.model.prompting import VisualPrompt
from seem.training import simulate, strokes
from seem.training.augment import AugmentConfig, augment

if TYPE_CHECKING:
    from seem.prompts import Prompt

COLUMNS, CELL_WIDTH = 6, 240
GAP, MARGIN, TITLE_HEIGHT, CAPTION_HEIGHT = 14, 28, 38, 22
NETWORK_SIDE, OFFICIAL_SIDE = 512, 1024  # long side at which prompts and official strokes are drawn
PAPER, INK, FAINT, STROKE = (250, 250, 248), (24, 28, 36), (108, 116, 128), (18, 183, 84)

Cell = tuple[Image.Image, str]  # a picture, and what it shows


def gallery(image: Image.Image, mask: np.ndarray, seed: int = 0) -> Image.Image:
    """Draw every kind of simulated prompt, the mistakes, official strokes, rounds of clicks and augmentations.

    Args:
        image: the photo.
        mask: (h, w) bool of its size, one object.
        seed: of all draws.

    Raises:
        ValueError: the mask is empty or of another size.
    """
    if mask.shape != (image.height, image.width):
        raise ValueError(f"mask: expected shape {(image.height, image.width)} as the image, got {mask.shape}")
    if not mask.any():
        raise ValueError("mask: expected at least one pixel, got an empty one")
    image = image.convert("RGB")
    sheet = _Photo(image, mask)
    rows: list[tuple[str, list[Cell]]] = [
        (title, [(sheet.with_prompts(prompts), caption) for prompts, caption in draws])
        for title, draws in chain(_careful(sheet.small, seed), _slips(sheet.small, seed), [_rounds(sheet.small, seed)])
    ]
    rows += [("Strokes of the official model", _official(sheet, seed)), ("Augmented", _augmented(image, mask, seed))]
    return _sheet(rows, round(CELL_WIDTH * image.height / image.width))


# ---- draws --------------------------------------------------------------------------------------------------------

Draw = tuple[list[VisualPrompt], str]


def _careful(mask: np.ndarray, seed: int) -> Iterator[tuple[str, list[Draw]]]:
    for i, kind in enumerate(simulate.FIRST_PROMPTS):
        rng = np.random.default_rng((seed, 0, i))
        yield kind.capitalize(), [([simulate.first_prompt(kind, mask, rng)], "") for _ in range(COLUMNS)]
    rng = np.random.default_rng((seed, 1))
    draws: list[Draw] = []
    for kind in ["click"] * 3 + ["scribble"] * 3:
        negative = simulate.first_negative(kind, mask, rng)
        first = simulate.first_prompt(kind, mask, rng)
        draws.append(([first, negative] if negative else [first], f"{kind}s, positive and negative"))
    yield "First negatives", draws


def _slips(mask: np.ndarray, seed: int) -> Iterator[tuple[str, list[Draw]]]:
    rng = np.random.default_rng((seed, 2))
    names = [s for s in ("off_centre", "border", "beside") for _ in range(2)]
    yield "Mistakes: clicks", [([simulate.click(mask, rng, s)], s.replace("_", "-")) for s in names]
    names = [s for s in ("loose", "tight", "shifted") for _ in range(2)]
    yield "Mistakes: boxes", [([simulate.box(mask, rng, s)], s) for s in names]
    yield "Mistakes: scribbles", [([simulate.scribble(mask, rng, "stray")], "may leave the object") for _ in names]


def _rounds(mask: np.ndarray, seed: int) -> tuple[str, list[Draw]]:
    """Clicks against a poor mask, of which each click puts the ground around it right, as a network might."""
    rng = np.random.default_rng((seed, 3))
    target = simulate.shrink(mask) > 0.5
    target = target if target.any() else simulate.shrink(mask) > 0
    shift = max(1, round(float(np.sqrt(target.sum())) / 4))
    predicted = np.zeros_like(target)
    predicted[:, shift:] = target[:, :-shift]
    yy, xx = np.indices(target.shape)
    clicks: list[VisualPrompt] = []
    draws: list[Draw] = []
    for number in range(COLUMNS):
        click = simulate.next_click(target, predicted, rng, centre=0.6)
        shown = np.kron(predicted, np.ones((4, 4), bool))[: mask.shape[0], : mask.shape[1]]
        before = VisualPrompt("mask", True, np.zeros((0, 2), np.float32), mask=shown)
        iou = np.count_nonzero(target & predicted) / np.count_nonzero(target | predicted)
        if click is None:
            draws.append(([before, *clicks], f"IoU {iou:.2f}, nothing to correct"))
            break
        clicks.append(click)
        draws.append(([before, *clicks], f"click {number + 1}, mask before it: IoU {iou:.2f}"))
        x, y = click.points[0] / 4
        near = (xx + 0.5 - x) ** 2 + (yy + 0.5 - y) ** 2 < (1.5 * shift) ** 2
        predicted = np.where(near, target, predicted)
    return "Next clicks", draws


def _official(sheet: _Photo, seed: int) -> list[Cell]:
    cells = []
    for i, kind in enumerate(("point", "scribble", "scribble", "circle", "polygon", "polygon")):
        stroke = strokes.official_stroke(sheet.large, np.random.default_rng((seed, 4, i)), [kind])
        cells.append((sheet.with_stroke(stroke), kind))
    return cells


def _augmented(image: Image.Image, mask: np.ndarray, seed: int) -> list[Cell]:
    cells = []
    for i in range(COLUMNS):
        result = augment(image, [mask], np.random.default_rng((seed, 5, i)), AugmentConfig(size=image.size))
        caption = f"x {result.scale:.2f}{', flipped' if result.flipped else ''}"
        cells.append((_Photo(result.image, result.masks[0]).picture, caption))
    return cells


# ---- pictures -----------------------------------------------------------------------------------------------------


class _Photo:
    """A photo at the size of a cell, its object in full colour and the rest faded, and its mask at three sizes."""

    def __init__(self, image: Image.Image, mask: np.ndarray) -> None:
        size = (CELL_WIDTH, round(CELL_WIDTH * image.height / image.width))
        self.small, self.large = _long_side(mask, NETWORK_SIDE), _long_side(mask, OFFICIAL_SIDE)
        inside = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
        photo = image.resize(size, Image.Resampling.LANCZOS)
        faded = Image.blend(photo.convert("L").convert("RGB"), Image.new("RGB", size, (255, 255, 255)), 0.55)
        self.picture = Image.composite(photo, faded, inside)

    def with_prompts(self, prompts: list[VisualPrompt]) -> Image.Image:
        from seem.predict.render import draw

        scale = np.array(self.picture.size) / self.small.shape[::-1]
        return draw(self.picture, [], [_as_typed(prompt, scale, self.picture.size) for prompt in prompts])

    def with_stroke(self, stroke: np.ndarray) -> Image.Image:
        cover = Image.fromarray(stroke.astype(np.uint8) * 255).resize(self.picture.size, Image.Resampling.BOX)
        touched = cover.point(lambda level: 255 if level else 0)  # a line of one pixel would be a mere tint
        picture = self.picture
        for colour, width in (((255, 255, 255), 5), (STROKE, 3)):
            picture = Image.composite(
                Image.new("RGB", cover.size, colour), picture, touched.filter(ImageFilter.MaxFilter(width))
            )
        return picture


def _long_side(mask: np.ndarray, side: int) -> np.ndarray:
    """The mask resized, never empty where it was not."""
    h, w = mask.shape
    size = (max(1, round(w * side / max(h, w))), max(1, round(h * side / max(h, w))))
    cover = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR))
    return cover > min(127, int(cover.max()) // 2)


def _as_typed(prompt: VisualPrompt, scale: np.ndarray, size: tuple[int, int]) -> Prompt:
    """The prompt as a user would give it on a photo of another size."""
    from seem.prompts import Box, Click, Mask, Polygon, Scribble

    points = tuple((float(x), float(y)) for x, y in np.minimum(prompt.points * scale, np.array(size) - 1e-3))
    if prompt.kind == "mask":
        assert prompt.mask is not None
        return Mask(np.asarray(Image.fromarray(prompt.mask).resize(size, Image.Resampling.NEAREST)))
    if prompt.kind == "box":
        return Box(*points[0], *points[1])
    if prompt.kind == "click":
        return Click(*points[0], prompt.positive)
    if prompt.kind == "polygon":
        return Polygon(points, prompt.positive)
    return Scribble(points, prompt.positive, max(4.0, prompt.width * float(scale.mean())))


def _sheet(rows: list[tuple[str, list[Cell]]], height: int) -> Image.Image:
    step = TITLE_HEIGHT + height + CAPTION_HEIGHT
    canvas = Image.new("RGB", (2 * MARGIN + COLUMNS * (CELL_WIDTH + GAP) - GAP, 2 * MARGIN + len(rows) * step), PAPER)
    pen = ImageDraw.Draw(canvas)
    title_font, caption_font = ImageFont.load_default(19), ImageFont.load_default(13)
    for r, (title, cells) in enumerate(rows):
        top = MARGIN + r * step
        pen.text((MARGIN, top + TITLE_HEIGHT - 12), title, INK, title_font, anchor="ls")
        for c, (picture, caption) in enumerate(cells):
            left = MARGIN + c * (CELL_WIDTH + GAP)
            canvas.paste(picture, (left, top + TITLE_HEIGHT))
            pen.text((left, top + TITLE_HEIGHT + height + 4), caption, FAINT, caption_font, anchor="la")
    return canvas


# ---- the command --------------------------------------------------------------------------------------------------


def command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The photo.")],
    out: Annotated[Path, typer.Option(help="The picture to write, .png.")],
    mask: Annotated[Path | None, typer.Option(help="A picture of the object: white inside, black outside.")] = None,
    coco: Annotated[Path | None, typer.Option(help="A COCO file instead, for the photo's largest object.")] = None,
    image_id: Annotated[str | None, typer.Option(help="Of the photo in the COCO file. Default: by its name.")] = None,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
) -> None:
    """Draw the prompts, mistakes and augmentations that training simulates for one object.

    \b
    Example:
      seem train gallery photo.jpg --mask mask.png --out gallery.png
    """
    from seem.images import load_image

    if (mask is None) == (coco is None):
        raise ValueError("expected either --mask or --coco")
    if image_id is not None and coco is None:
        raise ValueError(f"--image-id: expected --coco beside it, got {image_id} alone")
    if out.suffix.lower() != ".png" or not out.absolute().parent.is_dir():
        raise ValueError(f"--out: expected a .png in a folder that exists, got {out}")
    pixels = load_image(image)
    shown = _read_mask(mask) if mask is not None else _largest_object(coco or Path(), image, image_id, pixels.shape[:2])
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        gallery(Image.fromarray(pixels), shown, seed).save(temporary, "PNG")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    typer.echo(f"wrote {out}")


def _read_mask(path: Path) -> np.ndarray:
    """Levels 0 / 1, 0 / 255, or 0 / 128 / 255 with an unsure rim, which is left out."""
    from seem.images import load_image

    grey = load_image(path)[:, :, 0]
    inside: np.ndarray = grey > 0.6 * max(1, int(grey.max()))
    return inside


def _largest_object(path: Path, photo: Path, image_id: str | None, size: tuple[int, int]) -> np.ndarray:
    """The largest mask of a photo that is no crowd, of size (h, w)."""
    from seem.data.masks import polygon_mask
    from seem.data.records import RecordError
    from seem.geometry import rle_decode

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        wanted = {str(i["id"]) for i in document["images"] if Path(str(i["file_name"])).name == photo.name}
        key = image_id if image_id is not None else next(iter(wanted), "")
        found = [a for a in document["annotations"] if str(a["image_id"]) == key and not a.get("iscrowd")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path}: expected a COCO file: {type(error).__name__}: {error}") from None
    masks = []
    for a in found:
        try:
            stated = a["segmentation"]
            masks.append(rle_decode(stated) if isinstance(stated, dict) else polygon_mask(stated, size[::-1]))
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{path}: annotation {a.get('id')}: {error}") from None
    if not masks:
        raise RecordError(f"{path}: no object of image {key or photo.name}")
    return max(masks, key=np.count_nonzero)
