"""Where a set's pictures lie: in a folder, a zip or an uncompressed tar, read in place."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from data_prep.rows import LARGEST_FILE, FileAt, Inputs, Unfit, Unread
from vlm.contracts.errors import InputError

FIRST, SHARE = 1000, 0.95  # of the first so many names that are asked for, this share must be there
LOCAL_HEADER = 30  # bytes before a zip member's name; the last four are the lengths of name and extra field
PACKED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x9d": "compress",
}  # fmt: skip
ENDINGS = (".gz", ".tgz", ".bz2", ".xz", ".zst")  # of compressed tars, for messages


@dataclass(frozen=True)
class Member:
    """Bytes of a picture inside an archive. at: of its data, in a zip of the header before it.   stored: bytes there.

    size: bytes once inflated.   crc: None = the archive (a tar) has none.   deflated: or stored as it is.
    """

    archive: str
    name: str
    at: int
    stored: int
    size: int
    crc: int | None
    deflated: bool

    def read(self) -> bytes:
        """Raises: Unfit("media_truncated" | "media_missing")."""
        try:
            data = self._stored()
            if self.deflated:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
        except OSError as error:
            raise Unfit("media_missing", f"{self._told} cannot be read: {error.strerror or error}") from error
        except zlib.error as error:
            raise Unfit("media_truncated", f"{self._told} cannot be inflated: {error}") from error
        if len(data) != self.size:
            raise Unfit("media_truncated", f"{self._told} has {len(data)} of its {self.size} bytes")
        if self.crc is not None and zlib.crc32(data) != self.crc:
            raise Unfit("media_truncated", f"{self._told} is damaged: its checksum differs")
        return data

    @property
    def _told(self) -> str:
        return f"in {Path(self.archive).name}"

    def _stored(self) -> bytes:
        with open(self.archive, "rb", buffering=0) as stream:
            file, at = stream.fileno(), self.at
            if self.crc is not None:
                lengths = os.pread(file, LOCAL_HEADER, at)[-4:]
                at += LOCAL_HEADER + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            return os.pread(file, self.stored, at)


class Pictures:
    """The pictures of a set, asked for by their names in its files."""

    def __init__(
        self,
        inputs: Inputs,
        names: Sequence[str],
        remedy: str,
        *,
        home: Path | None = None,
        strips_slash: bool = False,
    ) -> None:
        """The first of `names` that is there.

        names: folders, zips or tars below `home`, "." = home itself.   home: None = the set's one place.
        remedy: what to do where there is none.   strips_slash: names that begin with "/" are meant from the root.
        Raises: InputError for no such place, a damaged or compressed archive, or one that reaches out of itself.
        """
        self._home = inputs.only() if home is None else home
        self._remedy, self._strips_slash = remedy, strips_slash
        self.root = _first(self._home, names, remedy)
        self._archive = None if self.root.is_dir() else _Archive(self.root)
        inputs.note(self.root)
        self._asked = 0
        self._missing: list[str] = []

    def at(self, name: str, where: str) -> Unread:
        """Where the picture's bytes lie.

        name: with "/" between folders, exactly as the set's file spells it.   where: file and row, for errors.
        Raises: Unfit("media_missing" | "media_huge"), InputError for a name that leaves the root, and where under
        95 percent of the first 1,000 names are there.
        """
        inside = name.lstrip("/") if self._strips_slash else name
        if name.startswith(("http://", "https://")):
            raise InputError(f"{where}: {name[:80]} is an address; fetch the picture and give its path in {self.root}")
        if PurePosixPath(inside).is_absolute() or ".." in PurePosixPath(inside).parts:
            raise InputError(
                f"{where}: {name[:80]} leaves the folder of the pictures, {self.root}; give paths inside it"
            )
        found = self._archive.find(inside) if self._archive else self._file(inside)
        self._count(name, found is not None)
        if found is None:
            raise Unfit("media_missing", f"{name} is not in {self.root.name}")
        return found

    def _file(self, name: str) -> FileAt | None:
        path = self.root / name
        # Later ones are looked for where they are read: asking the disk twice for millions of files takes long.
        return None if self._asked < FIRST and not os.path.isfile(path) else FileAt(path)

    def _count(self, name: str, there: bool) -> None:
        if self._asked >= FIRST:
            return
        self._asked += 1
        if not there:
            self._missing.append(name)
        if self._asked == FIRST and len(self._missing) > (1 - SHARE) * FIRST:
            raise InputError(
                f"{self.root} has only {FIRST - len(self._missing)} of the first {FIRST} pictures that the set names; "
                f"missing, for example: {', '.join(self._missing[:3])}. Is it the right root, and whole? {self._remedy}"
            )


class _Archive:
    """name -> Member, in about 200 bytes a member."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._zip = zipfile.is_zipfile(path)
        members = _zip_members(path) if self._zip else _tar_members(path)
        self._row: dict[str, int] = {}
        rows = np.fromiter(self._named(members), [("at", "u8"), ("stored", "u8"), ("size", "u8"), ("crc", "u4"),
                                                  ("deflated", "?")])  # fmt: skip
        self._rows = rows
        # An archive made of a whole folder repeats the folder's name: train2017.zip holds train2017/1.jpg.
        self._tops = ("", f"{path.name.removesuffix(path.suffix)}/")

    def find(self, name: str) -> Member | None:
        """Raises: Unfit("media_huge")."""
        row = next((self._row[top + name] for top in self._tops if top + name in self._row), None)
        if row is None:
            return None
        at, stored, size, crc, deflated = self._rows[row].tolist()
        if max(stored, size) > LARGEST_FILE:
            raise Unfit(
                "media_huge", f"{name} in {Path(self._path).name} has {size} bytes; at most {LARGEST_FILE} are read"
            )
        return Member(self._path, name, at, stored, size, crc if self._zip else None, deflated)

    def _named(self, members: Iterator[tuple[str, tuple[int, ...]]]) -> Iterator[tuple[int, ...]]:
        for number, (name, where) in enumerate(members):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise InputError(f"{self._path} holds {name!r}, which leads out of it; get the published archive again")
            self._row[name.removeprefix("./")] = number  # of two with one name the later one counts, as in unpacking
            yield where


def _zip_members(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise InputError(f"{path} is not a complete zip archive ({error}); get it again") from error
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


def _tar_members(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    with path.open("rb") as stream:
        begin = stream.read(6)
    packed = next((name for mark, name in PACKED.items() if begin.startswith(mark)), None)
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


def _first(home: Path, names: Sequence[str], remedy: str) -> Path:
    for name in names:
        path = home / name
        if path.is_dir() or path.is_file():
            return path
    for path in sorted(home.glob("*")):
        if path.name.endswith(ENDINGS) and path.name.split(".")[0] in {Path(name).name.split(".")[0] for name in names}:
            raise InputError(f"{path} is compressed: its members cannot be read one by one; unpack it there")
    raise InputError(f"the pictures are not in {home}: looked for {', '.join(names)}. {remedy}")
