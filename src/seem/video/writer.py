"""What a tracked video becomes: a picture of it, palette PNGs as DAVIS has them, or JSON.

Every writer works under a temporary name beside the target and is renamed at the end: what fails leaves nothing.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from seem.locks import exclusive
from seem.predict.segmentation import Segmentation
from seem.video.reader import Frame, Video, open_container

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
MAX_PALETTE = 255


class Writer(Protocol):
    """Takes the frames of a video one after another."""

    def write(self, index: int, frame: Frame, objects: Mapping[int, Segmentation]) -> None: ...


@contextmanager
def open_writer(target: Path, kind: str, video: Video) -> Iterator[Writer]:
    """A writer to ``target``, which appears, complete, when the block ends without an error.

    Args:
        target: a new or old file, or for "png" a new or empty folder.
        kind: "video", "png" or "json".
        video: the source: its times and sound.

    Raises:
        OSError: the disk is full, for example.
        seem.locks.BusyError: another run is writing there.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp{target.suffix}")
    make = {"video": _video_writer, "png": _png_writer, "json": _json_writer}[kind]
    with exclusive(target.with_name(f".{target.name}.lock")):
        try:
            with make(temporary, video) as writer:
                yield writer
            if kind == "png" and target.is_dir():
                target.rmdir()  # it is empty
            temporary.replace(target)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            temporary.unlink(missing_ok=True)


def check_sound(target: Path, video: Video) -> None:
    """Raises ValueError if the sound of a video does not fit into a file of this name: it is copied as it is."""
    import av

    formats = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
    with av.open(io.BytesIO(), "w", format=formats[target.suffix.lower()]) as container:
        for codec in video.sound:
            if codec not in container.supported_codecs:
                raise ValueError(f"OUT: expected a file that can hold {codec} sound, got {target}; try .mkv")


# ---- video --------------------------------------------------------------------------------------------------------


@contextmanager
def _video_writer(path: Path, video: Video) -> Iterator[Writer]:
    import av

    with open_container(video.path) as source, av.open(str(path), "w") as container:
        sound = list(source.streams.audio)
        writer = _VideoWriter(container, video, source.demux(sound) if sound else iter(()), sound)
        yield writer
        writer.finish()


class _VideoWriter:
    """H.264 with the source's own times; its audio packets are copied, in step with the frames."""

    def __init__(
        self, container: OutputContainer, video: Video, audio: Iterator[Packet], streams: list[AudioStream]
    ) -> None:
        self._container, self._video, self._packets = container, video, audio
        self._stream: Any = container.add_stream("libx264", rate=video.rate, options={"crf": "20", "preset": "fast"})
        self._stream.codec_context.time_base = video.time_base
        self._copies = {a.index: container.add_stream_from_template(a) for a in streams}
        self._waiting: Packet | None = None
        self._last: int | None = None

    def write(self, index: int, frame: Frame, objects: Mapping[int, Segmentation]) -> None:
        import av

        import seem

        picture = np.asarray(seem.draw(frame.pixels, list(objects.values())))
        if index == 0:
            self._stream.height, self._stream.width = picture.shape[:2]
            even = picture.shape[0] % 2 == 0 == picture.shape[1] % 2
            self._stream.pix_fmt = "yuv420p" if even else "yuv444p"  # half the colours need whole pairs of pixels
        out = av.VideoFrame.from_ndarray(picture, format="rgb24")
        out.pts, out.time_base = self._time(frame.pts), self._video.time_base
        for packet in self._stream.encode(out):
            self._container.mux(packet)
        self._copy_audio(float(out.pts * self._video.time_base))

    def _time(self, pts: int | None) -> int:
        """The frame's own time; one frame after the last if it has none, or none that is later."""
        step = max(1, round(1 / (Fraction(self._video.rate) * self._video.time_base)))
        if self._last is None:
            self._last = 0 if pts is None else pts
        else:
            self._last = pts if pts is not None and pts > self._last else self._last + step
        return self._last

    def _copy_audio(self, until: float | None) -> None:
        """The audio packets up to a time in seconds, or all."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if packet.dts is None:  # the empty one at the end
                continue
            if until is not None and float(packet.dts * packet.time_base) > until:
                self._waiting = packet
                return
            packet.stream = self._copies[packet.stream.index]
            self._container.mux(packet)

    def finish(self) -> None:
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._copy_audio(None)


# ---- masks --------------------------------------------------------------------------------------------------------


@contextmanager
def _png_writer(path: Path, video: Video) -> Iterator[Writer]:
    path.mkdir()
    yield _PngWriter(path)


class _PngWriter:
    """00000.png, 00001.png, …: a pixel's value is its object's id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._palette = davis_palette()

    def write(self, index: int, frame: Frame, objects: Mapping[int, Segmentation]) -> None:
        ids = np.zeros(frame.pixels.shape[:2], np.uint8)
        for object_id, result in objects.items():
            ids[result.mask] = object_id
        picture = Image.fromarray(ids, "P")
        picture.putpalette(self._palette)
        picture.save(self._folder / f"{index:05d}.png")


def davis_palette() -> list[int]:
    """256 RGB colours as VOC and DAVIS have them: the bits of a number in turn become high bits of R, G and B.

    >>> davis_palette()[3:9]
    [128, 0, 0, 0, 128, 0]
    """
    numbers = np.arange(256)
    colours = np.zeros((256, 3), int)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (numbers >> (3 * bit + channel) & 1) << (7 - bit)
    flat: list[int] = colours.ravel().tolist()
    return flat


@contextmanager
def _json_writer(path: Path, video: Video) -> Iterator[Writer]:
    with path.open("w", encoding="utf-8") as file:
        writer = _JsonWriter(file, video)
        yield writer
        file.write(f'\n], "video": {json.dumps(writer.about)}}}\n')


class _JsonWriter:
    """One line a frame, so that memory does not grow: run lengths of each object that is there, as COCO has them."""

    def __init__(self, file: Any, video: Video) -> None:
        self._file, self._video = file, video
        self.about: dict[str, Any] = {"file": video.path.name, "width": 0, "height": 0, "frames": 0}
        file.write('{"frames": [')

    def write(self, index: int, frame: Frame, objects: Mapping[int, Segmentation]) -> None:
        height, width = frame.pixels.shape[:2]
        self.about |= {"width": width, "height": height, "frames": index + 1}
        seconds = None if frame.pts is None else float(frame.pts * self._video.time_base)
        there = [{"id": i, **result.to_json()} for i, result in objects.items() if result.area]
        row = {"frame": index, "time": seconds, "objects": there}
        self._file.write(("," if index else "") + "\n" + json.dumps(row))
