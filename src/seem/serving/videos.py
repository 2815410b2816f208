"""Uploaded videos: checked before anything opens them, kept in a folder of their own, gone with their session."""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from seem import geometry
from seem.geometry import ImageGeometry
from seem.serving.errors import ApiError, invalid

if TYPE_CHECKING:
    from seem.predict.segmentation import Segmentation
    from seem.serving.settings import Limits
    from seem.video.reader import Video

FRAME_QUALITY = 90


def video_suffix(head: bytes) -> str:
    """The ending that fits a file's first bytes: MP4, QuickTime, Matroska, WebM or AVI.

    Playlists and lists of files, which name other files and addresses, are none of these and are refused.

    Raises:
        ApiError: 415.
    """
    if head[4:8] == b"ftyp":
        return ".mov" if head[8:10] == b"qt" else ".mp4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return ".mkv"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return ".avi"
    raise ApiError(415, "media_type", "video: expected MP4, QuickTime, Matroska, WebM or AVI, got another format")


class StoredVideo:
    """One uploaded video in a temporary folder.

    Attributes:
        folder: that holds the file and what was tracked.
        path: of the file.
        width, height: of its frames, upright.
        frames: how many.
        fps: on average.
        bytes: on the disk, of the file and of the tracks.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="seem-video-"))
        self.path = self.folder / "upload"
        self.width = self.height = self.frames = self.bytes = 0
        self.fps = 0.0
        self._video: Video | None = None
        self._lock = threading.Lock()  # of the reader, which is not for two threads at once

    def read_through(self, limits: Limits, clock: Callable[[], float]) -> None:
        """Checks the whole file and counts its frames.

        Raises:
            ApiError: it is no video of an allowed format, broken, or larger than allowed.
        """
        from seem.video.reader import VideoError

        try:
            self._read_through(limits, clock)
        except VideoError as error:
            message = hide_path(str(error))
            raise ApiError(*((413, "too_large") if "pixels, got" in message else (422, "video")), message) from None

    def _read_through(self, limits: Limits, clock: Callable[[], float]) -> None:
        from seem.video.reader import Video

        with self.path.open("rb") as file:
            suffix = video_suffix(file.read(16))
        self.path = self.path.rename(self.path.with_suffix(suffix))
        self._video = Video(self.path, limits.video_pixels)
        end = clock() + limits.video_seconds
        count = 0
        for count, pixels in enumerate(self._video, start=1):
            self.height, self.width = pixels.shape[:2]
            if count > limits.video_frames:
                raise ApiError(413, "too_large", f"video: expected at most {limits.video_frames} frames, got more")
            if clock() > end:
                raise ApiError(413, "too_large", f"video: expected one that is read in {limits.video_seconds:g} s")
        self.frames, self.fps = count, float(self._video.rate)

    def frame(self, number: int) -> bytes:
        """One frame as JPEG."""
        if not 0 <= number < self.frames:
            raise ApiError(404, "not_found", f"frame: expected 0 to {self.frames - 1}, got {number}")
        assert self._video is not None
        with self._lock:
            pixels = self._video.window(number, number + 1)[0]
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=FRAME_QUALITY)
        return buffer.getvalue()

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- what was tracked -----------------------------------------------------------------------------------------

    @property
    def _tracked(self) -> Path:
        return self.folder / "tracked.ndjson"

    def keep_track(self, most: int) -> TrackFile:
        """A file of at most so many bytes for the lines of a new track; complete, it replaces the last one."""
        return TrackFile(self, self.folder / "tracking.ndjson", self._tracked, most)

    def tracked(self) -> Iterator[list[dict[str, Any]]]:
        """The segments of each frame, as they were tracked last. Raises ApiError 409 if nothing was."""
        if not self._tracked.exists():
            raise ApiError(409, "not_tracked", "video: nothing was tracked yet, or the tracking was stopped")
        with self._tracked.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)["segments"]

    def export(self, kind: str) -> tuple[Path, str]:
        """The tracked video as a file: "overlay" a video, "masks" a zip of palette PNGs, "coco" JSON; and its type."""
        if kind == "coco":
            target = self.folder / "coco.json"
            target.write_text(json.dumps(self._coco()), encoding="utf-8")
            return target, "application/json"
        from seem.video.writer import check_sound, open_writer

        assert self._video is not None
        rows = self.tracked()
        first = next(rows)
        if kind == "masks":
            target, writer_kind = self.folder / "masks", "png"
            shutil.rmtree(target, ignore_errors=True)
            if any(s["id"] > 255 for s in first):
                raise invalid("format: masks hold object ids up to 255")
        else:
            target, writer_kind = self.folder / "overlay.mp4", "video"
            try:
                check_sound(target, self._video)
            except ValueError:
                target = target.with_suffix(".mkv")
        with self._lock, open_writer(target, writer_kind, self._video) as writer:
            for index, frame in enumerate(self._video.frames()):
                segments = first if index == 0 else next(rows)
                size = (frame.pixels.shape[1], frame.pixels.shape[0])
                writer.write(index, frame, {s["id"]: shown(s, size) for s in segments})
        if writer_kind == "video":
            return target, "video/mp4" if target.suffix == ".mp4" else "video/x-matroska"
        packed = self.folder / "masks.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(target.iterdir()):
                archive.write(path, path.name)
        return packed, "application/zip"

    def _coco(self) -> dict[str, Any]:
        from seem.export.annotations import AnnotatedImage, AnnotatedObject, to_coco

        images = []
        for number, segments in enumerate(self.tracked()):
            objects = [
                AnnotatedObject(s["id"], s["label"] or "object", s["mask_rle"], s["score"])
                for s in segments
                if s["area"]
            ]
            images.append(AnnotatedImage(f"{number:05d}.jpg", self.width, self.height, objects))
        return to_coco(images, track_ids=True)


class TrackFile:
    """Lines of a track while it runs; they count among the video's bytes."""

    def __init__(self, video: StoredVideo, temporary: Path, target: Path, most: int) -> None:
        self._video, self._temporary, self._target, self._most = video, temporary, target, most
        self._file = temporary.open("w", encoding="utf-8")
        self._bytes = 0

    def write(self, line: str) -> None:
        """Raises ApiError 413 if it becomes too large."""
        self._file.write(line)
        self._bytes += len(line)  # JSON in ASCII
        self._video.bytes += len(line)
        if self._bytes > self._most:
            raise ApiError(413, "too_large", f"track: expected at most {self._most} bytes of masks, got more")

    def finish(self) -> None:
        """It is complete."""
        self._file.close()
        self._video.bytes -= self._target.stat().st_size if self._target.exists() else 0
        self._temporary.replace(self._target)
        self._bytes = 0

    def close(self) -> None:
        """It is over, complete or not."""
        self._file.close()
        self._video.bytes -= self._bytes
        self._temporary.unlink(missing_ok=True)


