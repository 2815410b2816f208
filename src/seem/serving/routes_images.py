"""Routes about images: upload, scene, and everything that can be asked of one."""

from __future__ import annotations

import asyncio
import io
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import safetensors.numpy
from fastapi import APIRouter, Header, Path, Query, Request
from PIL import Image
from starlette.responses import Response

from seem.images import load_image
from seem.predict.tiles import Window
from seem.serving.errors import ApiError, invalid, not_found
from seem.serving.page import samples
from seem.serving.routes_model import BINARY, ERRORS
from seem.serving.schemas import (
    EverythingRequest,
    FindRequest,
    ImageAnswer,
    LabelAnswer,
    LabelRequest,
    ObjectJSON,
    PanopticAnswer,
    PanopticRequest,
    ReferenceRequest,
    SegmentRequest,
    SegmentsAnswer,
)
from seem.serving.sessions import Round, Session, StoredImage
from seem.serving.state import NeedsJson, State, TheSession, TheState, elapsed_ms
from seem.serving.worker import Memory, Wanted, window_key

router = APIRouter(prefix="/v1/images", tags=["images"], responses=ERRORS)

Digest = Annotated[str, Path(pattern=r"^sha256:[0-9a-f]{64}$")]
SMALLEST_WINDOW = 8  # pixels of a side, or the photo's own
_UPLOAD = {"requestBody": {"required": True, "content": {"image/*": {}, "application/octet-stream": {}}}}


@router.post("", openapi_extra=_UPLOAD)
async def upload(request: Request, state: TheState, session: TheSession) -> ImageAnswer:
    """Encodes a photo: JPEG, PNG, WebP, BMP, TIFF or GIF as the body, as it is."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (media_type.startswith("image/") or media_type == "application/octet-stream"):
        raise ApiError(415, "media_type", f"Content-Type: expected image/*, got {media_type[:60]!r}")
    photo = await request.body()
    if not photo:
        raise invalid("body: expected an image, got nothing")
    return await _encode(state, session, photo)


@router.post("/sample/{sample}")
async def use_sample(sample: str, state: TheState, session: TheSession) -> ImageAnswer:
    """Encodes a bundled photo."""
    found = samples().get(sample)
    if found is None:
        raise not_found("sample: no such photo; GET /v1/info lists them")
    return await _encode(state, session, await asyncio.to_thread(found.path.read_bytes))


async def _encode(state: TheState, session: Session, photo: bytes) -> ImageAnswer:
    began = time.monotonic()
    encoded = (await state.add_image(session, photo)).encoded
    return ImageAnswer(
        image=encoded.digest,
        width=encoded.size[0],
        height=encoded.size[1],
        encoded=list(encoded.encoded),
        encode_ms=elapsed_ms(began),
        scene_bytes=len(encoded.scene),
    )


@router.get("/{digest}/scene", responses=BINARY, response_class=Response)
async def scene(
    digest: Digest,
    state: TheState,
    session: TheSession,
    window: Annotated[str | None, Query(description="x0,y0,x1,y1 in pixels of the photo, half-open")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The scene as `Scene.to_bytes` writes it, for a decoder elsewhere; or that of a window, encoded by itself."""
    image = state.sessions.image(session, digest)
    part = None if window is None else _window(window, image.encoded.size)
    version = state.about["weights"][7:23] + ("" if part is None else "." + "-".join(map(str, part)))
    etag = f'"{digest[7:]}.{version}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if if_none_match == etag:
        return Response(status_code=304, headers=headers)
    found = image.encoded if part is None else await state.add_window(session, digest, part)
    return Response(found.scene, media_type="application/octet-stream", headers=headers)


def _window(text: str, size: tuple[int, int]) -> Window:
    """A window of a photo of (width, height). Raises ApiError 422 for what is none, or is too small."""
    if re.fullmatch(r"\d{1,9}(,\d{1,9}){3}", text, re.ASCII) is None:
        raise invalid(f"window: expected x0,y0,x1,y1 in whole pixels, got {text[:60]!r}")
    x0, y0, x1, y1 = map(int, text.split(","))
    width, height = size
    if not (x0 < x1 <= width and y0 < y1 <= height):
        raise invalid(f"window: expected a part of the photo of {width}x{height}, got {text}")
    least = min(SMALLEST_WINDOW, width), min(SMALLEST_WINDOW, height)
    if x1 - x0 < least[0] or y1 - y0 < least[1]:
        raise invalid(f"window: expected at least {least[0]}x{least[1]} pixels, got {x1 - x0}x{y1 - y0}")
    return x0, y0, x1, y1


