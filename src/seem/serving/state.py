"""What one running app holds: the model, the queues, the sessions; and how a route reaches them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Depends, Header, Request

from seem.images import ImageError
from seem.serving.errors import ApiError, busy, invalid
from seem.serving.pools import FairPool
from seem.serving.sessions import Session, Sessions, StoredImage, StoredWindow
from seem.serving.videos import hide_path

if TYPE_CHECKING:
    from seem.predict.tiles import Window
    from seem.serving.engines import Engine
    from seem.serving.metrics import Metrics
    from seem.serving.middleware import Drain
    from seem.serving.settings import Settings

T = TypeVar("T")
HEAVY = 4  # heavy work may take this many times `work_seconds`
SWEEP_SECONDS = 10.0


class State:
    """One running app.

    Attributes:
        engine, settings, metrics, drain: as the app was made with.
        sessions: see `Sessions`.
        encoding, decoding, heavy, tracking: queues, see `Settings`.
        ready: whether the model is loaded.
        why: if it is not, why not.
        about: what the engine says of its model.
        decoder_files: the decoder for browsers, once it is there.
        label_studio_session, label_studio_access: of Label Studio's ML backend: its session here, and the access token
            that it reads images with and until when.
    """

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics, drain: Drain) -> None:
        self.engine, self.settings, self.metrics, self.drain = engine, settings, metrics, drain
        limits = settings.limits
        self.sessions = Sessions(limits)
        self.encoding = FairPool("encode", settings.encode_workers, limits.queue, limits.queue_per_session)
        self.decoding = FairPool("decode", settings.decode_workers, limits.queue, limits.queue_per_session)
        self.heavy = FairPool("heavy", settings.heavy_workers, limits.queue, limits.queue_per_session)
        self.tracking = FairPool("track", settings.heavy_workers, limits.queue, limits.queue_per_session)
        self.ready, self.why, self.about = False, "loading", dict[str, Any]()
        self.decoder_files: dict[str, Path] = {}
        self.label_studio_session: str | None = None
        self.label_studio_access = ("", 0.0)
        self._watch()

    def _watch(self) -> None:
        images = self.sessions.images
        self.metrics.watch("seem_sessions", "Open sessions.", lambda: len(self.sessions))
        self.metrics.watch("seem_images", "Encoded images kept.", lambda: len(images))
        self.metrics.watch("seem_image_bytes", "Bytes of scenes and photos kept.", lambda: images.bytes)
        self.metrics.watch("seem_window_bytes", "Bytes of scenes of windows kept.", lambda: self.sessions.windows.bytes)
        self.metrics.watch("seem_images_dropped", "Images dropped for the byte budget.", lambda: images.dropped)
        for pool in (self.encoding, self.decoding, self.heavy, self.tracking):
            self.metrics.watch(f"seem_{pool.name}_waiting", "Requests in the queue.", partial(getattr, pool, "waiting"))
            self.metrics.watch(f"seem_{pool.name}_running", "Requests worked on.", partial(getattr, pool, "running"))

    # ---- life -----------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Waits for the model."""
        try:
            self.about = await self.engine.about()
        except Exception as error:
            self.why = f"failed: {type(error).__name__}"
            raise
        self.ready = True
        self.decoder_files = await self.engine.decoder_files()  # the first time it is made, which takes a while

    async def sweep(self) -> None:
        """Ends unused sessions also while nobody calls."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.sessions.expire()

    def close(self) -> None:
        self.sessions.close_all()
        self.engine.close()

    # ---- work -----------------------------------------------------------------------------------------------------

    async def work(
        self,
        pool: FairPool,
        session: Session,
        call: Callable[[], Awaitable[T]],
        same: Hashable | None = None,
    ) -> T:
        """The result of a call in a queue; bad input becomes a 4xx."""
        if not self.ready:
            raise busy(f"the model is not ready: {self.why}", 2)
        limits = self.settings.limits
        seconds = {self.heavy: HEAVY * limits.work_seconds, self.tracking: limits.track_seconds}.get(
            pool, limits.work_seconds
        )
        try:
            return await pool.run(session.key, call, seconds, same)
        except ImageError as error:
            raise _image_error(error) from None
        except (ValueError, TypeError) as error:
            raise invalid(hide_path(str(error))) from None

    async def ask(self, pool: FairPool, session: Session, operation: str, *args: Any) -> Any:
        """A method of `Worker` in a queue."""
        return await self.work(pool, session, partial(self.engine.call, operation, *args))

    async def add_image(self, session: Session, photo: bytes) -> StoredImage:
        """Encodes a photo, or finds it known, and gives it to a session."""
        images = self.sessions.images
        file = await asyncio.to_thread(lambda: hashlib.sha256(photo).hexdigest())
        known = images.of_file(file)
        if known is None:
            call = partial(self.engine.encode, photo, self.settings.limits.pixels)
            encoded = await self.work(self.encoding, session, call, same=file)
            known = images.get(encoded.digest)
            self.metrics.encodes.labels("encoded").inc()
        else:
            encoded = known.encoded
            self.metrics.encodes.labels("known").inc()
        image = known or StoredImage(encoded, photo, file, self.engine.share(encoded.scene))
        self.sessions.add_image(session, image, file)
        return image

    async def add_window(self, session: Session, digest: str, window: Window) -> StoredWindow:
        """A window of an image of this session, encoded now if it is not kept."""
        image, windows = self.sessions.image(session, digest), self.sessions.windows
        known = windows.get(digest, window)
        if known is None:
            call = partial(self.engine.encode_window, image.photo, self.settings.limits.pixels, window)
            scene = await self.work(self.encoding, session, call, same=(digest, window))
            known = windows.get(digest, window) or StoredWindow(scene, self.engine.share(scene))
            windows.put(digest, window, known)
            self.metrics.encodes.labels("window").inc()
        return known

    def scenes(self, session: Session, digest: str, prompts: Any = ()) -> dict[str, Any]:
        """The scene of an image and those that references among prompts (as JSON) name, all of this session."""
        found = {digest: self.sessions.image(session, digest).shared}
        for prompt in prompts:
            if prompt["type"] == "reference" and prompt["image"] not in found:
                found[prompt["image"]] = self.sessions.image(session, prompt["image"]).shared
        return found


def _image_error(error: ImageError) -> ApiError:
    """What is wrong with an uploaded image."""
    message = str(error)
    if "pixels, got" in message:
        return ApiError(413, "too_large", message)
    if "image, got another format" in message:
        return ApiError(415, "media_type", message)
    return ApiError(422, "image", message)


# ---- for routes ---------------------------------------------------------------------------------------------------


def _state(request: Request) -> State:
    state: State = request.app.state.seem
    return state


def _session(request: Request, x_seem_session: Annotated[str | None, Header()] = None) -> Session:
    session = _state(request).sessions.get(x_seem_session)
    request.state.session = session.key
    return session


def _require_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, "media_type", f"Content-Type: expected application/json, got {media_type[:60]!r}")


TheState = Annotated[State, Depends(_state)]
TheSession = Annotated[Session, Depends(_session)]
NeedsJson = Depends(_require_json)


def elapsed_ms(began: float) -> float:
    """Milliseconds since a `time.monotonic`."""
    return round((time.monotonic() - began) * 1000, 1)
