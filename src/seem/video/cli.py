"""`seem video IN OUT`: prompts on one frame or several, masks on all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from seem.locks import BusyError
from seem.options import (
    DEFAULT_MODEL,
    DeviceOption,
    InputError,
    ModelOption,
    PromptOptions,
    encode,
    input_errors,
    load_model,
    pair_references,
    print_json,
    read_image,
    read_json,
    takes_prompts,
)
from seem.progress import ProgressLine

if TYPE_CHECKING:
    from seem.predict.scene import Scene
    from seem.predict.tracking import Schedule
    from seem.video.reader import Video

T = TypeVar("T")

KINDS = ("video", "png", "json")

video_app = typer.Typer(
    name="video",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@video_app.command()
@takes_prompts
def video(
    source: Annotated[str, typer.Argument(metavar="IN", help="The video.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help=".mp4, .mov or .mkv; .json; or a folder for PNGs.")],
    asked: PromptOptions,
    frame: Annotated[int, typer.Option(min=0, metavar="N", help="The frame that the prompts are of, from 0.")] = 0,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE.json", help='[{"id": 1, "frame": 0, "prompts": [{"type": "click", …}]}, …].'),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--format", metavar="|".join(KINDS), help="What OUT is, if not by its suffix.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document about the run.")] = False,
) -> None:
    """Follow one object through a video from prompts on one frame, or several objects from a file.

    Coordinates are pixels of the frame as it is seen. OUT is a video with the masks drawn in and the sound of IN, a
    folder of palette PNGs as in DAVIS, or JSON with COCO's run lengths. An entry of --prompts may name its frame;
    more entries with the same id correct it there.

    \b
    Examples:
      seem video dog.mp4 overlay.mp4 --click 320,200
      seem video street.mov masks.json --frame 40 --text "red car" --json
      seem video match.mp4 masks --prompts players.json
    """
    from seem.prompts import Reference
    from seem.video.reader import Video

    out, kind = _check_target(source, target, kind)
    drawn = [*asked.drawn(), *asked.texts()]
    regions = asked.regions()
    document = None if prompts is None else read_json(prompts)
    if document is not None and (drawn or regions):
        raise InputError("--prompts: expected no other prompt beside it, only --reference for the images it names")
    pairs = pair_references(asked.references, regions) if document is None else []
    if document is None and not drawn and not pairs:
        raise InputError("expected at least one prompt: --click, --box, --text, … (see --help)")
    with input_errors():
        video = Video(source)
    loaded = load_model(model, device)
    scenes = {path: encode(loaded, read_image(path)) for path in asked.references}
    if document is None:
        with input_errors("--reference"):
            schedule: Schedule = {frame: {1: (*drawn, *(Reference(scenes[path], region) for path, region in pairs))}}
    else:
        schedule = _parse_objects(prompts or "", document, frame, {s.digest: s for s in scenes.values()})
    if kind == "png" and not all(1 <= i <= 255 for objects in schedule.values() for i in objects):
        raise InputError("OUT: expected object ids from 1 to 255 for PNG masks; use .json for others")
    try:
        about = _work(loaded, video, schedule, out, kind)
    except BusyError:
        raise InputError(f"OUT: expected one run at a time, another is writing {target}") from None
    _print_result(about, target, json_)


def _check_target(source: str, target: str, kind: str | None) -> tuple[Path, str]:
    from seem.video.writer import VIDEO_SUFFIXES

    path = Path(target)
    by_suffix = {"": "png", ".json": "json"} | dict.fromkeys(VIDEO_SUFFIXES, "video")
    found = kind or ("png" if path.is_dir() else by_suffix.get(path.suffix.lower()))
    if found not in KINDS:
        if kind is not None:
            raise InputError(f"--format: expected {', '.join(KINDS)}, got {kind}")
        raise InputError(f"OUT: expected {', '.join(VIDEO_SUFFIXES)}, .json or a folder, got {target}")
    if found == "video" and path.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(f"OUT: expected a name that ends in {', '.join(VIDEO_SUFFIXES)}, got {target}")
    if not path.parent.is_dir():
        raise InputError(f"OUT: no such folder: {path.parent}")
    if found == "png" and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"OUT: expected a new or empty folder, got {target}")
    if found != "png" and path.is_dir():
        raise InputError(f"OUT: expected a file, got a folder: {target}")
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise InputError(f"OUT: expected another file than the video itself, got {target}")
    return path, found


def _parse_objects(path: str, document: Any, frame: int, references: dict[str, Scene]) -> Schedule:
    """The entries of a --prompts file; those without a frame are of ``frame``."""
    from seem.prompts import object_from_json, parse_id

    with input_errors(f"--prompts {path}"):
        schedule: Schedule = {}
        for entry in document if isinstance(document, list) else [document]:
            at = parse_id("frame", entry.get("frame", frame)) if isinstance(entry, dict) else frame
            rest = {k: v for k, v in entry.items() if k != "frame"} if isinstance(entry, dict) else entry
            object_id, listed = object_from_json(rest, references.__getitem__)
            objects = schedule.setdefault(at, {})
            if object_id in objects or not listed:
                raise ValueError(f"object {object_id}, frame {at}: expected prompts, once, got none or a second time")
            objects[object_id] = tuple(listed)
        if not schedule:
            raise ValueError("expected at least one object, got none")
        return schedule


def _work(model: Any, video: Video, schedule: Schedule, out: Path, kind: str) -> dict[str, Any]:
    """Track and write; what there is to tell about it."""
    from seem.video.writer import check_sound, open_writer

    objects: dict[int, dict[str, Any]] = {}
    began = time.monotonic()
    progress = ProgressLine()
    index = -1
    with input_errors():
        if kind == "video":
            check_sound(out, video)
        tracked = model.track(video.path, schedule)
    with open_writer(out, kind, video) as writer:
        pairs = zip(video.frames(), tracked, strict=True)
        for index, (frame, results) in enumerate(_input_errors(pairs)):
            writer.write(index, frame, results)
            for object_id, result in results.items():
                about = objects.setdefault(object_id, {"id": object_id, "label": None, "frames": 0, "score": 0.0})
                about["label"] = result.label or about["label"]
                if result.area:
                    about["frames"] += 1
                    about["score"] += result.score
            progress.show(partial(_progress, done=index + 1, expected=video.expected))
    progress.end()
    for about in objects.values():
        about["score"] = round(about["score"] / max(1, about["frames"]), 4)
    seconds = round(time.monotonic() - began, 3)
    return {"frames": index + 1, "seconds": seconds, "objects": list(objects.values())}


def _input_errors(items: Iterator[T]) -> Iterator[T]:
    """What goes wrong while the next is made is the input's fault; what happens to it afterwards is not."""
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (ValueError, TypeError) as error:
            raise InputError(str(error)) from error
        yield item


def _progress(seconds: float, done: int, expected: int | None) -> str:
    rate = done / seconds
    if expected and expected >= done:
        return f"{done}/{expected} frames, {rate:.1f} a second, {(expected - done) / rate:.0f} s left"
    return f"{done} frames, {rate:.1f} a second"


def _print_result(about: dict[str, Any], target: str, as_json: bool) -> None:
    if as_json:
        print_json({"out": target, **about})
        return
    for found in about["objects"]:
        name = found["label"] or "object"
        print(f"{found['id']}  {name}  on {found['frames']} of {about['frames']} frames, score {found['score']:.2f}")
    print(f"wrote {target}")
