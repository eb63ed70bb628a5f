"""Pictures small enough for a page."""

from __future__ import annotations

from PIL import Image

from vlm.data.pictures import open_picture

THUMBNAIL = 160  # longer side, pixels


def thumbnail(data: bytes, name: str) -> Image.Image:
    """The picture with its longer side at most THUMBNAIL. Raises: InputError, naming `name`, if it cannot be decoded."""
    picture = open_picture(data, name)
    if max(picture.size) < THUMBNAIL // 2:  # a digit of 28 pixels is shown larger, its pixels kept sharp
        factor = THUMBNAIL // (2 * max(picture.size)) + 1
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return picture
