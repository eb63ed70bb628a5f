"""What `open_picture` gives for every odd file that a data set may hold, and what it refuses by which name."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from vlm.contracts.errors import InputError
from vlm.data.pictures import PictureError, open_picture, read_header


def encoded(picture: Image.Image, form: str, **options) -> bytes:
    target = BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def gradient(width: int = 60, height: int = 40) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b"")]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def refusal(data: bytes, **options) -> str:
    with pytest.raises(PictureError) as caught:
        open_picture(data, "im/k7.png", **options)
    assert isinstance(caught.value, InputError)
    assert "im/k7.png" in str(caught.value)
    assert str(caught.value).startswith(caught.value.reason)
    return caught.value.reason


def test_a_colour_picture_stays_as_it_is() -> None:
    picture = open_picture(encoded(gradient(), "PNG"), "a")
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), np.asarray(gradient()))


def test_a_grey_picture_stays_one_channel() -> None:
    assert open_picture(encoded(gradient().convert("L"), "JPEG"), "a").mode == "L"
    assert open_picture(encoded(gradient().convert("1"), "PNG"), "a").mode == "L"


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_other_colour_spaces_become_rgb(mode: str) -> None:
    picture = open_picture(encoded(gradient().convert(mode), "JPEG", quality=95), "a")
    assert picture.mode == "RGB"
    assert np.abs(np.asarray(picture, dtype=int) - np.asarray(gradient(), dtype=int)).mean() < 12


def test_a_palette_becomes_rgb() -> None:
    assert open_picture(encoded(gradient().convert("P"), "PNG"), "a").mode == "RGB"


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    picture = open_picture(encoded(Image.fromarray(values), "PNG"), "a")
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), values // 257)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_white(mode: str) -> None:
    clear = Image.new(mode, (8, 8), (0,) * len(mode))
    picture = open_picture(encoded(clear, "PNG"), "a")
    assert picture.mode == mode[:-1]
    assert np.asarray(picture).min() == 255


def test_a_transparent_palette_entry_becomes_white() -> None:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 200, 0, 0])
    assert np.asarray(open_picture(encoded(picture, "PNG", transparency=1), "a")).min() == 255


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    assert open_picture(encoded(gradient(60, 40), "JPEG", exif=exif), "a").size == (40, 60)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_file_cut_in_half_is_truncated(form: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, form)
    assert refusal(data[: len(data) // 2]) == "media_truncated"
    assert refusal(b"") == "media_truncated"


def test_a_damaged_or_foreign_file_is_undecodable() -> None:
    data = bytearray(encoded(gradient(), "PNG"))
    data[60:90] = bytes(30)
    assert refusal(bytes(data)) == "media_undecodable"
    assert refusal(b"this is no picture" * 40) == "media_undecodable"


def test_a_web_page_is_named_as_one() -> None:
    assert refusal(b"\n <!DOCTYPE html><html><body>404</body></html>") == "media_is_html"


def test_a_huge_picture_is_refused_from_its_header() -> None:
    assert refusal(png_header(20_000, 20_000)) == "media_huge"
    assert refusal(png_header(11_000, 10_000)) == "media_huge"


def test_pillows_own_limit_does_not_interfere() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_header(png_header(9_900, 9_900), "a").size == (9_900, 9_900)  # Pillow warns from 89 million pixels


def test_a_picture_of_one_pixel_is_tiny_and_more_can_be_asked_for() -> None:
    assert refusal(encoded(Image.new("RGB", (1, 1)), "PNG")) == "media_tiny"
    assert refusal(encoded(gradient(60, 20), "PNG"), min_side=28) == "media_tiny"
    assert open_picture(encoded(gradient(60, 20), "PNG"), "a").size == (60, 20)


def test_only_large_jpegs_are_decoded_at_a_reduced_scale() -> None:
    large = encoded(gradient(2400, 1800), "JPEG")
    assert open_picture(large, "a").size == (2400, 1800)
    assert open_picture(large, "a", longest=500).size == (600, 450)
    assert open_picture(encoded(gradient(1200, 900), "JPEG"), "a", longest=200).size == (1200, 900)


@pytest.mark.filterwarnings("ignore:::PIL")
def test_damage_anywhere_in_a_file_gives_a_picture_or_a_named_reason() -> None:
    draw = np.random.default_rng(1)
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        data = encoded(gradient(), form)
        for _ in range(300):
            broken = bytearray(data)
            for place in draw.integers(0, len(data), 4):
                broken[place] = draw.integers(0, 256)
            try:
                outcome = open_picture(bytes(broken[: draw.integers(1, len(data) + 1)]), "a").mode
            except PictureError as error:
                outcome = error.reason
            assert outcome in ("L", "RGB", "media_truncated", "media_undecodable", "media_huge", "media_tiny")
