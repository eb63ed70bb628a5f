"""What decoding gives for every odd file that a data set may hold, and what it refuses by which name."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from vlm.contracts.errors import InputError
from vlm.data.pictures import PictureError, decode, open_picture, read_header, to_array


def encoded(picture: Image.Image, form: str, **options) -> bytes:
    target = BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def gradient(width: int = 60, height: int = 40) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def photograph(width: int = 200, height: int = 160) -> Image.Image:
    """Shapes of several sizes with some noise, so that every cosine term of a JPEG is used."""
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    values = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) + draw.normal(
        0, 8, (height, width, 3)
    )
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_large_pictures_of_other_formats_are_reduced_whatever_their_colours(mode: str) -> None:
    sixteen = Image.fromarray(np.asarray(gradient(2400, 1800).convert("L")).astype(np.uint16) * 257)
    picture = sixteen if mode == "I;16" else gradient(2400, 1800).convert(mode)
    data = encoded(picture, "TIFF" if mode == "CMYK" else "PNG")
    small = open_picture(data, "a", longest=500)
    assert small.size == (600, 450)
    whole = open_picture(data, "a").resize((600, 450), Image.Resampling.BOX)
    assert small.mode == whole.mode
    assert np.abs(np.asarray(small, dtype=int) - np.asarray(whole, dtype=int)).mean() < 1


def test_of_a_large_turned_picture_the_longer_side_is_what_it_was_asked_for() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(gradient(2400, 1800), "PNG", exif=exif, transparency=(1, 2, 3))
    assert open_picture(data, "a", longest=500).size == (450, 600)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"restart_marker_blocks": 4}, {"mode": "L"}]
)
def test_jpegs_are_decoded_as_pillow_decodes_them(options: dict) -> None:
    mode, options = options.get("mode", "RGB"), {k: v for k, v in options.items() if k != "mode"}
    data = encoded(photograph().convert(mode), "JPEG", **options)
    expected = np.asarray(Image.open(BytesIO(data)))
    found = decode(data, "a")
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_every_exif_orientation_is_applied_at_every_scale(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(320, 200), "JPEG", exif=exif)
    assert np.array_equal(decode(data, "a"), np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data)))))
    height, width = (320, 200) if 5 <= orientation <= 8 else (200, 320)
    assert decode(data, "a", least=(height // 2, width // 2)).shape == (height // 2, width // 2, 3)
    assert decode(data, "a", least=(width // 2, height // 2)).shape == (height, width, 3)


@pytest.mark.parametrize("side", [2, 3, 5, 100, 224, 317, 448, 449, 897, 1793])
def test_a_reduced_decode_never_falls_below_what_is_asked_for(side: int) -> None:
    data = encoded(gradient(side + 7, side), "JPEG")
    for least in (1, 28, 112, 224):
        height, width = decode(data, "a", least=(least, least)).shape[:2]
        assert min(height, width) >= min(least, side)
        assert height == side or height <= side // 2 + 1  # only the scales that are faster than a full decode
        assert (height, width) == (side, side + 7) or height < 2 * least + 2 or height <= side // 8 + 1


def test_a_reduced_decode_shows_the_same_picture() -> None:
    picture = photograph(640, 480)
    data = encoded(picture, "JPEG", quality=95)
    small = decode(data, "a", least=(224, 224))
    assert small.shape == (240, 320, 3)
    expected = np.asarray(picture.resize((320, 240), Image.Resampling.BOX), dtype=int)
    assert np.abs(small - expected).mean() < 3


def test_only_jpegs_of_plain_colours_are_reduced() -> None:
    for form, mode in (("PNG", "RGB"), ("JPEG", "CMYK")):
        assert decode(encoded(gradient(640, 480).convert(mode), form), "a", least=(8, 8)).shape == (480, 640, 3)
    assert decode(encoded(gradient(640, 480).convert("L"), "JPEG"), "a", least=(8, 8)).shape == (60, 80)


@pytest.mark.parametrize("least", [None, (20, 20)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_cut_anywhere_is_refused(options: dict, least: tuple[int, int] | None) -> None:
    data = encoded(photograph(), "JPEG", **options)
    for length in range(700, len(data), 97):
        with pytest.raises(PictureError, match=r"^media_truncated: im/k7\.jpg: "):
            decode(data[:length], "im/k7.jpg", least=least)


@pytest.mark.parametrize("least", [None, (20, 20)])
def test_damage_that_pillow_fills_with_grey_is_refused(least: tuple[int, int] | None) -> None:
    data = encoded(photograph(), "JPEG")
    start = data.index(b"\xff\xda") + 14
    damaged = data[: start + 2000] + b"\xff\xd9"  # an end that comes early
    Image.open(BytesIO(damaged)).load()
    with pytest.raises(PictureError, match=r"^media_(truncated|undecodable): a: "):
        decode(damaged, "a", least=least)


def test_a_pillow_picture_becomes_what_its_file_becomes() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (encoded(photograph(), "JPEG", exif=exif), encoded(gradient().convert("P"), "PNG")):
        assert np.array_equal(to_array(Image.open(BytesIO(data))), decode(data, "a"))
    ready = np.zeros((4, 4, 3), np.uint8)
    assert to_array(ready) is ready


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
