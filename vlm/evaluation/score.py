"""One answer, or all answers to a benchmark, against its gold data: no model, no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from vlm.contracts.benchmark import Scored, Scorer
from vlm.contracts.errors import InputError

SCORERS = Path(__file__).parent / "scorers"


def scorer(name: str) -> Scorer:
    """The scorer of a benchmark: `SCORER` of its module in `scorers/`. Raises: InputError for an unknown name."""
    known = names()
    if name not in known:
        raise InputError(f"scorer {name!r} is unknown; choose one of {', '.join(known)}")
    return import_module(f"vlm.evaluation.scorers.{name}").SCORER


@cache
def names() -> list[str]:
    """Benchmarks that have a scorer."""
    return sorted(path.stem for path in SCORERS.glob("*.py") if "SCORER = " in path.read_text("utf-8"))


def score_answer(benchmark: str, prediction: Any, reference: Any, variant: str | None = None) -> dict[str, Any]:
    """The public scorer's record of one answer, or of a list of answers scored together.

    benchmark: a name such as "pope".   prediction: the raw output, or a list with `reference` in its order.
    variant: a scoring variant, None for the default.
    Returns: `score` 0..1 and what was read; of a list, the figures that the public scorer prints.
    Raises: InputError for an unknown benchmark or variant.
    """
    found = scorer(benchmark)
    name = variant or found.default
    together = isinstance(prediction, list | tuple)
    one_question = name in found.listed and together and all(isinstance(said, str) for said in prediction)
    if together and f"{name}-agg" in found.totals and not one_question:
        name = f"{name}-agg"
    if name in found.totals:
        if together and isinstance(reference, list | tuple) and not len(prediction) == len(reference) > 0:
            raise InputError(f"benchmark {benchmark}: {len(prediction)} predictions for {len(reference)} references")
        return _told(benchmark, found.totals[name], prediction, reference)
    if name not in found.cases:
        known = ", ".join([*found.cases, *found.totals])
        raise InputError(f"benchmark {benchmark} has no variant {name!r}; choose one of {known}")
    return _told(benchmark, found.cases[name], prediction, reference)


def _told(
    benchmark: str, call: Callable[[Any, Any], dict[str, Any]], prediction: Any, reference: Any
) -> dict[str, Any]:
    """Raises: InputError for what is not of the benchmark's form."""
    try:
        return call(prediction, reference)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"benchmark {benchmark}: {str(prediction)[:80]!r} with reference {str(reference)[:80]!r} is not of its form "
            f"({type(error).__name__}: {error}); tests/fixtures/eval has examples"
        ) from error


def score_rows(
    benchmark: Scorer,
    variant: str,
    ids: Sequence[str],
    groups: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[Any],
    truncated: Sequence[bool] | None = None,
    strict: bool = True,
) -> list[Scored]:
    """Every answer read and scored by one variant.

    strict: what could not be read is never right, whatever the public scorer makes of it.
    """
    case = benchmark.cases[variant]
    rows = []
    for number, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        try:
            record: Mapping[str, Any] = case(prediction, reference)
        except InputError as error:
            raise InputError(f"question {ids[number]}: {error}") from error
        unparsable = benchmark.unparsable(prediction, reference, record)
        parsed = None if unparsable else benchmark.parsed(record)
        score = 0.0 if unparsable and strict else float(record["score"] or 0.0)
        cut = bool(truncated[number]) if truncated is not None else False
        rows.append(Scored(ids[number], groups[number], prediction, reference, parsed, score, unparsable, cut))
    return rows
