"""A spoken name becomes a prompt; what is no speech, or no such name, is said in one line."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import seem
from seem.cli import main
from seem.friends.speech import MAX_SECONDS, PAUSE, RATE, hear, read_wav
from seem.predict.model import Model
from tests.fakes import COLOURS, WEIGHTS, FakeNetwork

SPEECH = Path(__file__).parents[1] / "fixtures" / "speech"


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE, width: int = 2) -> Path:
    """(n, channels) or (n,) integers."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def speech() -> np.ndarray:
    with wave.open(str(SPEECH / "blue.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


# ---- hearing ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def recogniser() -> None:
    pytest.importorskip("pocketsphinx")


@pytest.mark.parametrize(
    ("file", "names", "heard"),
    [
        ("blue.wav", list(COLOURS), "blue"),
        ("blue.wav", ["Red", "Blue"], "Blue"),  # as the caller spells it
        ("traffic_light.wav", None, "traffic light"),  # "the traffic light", among COCO's 133
        ("traffic_light.wav", ["person", "Traffic-Light", "dog"], "Traffic-Light"),
    ],
)
def test_a_name_is_heard(file: str, names: list[str] | None, heard: str) -> None:
    assert hear(SPEECH / file, names) == heard


def test_the_same_every_time() -> None:
    assert hear(SPEECH / "blue.wav", list(COLOURS)) == hear(SPEECH / "blue.wav", list(COLOURS))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["xyzzyq", "blue"], "names: expected words of the English pronouncing dictionary, got 'xyzzyq'"),
        (["猫"], "names: expected words of the English pronouncing dictionary"),
        ([], "vocabulary: "),
    ],
)
def test_names_that_cannot_be_heard(names: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hear(SPEECH / "blue.wav", names)


def test_noise_is_no_name(tmp_path: Path) -> None:
    noise = (300 * np.random.default_rng(0).normal(size=RATE)).astype(np.int16)
    with pytest.raises(ValueError, match=r"noise\.wav: expected one of 2 names to be said, heard"):
        hear(write_wav(tmp_path / "noise.wav", noise), ["traffic light", "refrigerator"])


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "channels", "width"), [(16000, 1, 2), (48000, 2, 2), (8000, 1, 2), (16000, 1, 4),
                                                         (16000, 1, 1), (44100, 2, 4)])  # fmt: skip
def test_any_rate_width_and_channels(tmp_path: Path, rate: int, channels: int, width: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    kinds = {1: ("u1", 127, 128), 2: ("<i2", 32767, 0), 4: ("<i4", 2**31 - 1, 0)}
    kind, scale, middle = kinds[width]
    samples = np.repeat((tone * scale + middle).astype(kind)[:, None], channels, 1)
    got = read_wav(write_wav(tmp_path / "tone.wav", samples, rate, width)).astype(float)
    assert (got.dtype, len(got)) == (np.float64, RATE + 2 * PAUSE)
    middle_part = got[PAUSE + 1000 : -PAUSE - 1000]
    peak = np.abs(np.fft.rfft(middle_part)).argmax() * RATE / len(middle_part)
    assert peak == pytest.approx(440, abs=2)
    assert np.abs(middle_part).max() == pytest.approx(0.5 * 32768, rel=0.03)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected an uncompressed WAV file"),
        (b"RIFF\x10\0\0\0WAVEjunk", "expected an uncompressed WAV file"),
        (b"ID3 no wave at all" * 20, "expected an uncompressed WAV file"),
    ],
)
def test_no_wav(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.wav: {said}"):
        read_wav(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("samples", "width", "said"),
    [
        (np.zeros(0, np.int16), 2, "expected speech, got no samples"),
        (np.zeros(100, np.int16), 2, "expected speech, got silence"),
        (np.ones(RATE * (MAX_SECONDS + 1), np.int16), 2, "expected at most 30 s, got 31 s"),
        (np.ones(300, np.uint8), 3, "expected samples of 8, 16 or 32 bits, got 24"),
    ],
)
def test_what_is_no_speech(tmp_path: Path, samples: np.ndarray, width: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_wav(write_wav(tmp_path / "a.wav", samples, width=width))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.wav: no such file"):
        read_wav(tmp_path / "a.wav")


def test_a_file_that_breaks_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", speech())
    path.write_bytes(path.read_bytes()[:-1001])
    assert len(read_wav(path)) == len(speech()) - 501 + 2 * PAUSE


# ---- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(seem, "load", lambda name, device="auto": Model(FakeNetwork(), WEIGHTS))  # type: ignore[arg-type]
    return tmp_path


@pytest.mark.parametrize("command", ["segment", "find"])
def test_speech_is_a_text_prompt(folder: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    names = ["--audio-names", "red,blue", "--audio-names", "green"]
    assert main([command, "photo.png", "--audio", str(SPEECH / "blue.wav"), *names, "--json"]) == 0
    spoken = capsys.readouterr().out
    assert main([command, "photo.png", "--text", "blue", "--json"]) == 0
    assert capsys.readouterr().out == spoken


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--audio", "none.wav"], "--audio: none.wav: no such file"),
        (["--audio", "photo.png"], "--audio: photo.png: expected an uncompressed WAV file"),
        (["--audio-names", "red"], "--audio-names: expected --audio FILE.wav beside it"),
        (["--audio", str(SPEECH / "blue.wav"), "--audio-names", "refrigerator,umbrella"], "heard"),
    ],
)
@pytest.mark.parametrize("command", ["segment", "find"])
def test_bad_speech_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, args: list[str], said: str
) -> None:
    assert main([command, "photo.png", *args]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err


def test_find_wants_something(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find", "photo.png"]) == 2
    assert "expected at least one --text, or --audio" in capsys.readouterr().err


def test_without_the_package_the_message_says_what_to_install(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pocketsphinx", None)
    assert main(["find", "photo.png", "--audio", str(SPEECH / "blue.wav")]) == 1
    assert "pip install 'seem-segment[audio]'" in capsys.readouterr().err
