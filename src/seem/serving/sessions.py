"""Who may see what: sessions with their images, rounds and videos, and the scenes behind them.

A scene is kept once however many sessions uploaded the image; a session sees only what it uploaded itself.
All of it belongs to the app's event loop, so nothing here is locked.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seem.serving.errors import ApiError, busy, not_found
from seem.serving.settings import Limits
from seem.serving.videos import StoredVideo
from seem.serving.worker import Encoded, Memory

if TYPE_CHECKING:
    from seem.predict.tiles import Window


@dataclass
class StoredImage:
    """One encoded image.

    Attributes:
        encoded: its sizes and scene.
        photo: the uploaded file; never sent as it is, because another session may have uploaded these pixels first.
        file: sha256 of the uploaded file.
        shared: the scene as the engine wants it.
    """

    encoded: Encoded
    photo: bytes
    file: str
    shared: Any

    @property
    def bytes(self) -> int:
        return len(self.encoded.scene) + len(self.photo)


class ImageStore:
    """Encoded images by digest, least recently used ones dropped beyond a budget of bytes."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._images: OrderedDict[str, StoredImage] = OrderedDict()
        self._files: dict[str, str] = {}  # sha256 of a file -> digest of its pixels
        self.bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._images)

    def get(self, digest: str) -> StoredImage | None:
        """An image, which is now the most recently used one."""
        image = self._images.get(digest)
        if image is not None:
            self._images.move_to_end(digest)
        return image

    def of_file(self, file: str) -> StoredImage | None:
        """The image that a file of this sha256 gave."""
        return self.get(self._files.get(file, ""))

    def put(self, image: StoredImage) -> None:
        digest = image.encoded.digest
        self.discard(digest)
        self._images[digest] = image
        self._files[image.file] = digest
        self.bytes += image.bytes
        while self.bytes > self._budget and len(self._images) > 1:
            self.discard(next(iter(self._images)))
            self.dropped += 1

    def discard(self, digest: str) -> None:
        image = self._images.pop(digest, None)
        if image is not None:
            self.bytes -= image.bytes
            del self._files[image.file]


@dataclass(frozen=True)
class StoredWindow:
    """One encoded window of an image.

    Attributes:
        scene: `Scene.to_bytes`.
        shared: the scene as the engine wants it.
    """

    scene: bytes
    shared: Any


