"""POPE: is a thing in the picture, yes or no (Li et al. 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vlm.contracts.benchmark import Case, Measure, Scored, Scorer
from vlm.evaluation.scorers.gold import value
from vlm.evaluation.scorers.measures import mean, ratio
from vlm.evaluation.scorers.yesno import Label, constants, gold_label, yes_or_no

Pair = tuple[Label | None, Label]  # what was read, and the gold answer
Read = Callable[[str], Label | None]

CATEGORIES = ("random", "popular", "adversarial")
TP, FP, FN, TN, YES, ALL = range(6)  # columns; an unreadable answer to a gold yes is a miss, so it is in FN


def official(text: str) -> Label | None:
    """No if one of the words No, no, not stands in the first sentence, else yes, also for nothing at all.

    Source: evaluate.py of POPE, eval_pope.py of LLaVA.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def lmms(text: str) -> Label | None:
    """Nothing but the word itself, in any case. Source: lmms-eval, tasks/pope."""
    word = text.strip().lower()
    return "yes" if word == "yes" else "no" if word == "no" else None


def measures(rows: Sequence[Scored]) -> list[Measure]:
    """Accuracy; precision, recall and F1 of yes, over all rows; share of yes; mean of the categories' F1."""
    counts = np.zeros((len(rows), 6))
    for row, scored in zip(counts, rows, strict=True):
        is_yes, said_yes = gold_label(scored.reference, "label") == "yes", scored.parsed == "yes"
        row[TP if is_yes and said_yes else FN if is_yes else FP if said_yes else TN] = 1.0
        row[YES], row[ALL] = said_yes, 1.0
    found = [
        mean(rows),
        Measure("precision", counts, lambda sums: ratio(sums[..., TP], sums[..., TP] + sums[..., FP])),
        Measure("recall", counts, lambda sums: ratio(sums[..., TP], sums[..., TP] + sums[..., FN])),
        Measure("f1", counts, _f1),
        Measure("yes_ratio", counts, lambda sums: ratio(sums[..., YES], sums[..., ALL])),
    ]
    categories = [row.reference.get("category") if isinstance(row.reference, Mapping) else None for row in rows]
    names = sorted({name for name in categories if name})
    if len(names) > 1:
        columns = np.concatenate([counts * np.array([[name == own] for own in categories]) for name in names], axis=1)
        found.append(Measure("f1_mean", columns, _mean_f1))
    return found


def official_total(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, Any]:
    """Of all rows and of each category; None and an error where the official script divides by zero."""
    pairs = _pairs(official, predictions, references)
    found: dict[str, Any] = {}
    for name, part in {"overall": pairs, **_by_category(pairs, references, CATEGORIES)}.items():
        tp, fp, tn, fn = _counts(part)
        found[name] = {"TP": tp, "FP": fp, "TN": tn, "FN": fn}
        if not tp:  # then precision, recall or F1 is 0 / 0, and the script ends
            failed = dict.fromkeys(("accuracy", "precision", "recall", "f1", "yes_ratio"))
            found[name] |= {**failed, "error": "ZeroDivisionError"}
            continue
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        found[name] |= {
            "accuracy": (tp + tn) / len(part),
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
            "yes_ratio": (tp + fp) / len(part),
        }
    return found


def lmms_total(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Unreadable answers are in no denominator but accuracy's; the share of yes is that of the gold answers."""
    pairs = _pairs(lmms, predictions, references)
    tp, fp, tn, fn = _counts(pairs)
    precision, recall = _share(tp, tp + fp), _share(tp, tp + fn)
    return {
        "accuracy": (tp + tn) / len(pairs),
        "precision": precision,
        "recall": recall,
        "f1": _share(2 * precision * recall, precision + recall),
        "yes_ratio_as_published": _gold_yes(pairs) / len(pairs),
    }


def vlmevalkit_total(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, Any]:
    """Percentages of all rows and of each category, and how many answers could not be read."""
    pairs = _pairs(yes_or_no, predictions, references)
    categories = {value(reference, "category") for reference in references}
    found: dict[str, Any] = {}
    for name, part in {"Overall": pairs, **_by_category(pairs, references, categories)}.items():
        tp, fp, tn, _ = _counts(part)
        precision, recall = _share(tp, tp + fp), _share(tp, _gold_yes(part))
        found[name] = {
            "f1_percent": 100 * _share(2 * precision * recall, precision + recall),
            "acc_percent": 100 * (tp + tn) / len(part),
            "precision_percent": 100 * precision,
            "recall_percent": 100 * recall,
        }
    return found | {"unknown": sum(said is None for said, _ in pairs)}


def _case(read: Read) -> Case:
    def case(prediction: str, reference: Any) -> dict[str, Any]:
        label = read(prediction)
        return {"label": label, "score": int(label == gold_label(reference, "label"))}

    return case


def _pairs(read: Read, predictions: Sequence[str], references: Sequence[Any]) -> list[Pair]:
    rows = zip(predictions, references, strict=True)
    return [(read(prediction), gold_label(reference, "label")) for prediction, reference in rows]


def _by_category(pairs: Sequence[Pair], references: Sequence[Any], names: Iterable[str]) -> dict[str, list[Pair]]:
    rows = [(pair, value(reference, "category")) for pair, reference in zip(pairs, references, strict=True)]
    return {name: [pair for pair, category in rows if category == name] for name in names}


def _counts(pairs: Sequence[Pair]) -> tuple[int, int, int, int]:
    """True and false positives, true and false negatives; unreadable answers are in none."""
    counts = Counter(pairs)
    return counts["yes", "yes"], counts["yes", "no"], counts["no", "no"], counts["no", "yes"]


def _gold_yes(pairs: Sequence[Pair]) -> int:
    return sum(gold == "yes" for _, gold in pairs)


def _share(part: float, whole: float) -> float:
    """0 of nothing, as both harnesses print it."""
    return part / whole if whole else 0.0


def _f1(sums: np.ndarray) -> np.ndarray:
    return ratio(2 * sums[..., TP], 2 * sums[..., TP] + sums[..., FP] + sums[..., FN])


def _mean_f1(sums: np.ndarray) -> np.ndarray:
    values = _f1(sums.reshape(*sums.shape[:-1], -1, 6))
    known = ~np.isnan(values)  # a resample may have drawn none of a category
    return ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1))


SCORER = Scorer(
    default="vlmevalkit",
    cases={"vlmevalkit": _case(yes_or_no), "official": _case(official), "lmms": _case(lmms)},
    totals={"vlmevalkit-agg": vlmevalkit_total, "official-agg": official_total, "lmms-agg": lmms_total},
    measures=measures,
    constants=constants,
    unparsable=lambda prediction, reference, record: record["label"] is None,
    parsed=lambda record: record["label"],
)
