"""Several models' results as one text table: a column a model, a line for what was measured in the same way."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence

from vlm.contracts.errors import InputError
from vlm.reporting.evaluation_numbers import amount, span
from vlm.reporting.evaluation_records import Entry

Line = tuple[str, ...]
NOTES = {"=": "not above its best trivial baseline", "?": "more than 5 % of the answers could not be read"}


def comparison_table(entries_by_model: Mapping[str, Sequence[Entry]], width: int = 120) -> str:
    """Headline scores with their 95 % intervals. width: characters of a line.

    Scores stand on one line only if benchmark, split, variant, questions, prompt, OCR and decoding are the same.
    Raises: InputError for fewer than two models.
    """
    if len(entries_by_model) < 2:
        raise InputError("a comparison needs the results of two models at least; name a further results.json")
    from rich import box  # only where a table is shown
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells: dict[Line, dict[str, Entry]] = {}
    for model, entries in entries_by_model.items():
        for entry in entries:
            if entry.headline:
                cells.setdefault(_line(entry), {})[model] = entry
    table = Table(box=box.SIMPLE)
    table.add_column("benchmark", overflow="fold")
    for model in entries_by_model:
        table.add_column(Text(model), justify="right", overflow="fold")
    signs: set[str] = set()
    first_titles = _titles(cells)
    for line, found in cells.items():
        texts = [_cell(found[model]) if model in found else "not measured" for model in entries_by_model]
        signs |= {sign for text in texts for sign in NOTES if text.endswith(f" {sign}") or f" {sign} " in text}
        table.add_row(Text(first_titles[line]), *[Text(text) for text in texts])
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, legacy_windows=False).print(table)
    notes = [f"{sign} {NOTES[sign]}" for sign in NOTES if sign in signs]
    notes.append("Intervals are 95 %. Whether two columns differ is shown by a paired interval alone.")
    rows = [row.rstrip() for row in stream.getvalue().splitlines()]
    return "\n".join([*[row for row in rows if row], *notes]) + "\n"


def _line(entry: Entry) -> Line:
    """What has to be the same for two scores to stand on one line."""
    same = ("ocr", "decoding", "data", "limit", "prompt")
    seed = [entry.settings.get("seed")] if entry.settings.get("limit") is not None else []
    values = [entry.settings.get(key) or None for key in same] + seed
    return (
        entry.benchmark, entry.split, entry.variant, entry.metric, str(entry.n),
        json.dumps(values, sort_keys=True, default=str),
    )  # fmt: skip


def _titles(cells: Mapping[Line, Mapping[str, Entry]]) -> dict[Line, str]:
    """A title each; where two would be the same, with decoding, prompt and data."""
    plain = {line: next(iter(found.values())).title for line, found in cells.items()}
    titles: dict[Line, str] = {}
    for line, title in plain.items():
        entry = next(iter(cells[line].values()))
        data = ", ".join(f"{name} {str(sha)[:8]}" for name, sha in (entry.settings.get("data") or {}).items())
        prompt = hashlib.sha256(str(entry.settings.get("prompt")).encode("utf-8", "replace")).hexdigest()[:8]
        unclear = list(plain.values()).count(title) > 1
        more = f", {entry.metric}, {entry.settings.get('decoding')}, prompt {prompt}, {data}" if unclear else ""
        titles[line] = title + more
    return titles


def _cell(entry: Entry) -> str:
    ends = span(entry.interval, entry.top, entry.n)
    signs = [sign for sign, holds in (("=", not entry.is_above), ("?", not entry.is_clean)) if holds]
    interval = [f"[{ends.removesuffix(' %')}]"] if ends else []
    return " ".join([amount(entry.score, entry.top, entry.n), *interval, *signs])
