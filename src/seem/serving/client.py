"""A server's model as if it were here: `Client` is to `seem serve` what `seem.load()` is to this machine.

It needs httpx and numpy, not torch (but for `panoptic`, whose result is a `seem.Panoptic`). It opens a session when it
first needs one, waits while the server is busy, and sends a photo again if the server has dropped it.

    >>> with Client("http://127.0.0.1:8000") as client:                    # doctest: +SKIP
    ...     scene = client.encode("photo.jpg")
    ...     r = scene.segment(seem.Click(320, 200))
    ...     r = scene.segment(seem.Click(320, 200), seem.Click(9, 12, positive=False), previous=r)
    ...     r.mask, r.label, r.score
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from PIL import Image

from seem import geometry
from seem.prompts import Prompt, Text, object_to_json

if TYPE_CHECKING:
    from types import TracebackType

    from seem.export.annotations import AnnotatedImage
    from seem.predict.panoptic import Panoptic

JSON = dict[str, Any]
VocabularyLike = Sequence["str | tuple[str, str]"]
TRIES = 8  # of a request that a busy server refuses
LONGEST_WAIT = 10.0  # seconds between two of them


class ServerError(ValueError):
    """The server's answer was not a result.

    Attributes:
        status: of HTTP.
        code: one word, as "invalid", "too_large", "busy".
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True, eq=False)
class RemoteSegmentation:
    """One object, as a server answered it.

    Attributes:
        rle: COCO run lengths of the mask.
        score, score_kind, label, label_score, box, area: as in `seem.Segmentation`.
        image: "sha256:…" of the image.
        window: (x0, y0, x1, y1) that it was outlined in, with zoom.
        round: what the server calls this answer, for `previous`.
    """

    rle: JSON = field(repr=False)
    score: float
    score_kind: str
    label: str | None
    label_score: float | None
    box: tuple[int, int, int, int] | None
    area: int
    image: str = field(repr=False)
    round: str | None = field(default=None, repr=False)
    window: tuple[int, int, int, int] | None = None

    @classmethod
    def from_json(cls, data: JSON, image: str) -> RemoteSegmentation:
        """From one of an answer's segments."""
        box, window = (None if v is None else tuple(v) for v in (data["box"], data.get("window")))
        return cls(
            rle=data["mask_rle"],
            score=data["score"],
            score_kind=data["score_kind"],
            label=data["label"],
            label_score=data["label_score"],
            box=box,
            area=data["area"],
            image=image,
            round=data.get("round"),
            window=window,
        )

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool at the photo's size, read-only."""
        mask = geometry.rle_decode(self.rle)
        mask.setflags(write=False)
        return mask

    def to_rle(self) -> JSON:
        """COCO run lengths: {"size": [H, W], "counts": str}."""
        return dict(self.rle)

    def to_polygons(self, tolerance: float = 1.0) -> list[np.ndarray]:
        """Outlines, as `seem.Segmentation.to_polygons`."""
        return geometry.mask_to_polygons(self.mask, tolerance)

    def to_png(self, path: str | os.PathLike[str] | None = None) -> bytes:
        """The mask as a grey PNG of 0 and 255, written to `path` if one is given."""
        buffer = io.BytesIO()
        Image.fromarray(self.mask.astype(np.uint8) * 255).save(buffer, "PNG")
        if path is not None:
            Path(path).write_bytes(buffer.getvalue())
        return buffer.getvalue()

    def to_json(self) -> JSON:
        """{"mask_rle", "score", "label", "label_score", "box", "area"}, as `seem.Segmentation.to_json`."""
        box = None if self.box is None else list(self.box)
        found: JSON = {"mask_rle": self.to_rle(), "score": self.score, "label": self.label}
        return found | {"label_score": self.label_score, "box": box, "area": self.area}


