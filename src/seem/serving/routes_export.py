"""Routes that turn masks into files of other tools, and COCO files into masks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

import seem.export.annotations as files
from seem.export.annotations import AnnotatedImage, AnnotatedObject, safe_name
from seem.images import load_image
from seem.serving.errors import ApiError, invalid
from seem.serving.routes_model import ERRORS
from seem.serving.schemas import ExportImage, ExportRequest, ImportAnswer
from seem.serving.sessions import Session, StoredImage
from seem.serving.state import NeedsJson, State, TheSession, TheState

router = APIRouter(prefix="/v1", tags=["export"], responses=ERRORS)

MAX_IMAGES = 1000  # of one export
_FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "application/zip": {}, "image/png": {}}}
}
_TYPES = {".json": "application/json", ".zip": "application/zip", ".png": "image/png"}


@router.post("/export", dependencies=[NeedsJson], response_class=Response, responses=_FILES)
async def export(request: ExportRequest, state: TheState, session: TheSession) -> Response:
    """Masks as a file: COCO JSON, YOLO, labelme, PNG masks, cut-outs, or a project with its photos.

    "cutout" needs every photo in this session; "project" takes those that are.
    """
    limits = state.settings.limits
    if len(request.images) > MAX_IMAGES:
        raise invalid(f"images: expected at most {MAX_IMAGES}, got {len(request.images)}")
    for i, image in enumerate(request.images):
        if not (image.width > 0 and image.height > 0 and image.width * image.height <= limits.pixels):
            raise invalid(f"images[{i}]: expected 1 to {limits.pixels} pixels, got {image.width}x{image.height}")
    stored = [_stored(state, session, item, request.format) for item in request.images]
    own = [session.images.get(item.image or "") for item in request.images]
    call = lambda: asyncio.to_thread(_make, request, stored, own)  # noqa: E731
    data, suffix = await state.work(state.heavy, session, call)
    name = f"seem-{request.format}{suffix}"
    if suffix == ".png":
        name = safe_name(request.images[0].objects[0].name, "cutout") + ".png"
    disposition = f'attachment; filename="{name.encode("ascii", "replace").decode().replace("?", "_")}"'
    return Response(data, media_type=_TYPES[suffix], headers={"Content-Disposition": disposition})


def _stored(state: State, session: Session, item: ExportImage, form: str) -> StoredImage | None:
    """The photo, where the format has a use for it."""
    if form not in ("cutout", "project") or item.image is None:
        if form == "cutout":
            raise invalid("images: expected the digest of each photo, for cut-outs")
        return None
    try:
        found = state.sessions.image(session, item.image)
    except ApiError:
        if form == "cutout":
            raise
        return None
    if found.encoded.size != (item.width, item.height):
        raise invalid(f"images: expected a photo of {item.width}x{item.height}, got one of {found.encoded.size}")
    return found


def _make(request: ExportRequest, stored: list[StoredImage | None], own: list[str | None]) -> tuple[bytes, str]:
    """The file and its ending."""
    images = [
        AnnotatedImage(
            item.file_name,
            item.width,
            item.height,
            [AnnotatedObject(o.id, o.name, o.mask_rle.model_dump(), o.score) for o in item.objects],
        )
        for item in request.images
    ]
    zips: dict[str, Callable[..., bytes]] = {
        "yolo": files.to_yolo,
        "labelme": files.to_labelme,
        "masks": files.to_masks,
    }
    if request.format in zips:
        return zips[request.format](images), ".zip"
    if request.format == "cutout":
        return files.to_cutouts(images, lambda i: _pixels(stored[i]))
    if request.format == "project":
        return files.to_project(images, lambda i: _file(stored[i], own[i])), ".zip"
    return json.dumps(files.to_coco(images)).encode(), ".json"


def _pixels(image: StoredImage | None) -> np.ndarray:
    assert image is not None
    return load_image(image.photo)


def _file(image: StoredImage | None, own: str | None) -> bytes | None:
    """The photo's file as this session uploaded it; if another one uploaded the same pixels first, only these."""
    if image is None or image.file == own:
        return None if image is None else image.photo
    from seem.serving.routes_images import render

    return render(image)[0]


@router.post("/import", dependencies=[NeedsJson])
async def import_coco(request: Request, state: TheState, session: TheSession) -> ImportAnswer:
    """A COCO instances document as the body -> masks to correct."""
    body = await request.body()
    call = lambda: asyncio.to_thread(_read, body, state.settings.limits.pixels)  # noqa: E731
    return await state.work(state.heavy, session, call)


def _read(body: bytes, max_pixels: int) -> ImportAnswer:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "bad_json", "body: expected JSON") from None
    images = files.from_coco(document, max_pixels)
    rows = [
        {
            "file_name": image.file_name,
            "width": image.width,
            "height": image.height,
            "objects": [{"id": o.id, "name": o.name, "mask_rle": o.rle} for o in image.objects],
        }
        for image in images
    ]
    return ImportAnswer.model_validate({"images": rows})
