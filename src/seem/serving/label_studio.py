"""Label Studio's ML backend: this server suggests regions while somebody draws, and before they start.

In a project's settings the backend's address is SERVER/label-studio; if the server has a token, it goes into the
password of basic authentication. Key points and boxes of smart tools become prompts, key points of a control whose
region is marked as background become negative clicks; without any, every name of the labels is looked for.

| control in the labelling config | answer |
|---|---|
| BrushLabels | the mask as Label Studio's run lengths |
| PolygonLabels | an outline for each region of the mask |
| RectangleLabels | its box |

Images are read from the Label Studio that the server was started for, and from nowhere else.

Protocol: label-studio-ml's GET /health, POST /setup, POST /predict, POST /webhook. The run lengths are those of the
package rle-pack (github.com/thi-ng/umbrella, packages/rle-pack).
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from seem import geometry
from seem.serving.errors import ApiError, invalid
from seem.serving.sessions import Session
from seem.serving.state import NeedsJson, State, TheState

router = APIRouter(prefix="/label-studio", tags=["label-studio"])

JSON = dict[str, Any]
MAX_TASKS = 16  # of one request
MAX_NAMES = 50  # of a labelling config, that are looked for
FETCH_SECONDS = 30.0
ACCESS_SECONDS = 200.0  # that a fetched access token is used; Label Studio's last five minutes
TOLERANCE = 1.0  # pixels that a polygon may lie from its mask's outline
PLACES = ("/data/", "/storage-data/", "/tasks/")  # where Label Studio keeps images

_WORD = 8  # bits of a value
_SIZES = (3, 4, 8, 16)  # bits that a run's length may take


# ---- the protocol -------------------------------------------------------------------------------------------------


class PredictRequest(BaseModel):
    """What is read of it; Label Studio sends more."""

    model_config = ConfigDict(extra="ignore")

    tasks: list[dict[str, Any]]
    label_config: str
    params: dict[str, Any] | None = None


@router.get("/")
@router.get("/health")
async def health(state: TheState) -> JSON:
    """Whether the model is ready."""
    return {"status": "UP" if state.ready else "LOADING", "model_class": "SEEM"}


@router.post("/setup", dependencies=[NeedsJson])
async def setup(state: TheState) -> JSON:
    """A project that wants to use this backend. Nothing is kept: every request brings its config."""
    return {"model_version": _version(state)}


@router.get("/versions")
async def versions(state: TheState) -> JSON:
    """The one version."""
    return {"versions": [_version(state)]}


@router.post("/webhook", status_code=201)
async def webhook() -> JSON:
    """Events of a project; this backend learns nothing from them."""
    return {}


@router.post("/train", status_code=201)
async def train() -> JSON:
    """Nothing to do: use `seem finetune` on an export."""
    return {}


@router.post("/predict", dependencies=[NeedsJson])
async def predict(request: PredictRequest, state: TheState) -> JSON:
    """Regions of each task, from what was drawn if something was."""
    if len(request.tasks) > MAX_TASKS:
        raise invalid(f"tasks: expected at most {MAX_TASKS}, got {len(request.tasks)}")
    config = parse_config(request.label_config)
    context = (request.params or {}).get("context") or {}
    drawn = context.get("result") if isinstance(context, dict) else None
    results = [await _predict(state, config, task, drawn) for task in request.tasks]
    return {"results": results, "model_version": _version(state)}


def _version(state: State) -> str:
    return f"{state.about.get('model', '')}-{state.about.get('weights', '')[7:15]}"


# ---- labelling config ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """A tag that regions are made with.

    Attributes:
        kind: "brushlabels", "polygonlabels", "rectanglelabels" or "keypointlabels".
        name, to_name: as the config says.
        labels: its names.
    """

    kind: str
    name: str
    to_name: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class LabelConfig:
    """What of a labelling config matters.

    Attributes:
        key: of the image in a task's data.
        controls: in their order.
    """

    key: str
    controls: tuple[Control, ...]

    def output(self, label: str | None) -> Control | None:
        """The control that shows a mask: brush, else polygon, else box; one with this label if there is one."""
        for kind in ("brushlabels", "polygonlabels", "rectanglelabels"):
            found = [c for c in self.controls if c.kind == kind]
            if found:
                return next((c for c in found if label in c.labels), found[0])
        return None


_KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "keypointlabels")


def parse_config(text: str) -> LabelConfig:
    """A labelling config. Raises ApiError 422 for one without an image or a control that masks can be shown with."""
    if "<!" in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL):  # no entities that grow, no files that are read
        raise invalid("label_config: expected no document type or entities")
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise invalid(f"label_config: expected XML: {error}") from None
    image = next((tag for tag in root.iter() if tag.tag.lower() == "image"), None)
    if image is None or not (image.get("value") or "").startswith("$"):
        raise invalid('label_config: expected an Image with value="$…"')
    controls = tuple(
        Control(
            tag.tag.lower(),
            tag.get("name", ""),
            tag.get("toName", ""),
            tuple(label.get("value", "") for label in tag if label.tag.lower() == "label"),
        )
        for tag in root.iter()
        if tag.tag.lower() in _KINDS and tag.get("toName") == image.get("name")
    )
    config = LabelConfig(str(image.get("value"))[1:], controls)
    if config.output(None) is None:
        raise invalid("label_config: expected BrushLabels, PolygonLabels or RectangleLabels for the image")
    return config


# ---- prediction ---------------------------------------------------------------------------------------------------


async def _predict(state: State, config: LabelConfig, task: JSON, drawn: object) -> JSON:
    data = task.get("data")
    url = data.get(config.key) if isinstance(data, dict) else None
    if not isinstance(url, str) or not url:
        raise invalid(f"tasks: expected the image's address in data.{config.key[:40]}")
    session = _own_session(state)
    photo = await _read(state, url)
    image = await state.add_image(session, photo)
    digest, size = image.encoded.digest, image.encoded.size
    scenes = state.scenes(session, digest)
    if drawn:
        prompts, label = prompts_of(drawn, size)
        segments, _ = await state.ask(
            state.decoding, session, "segment", digest, scenes, [prompts], [None], None, label is None
        )
        found = [(label or segments[0]["label"], segments[0])]
    else:
        names = list(dict.fromkeys(n for c in config.controls for n in c.labels if n.strip()))[:MAX_NAMES]
        found = []
        for name in names:
            args = (digest, scenes, name[:1000], None, None)
            found += [(name, s) for s in await state.ask(state.heavy, session, "find", *args)]
    regions = await asyncio.to_thread(
        lambda: [region for label, s in found for region in regions_of(config, label, s, size)]
    )
    scores = [s["score"] for _, s in found]
    return {"result": regions, "score": max(scores, default=0.0), "model_version": _version(state)}


def prompts_of(drawn: object, size: tuple[int, int]) -> tuple[list[JSON], str | None]:
    """What was drawn with smart tools -> prompts in pixels, and the label that it was drawn with.

    Raises:
        ApiError: 422 for anything that is not a list of regions with a key point or a box.
    """
    prompts: list[JSON] = []
    label: str | None = None
    if not isinstance(drawn, list):
        raise invalid("params.context.result: expected a list of regions")
    for i, region in enumerate(drawn):
        value = region.get("value") if isinstance(region, dict) else None
        if not isinstance(value, dict):
            raise invalid(f"params.context.result[{i}]: expected a region with a value")
        kind = str(region.get("type", "")).lower()
        if kind not in ("keypointlabels", "keypoint", "rectanglelabels", "rectangle"):
            continue  # a mask that is there already says nothing new
        positive = region.get("is_positive", True) not in (False, 0)
        try:
            x, y = value["x"] * size[0] / 100, value["y"] * size[1] / 100
            if kind.startswith("keypoint"):
                at = {"x": min(x, size[0] - 1e-3), "y": min(y, size[1] - 1e-3)}
                prompts.append({"type": "click", **at, "positive": positive})
            else:
                x1, y1 = x + value["width"] * size[0] / 100, y + value["height"] * size[1] / 100
                prompts.append({"type": "box", "xyxy": [x, y, x1, y1]})
            names = value.get(kind) or []
            if positive and names:
                label = str(names[0])
        except (KeyError, TypeError):
            raise invalid(f"params.context.result[{i}].value: expected x, y, width and height in percent") from None
    if not prompts:
        raise invalid("params.context.result: expected a key point or a box")
    return prompts, label


def regions_of(config: LabelConfig, label: str | None, segment: JSON, size: tuple[int, int]) -> list[JSON]:
    """A segment as regions of Label Studio."""
    control = config.output(label)
    if control is None or not segment["area"]:
        return []
    labels = [label] if label in control.labels else []
    mask = geometry.rle_decode(segment["mask_rle"])
    values: list[JSON]
    if control.kind == "brushlabels":
        values = [{"format": "rle", "rle": brush_rle(mask)}]
    elif control.kind == "polygonlabels":
        rings = geometry.mask_to_polygons(mask, TOLERANCE)
        values = [{"points": (ring * 100 / size).tolist(), "closed": True} for ring in rings if len(ring) > 2]
    else:
        x0, y0, x1, y1 = segment["box"]
        percent = {"x": x0 / size[0], "y": y0 / size[1], "width": (x1 - x0) / size[0], "height": (y1 - y0) / size[1]}
        values = [{key: value * 100 for key, value in percent.items()} | {"rotation": 0}]
    return [
        {
            "id": uuid.uuid4().hex[:10],
            "from_name": control.name,
            "to_name": control.to_name,
            "type": control.kind,
            "original_width": size[0],
            "original_height": size[1],
            "image_rotation": 0,
            "value": value | {control.kind: labels},
            "score": segment["score"],
            "readonly": False,
        }
        for value in values
    ]


def brush_rle(mask: np.ndarray) -> list[int]:
    """An (H, W) bool mask as Label Studio's run lengths of RGBA pixels, each 0 or 255, as bytes."""
    flat = np.repeat(mask.ravel(), 4)
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [len(flat)]]))
    parts = [_bits(len(flat), 32), _bits(_WORD - 1, 5), *(_bits(size - 1, 4) for size in _SIZES)]
    longest = 1 << _SIZES[-1]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = _bits(255 * int(flat[start]), _WORD)
        while length:
            count = min(length, longest)
            length -= count
            which = next(i for i, size in enumerate(_SIZES) if count <= 1 << size)
            parts.append("1" + _bits(which, 2) + _bits(count - 1, _SIZES[which]) + value)
    bits = "".join(parts)
    packed = np.packbits(np.frombuffer(bits.encode(), np.uint8) - ord("0"))
    result: list[int] = packed.tolist()
    return result