def shown(segment: dict[str, Any], size: tuple[int, int]) -> Segmentation:
    """A segment's JSON as a Segmentation, for drawing: its mask is the one in the JSON, it has no embedding."""
    from seem.predict.segmentation import Segmentation, read_only

    nothing = np.zeros((1, 1), np.float32)
    result = Segmentation(
        logits=nothing,
        score=segment["score"],
        score_kind=segment.get("score_kind", "predicted_iou"),
        label=segment["label"],
        label_score=segment["label_score"],
        image="",
        geometry=ImageGeometry(size, size, size),
        embedding=nothing[0],
    )
    result.__dict__["mask"] = read_only(geometry.rle_decode(segment["mask_rle"]))  # what the cached property holds
    return result


def hide_path(message: str) -> str:
    """An error's message without the place where a video is kept, which is nobody's business."""
    return re.sub(r"\S*seem-video-[^\s:]*", "video", message)


def schedule_from_json(prompts: Any, frames: int, limits: Limits) -> dict[int, dict[int, Sequence[Any]]]:
    """{"frame": {"object id": [prompts]}} with numbers as keys, within the limits. Raises ApiError 422."""
    total, schedule = 0, {}
    for frame, objects in prompts.items():
        if not (frame.isascii() and frame.isdigit() and int(frame[:12]) < frames and len(frame) <= 12):
            raise invalid(f"prompts: expected frames from 0 to {frames - 1}, got {frame[:20]!r}")
        if not objects or len(objects) > limits.objects:
            raise invalid(f"prompts.{frame}: expected 1 to {limits.objects} objects, got {len(objects)}")
        for object_id, listed in objects.items():
            if not (object_id.isascii() and object_id.isdigit() and len(object_id) <= 9):
                raise invalid(f"prompts.{frame}: expected whole numbers as object ids, got {object_id[:20]!r}")
            total += len(listed)
        schedule[int(frame)] = {int(i): listed for i, listed in objects.items()}
    if not schedule:
        raise invalid("prompts: expected at least one frame, got none")
    if total > limits.prompts:
        raise invalid(f"prompts: expected at most {limits.prompts} in all, got {total}")
    return schedule
