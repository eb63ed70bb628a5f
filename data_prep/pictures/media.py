"""A picture of a source -> the bytes that are stored, and what is known about it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from typing import ClassVar, Literal

import numpy as np
import simplejpeg
from PIL import Image

from data_prep.pictures.colours import to_srgb
from vlm.contracts.ranges import PositiveFloat, PositiveInt
from vlm.contracts.settings import STRICT
from vlm.data.looks import perceptual_hash, pixel_digest, thumbnail
from vlm.data.pictures import (
    DECODER_ERRORS,
    ORIENTATION,
    TURNS,
    PictureError,
    decode,
    named_faults,
    read_header,
    to_array,
)

MEMBERS = {"png": "png", "jpeg": "jpg"}  # format -> extension in the shard
PNG_DEPTH = 24  # where a PNG says how many bits a channel has


@dataclass(frozen=True)
class PictureRules:
    """How a set's pictures are stored.

    format: of what is stored, png where single pixels matter (digits, drawings), jpeg else.
    max_side: longer side, larger ones shrink.   min_side: shorter side, smaller ones are skipped.
    max_aspect: longer side over shorter, beyond it skipped.   max_pixels: larger ones are skipped undecoded.
    blank: whether pictures of one colour are kept.   quality, subsampling: of JPEG.
    """

    __pydantic_config__: ClassVar = STRICT
    format: Literal["jpeg", "png"]
    max_side: PositiveInt
    min_side: PositiveInt
    max_aspect: PositiveFloat
    blank: bool
    quality: PositiveInt
    subsampling: Literal["4:2:0", "4:4:4"]
    max_pixels: PositiveInt


@dataclass(frozen=True)
class Stored:
    """A picture ready to be written.

    thumb: grey, 32x32 bytes.   phash: of the thumbnail, 64 bits, hexadecimal.   repaired: what was mended, by name.
    upright: the pixels before shrinking, uint8 [H, W] or [H, W, 3].
    """

    data: bytes
    member: str
    width: int
    height: int
    phash: str
    thumb: bytes
    source_mode: str
    source_format: str
    upright: np.ndarray = field(repr=False, compare=False)
    repaired: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[bytes, ...]:
        """All that is stored of it."""
        return (self.data,)

    @property
    def looks(self) -> Stored:
        """What stands for it where pictures are compared."""
        return self

    @cached_property
    def pixels(self) -> str:
        """sha256 of size and upright opaque RGB pixels, for large pictures a fifth of what decoding costs."""
        return pixel_digest(self.upright)

    @cached_property
    def sha256(self) -> str:
        """Of the stored bytes."""
        return hashlib.sha256(self.data).hexdigest()


def store(content: bytes | Image.Image, name: str, rules: PictureRules) -> Stored:
    """Raises: PictureError with the reason, for a picture that the rules refuse."""
    with named_faults(name):
        if isinstance(content, bytes):
            header = read_header(content, name, max_pixels=rules.max_pixels)
            check_shape(header.size, name, rules)
            upright, repaired = _decoded(content, header, name, rules)
            mode, form, as_is = header.mode, header.format or "unknown", _storable(content, header, repaired, rules)
        else:
            check_shape(content.size, name, rules)
            upright, repaired = to_array(content, name), []
            mode, form, as_is = content.mode, "array", False
        thumb = thumbnail(upright)
        if not rules.blank and _is_blank(upright, thumb):
            raise PictureError("media_blank", f"{name} has one colour only")
        final = upright
        if max(upright.shape[:2]) > rules.max_side:
            final = _shrunk(upright, rules.max_side)
            repaired.append("shrunk")
        data = content if as_is and isinstance(content, bytes) else encode(final, rules)
        if isinstance(content, bytes) and not as_is and form.lower() != rules.format:
            repaired.append("format_changed")
    height, width = final.shape[:2]
    member = MEMBERS[rules.format]
    phash = perceptual_hash(thumb)
    return Stored(data, member, width, height, phash, thumb.tobytes(), mode, form, upright, tuple(repaired))


def reread(data: bytes, name: str) -> Stored:
    """What is known about a picture that was stored before. Raises: PictureError if it is damaged."""
    with named_faults(name):
        header = read_header(data, name)
        upright = decode(data, name, min_side=1, header=header)
    thumb = thumbnail(upright)
    height, width = upright.shape[:2]
    mode, form = header.mode, header.format or "unknown"
    member = MEMBERS.get(form.lower(), "")
    phash = perceptual_hash(thumb)
    return Stored(data, member, width, height, phash, thumb.tobytes(), mode, form, upright)


def check_shape(size: tuple[int, int], name: str, rules: PictureRules) -> None:
    """size: width, height. Raises: PictureError with reason media_tiny or media_aspect."""
    short, long = sorted(size)
    if short < rules.min_side:
        raise PictureError("media_tiny", f"{name} is {size[0]}x{size[1]}; the shorter side must reach {rules.min_side}")
    if long > rules.max_aspect * short:
        raise PictureError("media_aspect", f"{name} is {size[0]}x{size[1]}; the limit is {rules.max_aspect:g} to 1")


def _decoded(content: bytes, header: Image.Image, name: str, rules: PictureRules) -> tuple[np.ndarray, list[str]]:
    """The upright opaque pixels in sRGB or grey, and what had to be done for that."""
    known = header if header.format in ("JPEG", "PNG") else None  # others say something else once they are loaded
    pixels = decode(content, name, longest=rules.max_side, min_side=rules.min_side, header=known)
    repaired = list(_repairs(content, header))  # of a PNG, asking for its rotation decodes it
    profile = header.info.get("icc_profile")
    if profile:
        pixels, done = to_srgb(pixels, header, profile)
        repaired += done
    return pixels, repaired


def _repairs(content: bytes, header: Image.Image) -> Iterator[str]:
    if header.getexif().get(ORIENTATION) in TURNS:
        yield "rotated"
    if header.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in header.info:
        yield "alpha_flattened"
    if header.mode.startswith(("I", "F")) or (header.format == "PNG" and content[PNG_DEPTH] == 16):
        yield "sixteen_bit"
    if _has_frames(header):
        yield "first_frame"


def _has_frames(header: Image.Image) -> bool:
    """Whether the file holds more pictures than the one that is taken."""
    try:
        return getattr(header, "is_animated", False)
    except DECODER_ERRORS:  # a second one is there and broken; the first is judged by its own decoding
        return True


def _storable(content: bytes, header: Image.Image, repaired: list[str], rules: PictureRules) -> bool:
    """Whether the file can be kept byte for byte: its pixels are right, RGB or grey, in wanted format and size."""
    return (
        header.format == rules.format.upper()
        and header.mode in ("RGB", "L")
        and not set(repaired) - {"profile_ignored"}  # readers here do not look at profiles
        and max(header.size) <= rules.max_side
    )


def _is_blank(pixels: np.ndarray, thumb: np.ndarray) -> bool:
    if (thumb != thumb[0, 0]).any():  # spares a look at all pixels
        return False
    return bool((pixels == pixels[0, 0]).all())


def _shrunk(pixels: np.ndarray, max_side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def encode(pixels: np.ndarray, rules: PictureRules) -> bytes:
    """Pixels [H, W] or [H, W, 3] in the format of the rules."""
    if rules.format == "png":
        target = BytesIO()
        Image.fromarray(pixels).save(target, "PNG", compress_level=1)
        return target.getvalue()
    if pixels.ndim == 2:
        return simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels)[..., None], rules.quality, colorspace="GRAY", colorsubsampling="Gray"
        )
    subsampling = rules.subsampling.replace(":", "")
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), rules.quality, "RGB", subsampling)
