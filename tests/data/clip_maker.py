"""Clips made on the spot, whose every frame shows its own number in black and white blocks."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np

BITS, ROWS, COLUMNS = 20, 4, 5
SIZE = (80, 64)  # width, height


def marked(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 [H, W, 3]: the number in blocks, the lowest bit in the upper left corner."""
    bits = np.array([255 * (number >> bit & 1) for bit in range(BITS)], np.uint8).reshape(ROWS, COLUMNS)
    block = (size[1] // ROWS, size[0] // COLUMNS)
    return np.repeat(np.kron(bits, np.ones(block, np.uint8))[..., None], 3, -1)


def number_of(pixels: np.ndarray) -> int:
    height, width = pixels.shape[0] // ROWS, pixels.shape[1] // COLUMNS
    middles = pixels[height // 2 :: height, width // 2 :: width][:ROWS, :COLUMNS, 0].reshape(-1)
    return int(sum(1 << bit for bit, level in enumerate(middles) if level > 127))


def clip(
    frames: int | Iterable[np.ndarray],
    rate: int | Fraction = 10,
    form: str = "mp4",
    *,
    codec: str = "libx264",
    key_every: int = 12,
    stamps: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    path: Path | None = None,
    sound: int = 0,
    faststart: bool = True,
) -> bytes:
    """The file. frames: marked ones, or these.   stamps: of each frame, in 1/rate seconds.   sound: seconds of tone.

    faststart: whether an MP4 begins with what the player needs, or ends with it.   path: where it goes instead.
    """
    if path is None:
        with TemporaryDirectory() as folder:
            home = Path(folder) / "clip"
            given: dict[str, Any] = {"codec": codec, "key_every": key_every, "stamps": stamps, "options": options}
            clip(frames, rate, form, **given, path=home, sound=sound, faststart=faststart)
            return home.read_bytes()
    options = ({"movflags": "faststart"} if form == "mp4" and faststart else {}) | (options or {})
    with av.open(str(path), "w", format=form, options=options) as container:
        pictures: Iterable[np.ndarray] = (marked(n) for n in range(frames)) if isinstance(frames, int) else frames
        stream: Any = None
        tone: Any = container.add_stream("aac" if form == "mp4" else "mp2", rate=16000) if sound else None
        for number, pixels in enumerate(pictures):
            if stream is None:
                stream = container.add_stream(codec, rate=rate)
                stream.width, stream.height, stream.pix_fmt = pixels.shape[1], pixels.shape[0], "yuv420p"
                stream.gop_size = key_every
                if codec == "libx264":
                    stream.options = {"preset": "ultrafast", "crf": "20"}
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number if stamps is None else stamps[number]
            frame.time_base = 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
        if tone is not None:
            silence = np.zeros((1, 16000 * sound), np.int16)
            heard = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
            heard.rate = 16000
            container.mux(tone.encode(heard))
            container.mux(tone.encode())
    return b""


def turned(data: bytes, quarters: int) -> bytes:
    """An MP4 file whose display matrix asks for quarter turns clockwise, as a telephone writes it."""
    one = 1 << 16
    matrix = {1: (0, one, 0, -one, 0), 2: (-one, 0, 0, 0, -one), 3: (0, -one, 0, one, 0)}[quarters]
    packed = struct.pack(">5i", *matrix)
    at = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    return data[:at] + packed + data[at + len(packed) :]


class OneWay:
    """A target that cannot be sought, so that a container has neither a length nor an index."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def live(frames: int, form: str = "matroska", rate: int = 10) -> bytes:
    """As a broadcast is written: no duration, no frame count, no index."""
    target = OneWay()
    with av.open(target, "w", format=form, options={"live": "1"} if form == "matroska" else {}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", 12
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(marked(number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return bytes(target.data)
