"""Routes about videos: upload, frames, tracking as a stream of lines, export."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from starlette.responses import FileResponse, Response, StreamingResponse

from seem.serving.errors import ApiError, busy, not_found
from seem.serving.routes_model import ERRORS
from seem.serving.schemas import TrackRequest, VideoAnswer
from seem.serving.sessions import Session
from seem.serving.state import NeedsJson, State, TheSession, TheState
from seem.serving.videos import StoredVideo, schedule_from_json, video_suffix

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=ERRORS)

VideoId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
_UPLOAD = {"requestBody": {"required": True, "content": {"video/*": {}, "application/octet-stream": {}}}}


@router.post("", openapi_extra=_UPLOAD)
async def upload(request: Request, state: TheState, session: TheSession) -> VideoAnswer:
    """Takes a video: MP4, QuickTime, Matroska, WebM or AVI as the body, as it is. It is read through once."""
    limits = state.settings.limits
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (media_type.startswith("video/") or media_type == "application/octet-stream"):
        raise ApiError(415, "media_type", f"Content-Type: expected video/*, got {media_type[:60]!r}")
    if len(session.videos) >= limits.videos_per_session:
        raise ApiError(429, "too_many", f"videos: expected at most {limits.videos_per_session} in a session", 60)
    video = StoredVideo()
    name = secrets.token_hex(8)
    session.videos[name] = video  # counts from now on
    try:
        await _receive(request, video, state)
        call = lambda: asyncio.to_thread(video.read_through, limits, time.monotonic)  # noqa: E731
        await state.work(state.heavy, session, call)
    except BaseException:
        session.videos.pop(name, None)
        video.close()
        raise
    return VideoAnswer(video=name, width=video.width, height=video.height, frames=video.frames, fps=video.fps)


async def _receive(request: Request, video: StoredVideo, state: State) -> None:
    """The body to the disk, a piece at a time; the format is looked at before anything is written."""
    head, file = b"", None
    try:
        async for piece in request.stream():
            video.bytes += len(piece)
            if state.sessions.video_bytes > state.settings.limits.all_video_bytes:
                raise busy("there is no room for another video", 60)
            if file is not None:
                await asyncio.to_thread(file.write, piece)
                continue
            head += piece
            if len(head) >= 16:
                video_suffix(head)
                file = video.path.open("wb")
                await asyncio.to_thread(file.write, head)
        if file is None:
            video_suffix(head)
    finally:
        if file is not None:
            file.close()


@router.delete("/{video}", status_code=204)
async def remove(video: VideoId, session: TheSession) -> None:
    """Forgets a video."""
    _find(session, video)
    session.videos.pop(video).close()


@router.get("/{video}/frames/{number}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def frame(video: VideoId, number: int, state: TheState, session: TheSession) -> Response:
    """One frame as JPEG, counted from 0."""
    stored = _find(session, video)
    call = lambda: asyncio.to_thread(stored.frame, number)  # noqa: E731
    data = await state.work(state.decoding, session, call)
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


@router.post(
    "/{video}/track",
    dependencies=[NeedsJson],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}}},
)
async def track(video: VideoId, request: TrackRequest, state: TheState, session: TheSession) -> Response:
    """Follows objects: a line of JSON for each frame, {"frame", "segments": […]}; a last {"error"} if it fails.

    Closing the connection stops it. What was tracked to the end can be exported.
    """
    stored = _find(session, video)
    dumped = request.model_dump()["prompts"]
    schedule = schedule_from_json(dumped, stored.frames, state.settings.limits)
    scenes: dict[str, Any] = {}
    for objects in schedule.values():
        for listed in objects.values():
            for prompt in listed:
                if prompt["type"] == "reference":
                    scenes[prompt["image"]] = state.sessions.image(session, prompt["image"]).shared
    lines: asyncio.Queue[str | None] = asyncio.Queue(maxsize=8)  # a slow reader slows the work
    job = asyncio.create_task(_track(state, session, stored, schedule, scenes, lines))
    first = await _first_line(lines, job)  # bad prompts are an error of the request, not a line of its answer
    return StreamingResponse(_stream(first, lines, job), media_type="application/x-ndjson")


async def _first_line(lines: asyncio.Queue[str | None], job: asyncio.Task[None]) -> str | None:
    getting = asyncio.ensure_future(lines.get())
    try:
        await asyncio.wait({getting, job}, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
        job.result()  # raises what went wrong before there was a line
        return None
    except BaseException:
        job.cancel()
        raise
    finally:
        getting.cancel()


async def _stream(line: str | None, lines: asyncio.Queue[str | None], job: asyncio.Task[None]) -> AsyncIterator[str]:
    try:
        while line is not None:
            yield line
            line = await lines.get()
    finally:
        job.cancel()


async def _track(
    state: State,
    session: Session,
    stored: StoredVideo,
    schedule: Any,
    scenes: dict[str, Any],
    lines: asyncio.Queue[str | None],
) -> None:
    """Waits for its turn, then puts lines and at last None; stops when it is cancelled."""
    stop = asyncio.Event()
    count = 0

    async def put(line: str | None) -> None:
        putting, stopping = asyncio.ensure_future(lines.put(line)), asyncio.ensure_future(stop.wait())
        await asyncio.wait({putting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        putting.cancel()
        stopping.cancel()

    async def work() -> None:
        nonlocal count
        kept = stored.keep_track(state.settings.limits.video_bytes)
        found = state.engine.track(stored.path, schedule, scenes)
        try:
            async for segments in found:
                if stop.is_set():
                    return
                line = json.dumps({"frame": count, "segments": segments}) + "\n"
                kept.write(line)
                count += 1
                await put(line)
            kept.finish()
        finally:
            await found.aclose()
            kept.close()

    try:
        await state.work(state.tracking, session, work)
    except Exception as error:
        if not count:
            raise
        answer = error if isinstance(error, ApiError) else ApiError(500, "failed", "the tracking failed")
        await put(json.dumps({"error": {"code": answer.code, "message": answer.message}}) + "\n")
    finally:
        if asyncio.current_task().cancelling():  # type: ignore[union-attr]
            stop.set()
    await put(None)


@router.get("/{video}/export", response_class=Response)
async def export(
    video: VideoId, format: Literal["overlay", "masks", "coco"], state: TheState, session: TheSession
) -> Response:
    """What was tracked last: "overlay" a video, "masks" a zip of PNGs with object ids, "coco" JSON."""
    stored = _find(session, video)
    call = lambda: asyncio.to_thread(stored.export, format)  # noqa: E731
    path, media_type = await state.work(state.heavy, session, call)
    return FileResponse(path, media_type=media_type, filename=f"seem-{path.name}")


def _find(session: Session, video: str) -> StoredVideo:
    stored = session.videos.get(video)
    if stored is None or not stored.frames:
        raise not_found("video: expected one that this session uploaded")
    return stored
