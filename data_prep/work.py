"""One source row -> a sample that only lacks its key, or the reason why not: a pure function, done in any process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xxhash
from PIL import Image

from data_prep.overlaps.overlap import Overlap
from data_prep.pictures.clips import StoredClip, store_clip
from data_prep.pictures.media import Stored, store
from data_prep.rows import Clip, Picture, Row, Skip, Unfit
from data_prep.settings import SourceSettings
from vlm.contracts.errors import InputError
from vlm.data.canonical import VERSION, MediumRecord, Message, Origin, Record, check
from vlm.data.licences import FLAGS, refuse_source
from vlm.data.pictures import PictureError
from vlm.data.tokens import FolderTokenizer

LONGEST_WORD = 40  # characters; a text without spaces is as long as one of words this long


@dataclass(frozen=True)
class Kept:
    """A row that can become a sample.

    record: all of it, its key still empty.   payloads: bytes of its media.   sources: their (colour mode, format)
    before.   merged: further source rows in it.   repaired: names of what was mended.
    tokens: of its questions, its answer, its rejected answer.   same: by what rows are found equal.
    is_piece: as in Row.
    """

    record: Record
    payloads: tuple[bytes, ...]
    sources: tuple[tuple[str, str], ...]
    merged: int
    repaired: tuple[str, ...]
    tokens: tuple[int, int, int]
    same: Same
    is_piece: bool = False


@dataclass(frozen=True)
class Same:
    """Digests, 16 bytes in hexadecimal. Equal ones mean: the same first picture, texts, or all of both.

    turned: equal to `row` of the same preference pair with its answers exchanged.
    answers: of a pair, each with its pictures and question: what is chosen here may be rejected elsewhere.
    """

    picture: str | None
    text: str
    row: str
    turned: str | None
    answers: tuple[str, str] | None = None


Numbered = tuple[int, Row | Skip]  # a row and its number in the source
Outcome = tuple[int, Kept | Skip]


class Work:
    """What every row of a set goes through.

    splits: of the set; rows without one go to the first, or are held out by their pictures or text.
    overlap: evaluation pictures that are left out.   tokenizer: folder, None = lengths are bytes of UTF-8.
    policy: licences that it refuses are an error here too, whatever named them.
    """

    def __init__(self, source: SourceSettings, overlap: Overlap, tokenizer: str | None, policy: str = "any") -> None:
        self.source, self.overlap, self.tokenizer, self.policy = source, overlap, tokenizer, policy
        self.first = next(iter(source.expected))

    def __call__(self, row: Row | Skip) -> Kept | Skip:
        """Raises: InputError for a row with an unknown licence, or one that no sample can be made of by mistake."""
        if isinstance(row, Skip):
            return replace(row, origin=_plain_origin(row.origin), detail=_plain(row.detail))
        if row.license not in self.source.licenses:
            where = f"{row.origin.file} row {row.origin.row}"
            raise InputError(
                f"{where}: licence '{row.license}' is unknown; add it and its flags, none or some of {', '.join(FLAGS)}: "
                f"'++source.licenses={{{row.license}: []}}'"
            )
        refuse_source(self.source.name, {row.license: self.source.licenses[row.license]}, self.policy)
        row = replace(row, origin=_plain_origin(row.origin))
        try:
            row = _without_long_captions(row, self.source.max_words)
            _check_texts(row, self.source.max_words)
            pictures = tuple(self._stored(picture) for picture in row.pictures)
        except (PictureError, Unfit) as fault:
            told = _plain(fault.detail)
            split, rows = row.split or self.first, 1 + row.merged
            return Skip(split, row.origin, fault.reason, told, rows, is_piece=row.is_piece)
        split = row.split or self._split(row, pictures)
        record = self._record(row, split, pictures)
        overlap = self._overlap(row, record, pictures)
        if overlap is not None:
            return overlap
        repaired = (*row.repaired, *(name for picture in pictures for name in picture.repaired))
        return Kept(
            record,
            tuple(data for stored in pictures for data in stored.files),
            tuple((stored.source_mode, stored.source_format) for stored in pictures),
            row.merged,
            repaired,
            self._tokens(row),
            _same(record, [_identity(stored) for stored in pictures]),
            row.is_piece,
        )

    def _stored(self, picture: Picture | Clip) -> Stored | StoredClip:
        if isinstance(picture, Picture):
            return store(_content(picture), picture.name, self.source.pictures)
        if self.source.clips is None:
            raise InputError(
                f"{self.source.name} has clips, and its file in conf/source does not say how they are stored: "
                "take the defaults of base/clips"
            )
        return store_clip(picture, self.source.clips, self.source.pictures)

    def _split(self, row: Row, pictures: Sequence[Stored | StoredClip]) -> str:
        """Held out if any of its pictures is, so that none of them is trained on; of a row without one by its text."""
        holdout = self.source.holdout
        if holdout is None:
            return self.first
        if holdout.by == "name":
            digests = [_sha256(_plain(picture.name)) for picture in row.pictures]
        else:
            digests = [picture.pixels for picture in pictures]
        digests = digests or [_sha256(repr(row.messages))]
        return holdout.split if any(int(digest[:8], 16) % holdout.every == 0 for digest in digests) else self.first

    def _overlap(self, row: Row, record: Record, pictures: Sequence[Stored | StoredClip]) -> Skip | None:
        if record.split in self.source.evaluation:
            return None
        hits = [
            self.overlap.find(picture.name, stored.looks)
            for picture, stored in zip(row.pictures, pictures, strict=True)
        ]
        hits.append(next(self.overlap.same_choices(record), None))
        hit = next((hit for hit in hits if hit is not None), None)
        if hit is None:
            return None
        by = f"{hit.table} by {hit.by}"
        told = f"{by}: {hit.detail}"
        return Skip(record.split, row.origin, "eval_overlap", told, 1 + row.merged, by, row.is_piece)

    @cached_property
    def _engine(self) -> FolderTokenizer:
        assert self.tokenizer is not None
        return FolderTokenizer(self.tokenizer)

    def _length(self, text: str) -> int:
        return len(text.encode()) if self.tokenizer is None else len(self._engine.encode(text))

    def _tokens(self, row: Row) -> tuple[int, int, int]:
        if row.caption is not None:
            return 0, self._length(row.caption), 0
        turns = [*(row.messages or ()), *(row.chosen or ())]
        asked = sum(self._length(turn.text) for turn in turns if turn.role != "assistant")
        answered = sum(self._length(turn.text) for turn in turns if turn.role == "assistant")
        return asked, answered, sum(self._length(turn.text) for turn in row.rejected or ())

    def _record(self, row: Row, split: str, pictures: Sequence[Stored | StoredClip]) -> Record:
        several = len(pictures) > 1
        media = [
            _medium(stored, f"{i:02d}.{stored.member}" if several else stored.member, picture.name)
            for i, (picture, stored) in enumerate(zip(row.pictures, pictures, strict=True))
        ]
        record = Record(
            v=VERSION,
            kind="caption" if row.caption is not None else "preference" if row.chosen is not None else "chat",
            key="",
            set=self.source.name,
            split=split,
            src=row.origin,
            license=row.license,
            media=media,
            caption=row.caption,
            messages=row.messages,
            chosen=row.chosen,
            rejected=row.rejected,
            answer=row.answer,
            meta=None if row.meta is None else _plain_all(row.meta),
        )
        try:
            check(record)
        except ValueError as error:
            raise InputError(f"{row.origin.file} row {row.origin.row}: no sample can be made of it: {error}") from error
        return record


def _medium(stored: Stored | StoredClip, member: str, name: str) -> MediumRecord:
    told: dict[str, Any] = {"type": "image"}
    if isinstance(stored, StoredClip):
        told = {"type": stored.type, "fps": stored.fps, "n": stored.count, "t": list(stored.seconds)}
    return MediumRecord(
        member=member,
        w=stored.width,
        h=stored.height,
        bytes=sum(map(len, stored.files)),
        sha256=stored.sha256,
        phash=stored.phash,
        orig=_plain(name),
        **told,
    )


def _content(picture: Picture) -> bytes | Image.Image:
    """Raises: Unfit that names the picture as its source does: the same on every machine."""
    if isinstance(picture.content, bytes | Image.Image):
        return picture.content
    try:
        return picture.content.read()
    except Unfit as fault:
        raise Unfit(fault.reason, f"{picture.name} {fault.detail}") from fault


def _without_long_captions(row: Row, max_words: int) -> Row:
    """A picture with several captions keeps those that are short enough; the others are counted as repaired."""
    captions = (row.meta or {}).get("captions", [])
    kept = [caption for caption in captions if _words(caption) <= max_words]
    if not kept or len(kept) == len(captions):
        return row
    meta = {**(row.meta or {}), "captions": kept}
    if len(kept) == 1:
        del meta["captions"]
    repaired = (*row.repaired, *["caption_too_long"] * (len(captions) - len(kept)))
    return replace(row, caption=kept[0], meta=meta or None, repaired=repaired)


def _check_texts(row: Row, max_words: int) -> None:
    """Raises: Unfit for an empty caption, and for texts that are too long or cannot be written as UTF-8."""
    if row.caption is not None and not row.caption.strip():
        raise Unfit("text_empty", "the caption is empty")
    for text in row.texts():
        words = _words(text)
        if words > max_words:
            raise Unfit("text_long", f"{words} words in {len(text)} characters; at most {max_words} words are kept")
        if "\0" in text:
            raise Unfit("text_malformed", f"a NUL byte stands in {text[:40]!r}")
        if _plain(text) != text:
            raise Unfit("text_malformed", f"half of a character (a lone surrogate) stands in {text[:40]!r}")


def _words(text: str) -> int:
    return max(len(text.split()), len(text) // LONGEST_WORD)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _plain_origin(origin: Origin) -> Origin:
    return replace(origin, file=_plain(origin.file), id=_plain(origin.id))


def _plain(text: str) -> str:
    """The text with what UTF-8 cannot hold spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _plain_all(value: Any) -> Any:
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, dict):
        return {_plain(str(key)): _plain_all(entry) for key, entry in value.items()}
    return [_plain_all(entry) for entry in value] if isinstance(value, list | tuple) else value


def _same(record: Record, pixels: Sequence[str]) -> Same:
    def told(messages: Sequence[Message] | None) -> list[list[str]]:
        return [[message.role, message.text] for message in messages or ()]

    asked, chosen, rejected = told(record.messages), told(record.chosen), told(record.rejected)
    turned = _digest(pixels, asked, rejected, chosen) if record.rejected is not None else None
    texts = (record.caption,) if record.caption is not None else (asked, chosen, rejected)
    row = _digest(pixels, *texts)
    answers = (_digest(pixels, asked, chosen), _digest(pixels, asked, rejected)) if turned else None
    return Same(pixels[0] if pixels else None, _digest(*texts), row, turned, answers)


def _identity(stored: Stored | StoredClip) -> str:
    """128 bits in hexadecimal, equal for equal upright pixels; a fiftieth of what a cryptographic hash would cost."""
    if isinstance(stored, StoredClip):
        return stored.sha256[:32]
    pixels = stored.upright
    assert pixels is not None
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, -1)
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(pixels).data, seed=pixels.shape[1])


def _digest(*content: Any) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:32]
