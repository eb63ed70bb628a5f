"""What a converter yields: rows in the source's own words, before pictures are opened and keys are given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from PIL import Image

from data_prep.reading.archive import listing, sha256_of
from vlm.data.canonical import Answer, MediumPart, Message, Origin, TextPart

LARGEST_FILE = 256_000_000  # bytes of a picture; more is none


class Unread(Protocol):
    """Bytes that lie somewhere: small to send to another process, read where the picture is converted."""

    def read(self) -> bytes:
        """Raises: Unfit("media_missing" | "media_huge" | "media_truncated"); the picture is named by who asks."""
        ...


class Openable(Unread, Protocol):
    """The file of a clip, which may be too large to be read at once."""

    def open(self) -> BinaryIO:
        """The same bytes as a stream that can be sought, however many they are. Raises: as `read`."""
        ...


@dataclass(frozen=True)
class FileAt:
    """A file of its own."""

    path: Path

    def read(self) -> bytes:
        try:
            size = self.path.stat().st_size
            if size > LARGEST_FILE:
                raise Unfit("media_huge", f"{size:,} bytes; the limit is {LARGEST_FILE:,}")
            return self.path.read_bytes()
        except (OSError, ValueError) as error:  # a name that no file can have is an error of either kind
            raise _missing(error) from error

    def open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except (OSError, ValueError) as error:
            raise _missing(error) from error


def _missing(error: Exception) -> Unfit:
    return Unfit("media_missing", f"cannot be read: {getattr(error, 'strerror', None) or error}")


@dataclass(frozen=True)
class Picture:
    """A picture as the source holds it.

    content: encoded bytes, where they lie, or pixels that were never a file (an IDX array).   name: path in the source.
    """

    content: bytes | Unread | Image.Image
    name: str


@dataclass(frozen=True)
class Frames:
    """A clip that the source holds as pictures. seconds: of each, rising.   fps: of the clip itself, None if unknown."""

    frames: tuple[Picture, ...]
    seconds: tuple[float, ...]
    fps: float | None = None


@dataclass(frozen=True)
class Clip:
    """A clip as the source holds it: one medium.

    content: the bytes of its file, where they lie, or its frames.   name: path in the source.
    """

    content: bytes | Openable | Frames
    name: str


class Unfit(Exception):
    """A source row that cannot become a sample: the reason and detail of its Skip."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")

    def __reduce__(self) -> tuple[type[Unfit], tuple[str, str]]:
        return type(self), (self.reason, self.detail)  # crosses from workers to the writer


@dataclass(frozen=True)
class Row:
    """A source row that should become a sample. pictures: its media in order, clips among them.

    split: None = decided by hashes of its pictures (`holdout` in the source's settings).
    Exactly the fields of one kind are set: caption; messages; or messages, chosen and rejected.
    merged: further source rows that this one took in.   repaired: names of what the converter mended.
    is_piece: whether an earlier Row stands for the source row, which was cut because it is too long for one sample.
    """

    split: str | None
    origin: Origin
    pictures: tuple[Picture | Clip, ...]
    license: str
    caption: str | None = None
    messages: list[Message] | None = None
    chosen: list[Message] | None = None
    rejected: list[Message] | None = None
    answer: Answer | None = None
    meta: dict[str, Any] | None = None
    merged: int = 0
    repaired: tuple[str, ...] = ()
    is_piece: bool = False

    def texts(self) -> Iterator[str]:
        """All that is said in it."""
        if self.caption is not None:
            yield self.caption
        yield from (self.meta or {}).get("captions", ())
        for message in (*(self.messages or ()), *(self.chosen or ()), *(self.rejected or ())):
            yield message.text


@dataclass(frozen=True)
class Skip:
    """A source row that cannot become a sample.

    reason: a name from `budget.PERCENT`.   rows: how many rows of the source it stands for.   is_piece: as in Row.
    by: of an evaluation overlap, which set's pictures and how it was found.
    """

    split: str | None
    origin: Origin
    reason: str
    detail: str
    rows: int = 1
    by: str = ""
    is_piece: bool = False


@dataclass(frozen=True)
class SourceFile:
    """An input, for the manifest. file: its name, of a folder with "/" behind it.   bytes: of all that is in it.

    package: "client name version", or "" for the user's own.
    """

    file: str
    bytes: int
    sha256: str
    package: str = ""


@dataclass(frozen=True)
class Inputs:
    """Where a converter reads.

    places: name of a package (or "from") -> archive or folder.   files: what was read, for the manifest.
    scratch: the set's own folder in the cache, for files that are fetched or made on the way; it may not exist yet.
    dry: a dry run: nothing may be fetched, written or read to its end, the first rows are enough.
    package: where the folder "from" was published, as SourceFile has it.
    limit: only so many rows of each split will be taken; a converter that fetches rows need not fetch more.
    out: where the output goes; it is no input, should it lie among them.
    """

    places: dict[str, Path]
    files: list[SourceFile] = field(default_factory=list)
    scratch: Path = Path()
    dry: bool = False
    package: str = ""
    out: Path | None = None
    limit: int | None = None

    def only(self) -> Path:
        """The one place of a set that needs one."""
        (place,) = self.places.values()
        return place

    def note(self, path: Path) -> Path:
        """The same path, written into the manifest as an input: a file, or a folder by the names and sizes in it.

        Packages are noted when they are fetched.
        """
        folder = self.places.get("from")
        if folder is not None:
            inside = path.is_relative_to(folder)  # pictures may lie elsewhere
            name = (path.relative_to(folder) if inside else path.resolve()).as_posix()
            if path.is_dir():
                name, (size, digest) = f"{name}/", (0, "") if self.dry else listing(path, self.out)
            else:
                size, digest = path.stat().st_size, "" if self.dry else sha256_of(path)
            noted = SourceFile(name, size, digest, self.package if inside else "")
            if noted not in self.files:
                self.files.append(noted)
        return path


class Converter(Protocol):
    """A set's own step: its files -> rows. Built from the `reader` node of conf/source/<set>.yaml.

    The same files must give the same rows in the same order: interrupted preparations and parts rely on it.
    """

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Every source row once, in the source's order; InputError for a file that is not what its page says."""
        ...

    def total(self, inputs: Inputs) -> int | None:
        """Number of rows that `rows` will give, for the progress bar; None if unknown."""
        ...


def question(text: str, pictures: int = 1) -> Message:
    """A user turn that shows the first `pictures` pictures, then asks; empty text adds no part."""
    return _question(text, [MediumPart("image", i) for i in range(pictures)])


def question_of_clip(text: str, shown: bool = True) -> Message:
    """The same about one clip. shown: False for a later question about it."""
    return _question(text, [MediumPart("video", 0)] if shown else [])


def _question(text: str, shown: list[TextPart | MediumPart]) -> Message:
    return Message("user", [*shown, TextPart("text", text)] if text else shown)


def reply(text: str) -> Message:
    return Message("assistant", [TextPart("text", text)])