def _bits(value: int, count: int) -> str:
    return f"{value:0{count}b}"


# ---- images -------------------------------------------------------------------------------------------------------


def _own_session(state: State) -> Session:
    """All of Label Studio is one user."""
    try:
        return state.sessions.get(state.label_studio_session)
    except ApiError:
        session = state.sessions.open()
        state.label_studio_session = session.token
        return session


async def _read(state: State, url: str) -> bytes:
    """The image of a task: in the address itself, or from our Label Studio."""
    limit = state.settings.limits.body_bytes
    if url.startswith("data:image/"):
        try:
            data = base64.b64decode(url.partition(";base64,")[2], validate=True)
        except ValueError:
            raise invalid("tasks: expected base64 in the image's data address") from None
        if not 0 < len(data) <= limit:
            raise ApiError(413, "too_large", f"tasks: expected an image of 1 to {limit} bytes, got {len(data)}")
        return data
    address = _allowed(str(state.settings.label_studio), url)
    try:
        async with httpx.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False) as http:
            headers = await _authorization(state, http)
            found = bytearray()
            async with http.stream("GET", address, headers=headers) as answer:
                if answer.status_code != 200:
                    raise ApiError(422, "image", f"tasks: Label Studio answered {answer.status_code} for the image")
                async for piece in answer.aiter_bytes():
                    found += piece
                    if len(found) > limit:
                        raise ApiError(413, "too_large", f"tasks: expected an image of at most {limit} bytes")
    except httpx.HTTPError as error:
        raise ApiError(422, "image", f"tasks: Label Studio cannot be reached: {type(error).__name__}") from None
    return bytes(found)


