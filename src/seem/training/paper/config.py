"""What a run of the paper's training may change; every field is a line of its TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from seem.model.config import build
from seem.training.augment import AugmentConfig
from seem.training.engine import EngineConfig
from seem.training.strokes import KINDS

TASKS = ("generic", "referring", "interactive")
MATCHING = ("separate", "joint")
SCRATCH = "scratch"


@dataclass(frozen=True)
class Weights:
    """Of cross-entropy, mask BCE and mask dice, in the loss or in the cost of a match."""

    ce: float
    bce: float
    dice: float


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss of SPEC section 11 and the mix of prompts of section 8.

    Attributes:
        tasks: which of the three are learned.
        matching: "separate" compares visual prompts with mask embeddings and text with class embeddings; "joint"
            compares both with class embeddings (an ablation of the paper).
        rounds: at most so many rounds without gradient come before the one that is learned from.
        negative_prompts: the robot also says what the object is not.
        objects: prompted objects per photo, at most.
        strokes: kinds of first prompts, equally often.
        phrases: texts per photo, at most.
        points: where a mask's loss and a match's cost are measured; of them the share ``importance`` are the most
            undecided of ``oversample`` times as many.
        no_object: weight of "nothing of these" in the classes' cross-entropy.
        official_quirks: padding is attended and learned as the official code does, and visual prompts are matched
            with its weights 2 / 5 / 5 instead of the 5 / 2 / 2 that its configuration names and it ignores.
    """

    tasks: tuple[str, ...] = TASKS
    matching: str = "separate"
    rounds: int = 5
    negative_prompts: bool = True
    objects: int = 10
    strokes: tuple[str, ...] = KINDS
    phrases: int = 4
    object_weights: Weights = Weights(2.0, 5.0, 5.0)
    text_weights: Weights = Weights(0.4, 1.0, 1.0)
    click_weights: Weights = Weights(0.4, 1.0, 1.0)
    points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75
    no_object: float = 0.1
    official_quirks: bool = False

    def __post_init__(self) -> None:
        if not self.tasks or not set(self.tasks) <= set(TASKS):
            raise ValueError(f"tasks is {list(self.tasks)}; expected some of {', '.join(TASKS)}")
        if self.matching not in MATCHING:
            raise ValueError(f"matching is {self.matching!r}; expected one of {', '.join(MATCHING)}")
        if not self.strokes or not set(self.strokes) <= set(KINDS):
            raise ValueError(f"strokes is {list(self.strokes)}; expected some of {', '.join(KINDS)}")
        for name in ("objects", "phrases", "points"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.rounds < 0:
            raise ValueError(f"rounds is {self.rounds}; expected 0 or more")
        if self.oversample < 1 or not 0 <= self.importance <= 1:
            raise ValueError(
                f"oversample is {self.oversample} and importance {self.importance}; expected at least 1 and 0 to 1"
            )


@dataclass(frozen=True)
class PaperConfig:
    """A training run of an official variant. The engine's seed is also that of weights that start from scratch.

    Attributes:
        model: the variant, such as "seem-focal-t-v1"; its last part decides how the decoder is wired.
        start: "scratch"; or the name or path of official weights of the same image encoder, whatever their wiring; or
            the folder of a run of the same model, whose averaged weights are where this one begins.
        reduced: the same architecture a few channels wide, to try things out on a laptop; there are no weights of it.
        records: JSON Lines files with a sampling weight each.
        classes: "coco" are the 133 panoptic classes, "records" whatever names the records hold.
        frozen: prefixes of the parameters that do not learn.
        encoder_rate: times the learning rate for the image and the text encoder, where they learn.
    """

    model: str = "seem-focal-t-v1"
    start: str = "scratch"
    reduced: bool = False
    records: tuple[tuple[str, float], ...] = ()
    classes: str = "coco"
    frozen: tuple[str, ...] = ("image_encoder.", "pixel_decoder.", "text_encoder.")
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    encoder_rate: float = 0.1
    engine: EngineConfig = field(default_factory=EngineConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        if self.classes not in ("coco", "records"):
            raise ValueError(f"classes is {self.classes!r}; expected coco or records")
        if self.reduced and self.start != SCRATCH and not Path(self.start).is_dir():
            raise ValueError(f"start is {self.start!r}; expected {SCRATCH!r} or a run's folder for a reduced model")
        if not self.records or not sum(weight for _, weight in self.records) > 0:
            raise ValueError("records is empty or without weight; expected files with a sampling weight each")

    @classmethod
    def read(cls, path: Path) -> PaperConfig:
        """Raises ValueError for a field that does not exist or a value out of range."""
        config: PaperConfig = build(cls, tomllib.loads(path.read_text()))
        return config
