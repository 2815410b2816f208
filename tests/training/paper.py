"""A reduced official network and lessons on pictures of a square and a disk, for the tests of the paper's training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from seem.model.official_config import official_config, reduced
from seem.model.official_seem import OfficialSEEM
from seem.training.paper.config import ObjectiveConfig
from seem.training.paper.lesson import Annotation, Lesson, LessonMaker

CLASSES = ("clock", "frisbee", "cat")


def network(version: str = "v0", learned: Sequence[str] = ("decoder.",), **options: Any) -> OfficialSEEM:
    torch.manual_seed(0)
    model = OfficialSEEM(reduced(official_config(f"seem-focal-t-{version}")), **options)
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith(tuple(learned)))
    return model


def config(**changes: Any) -> ObjectiveConfig:
    return ObjectiveConfig(**{"points": 256, "rounds": 0, **changes})


def picture(i: int = 0) -> tuple[np.ndarray, list[Annotation]]:
    """(60, 90, 3): a bright red square, a clock, and a bright blue disk, a frisbee, on grey."""
    rng = np.random.default_rng(i)
    y, x = np.mgrid[:60, :90]
    square = (x >= 6 + 4 * i) & (x < 36 + 4 * i) & (y >= 8) & (y < 38)
    disk = (x - 64) ** 2 + (y - 30 - 3 * i) ** 2 < 16**2
    photo = rng.integers(90, 140, (60, 90, 3))
    photo[square, 0], photo[disk, 2] = 250, 250
    return photo.astype(np.uint8), [Annotation(square, "clock", True), Annotation(disk, "frisbee", True)]


def lesson(
    model: OfficialSEEM,
    objective: ObjectiveConfig,
    i: int = 0,
    seed: int = 0,
    annotations: Sequence[Annotation] | None = None,
    complete: bool = True,
    classes: Sequence[str] = CLASSES,
) -> Lesson:
    photo, drawn = picture(i)
    make = LessonMaker(classes, {}, model.config.image, objective)
    return make(
        f"photo {i}", photo, drawn if annotations is None else annotations, complete, np.random.default_rng(seed)
    )
