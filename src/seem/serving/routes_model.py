"""Routes about the model: what it is, texts, the decoder for browsers, samples; and sessions."""

from __future__ import annotations

import asyncio
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from seem import __version__
from seem.serving.errors import invalid, not_found
from seem.serving.page import FOREVER, samples
from seem.serving.schemas import ErrorAnswer, InfoAnswer, SessionAnswer, TextRequest
from seem.serving.state import NeedsJson, TheSession, TheState
from seem.vocabulary import COCO_PANOPTIC_NAMES, COCO_THING_NAMES

BINARY: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "What was wrong."},
    503: {"model": ErrorAnswer, "description": "Full; come back after Retry-After seconds."},
}

router = APIRouter(prefix="/v1", tags=["model"], responses=ERRORS)


@router.post("/sessions", status_code=201)
async def open_session(state: TheState) -> SessionAnswer:
    """A new session. Its token goes into X-Seem-Session of every call about images and videos."""
    session = state.sessions.open()
    return SessionAnswer(session=session.token, expires_in=state.settings.limits.session_seconds)


@router.delete("/sessions/current", status_code=204)
async def close_session(state: TheState, session: TheSession) -> None:
    """Ends a session; what only it uploaded is forgotten."""
    state.sessions.close(session)


@router.get("/info")
async def info(state: TheState) -> InfoAnswer:
    """The model, its names, the limits, the decoder's files and the samples."""
    own = list(state.about.get("own_names", ()))
    files = state.decoder_files
    listed = await asyncio.to_thread(lambda: [_about_file(n, p) for n, p in files.items()])
    return InfoAnswer.model_validate(
        {
            "version": __version__,
            "model": state.about.get("model", ""),
            "weights": state.about.get("weights", ""),
            "vocabulary": [*COCO_PANOPTIC_NAMES, *own],
            "things": [*COCO_THING_NAMES, *own],
            "limits": state.settings.limits.to_json(),
            "decoder": {"available": bool(listed), "files": listed},
            "samples": [
                {"id": s.id, "name": s.name, "url": f"/v1/samples/{s.id}", "width": s.size[0], "height": s.size[1]}
                for s in samples().values()
            ],
        }
    )


@cache
def _about_file(name: str, path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@router.post("/text", dependencies=[NeedsJson], responses=BINARY, response_class=Response)
async def text(request: TextRequest, state: TheState, session: TheSession) -> Response:
    """Texts as the decoder reads them: safetensors with sentence (K, D), tokens (K, T, dim) and mask (K, T)."""
    limits = state.settings.limits
    if len(request.texts) > limits.names:
        raise invalid(f"texts: expected at most {limits.names}, got {len(request.texts)}")
    for i, item in enumerate(request.texts):
        if not item.strip() or len(item) > 1000:
            raise invalid(f"texts[{i}]: expected 1 to 1000 characters, got {len(item.strip())}")
    data = await state.ask(state.decoding, session, "text", request.texts)
    return Response(data, media_type="application/octet-stream")


@router.get("/decoder/{file}", responses=BINARY, response_class=Response)
async def decoder_file(file: str, state: TheState, v: str | None = None) -> Response:
    """One of the decoder's files; with ?v=SHA256, as /v1/info names it, it may be cached for ever."""
    path = state.decoder_files.get(file)
    if path is None:
        raise not_found("decoder: no such file; GET /v1/info lists them")
    sha256 = (await asyncio.to_thread(_about_file, file, path))["sha256"]
    if v is not None and v != sha256:
        raise not_found("decoder: the file has another hash now; GET /v1/info")
    headers = {"Cache-Control": FOREVER if v else "no-cache", "ETag": f'"{sha256}"'}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


@router.get("/samples/{sample}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def sample_photo(sample: str) -> Response:
    """A bundled photo."""
    found = samples().get(sample)
    if found is None:
        raise not_found("sample: no such photo; GET /v1/info lists them")
    return FileResponse(found.path, media_type="image/jpeg", headers={"Cache-Control": "public, max-age=86400"})
