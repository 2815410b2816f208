"""Tiny videos: a red square that moves to the right on grey, with a tone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, FRAMES = 64, 48, 10
RATE = 10
SIDE = 16


def left(frame: int) -> int:
    """Where the square begins in a frame."""
    return 4 + 4 * frame


def picture(frame: int) -> np.ndarray:
    """(48, 64, 3)"""
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    pixels[16 : 16 + SIDE, left(frame) : left(frame) + SIDE] = (240, 10, 10)
    return pixels


def square(frame: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[16 : 16 + SIDE, left(frame) : left(frame) + SIDE] = True
    return mask


def write_clip(
    path: Path,
    frames: int = FRAMES,
    times: Sequence[int] | None = None,
    sound: str | None = "aac",
    rotation: int = 0,
    codec: str = "libx264",
) -> Path:
    """A clip at 10 frames a second, or with frames at ``times`` in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options={"crf": "1", "g": "4"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        audio = container.add_stream(sound, rate=8000, layout="mono") if sound else None
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = times[i] if times else i * 1000 // RATE, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            tone = (8000 * np.sin(np.arange(8000) * 0.3)).astype(np.int16)[None]
            samples = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            samples.sample_rate, samples.pts = 8000, 0
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return path


def packets(path: Path, kind: str) -> list[bytes]:
    """The content of the packets of a file's first stream of a kind."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def times_of(path: Path) -> list[float]:
    """When a file's frames are shown, in seconds."""
    with av.open(str(path)) as container:
        return [round(float(frame.pts * frame.time_base), 3) for frame in container.decode(video=0)]
