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

from seem.options import ZoomOption

if TYPE_CHECKING:
    from seem.evaluation.datasets import Dataset
    from seem.evaluation.pictures import Show
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
Html = Annotated[Path | None, typer.Option("--html", help="Write a report with curves and pictures: one file.")]
FirstPrompt = Annotated[str, typer.Option(help="First prompt: click, box, scribble, polygon, circle or mask.")]
MinArea = Annotated[float, typer.Option(help="Leave out objects below this share of the image.")]


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is measured with, and where it goes. The fields are options that every task has."""

    model: Annotated[str, typer.Option(help="Name or path of the model.")] = "seem-tiny"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto"
    out: Annotated[Path | None, typer.Option(help="Write a results file with a row per object, for compare.")] = None
    html: Html = None
    as_json: AsJson = False

    def check(self) -> None:
        """Refuse files that cannot be written, before the work."""
        _check_folder("--out", self.out)
        _check_folder("--html", self.html)

    def load(self) -> Model:
        return load_model(self.model, self.device)

    def finish(
        self,
        task: str,
        dataset: str,
        settings: dict[str, Any],
        rows: Iterable[dict[str, Any]],
        photos: int,
        *,
        model: str | None = None,
        show: Show | None = None,
    ) -> None:
        """Measure, write and print.

        Args:
            settings: what else decides the figures.
            rows: of the task, measured as they are asked for.
            photos: how many there are, for the progress.
            model: what answered, if not this model.
            show: makes the picture of a row, for the report.
        """
        from seem.evaluation import progress
        from seem.evaluation.results import FIGURES, Results, this_command, this_commit

        measured = list(progress.show(rows, photos, lambda rows: _headline(FIGURES[task](rows))))
        if not measured:
            raise ValueError(f"{dataset}: nothing in {photos} photos to evaluate")
        results = Results(task, model or self.model, dataset, settings, measured, this_command(), this_commit())
        if self.out is not None:
            results.save(self.out)
        if self.html is not None:
            from seem.evaluation import pictures, report

            chosen = pictures.choose(task, measured) if show is not None else {}
            report.write(self.html, results, {k: [show(r) for r in rows] for k, rows in chosen.items() if show})
        if self.as_json:
            _print_json(results.summary())
        else:
            _print_table(results.summary())


@dataclass(frozen=True, kw_only=True)
class Run(Output):
    """One task on one data set."""

    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder, or a COCO JSON file.", show_default=False)]
    images: Annotated[Path | None, typer.Option(help="Where a COCO file's images are, if not beside it.")] = None
    split: Annotated[
        str | None, typer.Option(help="Of a COCO file, or a list's name, or all; val if there is one.")
    ] = None
    only: Annotated[Path | None, typer.Option(help="JSON list of the photos to use, or lists by data set.")] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N photos.")] = None

    def open(self) -> Dataset:
        from seem.evaluation.datasets import open_dataset, read_only

        keys = read_only(self.only, self.data) if self.only is not None else None
        return open_dataset(self.data, images=self.images, split=self.split, only=keys)

    def chosen(self, dataset: Dataset) -> dict[str, Any]:
        """Settings: which part of the data."""
        only = self.only.name if self.only is not None else None
        return {"split": dataset.split, "only": only, "limit": self.limit, "photos": len(dataset.photos)}

    def __call__(self, task: str, settings: dict[str, Any], evaluate: Evaluate) -> None:
        """Measure a model on photos."""
        from seem.evaluation.pictures import Shower

        self.check()
        dataset = self.open().first(self.limit)
        model = self.load()
        settings |= self.chosen(dataset)
        show = Shower(task, model, dataset, settings)
        self.finish(task, dataset.name, settings, evaluate(model, dataset), len(dataset.photos), show=show)
        for line in dataset.repairs.lines():
            print(f"put right: {line}", file=sys.stderr)


def _check_folder(option: str, path: Path | None) -> None:
    if path is not None and not path.absolute().parent.is_dir():
        raise ValueError(f"{option}: no folder {path.absolute().parent}")


def load_model(name: str, device: str) -> Model:
    import seem

    return seem.load(name, device)


def measures(command: Callable[..., None]) -> Callable[..., None]:
    """Make `command(run, own options…)` a subcommand of its name, with the options of its run's class besides."""
    signature = list(inspect.signature(command, eval_str=True).parameters.values())
    kind = signature[0].annotation
    shared = dict(inspect.signature(kind, eval_str=True).parameters)
    own = {p.name: p for p in signature[1:]}

    def main(**options: Any) -> None:
        with _one_line_errors():
            command(kind(**{name: options[name] for name in shared}), **{name: options[name] for name in own})

    main.__name__, main.__doc__ = command.__name__, command.__doc__
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (own | shared).values()]
    parameters.sort(key=lambda p: p.default is not p.empty)  # arguments before options
    main.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    main.__annotations__ = {p.name: p.annotation for p in parameters}
    eval_app.command()(main)
    return command