class WindowStore:
    """Encoded windows by image and place, least recently used ones dropped beyond a budget of bytes."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._windows: OrderedDict[tuple[str, Window], StoredWindow] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._windows)

    def get(self, digest: str, window: Window) -> StoredWindow | None:
        """A window, which is now the most recently used one."""
        found = self._windows.get((digest, window))
        if found is not None:
            self._windows.move_to_end((digest, window))
        return found

    def put(self, digest: str, window: Window, found: StoredWindow) -> None:
        old = self._windows.pop((digest, window), None)
        self.bytes += len(found.scene) - (len(old.scene) if old else 0)
        self._windows[digest, window] = found
        while self.bytes > self._budget and len(self._windows) > 1:
            self.bytes -= len(self._windows.popitem(last=False)[1].scene)


@dataclass(frozen=True)
class Round:
    """One object's mask after a round, for the memory prompt of the next.

    Attributes:
        digest: of the image.
        object_id: as the client numbers it.
        memory: what the next round reads.
    """

    digest: str
    object_id: int
    memory: Memory

    @property
    def bytes(self) -> int:
        return self.memory.logits.nbytes


@dataclass
class Session:
    """What one client holds.

    Attributes:
        token: its secret.
        key: a short name for logs and queues that does not give the token away.
        images: digests that it uploaded, least recently used first, with the sha256 of its own file.
        rounds: by their id, oldest first.
        latest: the last round's id of each image and object.
        videos: by id.
        used: when it was last seen.
    """

    token: str
    key: str
    used: float
    images: OrderedDict[str, str] = field(default_factory=OrderedDict)
    rounds: OrderedDict[str, Round] = field(default_factory=OrderedDict)
    latest: dict[tuple[str, int], str] = field(default_factory=dict)
    videos: dict[str, StoredVideo] = field(default_factory=dict)
    round_bytes: int = 0
    counter: int = 0

    def remember(self, found: Round, budget: int) -> str:
        """Keeps a round and returns its id; the oldest are forgotten beyond a budget of bytes."""
        self.counter += 1
        name = str(self.counter)
        self.rounds[name] = found
        self.latest[found.digest, found.object_id] = name
        self.round_bytes += found.bytes
        while self.round_bytes > budget and len(self.rounds) > 1:
            self.forget_oldest_round()
        return name

    def forget_oldest_round(self) -> int:
        """Returns how many bytes that freed."""
        before = self.round_bytes
        self._forget(next(iter(self.rounds)))
        return before - self.round_bytes

    def recall(self, name: str, digest: str) -> Round:
        """A round by its id. Raises ApiError 409 if it is not, or no longer, known."""
        found = self.rounds.get(name)
        if found is None or found.digest != digest:
            raise ApiError(409, "round_gone", "previous.round: this round is not kept any more; send previous.rle")
        return found

    def forget_image(self, digest: str) -> None:
        self.images.pop(digest, None)
        for name in [n for n, r in self.rounds.items() if r.digest == digest]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        gone = self.rounds.pop(name)
        self.round_bytes -= gone.bytes
        if self.latest.get((gone.digest, gone.object_id)) == name:
            del self.latest[gone.digest, gone.object_id]

    def close(self) -> None:
        for video in self.videos.values():
            video.close()
        self.videos.clear()


class Sessions:
    """All sessions, by their tokens; unused ones end.

    Args:
        limits: see `Limits`.
        clock: seconds, for tests.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # least recently used first
        self.images = ImageStore(limits.memory_bytes)
        self.windows = WindowStore(limits.window_bytes)

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self) -> Session:
        """A new session. Raises ApiError 503 if there are too many."""
        self.expire()
        if len(self._sessions) >= self._limits.sessions:
            oldest = next(iter(self._sessions.values()))
            wait = oldest.used + self._limits.session_seconds - self._clock()
            raise busy(f"{len(self._sessions)} sessions are open", min(60.0, max(1.0, wait)))
        token = secrets.token_urlsafe(24)
        session = Session(token, secrets.token_hex(4), self._clock())
        self._sessions[token] = session
        return session

    def get(self, token: str | None) -> Session:
        """A session by its token. Raises ApiError 401."""
        self.expire()
        session = self._sessions.get(token or "")
        if session is None:
            raise ApiError(401, "session", "X-Seem-Session: expected the token of an open session; POST /v1/sessions")
        session.used = self._clock()
        self._sessions.move_to_end(session.token)
        return session

    def remember(self, session: Session, found: Round) -> str:
        """Keeps a round and returns its id; where there is no room for all, those of unused sessions go first."""
        name = session.remember(found, self._limits.round_bytes)
        excess = sum(s.round_bytes for s in self._sessions.values()) - self._limits.all_round_bytes
        for other in self._sessions.values():
            while excess > 0 and other.rounds and (other is not session or len(other.rounds) > 1):
                excess -= other.forget_oldest_round()
        return name

    @property
    def video_bytes(self) -> int:
        """Of all videos and tracks on the disk."""
        return sum(video.bytes for session in self._sessions.values() for video in session.videos.values())

    def close(self, session: Session) -> None:
        self._sessions.pop(session.token, None)
        session.close()

    def close_all(self) -> None:
        for session in list(self._sessions.values()):
            self.close(session)

    def expire(self) -> None:
        """Ends sessions that were not used for too long."""
        limit = self._clock() - self._limits.session_seconds
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if oldest.used > limit:
                return
            self.close(oldest)

    def add_image(self, session: Session, image: StoredImage, file: str) -> None:
        """The session has uploaded this image, in a file of this sha256."""
        if self.images.get(image.encoded.digest) is None:
            self.images.put(image)
        session.images[image.encoded.digest] = file
        session.images.move_to_end(image.encoded.digest)
        while len(session.images) > self._limits.images_per_session:
            session.forget_image(next(iter(session.images)))

    def image(self, session: Session, digest: str) -> StoredImage:
        """An image that this session uploaded. Raises ApiError 404 for any other, and for one that was dropped."""
        if digest in session.images:
            image = self.images.get(digest)
            if image is not None:
                session.images.move_to_end(digest)
                return image
            session.forget_image(digest)
            raise ApiError(404, "image_gone", "image: it is not kept any more; upload it again")
        raise not_found("image: expected one that this session uploaded")
