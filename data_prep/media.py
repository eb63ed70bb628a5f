"""A picture of a source -> the bytes that are stored, and what is known about it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from vlm.contracts.ranges import PositiveFloat, PositiveInt
from vlm.contracts.settings import STRICT
from vlm.data.pictures import PictureError, open_picture, read_header

EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class PictureRules:
    """How a set's pictures are stored.

    format: of what is stored, png where single pixels matter (digits, drawings), jpeg else.
    max_side: longer side, larger ones shrink.   min_side: shorter side, smaller ones are skipped.
    max_aspect: longer side over shorter, beyond it skipped.   max_pixels: larger ones are skipped undecoded.
    blank: whether pictures of one colour are kept.   quality: of JPEG.
    """

    __pydantic_config__: ClassVar = STRICT
    format: Literal["jpeg", "png"]
    max_side: PositiveInt
    min_side: PositiveInt
    max_aspect: PositiveFloat
    blank: bool
    quality: PositiveInt
    max_pixels: PositiveInt


@dataclass(frozen=True)
class Stored:
    """A picture ready to be written. pixels: sha256 of its upright opaque RGB pixels before shrinking."""

    data: bytes
    member: str
    width: int
    height: int
    pixels: str
    phash: str
    source_mode: str
    source_format: str


def store(content: bytes | Image.Image, name: str, rules: PictureRules) -> Stored:
    """Raises: PictureError with the reason, for a picture that the rules refuse."""
    if isinstance(content, bytes):
        header = read_header(content, name, max_pixels=rules.max_pixels)
        source_mode, source_format = header.mode, header.format or "unknown"
        _check_shape(header.size, name, rules)
        picture = open_picture(content, name, min_side=rules.min_side, longest=rules.max_side)
        as_is = _storable(header, picture.mode, rules)
    else:
        picture, source_mode, source_format, as_is = content, content.mode, "array", False
        _check_shape(picture.size, name, rules)
    if not rules.blank and _is_blank(picture):
        raise PictureError("media_blank", f"{name} has one colour only")
    pixels = _pixel_hash(picture)
    if max(picture.size) > rules.max_side:
        picture = _shrink(picture, rules.max_side)
    data = content if as_is and isinstance(content, bytes) else _encode(picture, rules)
    member = {"png": "png", "jpeg": "jpg"}[rules.format]
    return Stored(data, member, *picture.size, pixels, perceptual_hash(picture), source_mode, source_format)


def perceptual_hash(picture: Image.Image) -> str:
    """64 bits, hexadecimal: signs of the lowest 8x8 cosine terms of a 32x32 grey thumbnail against their median."""
    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float32)
    low = (_cosines() @ grey @ _cosines().T).ravel()
    return f"{int.from_bytes(np.packbits(low > np.median(low)).tobytes(), 'big'):016x}"


@cache
def _cosines() -> np.ndarray:
    """First 8 rows of the 32-point cosine transform."""
    frequency, place = np.arange(8)[:, None], np.arange(32)[None]
    return np.cos(np.pi * frequency * (2 * place + 1) / 64).astype(np.float32)


def _check_shape(size: tuple[int, int], name: str, rules: PictureRules) -> None:
    short, long = sorted(size)
    if short < rules.min_side:
        raise PictureError("media_tiny", f"{name} is {size[0]}x{size[1]}; the shorter side must reach {rules.min_side}")
    if long > rules.max_aspect * short:
        raise PictureError("media_aspect", f"{name} is {size[0]}x{size[1]}; the limit is {rules.max_aspect:g} to 1")


def _storable(header: Image.Image, mode: str, rules: PictureRules) -> bool:
    """Whether the file can be kept byte for byte: upright, opaque, RGB or grey, wanted format and size."""
    return (
        header.format == rules.format.upper()
        and header.mode == mode
        and "transparency" not in header.info
        and max(header.size) <= rules.max_side
        and header.getexif().get(EXIF_ORIENTATION, 1) == 1
    )


def _is_blank(picture: Image.Image) -> bool:
    extrema = picture.getextrema()
    bands = [extrema] if picture.mode == "L" else extrema
    return all(low == high for low, high in bands)  # type: ignore[misc]  # Pillow types one band and several alike


def _pixel_hash(picture: Image.Image) -> str:
    content = hashlib.sha256(f"{picture.width}x{picture.height}".encode())
    content.update(picture.convert("RGB").tobytes())
    return content.hexdigest()


def _shrink(picture: Image.Image, max_side: int) -> Image.Image:
    scale = max_side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _encode(picture: Image.Image, rules: PictureRules) -> bytes:
    target = BytesIO()
    if rules.format == "png":
        picture.save(target, "PNG", compress_level=1)
    else:
        picture.save(target, "JPEG", quality=rules.quality, subsampling="4:2:0")
    return target.getvalue()