@measures
def interactive(
    run: Run,
    prompt: FirstPrompt = "click",
    robot: Annotated[str, typer.Option(help="Who clicks: standard, or seem as in SEEM's own evaluation.")] = "standard",
    jitter: Annotated[bool, typer.Option("--jitter", help="Also an unsteady hand: Gaussian, 5 % of √area.")] = False,
    zoom: ZoomOption = False,
    min_area: MinArea = 0.0,
    seed: Seed = 0,
) -> None:
    """Clicks to a good mask: NoC@80/85/90/95, IoU after each click, share never reached, seconds per click.

    Example: seem eval interactive grabcut --json
    """
    from seem.evaluation import interactive as task
    from seem.evaluation.robot import JITTER

    _one_of("--prompt", prompt, task.PROMPTS)
    _one_of("--robot", robot, tuple(task.STOP))
    if jitter and robot != "standard":
        raise ValueError(f"--jitter: expected the standard robot, the hand of {robot!r} is steady")
    sigma = JITTER if jitter else 0.0
    options: dict[str, Any] = {"prompt": prompt, "robot": robot, "jitter": sigma, "min_area": min_area, "seed": seed}
    options |= {"zoom": True} if zoom else {}
    run("interactive", dict(options), lambda m, d: task.evaluate(m, d, **options))


@measures
def ablation(
    run: Run,
    part: Annotated[str, typer.Argument(metavar="PART", help="What is left out: memory or negatives.")],
    prompt: FirstPrompt = "click",
    min_area: MinArea = 0.0,
) -> None:
    """The paper's ablations of a trained model: rounds with and without memory, with and without negative clicks.

    What training decides is compared by training twice: docs/evaluation.md.

    Example: seem eval ablation memory grabcut --json
    """
    from seem.evaluation import ablation as task
    from seem.evaluation.interactive import PROMPTS

    _one_of("PART", part, task.PARTS)
    _one_of("--prompt", prompt, PROMPTS)
    settings = {"part": part, "prompt": prompt, "robot": "standard", "min_area": min_area}
    run("ablation", settings, lambda m, d: task.evaluate(m, d, part=part, prompt=prompt, min_area=min_area))


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
def find(run: Run, zoom: ZoomOption = False) -> None:
    """Every instance of a name: AP50 for classes with two or more instances in a photo.

    Example: seem eval find coco_mini --json
    """
    from seem.evaluation import find as task

    settings = {"zoom": True} if zoom else {}
    run("find", settings, lambda m, d: task.evaluate(m, d, zoom=zoom))


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
    """Everything in the photo: panoptic quality, instance AP and semantic IoU.

    Things and stuff of COCO's panoptic JSON (its PNGs beside it), or things only of an instances JSON.

    Example: seem eval panoptic coco/annotations/panoptic_val2017.json --images coco/val2017 --json
    """
    from seem.evaluation import panoptic as task

    run("panoptic", {"scope": task.scope(run.open())}, task.evaluate)


