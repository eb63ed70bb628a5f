"""Files inside of zips and tars, read where they lie; an archive may be cut into several files."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from data_prep.rows import Unfit
from vlm.contracts.errors import InputError

LOCAL_HEADER = 30  # bytes before a zip member's name; the last four are the lengths of name and extra field
BLOCK = 1 << 20  # bytes that are read at a time
IN_MEMORY = 64 * BLOCK  # of an inflated file; more of it goes to a temporary one
PACKED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x9d": "compress",
}  # fmt: skip
Place = tuple[int, int, int, int, bool]  # at, stored, size, crc and deflated of a Member


@dataclass(frozen=True)
class Member:
    """A file inside an archive. at: of its data, in a zip of the header before it.   stored: bytes there.

    size: bytes once inflated.   crc: None = the archive (a tar) has none.   deflated: or stored as it is.
    also: the further files of an archive that was cut into several, in order.
    """

    archive: str
    name: str
    at: int
    stored: int
    size: int
    crc: int | None
    deflated: bool
    also: tuple[str, ...] = ()

    def read(self) -> bytes:
        """Raises: Unfit("media_truncated" | "media_missing")."""
        with self._told(), Joined((self.archive, *self.also)) as archive:
            data = archive.at(self._begin(archive), self.stored)
            if self.deflated:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
        self._check(len(data), zlib.crc32(data))
        return data

    def open(self) -> BinaryIO:
        """In place if it is stored as it is, else inflated into a temporary file. Raises: as `read`."""
        with self._told():
            archive = Joined((self.archive, *self.also))
            window = Window(archive, self._begin(archive), self.stored)
            stream = cast(BinaryIO, window if not self.deflated else SpooledTemporaryFile(IN_MEMORY))  # noqa: SIM115
            inflate, crc, size = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
            while block := window.read(BLOCK):
                if self.deflated:
                    block = inflate.decompress(block)
                    stream.write(block)
                crc, size = zlib.crc32(block, crc), size + len(block)
        self._check(size, crc)
        stream.seek(0)
        return stream

    def _check(self, size: int, crc: int) -> None:
        if size != self.size:
            raise Unfit("media_truncated", f"{self._where} has {size} of its {self.size} bytes")
        if self.crc is not None and crc != self.crc:
            raise Unfit("media_truncated", f"{self._where} is damaged: its checksum differs")

    @property
    def _where(self) -> str:
        return f"in {Path(self.archive).name}"

    def _begin(self, archive: Joined) -> int:
        if self.crc is None:
            return self.at
        lengths = archive.at(self.at, LOCAL_HEADER)[-4:]
        return self.at + LOCAL_HEADER + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")

    def _told(self) -> _Told:
        return _Told(self._where)


class _Told:
    """What reading raises becomes the reason of a skip."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise Unfit("media_missing", f"{self.where} cannot be read: {error.strerror or error}") from error
        if isinstance(error, zlib.error):
            raise Unfit("media_truncated", f"{self.where} cannot be inflated: {error}") from error


class Joined(io.RawIOBase):
    """Several files read as one, in their order. Raises: OSError for one that is not there."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self._files = [open(path, "rb", buffering=0) for path in paths]  # noqa: SIM115 - closed in close()
        self._begins = [0]
        for file in self._files:
            self._begins.append(self._begins[-1] + os.fstat(file.fileno()).st_size)
        self._place = 0

    def at(self, place: int, size: int) -> bytes:
        """Bytes from a place on; fewer than `size` at the end."""
        found = []
        for file, begin, end in zip(self._files, self._begins, self._begins[1:], strict=False):
            if size > 0 and begin <= place < end:
                data = os.pread(file.fileno(), min(size, end - place), place - begin)
                found.append(data)
                place, size = place + len(data), size - len(data)
        return found[0] if len(found) == 1 else b"".join(found)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._begins[-1]}[whence]
        self._place = max(0, origin + offset)
        return self._place

    def readinto(self, buffer) -> int:  # type: ignore[override]  # of any writable buffer
        data = self.at(self._place, len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        for file in getattr(self, "_files", ()):
            file.close()
        super().close()


class Window(io.RawIOBase):
    """A stretch of a joined file as a file of its own; closing it closes what it is a part of."""

    def __init__(self, whole: Joined, begin: int, size: int) -> None:
        self._whole, self._begin, self._size, self._place = whole, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, origin + offset)
        return self._place

    def readinto(self, buffer) -> int:  # type: ignore[override]  # of any writable buffer
        data = self._whole.at(self._begin + self._place, max(0, min(len(buffer), self._size - self._place)))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._whole.close()
        super().close()


def zip_members(paths: Sequence[Path]) -> Iterator[tuple[str, Place]]:
    """Name and place of each file in a zip, which may be cut into several. Raises: InputError."""
    path = paths[0]
    try:
        with io.BufferedReader(Joined(paths)) as stream, zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        cut = f" (with {len(paths) - 1} further parts; are all there?)" if len(paths) > 1 else ""
        raise InputError(f"{path}{cut} is not a complete zip archive ({error}); get it again") from error
    for info in members:
        if stat.S_ISLNK(info.external_attr >> 16):
            raise InputError(f"{path} holds {info.filename!r}, a link; get the published archive again")
        if info.is_dir():
            continue
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            how = "encrypted" if info.flag_bits & 1 else f"compressed by method {info.compress_type}"
            raise InputError(f"{path}: {info.filename!r} is {how}, which cannot be read in place; unpack it")
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        yield info.filename, (info.header_offset, info.compress_size, info.file_size, info.CRC, deflated)


def tar_members(path: Path) -> Iterator[tuple[str, Place]]:
    """The same of an uncompressed tar. Raises: InputError."""
    packed = packed_by(path)
    if packed:
        raise InputError(f"{path} is compressed ({packed}): its members cannot be read one by one; unpack it")
    try:
        with tarfile.open(path, "r:") as archive, path.open("rb") as stream:
            while (info := archive.next()) is not None:
                vars(archive)["members"] = []  # else all headers stay in memory
                if info.issym() or info.islnk():
                    raise InputError(f"{path} holds {info.name!r}, a link; get the published archive again")
                if info.isreg() and not info.issparse():
                    yield info.name, (info.offset_data, info.size, info.size, 0, False)
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise InputError(f"{path} has no mark at its end: it is cut short; get it again")
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{path} is not a complete zip or tar archive ({error}); get it again") from error


def packed_by(path: Path) -> str | None:
    """What a file is compressed with, None if it is not."""
    with path.open("rb") as stream:
        begin = stream.read(6)
    return next((name for mark, name in PACKED.items() if begin.startswith(mark)), None)