class Client:
    """A server.

    Args:
        url: its address.
        token: its bearer token, if it asks for one; the variable SEEM_TOKEN by default.
        timeout: seconds for one answer.
        transport: for tests, as httpx takes it.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        timeout: float = 300.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        token = token or os.environ.get("SEEM_TOKEN")
        headers = {} if not token else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._session: str | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session: the server forgets what was sent."""
        if self._session is not None:
            with suppress(httpx.HTTPError):  # the server may be gone already
                self._http.delete("/v1/sessions/current", headers={"X-Seem-Session": self._session})
            self._session = None
        self._http.close()

    # ---- what a server does ---------------------------------------------------------------------------------------

    def info(self) -> JSON:
        """The model, its names, the server's limits."""
        return self._send("GET", "/v1/info", session=False).json()

    def encode(self, image: object, zoom: bool = False) -> RemoteScene:
        """Sends an image to be encoded.

        Args:
            image: a path, the bytes of a file, a `PIL.Image.Image`, or a uint8 (H, W, 3) RGB array.
            zoom: outline objects in windows of their own, as `Model.encode_large(zoom=True)`; each costs the server
                another encoding.

        Raises:
            ServerError: a ValueError; the image is broken, too large or of a refused format.
            OSError: the file cannot be read. TypeError: not an image.
        """
        data = _file_bytes(image)
        return RemoteScene(self, data, self._upload(data), zoom)

    def text(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Phrases in the joint space: sentence (K, D), tokens (K, T, dim), mask (K, T), for a decoder elsewhere."""
        import safetensors.numpy

        return safetensors.numpy.load(self.ask("POST", "/v1/text", json={"texts": list(texts)}).content)

    def track(
        self, video: str | os.PathLike[str], prompts: Mapping[int, Any], start: int = 0
    ) -> Iterator[dict[int, RemoteSegmentation]]:
        """Sends a video and follows objects through it, as `Model.track`; leaving the loop stops the server's work.

        Args:
            video: its path.
            prompts: {object id: [prompts]} on frame ``start``, or {frame: {object id: [prompts]}}.
            start: the frame that the prompts are of, where they do not name one.
        """
        rounds = prompts if all(isinstance(v, Mapping) for v in prompts.values()) else {start: prompts}
        schedule = {
            str(frame): {str(i): object_to_json(0, listed)["prompts"] for i, listed in objects.items()}
            for frame, objects in rounds.items()
        }
        headers = {"Content-Type": "application/octet-stream"}
        uploaded = self.ask("POST", "/v1/videos", content=Path(video).read_bytes(), headers=headers).json()
        path = f"/v1/videos/{uploaded['video']}"
        try:
            request = self._http.build_request(
                "POST", f"{path}/track", json={"prompts": schedule}, headers={"X-Seem-Session": self._open()}
            )
            answer = self._http.send(request, stream=True)
            try:
                if answer.status_code != 200:
                    answer.read()
                    raise _error(answer)
                for line in answer.iter_lines():
                    row = json.loads(line)
                    if "error" in row:
                        raise ServerError(500, row["error"]["code"], row["error"]["message"])
                    yield {s["id"]: RemoteSegmentation.from_json(s, "") for s in row["segments"]}
            finally:
                answer.close()
        finally:
            self.ask("DELETE", path)

    def export(self, format: str, images: Sequence[AnnotatedImage], scenes: Sequence[RemoteScene] = ()) -> bytes:
        """Masks as a file of another tool; `seem.export.annotations` does the same here, without a server.

        Args:
            format: "coco", "yolo", "labelme", "masks", "cutout" or "project".
            images: photos with their objects.
            scenes: of the photos, in the same order; cut-outs need them, and projects hold the photos of those given.
        """
        digests = [scene.digest for scene in scenes] + [None] * (len(images) - len(scenes))
        rows = [
            {
                "image": digest,
                "file_name": image.file_name,
                "width": image.width,
                "height": image.height,
                "objects": [{"id": o.id, "name": o.name, "mask_rle": o.rle, "score": o.score} for o in image.objects],
            }
            for image, digest in zip(images, digests, strict=True)
        ]
        return self.ask("POST", "/v1/export", json={"format": format, "images": rows}).content

    # ---- requests -------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request of this client's session; a new one is opened if the server does not know it any more.

        Raises:
            ServerError: any answer but a success, after waiting while the server is busy.
        """
        try:
            return self._send(method, path, **options)
        except ServerError as error:
            if error.code != "session":
                raise
            self._session = None
            return self._send(method, path, **options)

    def _send(self, method: str, path: str, session: bool = True, **options: Any) -> httpx.Response:
        headers = dict(options.pop("headers", {}))
        if session:
            headers["X-Seem-Session"] = self._open()
        for attempt in range(TRIES):
            answer = self._http.request(method, path, headers=headers, **options)
            if answer.status_code not in (429, 503) or attempt == TRIES - 1:
                break
            time.sleep(min(LONGEST_WAIT, float(answer.headers.get("Retry-After", 1))))
        if not answer.is_success:
            raise _error(answer)
        return answer

    def _open(self) -> str:
        if self._session is None:
            self._session = str(self._send("POST", "/v1/sessions", session=False).json()["session"])
        return self._session

    def _upload(self, data: bytes) -> JSON:
        headers = {"Content-Type": "application/octet-stream"}
        return self.ask("POST", "/v1/images", content=data, headers=headers).json()


class RemoteScene:
    """An image that a server has encoded; its methods are those of `seem.Scene`.

    Attributes:
        digest: "sha256:…" of the image's pixels.
        size: (width, height).
    """

    def __init__(self, client: Client, data: bytes, about: JSON, zoom: bool = False) -> None:
        self._client, self._data, self._zoom = client, data, zoom
        self.digest: str = about["image"]
        self.size: tuple[int, int] = (about["width"], about["height"])

    def __repr__(self) -> str:
        return f"<RemoteScene {self.size[0]}x{self.size[1]} {self.digest[:15]}…>"

    def segment(
        self,
        *prompts: Prompt,
        previous: RemoteSegmentation | np.ndarray | None = None,
        vocabulary: VocabularyLike | None = None,
        label: bool = True,
    ) -> RemoteSegmentation:
        """Segment one object, as `seem.Scene.segment`; `previous` may also be a mask (H, W) bool."""
        return self.segment_all([prompts], [previous], vocabulary, label)[0]

    def segment_all(
        self,
        objects: Sequence[Sequence[Prompt]],
        previous: Sequence[RemoteSegmentation | np.ndarray | None] | None = None,
        vocabulary: VocabularyLike | None = None,
        label: bool = True,
    ) -> list[RemoteSegmentation]:
        """Segment several objects in one decode, as `seem.Scene.segment_all`."""
        before = list(previous) if previous is not None else [None] * len(objects)
        body: JSON = {"vocabulary": _names(vocabulary), "label": label, "zoom": self._zoom}
        body["objects"] = [
            object_to_json(i, prompts) | {"previous": _previous(p)}
            for i, (prompts, p) in enumerate(zip(objects, before, strict=True))
        ]
        try:
            answer = self._ask("segment", body)
        except ServerError as error:
            if error.code != "round_gone":
                raise
            for item, p in zip(body["objects"], before, strict=True):
                item["previous"] = _previous(p, whole=True)
            answer = self._ask("segment", body)
        return [RemoteSegmentation.from_json(s, self.digest) for s in answer["segments"]]

    def find(
        self, text: str | Text, threshold: float | None = None, limit: int | None = None, quick: bool = False
    ) -> list[RemoteSegmentation]:
        """Every instance that a text names, best first, as `seem.Scene.find`."""
        phrase = text.text if isinstance(text, Text) else text
        answer = self._ask("find", {"text": phrase, "threshold": threshold, "limit": limit, "quick": quick})
        return [RemoteSegmentation.from_json(s, self.digest) for s in answer["segments"]]

    def panoptic(
        self, vocabulary: VocabularyLike | None = None, background: bool = False, threshold: float | None = None
    ) -> Panoptic:
        """Divide the image into named things and stuff, as `seem.Scene.panoptic`."""
        body = {"vocabulary": _names(vocabulary), "background": background, "threshold": threshold}
        return self._panoptic(self._ask("panoptic", body))

    def everything(self, vocabulary: VocabularyLike | None = None) -> Panoptic:
        """All regions that the model sees by itself, also unsure ones."""
        return self._panoptic(self._ask("everything", {"vocabulary": _names(vocabulary)}))

    def _panoptic(self, answer: JSON) -> Panoptic:
        from seem.predict.panoptic import Panoptic, PanopticSegment

        ids = np.zeros((self.size[1], self.size[0]), np.int32)
        segments = []
        for s in answer["segments"]:
            ids[geometry.rle_decode(s["mask_rle"])] = s["id"]
            segments.append(
                PanopticSegment(s["id"], s["label"], s["score"], s["is_thing"], s["area"], s["category_id"])
            )
        ids.setflags(write=False)
        return Panoptic(ids, tuple(segments), self.digest)

    def label(
        self, mask: RemoteSegmentation | np.ndarray, vocabulary: VocabularyLike | None = None, top: int = 5
    ) -> list[tuple[str, float]]:
        """The most likely names of a region, as `seem.Scene.label` of its mask."""
        rle = mask.rle if isinstance(mask, RemoteSegmentation) else geometry.rle_encode(np.asarray(mask, bool))
        answer = self._ask("label", {"mask_rle": rle, "vocabulary": _names(vocabulary), "top": top})
        return [(row["name"], row["probability"]) for row in answer["labels"][0]]

    def to_bytes(self) -> bytes:
        """The scene itself: `seem.Scene.from_bytes(scene.to_bytes(), model)` decodes it on this machine."""
        return self._retry("GET", f"/v1/images/{self.digest}/scene").content

    def _ask(self, operation: str, body: JSON) -> JSON:
        return self._retry("POST", f"/v1/images/{self.digest}/{operation}", json=body).json()

    def _retry(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request about this image, which is sent again if the server has dropped it or the session."""
        try:
            return self._client.ask(method, path, **options)
        except ServerError as error:
            if error.status != 404:
                raise
            self._client._upload(self._data)
            return self._client.ask(method, path, **options)


def _previous(previous: RemoteSegmentation | np.ndarray | None, whole: bool = False) -> JSON | None:
    """The round before by its name, or as a whole mask."""
    if previous is None:
        return None
    if isinstance(previous, RemoteSegmentation):
        named = previous.round is not None and not whole
        return {"round": previous.round} if named else {"rle": previous.to_rle()}
    if not isinstance(previous, np.ndarray) or previous.dtype != bool:
        raise TypeError(f"previous: expected a result or a mask (H, W) bool, got {type(previous).__name__}")
    return {"rle": geometry.rle_encode(previous)}


def _names(vocabulary: VocabularyLike | None) -> list[Any] | None:
    if isinstance(vocabulary, str):
        raise TypeError(f"vocabulary: expected a list of names, got {vocabulary!r}")
    return None if vocabulary is None else [n if isinstance(n, str) else list(n) for n in vocabulary]


def _file_bytes(image: object) -> bytes:
    """What can be sent: a file's bytes as they are, pixels as PNG."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (str, os.PathLike)):
        return Path(image).read_bytes()
    if not isinstance(image, Image.Image):
        if not isinstance(image, np.ndarray):
            raise TypeError(f"image: expected a path, bytes, a PIL image or an array, got {type(image).__name__}")
        from seem.images import load_image

        image = Image.fromarray(load_image(image))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _error(answer: httpx.Response) -> ServerError:
    try:
        found = answer.json()["error"]
        return ServerError(answer.status_code, found["code"], found["message"])
    except (ValueError, KeyError, TypeError):
        return ServerError(answer.status_code, "error", f"the server answered {answer.status_code}")