@router.get("/{digest}/picture", response_class=Response, responses={200: {"content": {"image/*": {}}}})
async def picture(digest: Digest, state: TheState, session: TheSession) -> Response:
    """The photo as it is seen: upright, and without what else its file may say."""
    image = state.sessions.image(session, digest)
    data, media_type = await state.work(state.heavy, session, lambda: asyncio.to_thread(render, image))
    return Response(data, media_type=media_type, headers={"Cache-Control": "private, max-age=3600"})


def render(image: StoredImage) -> tuple[bytes, str]:
    """The photo anew, without what its file said beside the pixels: JPEG of a JPEG, else PNG; and its type."""
    picture, buffer = Image.fromarray(load_image(image.photo)), io.BytesIO()
    if image.photo[:2] == b"\xff\xd8":
        picture.save(buffer, "JPEG", quality=95)
        return buffer.getvalue(), "image/jpeg"
    picture.save(buffer, "PNG")
    return buffer.getvalue(), "image/png"


@router.post("/{digest}/touch", status_code=204)
async def touch(digest: Digest, state: TheState, session: TheSession) -> None:
    """Keeps an image from being dropped before others."""
    state.sessions.image(session, digest)


# ---- prompted -----------------------------------------------------------------------------------------------------


@router.post("/{digest}/segment", dependencies=[NeedsJson])
async def segment(digest: Digest, request: SegmentRequest, state: TheState, session: TheSession) -> SegmentsAnswer:
    """One round for one or several objects."""
    limits = state.settings.limits
    if len(request.objects) > limits.objects:
        raise invalid(f"objects: expected at most {limits.objects}, got {len(request.objects)}")
    if len({o.id for o in request.objects}) != len(request.objects):
        raise invalid("objects: expected each id once")
    total = sum(len(o.prompts) for o in request.objects)
    if total > limits.prompts:
        raise invalid(f"objects: expected at most {limits.prompts} prompts in all, got {total}")
    _check_names(request.vocabulary, limits.names)
    objects = [[p.model_dump() for p in o.prompts] for o in request.objects]
    size = _size(state.sessions.image(session, digest))
    scenes = state.scenes(session, digest, [p for listed in objects for p in listed])
    previous = [_previous(session, digest, o) for o in request.objects]
    args = (objects, previous, request.vocabulary, request.label)
    if request.zoom:
        segments, memories = await _ask_zoomed(state, session, digest, scenes, *args)
    else:
        segments, memories = await state.ask(state.decoding, session, "segment", digest, scenes, *args)
    for item, found, kept in zip(request.objects, segments, memories, strict=True):
        found["id"] = item.id
        found["round"] = state.sessions.remember(session, Round(digest, item.id, kept))
    return SegmentsAnswer.model_validate({"image": size, "segments": segments})


async def _ask_zoomed(state: State, session: Session, digest: str, scenes: dict[str, Any], *args: Any) -> Any:
    """`Worker.segment_zoomed`, asked again with the windows that it wants to see."""
    while True:
        answer = await state.ask(state.decoding, session, "segment_zoomed", digest, scenes, *args)
        if not isinstance(answer, Wanted):
            return answer
        for window in answer.windows:
            found = await state.add_window(session, digest, window)
            scenes[window_key(digest, window)] = found.shared


@router.get("/{digest}/rounds/{name}", responses=BINARY, response_class=Response)
async def memory(digest: Digest, name: str, session: TheSession) -> Response:
    """A round's memory, for a decoder elsewhere: safetensors with logits (h/4, w/4) float32, and in its metadata the
    "window" x0,y0,x1,y1 that they show, if the round was to zoom."""
    kept = session.recall(name, digest).memory
    metadata = None if kept.window is None else {"window": ",".join(map(str, kept.window))}
    data = safetensors.numpy.save({"logits": np.ascontiguousarray(kept.logits, np.float32)}, metadata)
    return Response(data, media_type="application/octet-stream")


