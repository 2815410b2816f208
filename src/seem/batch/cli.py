"""`seem batch PHOTOS… --out DIR`: the same question to every photo, or each photo's own."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seem.options import (
    DEFAULT_MODEL,
    DeviceOption,
    InputError,
    ModelOption,
    PromptOptions,
    QuickOption,
    TilesOption,
    VocabularyOption,
    ZoomOption,
    encode,
    input_errors,
    load_model,
    pair_references,
    parse_names,
    print_json,
    read_image,
    takes_prompts,
)
from seem.progress import ProgressLine

if TYPE_CHECKING:
    from seem.batch.job import Job, Objects, Row
    from seem.batch.store import Store, Totals
    from seem.predict.model import Model
    from seem.predict.scene import Scene

ENGINES = ("local", "ray")
FULL = (errno.ENOSPC, errno.EDQUOT)

batch_app = typer.Typer(
    name="batch",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


class DiskFullError(Exception):
    """No room for results; what is done stays, and the same command goes on."""


@batch_app.command()
@takes_prompts
def batch(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTOS…", help="Files, folders, globs, @LIST, s3://… URLs.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results; a run that was cut off goes on.")],
    asked: PromptOptions,
    prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Prompts of each photo: .jsonl, .csv, or COCO's .json.")
    ] = None,
    prompt_kind: Annotated[
        str, typer.Option(metavar="box|mask|click|name", help="What a COCO file's annotations become.")
    ] = "box",
    panoptic: Annotated[bool, typer.Option("--panoptic", help="Divide every photo into named regions.")] = False,
    everything: Annotated[bool, typer.Option("--everything", help="All masks, without a prompt.")] = False,
    vocabulary: VocabularyOption = None,
    threshold: Annotated[
        float | None, typer.Option(help="Least score of what is found by --text, --panoptic or --everything.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many results of a phrase, or of --everything.")] = None,
    quick: QuickOption = False,
    points: Annotated[int | None, typer.Option(help="Clicks a side of --everything.")] = None,
    tiles: TilesOption = None,
    zoom: ZoomOption = False,
    kind: Annotated[str, typer.Option("--format", metavar="coco|parquet|png", help="What is written.")] = "coco",
    shard_size: Annotated[int, typer.Option(min=1, help="Photos of a file of results.")] = 500,
    engine: Annotated[str, typer.Option(metavar="local|ray", help="Where the work is done.")] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of --engine ray: at most so many that encode. Default: what fits.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Keep encoded scenes for the next run, up to 20GB, say.")
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where they are kept. Default: the user's cache folder.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document about the run.")] = False,
) -> None:
    """Segment a whole collection; stop it whenever you like, the same command goes on.

    --text alone finds every instance of each phrase, and there may be none; any other mix of prompts is one object in
    every photo; --prompts asks each photo its own. A photo that cannot be used is written to errors.jsonl and skipped.

    \b
    Examples:
      seem batch photos --text dog --text "red car" --out dogs
      seem batch @list.txt --panoptic --format png --out maps
      seem batch photos --prompts boxes.csv --format parquet --out masks --engine ray
    """
    from seem.batch.listing import list_photos

    if engine not in ENGINES:
        raise InputError(f"--engine: expected {', '.join(ENGINES)}, got {engine}")
    if engine == "ray" and find_spec("ray") is None:
        raise InputError("--engine ray: expected the package ray; pip install 'seem-segment[ray]'")
    drawn, texts, regions = asked.drawn(), asked.texts(), asked.regions()
    given = {
        "prompts": bool(drawn or texts or regions),
        "--prompts": prompts is not None,
        "--panoptic": panoptic,
        "--everything": everything,
    }
    if sum(given.values()) != 1:
        got = " and ".join(name for name, there in given.items() if there) or "none"
        raise InputError(
            f"expected one of: prompts such as --text, --prompts FILE, --panoptic, --everything; got {got}"
        )
    _check_windows(tiles, zoom, cache)
    options = _options(panoptic, everything, threshold, limit, points, quick)
    names = parse_names(vocabulary)
    scenes_at = _open_cache(cache, cache_dir)
    with _import_errors(), input_errors():
        listed = list_photos(photos, exclude=out)
    loaded = load_model(model, device)
    scenes = {path: encode(loaded, read_image(path)) for path in asked.references}
    own: dict[str, Objects] | None = None
    objects: Objects = []
    if prompts is not None:
        own, listed = _own_prompts(prompts, prompt_kind, listed, {s.digest: s for s in scenes.values()})
    elif given["prompts"]:
        pairs = [(scenes[path], region) for path, region in pair_references(asked.references, regions)]
        objects = _objects(drawn, texts, pairs)
        if options and (drawn or pairs):
            raise InputError(
                "--threshold, --limit and --quick: expected them with --text alone, --panoptic or --everything"
            )
    from seem.batch.job import Job

    job = Job(
        kind="panoptic" if panoptic else "everything" if everything else "prompts",
        model=model,
        weights=loaded.weights,
        device=device,
        objects=objects,
        vocabulary=names,
        options=options,
        tiles=tiles,
        zoom=zoom,
        references={s.digest: s.to_bytes() for s in scenes.values()},
    )
    store = _open_store(out, job, loaded, own, kind, shard_size)
    about = _run(store, job, loaded, listed, own, engine, workers, scenes_at)
    _tell(about, out, json_)


# ---- what is asked ------------------------------------------------------------------------------------------------


def _options(
    panoptic: bool,
    everything: bool,
    threshold: float | None,
    limit: int | None,
    points: int | None,
    quick: bool,
) -> dict[str, Any]:
    """Keyword arguments of the method that is called; wrong ones are told before any work."""
    if points is not None and not everything:
        raise InputError("--points: expected it with --everything only")
    if quick and (panoptic or everything):
        raise InputError("--quick: expected it with --text only")
    if limit is not None and panoptic:
        raise InputError("--limit: expected it with --text or --everything only")
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"--threshold: expected 0 to 1, got {threshold}")
    if limit is not None and limit < 1:
        raise InputError(f"--limit: expected a whole number from 1, got {limit}")
    if points is not None and not 1 <= points <= 128:
        raise InputError(f"--points: expected 1 to 128, got {points}")
    given = {"threshold": threshold, "limit": limit, "points_per_side": points, "quick": quick or None}
    return {key: value for key, value in given.items() if value is not None}


def _check_windows(tiles: int | None, zoom: bool, cache: str | None) -> None:
    if tiles is not None:
        from seem.predict.tiles import SMALLEST_TILE

        if tiles < SMALLEST_TILE:
            raise InputError(f"--tiles: expected {SMALLEST_TILE} pixels or more, got {tiles}")
    if cache is not None and (tiles is not None or zoom):
        raise InputError("--cache: expected no --tiles or --zoom beside it; parts of images are not cached")


def _objects(drawn: list[Any], texts: list[Any], pairs: list[tuple[Scene, Any]]) -> Objects:
    """Phrases alone are looked for one by one; anything else is one object."""
    from seem.prompts import Reference, object_to_json

    with input_errors("--reference"):
        regions = [Reference(scene, region) for scene, region in pairs]
    if not drawn and not regions:
        return [object_to_json(i, [text]) for i, text in enumerate(texts, start=1)]
    return [object_to_json(1, [*drawn, *texts, *regions])]


def _own_prompts(
    path: str, kind: str, listed: list[str], references: dict[str, Scene]
) -> tuple[dict[str, Objects], list[str]]:
    """Prompts by photo, and the photos that have some, in their order."""
    from seem.batch.prompt_files import match_photos, read_prompts

    with input_errors("--prompts"):
        own, missing = match_photos(listed, read_prompts(path, kind, references.__getitem__))
        if not own:
            raise ValueError(f"{path}: expected prompts for one of the photos, got {missing[0]} and the like")
    if missing:
        print(f"{len(missing)} photos of {path} are not among PHOTOS: {missing[0]}, …", file=sys.stderr)
    return own, [photo for photo in listed if photo in own]


def _open_cache(size: str | None, folder: Path | None) -> tuple[Path, int] | None:
    """Folder and budget."""
    if size is None:
        if folder is not None:
            raise InputError("--cache-dir: expected --cache SIZE beside it")
        return None
    from seem.batch.cache import parse_bytes
    from seem.checkpoints.hub import cache_dir

    with input_errors("--cache"):
        budget = parse_bytes(size)
    return folder or cache_dir() / "scenes", budget


def _open_store(out: Path, job: Job, model: Model, own: dict[str, Objects] | None, kind: str, shard_size: int) -> Store:
    from seem.batch.formats import make_writer
    from seem.batch.job import digest_of, phrases_of
    from seem.batch.prompt_files import all_phrases
    from seem.batch.store import Store

    phrases = phrases_of(job.objects) if own is None else all_phrases(own.values())
    identity = job.identity() | {"format": kind, "shard_size": shard_size}
    if own is not None:
        identity["prompts"] = digest_of(sorted(own.items()))
    with _import_errors(), input_errors():
        return Store(out, identity, make_writer(kind, job.kind, job.categories(model, phrases)), shard_size)


# ---- work ---------------------------------------------------------------------------------------------------------


def _run(
    store: Store,
    job: Job,
    model: Model,
    listed: list[str],
    own: dict[str, Objects] | None,
    engine: str,
    workers: int | None,
    scenes_at: tuple[Path, int] | None,
) -> dict[str, Any]:
    """Do what is not done; what there is to tell about it."""
    from seem.batch.cache import SceneCache
    from seem.batch.engine import run_local
    from seem.batch.job import Item
    from seem.batch.worker import Worker

    began = time.monotonic()
    try:
        with _opened(store):
            total, before = store.plan(listed)
            items = [Item(i, source, None if own is None else own.get(source)) for i, source in store.todo()]
            cache = None if scenes_at is None else SceneCache(*scenes_at)
            rows: Iterator[Row]
            if engine == "ray":
                from seem.batch.ray_engine import run_ray

                rows = run_ray(job, items, scenes_at, workers)
            else:
                rows = run_local(Worker(job, model, cache), items)
            progress = ProgressLine()
            for row in rows:
                store.add(row)
                progress.show(lambda seconds: _progress(seconds, store.totals, total, before))
            progress.end()
    except OSError as error:
        if error.errno not in FULL:
            raise
        done = f"{store.totals.photos} photos are done"
        raise DiskFullError(f"no space left for {store.folder}: {done}; make room and run it again") from error
    seconds = time.monotonic() - began
    new = store.totals.photos - before
    about = {
        "photos": store.totals.photos,
        "new": new,
        "segments": store.totals.segments,
        "errors": store.totals.errors,
        "seconds": round(seconds, 3),
        "photos_per_second": round(new / seconds, 3),
    }
    return about | ({"cache_hits": cache.hits} if cache is not None and engine == "local" else {})


@contextmanager
def _opened(store: Store) -> Iterator[None]:
    """A folder that cannot be written to, or that holds another run, is bad usage."""
    try:
        store.__enter__()
    except (ValueError, FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"--out: {error}") from error
    try:
        yield
    finally:
        store.__exit__()


@contextmanager
def _import_errors() -> Iterator[None]:
    """An extra that is not installed is told as bad usage."""
    try:
        yield
    except ImportError as error:
        raise InputError(str(error)) from error


def _progress(seconds: float, totals: Totals, total: int, before: int) -> str:
    rate = (totals.photos - before) / seconds
    line = f"{totals.photos}/{total} photos, {rate:.2f} a second, {totals.segments} results"
    line += f", {totals.errors} errors" if totals.errors else ""
    return line + (f", {(total - totals.photos) / rate:.0f} s left" if rate else "")


def _tell(about: dict[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        print_json({"out": str(out), **about})
        return
    old = about["photos"] - about["new"]
    print(f"{about['photos']} photos{f' ({old} of them before)' if old else ''}, {about['segments']} results")
    if about["errors"]:
        print(f"{about['errors']} photos could not be used: {out / 'errors.jsonl'}")
    if about["new"]:
        print(f"{about['seconds']:.1f} s, {about['photos_per_second']:.2f} photos a second")
    print(f"wrote {out}")
