"""Published files, read where they lie: a folder, a wheel or zip, an npm or other tar, a Debian package."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from vlm.contracts.errors import InputError

Wanted = Callable[[str], bool]


@dataclass(frozen=True)
class Found:
    """A file in an archive. name: path with "/", without a leading "./".   link: target if it is a symbolic link."""

    name: str
    data: bytes
    link: str = ""


def files(place: Path, under: str, endings: tuple[str, ...]) -> list[Found]:
    """All files below `under` whose names end so, sorted by name: the same list whatever the packaging.

    Nothing is unpacked to disk. Raises: InputError if the place cannot be read as what its name says.
    """
    opened = sorted(_members(place, under, endings), key=lambda found: found.name)
    if not opened:
        raise InputError(f"{place} has no files {'/'.join(endings)} under '{under}'; is it the published package?")
    return opened


def listing(folder: Path, without: Path | None = None) -> tuple[int, str]:
    """Bytes of all files below a folder, hidden ones aside, and a sha256 of their names and sizes.

    without: a folder that is left out, where the output lies among the input. Raises: OSError for one that is closed.
    """

    def refuse(error: OSError) -> None:
        raise error

    digest, total, left_out = hashlib.sha256(), 0, without.resolve() if without else None
    for home, inside, names in os.walk(folder, onerror=refuse):
        inside[:] = sorted(
            name for name in inside if not name.startswith(".") and Path(home, name).resolve() != left_out
        )
        for path in (Path(home, name) for name in sorted(names) if not name.startswith(".")):
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode("utf-8", "surrogateescape"))
            total += size
    return total, digest.hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _members(place: Path, under: str, endings: tuple[str, ...]) -> Iterator[Found]:
    def wanted(name: str) -> bool:
        return name.startswith(under) and name.endswith(endings)

    if place.is_dir():
        yield from _folder(place, wanted)
    elif place.suffix in (".whl", ".zip"):
        yield from _zip(place, wanted)
    elif place.suffix == ".deb":
        yield from _debian(place, wanted)
    else:
        with place.open("rb") as stream:
            yield from _tar(stream, place, wanted)


def _folder(place: Path, wanted: Wanted) -> Iterator[Found]:
    for path in place.rglob("*"):
        name = PurePosixPath(path.relative_to(place)).as_posix()
        if wanted(name) and path.is_symlink():
            yield Found(name, b"", str(path.readlink()))
        elif wanted(name) and path.is_file():
            yield Found(name, path.read_bytes())


def _zip(place: Path, wanted: Wanted) -> Iterator[Found]:
    try:
        with zipfile.ZipFile(place) as archive:
            for name in archive.namelist():
                if wanted(name):
                    yield Found(name, archive.read(name))
    except zipfile.BadZipFile as error:
        raise InputError(f"{place} is not a complete zip archive ({error}); remove it and run again") from error


def _tar(stream: IO[bytes], place: Path, wanted: Wanted) -> Iterator[Found]:
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if wanted(name) and (member.issym() or member.islnk()):
                    yield Found(name, b"", member.linkname)
                elif wanted(name) and (content := archive.extractfile(member)) is not None:
                    yield Found(name, content.read())
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{place} is not a complete archive ({error}); remove it and run again") from error


def _debian(place: Path, wanted: Wanted) -> Iterator[Found]:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", place], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield from _tar(process.stdout, place, wanted)
        process.stdout.read()  # padding after the last member
    if process.returncode:
        raise InputError(f"dpkg-deb cannot read {place} (exit code {process.returncode}); remove it and run again")
