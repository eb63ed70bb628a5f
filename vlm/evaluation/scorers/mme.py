"""MME: two questions a picture, one with the answer yes and one with no, in 14 categories (Fu et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vlm.contracts.benchmark import Case, Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.gold import value
from vlm.evaluation.scorers.measures import mean, ratio
from vlm.evaluation.scorers.yesno import Label, constants, gold_label, yes_or_no

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
WINDOW = 4  # characters in which yes or no is looked for: "know" and "now" are read as no
TOP = 200.0  # of a category: 100 for right questions and 100 for pictures with both right
RIGHT, ASKED, BOTH, PICTURES = range(4)  # columns of a category


def official(text: str) -> Label | None:
    """Yes, or else no, among the first four characters. Source: calculate_metrics.py of MME."""
    start = text.lower()[:WINDOW]
    return "yes" if "yes" in start else "no" if "no" in start else None


def lmms(text: str) -> Label | None:
    """As official without surrounding blanks and full stops; y and n alone count. Source: lmms-eval, tasks/mme."""
    text = text.lower().strip().replace(".", "")
    return {"y": "yes", "n": "no"}.get(text) or official(text)  # type: ignore[return-value]


def measures(rows: Sequence[Scored]) -> list[Measure]:
    """The total over categories, its two parts where they occur, and the plain accuracy.

    Raises: InputError for a picture with other than two questions in a category.
    """
    categories, columns = _columns([row.reference for row in rows], [row.score for row in rows])

    def total(name: str, chosen: Sequence[str]) -> Measure:
        places = [4 * categories.index(category) + part for category in chosen for part in range(4)]
        return Measure(name, columns[:, places], _total, top=TOP * len(chosen))

    found = [total("total", categories)]
    for name, members in (("perception", PERCEPTION), ("cognition", COGNITION)):
        if chosen := [category for category in categories if category in members]:
            found.append(total(name, chosen))
    return [*found, mean(rows)]


def _total(sums: np.ndarray) -> np.ndarray:
    parts = sums.reshape(*sums.shape[:-1], -1, 4)
    values = 100 * (ratio(parts[..., RIGHT], parts[..., ASKED]) + ratio(parts[..., BOTH], parts[..., PICTURES]))
    known = ~np.isnan(values)  # a resample may have drawn none of a category: the others' mean stands for it
    return values.shape[-1] * ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1))


def _columns(references: Sequence[Any], scores: Sequence[float]) -> tuple[list[str], np.ndarray]:
    """Categories in order of their first rows, and what each row adds [n, 4 x categories]; a pair on its first row."""
    pairs: dict[tuple[str, str], list[int]] = {}
    for number, reference in enumerate(references):
        pairs.setdefault((value(reference, "category"), value(reference, "image")), []).append(number)
    categories = list(dict.fromkeys(category for category, _ in pairs))
    columns = np.zeros((len(references), len(categories), 4))
    for (category, image), rows in pairs.items():
        if len(rows) != 2:
            raise InputError(
                f"MME: picture {image!r} of category {category!r} has {len(rows)} rows, not two: score both questions "
                "of every picture, and name pictures by category and file"
            )
        place = categories.index(category)
        columns[rows, place, RIGHT] = [scores[row] for row in rows]
        columns[rows, place, ASKED] = 1.0
        columns[rows[0], place, BOTH] = min(scores[row] for row in rows)
        columns[rows[0], place, PICTURES] = 1.0
    return categories, columns.reshape(len(references), -1)


def _case(read: Callable[[str], Label | None]) -> Case:
    def case(prediction: str, reference: Any) -> dict[str, Any]:
        label = read(prediction)
        return {"label": label, "score": int(label == gold_label(reference, "answer"))}

    return case


def _totals(case: Case, *keys: str) -> Callable[[Sequence[Any], Sequence[Any]], dict[str, Any]]:
    """The sums that a public scorer prints; `keys` of perception, cognition, total, categories."""

    def totals(predictions: Sequence[str], references: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        scores = [case(*pair)["score"] for pair in zip(predictions, references, strict=True)]
        categories, columns = _columns(references, scores)
        sums = columns.sum(0).reshape(-1, 1, 4)
        values = {category: float(_total(part[0])) for category, part in zip(categories, sums, strict=True)}
        found: dict[str, Any] = {
            "perception": sum(values.get(category, 0.0) for category in PERCEPTION),
            "cognition": sum(values.get(category, 0.0) for category in COGNITION),
            "categories": values,
        }
        found["total"] = found["perception"] + found["cognition"]
        return {key: found[key] for key in keys}

    return totals


CASES = {"lmms": _case(lmms), "official": _case(official), "vlmevalkit": _case(yes_or_no)}

SCORER = Scorer(
    whole_groups=True,
    default="lmms",
    cases=CASES,
    totals={
        "lmms-agg": _totals(CASES["lmms"], "perception", "cognition", "total"),
        "official-agg": _totals(CASES["official"], "perception", "cognition", "total", "categories"),
        "vlmevalkit-agg": _totals(CASES["vlmevalkit"], "perception", "cognition", "categories"),
    },
    measures=measures,
    constants=constants,
    unparsable=lambda prediction, reference, record: record["label"] is None,
    parsed=lambda record: record["label"],
)