def _allowed(studio: str, url: str) -> str:
    """The full address of an image, if it is in our Label Studio's storage. Raises ApiError 422 for any other."""
    parts = urlsplit(url)
    if (parts.scheme or parts.netloc) and f"{parts.scheme}://{parts.netloc}" != studio_origin(studio):
        raise invalid(f"tasks: expected an image in {studio}, got one elsewhere")
    path = unquote(parts.path)
    prefix = urlsplit(studio).path.rstrip("/")
    inside = path.removeprefix(prefix) if prefix and path.startswith(prefix + "/") else path
    hidden = [v for values in parse_qs(parts.query).values() for v in values]
    if not inside.startswith(PLACES) or any(".." in unquote(text) or "\\" in text for text in (path, *hidden)):
        raise invalid(f"tasks: expected an address that begins with {', '.join(PLACES)}")
    query = f"?{parts.query}" if parts.query else ""
    start = len(parts.path) - len(parts.path.removeprefix(prefix))
    return f"{studio}{parts.path[start:]}{query}"


def studio_origin(studio: str) -> str:
    """ "http://host:8080/sub" -> "http://host:8080"."""
    parts = urlsplit(studio)
    return f"{parts.scheme}://{parts.netloc}"


async def _authorization(state: State, http: httpx.AsyncClient) -> dict[str, str]:
    """Label Studio takes its old tokens as they are; a personal one (a JWT) has to be changed for one that works."""
    token = state.settings.label_studio_token
    if not token:
        return {}
    if token.count(".") != 2:
        return {"Authorization": f"Token {token}"}
    known, until = state.label_studio_access
    if time.monotonic() > until:
        answer = await http.post(f"{state.settings.label_studio}/api/token/refresh", json={"refresh": token})
        if answer.status_code != 200:
            raise ApiError(422, "image", f"tasks: Label Studio answered {answer.status_code} for the access token")
        known, until = str(answer.json().get("access")), time.monotonic() + ACCESS_SECONDS
        state.label_studio_access = (known, until)
    return {"Authorization": f"Bearer {known}"}
