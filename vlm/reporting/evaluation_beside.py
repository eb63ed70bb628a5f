"""A result beside what others have published for the same benchmark, and why the two may not be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlm.evaluation.published import Published
from vlm.reporting.evaluation_records import Entry, Figure


@dataclass(frozen=True)
class Beside:
    """A published figure and ours. ours: None without a measure of that kind.   apart: what makes them another test."""

    figure: Published
    entry: Entry
    ours: Figure | None
    apart: tuple[str, ...]


def beside(figure: Published, entries: Sequence[Entry]) -> Beside:
    """The figure with that one of the entries which differs least from it. entries: headlines of its benchmark."""
    apart = [differences(figure, entry) for entry in entries]
    nearest = min(range(len(entries)), key=lambda number: len(apart[number]))
    entry = entries[nearest]
    return Beside(figure, entry, _measure(figure, entry), tuple(apart[nearest]))


def differences(figure: Published, entry: Entry) -> list[str]:
    """Why an entry is another test than the published figure; [] if nothing that is known says so."""
    found = []
    if figure.split.casefold() != entry.split.casefold():
        found.append(f"another subset ({figure.subset or figure.split}, here {entry.split})")
    if figure.questions is not None and figure.questions != entry.n:
        found.append(f"another count ({figure.questions:,}, here {entry.n:,})")
    if _measure(figure, entry) is None:
        found.append(f"another metric ({figure.metric}, here {entry.metric})")
    decoding = entry.settings.get("decoding")
    if figure.decoding is not None and decoding is not None and figure.decoding != decoding:
        found.append(f"another decoding ({figure.decoding}, here {decoding})")
    if entry.settings.get("ocr") not in (None, "none"):
        found.append(f"recognised text in the prompt here (ocr={entry.settings['ocr']})")
    return found


def _measure(figure: Published, entry: Entry) -> Figure | None:
    found = next((entry.measures[name] for name in figure.measures if name in entry.measures), None)
    return found if found is not None and found.top == figure.top else None
