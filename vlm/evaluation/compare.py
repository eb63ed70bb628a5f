"""Several models on the same questions: what each scores, and how far each differs from the first, in pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.contracts.benchmark import Measure, Scored
from vlm.contracts.errors import InputError
from vlm.evaluation.intervals import mcnemar
from vlm.evaluation.records import RESULTS, SCORED, answered, read_entries
from vlm.evaluation.results import ABOVE, FEWEST_GROUPS, Answered, Figures, splits_of

ASKED_ALIKE = ("benchmark", "limit", "seed", "ocr", "data", "token_budget")  # settings that must agree
HIGHER, LOWER = "higher than the first", "lower than the first"  # of measures that say nothing of better or worse
BETTER, WORSE, UNCLEAR = "better than the first", "worse than the first", "no difference shown"


@dataclass(frozen=True)
class Score:
    """A model's headline. interval: 95 %.   unparsable: share of its answers.   is_above: each of its baselines."""

    value: float | None
    interval: tuple[float | None, float | None]
    unparsable: float
    is_above: bool


@dataclass(frozen=True)
class Pair:
    """A model minus the first one on the same questions. interval: paired, 95 %, groups resampled alike for both.

    p: McNemar's exact, None unless questions are independent, right or wrong, and the score is their mean.
    """

    difference: float
    interval: tuple[float, float]
    p: float | None
    reading: str


@dataclass(frozen=True)
class Beside:
    """Another measure of the same answers, such as how often something was invented; fields as those of `Line`."""

    metric: str
    top: float
    scores: tuple[Score | None, ...]
    pairs: tuple[Pair | None, ...]


@dataclass(frozen=True)
class Line:
    """What was asked and scored alike. asked: the settings that agree.   top: the metric's greatest value.

    scores: of each model, None where it has none.   pairs: of each model with the first, None where one has no score.
    beside: the other measures, on all questions; those of the splits stand in each model's results.
    """

    benchmark: str
    split: str
    variant: str
    n: int
    metric: str
    top: float
    asked: Mapping[str, Any]
    scores: tuple[Score | None, ...]
    pairs: tuple[Pair | None, ...]
    beside: tuple[Beside, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """models: as they were named, the first to be compared with."""

    models: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class _Sheet:
    """One benchmark of one model. headlines: split -> entry of results.json."""

    path: Path
    model: Path
    asked: dict[str, Any]
    variant: str
    headlines: Mapping[str, Mapping[str, Any]]


def compared(models: Sequence[Path]) -> Comparison:
    """Each model against the first, on every benchmark and split that both answered under the same settings.

    models: run folders, models, or their evaluation folders.
    Raises: InputError for a model without results, or without a benchmark in common with the first.
    """
    if len(models) < 2:
        raise InputError("compare: give at least two models, compare=[A,B]")
    found = [_sheets(model) for model in models]
    for model, sheets in zip(models[1:], found[1:], strict=True):
        if not found[0].keys() & sheets.keys():
            raise InputError(
                f"compare: {models[0]} and {model} have no benchmark in common that was asked alike (same files, "
                "prompt, limit, seed, ocr) and scored alike; evaluate both with the same command"
            )
    keys = sorted({key for sheets in found for key in sheets})
    lines = [line for key in keys for line in _lines([sheets.get(key) for sheets in found])]
    return Comparison(tuple(map(str, models)), tuple(lines))


def folder_of(model: Path) -> Path:
    """The evaluation folder of a run, a model, or itself."""
    for folder in (model, model / "evaluation"):
        if (folder / RESULTS).is_file() and (folder / "sheets").is_dir():
            return folder
    raise InputError(
        f"compare: {model} has no evaluation (results.json and sheets/); run experiments.evaluate on it first"
    )


def _sheets(model: Path) -> dict[tuple[str, str], _Sheet]:
    """What was asked -> the sheet of the answers; of several with the same questions, the newest."""
    found = {}
    files = (folder_of(model) / "sheets").glob(f"*/{SCORED}")
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns):
        headlines = {entry["split"]: entry for entry in read_entries(file) if entry["headline"]}
        first = next(iter(headlines.values()))
        settings = first["settings"]
        asked = {key: settings.get(key) for key in ASKED_ALIKE}
        if asked["limit"] is None:
            del asked["seed"]  # it draws the questions, and here all are asked
        key = first["benchmark"], json.dumps([asked, first["variant"]], sort_keys=True)
        found[key] = _Sheet(file.parent, model, asked, first["variant"], headlines)
    return found