@measures
def referring(run: Run) -> None:
    """Sentences about one object: cIoU, mIoU and P@0.5 to 0.9 on RefCOCO, or of boxes on a plain JSON list.

    Example: seem eval referring refcocog --images coco/train2014 --split val --json
    """
    from seem.evaluation import referring as task
    from seem.evaluation.expressions import Expressions, open_expressions
    from seem.evaluation.pictures import Shower

    run.check()
    if run.only is not None:
        raise ValueError("--only: expected none, sentences are chosen by --split and --limit")
    found = open_expressions(run.data, run.images, run.split)
    photos = list(found.by_photo().values())[: run.limit]
    found = Expressions(found.name, tuple(item for items in photos for item in items), found.split)
    model = run.load()
    settings = {"split": found.split, "limit": run.limit, "photos": len(photos)}
    show = Shower("referring", model, found, settings)
    run.finish("referring", found.name, settings, task.evaluate(model, found), len(photos), show=show)


@measures
def video(
    run: Run,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Measure masks that lie here as VIDEO/FRAME.png, not a model.", show_default=False),
    ] = None,
    frames: Annotated[int | None, typer.Option(min=3, help="The first N frames of each video.")] = None,
) -> None:
    """Follow the objects of a video's first frame: J, F and J&F as DAVIS defines them. --limit counts videos.

    Example: seem eval video davis --json
    """
    from seem.evaluation import video as task
    from seem.evaluation.pictures import Shower

    run.check()
    dataset = run.open()
    videos = task.sequences(dataset, run.limit, frames)
    answers = task.tracked(run.load()) if predictions is None else task.stored(predictions)
    settings = {**run.chosen(dataset), "frames": frames, "photos": sum(map(len, videos.values()))}
    name = None if predictions is None else str(predictions)
    show = Shower("video", None, dataset, settings)
    rows = task.evaluate(answers, videos)
    run.finish("video", dataset.name, settings, rows, len(videos), model=name, show=show)


@measures
def speed(
    run: Output,
    image: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="One or more photos.", show_default=False)],
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each median is taken over.")] = 15,
) -> None:
    """Milliseconds of encoding, of a click and of the next one; import, cold start and peak memory.

    Example: seem eval speed photo.jpg --json
    """
    import torch

    from seem.evaluation import speed as task

    run.check()
    model = run.load()
    settings = {"device": str(model.device), "threads": torch.get_num_threads(), "rounds": rounds}
    rows = task.evaluate(model, image, name=run.model, device=run.device, rounds=rounds)
    run.finish("speed", "photos", settings, rows, len(image))


@eval_app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A results file of --out.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another; differences are this minus the first.", show_default=False)],
    resamples: Annotated[int, typer.Option(min=10, help="Bootstrap draws.")] = 1000,
    seed: Seed = 0,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """The difference of two results with a paired 95 % bootstrap interval over photos.

    Example: seem eval compare before.json after.json
    """
    from seem.evaluation import compare as task
    from seem.evaluation.results import Results

    with _one_line_errors():
        _check_folder("--html", html)
        result = task.compare(Results.load(a), Results.load(b), resamples, seed)
        if html is not None:
            from seem.evaluation import report

            report.write_comparison(html, result)
    if as_json:
        _print_json(result)
        return
    print(f"{result['task']} on {result['dataset']}: {result['n']} rows of {result['photos']} photos in both")
    for name, values in result["figures"].items():
        sure = "*" if values["low"] > 0 or values["high"] < 0 else " "
        print(f"{name:32}{values['a']:9.4f}{values['b']:9.4f}  {values['difference']:+.4f} "
              f"[{values['low']:+.4f}, {values['high']:+.4f}] {sure}")  # fmt: skip


# ---- output -----------------------------------------------------------------------------------------------------


def _one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{option}: expected one of {', '.join(known)}, got {value!r}")


_HEADLINES = ("noc", "iou", "top1", "ap50", "miou", "jf")


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
