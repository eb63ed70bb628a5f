"""A comparison as a text table: a column a model, a line for what was asked alike, each difference to the first."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlm.evaluation.compare import Comparison, Line, Pair, Score
from vlm.evaluation.results import MOST_UNPARSABLE
from vlm.evaluation.text import amount, gap, gap_span, span, title

ABSENT = "not measured"
SIGNS = {
    "=": "not above its best baseline",
    "?": f"more than {100 * MOST_UNPARSABLE:.0f} % of the answers could not be read",
}
PAIRED = """Intervals are 95 %. Below a score: the difference to the first model in points with its paired interval,
McNemar's exact p where questions are independent and right or wrong, and what the interval shows. Indented are the
other measures of the same answers: whether more of them is better, the measure's name says."""
LONGEST = 30  # characters of a setting in a title; of a longer one the hash is told


def comparison_table(comparison: Comparison, width: int = 120) -> str:
    """Headline scores with their intervals, the other measures indented; below each the differences in pairs.

    width: characters of a line.
    """
    from rich import box  # only where a table is shown
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE)
    table.add_column("benchmark", overflow="fold")
    most = width // (len(comparison.models) + 1) - 4  # and the blanks around it
    for model in comparison.models:
        table.add_column(Text(_end_of(model, most)), justify="right", overflow="fold")
    for line, name in zip(comparison.lines, _titles(comparison.lines), strict=True):
        cells = [_cell(score, pair, line.top, line.n) for score, pair in zip(line.scores, line.pairs, strict=True)]
        table.add_row(Text(name), *map(Text, cells))
        for own in line.beside:
            cells = [
                _cell(score, pair, own.top, line.n, signed=False)
                for score, pair in zip(own.scores, own.pairs, strict=True)
            ]
            table.add_row(Text(f"  {own.metric}"), *map(Text, cells))
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, legacy_windows=False).print(table)
    rows = [row.rstrip() for row in stream.getvalue().splitlines()]
    used = {sign for line in comparison.lines for score in line.scores if score for sign in _signs(score)}
    notes = [f"{sign} {SIGNS[sign]}" for sign in SIGNS if sign in used]
    return "\n".join([*[row for row in rows if row], *notes, PAIRED])


def _end_of(path: str, most: int) -> str:
    """A path without its beginning if it is long: its end tells runs apart."""
    return path if len(path) <= most else f"…{path[-most + 1 :]}"


def _cell(score: Score | None, pair: Pair | None, top: float, n: int, signed: bool = True) -> str:
    """signed: whether what is to be doubted about a headline is marked."""
    if score is None:
        return ABSENT
    ends = span(score.interval, top, n).removesuffix(" %")
    signs = _signs(score) if signed else []
    told = " ".join([amount(score.value, top, n), *([f"[{ends}]"] if ends else []), *signs])
    return "\n".join([told, *(_pair(pair, top, n) if pair else ())])


def _signs(score: Score) -> list[str]:
    return [sign for sign, holds in (("=", not score.is_above), ("?", score.unparsable > MOST_UNPARSABLE)) if holds]


def _pair(pair: Pair, top: float, n: int) -> list[str]:
    ends = gap_span(pair.interval, top, n)
    difference = gap(pair.difference, top, n)
    p = [] if pair.p is None else [f"McNemar p = {pair.p:.2g}"]
    return [f"{difference} [{ends}]" if ends else difference, *p, pair.reading]


def _titles(lines: Sequence[Line]) -> list[str]:
    """A title each; where two would be the same, with the settings in which those differ."""
    plain = [title(line.benchmark, line.split, line.variant, line.asked, line.n) for line in lines]
    settings = [dict(_flat(line.asked)) for line in lines]
    titles = []
    for name, own in zip(plain, settings, strict=True):
        alike = [other for other, its in zip(settings, plain, strict=True) if its == name]
        values = {key: Counter(_told(other.get(key)) for other in alike) for key in sorted(set().union(*alike))}
        titles.append(", ".join([name, *(f"{key}={_told(own.get(key))}" for key in values if len(values[key]) > 1)]))
    return titles


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield key, value


def _told(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= LONGEST else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
