"""What is asked of one photo: which objects, prompted how, and what must not be learned from (SPEC sections 8, 11)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seem.model.config import ImageConfig
from seem.model.official_seem import BACKGROUND, normalise_image
from seem.model.templates import fill_templates
from seem.training.paper.config import ObjectiveConfig
from seem.training.samples import decode_rle, load_ignore, resize_mask
from seem.training.strokes import official_stroke
from seem.vocabulary import COCO_THING_NAMES


@dataclass(frozen=True, eq=False)
class Annotation:
    """One object of a record; without ``usable`` it only says where nothing is known.

    Attributes:
        mask: (h, w) bool of the object; all of its box if nobody drew its mask.
        usable: one object, or one kind of stuff, with a mask that can be trusted.
        phrases: what people call it, beside its name.
    """

    mask: np.ndarray
    name: str | None
    usable: bool
    phrases: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Lesson:
    """One photo with all that chance decided, on the CPU until it is learned from.

    Attributes:
        pixels: (1, 3, H, W) normalised and padded; ``size`` is the unpadded (h, w).
        masks: (n, H, W) bool, everything that can be learned.
        classes: (n,) long, -1 for what no class of the vocabulary names.
        ignore: (H, W) bool, where an unannotated object may be; None if there is no such place.
        sentences: the classes and "background", each in a sentence drawn for this photo.
        objects: (N,) long, the prompted masks; ``strokes`` (N, H, W) bool their first prompts.
        rounds: rounds before the one that is learned from.
        phrases: texts, and ``named`` (P,) long the masks that they mean; ``spoken`` if people said them.
        seed: of what the network leaves to chance.
    """

    key: str
    pixels: Tensor
    size: tuple[int, int]
    masks: Tensor
    classes: Tensor
    ignore: Tensor | None
    sentences: tuple[str, ...]
    objects: Tensor
    strokes: Tensor
    rounds: int
    phrases: tuple[str, ...]
    named: Tensor
    spoken: bool
    seed: int


def read_annotations(record: Mapping[str, Any]) -> list[Annotation]:
    """All objects of a record at the photo's size, and what it ignores as a nameless one that cannot be learned.

    Raises ValueError naming the record and object.
    """
    size = (int(record["height"]), int(record["width"]))
    annotations = []
    for o in record["objects"]:
        try:
            drawn = o.get("rle") is not None
            mask = resize_mask(decode_rle(o["rle"]), size) if drawn else _box_mask(o["box"], size)
            trusted = drawn and not o.get("doubtful") and not o.get("crowd")
            region = bool(o.get("semantic")) and o.get("kind") != "stuff"  # several objects in one mask
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"record {record['id']}, object {o.get('name')!r}: {error}") from None
        phrases = tuple(o.get("phrases", ()))
        annotations.append(Annotation(mask, o.get("name"), trusted and not region, phrases))
    ignore = load_ignore(dict(record), size)
    return annotations if ignore is None else [*annotations, Annotation(ignore, None, False)]


def _box_mask(box: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    x0, y0 = np.floor(box[:2]).astype(int).clip(0)
    x1, y1 = np.ceil(box[2:]).astype(int)
    mask[y0:y1, x0:x1] = True
    return mask


class LessonMaker:
    """Draws lessons from photos.

    Args:
        classes: names that the object queries choose from; ``spelt`` says how the text encoder reads some of them.
    """

    def __init__(
        self, classes: Sequence[str], spelt: Mapping[str, str], image: ImageConfig, config: ObjectiveConfig
    ) -> None:
        self.index = {name: i for i, name in enumerate(classes)}
        self.spelt = [spelt.get(name, name) for name in (*classes, BACKGROUND)]
        self.image, self.config = image, config

    def __call__(
        self,
        key: str,
        photo: np.ndarray,
        annotations: Sequence[Annotation],
        complete: bool,
        rng: np.random.Generator,
        annotated: Collection[str] = (),
    ) -> Lesson:
        """A lesson on a photo (h, w, 3) uint8.

        ``complete`` says that all things of COCO's classes are annotated, ``annotated`` names others that are.
        """
        pixels = normalise_image(torch.from_numpy(photo).permute(2, 0, 1), self.image)
        usable = [a for a in annotations if a.usable and a.mask.any()]
        all_known = set(self.index) <= {*annotated, *(COCO_THING_NAMES if complete else ())}
        masks = _stack([a.mask for a in usable], pixels)
        objects, strokes = self._prompt(usable, pixels, rng)
        sentences = tuple(self._sentence(name, rng) for name in self.spelt)
        phrases, named, spoken = self._phrases(usable, sentences, rng)
        return Lesson(
            key=key,
            pixels=pixels,
            size=photo.shape[:2],
            masks=masks,
            classes=torch.tensor([self.index.get(str(a.name), -1) for a in usable], dtype=torch.long),
            ignore=self._ignore(annotations, usable, all_known, photo.shape[:2], pixels),
            sentences=sentences,
            objects=objects,
            strokes=strokes,
            rounds=int(rng.integers(self.config.rounds + 1)),
            phrases=phrases,
            named=named,
            spoken=spoken,
            seed=int(rng.integers(2**62)),
        )

    def _ignore(
        self,
        annotations: Sequence[Annotation],
        usable: Sequence[Annotation],
        all_known: bool,
        size: tuple[int, int],
        pixels: Tensor,
    ) -> Tensor | None:
        """Where an object of the vocabulary may be that no usable mask shows.

        That is inside every annotation that cannot be learned, and, unless all classes are annotated, wherever no
        class of the vocabulary is. What a usable mask shows is known, though a box lies over it.
        """
        named = [a for a in usable if a.name in self.index]
        vague = [a for a in annotations if not a.usable and (a.name is None or a.name in self.index)]
        known = _stack([a.mask for a in named], pixels).any(0)
        if all_known:
            ignore = _stack([a.mask for a in vague], pixels).any(0) & ~known
        else:
            ignore = ~known
            ignore[size[0] :], ignore[:, size[1] :] = False, False  # padding shows nothing
        return ignore if bool(ignore.any()) else None

    def _prompt(self, usable: Sequence[Annotation], pixels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Objects in random order and a first prompt for each; a tiny one gets none."""
        chosen: list[int] = []
        strokes: list[np.ndarray] = []
        for i in rng.permutation(len(usable)):
            if len(chosen) == self.config.objects:
                break
            stroke = official_stroke(usable[i].mask, rng, self.config.strokes)
            if stroke.any():
                chosen.append(int(i))
                strokes.append(stroke)
        return torch.tensor(chosen, dtype=torch.long), _stack(strokes, pixels)

    def _phrases(
        self, usable: Sequence[Annotation], sentences: Sequence[str], rng: np.random.Generator
    ) -> tuple[tuple[str, ...], Tensor, bool]:
        """People's own words where there are any, else classes in their sentences: the same for the same class."""
        spoken = [i for i, a in enumerate(usable) if a.phrases]
        able = spoken or [i for i, a in enumerate(usable) if a.name in self.index]
        if not able:
            return (), torch.zeros(0, dtype=torch.long), False
        count = int(rng.integers(1, self.config.phrases + 1))
        chosen = [int(i) for i in rng.permutation(able)[:count]]
        if spoken:
            texts = [str(rng.choice(list(usable[i].phrases))).lower() for i in chosen]
        else:
            texts = [sentences[self.index[str(usable[i].name)]] for i in chosen]
        return tuple(texts), torch.tensor(chosen, dtype=torch.long), bool(spoken)

    @staticmethod
    def _sentence(name: str, rng: np.random.Generator) -> str:
        forms = fill_templates(name)
        return forms[int(rng.integers(len(forms)))]


def _stack(masks: Sequence[np.ndarray], pixels: Tensor) -> Tensor:
    """(h, w) bool masks -> (n, H, W) bool on the padded canvas."""
    height, width = pixels.shape[-2:]
    if not masks:
        return torch.zeros(0, height, width, dtype=torch.bool)
    stacked = torch.from_numpy(np.stack(masks))
    return F.pad(stacked, (0, width - stacked.shape[2], 0, height - stacked.shape[1]))
