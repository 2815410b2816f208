"""A spoken name becomes a text prompt, as in the paper's demo; offline, with PocketSphinx and the English model in its
wheel.

It listens for names from a list, not for free speech: a small recogniser that knows what to expect beats one that
does not. "a", "an" and "the" before a name are understood.
"""

from __future__ import annotations

import re
import wave
from collections.abc import Iterable
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seem.vocabulary import VocabularyLike, parse_vocabulary

if TYPE_CHECKING:
    import os

RATE = 16_000  # samples a second that the recogniser wants
MAX_SECONDS = 30
QUIET = 10.0  # noise under the speech, of 32768: the model was trained on recordings, not on digital silence
PAUSE = 6000  # samples of it before and after
_FULL_SCALE = {1: 128, 2: 32768, 4: 2147483648}  # of samples of so many bytes


def hear(audio: str | os.PathLike[str], names: VocabularyLike | None = None) -> str:
    """The name that somebody says.

    Args:
        audio: a WAV file of at most 30 seconds, uncompressed, of any rate and number of channels.
        names: what may be said, English words; COCO's 133 by default.

    Returns:
        One of the names, as it is spelt there.

    Raises:
        ValueError: no such file or not such a file, a name with a word that the pronouncing dictionary does not have,
            or speech that is none of the names.
        ImportError: the package `pocketsphinx` is not installed.

    Example:
        >>> scene.find(hear("dog.wav"))                                                         # doctest: +SKIP
    """
    samples = read_wav(audio)
    spoken = {_words(category.name): category.name for category in parse_vocabulary(names)}
    decoder = _decoder(spoken)
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    heard = "" if found is None else re.sub(r"^(a|an|the) ", "", found.hypstr)
    if heard not in spoken:
        said = f"something like {heard!r}" if heard else "nothing that is like one"
        raise ValueError(f"{audio}: expected one of {len(spoken)} names to be said, heard {said}")
    return spoken[heard]


def read_wav(path: str | os.PathLike[str]) -> np.ndarray:
    """(n,) int16 at 16 kHz, with a moment of quiet before and after. Raises ValueError for what is no such file."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with wave.open(str(path)) as file:
            width, rate, channels = file.getsampwidth(), file.getframerate(), file.getnchannels()
            if file.getnframes() > MAX_SECONDS * rate:
                raise ValueError(f"{path}: expected at most {MAX_SECONDS} s, got {file.getnframes() / rate:.0f} s")
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path}: expected an uncompressed WAV file: {error}") from None
    if width not in _FULL_SCALE or rate < 1:
        raise ValueError(f"{path}: expected samples of 8, 16 or 32 bits, got {8 * width}")
    frames = len(data) // (width * channels)
    values = np.frombuffer(data[: frames * width * channels], f"<i{width}" if width > 1 else "u1").astype(np.float64)
    if width == 1:
        values -= 128
    mono = values.reshape(frames, channels).mean(1) / _FULL_SCALE[width]
    if not mono.any():
        raise ValueError(f"{path}: expected speech, got {'silence' if frames else 'no samples'}")
    return _resample(mono, rate)


def _resample(mono: np.ndarray, rate: int) -> np.ndarray:
    from scipy.signal import resample_poly

    factor = gcd(RATE, rate)
    speech = resample_poly(mono, RATE // factor, rate // factor) * 32768
    noise = np.random.default_rng(0).normal(0, QUIET, len(speech) + 2 * PAUSE)
    noise[PAUSE:-PAUSE] += speech
    samples: np.ndarray = noise.clip(-32768, 32767).astype(np.int16)
    return samples


def _words(name: str) -> str:
    """ "Traffic-light" -> "traffic light"."""
    return " ".join(re.findall(r"[a-z']+", name.lower()))


def _decoder(names: Iterable[str]) -> Any:
    """A recogniser of nothing but these."""
    try:
        import pocketsphinx
    except ImportError as error:
        raise ImportError("speech needs the package pocketsphinx: pip install 'seem-segment[audio]'") from error
    decoder = pocketsphinx.Decoder(pocketsphinx.Config(samprate=RATE, loglevel="FATAL", lm=None))
    names = list(names)
    for name in names:
        unknown = [word for word in name.split() if decoder.lookup_word(word) is None]
        if unknown or not name:
            raise ValueError(f"names: expected words of the English pronouncing dictionary, got {' '.join(unknown)!r}")
    choices = " | ".join(f"[a | an | the] {name}" for name in names)
    decoder.add_jsgf_string("names", f"#JSGF V1.0;\ngrammar names;\npublic <name> = {choices};\n")
    decoder.activate_search("names")
    return decoder
