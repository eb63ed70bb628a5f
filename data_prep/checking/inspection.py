"""One shard against its manifest entry and its rows of the index, byte by byte and sample by sample."""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_prep.writing.shard import MOST_FRAMES
from vlm.data.canonical import BLOCK, MediumPart, MediumRecord, Message, Record, from_json
from vlm.data.clips import LEAST, decode_clip
from vlm.data.pictures import PictureError, decode
from vlm.data.shards import key_of

TOLD = 5  # faults of a kind that are told one by one; of the others the number


@dataclass
class Faults:
    """What is wrong, by kind: how often, and the first few in words. It crosses from workers to the command."""

    counts: Counter[str] = field(default_factory=Counter)
    told: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, where: object, what: str) -> None:
        self.counts[kind] += 1
        if len(self.told[kind]) < TOLD:
            line = f"{where}: {what}"  # what the data hold may not break the line, nor speak to the terminal
            self.told[kind].append("".join(sign if sign.isprintable() else " " for sign in line))

    def merge(self, other: Faults) -> None:
        self.counts.update(other.counts)
        for kind, lines in other.told.items():
            self.told[kind] += lines[: TOLD - len(self.told[kind])]

    def lines(self) -> Iterator[str]:
        """One line a fault, and one for those of a kind that are too many."""
        for kind, count in self.counts.items():
            yield from (f"{kind}: {line}" for line in self.told[kind])
            if count > len(self.told[kind]):
                yield f"{kind}: and {count - len(self.told[kind])} more"


@dataclass
class Found:
    """What one shard, or several, really hold."""

    faults: Faults = field(default_factory=Faults)
    samples: int = 0
    media: int = 0
    json_bytes: int = 0
    media_bytes: int = 0
    licenses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    checked: set[str] = field(default_factory=set)  # keys of the sample check that were met

    def merge(self, other: Found) -> None:
        self.faults.merge(other.faults)
        self.samples += other.samples
        self.media += other.media
        self.json_bytes += other.json_bytes
        self.media_bytes += other.media_bytes
        self.licenses.update(other.licenses)
        self.kinds.update(other.kinds)
        self.checked |= other.checked


@dataclass(frozen=True)
class ShardJob:
    """One shard to look into. number: its place in the manifest.   first: row of its first sample.

    rows: samples that the manifest gives it.   sha256: of the file.   checks: key -> sha256 of pixels and JSON.
    index: whether index.npy can be compared with.
    """

    directory: Path
    name: str
    number: int
    first: int
    rows: int
    sha256: str
    set: str
    split: str
    index: bool
    checks: dict[str, dict[str, str]]


def inspect_shard(job: ShardJob) -> Found:
    """Reads the shard once from its first to its last byte; memory holds one sample."""
    found, path = Found(), job.directory / job.name
    try:
        entries = np.load(job.directory / "index.npy", mmap_mode="r")[job.first :][: job.rows] if job.index else ()
        with path.open("rb") as stream:
            reader = _Hashing(stream)
            for start, members in _samples(reader, found.faults, path):
                entry = entries[found.samples] if found.samples < len(entries) else None
                _check_sample(job, found, entry, start, members)
                found.samples += 1
            reader.rest()
    except OSError as error:
        found.faults.add("shard_unreadable", path, error.strerror or str(error))
        return found
    if reader.digest.hexdigest() != job.sha256:
        found.faults.add("shard_changed", path, "its bytes are not those that were written (sha256)")
    if found.samples != job.rows:
        found.faults.add("shard_samples", path, f"holds {found.samples} samples, the manifest says {job.rows}")
    return found


