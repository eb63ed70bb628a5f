"""Encoded bytes -> a picture that is safe to use: upright, opaque, RGB or one grey channel.

Data preparation, training and use read through `decode`, so all see the same pixels and name the same faults.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from vlm.contracts.errors import InputError

MAX_PIXELS = 100_000_000  # larger pictures are refused before a pixel is decoded
MIN_SIDE = 2  # a picture of one pixel a side shows nothing
DRAFT_PIXELS = 4_000_000  # above this `open_picture` may decode a JPEG at a reduced scale
REDUCTIONS = (8, 4, 2)  # the scales between them take longer than a full decode
ORIENTATION = 0x0112  # the EXIF tag
# orientation -> whether to mirror left and right, then quarter turns counter-clockwise
TURNS = {2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1)}

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


def decode(
    data: bytes,
    name: str,
    *,
    least: tuple[int, int] | None = None,
    longest: int | None = None,
    min_side: int = MIN_SIDE,
    header: Image.Image | None = None,
) -> np.ndarray:
    """The pixels as uint8 [H, W, 3], or [H, W] if there is one grey channel.

    EXIF rotation is applied, transparency is laid on white, palette and CMYK become RGB, 16-bit grey becomes 8-bit.
    name: for messages.   min_side: a shorter side below it is refused.   header: of these bytes, if it was read.
    least: (height, width) that the caller will shrink to; a JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, the
    smallest that is still >= least on both sides. The pixels differ slightly from a full decode, so training and use
    give the same `least`.
    longest: the same in terms of the longer side, and only for pictures over 4 million pixels; those of other formats
    are then reduced before anything else is done with them, so that they take a fifth of the memory.
    Raises: PictureError with reason media_truncated, media_undecodable, media_is_html, media_huge or media_tiny.
    """
    header = header or read_header(data, name)
    width, height = header.size
    if min(width, height) < min_side:
        raise PictureError("media_tiny", f"{name} is {width}x{height}; the shorter side must be at least {min_side}")
    if header.format == "JPEG" and header.mode in ("RGB", "L") and _is_plain(data):
        with named_faults(name):
            return _decode_jpeg(data, header, least, longest)
    return _decode_other(header, name, longest)


def open_picture(data: bytes, name: str, *, min_side: int = MIN_SIDE, longest: int | None = None) -> Image.Image:
    """`decode` as a Pillow picture in mode RGB or L. Raises: as `decode`."""
    return Image.fromarray(decode(data, name, longest=longest, min_side=min_side))


def to_array(picture: Image.Image | np.ndarray, name: str = "the picture") -> np.ndarray:
    """A Pillow picture as `decode` gives it, upright and opaque; what is an array already stays as it is.

    Raises: PictureError with reason media_truncated or media_undecodable.
    """
    if isinstance(picture, np.ndarray):
        return picture
    return _decode_other(picture, name, None)


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
    if picture.format == "EPS":
        raise PictureError(
            "media_undecodable", f"{name} is a program that draws (EPS); strangers' programs are not run"
        )
    width, height = picture.size
    if width * height > max_pixels:
        limit = f"{max_pixels / 1e6:g} million pixels"
        raise PictureError("media_huge", f"{name} is {width}x{height}; the limit is {limit}")
    return picture


@contextmanager
def named_faults(name: str) -> Iterator[None]:
    """What decoders raise inside becomes a PictureError that names the picture and the reason."""
    try:
        yield
    except PictureError:
        raise
    except Image.DecompressionBombError as error:  # of a picture inside of another, as icons hold them
        raise PictureError("media_huge", f"{name}: {error}") from error
    except DECODER_ERRORS as error:
        words = str(error).lower()
        cut = "truncated" in words or "premature end of jpeg" in words or isinstance(error, EOFError)
        raise PictureError("media_truncated" if cut else "media_undecodable", f"{name}: {error}") from error


def _is_plain(data: bytes) -> bool:
    """Whether the fast decoder knows this layout of colours; Pillow reads, or refuses by name, all others."""
    try:
        simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return True


def _decode_jpeg(data: bytes, header: Image.Image, least: tuple[int, int] | None, longest: int | None) -> np.ndarray:
    """Raises: ValueError also for damage that Pillow would fill with grey."""
    orientation = _orientation(header)
    width, height = header.size
    if longest is not None and width * height > DRAFT_PIXELS:
        scale = longest / max(width, height)
        least = max(1, int(height * scale)), max(1, int(width * scale))
    elif least is not None and orientation >= 5:
        least = least[1], least[0]
    bounds = {} if least is None else _bounds(height, width, *least)
    space = "RGB" if header.mode == "RGB" else "GRAY"
    try:
        pixels = simplejpeg.decode_jpeg(data, space, min_factor=1, strict=True, **bounds)
    except ValueError:
        header.load()  # Pillow tells a cut file from a damaged one more often
        raise
    return _turned(pixels if space == "RGB" else pixels[..., 0], orientation)


def _decode_other(picture: Image.Image, name: str, longest: int | None) -> np.ndarray:
    with named_faults(name):
        picture.load()  # some formats turn the pixels while they load, and drop the tag
        orientation = _orientation(picture)
        if longest is not None and picture.width * picture.height > DRAFT_PIXELS:
            picture = _reduced(picture, max(picture.size) // longest)
        return _turned(np.array(_opaque(picture)), orientation)


def _reduced(picture: Image.Image, number: int) -> Image.Image:
    """At one n-th of its size; each pixel is the mean of n x n."""
    if number < 2:
        return picture
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    elif picture.mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "I", "F"):
        named = {"1": "L", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}
        picture = picture.convert("I" if picture.mode.startswith("I;") else named.get(picture.mode, "RGB"))
    return picture.reduce(number)


def _bounds(height: int, width: int, rows: int, columns: int) -> dict[str, int]:
    """What makes the decoder pick the smallest of the fast scales that leaves rows x columns."""
    fitting = (number for number in REDUCTIONS if height >= number * rows and width >= number * columns)
    reduction = next(fitting, None)
    return {} if reduction is None else {"min_height": -(-height // reduction), "min_width": -(-width // reduction)}


def _orientation(picture: Image.Image) -> int:
    found = picture.getexif().get(ORIENTATION)
    return found if found in TURNS else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation == 1:
        return pixels
    mirror, quarters = TURNS[orientation]
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirror else pixels, quarters))


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
