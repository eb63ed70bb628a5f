"""Several models on the same questions: differences in pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm.contracts.benchmark import Scored
from vlm.contracts.errors import InputError
from vlm.evaluation.intervals import mcnemar
from vlm.evaluation.records import RESULTS, answered
from vlm.evaluation.results import Figures
from vlm.evaluation.text import figure

HEAD = ("benchmark", "n", "first", "other", "difference", "95 %", "McNemar p", "reading")
ASKED_ALIKE = ("benchmark", "limit", "seed", "ocr", "data", "token_budget")  # settings that must agree


def compared(models: Sequence[Path]) -> str:
    """A table of each model against the first, on every benchmark that both answered under the same settings.

    Raises: InputError for a model without results, or without a benchmark in common.
    """
    if len(models) < 2:
        raise InputError("compare: give at least two models, compare=[A,B]")
    first, *others = [_sheets(folder_of(model)) for model in models]
    rows = [HEAD]
    for model, other in zip(models[1:], others, strict=True):
        both = sorted(first.keys() & other.keys())
        if not both:
            raise InputError(
                f"compare: {models[0]} and {model} have no benchmark in common that was asked alike (same files, prompt, "
                "limit, seed, ocr); evaluate both with the same command"
            )
        rows += [_row(first[key], other[key], model) for key in both]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def folder_of(model: Path) -> Path:
    """The evaluation folder of a run, a model, or itself."""
    for folder in (model, model / "evaluation"):
        if (folder / RESULTS).is_file() and (folder / "sheets").is_dir():
            return folder
    raise InputError(f"compare: {model} has no evaluation (results.json and sheets/); run experiments.evaluate on it first")


def _sheets(folder: Path) -> dict[str, Path]:
    """What was asked -> the sheet of the answers; of several with the same questions, the newest."""
    found: dict[str, Path] = {}
    for path in sorted((folder / "sheets").glob("*/results.json"), key=lambda path: path.stat().st_mtime):
        settings = answered(path.parent).settings
        found[repr({key: settings.get(key) for key in ASKED_ALIKE})] = path.parent
    return found


def _row(first: Path, other: Path, model: Path) -> tuple[str, ...]:
    one, two = answered(first), answered(other)
    variant = one.variants[0]
    rows: dict[str, list[Scored]] = {"one": one.scored(variant), "two": two.scored(variant)}
    own = Figures(two.scorer.measures(rows["two"]), rows["two"])
    found = own.against(one.scorer.measures(rows["one"])[0], rows["one"])
    top = own.measures[0].top
    low, high = found["interval"]
    reading = "other is better" if low > 0 else "first is better" if high < 0 else "no difference shown"
    return (
        f"{one.benchmark} ({variant}): {model}",
        str(len(one.ids)),
        figure(found["score"], top),
        figure(own.value(0), top),
        figure(found["difference"], top),
        f"{figure(low, top)}..{figure(high, top)}",
        _mcnemar(rows["one"], rows["two"]),
        reading,
    )


def _mcnemar(first: Sequence[Scored], second: Sequence[Scored]) -> str:
    """Only of rows that are right or wrong and independent of each other."""
    groups: Mapping[str, Any] = defaultdict(int, {row.group: 1 for row in first})
    if len(groups) < len(first) or any(row.score not in (0.0, 1.0) for row in (*first, *second)):
        return "-"
    pairs = [(one.score, two.score) for one, two in zip(first, second, strict=True)]
    return f"{mcnemar(pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0))):.3g}"
