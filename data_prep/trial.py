"""A dry run: the first rows beside what the set's page promises, and their counts; nothing is written."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from data_prep.budget import Budget
from data_prep.inputs import numbered
from data_prep.rows import Converter, Inputs, Skip
from data_prep.settings import PrepareSettings
from data_prep.work import Kept, Outcome, Work
from data_prep.workers import outcomes
from data_prep.writing.tally import Tally

log = logging.getLogger(__name__)
ROWS = 1000  # of each split
SHOWN = 5  # rows that are printed
WIDTH = 160  # characters of a printed row


def trial(settings: PrepareSettings, converter: Converter, inputs: Inputs, work: Work) -> dict[str, Any]:
    """Reads, decodes and checks the first rows as a preparation does. Raises: as a preparation does."""
    source = settings.source
    few = replace(settings, limit=min(ROWS, settings.limit or ROWS))
    tallies = {split: Tally() for split in source.expected}
    budget = Budget(source.budget)
    found = outcomes(numbered(few, converter, inputs), work, workers=0)
    first = list(islice(found, SHOWN))
    log.info("expected  %s", source.form)
    for number, outcome in first:
        log.info("row %-5d %s", number, _line(outcome))
    for _, outcome in (*first, *found):
        if isinstance(outcome, Skip):
            tallies[outcome.split or work.first].skip(outcome.reason, outcome.rows, outcome.is_piece)
            budget.skip(
                outcome.reason, f"{outcome.origin.file} row {outcome.origin.row}: {outcome.detail}", outcome.rows
            )
        else:
            tallies[outcome.record.split].keep(outcome)
            budget.kept(1 + outcome.merged)
    for split, tally in tallies.items():
        skipped = ", ".join(f"{reason} {rows}" for reason, rows in tally.sorted("skipped").items()) or "none"
        log.info("%s/%s: %d samples of %d rows, skipped: %s", source.name, split, tally.samples, tally.rows_in, skipped)
    log.info("a dry run of the first rows: nothing is written")
    budget.enforce()
    return {
        "set": source.name,
        "dry_run": True,
        "form": source.form,
        "first": [_told(entry) for entry in first],
        "splits": {
            split: {"rows_in": tally.rows_in, "samples_out": tally.samples, "skipped": tally.sorted("skipped")}
            for split, tally in tallies.items()
        },
        "expected": {**source.expected, "rows": source.rows},
        "source": [asdict(file) for file in inputs.files],
    }


def _line(outcome: Kept | Skip) -> str:
    if isinstance(outcome, Skip):
        return f"skipped as {outcome.reason}: {outcome.detail}"[:WIDTH]
    sizes = ", ".join(f"{medium.w}x{medium.h}" for medium in outcome.record.media) or "no picture"
    return f"{sizes}; {' | '.join(_texts(outcome))}"[:WIDTH]


def _texts(kept: Kept) -> list[str]:
    record = kept.record
    if record.caption is not None:
        return [record.caption]
    turns = [(turn.role, turn) for turn in record.messages or ()]
    turns += [(name, turn) for name in ("chosen", "rejected") for turn in getattr(record, name) or ()]
    return [f"{name}: {''.join(getattr(part, 'text', '<picture>') for part in turn.content)!r}" for name, turn in turns]


def _told(entry: Outcome) -> dict[str, Any]:
    number, outcome = entry
    if isinstance(outcome, Skip):
        return {"row": number, "skipped": outcome.reason, "detail": outcome.detail}
    pictures = [picture.orig for picture in outcome.record.media]
    return {"row": number, "split": outcome.record.split, "pictures": pictures, "texts": _texts(outcome)}
