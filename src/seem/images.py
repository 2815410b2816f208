"""From anything a user calls an image to (H, W, 3) uint8 RGB, or one line that says why not.

| what | what is done |
|---|---|
| format | JPEG (also a phone's multi-picture MPO), PNG, WebP, BMP, TIFF, GIF; others are refused, whatever their name |
| size | the pixel count in the header is checked before anything is decoded |
| EXIF orientation | applied: "original" means the photo as a person sees it |
| several frames or pages | the first |
| 16 bits a channel | scaled by 255 / 65535, never stretched to the content |
| grey, palette, CMYK, YCbCr | converted to RGB (colour profiles are not applied) |
| alpha, transparent palette entries | laid over white |
| truncated or broken files, 32-bit integers and floats | refused |
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # Pillow opens MPO as JPEG
MAX_PIXELS = 100_000_000

ImageLike = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray"

_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """An image that cannot be used; the message is one line that says which and why."""


def load_image(image: object, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Any image as RGB.

    Args:
        image: a path; the bytes of a file; a `PIL.Image.Image`; or an array: uint8 (H, W, 3) RGB, (H, W, 4) RGBA or
            (H, W) grey, or the same in uint16.
        max_pixels: the most that width x height may be. Up to our own limit, Pillow's of 179 million is in force too.

    Returns:
        (H, W, 3) uint8, RGB, C-contiguous, read-only, and the caller's to keep: never a view of the input.

    Raises:
        ImageError: a ValueError; the file is missing, refused, too large or broken, or the array is no picture.
        TypeError: not an image at all.

    Example:
        >>> load_image(np.zeros((2, 3), np.uint8)).shape
        (2, 3, 3)
    """
    if isinstance(image, np.ndarray):
        pixels = _from_array(image, max_pixels)
    elif isinstance(image, Image.Image):
        pixels = _from_pillow(image, "image", max_pixels)
    elif isinstance(image, (bytes, bytearray, memoryview)):
        pixels = _from_file(io.BytesIO(image), "image", max_pixels)
    elif isinstance(image, (str, os.PathLike)):
        pixels = _from_path(os.fspath(image), max_pixels)
    else:
        kind = type(image).__module__.split(".")[0] + "." + type(image).__qualname__
        hint = "; call .numpy() and bring it to (H, W, 3) uint8" if kind == "torch.Tensor" else ""
        raise TypeError(f"image: expected a path, bytes, a PIL image or a uint8 (H, W, 3) array, got {kind}{hint}")
    pixels = np.array(pixels, np.uint8, order="C", copy=True)
    pixels.setflags(write=False)
    return pixels


def digest(pixels: np.ndarray) -> str:
    """ "sha256:…" of an image's size and RGB pixels: the same picture from any file format has the same digest.

    >>> digest(np.zeros((1, 1, 3), np.uint8))[:19]
    'sha256:ac3318aa1aea'
    """
    height, width = pixels.shape[:2]
    hashed = hashlib.sha256(f"RGB8 {width}x{height}\n".encode())
    hashed.update(np.ascontiguousarray(pixels).data)
    return f"sha256:{hashed.hexdigest()}"


# ---- sources ------------------------------------------------------------------------------------------------------


def _from_path(path: str | bytes, max_pixels: int) -> np.ndarray:
    name = os.fsdecode(path)
    if "://" in name:
        raise ImageError(f"{name}: expected a file on this machine, got an address; download it first")
    try:
        with Path(name).open("rb") as file:
            return _from_file(file, name, max_pixels)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: expected an image file, got a folder") from None
    except PermissionError:
        raise ImageError(f"{name}: not allowed to read it") from None
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # a name too long, a null byte, a broken disk
        raise ImageError(f"{name[:100]!r}: cannot be read: {_one_line(error)}") from None


