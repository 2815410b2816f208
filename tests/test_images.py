"""Every kind of image that is taken, and one line for every kind that is not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seem.images import ImageError, digest, load_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture() -> np.ndarray:
    y, x = np.mgrid[:40, :60]
    return np.stack([x * 4, y * 6, (x + y) * 2], -1).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is huge and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# ---- taken --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_agree_from_every_source(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "photo"  # the content says what it is, not the name
    path.write_bytes(encode(Image.fromarray(picture()), kind))
    sources = [path, str(path), path.read_bytes(), Image.open(path), Image.fromarray(picture()), picture()]
    for source in sources:
        pixels = load_image(source)
        assert np.array_equal(pixels, picture())
        assert (pixels.dtype, pixels.flags.c_contiguous, pixels.flags.writeable) == (np.uint8, True, False)
        assert digest(pixels) == digest(picture())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats(kind: str) -> None:
    pixels = load_image(encode(Image.fromarray(picture()), kind, quality=95))
    assert np.abs(pixels.astype(int) - picture()).mean() < 4


def colour(mode: str, value: Any, **options: Any) -> bytes:
    return encode(Image.new(mode, (3, 2), value), "TIFF" if mode == "CMYK" else "PNG", **options)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (colour("L", 77), (77, 77, 77)),
        (colour("1", 1), WHITE),
        (colour("LA", (100, 0)), WHITE),
        (colour("LA", (100, 255)), (100, 100, 100)),
        (colour("RGBA", (255, 0, 0, 255)), RED),
        (colour("RGBA", (255, 0, 0, 0)), WHITE),
        (colour("RGBA", (0, 0, 0, 127)), (128, 128, 128)),
        (colour("RGB", RED, transparency=RED), WHITE),
        (colour("CMYK", (0, 255, 255, 0)), RED),
        (encode(Image.new("CMYK", (3, 2), (0, 255, 255, 0)), "JPEG"), (254, 0, 0)),
        (encode(Image.new("RGB", (3, 2), RED).quantize(4), "PNG"), RED),
        (encode(Image.new("RGB", (3, 2), RED).quantize(4), "GIF"), RED),
        (encode(Image.fromarray(np.full((2, 3), 65535, np.uint16)), "PNG"), WHITE),
        (encode(Image.fromarray(np.full((2, 3), 32896, np.uint16)), "PNG"), (128, 128, 128)),
        (encode(Image.fromarray(np.full((2, 3), 257, np.uint16)), "TIFF"), (1, 1, 1)),
        (np.full((2, 3), 9, np.uint8), (9, 9, 9)),
        (np.full((2, 3), 65535, np.uint16), WHITE),
        (np.full((2, 3, 3), 32896, np.uint16), (128, 128, 128)),
        (np.full((2, 3, 4), (255, 0, 0, 0), np.uint8), WHITE),
        (np.full((2, 6, 3), RED, np.uint8)[:, ::2], RED),  # not contiguous
        (np.full((2, 3, 3), (0, 0, 255), np.uint8)[..., ::-1], RED),
        (Image.new("I", (3, 2), 65535), WHITE),
    ],
    ids=range(22),
)
def test_colours(data: Any, expected: tuple[int, int, int]) -> None:
    pixels = load_image(data)
    assert pixels.shape == (2, 3, 3)
    assert np.abs(pixels.astype(int) - np.array(expected)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("as_pillow", [False, True])
def test_exif_orientation_is_applied(orientation: int, as_pillow: bool) -> None:
    """The stored pixels are turned so that every file shows the same picture."""
    seen = picture()
    turned = np.rot90(seen, 2)
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: turned,
        4: seen[::-1],
        5: seen.transpose(1, 0, 2),
        6: np.rot90(seen, 1),
        7: turned.transpose(1, 0, 2),
        8: np.rot90(seen, 3),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(load_image(Image.open(io.BytesIO(data)) if as_pillow else data), picture())


def test_broken_exif_does_not_matter() -> None:
    data = encode(Image.fromarray(picture()), "PNG", exif=b"Exif\x00\x00MM\x00garbage")
    assert np.array_equal(load_image(data), picture())


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (6, 4), c) for c in (RED, (0, 255, 0))]
    data = encode(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert (load_image(data) == RED).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (500, 1)])
def test_thin_images(shape: tuple[int, ...]) -> None:
    assert load_image(np.zeros(shape, np.uint8)).shape == (*shape[:2], 3)


def test_the_result_is_the_caller_s() -> None:
    array = picture()
    pixels = load_image(array)
    array[:] = 0
    assert np.array_equal(pixels, picture())


def test_the_digest_is_of_pixels_and_shape() -> None:
    assert digest(picture()) == digest(picture())
    assert digest(picture()) != digest(picture().reshape(60, 40, 3))
    assert len(digest(picture())) == len("sha256:") + 64


# ---- refused ------------------------------------------------------------------------------------------------------

JPEG = encode(Image.fromarray(picture()), "JPEG")
PNG = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)), "PNG")

REFUSED: list[tuple[str, Any, str]] = [
    ("empty", b"", "image: expected a JPEG, PNG, WebP, BMP, TIFF or GIF image"),
    ("text", b"hello, this is not a picture", "image: expected a JPEG, PNG, WebP, BMP, TIFF or GIF image"),
    ("ppm", encode(Image.fromarray(picture()), "PPM"), "image: expected a JPEG, PNG, WebP, BMP, TIFF or GIF image"),
    ("ico", encode(Image.fromarray(picture()), "ICO"), "image: expected a JPEG, PNG, WebP, BMP, TIFF or GIF image"),
    ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n", "image: expected a JPEG"),
    ("cut jpeg", JPEG[:-40], "image: truncated or broken image data"),
    ("cut png", PNG[: len(PNG) // 2], "image: truncated or broken image data"),
    ("jpeg head", JPEG[:20], "image: "),
    ("20000x20000", png_header(20_000, 20_000), "expected at most 100000000 pixels"),
    ("12000x12000", png_header(12_000, 12_000), "expected at most 100000000 pixels, got 12000x12000"),
    ("0x5", png_header(0, 5), "image: "),
    ("32-bit", Image.fromarray(np.full((2, 3), 70000, np.int32)), "expected 8 or 16 bits a channel, got 32"),
    (
        "float tiff",
        Image.fromarray(np.zeros((2, 3), np.float32)),
        "expected 8 or 16 bits a channel, got floating point",
    ),
    ("float", np.zeros((2, 3, 3)), "got shape (2, 3, 3) and dtype float64; multiply by 255"),
    ("bool", np.zeros((2, 3), bool), "a mask is a prompt (seem.Mask), not an image"),
    ("int64", np.zeros((2, 3, 3), np.int64), "expected a uint8 (H, W, 3) array, got shape (2, 3, 3) and dtype int64"),
    ("chw", np.zeros((3, 20, 30), np.uint8), "the channels come last: .transpose(1, 2, 0)"),
    ("batch", np.zeros((1, 20, 30, 3), np.uint8), "got shape (1, 20, 30, 3)"),
    ("2 channels", np.zeros((20, 30, 2), np.uint8), "got shape (20, 30, 2)"),
    ("no pixels", np.zeros((0, 30, 3), np.uint8), "got shape (0, 30, 3)"),
    ("1-d", np.zeros(30, np.uint8), "got shape (30,)"),
    ("address", "https://example.com/photo.jpg", "download it first"),
    ("missing", "no/such/photo.jpg", "no/such/photo.jpg: no such file"),
    ("null byte", "a\x00b", "cannot be read"),
]


@pytest.mark.parametrize(("image", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused_in_one_line(image: Any, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(image)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="expected an image file, got a folder"):
        load_image(tmp_path)


def test_the_limit_is_the_caller_s() -> None:
    with pytest.raises(ImageError, match="expected at most 2399 pixels, got 60x40 = 2400"):
        load_image(picture(), max_pixels=2399)
    assert load_image(picture(), max_pixels=2400).shape == (40, 60, 3)


@pytest.mark.parametrize("image", [None, 5, [[1, 2]], object()])
def test_not_an_image_at_all(image: Any) -> None:
    with pytest.raises(TypeError, match="image: expected a path, bytes, a PIL image or"):
        load_image(image)


def test_a_tensor_gets_a_hint() -> None:
    with pytest.raises(TypeError, match=r"got torch\.Tensor; call \.numpy\(\)"):
        load_image(torch.zeros(3, 4, 4))
