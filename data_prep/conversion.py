"""Every row of a source into a stored sample or a counted skip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from data_prep.budget import Budget, OverBudget
from data_prep.media import Stored, store
from data_prep.rows import Converter, Inputs, Picture, Row, Skip, Unfit
from data_prep.settings import PrepareSettings
from data_prep.writing.manifest import Tally, write_manifest
from data_prep.writing.shard import ShardWriter, write_sealed
from vlm.contracts.errors import InputError
from vlm.data.canonical import VERSION, MediumRecord, Origin, Record, TextPart
from vlm.data.pictures import PictureError

DRY_ROWS = 1000  # rows of each split that a dry run reads


class Conversion:
    """The writing of one set."""

    def __init__(self, settings: PrepareSettings, root: Path, inputs: Inputs) -> None:
        self.settings, self.source, self.inputs = settings, settings.source, inputs
        self.budget = Budget(self.source.budget)
        self.tallies = {split: Tally() for split in self.source.expected}
        self.writers: dict[str, ShardWriter] = {}
        self._default = list(self.source.expected)[:1]  # where rows go that have no split of their own
        self._root = root
        self._seen: dict[str, Origin] = {}  # pixels -> the row that had them first

    def run(self, converter: Converter, identity: str, progress: Callable[[int], None]) -> list[dict[str, Any]]:
        """Writes all splits; on any error or Ctrl-C nothing unfinished stays behind.

        Raises: OverBudget after writing every skipped row into `<out>/<set>/refused.jsonl`.
        """
        refused = self._root / "refused.jsonl"
        refused.unlink(missing_ok=True)
        try:
            for split in self.source.expected:
                self.writers[split] = ShardWriter(self._root / split, self.source.shard_mb * 1_000_000)
            self.take_all(converter, self.settings.limit, progress)
            return [
                write_manifest(self.writers[split], tally, self.budget, self.source, split, self.inputs.files, identity)
                for split, tally in self.tallies.items()
            ]
        except OverBudget as error:
            write_sealed(refused, b"".join(writer.skips() for writer in self.writers.values()))
            self._abandon()
            raise OverBudget(f"{error}\nEvery skipped row with its reason: {refused}") from error
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        for writer in self.writers.values():
            writer.abandon()
        with suppress(OSError):  # whatever else lies there stays
            self._root.rmdir()

    def dry_run(self, converter: Converter) -> dict[str, Any]:
        """The counts of the first rows; nothing is written."""
        self.take_all(converter, min(DRY_ROWS, self.settings.limit or DRY_ROWS), lambda done: None)
        splits = {
            split: {"rows_in": tally.rows_in, "samples_out": tally.kinds.total(), "skipped": dict(tally.skipped)}
            for split, tally in self.tallies.items()
        }
        source = [asdict(file) for file in self.inputs.files]
        return {"set": self.source.name, "dry_run": True, "splits": splits, "source": source}

    def take_all(self, converter: Converter, limit: int | None, progress: Callable[[int], None]) -> None:
        """Every row, or the first `limit` of each split (of the source, where pixels decide about the split)."""
        taken = dict.fromkeys(self.source.expected if self.source.holdout is None else self._default, 0)
        for number, row in enumerate(converter.rows(self.inputs)):
            split = row.split or self._default[0]
            if limit is None or taken[split] < limit:
                taken[split] += 1
                self.take(row)
            elif min(taken.values()) >= limit:
                break
            if number % 64 == 0:
                progress(number)
        self.budget.enforce()

    def take(self, row: Row | Skip) -> None:
        """One source row into its split, or into the ledger of skips."""
        outcome = row if isinstance(row, Skip) else self._keep(row)
        if isinstance(outcome, Skip):
            split = outcome.split or self._default[0]
            self.tallies[split].skip(outcome.reason, outcome.rows)
            if self.writers:
                self.writers[split].skip(outcome)
            origin = outcome.origin
            where = f"{origin.file} row {origin.row} ({origin.id}): {outcome.detail}"
            self.budget.skip(outcome.reason, where, outcome.rows)

    def _keep(self, row: Row) -> Skip | None:
        row = _without_long_captions(row, self.source.max_words)
        fault = _text_fault(row, self.source.max_words)
        if fault:
            return Skip(row.split, row.origin, *fault, rows=1 + row.merged)
        try:
            pictures = [store(_content(picture), picture.name, self.source.pictures) for picture in row.pictures]
        except (PictureError, Unfit) as error:
            return Skip(row.split, row.origin, error.reason, error.detail, rows=1 + row.merged)
        split = row.split or self._split(row, pictures)
        if self.source.duplicates == "pictures" and pictures:
            twin = self._seen.setdefault(pictures[0].pixels, row.origin)
            if twin != row.origin:
                return Skip(split, row.origin, "dup_exact", f"same pixels as {twin.id}", rows=1 + row.merged)
        if row.license not in self.source.licenses:
            where = f"{row.origin.file} row {row.origin.row}"
            raise InputError(f"{where}: licence '{row.license}' is unknown; add it and its flags to source.licenses")
        tally = self.tallies[split]
        record = self._record(row, split, tally.kinds.total(), pictures)
        if self.writers:
            self.writers[split].add(record, [picture.data for picture in pictures])
        tally.keep(row, record, pictures)
        self.budget.kept(1 + row.merged)
        return None

    def _split(self, row: Row, pictures: list[Stored]) -> str:
        """By the first picture, so that it never stands on both sides; of a row without one by its text."""
        holdout = self.source.holdout
        assert holdout is not None, f"{self.source.name} gives rows without a split and has no holdout"
        digest = pictures[0].pixels if pictures else hashlib.sha256(repr(row.messages).encode()).hexdigest()
        drawn = int(digest[:8], 16) % holdout.every == 0
        return holdout.split if drawn else self._default[0]

    def _record(self, row: Row, split: str, number: int, pictures: list[Stored]) -> Record:
        several = len(pictures) > 1
        media = [
            MediumRecord(
                type="image",
                member=f"{i:02d}.{stored.member}" if several else stored.member,
                w=stored.width,
                h=stored.height,
                bytes=len(stored.data),
                sha256=hashlib.sha256(stored.data).hexdigest(),
                phash=stored.phash,
                orig=picture.name,
            )
            for i, (picture, stored) in enumerate(zip(row.pictures, pictures, strict=True))
        ]
        return Record(
            v=VERSION,
            kind="caption" if row.caption is not None else "preference" if row.chosen is not None else "chat",
            key=f"{self.source.name}-{number:010d}",
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
            meta=row.meta,
        )


def _content(picture: Picture) -> bytes | Image.Image:
    return picture.content if isinstance(picture.content, bytes | Image.Image) else picture.content.read()


def _without_long_captions(row: Row, max_words: int) -> Row:
    """A picture with several captions keeps those that are short enough; the others are counted as repaired."""
    captions = (row.meta or {}).get("captions", [])
    kept = [caption for caption in captions if len(caption.split()) <= max_words]
    if not kept or len(kept) == len(captions):
        return row
    meta = {**(row.meta or {}), "captions": kept}
    if len(kept) == 1:
        del meta["captions"]
    repaired = (*row.repaired, *["caption_too_long"] * (len(captions) - len(kept)))
    return replace(row, caption=kept[0], meta=meta or None, repaired=repaired)


def _text_fault(row: Row, max_words: int) -> tuple[str, str] | None:
    texts = [row.caption] if row.caption is not None else []
    for message in (*(row.messages or ()), *(row.chosen or ()), *(row.rejected or ())):
        texts += [part.text for part in message.content if isinstance(part, TextPart)]
    if row.caption is not None and not row.caption.strip():
        return "text_empty", "the caption is empty"
    longest = max((len(text.split()) for text in texts), default=0)
    return ("text_long", f"{longest} words; at most {max_words} are kept") if longest > max_words else None