def _from_file(file: IO[bytes], name: str, max_pixels: int) -> np.ndarray:
    try:
        opened = _open(file, max_pixels)  # reads the header only
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: expected at most {max_pixels} pixels, got more than Pillow opens at all") from None
    except UnidentifiedImageError:
        expected = "JPEG, PNG, WebP, BMP, TIFF or GIF"
        raise ImageError(f"{name}: expected a {expected} image, got another format or a broken header") from None
    except Exception as error:  # decoders raise nearly anything on hostile headers
        raise ImageError(f"{name}: broken image header: {_one_line(error)}") from None
    with opened:
        return _from_pillow(opened, name, max_pixels)


def _from_pillow(image: Image.Image, name: str, max_pixels: int) -> np.ndarray:
    _check_size(name, image.size, max_pixels)
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF does not make a good photo bad
        orientation = 1
    try:
        image.load()
    except Exception as error:  # truncated or broken; decoders raise nearly anything
        raise ImageError(f"{name}: truncated or broken image data: {_one_line(error)}") from None
    pixels = _to_rgb(image, name)
    if orientation in _TRANSPOSE:
        pixels = np.asarray(Image.fromarray(pixels).transpose(_TRANSPOSE[orientation]))
    return pixels


def _from_array(array: np.ndarray, max_pixels: int) -> np.ndarray:
    shape = f"shape {array.shape} and dtype {array.dtype}"
    hint = ""
    if array.dtype.kind == "f":
        hint = "; multiply by 255 if it is in 0..1, then .astype(np.uint8)"
    elif array.dtype == bool:
        hint = "; a mask is a prompt (seem.Mask), not an image"
    elif array.ndim == 3 and array.shape[2] not in (3, 4) and array.shape[0] in (1, 3, 4):
        hint = "; the channels come last: .transpose(1, 2, 0)"
    if array.dtype not in (np.uint8, np.uint16) or hint:
        raise ImageError(f"image: expected a uint8 (H, W, 3) array, got {shape}{hint}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ImageError(f"image: expected a uint8 (H, W, 3) array, got {shape}")
    _check_size("image", (array.shape[1], array.shape[0]), max_pixels)
    if array.dtype == np.uint16:
        array = _scale_16_bit(array)
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)
    return _over_white(array) if array.shape[2] == 4 else array


def _open(file: IO[bytes], max_pixels: int) -> Image.Image:
    """`Image.open`; beyond our usual limit without Pillow's own, since the caller states one."""
    if max_pixels <= MAX_PIXELS:
        return Image.open(file, formats=FORMATS)
    Image.init()
    start = file.read(16)
    for name in FORMATS:
        make, accepts = Image.OPEN[name]
        if accepts is None or accepts(start) is True:
            file.seek(0)
            return make(file, "")
    raise UnidentifiedImageError


# ---- conversions --------------------------------------------------------------------------------------------------


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return np.repeat(_scale_16_bit(np.asarray(image.convert("I"), np.int64))[:, :, None], 3, axis=2)
    if image.mode == "I":  # what some writers of 16-bit files produce
        values = np.asarray(image, np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{name}: expected 8 or 16 bits a channel, got 32")
        return np.repeat(_scale_16_bit(values)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ImageError(f"{name}: expected 8 or 16 bits a channel, got floating point")
    try:
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            return _over_white(np.asarray(image.convert("RGBA")))
        return np.asarray(image.convert("RGB"))
    except (ValueError, OSError) as error:
        raise ImageError(f"{name}: cannot convert mode {image.mode} to RGB: {_one_line(error)}") from None


def _scale_16_bit(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _over_white(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) -> (H, W, 3), rounded."""
    alpha = rgba[:, :, 3:].astype(np.uint16)
    mixed = rgba[:, :, :3].astype(np.uint16) * alpha + (255 - alpha) * 255
    result: np.ndarray = ((mixed + 127) // 255).astype(np.uint8)
    return result


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: expected at least 1x1 pixels, got {width}x{height}")
    if width * height > max_pixels:
        raise ImageError(f"{name}: expected at most {max_pixels} pixels, got {width}x{height} = {width * height}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
