"""Outcomes in their order -> prepared splits; what it writes can stop at any moment and go on."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data_prep.budget import Budget
from data_prep.rows import Skip, SourceFile
from data_prep.settings import SourceSettings
from data_prep.work import Kept
from data_prep.writing.journal import Journal, removal
from data_prep.writing.manifest import Identity, write_manifest
from data_prep.writing.shard import ShardWriter, seal
from data_prep.writing.tally import Tally
from data_prep.writing.unchanged import Unchanged
from vlm.contracts.errors import InputError, RunError
from vlm.data.shards import key_of

log = logging.getLogger(__name__)
SAVE_S = 20.0  # seconds of work that a power cut may cost


class Assembly:
    """The splits of one set below `root`, written in the order of the source's rows.

    next: number of the first row that is still to come; behind an interrupted preparation it is not 0.
    Raises: InputError if the interrupted preparation there is another one, or its files are gone.
    """

    def __init__(self, source: SourceSettings, root: Path, identity: Identity) -> None:
        self.source, self.root, self.identity = source, root, identity
        self.refused = root / "refused.jsonl"
        self.refused.unlink(missing_ok=True)
        self.journal = Journal(root)
        try:
            state = self._state()
            self.next: int = state.get("next", 0)
            self._unchanged = Unchanged(
                [SourceFile(**file) for file in state.get("files", ())], removal(root, source.expected)
            )
            self.budget = Budget(source.budget, state.get("budget"))
            tallies, writers = state.get("tallies", {}), state.get("writers", {})
            self.tallies = {split: Tally(tallies.get(split)) for split in source.expected}
            self.writers = {
                split: ShardWriter(root / split, source.shard_mb * 1_000_000, writers.get(split))
                for split in source.expected
            }
        except InputError as error:
            self.journal.close(remove=False)
            raise InputError(
                f"{error}; what was begun in {root} cannot go on. Start anew with: {removal(root, source.expected)}"
            ) from error
        self._saved = time.monotonic()

    def _state(self) -> dict[str, Any]:
        state = self.journal.state()
        if state is None:
            return {}
        if state["identity"] == self.identity.unfinished:
            return state
        if any(writer["shards"] for writer in state["writers"].values()):
            raise InputError("an unfinished preparation lies there, begun with other settings or evaluation sets")
        self.journal.close(remove=True)
        self.journal = Journal(self.root)
        return {}

    def take(self, number: int, outcome: Kept | Skip, files: Sequence[SourceFile]) -> None:
        """The next row. files: read so far. Raises: OverBudget; InputError if a file has changed meanwhile."""
        self._unchanged.check(files)
        if number < self.next or (number > self.next and not self.identity.first_rows):
            raise RunError(
                f"{self.source.name}: row {number} came where row {self.next} was due; nothing can be left out"
            )
        skip = outcome if isinstance(outcome, Skip) else self._twin(outcome)
        completed = False
        if isinstance(outcome, Kept) and skip is None:
            completed = self._write(outcome)
        elif skip is not None:
            self._skip(skip)
        self.next = number + 1
        if completed or time.monotonic() > self._saved + SAVE_S:
            self.save(files)

    def _twin(self, kept: Kept) -> Skip | None:
        """A row that the set's rule on duplicates leaves out; others are noted and counted."""
        record, same, rule = kept.record, kept.same, self.source.duplicates
        tally = self.tallies[record.split]
        origin = f"{record.src.file} row {record.src.row} ({record.src.id})"

        def skip(reason: str, detail: str) -> Skip:
            return Skip(record.split, record.src, reason, detail, rows=1 + kept.merged, is_piece=kept.is_piece)

        first_row = self.journal.had(same.row)
        tally.both_twins += first_row is not None
        if rule == "rows" and first_row is not None:
            return skip("dup_exact", f"the same as {first_row}")
        if same.turned is not None and (other := self.journal.had(same.turned)) is not None:
            return skip("pair_contradiction", f"{other} has the same answers the other way round")
        seen = self.journal.picture(same, origin)
        tally.image_twins += seen is not None
        if rule == "pictures" and seen is not None:
            return skip("dup_exact", f"the same pixels as {seen}")
        text = record.caption or next((turn.text for turn in record.messages or ()), "")
        tally.contradictions += self.journal.contradicts(same)
        tally.text_twins += self.journal.text(same, text)
        if first_row is None:
            self.journal.note(same.row, origin)
        return None

    def _write(self, kept: Kept) -> bool:
        split = kept.record.split
        tally = self.tallies[split]
        record = replace(kept.record, key=key_of(self.source.name, tally.samples))
        tokens = sum(kept.tokens) if self.identity.tokenizer else 0
        completed = self.writers[split].add(record, kept.payloads, tokens)
        tally.keep(kept)
        self.budget.kept(1 + kept.merged)
        return completed

    def _skip(self, skip: Skip) -> None:
        split = skip.split or next(iter(self.tallies))
        self.tallies[split].skip(skip.reason, skip.rows, skip.is_piece)
        if skip.by:
            self.tallies[split].of["overlap"][skip.by] += skip.rows
        self.writers[split].skip(skip)
        origin = skip.origin
        where = f"{origin.file} row {origin.row} ({origin.id}): {skip.detail}"
        self.budget.skip(skip.reason, where, skip.rows)

    def save(self, files: Sequence[SourceFile]) -> None:
        """Everything so far is on the disk, and the next start goes on behind it."""
        state = {
            "identity": self.identity.unfinished,
            "next": self.next,
            "files": [asdict(file) for file in files],
            "budget": self.budget.state(),
            "tallies": {split: tally.state() for split, tally in self.tallies.items()},
            "writers": {split: writer.state() for split, writer in self.writers.items()},
        }
        self.journal.commit(state)
        self._saved = time.monotonic()

    def finish(self, files: Sequence[SourceFile]) -> list[dict[str, Any]]:
        """Completes every split. Returns: the manifests. Raises: OverBudget; InputError if a split would be empty."""
        self.budget.enforce()
        self._unchanged.check(files, at_end=True)
        found = sum(tally.rows_in for tally in self.tallies.values())
        self._leave_out_empty()
        self.save(files)
        if self.source.rows not in (None, found) and not self.identity.first_rows:
            log.warning("%s has %s rows, its page says %s", self.source.name, f"{found:,}", f"{self.source.rows:,}")
        whole = {"splits": list(self.tallies), "commonest_texts": self.journal.commonest_texts(10)}
        manifests = [
            write_manifest(self.writers[split], tally, self.budget, self.source, split, files, self.identity, whole)
            for split, tally in self.tallies.items()
        ]
        for writer in self.writers.values():
            writer.close(keep=False)
        self.journal.close(remove=True)
        return manifests

    def _leave_out_empty(self) -> None:
        """The first rows of a source may hold none for one of its splits, and without a holdout nothing is drawn."""
        drawn = self.source.holdout is not None or any(self.source.expected.values())
        for split in [split for split, tally in self.tallies.items() if not tally.samples]:
            message = self._empty(split, self.tallies[split])
            if (drawn and not self.identity.first_rows) or len(self.tallies) == 1:
                raise InputError(message)
            log.warning("left out: %s", message)
            self.writers[split].close(keep=False)
            self.writers[split].abandon()
            del self.writers[split], self.tallies[split]

    def _empty(self, split: str, tally: Tally) -> str:
        holdout = self.source.holdout
        why = tally.sorted("skipped") or "the source has no rows for it"
        hint = f", or lower source.holdout.every={holdout.every}" if holdout else ""
        return f"{self.source.name}/{split} would hold no samples: {why}; give more rows{hint}"

    def refuse(self) -> None:
        """Writes every skipped row with its reason into refused.jsonl, for a source that is over its budget."""
        for writer in self.writers.values():
            writer.sync()
        with self.refused.with_name("refused.jsonl.part").open("wb") as target:
            for split in self.writers:
                with (self.root / split / "skipped.jsonl.part").open("rb") as skips:
                    shutil.copyfileobj(skips, target)
            seal(target, self.refused)

    def interrupt(self) -> None:
        """After an error or a stop: what was saved last stays for the same command; if nothing was, all goes."""
        begun = self.journal.state() is not None
        self.journal.close(remove=not begun)
        for writer in self.writers.values():
            writer.close(keep=begun)
            if not begun:
                writer.abandon()
