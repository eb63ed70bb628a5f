"""What becomes of every picture that a source may hold: kept as it is, mended and counted, or refused by name."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from data_prep.budget import PERCENT
from data_prep.pictures.media import PictureRules, Stored, store
from vlm.data.pictures import PictureError, decode

ROOT = Path(__file__).resolve().parents[2]
PHOTOGRAPHS = PictureRules("jpeg", 1536, 28, 20.0, False, 92, "4:2:0", 100_000_000)
DRAWINGS = replace(PHOTOGRAPHS, format="png", min_side=8, blank=True)


def photograph(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    values = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) + draw.normal(
        0, 5, (height, width, 3)
    )
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    target = BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def reason(content: bytes, rules: PictureRules = PHOTOGRAPHS) -> str:
    with pytest.raises(PictureError) as caught:
        store(content, "im/k7", rules)
    assert "im/k7" in caught.value.detail
    assert caught.value.reason in PERCENT
    return caught.value.reason


def shown(stored: Stored) -> np.ndarray:
    return decode(stored.data, "stored").astype(int)


def mended(stored: Stored) -> tuple[str, ...]:
    """What was done beside storing it in another format."""
    return tuple(name for name in stored.repaired if name != "format_changed")


def png(*chunks: bytes) -> bytes:
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def png_header(width: int, height: int) -> bytes:
    return b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


# kept as it is


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"quality": 30}])
def test_an_upright_jpeg_in_rgb_or_grey_is_kept_byte_for_byte(options: dict[str, Any]) -> None:
    for mode in ("RGB", "L"):
        content = encoded(photograph().convert(mode), **options)
        stored = store(content, "a.jpg", PHOTOGRAPHS)
        assert stored.data == content
        assert (stored.member, stored.width, stored.height, stored.repaired) == ("jpg", 120, 90, ())
        assert (stored.source_mode, stored.source_format) == (mode, "JPEG")


def test_a_png_is_kept_where_pixels_matter_and_becomes_jpeg_elsewhere() -> None:
    content = encoded(photograph(), "PNG")
    assert store(content, "a.png", DRAWINGS).data == content
    stored = store(content, "a.png", PHOTOGRAPHS)
    assert Image.open(BytesIO(stored.data)).format == "JPEG"
    assert stored.repaired == ("format_changed",)
    assert np.abs(shown(stored) - np.asarray(photograph(), dtype=int)).mean() < 5


def test_the_name_does_not_decide_about_the_format() -> None:
    stored = store(encoded(photograph(), "PNG"), "wrong.jpg", PHOTOGRAPHS)
    assert (stored.source_format, stored.member) == ("PNG", "jpg")


def test_colours_are_kept_at_full_resolution_where_the_rules_ask_for_it() -> None:
    red = Image.new("RGB", (64, 64), "white")
    red.paste("red", (31, 0, 32, 64))  # one column wide
    errors = {}
    for subsampling in ("4:2:0", "4:4:4"):
        stored = store(encoded(red, "PNG"), "a", replace(PHOTOGRAPHS, subsampling=subsampling))
        errors[subsampling] = np.abs(shown(stored) - np.asarray(red, dtype=int)).max()
    assert errors["4:4:4"] < 30 < errors["4:2:0"]


def test_pixels_that_were_never_a_file_are_stored() -> None:
    digit = photograph(28, 28).convert("L")
    stored = store(digit, "idx 7", DRAWINGS)
    assert np.array_equal(shown(stored), np.asarray(digit))
    assert stored.source_format == "array"


# mended and counted


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_rotation_is_applied_and_counted(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photograph(), form, exif=exif)
    stored = store(content, "a", replace(PHOTOGRAPHS, quality=100, subsampling="4:4:4"))
    expected = ImageOps.exif_transpose(Image.open(BytesIO(content))).convert("RGB")
    assert (stored.width, stored.height) == expected.size
    assert np.abs(shown(stored) - np.asarray(expected, dtype=int)).mean() < 2
    assert mended(stored) == (("rotated",) if orientation > 1 else ())
    assert Image.open(BytesIO(stored.data)).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_on_white_and_counted(mode: str) -> None:
    picture = photograph().convert(mode)
    picture.putalpha(Image.fromarray(np.repeat(np.arange(120) * 2, 90).reshape(120, 90).T.astype(np.uint8)))
    stored = store(encoded(picture, "PNG"), "a", PHOTOGRAPHS)
    assert mended(stored) == ("alpha_flattened",)
    assert shown(stored)[:, 0].min() > 200


def test_a_transparent_palette_entry_is_laid_on_white_and_counted() -> None:
    picture = photograph().quantize(16)
    stored = store(encoded(picture, "PNG", transparency=3), "a", PHOTOGRAPHS)
    assert mended(stored) == ("alpha_flattened",)
    assert shown(stored)[np.asarray(picture) == 3].mean() > 200


def test_sixteen_bits_become_eight_and_are_counted() -> None:
    values = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    stored = store(encoded(Image.fromarray(values), "PNG"), "a", DRAWINGS)
    assert mended(stored) == ("sixteen_bit",)
    assert np.array_equal(shown(stored), values // 257)
    rows = b"".join(b"\0" + bytes([x % 251, 0] * 3 * 32) for x in range(32))
    colour = png(b"IHDR" + struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0), b"IDAT" + zlib.compress(rows), b"IEND")
    assert mended(store(colour, "a", DRAWINGS)) == ("sixteen_bit",)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken_and_counted(form: str) -> None:
    frames = [photograph(seed=seed).quantize(64).convert("RGB") for seed in range(3)]
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    stored = store(content, "a", DRAWINGS)
    assert "first_frame" in stored.repaired
    assert np.abs(shown(stored) - np.asarray(frames[0], dtype=int)).mean() < 2
    assert getattr(Image.open(BytesIO(stored.data)), "n_frames", 1) == 1


def test_a_picture_with_another_behind_it_is_stored_alone() -> None:
    content = encoded(photograph(), "MPO", save_all=True, append_images=[photograph(seed=1)])
    stored = store(content, "phone.jpg", PHOTOGRAPHS)
    assert mended(stored) == ("first_frame",)
    assert Image.open(BytesIO(stored.data)).format == "JPEG"


def test_cmyk_becomes_rgb() -> None:
    stored = store(encoded(photograph().convert("CMYK"), quality=95), "a", PHOTOGRAPHS)
    assert stored.source_mode == "CMYK"
    assert np.abs(shown(stored) - np.asarray(photograph(), dtype=int)).mean() < 12


def test_large_pictures_shrink_and_are_counted() -> None:
    stored = store(encoded(photograph(400, 300)), "a", replace(PHOTOGRAPHS, max_side=200))
    assert (stored.width, stored.height, stored.repaired) == (200, 150, ("shrunk",))
    stored = store(encoded(photograph(2400, 1800)), "a", replace(PHOTOGRAPHS, max_side=600))  # decoded at a quarter
    assert (stored.width, stored.height) == (600, 450)


# colour profiles


def profile(name: Literal["LAB", "sRGB"]) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def wide_profile() -> bytes:
    """sRGB with red and green exchanged: as far from sRGB as a profile can be, and easy to check."""
    content = profile("sRGB")
    return content.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def grey_profile(gamma: float) -> bytes:
    """The smallest profile of a grey picture: a white point and one curve."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, 16)
    header = struct.pack(">I4sI4s4s4s", 192, b"none", 0x02100000, b"mntr", b"GRAY", b"XYZ ") + bytes(12) + b"acsp"
    header += bytes(28) + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D) + bytes(48)
    return header + tags + white + curve


