"""Shards without manifest and index, read as a stream from its beginning: for data that stays where it is."""

from __future__ import annotations

import glob
import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from vlm.contracts.errors import InputError, RunError
from vlm.contracts.sample import Sample
from vlm.data.canonical import BLOCK, Record, from_json, grouped, to_sample
from vlm.data.shards import RowError

KEPT = 512  # rows whose bytes each process keeps: the two blocks of a mix that can be asked for at a time
END = b"\0" * (2 * BLOCK)  # every whole archive ends so
PROMISES = (
    "rows are shuffled within blocks of 256 only; going on after a stop reads the stream again from its beginning; "
    "content that changed is not noticed, nor that it is for scoring alone; every worker process reads all of it"
)


class StreamSet:
    """The first `rows` samples of a WebDataset address, as a sequence that is read forwards.

    address: files with *, ? or a list in braces, http(s), `pipe:command`, or several of them joined by `::`; archives
    of samples in the form of prepared sets. Rows within KEPT of the furthest one may be asked for in any order; an
    earlier one opens the stream again. It can be sent to other processes, which open the stream for themselves.
    """

    def __init__(self, name: str, address: str, rows: int) -> None:
        """Raises: InputError if the address names files that are not there."""
        self.name, self.address, self.rows = name, address, rows
        self.archives = _archives(name, address)
        self.close()

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> Sample:
        """Raises: RowError if the row is damaged; RunError if the stream is; IndexError beyond the end."""
        record, payloads = self.read(row)
        return to_sample(record, payloads)

    def read(self, row: int) -> tuple[Record, list[bytes]]:
        """The stored record and the bytes of its media. Raises: as `[row]`."""
        if not 0 <= row < self.rows:
            raise IndexError(f"{self.name} reads {self.rows} rows of {self.address}; there is no row {row}")
        members = {name: data for name, data in self._fetch(row).items() if name != "__url__"}
        key = members.pop("__key__")
        found = list(members)

        def fault(reason: str, detail: str) -> RowError:
            return RowError(self.name, key, row, reason, f"{detail}; prepare {self._fetch(row)['__url__']} again")

        if "json" not in members:
            raise fault("row_malformed", f"there is no record, only {', '.join(found)}")
        try:
            record = from_json(members["json"])
        except ValueError as error:
            raise fault("row_malformed", str(error)) from error
        wanted = [name for medium in record.media for name in medium.members]
        if absent := [name for name in wanted if name not in members]:
            raise fault("media_missing", f"there is no member {', '.join(absent)}")
        if record.key != key or found != ["json", *wanted]:
            raise fault("row_malformed", f"{key} with {', '.join(found)} is not {record.key} with json, {wanted}")
        payloads = [members[name] for name in wanted]
        for medium, files in grouped(record, payloads):
            if hashlib.sha256(b"".join(files)).hexdigest() != medium.sha256:
                raise fault("media_undecodable", f"the bytes of {medium.member} changed after they were written")
        return record, payloads

    def text(self, row: int) -> Sample:
        """The whole row: a stream cannot leave anything out."""
        return self[row]

    def costs(self, row: int) -> None:
        """Of a row that was not read yet, nothing is known."""

    def close(self) -> None:
        """Forgets where it is; the next read begins anew."""
        self._process = os.getpid()
        self._samples: Iterator[dict[str, Any]] | None = None
        self._next = 0
        self._kept: dict[int, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "address": self.address, "rows": self.rows, "archives": self.archives}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.close()

    def _fetch(self, row: int) -> dict[str, Any]:
        if self._process != os.getpid():
            self.close()  # a file that came by a fork has one position for both processes
        if row not in self._kept:
            if row < self._next:
                # Where two passes meet, the end of one and the beginning of the next are asked for in turn.
                while self.rows - KEPT // 2 <= self._next < self.rows:
                    self._advance()
                self._samples, self._next = None, 0
            while self._next <= row:
                self._advance()
        return self._kept[row]

    def _advance(self) -> None:
        """Reads one sample. Raises: RunError if there is none."""
        try:
            if self._samples is None:
                self._samples = _samples(self.archives)
            sample = next(self._samples)
        except StopIteration:
            raise self._broken("the stream ends there") from None
        except BrokenArchive as error:
            raise self._broken(str(error)) from error
        self._kept.pop(self._next, None)
        self._kept[self._next] = sample
        self._next += 1
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def _broken(self, what: str) -> RunError:
        reached = self._next
        self.close()
        shorter = f", or set data.<use>.{self.name}.rows to end at {reached} or before" if reached else ""
        return RunError(
            f"{self.name}: {self.address} gave {reached} of {self.rows} rows, then: {what}; mend the archive and give "
            f"the same command to go on{shorter}"
        )


def _archives(name: str, address: str) -> list[str]:
    """Every archive that an address names, in order. Raises: InputError for files that are not there."""
    from webdataset.shardlists import expand_urls  # imports torch, which only runs with a stream need this early

    archives: list[str] = []
    for part in expand_urls(address):
        path = part.removeprefix("file:")
        if part.startswith("pipe:") or "://" in part:
            archives.append(part)
        elif files := sorted(file for file in glob.glob(path, recursive=True) if not os.path.isdir(file)):
            archives += files
        else:
            raise InputError(f"data.<use>.{name}.stream: there is no file {path}; give the address of its archives")
    return archives


class BrokenArchive(Exception):
    """An archive that cannot be read to its end."""


def _samples(archives: list[str]) -> Iterator[dict[str, Any]]:
    """Groups of members, as WebDataset makes them; the last one of an archive when its end was seen."""
    from webdataset.tariterators import group_by_keys, tar_file_expander, url_opener

    for archive in archives:
        try:
            yield from group_by_keys(tar_file_expander(_whole(url_opener([{"url": archive}])), eof_value=None))
        except (OSError, EOFError, ValueError, tarfile.TarError) as error:
            # WebDataset adds what it held to the arguments; the first one is the message.
            what = error.strerror if isinstance(error, OSError) and error.strerror else error.args[0]
            raise BrokenArchive(f"{archive} cannot be read on ({what})") from error


def _whole(opened: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """An archive, compared with its end after it was read: a tar that stops between two members looks complete."""
    for archive in opened:
        ending = Ending(archive["stream"])
        try:
            yield {**archive, "stream": ending}
        except GeneratorExit:
            with suppress(OSError):  # a command that nobody listens to any more may complain
                ending.stream.close()
            raise
        while data := ending.read(1 << 16):
            if data.strip(b"\0"):
                raise EOFError("it goes on behind its end: archives cannot be joined, name each of them")
        ending.stream.close()
        if ending.last != END:
            raise EOFError(f"it is cut short: an archive ends in {len(END)} zero bytes")


class Ending:
    """A stream that remembers the last bytes read."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.last = stream, b""

    def __str__(self) -> str:
        return "the archive"

    def read(self, size: int) -> bytes:
        """As of any file."""
        data = self.stream.read(size)
        self.last = (self.last + data[-len(END) :])[-len(END) :]
        return data
