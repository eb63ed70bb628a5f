"""Where a set's pictures lie: in a folder, a zip or an uncompressed tar, read in place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data_prep.reading.archives import Archive
from data_prep.reading.members import Member
from data_prep.rows import LARGEST_FILE, FileAt, Inputs, Unfit, Unread
from vlm.contracts.errors import InputError

FIRST, SHARE = 1000, 0.95  # of the first so many names that are asked for, this share must be there
ENDINGS = (".gz", ".tgz", ".bz2", ".xz", ".zst")  # of compressed tars, for messages


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
        self._archive = None if self.root.is_dir() else Archive([self.root])
        # An archive made of a whole folder repeats the folder's name: train2017.zip holds train2017/1.jpg.
        self._tops = ("", f"{self.root.name.removesuffix(self.root.suffix)}/")
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
        found = self._packed(self._archive, inside) if self._archive else self._file(inside)
        self._count(name, found is not None)
        if found is None:
            raise Unfit("media_missing", f"{name} is not in {self.root.name}")
        return found

    def _packed(self, archive: Archive, name: str) -> Member | None:
        named = next((top + name for top in self._tops if top + name in archive), None)
        return None if named is None else archive.find(named, LARGEST_FILE)

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


def _first(home: Path, names: Sequence[str], remedy: str) -> Path:
    for name in names:
        path = home / name
        if path.is_dir() or path.is_file():
            return path
    for path in sorted(home.glob("*")):
        if path.name.endswith(ENDINGS) and path.name.split(".")[0] in {Path(name).name.split(".")[0] for name in names}:
            raise InputError(f"{path} is compressed: its members cannot be read one by one; unpack it there")
    raise InputError(f"the pictures are not in {home}: looked for {', '.join(names)}. {remedy}")
