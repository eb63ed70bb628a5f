"""An open clip: where it begins and ends, and the frame that it shows at a moment; all that is known of libav is here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vlm.data.pictures import MAX_PIXELS, PictureError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FAR = 4.0  # seconds between two moments over which a file is sought; below that, decoding on is as fast
EARLIER = (1.0, 30.0)  # seconds before a moment that are sought: a key frame may be shown after its place in the file
GUESSED_RATE = 25.0  # frames a second of a stream that tells neither moments nor a rate
# Formats that name other files or addresses (hls, concat, dash) are not among them: a clip of strangers opens nothing.
FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,h264,hevc,m4v,flv,asf,ogg,ivf,gif,mp3,wav,flac,aac,rm,mxf,dv,vob,obu"
NO_CLIP = (ValueError, LookupError, ArithmeticError, EOFError, RuntimeError)  # of the bindings, on odd files


class ClipError(PictureError):
    """A clip that cannot be used: reason video_unreadable, video_short, media_huge or media_missing."""


class ClipFile:
    """A file that is open while it is a context.

    source: encoded bytes, a path, or a stream that can be sought.   damaged: packets and frames that did not decode.
    ended_at: seconds of its last frame, if `shown` came to it before the last moment that was asked for.
    Raises: ClipError with media_missing, video_unreadable (also for sound alone) or media_huge.
    """

    def __init__(self, source: bytes | os.PathLike[str] | str | BinaryIO, name: str) -> None:
        self.name, self.source = name, source
        self.damaged = 0
        self.ended_at: float | None = None
        self._owned = ExitStack()
        self._is_timeless = False  # no packet has a time stamp: moments are counted
        self._seeks, self._far = True, FAR
        self._packets = 0  # read since it was sought

    def __enter__(self) -> ClipFile:
        try:
            with self._told():
                self._stream_of_bytes = self._opened()
                self._open()
                self._measure()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if (container := getattr(self, "container", None)) is not None:
            container.close()
        self._owned.close()

    @property
    def form(self) -> str:
        """Of the container, as libav calls it."""
        return self.container.format.name

    @property
    def colours(self) -> str:
        """Of its pixels, as libav calls it."""
        return self.stream.codec_context.pix_fmt or "unknown"

    def shown(self, wanted: Sequence[float]) -> Iterator[tuple[VideoFrame, float]]:
        """The frame on the screen at each moment (seconds, rising) and since when; of a frame at several moments once.

        Where the first frame comes after the first moment, it stands for it. Raises: ClipError.
        """
        self.ended_at = None
        with self._told():
            if not self._is_fresh:
                self._open()
            frames, before, ahead = self._decoded(), None, None
            last = float("-inf")
            for moment in wanted:
                position = (ahead or before or (None, self.span[0]))[1]
                if self._seeks and moment - position > self._far:
                    frames, before, ahead = self._sought(moment, position)
                while ahead is None or ahead[1] <= moment:
                    before = ahead or before
                    if (ahead := next(frames, None)) is None:
                        break
                found = before or ahead
                if ahead is None:  # the end; behind a seek perhaps not one frame is there
                    self.ended_at = found[1] if found else self._last_moment(last)
                if found is None:
                    return
                if found[1] > last:
                    yield found
                    last = found[1]
                if ahead is None:
                    return

    def pixels(self, frame: VideoFrame, longest: int | None = None, least: tuple[int, int] | None = None) -> np.ndarray:
        """A frame as uint8 [H, W, 3], upright. longest, least: as in `clips.decode_clip`."""
        with self._told():
            quarters = round(frame.rotation / 90) % 4
            height, width = frame.height, frame.width
            scale = 1.0 if longest is None else longest / max(height, width)
            if least is not None:
                rows, columns = least if quarters % 2 == 0 else least[::-1]
                scale = min(scale, max(2 * rows / height, 2 * columns / width))
            size = {}
            if scale < 1:
                size = {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}
            small = frame.reformat(**size, format="rgb24", interpolation="BICUBIC")
            return np.ascontiguousarray(np.rot90(small.to_ndarray(), quarters))

    def count(self) -> tuple[int, float, float]:
        """Frames, and the seconds of the first and the last from the beginning, read from all packets of the file."""
        with self._told():
            self._open()
            number, stamps = self._scan()
            if number and stamps is None:
                return number, 0.0, (number - 1) / self._rate
            first, last = stamps or (0.0, 0.0)
            return number, first - self.span[0], last - self.span[0]

    def _opened(self) -> BinaryIO:
        if isinstance(self.source, bytes):
            return BytesIO(self.source)
        if not isinstance(self.source, str | os.PathLike):
            return self.source
        try:
            return self._owned.enter_context(Path(self.source).open("rb"))  # libav would take names for addresses
        except (OSError, ValueError) as error:
            told = getattr(error, "strerror", None) or error
            raise ClipError("media_missing", f"{self.name} cannot be read: {told}") from error

    def _open(self) -> None:
        """From the beginning, whatever was done with it before."""
        import av
        from av.stream import Disposition

        if (container := getattr(self, "container", None)) is not None:
            container.close()
        self._stream_of_bytes.seek(0)
        options = {"format_whitelist": FORMATS, "protocol_whitelist": ""}
        self.container: InputContainer = av.open(
            self._stream_of_bytes, "r", options=options, metadata_errors="replace", buffer_size=1 << 18
        )
        shown = [one for one in self.container.streams.video if not one.disposition & Disposition.attached_pic]
        if not shown:
            kinds = ", ".join(sorted({one.type for one in self.container.streams})) or "nothing"
            raise ClipError("video_unreadable", f"{self.name} holds no moving picture, only {kinds}")
        self.stream: VideoStream = shown[0]
        if self.stream.codec_context is None:
            raise ClipError("video_unreadable", f"{self.name}: no decoder knows its pictures")
        self.stream.thread_type, self.stream.codec_context.thread_count = "NONE", 1  # processes are what is many here
        size = self.stream.codec_context.width * self.stream.codec_context.height
        if size > MAX_PIXELS:
            raise ClipError("media_huge", f"{self.name}: frames of {size:,} pixels; the limit is {MAX_PIXELS:,}")
        self._is_fresh = True  # nothing has been read behind its head

    def _measure(self) -> None:
        """span: seconds at which it begins and ends by its own word; of a file that does not tell, all packets do."""
        stream, base = self.stream, float(self.stream.time_base or 0)
        rates = (stream.average_rate, stream.guessed_rate)
        self.fps = next((float(rate) for rate in rates if rate is not None and rate > 0), None)
        begin = 0.0 if stream.start_time is None else stream.start_time * base
        length = stream.duration * base if stream.duration else (self.container.duration or 0) / 1e6
        if length <= 0:
            number, stamps = self._scan()
            self._is_timeless = stamps is None
            if stamps is None and stream.guessed_rate:
                self.fps = float(stream.guessed_rate)
            begin, last = (0.0, (number - 1) / self._rate) if stamps is None else stamps
            length = last - begin + 1 / self._rate
        self._seeks = not self._is_timeless
        self.span = (begin, begin + max(0.0, length))

    @property
    def _rate(self) -> float:
        return self.fps or GUESSED_RATE

    def _scan(self, begin: float | None = None) -> tuple[int, tuple[float, float] | None]:
        """Packets from here on, and the first and last of their moments, None if they have none. Nothing is decoded."""
        import av

        self._is_fresh = False
        base, number, first, last = float(self.stream.time_base or 0), 0, float("inf"), float("-inf")
        try:
            for packet in self.container.demux(self.stream):
                if packet.size:
                    number += 1
                    stamp = packet.pts if packet.pts is not None else packet.dts
                    if stamp is not None:
                        first, last = min(first, stamp * base), max(last, stamp * base)
        except av.FFmpegError:
            self.damaged += 1  # cut short: what came before is there
        return number, (first, last) if last >= first else None

    def _sought(self, moment: float, position: float) -> tuple[Iterator[Any], Any, Any]:
        """Decoding on from a key frame before the moment: the frames to come, and the first of them."""
        import av

        for earlier in EARLIER:
            try:
                offset = int((moment - earlier) / float(self.stream.time_base or 1))
                self.container.seek(offset, backward=True, any_frame=False, stream=self.stream)
            except av.FFmpegError:
                break
            frames, self._packets = self._decoded(), 0
            first = next(frames, None)
            if first is None and not self._packets:
                return frames, None, None  # the end
            if first is not None and first[1] <= moment:
                if first[1] <= position:  # key frames are rarer than moments: not so soon again
                    self._far = max(self._far, 2 * (moment - first[1]))
                return frames, None, first
        self._seeks = False  # it comes out behind the moment, or at no key frame: decoding all of it is slow, and right
        self._open()
        return self._decoded(), None, None

    def _decoded(self) -> Iterator[tuple[VideoFrame, float]]:
        """Whole frames from where the container stands, in the order of showing; what is damaged is counted."""
        import av

        self._is_fresh = False
        packets, at, is_open, number = self.container.demux(self.stream), None, True, 0
        while is_open:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self.damaged += 1
                packet = None
            is_open = packet is not None
            self._packets += packet is not None and packet.size > 0
            try:
                frames = self.stream.decode(packet)
            except av.EOFError:
                return  # flushed before
            except av.FFmpegError:
                self.damaged += 1
                continue
            for frame in frames:
                if self._is_timeless or frame.time is None:
                    at = number / self._rate if at is None or self._is_timeless else at + 1 / self._rate
                else:
                    at = float(frame.time)
                number += 1
                if frame.is_corrupt:
                    self.damaged += 1
                else:
                    yield frame, at

    def _last_moment(self, since: float) -> float:
        """Of a file that ends before it says: by its packets behind the last frame that was shown."""
        begin = max(since, self.span[0])
        self._open()
        self.container.seek(int(begin / float(self.stream.time_base or 1)), backward=True, stream=self.stream)
        _, stamps = self._scan()
        return max(begin, stamps[1]) if stamps else begin

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever libav and its bindings raise becomes a ClipError that names the clip."""
        import av

        try:
            yield
        except PictureError:
            raise
        except av.FFmpegError as error:
            raise ClipError("video_unreadable", f"{self.name}: {error.strerror or error}") from error
        except NO_CLIP as error:
            raise ClipError("video_unreadable", f"{self.name}: {type(error).__name__}: {error}") from error