def test_a_grey_profile_is_converted_and_the_picture_stays_grey() -> None:
    grey = photograph().convert("L")
    stored = store(encoded(grey, "PNG", icc_profile=grey_profile(1.0)), "a", DRAWINGS)
    assert mended(stored) == ("profile_converted",)
    light = np.asarray(grey) / 255  # the levels mean light itself, which sRGB holds with its own curve
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert shown(stored).ndim == 2
    assert np.abs(shown(stored) - expected).max() < 3
    assert store(encoded(photograph(), icc_profile=grey_profile(1.0)), "a", PHOTOGRAPHS).repaired == (
        "profile_ignored",
    )


def test_a_jpeg_that_says_it_is_srgb_is_kept() -> None:
    content = encoded(photograph(), icc_profile=profile("sRGB"))
    assert store(content, "a", PHOTOGRAPHS).data == content


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_another_colour_profile_is_converted_to_srgb_and_counted(form: str) -> None:
    content = encoded(photograph(), form, icc_profile=wide_profile())
    stored = store(content, "a", replace(DRAWINGS))
    assert mended(stored) == ("profile_converted",)
    expected = decode(content, "a")[..., [1, 0, 2]].astype(int)
    assert np.abs(shown(stored) - expected).mean() < 3
    assert "icc_profile" not in Image.open(BytesIO(stored.data)).info


