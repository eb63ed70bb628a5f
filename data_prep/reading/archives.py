"""Archives as tables from names to places: one of them, or the many parts of a large set, read in place."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from data_prep.reading.members import Joined, Member, Place, packed_by, tar_members, zip_members
from data_prep.rows import LARGEST_FILE, FileAt, Inputs, Unfit
from vlm.contracts.errors import InputError

SPLIT = re.compile(r"(?P<whole>.+)_part(?P<mark>[a-z]{2})")  # OpenVid_part102_partaa, _partab: bytes of one zip
ROWS = [("at", "u8"), ("stored", "u8"), ("size", "u8"), ("crc", "u4"), ("deflated", "?")]
Named = Callable[[str], str]


class Archive:
    """name -> Member, in about 200 bytes a member.

    paths: of one archive, several if it is cut.   named: what a member is asked for by, its path if it is left out.
    """

    def __init__(self, paths: Sequence[Path], named: Named | None = None) -> None:
        self.path = paths[0]
        self._paths = tuple(map(str, paths))
        self._zip = _is_zip(paths)
        members = zip_members(paths) if self._zip else tar_members(self.path)
        self._named = named or (lambda name: name)
        self._row: dict[str, int] = {}
        self._rows = np.fromiter(self._places(members), ROWS)

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __contains__(self, name: str) -> bool:
        return name in self._row

    def find(self, name: str, largest: int | None = None) -> Member | None:
        """largest: bytes. Raises: Unfit("media_huge")."""
        row = self._row.get(name)
        if row is None:
            return None
        at, stored, size, crc, deflated = self._rows[row].tolist()
        if largest is not None and max(stored, size) > largest:
            raise Unfit("media_huge", f"{name} in {self.path.name} has {size} bytes; at most {largest} are read")
        return Member(self._paths[0], name, at, stored, size, crc if self._zip else None, deflated, self._paths[1:])

    def _places(self, members: Iterator[tuple[str, Place]]) -> Iterator[Place]:
        for number, (name, where) in enumerate(members):
            refuse_outside(name, self.path)
            self._row[self._named(name.removeprefix("./"))] = number  # the later of two counts, as in unpacking
            yield where


class Archives:
    """The archives of a set as one table, built once; or the folders that they were unpacked into.

    files: found by `archives_in`.   named: as in Archive. A name in two archives is an error: which is meant?
    """

    def __init__(self, inputs: Inputs, files: Sequence[Sequence[Path]], named: Named | None = None) -> None:
        """Raises: InputError for one that is damaged or compressed, and for names that two archives have."""
        self.archives = [Archive(paths, named) for paths in files]
        for path in (path for paths in files for path in paths):
            if not inputs.dry:  # hashing gigabytes is no trial
                inputs.note(path)
        places: dict[str, int] = {}
        for number, archive in enumerate(self.archives):
            for name in archive:
                if places.setdefault(name, number) != number:
                    first = self.archives[places[name]].path
                    raise InputError(f"{first} and {archive.path} both hold {name!r}; keep one of them")
        self._places = places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def find(self, name: str) -> Member | None:
        number = self._places.get(name)
        return None if number is None else self.archives[number].find(name)


class Folder:
    """Files below a folder, by their paths; the same questions as to `Archives`."""

    def __init__(self, inputs: Inputs, root: Path) -> None:
        self.root = inputs.note(root)

    def find(self, name: str) -> FileAt | None:
        """Raises: InputError for a name that leaves the folder."""
        refuse_outside(name, self.root)
        path = self.root / name
        return FileAt(path) if path.is_file() else None


def archives_in(folder: Path, patterns: Sequence[str]) -> list[list[Path]]:
    """Archives in the order of the numbers in their names, each as its files: several if it is cut into _partaa, _partab.

    Raises: InputError for a cut one of which a part is missing.
    """
    found: dict[str, list[Path]] = {}
    for path in {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}:
        match = SPLIT.fullmatch(path.name)
        found.setdefault(str(path.with_name(match["whole"])) if match else str(path), []).append(path)
    for whole, parts in found.items():
        parts.sort()
        marks = [match["mark"] for path in parts if (match := SPLIT.fullmatch(path.name))]
        wanted = [f"a{chr(ord('a') + number)}" for number in range(len(marks))]
        if marks and (marks != wanted or len(marks) < 2):
            raise InputError(f"{whole} is cut into parts, and found are _part{', _part'.join(marks)}; get the others")
    return [found[name] for name in sorted(found, key=natural)]


def natural(name: str) -> list[tuple[int, str]]:
    """An order in which part2 comes before part10."""
    return [(int(piece) if piece.isdigit() else -1, piece) for piece in re.split(r"(\d+)", name)]


def streamed(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | Unfit]]:
    """Name and bytes of each file in a tar, compressed or not, in its order; memory holds one of them.

    wanted: of which the bytes are needed; of others they are empty.   A file that is too large is an Unfit.
    Raises: InputError for an archive that is damaged, cut short or reaches out of itself.
    """
    try:
        with tarfile.open(path, "r|*") as archive:
            for info in archive:
                vars(archive)["members"] = []
                if info.issym() or info.islnk():
                    raise InputError(f"{path} holds {info.name!r}, a link; get the published archive again")
                if not info.isreg():
                    continue
                name = info.name.removeprefix("./")
                refuse_outside(name, path)
                if info.size > LARGEST_FILE:
                    yield name, Unfit("media_huge", f"{name} has {info.size:,} bytes; the limit is {LARGEST_FILE:,}")
                    continue
                stream = archive.extractfile(info) if wanted(name) else None
                yield name, stream.read() if stream else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{path} is not a complete tar archive ({error}); get it again") from error


def present(found: Member | FileAt | None, name: str, partial: bool) -> Member | FileAt:
    """What was found. partial: whether only some of a set's parts may be there, so that absence is no fault.

    Raises: Unfit("excluded" | "media_missing").
    """
    if found is None and partial:
        raise Unfit("excluded", f"{name} is in none of the parts that are there")
    if found is None:
        raise Unfit("media_missing", f"{name} is not there")
    return found


def refuse_outside(name: str, where: Path) -> None:
    """Raises: InputError for a path that leads out of its archive or folder."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise InputError(f"{where} holds {name!r}, which leads out of it; get the published archive again")


def is_packed(path: Path) -> bool:
    """Whether a tar has to be read from its beginning."""
    return packed_by(path) is not None


def _is_zip(paths: Sequence[Path]) -> bool:
    if len(paths) == 1:
        return zipfile.is_zipfile(paths[0])
    with Joined(paths) as stream:
        return zipfile.is_zipfile(stream)
