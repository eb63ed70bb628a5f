"""Scores by token budget, out of what a run's folder already holds; nothing is measured here, and nothing is made up."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from vlm.evaluation.compare import ASKED_ALIKE
from vlm.evaluation.text import is_number, title
from vlm.reporting.evaluation_records import Entry, read_results
from vlm.reporting.runs import read_run
from vlm.reporting.token_records import Scores

BY_BUDGET = re.compile(r"val/retrieval_r1_(\d+)")


def measured(run: Path, weights: str, own_budget: int) -> list[Scores]:
    """Headlines of the run's evaluation/ on all questions, and retrieval that its validations logged.

    weights: fingerprint of the model that is shown; results of other weights are left out.   own_budget: what an
    evaluation that names none was asked with.   Raises: InputError for results that cannot be read.
    """
    results = run / "evaluation/results.json"
    found = _evaluated(read_results(results), weights, own_budget) if results.is_file() else iter(())
    return [*found, *_validated(run)]


def _evaluated(entries: list[Entry], weights: str, own_budget: int) -> Iterator[Scores]:
    """One for everything that was asked alike but for the budget."""
    alike: dict[str, dict[int, Entry]] = defaultdict(dict)
    for entry in entries:
        settings = entry.settings
        if not entry.headline or entry.split != "all" or settings.get("weights") != weights:
            continue
        asked = {key: settings.get(key) for key in ASKED_ALIKE if key != "token_budget"}
        key = json.dumps([entry.benchmark, entry.variant, asked], sort_keys=True)
        budget = settings.get("token_budget")
        alike[key].setdefault(own_budget if budget is None else int(budget), entry)
    for members in alike.values():
        first = next(iter(members.values()))
        points = {
            budget: (entry.score, _ends(entry))
            for budget, entry in sorted(members.items())
            if entry.score is not None and is_number(entry.score)
        }
        if points:
            settings = {**first.settings, "token_budget": None}
            yield Scores(
                benchmark=first.benchmark,
                name=title(first.benchmark, "all", first.variant, settings, first.n),
                metric=first.metric,
                n=first.n,
                top=first.top,
                points=points,
                limit=first.settings.get("limit"),
            )


def _ends(entry: Entry) -> tuple[float, float] | None:
    low, high = entry.interval or (None, None)
    return (low, high) if low is not None and high is not None and is_number(low) and is_number(high) else None


def _validated(run: Path) -> Iterator[Scores]:
    """The last validation of a contrastive run: it logs no interval of the single budgets."""
    if not (run / "metrics.jsonl").is_file():
        return
    rows = [row for row in read_run(run, run).rows if any(BY_BUDGET.fullmatch(name) for name in row)]
    if not rows:
        return
    last = rows[-1]
    points = {int(found[1]): (float(last[name]), None) for name in last if (found := BY_BUDGET.fullmatch(name))}
    yield Scores(
        benchmark="validation",
        name=f"held-out retrieval of the run itself, step {last['step']:,}",
        metric="R@1",
        n=int(last.get("val/samples", 0)),
        top=1.0,
        points=dict(sorted(points.items())),
        chance=last.get("val/chance_r1"),
    )