def _lines(sheets: Sequence[_Sheet | None]) -> Iterator[Line]:
    """Of each split. sheets: of each model, the same questions."""
    first, *others = sheets
    pairs = [{}, *(_pairs(first, other) if first and other else {} for other in others)]
    for split in dict.fromkeys(split for sheet in sheets if sheet for split in sheet.headlines):
        own = [sheet.headlines.get(split) if sheet else None for sheet in sheets]
        entry, asked = next((entry, sheet.asked) for entry, sheet in zip(own, sheets, strict=True) if entry and sheet)
        yield Line(
            benchmark=entry["benchmark"],
            split=split,
            variant=entry["variant"],
            n=entry["n"],
            metric=entry["metric"],
            top=entry["top"],
            asked=asked,
            scores=tuple(_score(entry) if entry else None for entry in own),
            pairs=tuple(found[split][0] if split in found else None for found in pairs),
            beside=tuple(_beside(own, [found.get(split, ()) for found in pairs])) if split == "all" else (),
        )


def _beside(own: Sequence[Mapping[str, Any] | None], pairs: Sequence[Sequence[Pair]]) -> Iterator[Beside]:
    """own: of each model its entry of results.json.   pairs: of each model, for every measure, () for none."""
    known = next(entry for entry in own if entry)["details"]["measures"]
    for number, (name, measure) in list(enumerate(known.items()))[1:]:
        scores = tuple(_measured(entry, name) if entry else None for entry in own)
        yield Beside(name, measure["top"], scores, tuple(found[number] if found else None for found in pairs))


def _score(entry: Mapping[str, Any]) -> Score:
    low, high = entry["interval"]
    return Score(entry["score"], (low, high), entry["unparsable"], entry["verdict"] == ABOVE)


def _measured(entry: Mapping[str, Any], name: str) -> Score:
    found = entry["details"]["measures"][name]
    low, high = found["interval"]
    return Score(found["value"], (low, high), entry["unparsable"], is_above=True)  # no baseline is known of it


def _pairs(first: _Sheet, other: _Sheet) -> dict[str, list[Pair]]:
    """Split -> the two models on it, of all questions by every measure, the headline first."""
    one, two = answered(first.path), answered(other.path)
    if one.ids != two.ids:
        raise InputError(
            f"compare: {one.benchmark}: {first.model} and {other.model} hold other questions of the same files; "
            "evaluate both again with one version of this project"
        )
    rows = one.scored(first.variant), two.scored(first.variant)
    both = [(split, places) for split, places in splits_of(one) if split in other.headlines]
    found = {}
    for split, places in both:
        own = ([given[place] for place in places] for given in rows)
        found[split] = _compared(one, *own, most=None if split == "all" else 1)
    return found


def _compared(asked: Answered, first: Sequence[Scored], other: Sequence[Scored], most: int | None) -> list[Pair]:
    """By the headline, then by every other measure, of which nothing says whether more is better. most: measures."""
    own, base = Figures(asked.scorer.measures(other)[:most], other), asked.scorer.measures(first)[:most]
    headline = _pair(own.against(base[0], first), _mcnemar(base[0], first, other), (BETTER, WORSE))
    rest = [_pair(own.beside(number, base[number]), None, (HIGHER, LOWER)) for number in range(1, len(base))]
    return [headline, *rest]


def _pair(found: Mapping[str, Any], p: float | None, readings: tuple[str, str]) -> Pair:
    low, high = found["interval"]
    reading = UNCLEAR
    if found["differing"] >= FEWEST_GROUPS:  # as for baselines: with fewer, all in favour, it may be chance
        reading = readings[0] if low > 0 else readings[1] if high < 0 else UNCLEAR
    return Pair(found["difference"], (low, high), p, reading)


def _mcnemar(measure: Measure, first: Sequence[Scored], second: Sequence[Scored]) -> float | None:
    is_independent = len({row.group for row in first}) == len(first)
    if not measure.is_mean or not is_independent or any(row.score not in (0.0, 1.0) for row in (*first, *second)):
        return None
    pairs = [(one.score, two.score) for one, two in zip(first, second, strict=True)]
    return mcnemar(pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0)))
