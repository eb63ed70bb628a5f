"""Encoded bytes -> a picture that is safe to use: upright, opaque, RGB or one grey channel.

Data preparation and training read through this one function, so both see the same pixels and name the same faults.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vlm.contracts.errors import InputError

MAX_PIXELS = 100_000_000  # larger pictures are refused before a pixel is decoded
MIN_SIDE = 2  # a picture of one pixel a side shows nothing
DRAFT_PIXELS = 4_000_000  # above this a JPEG may be decoded at a reduced scale

# What Pillow raises on broken files, found by cutting and flipping bytes in every format it reads.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    ZeroDivisionError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


class PictureError(InputError):
    """A picture that cannot be used.

    reason: its name in counts and budgets, such as "media_truncated".   detail: what was found in this file.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")

    def __reduce__(self) -> tuple[type[PictureError], tuple[str, str]]:
        return type(self), (self.reason, self.detail)  # errors cross from data workers to the trainer


def open_picture(data: bytes, name: str, *, min_side: int = MIN_SIDE, longest: int | None = None) -> Image.Image:
    """The decoded picture in mode RGB, or L if it has one grey channel.

    EXIF rotation is applied, transparency is laid on white, palette and CMYK become RGB, 16-bit grey becomes 8-bit.
    name: for messages.   min_side: a shorter side below it is refused.
    longest: if given, a JPEG over 4 million pixels is decoded at a reduced scale whose longer side is still >= longest;
    the pixels then differ slightly from a full decode, so training never uses it.
    Raises: PictureError with reason media_truncated, media_undecodable, media_is_html, media_huge or media_tiny.
    """
    picture = read_header(data, name)
    width, height = picture.size
    if min(width, height) < min_side:
        raise PictureError("media_tiny", f"{name} is {width}x{height}; the shorter side must be at least {min_side}")
    if longest is not None and width * height > DRAFT_PIXELS:
        scale = longest / max(width, height)
        picture.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        return _opaque(upright)
    except DECODER_ERRORS as error:
        cut = "truncated" in str(error).lower() or isinstance(error, EOFError)
        raise PictureError("media_truncated" if cut else "media_undecodable", f"{name}: {error}") from error


def read_header(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A lazy Pillow image whose size, mode and format are known and whose pixels are not decoded yet.

    Raises: PictureError with reason media_truncated (no bytes), media_is_html, media_undecodable or media_huge.
    """
    if not data:
        raise PictureError("media_truncated", f"{name} holds 0 bytes")
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        raise PictureError("media_is_html", f"{name} is a web page, not a picture")
    try:
        with warnings.catch_warnings():  # our own limit below decides; Pillow warns from 89 million pixels
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(BytesIO(data))
    except Image.DecompressionBombError as error:
        raise PictureError("media_huge", f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise PictureError("media_undecodable", f"{name}: no known picture format in {len(data)} bytes") from error
    except DECODER_ERRORS as error:
        raise PictureError("media_undecodable", f"{name}: {error}") from error
    width, height = picture.size
    if width * height > max_pixels:
        limit = f"{max_pixels / 1e6:g} million pixels"
        raise PictureError("media_huge", f"{name} is {width}x{height}; the limit is {limit}")
    return picture


def _opaque(picture: Image.Image) -> Image.Image:
    """RGB or L on a white ground."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _eight_bits(picture)
    if picture.mode in ("LA", "La"):
        return _flatten(picture.convert("LA"), "L")
    if picture.mode in ("RGBA", "RGBa", "PA") or "transparency" in picture.info:
        return _flatten(picture.convert("RGBA"), "RGB")
    return picture if picture.mode in ("L", "RGB") else picture.convert("L" if picture.mode == "1" else "RGB")


def _flatten(picture: Image.Image, mode: str) -> Image.Image:
    ground = Image.new(mode, picture.size, "white")
    ground.paste(picture.convert(mode), mask=picture.getchannel("A"))
    return ground


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey -> L; Pillow's own conversion clips at 255 instead of scaling."""
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"grey values {values.min():g} to {values.max():g} in mode {picture.mode}; 16 bits are read")
    return Image.fromarray((values // 257).astype(np.uint8))