def _previous(session: Session, digest: str, item: ObjectJSON) -> Memory | dict[str, Any] | None:
    """What was kept of a round, or a mask."""
    if item.previous is None:
        return None
    given = item.previous.round
    if (given is None) == (item.previous.rle is None):
        raise invalid(f"object {item.id}: previous: expected one of rle and round")
    if item.previous.rle is not None:
        return item.previous.rle.model_dump()
    name = session.latest.get((digest, item.id), "") if given is True else str(given)
    return session.recall(name, digest).memory


# ---- unprompted ---------------------------------------------------------------------------------------------------


@router.post("/{digest}/find", dependencies=[NeedsJson])
async def find(digest: Digest, request: FindRequest, state: TheState, session: TheSession) -> SegmentsAnswer:
    """Every instance of a text, best first; there may be none."""
    size = _size(state.sessions.image(session, digest))
    scenes = state.scenes(session, digest)
    segments = await state.ask(
        state.heavy, session, "find", digest, scenes, request.text, request.threshold, request.limit, request.quick
    )
    numbered = [{"id": i, **found} for i, found in enumerate(segments, start=1)]
    return SegmentsAnswer.model_validate({"image": size, "segments": numbered})


@router.post("/{digest}/panoptic", dependencies=[NeedsJson])
async def panoptic(digest: Digest, request: PanopticRequest, state: TheState, session: TheSession) -> PanopticAnswer:
    """The whole photo as named things and stuff."""
    _check_names(request.vocabulary, state.settings.limits.names)
    args = (request.vocabulary, request.background, request.threshold)
    found = await state.ask(state.heavy, session, "panoptic", digest, state.scenes(session, digest), *args)
    return PanopticAnswer.model_validate(found)


@router.post("/{digest}/everything", dependencies=[NeedsJson])
async def everything(
    digest: Digest, request: EverythingRequest, state: TheState, session: TheSession
) -> PanopticAnswer:
    """All regions that the model sees by itself, also unsure ones: to choose from."""
    _check_names(request.vocabulary, state.settings.limits.names)
    scenes = state.scenes(session, digest)
    found = await state.ask(state.heavy, session, "everything", digest, scenes, request.vocabulary)
    return PanopticAnswer.model_validate(found)


@router.post("/{digest}/label", dependencies=[NeedsJson])
async def label(digest: Digest, request: LabelRequest, state: TheState, session: TheSession) -> LabelAnswer:
    """The most likely names of each mask."""
    limits = state.settings.limits
    _check_names(request.vocabulary, limits.names)
    masks = request.mask_rle if isinstance(request.mask_rle, list) else [request.mask_rle]
    if not 1 <= len(masks) <= limits.objects:
        raise invalid(f"mask_rle: expected 1 to {limits.objects} masks, got {len(masks)}")
    args = ([m.model_dump() for m in masks], request.vocabulary, request.top)
    found = await state.ask(state.decoding, session, "label", digest, state.scenes(session, digest), *args)
    labels = [[{"name": name, "probability": p} for name, p in row] for row in found]
    return LabelAnswer.model_validate({"labels": labels})


@router.post("/{digest}/reference", dependencies=[NeedsJson], responses=BINARY, response_class=Response)
async def reference(digest: Digest, request: ReferenceRequest, state: TheState, session: TheSession) -> Response:
    """A region of this image as a prompt for another: safetensors with tokens (R, dim) and embedding (D,)."""
    if len(request.prompts) > state.settings.limits.prompts:
        raise invalid(f"prompts: expected at most {state.settings.limits.prompts}, got {len(request.prompts)}")
    prompts = [p.model_dump() for p in request.prompts]
    scenes = state.scenes(session, digest)
    data = await state.ask(state.decoding, session, "reference", digest, scenes, prompts)
    return Response(data, media_type="application/octet-stream")


def _check_names(names: Sequence[Any] | None, limit: int) -> None:
    if names is not None and len(names) > limit:
        raise invalid(f"vocabulary: expected at most {limit} names, got {len(names)}")


def _size(image: StoredImage) -> dict[str, int]:
    return {"width": image.encoded.size[0], "height": image.encoded.size[1]}
