"""One self-contained page about an evaluation: every score beside what needs no model; nothing in it is fetched."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vlm.contracts.errors import InputError
from vlm.contracts.writing import write_whole
from vlm.evaluation.published import published, silent
from vlm.evaluation.results import SEES
from vlm.evaluation.text import amount, gap, gap_span, share, span
from vlm.reporting.evaluation_beside import Beside, beside
from vlm.reporting.evaluation_errors import Key, Shown, worst_errors
from vlm.reporting.evaluation_figures import difference_figure, reach_of, score_figure, shares_figure
from vlm.reporting.evaluation_numbers import label, lines
from vlm.reporting.evaluation_records import Entry, read_results

UNTOLD = ("id", "data", "benchmark")  # settings that are long, or told elsewhere
# Half of a surrogate pair has no UTF-8; control characters end or hide text in browsers.
UNPRINTABLE = re.compile("[\ud800-\udfff\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


@dataclass(frozen=True)
class Section:
    """A benchmark under one setting.

    headlines: its splits, the whole first.   others: the further variants.   errors: None for answers without scores
    of their own.   differs: settings that are not the same in the benchmark's other sections.
    """

    headlines: list[Entry]
    others: list[Entry]
    errors: list[Shown] | None
    beside: list[Beside]
    differs: dict[str, Any]

    @property
    def first(self) -> Entry:
        return self.headlines[0]


def write_results(folder: Path, predictions: Path | None = None) -> Path:
    """Reads results.json, the predictions and, if there, pictures.jsonl; writes results.html beside them.

    predictions: their file, predictions.jsonl of the folder if it is None.   A page that was there is replaced in one
    step.   Raises: InputError for files that are missing or not of the form; RunError if the page cannot be written.
    """
    entries = read_results(folder / "results.json")
    errors = worst_errors(folder, predictions or folder / "predictions.jsonl", entries)
    out = folder / "results.html"
    write_whole(out, [render(entries, errors, folder.resolve().name)])
    return out


def render(entries: Sequence[Entry], errors: Mapping[Key, list[Shown] | None], name: str) -> str:
    """The page as text.

    errors: of each benchmark and setting, in the order in which they are shown.   name: of the folder.
    """
    sections = _sections(entries, errors)
    environment = Environment(
        loader=PackageLoader("vlm.reporting", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        amount=amount, span=span, gap=gap, gap_span=gap_span, share=share, label=label, lines=lines
    )
    # The drawings are XML built from escaped parts.
    environment.globals.update(
        score_figure=lambda entry: Markup(score_figure(entry)),
        difference_figure=lambda *args: Markup(difference_figure(*args)),
        shares_figure=lambda *args: Markup(shares_figure(*args)),
        reach_of=reach_of,
        uses_pictures=SEES,
    )
    page = environment.get_template("evaluation.html.j2").render(
        name=name,
        models=list(dict.fromkeys(str(entry.settings.get("model", name)) for entry in entries)),
        sections=sections,
        warnings=_warnings(sections),
        silent=silent() if any(section.beside for section in sections) else [],
    )
    return UNPRINTABLE.sub("\ufffd", page)


def _sections(entries: Sequence[Entry], errors: Mapping[Key, list[Shown] | None]) -> list[Section]:
    by_key: dict[Key, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_key[entry.key].append(entry)
    sections = []
    for key, members in by_key.items():
        headlines = sorted((entry for entry in members if entry.headline), key=lambda entry: entry.split != "all")
        if not headlines:
            raise InputError(f"results.json: {members[0].title} has no headline variant; score the predictions again")
        same = [found[0].settings for (benchmark, _), found in by_key.items() if benchmark == key[0]]
        sections.append(
            Section(
                headlines,
                [entry for entry in members if not entry.headline],
                errors.get(key),
                [beside(figure, headlines) for figure in published(key[0])],
                _differing(members[0].settings, same),
            )
        )
    return sections


def _differing(settings: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        key: value
        for key, value in settings.items()
        if key not in UNTOLD and any(other.get(key) != value for other in among)
    }


def _warnings(sections: Sequence[Section]) -> dict[str, list[str]]:
    """What keeps a benchmark's score from being taken at its word -> the titles it holds for."""
    found: dict[str, list[str]] = defaultdict(list)
    for section in sections:
        for text in section.first.cautions:
            found[text].append(section.first.title)
    return found
