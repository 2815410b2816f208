"""What the server allows, and how it is reached. Every bound that keeps it alive is a field here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

MB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Caps. What exceeds one is refused with 413, 422 or 429; a full server answers 503 with Retry-After.

    Attributes:
        body_bytes: of an uploaded image.
        json_bytes: of any other request body, but a video's.
        pixels: of an image, checked from its header before it is decoded.
        prompts: of one request, over all its objects.
        objects: of one request.
        names: of one request's vocabulary, and texts of one /v1/text.
        images_per_session: beyond it a session's least recently used image is dropped.
        sessions: at once.
        session_seconds: a session that is not used for so long ends.
        memory_bytes: of all encoded scenes with their photos; least recently used ones go first.
        window_bytes: of all encoded windows of photos; they are encoded again when they are needed again.
        round_bytes, all_round_bytes: of the mask logits that one session's rounds keep for memory prompts, and that all
            of them do.
        hot_scenes: scenes kept ready for the decoder, about 15 MB each with seem-tiny.
        queue: requests that wait for each kind of work.
        queue_per_session: of them, those of one session.
        requests: in flight at once, over all sessions.
        upload_bytes: of all request bodies in flight together.
        head_seconds: for a request's head to arrive.
        body_seconds: for its body.
        idle_seconds: between two pieces of a body, and for the client to take a piece of the answer.
        work_seconds: from the queue to the result; panoptic segmentation and export have four times as long.
        video_bytes, video_frames, video_pixels, videos_per_session, video_seconds: of uploaded videos; the last is for
            reading one through.
        all_video_bytes: of all sessions' videos, with what was tracked in them, on the disk.
        track_seconds: to follow objects through a video, with waiting for its turn.
    """

    body_bytes: int = 32 * MB
    json_bytes: int = 16 * MB
    pixels: int = 50_000_000
    prompts: int = 1000
    objects: int = 64
    names: int = 1000
    images_per_session: int = 32
    sessions: int = 500
    session_seconds: int = 3600
    memory_bytes: int = 1024 * MB
    window_bytes: int = 256 * MB
    round_bytes: int = 8 * MB
    all_round_bytes: int = 256 * MB
    hot_scenes: int = 24
    queue: int = 64
    queue_per_session: int = 8
    requests: int = 256
    upload_bytes: int = 512 * MB
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 10.0
    work_seconds: float = 60.0
    video_bytes: int = 256 * MB
    all_video_bytes: int = 4096 * MB
    video_frames: int = 3000
    video_pixels: int = 1920 * 1088
    videos_per_session: int = 2
    video_seconds: float = 120.0
    track_seconds: float = 3600.0

    def to_json(self) -> dict[str, int | float]:
        """What a client needs to know of it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Settings:
    """How the server is reached and how it works.

    Attributes:
        host, port: where it listens.
        token: if set, requests need "Authorization: Bearer TOKEN"; only /health/* and the page's own files do not.
        origins: web origins that may call it from their pages (CORS); none by default.
        hosts: names that the Host header may have, without a port; ("*",) allows all. By default loopback names while
            it listens on loopback, else all: this keeps other web sites from reaching a server on someone's machine
            through a name that they control.
        encode_workers, decode_workers, heavy_workers: jobs of each kind that run at once. Heavy are panoptic
            segmentation, everything, find and export; as many videos are tracked at once.
        drain_seconds: how long requests in flight may take to end after SIGTERM.
        label_studio: address of a Label Studio whose ML backend this server is, or None.
        label_studio_token: its API token, for reading the tasks' images.
        limits: see `Limits`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None
    encode_workers: int = 1
    decode_workers: int = 2
    heavy_workers: int = 1
    drain_seconds: float = 30.0
    label_studio: str | None = None
    label_studio_token: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """See `hosts`."""
        if self.hosts is not None:
            return self.hosts
        return (*LOOPBACK, "testserver") if self.loopback else ("*",)


LOOPBACK = ("127.0.0.1", "localhost", "::1")
