"""A video file as upright RGB frames with their times."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seem.images import MAX_PIXELS

if TYPE_CHECKING:
    from av.container import InputContainer

MISSING = 0.5  # seconds, and a twentieth of the whole, that a file may be shorter than its header says
NO_TIME = -(2**62)  # in place of a missing time stamp


class VideoError(ValueError):
    """A video that cannot be used; the message is one line that says which and why."""


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, rotated as the file says.
        pts: its time in `Video.time_base` units, or None if the file has none.
    """

    pixels: np.ndarray
    pts: int | None


class Video:
    """A video file. The header is checked when it is made; frames are decoded one at a time, as often as asked for.

    Attributes:
        path: of the file.
        time_base: seconds of one unit of `Frame.pts`.
        rate: frames a second, on average.
        expected: how many frames there should be, from the header; None if it does not say. The true number is
            known when all are read.
        sound: the codecs of its audio streams.

    Raises:
        VideoError: a ValueError; the file is missing, no video, broken, or its frames have too many pixels.
        ImportError: the package `av` is not installed.

    Example:
        >>> for pixels in Video("dog.mp4"):                                                        # doctest: +SKIP
        ...     print(pixels.shape)
    """

    def __init__(self, path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> None:
        self.path = Path(path)
        self._pts = array("q")  # of the frames seen so far: 8 bytes a frame is all that grows
        with self._open() as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoError(
                    f"{self.path}: expected a video in a codec that FFmpeg knows, got one that it does not"
                )
            width, height = stream.codec_context.width, stream.codec_context.height
            if width < 1 or height < 1:
                raise VideoError(f"{self.path}: expected frames of at least 1x1 pixels, got {width}x{height}")
            if width * height > max_pixels:
                raise VideoError(f"{self.path}: expected frames of at most {max_pixels} pixels, got {width}x{height}")
            self.time_base = stream.time_base or Fraction(1, 90_000)
            self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            self.expected: int | None = stream.frames or None
            if self.expected is None and container.duration:  # in microseconds
                self.expected = max(1, round(container.duration * self.rate / 1_000_000))
            self._promised = stream.frames
            self._seconds = (container.duration or 0) / 1_000_000
            audio = [a.codec_context for a in container.streams.audio]
            self.sound = tuple("unknown" if c is None else c.codec.canonical_name for c in audio)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame.pixels for frame in self.frames())

    def frames(self) -> Iterator[Frame]:
        """Every frame in the order it is shown.

        Raises:
            VideoError: the file breaks off, cannot be decoded, or holds no frame at all.
        """
        with self._open() as container:
            count = 0
            for count, frame in enumerate(self._decode(container, 0), start=1):
                if len(self._pts) < count:
                    self._pts.append(NO_TIME if frame.pts is None else frame.pts)
                yield frame
        if not count:
            raise VideoError(f"{self.path}: expected at least one frame, got none")

    def window(self, first: int, last: int) -> list[np.ndarray]:
        """Frames ``first`` to ``last - 1``, which `frames` has passed before; from the nearest key frame on."""
        pts = self._pts[: last + 1]
        steady = NO_TIME not in pts and all(a < b for a, b in pairwise(pts))
        with self._open() as container:
            skipped = 0
            if steady and first:
                container.seek(pts[first], stream=container.streams.video[0])
            found = []
            for frame in self._decode(container, first):
                if frame.pts is not None and frame.pts < pts[first] if steady else skipped < first:
                    skipped += 1
                    continue
                found.append(frame.pixels)
                if len(found) == last - first:
                    return found
        raise VideoError(f"{self.path}: expected frames {first} to {last - 1}, got {len(found)} of them")

    def _decode(self, container: InputContainer, first: int) -> Iterator[Frame]:
        import av

        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        packets = count = 0
        begin, end = math.inf, 0.0  # of all streams, in seconds: sound may outlast the picture
        try:
            for packet in container.demux(stream, *container.streams.audio):
                if packet.pts is not None and packet.time_base is not None:
                    begin = min(begin, float(packet.pts * packet.time_base))
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream is not stream:
                    continue
                packets += packet.size > 0
                for frame in stream.decode(packet):
                    yield Frame(_upright(frame), frame.pts)
                    count += 1
        except av.error.FFmpegError as error:
            raise VideoError(f"{self.path}: broken after frame {first + count}: {error.strerror}") from None
        if first or not count:
            return
        if packets < self._promised:
            raise VideoError(f"{self.path}: expected {self._promised} frames, got {packets}: the file breaks off")
        if self._seconds - (end - begin) > max(MISSING, self._seconds / 20):
            raise VideoError(f"{self.path}: expected {self._seconds:.2f} s, got {end - begin:.2f} s: it breaks off")

    @contextmanager
    def _open(self) -> Iterator[InputContainer]:
        with open_container(self.path) as container:
            if not container.streams.video:
                raise VideoError(f"{self.path}: expected a video, got a file without a video stream")
            yield container


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """A file opened for reading by PyAV. Raises VideoError if it is none that can be read."""
    try:
        import av
    except ImportError as error:
        raise ImportError("video files need the package av: pip install 'seem-segment[video]'") from error
    if not path.is_file():  # FFmpeg would also take addresses and devices
        raise VideoError(f"{path}: {'expected a file, got a folder' if path.is_dir() else 'no such file'}")
    try:
        container = av.open(str(path.absolute()))
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: expected a video, got another file or a broken one: {error.strerror}") from None
    with container:
        yield container


def _upright(frame: Any) -> np.ndarray:
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, round(frame.rotation / 90)) if frame.rotation else pixels