class _Hashing:
    """A file that is read once, with the checksum of what was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.digest, self.offset = stream, hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.digest.update(data)
        self.offset += len(data)
        return data

    def rest(self) -> None:
        while self.read(1 << 20):
            pass


Member = tuple[str, int, bytes]  # name, place of its content in the file, content


def _members(reader: _Hashing, faults: Faults, path: Path) -> Iterator[Member]:
    """The members of a plain archive in order, until its end or the first header that cannot be read."""
    while header := reader.read(BLOCK):
        at = reader.offset - len(header)
        if header == b"\0" * BLOCK:
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "ascii", "surrogateescape")
        except tarfile.HeaderError as error:
            faults.add("shard_malformed", path, f"no member begins at byte {at} ({error}); what follows is not read")
            return
        data = reader.read(info.size)
        reader.read(-info.size % BLOCK)
        if len(data) != info.size:
            faults.add("shard_malformed", path, f"ends within {info.name}, after {len(data)} of {info.size} bytes")
            return
        yield info.name, at + BLOCK, data
    faults.add("shard_malformed", path, "has no end; the file is cut short")


def _samples(reader: _Hashing, faults: Faults, path: Path) -> Iterator[tuple[int, list[Member]]]:
    """Offset and members of each sample; a record begins a new one."""
    group: list[Member] = []
    for member in _members(reader, faults, path):
        if member[0].endswith(".json") and group:
            yield group[0][1] - BLOCK, group
            group = []
        group.append(member)
    if group:
        yield group[0][1] - BLOCK, group


def _check_sample(job: ShardJob, found: Found, entry: Any, start: int, members: list[Member]) -> None:
    """entry: its row of the index, None if there is none (told of the whole shard).   start: its place in the shard."""
    faults, row = found.faults, job.first + found.samples
    (name, _, text), media = members[0], members[1:]
    key = key_of(job.set, row)
    where = f"{job.directory / job.name} {key}"
    if name != f"{key}.json":
        faults.add("key_wrong", where, f"{name!r} stands in its place")
    try:
        record = from_json(text)
    except ValueError as error:
        faults.add("record_malformed", where, str(error).splitlines()[0])
        return
    if (record.key, record.set, record.split) != (key, job.set, job.split):
        faults.add("record_foreign", where, f"the record is {record.key} of {record.set}/{record.split}")
    for what in _turn_faults(record):
        faults.add("turns_wrong", where, what)
    for what in _unused(record):
        faults.add("media_unused", where, what)
    span = sum(BLOCK + len(data) + -len(data) % BLOCK for _, _, data in members)
    if entry is not None:
        _check_entry(faults, where, entry, (job.number, start, span, BLOCK, len(text)), record)
    pixels = hashlib.sha256()
    wanted = [member for medium in record.media for member in medium.members]
    rest = list(media)
    for medium in record.media:
        own, rest = rest[: len(medium.members)], rest[len(medium.members) :]
        _check_medium(faults, where, record.key, medium, own, pixels)
    if len(media) < len(wanted):
        missing = ", ".join(wanted[len(media) :])
        faults.add("media_missing", where, f"its media {missing} are not in the archive")
    for name, _, _ in media[len(wanted) :]:
        faults.add("member_foreign", where, f"nothing in the record tells of {name!r}")
    if expected := job.checks.get(record.key):
        found.checked.add(record.key)
        if {"pixels": pixels.hexdigest(), "json": hashlib.sha256(text).hexdigest()} != expected:
            faults.add("sample_check", where, "its text or decoded pixels are not those recorded in the manifest")
    found.media += len(record.media) if len(media) == len(wanted) else len(media)
    found.json_bytes += len(text)
    found.media_bytes += sum(len(data) for _, _, data in media)
    found.licenses[record.license] += 1
    found.kinds[record.kind] += 1


def _check_entry(faults: Faults, where: str, entry: Any, place: tuple[int, ...], record: Record) -> None:
    """The row of index.npy against the archive. place: shard, offset, span, place and length of the record."""
    expected = dict(zip(("shard", "offset", "span", "json_off", "json_len"), place, strict=True))
    expected |= {"frames": min(sum(medium.frames for medium in record.media), MOST_FRAMES)}
    expected |= {"media": len(record.media), "pixels": sum(medium.w * medium.h for medium in record.media)}
    wrong = [f"{name} {entry[name]} in place of {value}" for name, value in expected.items() if entry[name] != value]
    if wrong:
        faults.add("index_wrong", where, f"its row of index.npy has {', '.join(wrong)}")


def _check_medium(
    faults: Faults, where: str, key: str, medium: MediumRecord, members: list[Member], pixels: Any
) -> None:
    """members: those of the archive in its place.   pixels: the checksum that takes in the decoded pictures."""
    digest, size = hashlib.sha256(), 0
    for wanted, (name, _, data) in zip(medium.members, members, strict=False):
        if name != f"{key}.{wanted}":
            faults.add("media_missing", where, f"{name!r} stands in place of '{key}.{wanted}'")
            return
        digest.update(data)
        size += len(data)
    if len(members) < len(medium.members):
        return  # told of the whole sample
    if size != medium.bytes or digest.hexdigest() != medium.sha256:
        faults.add("media_changed", where, f"{key}.{medium.member} is not what the record says (bytes, sha256)")
    try:
        for name, _, data in members:
            _check_shown(faults, where, medium, name, data, pixels)
    except PictureError as error:
        faults.add(error.reason, where, error.detail)


def _check_shown(faults: Faults, where: str, medium: MediumRecord, name: str, data: bytes, pixels: Any) -> None:
    """Raises: PictureError for what does not decode."""
    if medium.type == "video":  # compared by its checksum; decoders of other versions may give other pixels
        picture = decode_clip(data, name, LEAST).frames[0]
    else:
        picture = decode(data, name, min_side=1)
        pixels.update(picture.tobytes())
    if picture.shape[:2] != (medium.h, medium.w):
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        faults.add("media_size", where, f"{name} is {size}, the record says {medium.w}x{medium.h}")


def _turn_faults(record: Record) -> Iterator[str]:
    """Roles in an order that no template can show."""
    messages = [*(record.messages or ()), *(record.chosen or ())]
    roles = [message.role for message in messages]
    talk = roles[1:] if roles[:1] == ["system"] else roles
    if talk and talk[0] != "user":
        yield f"the first turn is the {talk[0]}'s"
    if "system" in talk:
        yield "a system turn stands behind others"
    if twice := next((one for one, two in pairwise(talk) if one == two), None):
        yield f"two turns of the {twice} follow each other"
    for name in ("chosen", "rejected"):
        if (answer := getattr(record, name)) is not None and len(answer) != 1:
            yield f"{name} has {len(answer)} turns; it must be one answer"
    answers = [message for message in (*messages, *(record.rejected or ())) if message.role == "assistant"]
    if any(isinstance(part, MediumPart) for message in answers for part in message.content):
        yield "an answer shows a medium"


def _unused(record: Record) -> Iterator[str]:
    """Media that no turn shows, or shows as another kind; a caption shows all of its own."""
    turns: list[Message] = [*(record.messages or ()), *(record.chosen or ()), *(record.rejected or ())]
    parts = [part for turn in turns for part in turn.content if isinstance(part, MediumPart)]
    if record.kind == "caption":
        if not record.media:
            yield "a caption without a medium"
        return
    shown = {part.i for part in parts}
    for number, medium in enumerate(record.media):
        if number not in shown:
            yield f"no turn shows medium {number} ({medium.member})"
    for part in parts:
        kind = record.media[part.i].type
        if (part.type == "image") != (kind == "image"):
            yield f"a turn shows medium {part.i} as {part.type}, but it is {kind}"
