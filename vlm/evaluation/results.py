"""Answers become results: scores with intervals, trivial baselines on the same rows, and what may be concluded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm.contracts.benchmark import Measure, Reply, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.contracts.writing import finite
from vlm.evaluation.bias import bias_of
from vlm.evaluation.conditions import SEEN
from vlm.evaluation.intervals import Resamples, percentile_interval, wilson
from vlm.evaluation.score import score_rows

CONTROLS = {  # condition -> the baseline it is
    "blank": "the model with grey pictures",
    "shuffled": "the model with other questions' pictures",
    "prior": "most frequent training answer to the same question",
}
MISSING = "missing: no prediction"  # fault of a question that a predictions file leaves out
TIED = "tied"
BLINDING = ("blank", "shuffled")
SIGHTLESS = tuple(CONTROLS[condition] for condition in BLINDING)
MOST_UNPARSABLE = 0.05  # share; with more, no clean headline
FEWEST_GROUPS = 6  # that differ: with five, all in favour, an exact sign test still says p = 0.06
TOO_LONG = ("text_long", "media_many")  # how the faults of prompts begin that do not fit
FEW_GROUPS = 40  # below, resampled intervals of 95 % cover 85 to 92 %
ABOVE, NOT_ABOVE = "above baseline", "not above baseline"
SEES, BLIND = "uses its pictures", "not shown to use its pictures"


@dataclass(frozen=True)
class Answered:
    """All answers to a benchmark under one group of settings.

    ids, groups, references: of the questions.   replies: condition -> question -> reply; "seen" holds every question.
    pictured: questions that show pictures, None for all.
    """

    benchmark: str
    scorer: Scorer
    variants: Sequence[str]
    split_by: Sequence[str]
    ids: Sequence[str]
    groups: Sequence[str]
    references: Sequence[Any]
    replies: Mapping[str, Mapping[str, Reply]]
    settings: Mapping[str, Any]
    pictured: frozenset[str] | None = None

    def scored(self, variant: str, condition: str = SEEN) -> list[Scored]:
        """Every question as one condition answered it. Raises: InputError if an answer is missing."""
        found = self.replies[condition]
        missing = [name for name in self.ids if name not in found]
        if missing:
            raise InputError(
                f"{self.benchmark}: {len(missing)} of {len(self.ids)} questions have no prediction ({condition}), first: "
                f"{', '.join(missing[:5])}; answer them, or count them as wrong with missing=unparsable"
            )
        said = [found[name] for name in self.ids]
        return score_rows(
            self.scorer, variant, self.ids, self.groups, [reply.prediction for reply in said], self.references,
            [reply.truncated for reply in said], strict=variant == self.variants[0],
        )  # fmt: skip


def results(answered: Answered) -> list[dict[str, Any]]:
    """Entries of results.json: each variant, on all rows and on each split; the first one is the headline."""
    if not answered.ids:
        raise InputError(f"{answered.benchmark}: there are no questions to score")
    entries = []
    for variant in answered.variants:
        seen = answered.scored(variant)
        controls = {
            name: answered.scored(variant, condition)
            for condition, name in CONTROLS.items()
            if condition in answered.replies
        }
        for split, places in splits_of(answered):
            entries.append(_entry(answered, variant, split, places, seen, controls))
    return entries


def splits_of(answered: Answered) -> Iterator[tuple[str, list[int]]]:
    """Name and places of the rows: of all, and of each value of the keys in split_by."""
    yield "all", list(range(len(answered.ids)))
    for key in answered.split_by:
        bare = sum(not isinstance(reference, Mapping) or key not in reference for reference in answered.references)
        if bare:
            raise InputError(
                f"{answered.benchmark}: split_by: the gold data of {bare} questions have no {key!r}; set "
                f"change.{answered.benchmark}.split_by=[] or name another key"
            )
        values = [str(reference[key]) for reference in answered.references]
        for value in sorted(set(values)) if len(set(values)) > 1 else ():
            yield f"{key}={value}", [place for place, other in enumerate(values) if other == value]


def _entry(
    answered: Answered,
    variant: str,
    split: str,
    places: Sequence[int],
    seen: Sequence[Scored],
    controls: Mapping[str, Sequence[Scored]],
) -> dict[str, Any]:
    rows = [seen[place] for place in places]
    is_headline = variant == answered.variants[0]
    shown = [number for number, row in enumerate(rows) if answered.pictured is None or row.id in answered.pictured]
    beside = {name: [scored[place] for place in places] for name, scored in controls.items()}
    if not shown:  # without pictures the controls are the same model asked the same
        beside = {name: scored for name, scored in beside.items() if name not in SIGHTLESS}
    others = _constants(answered.scorer, variant, rows, strict=is_headline) | beside
    figures = Figures(answered.scorer.measures(rows), rows)
    compared = {name: figures.against(answered.scorer.measures(other)[0], other) for name, other in others.items()}
    is_above = bool(compared) and all(
        found["interval"][0] > 0 and found["differing"] >= FEWEST_GROUPS for found in compared.values()
    )
    pictures = _sight(answered.scorer, rows, beside, shown) if shown else None
    faults = [answered.replies[SEEN][row.id].fault for row in rows]
    details = {
        "measures": figures.all(),
        "unparsable_n": sum(row.unparsable for row in rows),
        "truncated_n": sum(row.truncated for row in rows),
        "too_long_n": sum(fault is not None and fault.startswith(TOO_LONG) for fault in faults),
        "missing_n": sum(fault == MISSING for fault in faults),
        "tied_n": sum(fault is not None and fault.startswith(TIED) for fault in faults),
        "refused_n": sum(fault is not None and not fault.startswith((*TOO_LONG, MISSING, TIED)) for fault in faults),
        "median_words": float(np.median([len(row.prediction.split()) for row in rows])),
        "pictures": pictures,
        "bias": bias_of(answered, variant, rows) if is_headline else None,
    }
    entry = {
        "benchmark": answered.benchmark,
        "variant": variant,
        "headline": is_headline,
        "split": split,
        "n": len(rows),
        "groups": figures.resamples.count,
        "score": figures.value(0),
        "metric": figures.measures[0].name,
        "top": figures.measures[0].top,
        "interval": figures.interval(0),
        "unparsable": details["unparsable_n"] / len(rows),
        "truncated": details["truncated_n"] / len(rows),
        "baselines": {
            name: {key: found[key] for key in ("score", "difference", "interval")} for name, found in compared.items()
        },
        "verdict": ABOVE if is_above else NOT_ABOVE,
        "details": details,
        "settings": dict(answered.settings),
    }
    details["warnings"] = list(_warnings(entry))
    return finite(entry)


def _constants(scorer: Scorer, variant: str, rows: Sequence[Scored], strict: bool) -> dict[str, list[Scored]]:
    ids, groups = [row.id for row in rows], [row.group for row in rows]
    references = [row.reference for row in rows]
    return {
        name: score_rows(scorer, variant, ids, groups, said, references, strict=strict)
        for name, said in scorer.constants(references).items()
    }


def headline(scorer: Scorer, rows: Sequence[Scored]) -> tuple[float, tuple[float, float]]:
    """The first figure of some rows and its 95 % interval."""
    figures = Figures(scorer.measures(rows)[:1], rows)
    return figures.value(0), figures.interval(0)


class Figures:
    """Measures of one model's rows with their intervals, and what others reach on the same rows."""

    def __init__(self, measures: Sequence[Measure], rows: Sequence[Scored]) -> None:
        self.measures, self.rows = list(measures), rows
        self.resamples = Resamples([row.group for row in rows])
        self.sums = [measure.columns.sum(0) for measure in measures]
        self.draws = [self.resamples.sums(measure.columns) for measure in measures]

    def value(self, number: int) -> float:
        return float(self.measures[number].combine(self.sums[number]))

    def interval(self, number: int) -> tuple[float, float]:
        """95 %: Wilson where rows are independent and right or wrong, else over resampled groups."""
        measure = self.measures[number]
        if self.resamples.count < 2:
            return math.nan, math.nan  # one group tells nothing about the spread over groups
        is_share = measure.is_mean and all(row.score in (0.0, 1.0) for row in self.rows)
        if is_share and self.resamples.count == len(self.rows):
            return wilson(sum(row.score for row in self.rows), len(self.rows))
        low, high = percentile_interval(measure.combine(self.draws[number]))
        if low == high and low in (
            0.0,
            measure.top,
        ):  # all groups at an end: no resample leaves it, which is no certainty
            ends = wilson(self.resamples.count * low / measure.top, self.resamples.count)
            return measure.top * ends[0], measure.top * ends[1]
        return low, high

    def all(self) -> dict[str, dict[str, Any]]:
        return {
            measure.name: {"value": self.value(number), "interval": self.interval(number), "top": measure.top}
            for number, measure in enumerate(self.measures)
        }

    def against(self, measure: Measure, rows: Sequence[Scored]) -> dict[str, Any]:
        """The headline minus another's on the same rows, in pairs: score, difference, interval, differing groups."""
        own, other = np.array([row.score for row in self.rows]), np.array([row.score for row in rows])
        return self._against(0, measure, (own - other)[:, None])

    def beside(self, number: int, measure: Measure) -> dict[str, Any]:
        """The same of any measure, which another's rows have too."""
        return self._against(number, measure, self.measures[number].columns - measure.columns)

    def _against(self, number: int, measure: Measure, changes: np.ndarray) -> dict[str, Any]:
        """changes [n, K]: of each row; a group whose changes cancel out does not differ."""
        value = float(measure.combine(measure.columns.sum(0)))
        drawn = self.resamples.sums(measure.columns)
        net = np.zeros((self.resamples.count, changes.shape[1]))
        np.add.at(net, self.resamples.group_of, changes)
        return {
            "score": value,
            "difference": self.value(number) - value,
            "interval": percentile_interval(self.measures[number].combine(self.draws[number]) - measure.combine(drawn)),
            "differing": int((np.abs(net) > 1e-9).any(1).sum()),
        }


