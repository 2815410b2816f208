"""`seem eval …`: measure a model on a data set, and compare two results."""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from seem.evaluation.datasets import Dataset
    from seem.predict.model import Model

    Evaluate = Callable[[Model, Dataset], Iterable[dict[str, Any]]]

eval_app = typer.Typer(
    name="eval",
    help="Measure a model at the public API, at the stored resolution of the photos. Progress goes to stderr.",
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)

Seed = Annotated[int, typer.Option(help="Of everything that is drawn.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]


@dataclass(frozen=True)
class Run:
    """One task on one data set. The fields are the options that all tasks share."""

    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder, or a COCO JSON file.", show_default=False)]
    model: Annotated[str, typer.Option(help="Name or path of the model.")] = "seem-tiny"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto"
    images: Annotated[Path | None, typer.Option(help="Where a COCO file's images are, if not beside it.")] = None
    split: Annotated[str | None, typer.Option(help="Of a COCO file, or all; by default val… if there is one.")] = None
    only: Annotated[Path | None, typer.Option(help="JSON list of the photos to use, or lists by data set.")] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N photos.")] = None
    out: Annotated[Path | None, typer.Option(help="Write a results file with a row per object, for compare.")] = None
    as_json: AsJson = False

    def __call__(self, task: str, settings: dict[str, Any], evaluate: Evaluate) -> None:
        """Measure, write and print. `settings` is what else decides the figures."""
        from seem.evaluation import progress
        from seem.evaluation.datasets import open_dataset, read_only
        from seem.evaluation.results import FIGURES, Results, this_command, this_commit

        if self.out is not None and not self.out.absolute().parent.is_dir():
            raise ValueError(f"--out: no folder {self.out.absolute().parent}")
        keys = read_only(self.only, self.data) if self.only is not None else None
        dataset = open_dataset(self.data, images=self.images, split=self.split, only=keys).first(self.limit)
        photos = len(dataset.photos)
        measured = evaluate(load_model(self.model, self.device), dataset)
        rows = list(progress.show(measured, photos, lambda rows: _headline(FIGURES[task](rows))))
        if not rows:
            raise ValueError(f"{self.data}: nothing in {photos} photos to evaluate")
        only = self.only.name if self.only is not None else None
        settings |= {"split": dataset.split, "only": only, "limit": self.limit, "photos": photos}
        results = Results(task, self.model, dataset.name, settings, rows, this_command(), this_commit())
        if self.out is not None:
            results.save(self.out)
        if self.as_json:
            _print_json(results.summary())
        else:
            _print_table(results.summary())


def load_model(name: str, device: str) -> Model:
    import seem

    return seem.load(name, device)


def measures(command: Callable[..., None]) -> Callable[..., None]:
    """Make `command(run, own options…)` a subcommand of its name, with the options of `Run` besides its own."""
    shared = inspect.signature(Run, eval_str=True).parameters
    own = dict(list(inspect.signature(command, eval_str=True).parameters.items())[1:])

    def main(**options: Any) -> None:
        with _one_line_errors():
            command(Run(**{name: options[name] for name in shared}), **{name: options[name] for name in own})

    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in {"data": shared["data"], **own, **shared}.values()]
    main.__name__, main.__doc__ = command.__name__, command.__doc__
    main.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    main.__annotations__ = {p.name: p.annotation for p in parameters}
    eval_app.command()(main)
    return command


@measures
def interactive(
    run: Run,
    prompt: Annotated[str, typer.Option(help="First prompt: click, box, scribble, polygon, circle or mask.")] = "click",
    jitter: Annotated[bool, typer.Option("--jitter", help="An unsteady hand: Gaussian, 5 % of √area.")] = False,
    min_area: Annotated[float, typer.Option(help="Leave out objects below this share of the image.")] = 0.0,
    seed: Seed = 0,
) -> None:
    """Clicks to a good mask: NoC@80/85/90/95, IoU after each click, share never reached, seconds per click.

    Example: seem eval interactive grabcut --json
    """
    from seem.evaluation import interactive as task
    from seem.evaluation import robot

    if prompt not in task.PROMPTS:
        raise ValueError(f"--prompt: expected one of {', '.join(task.PROMPTS)}, got {prompt!r}")
    sigma = robot.JITTER if jitter else 0.0
    settings = {"prompt": prompt, "robot": robot.NAME, "jitter": sigma, "min_area": min_area, "seed": seed}
    run(
        "interactive",
        settings,
        lambda m, d: task.evaluate(m, d, prompt=prompt, jitter=sigma, min_area=min_area, seed=seed),
    )


@measures
def text(run: Run, seed: Seed = 0) -> None:
    """Class names as prompts: IoU, synonyms, names of what is not there, and words for places.

    Example: seem eval text coco_mini --json
    """
    from seem.evaluation import text as task

    run("text", {"seed": seed}, lambda m, d: task.evaluate(m, d, seed=seed))


@measures
def label(run: Run) -> None:
    """Name given masks: top-1 and top-5 among the data set's names.

    Example: seem eval label coco_mini --json
    """
    from seem.evaluation import label as task

    run("label", {}, task.evaluate)


@measures
def find(
    run: Run,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Of find; its default if not given.")] = None,
) -> None:
    """Every instance of a name: AP50 for classes with two or more instances in a photo.

    Example: seem eval find coco_mini --json
    """
    from seem.evaluation import find as task

    run("find", {"threshold": threshold}, lambda m, d: task.evaluate(m, d, threshold=threshold))


@measures
def reference(
    run: Run,
    prompt: Annotated[str, typer.Option(help="What marks the object in the first photo: mask or box.")] = "mask",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of photos, at most.")] = 500,
    seed: Seed = 0,
) -> None:
    """Find in one photo what is shown in another: photos with a class's only instance, or frames of a video.

    Example: seem eval reference coco_mini --json
    """
    from seem.evaluation import reference as task

    settings = {"prompt": prompt, "pairs": pairs, "seed": seed}
    run("reference", settings, lambda m, d: task.evaluate(m, d, prompt=prompt, pairs=pairs, seed=seed))


@measures
def composition(run: Run, seed: Seed = 0) -> None:
    """A name and a click together, against each alone and against adding up what each alone says.

    Example: seem eval composition coco_mini --json
    """
    from seem.evaluation import composition as task

    run("composition", {"seed": seed}, lambda m, d: task.evaluate(m, d, seed=seed))


@measures
def panoptic(run: Run) -> None:
    """Everything in the photo: instance AP50 and panoptic quality of things.

    Example: seem eval panoptic coco_mini --json
    """
    from seem.evaluation import panoptic as task

    run("panoptic", {}, task.evaluate)


@eval_app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A results file of --out.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another; differences are this minus the first.", show_default=False)],
    resamples: Annotated[int, typer.Option(min=10, help="Bootstrap draws.")] = 1000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """The difference of two results with a paired 95 % bootstrap interval over photos.

    Example: seem eval compare before.json after.json
    """
    from seem.evaluation import compare as task
    from seem.evaluation.results import Results

    with _one_line_errors():
        result = task.compare(Results.load(a), Results.load(b), resamples, seed)
    if as_json:
        _print_json(result)
        return
    print(f"{result['task']} on {result['dataset']}: {result['n']} rows of {result['photos']} photos in both")
    for name, values in result["figures"].items():
        sure = "*" if values["low"] > 0 or values["high"] < 0 else " "
        print(f"{name:32}{values['a']:9.4f}{values['b']:9.4f}  {values['difference']:+.4f} "
              f"[{values['low']:+.4f}, {values['high']:+.4f}] {sure}")  # fmt: skip


# ---- output -----------------------------------------------------------------------------------------------------


_HEADLINES = ("noc", "iou", "top1", "ap50")


def _headline(figures: dict[str, Any]) -> str:
    for name in _HEADLINES:
        value = figures.get(name)
        value = value.get("90", value.get("both")) if isinstance(value, dict) else value
        if value is not None:
            return f"{name} {value:.3f}"
    return ""


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, allow_nan=False, ensure_ascii=False))


def _print_table(values: dict[str, Any], prefix: str = "") -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _print_table(value, f"{prefix}{name} ")
        elif value is not None:
            print(f"{prefix + name:28} {value:.4g}" if isinstance(value, float) else f"{prefix + name:28} {value}")


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Bad usage or input: one line on stderr and exit code 2."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError, PermissionError) as error:
        lines: Sequence[str] = str(error).splitlines() or [type(error).__name__]
        print(f"seem eval: {lines[0]}", file=sys.stderr)
        raise typer.Exit(2) from None
