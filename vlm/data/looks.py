"""What a picture looks like, small enough to compare with a hundred thousand others: a thumbnail and 64 bits."""

from __future__ import annotations

import hashlib

import imagehash
import numpy as np
from PIL import Image

SIDE = 32  # of a thumbnail: what the perceptual hash takes its 8x8 lowest cosine terms from
ROWS = 96  # a taller picture gives every n-th of its rows, at least so many: half the time, 0.2 bits of the hash
BITS = 4  # of 64: perceptual hashes this near make a candidate
LEVELS = 6  # of 255: mean difference of the thumbnails that confirms it; plain diagrams and X-rays share hashes


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """pixels: uint8 [H, W] or [H, W, 3]. Returns: grey uint8 [32, 32], the whole picture whatever its shape."""
    sampled = Image.fromarray(pixels[:: max(1, pixels.shape[0] // ROWS)]).convert("L")
    return np.asarray(sampled.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0))


def perceptual_hash(thumb: np.ndarray) -> str:
    """64 bits, hexadecimal, of a thumbnail [32, 32]: nearly equal pictures differ in few of them."""
    return np.packbits(imagehash.phash(Image.fromarray(thumb)).hash).tobytes().hex()  # as the library's str(), faster


def mirrored(thumb: np.ndarray) -> np.ndarray:
    """The thumbnail of the picture with left and right exchanged."""
    return np.ascontiguousarray(thumb[:, ::-1])


def difference(thumbs: np.ndarray, thumb: np.ndarray) -> np.ndarray:
    """Mean levels of 255 that separate thumbnails uint8 [..., 32, 32] from one [32, 32]. Returns: [...]."""
    return np.abs(thumbs.astype(np.int16) - thumb).mean((-2, -1))


def pixel_digest(pixels: np.ndarray) -> str:
    """sha256 of size and RGB pixels, hexadecimal; grey [H, W] counts as RGB, so that equal pictures are equal."""
    height, width = pixels.shape[:2]
    rgb = np.repeat(pixels[..., None], 3, -1) if pixels.ndim == 2 else pixels
    digest = hashlib.sha256(f"{width}x{height}".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()