def _sight(
    scorer: Scorer, rows: Sequence[Scored], beside: Mapping[str, Sequence[Scored]], shown: Sequence[int]
) -> dict[str, Any] | None:
    """Whether taking the pictures away lowers the score on the rows that show any, by the controls that were run.

    Grey pictures alone prove nothing: a model may answer them with a constant and guess at all others.
    """
    seen = [rows[number] for number in shown]
    figures = Figures(scorer.measures(seen)[:1], seen)
    run = {}
    for condition in BLINDING:
        if CONTROLS[condition] in beside:
            other = [beside[CONTROLS[condition]][number] for number in shown]
            run[condition] = figures.against(scorer.measures(other)[0], other)
    if not run:
        return None
    lower = all(found["interval"][0] > 0 and found["differing"] >= FEWEST_GROUPS for found in run.values())
    return {"verdict": SEES if lower and "shuffled" in run else BLIND, "controls": run}


def _warnings(entry: Mapping[str, Any]) -> Iterator[str]:
    details = entry["details"]
    if entry["unparsable"] > MOST_UNPARSABLE:
        yield (
            f"{entry['unparsable']:.1%} of the answers could not be read and count as wrong: this is a score of "
            "following the format, too"
        )
    if entry["truncated"] > MOST_UNPARSABLE:
        yield f"{entry['truncated']:.1%} of the answers were cut at the longest length; raise max_new_tokens"
    if details["too_long_n"]:
        yield f"{details['too_long_n']} prompts do not fit into the model's positions; they count as wrong"
    if details["refused_n"]:
        yield f"{details['refused_n']} questions could not be put to this model; they count as wrong"
    if details["tied_n"]:
        yield f"{details['tied_n']} questions had equally probable answers; taking one would be a guess, so they count as wrong"
    if details["missing_n"]:
        yield f"{details['missing_n']} questions have no prediction; they count as wrong"
    if details["pictures"] is not None and details["pictures"]["verdict"] == BLIND:
        yield "blind: the score is not shown to fall without the right pictures"
    if not set(CONTROLS.values()) & set(entry["baselines"]):
        yield "compared with constants alone: neither the model without its pictures nor training answers are known here"
    if entry["groups"] < FEW_GROUPS:
        yield f"only {entry['groups']} independent groups: intervals are too narrow, most of all near the ends"
    bias = details["bias"]
    yield from (bias or {}).get("flags", ())
