"""Pictures that carry a colour profile of their own, into sRGB."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

SAME = 3  # of 255: profiles that move no colour further are sRGB under one of its many names
SPACE = slice(16, 20)  # where a profile says which colours it describes
MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}


def to_srgb(pixels: np.ndarray, header: Image.Image, profile: bytes) -> tuple[np.ndarray, list[str]]:
    """The pixels as sRGB, and how: nothing to do, "profile_converted", or "profile_ignored" if it cannot be used.

    pixels: as `decode` gives them, uint8 [H, W] or [H, W, 3].   header: of the same file, its pixels not read yet.
    profile: ICC, as embedded. Raises: as Pillow, where a CMYK picture cannot be decoded.
    """
    try:
        space, transform = _transform(profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
        return pixels, ["profile_ignored"]
    if (space == "CMYK") != (header.mode == "CMYK") or (space == "L" and pixels.ndim == 3):
        return pixels, ["profile_ignored"]  # a profile of another kind of picture
    if transform is None:
        return pixels, []
    if space == "CMYK":
        picture = ImageOps.exif_transpose(header.reduce(round(max(header.size) / max(pixels.shape))))
    else:
        picture = Image.fromarray(pixels).convert(space)
    converted = ImageCms.applyTransform(picture, transform)
    assert converted is not None, "only a conversion in place gives nothing back"
    return np.array(converted.convert("L") if pixels.ndim == 2 else converted), ["profile_converted"]


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode that a profile describes, and the way from it to sRGB; None if it is sRGB already."""
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    mode = MODES[profile[SPACE]]
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return mode, transform
    probe = _colours(mode)
    moved = ImageCms.applyTransform(probe, transform)
    assert moved is not None, "only a conversion in place gives nothing back"
    distance = np.abs(np.asarray(moved, dtype=int) - np.asarray(probe.convert("RGB"), dtype=int)).max()
    return mode, None if distance <= SAME else transform


def _colours(mode: str) -> Image.Image:
    """Colours from all over the space."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
    return Image.fromarray(grid).convert(mode)
