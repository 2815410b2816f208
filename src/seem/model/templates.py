"""Sentences that a class name is put into before it is encoded (SPEC section 5).

The list is the one that CLIP (arXiv 2103.00020) published for ImageNet, after the bare name.
"""

from __future__ import annotations

from collections.abc import Iterator

_A_AND_THE = (
    "a bad photo of {} {}.",
    "a sculpture of {} {}.",
    "a photo of {} hard to see {}.",
    "a low resolution photo of {} {}.",
    "a rendering of {} {}.",
    "graffiti of {} {}.",
    "a cropped photo of {} {}.",
    "a tattoo of {} {}.",
    "{} embroidered {}.",
    "a bright photo of {} {}.",
    "a photo of {} clean {}.",
    "a photo of {} dirty {}.",
    "a dark photo of {} {}.",
    "a drawing of {} {}.",
    "{} plastic {}.",
    "a photo of {} cool {}.",
    "a close-up photo of {} {}.",
    "a black and white photo of {} {}.",
    "a painting of {} {}.",
    "a pixelated photo of {} {}.",
    "a jpeg corrupted photo of {} {}.",
    "a blurry photo of {} {}.",
    "a photo of {} {}.",
    "a good photo of {} {}.",
    "{} {} in a video game.",
    "a doodle of {} {}.",
    "{} origami {}.",
    "a sketch of {} {}.",
    "{} toy {}.",
    "a rendition of {} {}.",
    "a photo of {} large {}.",
    "a photo of {} nice {}.",
    "a photo of {} weird {}.",
    "{} cartoon {}.",
    "art of {} {}.",
    "{} plushie {}.",
    "a photo of {} small {}.",
    "itap of {} {}.",
)
_ALONE = ("{}.", "a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}.")


def _templates() -> Iterator[str]:
    yield from _ALONE
    for template in _A_AND_THE:
        for article in ("a", "the"):
            yield template.format(article, "{}")


TEMPLATES: tuple[str, ...] = tuple(_templates())
"""81 sentences with one ``{}`` each."""

_SUFFIXES = ("-other", "-merged", "-stuff")  # of COCO's panoptic names


def fill_templates(name: str) -> list[str]:
    """The 81 sentences for one class name.

    >>> fill_templates("sky-other-merged")[0]
    'sky.'
    """
    for suffix in _SUFFIXES:
        name = name.replace(suffix, "")
    return [template.format(name) for template in TEMPLATES]
