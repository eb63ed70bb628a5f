"""One self-contained page about where an encoder puts its tokens, and what each budget costs and is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vlm.contracts.writing import write_whole
from vlm.evaluation.text import amount, share, span
from vlm.reporting.budget_chart import draw_budgets
from vlm.reporting.token_pictures import boxes, heat_map, heat_scale, picture
from vlm.reporting.token_records import NAMES, Looked, Seen


@dataclass(frozen=True)
class Level:
    """Tokens of one level. area: their share of the picture."""

    number: int
    name: str
    tokens: float
    area: float


@dataclass(frozen=True)
class Shown:
    """A picture at one budget. heat: its saliency as a data URI, None without any."""

    tokens: int
    levels: Sequence[Level]
    drawing: Markup
    heat: str | None


@dataclass(frozen=True)
class Row:
    """A budget in the table. levels: means over the pictures.   seconds: median, least and greatest of a pass."""

    budget: int
    levels: Sequence[Level]
    seconds: tuple[float, float, float]
    scores: Sequence[tuple[float, tuple[float, float] | None] | None]


def write_tokens(looked: Looked, out: Path) -> Path:
    """Writes the page; one that was there is replaced in one step. Raises: RunError if it cannot be written."""
    write_whole(out, [render(looked)], "choose another file with out=FILE")
    return out


def render(looked: Looked) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("vlm.reporting", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(seconds=seconds, share=share, count=_count)
    environment.globals.update(amount=amount, span=span)
    low, high = _reach(looked.pictures)
    rows = _rows(looked)
    return environment.get_template("tokens.html.j2").render(
        looked=looked,
        budgets=sorted(looked.times),
        rows=rows,
        levels=sorted({level.number: level.name for row in rows for level in row.levels}.items()),
        pictures=list(_pictures(looked, low, high)),
        scale=heat_scale(),
        low=low,
        high=high,
        charts=list(_charts(looked)),
        commands=_commands(looked),
    )


def seconds(value: float) -> str:
    """1.24 s, 12.4 ms: three figures."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _rows(looked: Looked) -> list[Row]:
    numbers = sorted({level for seen in looked.pictures for cut in seen.cuts for level in cut.shares()})
    rows = []
    for place, budget in enumerate(sorted(looked.times)):
        shares = [seen.cuts[place].shares() for seen in looked.pictures]
        levels = []
        for number in numbers:
            own = [share.get(number, (0, 0.0)) for share in shares]
            means = [sum(values) / len(own) for values in zip(*own, strict=True)]
            levels.append(Level(number, _name(number, numbers), *means))
        spent = looked.times[budget]
        found = [scores.points.get(budget) for scores in looked.scores]
        rows.append(Row(budget, levels, (median(spent), min(spent), max(spent)), found))
    return rows


def _pictures(looked: Looked, low: float, high: float) -> Iterator[tuple[str, Markup, list[Shown]]]:
    """Name, the picture itself, and what is shown of it."""
    numbers = sorted({level for seen in looked.pictures for cut in seen.cuts for level in cut.shares()})
    for number, seen in enumerate(looked.pictures):
        identity = f"view-{number}"
        shown = []
        for cut in seen.cuts:
            levels = [Level(level, _name(level, numbers), *found) for level, found in cut.shares().items()]
            words = f"{seen.name}: {len(cut.boxes)} tokens, {_words(levels)}"
            # The drawings are XML built from escaped parts.
            drawing = Markup(boxes(cut, seen.view, identity, words))
            heat = None if cut.saliency is None else heat_map(cut, seen.view, low, high)
            shown.append(Shown(len(cut.boxes), levels, drawing, heat))
        yield seen.name, Markup(picture(seen.view, identity)), shown


def _words(levels: Sequence[Level]) -> str:
    return ", ".join(f"{_count(level.tokens)} {level.name} over {share(level.area)} of the picture" for level in levels)


def _name(level: int, numbers: Sequence[int]) -> str:
    return NAMES[level] if max(numbers) < len(NAMES) else f"level {level}"


def _reach(pictures: Sequence[Seen]) -> tuple[float, float]:
    """Least and greatest saliency of the page: one scale for all of it, so that pictures can be compared."""
    cuts = [cut.saliency for seen in pictures for cut in seen.cuts]
    values = [saliency for saliency in cuts if saliency is not None and len(saliency)]
    if not values:
        return 0.0, 1.0
    return min(float(value.min()) for value in values), max(float(value.max()) for value in values)


def _charts(looked: Looked) -> Iterator[tuple[str, Markup]]:
    for number, scores in enumerate(looked.scores):
        if len(scores.points) < 2:
            continue  # a single point stands in the table
        heading = f"{scores.metric}, {scores.name}"
        drawing = draw_budgets(
            scores.points, heading, f"score-{number}", lambda value, top=scores.top: amount(value, top), scores.chance
        )
        yield heading, Markup(drawing)
    times = {budget: (median(spent), (min(spent), max(spent))) for budget, spent in looked.times.items()}
    heading = f"{'CPU seconds' if looked.on_cpu else 'Device seconds'} of the encoder, one picture"
    yield heading, Markup(draw_budgets(times, heading, "seconds", seconds))


def _commands(looked: Looked) -> list[tuple[str, str]]:
    """What is not measured at some of the page's budgets, and the command that measures it."""
    found = []
    evaluated = [scores for scores in looked.scores if scores.benchmark != "validation"]
    for scores in evaluated:
        missing = [budget for budget in looked.reachable if budget not in scores.points]
        if missing:
            found.append(
                (f"{scores.name} at {_listed(missing)}", _command(looked, scores.benchmark, missing, scores.limit))
            )
    if not evaluated and looked.reachable:
        found.append(("No benchmark", _command(looked, looked.benchmark, looked.reachable, None)))
    return found


def _listed(budgets: Sequence[int]) -> str:
    return f"{', '.join(map(str, budgets))} tokens"


def _command(looked: Looked, benchmark: str, budgets: Sequence[int], limit: int | None) -> str:
    parts = [f"benchmarks=[{benchmark}]", *([f"limit={limit}"] if limit is not None else [])]
    parts += [f"token_budget={','.join(map(str, budgets))}", *(["-m"] if len(budgets) > 1 else [])]
    return " ".join(["python -m experiments.evaluate", f"model={looked.model}", *parts])