def test_a_profile_that_cannot_be_read_or_is_of_another_kind_is_ignored_and_counted() -> None:
    for broken in (b"no profile", profile("sRGB")[:200], profile("LAB")):
        content = encoded(photograph(), icc_profile=broken)
        stored = store(content, "a", PHOTOGRAPHS)
        assert mended(stored) == ("profile_ignored",)
        assert stored.data == content


def test_a_profile_of_colours_on_a_grey_picture_leaves_it_grey() -> None:
    stored = store(encoded(photograph().convert("L"), icc_profile=wide_profile()), "a", PHOTOGRAPHS)
    assert shown(stored).ndim == 2


# refused by name


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_file_that_was_cut_is_truncated_or_undecodable(form: str) -> None:
    content = encoded(photograph(), form)
    assert reason(b"") == "media_truncated"
    for part in (0.3, 0.6, 0.9):
        assert reason(content[: int(part * len(content))]) in ("media_truncated", "media_undecodable")
    if form in ("JPEG", "PNG"):
        assert reason(content[: len(content) // 2]) == "media_truncated"


def test_a_web_page_is_named_as_one() -> None:
    assert reason(b"<!DOCTYPE html><html>gone</html>") == "media_is_html"


def test_bytes_of_no_picture_are_undecodable() -> None:
    assert reason(bytes(1000)) == "media_undecodable"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n") == "media_undecodable"


def test_a_shape_that_shows_nothing_is_refused() -> None:
    assert reason(encoded(Image.new("RGB", (2, 2)), "PNG")) == "media_tiny"
    assert reason(encoded(photograph(900, 30))) == "media_aspect"


def huge(form: str, width: int = 20_000, height: int = 10_000) -> bytes:
    """A small picture whose header promises 200 million pixels."""
    if form == "PNG":
        return png(png_header(width, height), b"IDAT" + zlib.compress(b""), b"IEND")
    content = bytearray(encoded(photograph(), form))
    if form == "JPEG":
        start = content.index(b"\xff\xc0") + 5
        content[start : start + 4] = struct.pack(">HH", height, width)
    elif form == "GIF":
        content[6:10] = struct.pack("<HH", width, height)
    else:
        (start,) = struct.unpack_from("<I", content, 4)
        for entry in range(start + 2, start + 2 + 12 * 20, 12):
            if (tag := struct.unpack_from("<H", content, entry)[0]) in (256, 257):
                struct.pack_into("<HII", content, entry + 2, 4, 1, width if tag == 256 else height)
    return bytes(content)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF"])
def test_two_hundred_million_pixels_are_refused_undecoded(form: str) -> None:
    assert reason(huge(form)) == "media_huge"


def test_a_bomb_inside_of_an_icon_is_refused() -> None:
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(huge("PNG")), 22)
    assert reason(struct.pack("<HHH", 0, 1, 1) + entry + huge("PNG")) == "media_huge"


@pytest.mark.parametrize("chunk", ["iCCP", "zTXt"])
@pytest.mark.parametrize("behind", [False, True])
def test_text_and_profiles_that_unpack_to_gigabytes_are_refused(chunk: str, behind: bool) -> None:
    bomb = chunk.encode() + b"a\0\0" + zlib.compress(bytes(200_000_000), 1)
    whole = encoded(photograph(), "PNG")
    place = len(whole) - 12 if behind else 33
    framed = struct.pack(">I", len(bomb) - 4) + bomb + struct.pack(">I", zlib.crc32(bomb))
    assert reason(whole[:place] + framed + whole[place:]) == "media_undecodable"


@pytest.mark.parametrize("colour", [(0, 0, 0), (12, 200, 40)])
def test_a_picture_of_one_colour_is_blank_unless_the_rules_keep_it(colour: tuple[int, int, int]) -> None:
    content = encoded(Image.new("RGB", (64, 64), colour), "PNG")
    assert reason(content) == "media_blank"
    assert store(content, "a", DRAWINGS).data == content


def test_a_fully_transparent_picture_is_blank() -> None:
    clear = photograph().convert("RGBA")
    clear.putalpha(0)
    assert reason(encoded(clear, "PNG")) == "media_blank"


def test_one_dot_is_not_blank() -> None:
    dot = Image.new("L", (1000, 1000), 255)
    dot.putpixel((501, 499), 254)
    assert store(encoded(dot, "PNG"), "a", PHOTOGRAPHS).width == 1000


FILES = {
    **{form: encoded(photograph(40, 32), form) for form in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000")},
    "ICO": encoded(photograph(32, 32), "ICO", sizes=[(32, 32)]),
    "APNG": encoded(photograph(40, 32), "PNG", save_all=True, append_images=[photograph(40, 32, 1)]),
    "MPO": encoded(photograph(40, 32), "MPO", save_all=True, append_images=[photograph(40, 32, 1)]),
    "profile": encoded(photograph(40, 32), "JPEG", icc_profile=wide_profile(), exif=Image.Exif().tobytes()),
}


@pytest.mark.filterwarnings("ignore:::PIL")
@settings(max_examples=600, deadline=None, derandomize=True)
@given(
    form=st.sampled_from(sorted(FILES)),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=5),
    kept=st.floats(0, 1),
    whole=st.booleans(),
)
def test_damage_anywhere_gives_a_picture_or_a_named_reason(
    form: str, places: list[tuple[float, int]], kept: float, whole: bool
) -> None:
    content = bytearray(FILES[form])
    for place, value in places:
        content[int(place**2 * (len(content) - 1))] = value  # more of them in the header
    content = content if whole else content[: int(kept * len(content))]
    try:
        stored = store(bytes(content), "a", DRAWINGS)
    except PictureError as error:
        found = error.reason
    else:
        found = decode(stored.data, "stored").shape[:2]
        assert found == (stored.height, stored.width)
    assert isinstance(found, tuple) or found in PERCENT


# what is known about it


def test_the_pixel_hash_is_of_size_and_upright_rgb_pixels() -> None:
    for picture in (photograph(), photograph().convert("L")):
        expected = hashlib.sha256(b"120x90" + picture.convert("RGB").tobytes()).hexdigest()
        assert store(encoded(picture, "PNG"), "a", PHOTOGRAPHS).pixels == expected
        assert store(encoded(picture, "BMP"), "a", DRAWINGS).pixels == expected


def test_the_perceptual_hash_is_the_librarys_within_three_bits() -> None:
    distances = []
    for seed in range(20):
        picture = photograph(300, 500, seed)
        found = imagehash.hex_to_hash(store(encoded(picture, "PNG"), "a", PHOTOGRAPHS).phash)
        distances.append(found - imagehash.phash(picture))
    assert np.mean(distances) < 3  # of pure noise; photographs stay below one


def test_the_largest_picture_that_is_decoded_fits_into_a_worker() -> None:
    """Less than 1 GB for a hundred million pixels with alpha, in a process of its own."""
    program = """
import re, struct, zlib
from pathlib import Path
from tests.data_prep.test_media import PHOTOGRAPHS, png, store
row, packer = b"\\0" + bytes(range(250)) * 160, zlib.compressobj(1)
rows = b"".join([packer.compress(row) for _ in range(9_990)]) + packer.flush()
content = png(b"IHDR" + struct.pack(">IIBBBBB", 10_000, 9_990, 8, 6, 0, 0, 0), b"IDAT" + rows, b"IEND")
stored = store(content, "a", PHOTOGRAPHS)
assert stored.repaired == ("alpha_flattened", "shrunk", "format_changed"), stored.repaired
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 1e9


def test_the_limit_of_texts_is_pillows_own() -> None:
    assert PngImagePlugin.MAX_TEXT_CHUNK <= 2**20
