"""Whether a model answers the question or the form of it: favourite letters, favourite places, favourite words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import chi2_contingency

from vlm.contracts.benchmark import Scored
from vlm.evaluation.intervals import mcnemar, wilson
from vlm.evaluation.prompts import LETTERS, options_of, rotated_gold
from vlm.evaluation.score import score_rows
from vlm.evaluation.scorers.letters import shared_letter, word_as_letter

if TYPE_CHECKING:
    from vlm.evaluation.results import Answered

MOST_OVER_GOLD = 1.5  # times its share of the right answers that a letter may be chosen
MOST_BETWEEN_SHIFTS = 0.10  # between the best and the worst order of the options
YES_NO = {"yes", "no"}


def bias_of(answered: Answered, variant: str, rows: Sequence[Scored]) -> dict[str, Any] | None:
    """What fits the questions: letters of choices, or yes and no. None for open questions."""
    choices = [row for row in rows if options_of(row.reference)]
    if choices:
        return _letters(answered, variant, choices)
    golds = [_yes_no(row) for row in rows]
    known = [(row, gold) for row, gold in zip(rows, golds, strict=True) if gold is not None]
    return _yes_no_bias(known) if known and len(known) == len(rows) else None


def _letters(answered: Answered, variant: str, rows: Sequence[Scored]) -> dict[str, Any]:
    gold = [row.reference["gold"] for row in rows]
    counts = [len(options_of(row.reference) or ()) for row in rows]
    letters = LETTERS[: max(counts)]
    said = Counter(row.parsed for row in rows if row.parsed in set(letters))
    right = Counter(gold)
    per_letter = {
        letter: {"n": len(scores), "accuracy": float(np.mean(scores))}
        for letter in letters
        if (scores := [row.score for row, right_one in zip(rows, gold, strict=True) if right_one == letter])
    }
    by_options: dict[int, list[float]] = defaultdict(list)
    for row, count in zip(rows, counts, strict=True):
        by_options[count].append(row.score)
    shifts, all_shifts, shifts_p = _shifts(answered, variant, rows)
    record: dict[str, Any] = {
        "predicted": {letter: said[letter] / max(1, sum(said.values())) for letter in letters},
        "gold": {letter: right[letter] / len(rows) for letter in letters},
        "chi2_p": _chi2([said[letter] for letter in letters], [right[letter] for letter in letters]),
        "per_letter": per_letter,
        "spread": float(np.std([entry["accuracy"] for entry in per_letter.values()])),
        "by_options": {str(count): {"n": len(scores), "accuracy": float(np.mean(scores))} for count, scores in sorted(by_options.items())},
        "random": float(np.mean([1 / count for count in counts])),
        "shifts": shifts,
        "all_shifts": all_shifts,
        "shifts_p": shifts_p,
        "unlettered": _unlettered(answered, rows),
        "word_as_letter": sum(word_as_letter(row.prediction, _lettered(row)) for row in rows),
    }  # fmt: skip
    guessed = {
        letter: float(np.mean([(place < count) / count for count in counts])) for place, letter in enumerate(letters)
    }
    record["flags"] = _flags(record, sum(said.values()), guessed)
    return record


def _flags(record: Mapping[str, Any], said: int, guessed: Mapping[str, float]) -> list[str]:
    """said: answers that could be read as a letter.   guessed: share of each letter among guesses."""
    found = []
    for letter, share in record["predicted"].items():
        gold = record["gold"][letter]
        least = max(gold, guessed[letter])  # of few questions a letter may be right more seldom than a guesser says it
        # A few rows more of one letter are chance, no habit.
        if share > max(MOST_OVER_GOLD * least, least + 0.05) and wilson(share * said, said, 0.99)[0] > least:
            found.append(f"letter bias: {letter} is answered {share:.0%} of the time and right {gold:.0%}")
    shifts = record["shifts"]
    if (
        shifts
        and record["shifts_p"] < 0.01
        and (gap := max(shifts.values()) - min(shifts.values())) > MOST_BETWEEN_SHIFTS
    ):
        found.append(f"place bias: {100 * gap:.0f} points between the best and the worst order of the same options")
    return found


def _shifts(
    answered: Answered, variant: str, rows: Sequence[Scored]
) -> tuple[dict[str, float] | None, float | None, float | None]:
    """Accuracy under each order of the options, the share right under all, and p of the best order against the worst.

    Of the rows that were asked again; p is McNemar's, times the number of pairs of orders.

    The same rows count under every order: one with fewer options begins again with its first order.
    """
    again = [row for row in rows if row.id in answered.replies.get("shift1", {})]
    if not again:
        return None, None, None
    counts = [len(options_of(row.reference) or ()) for row in again]
    right = {(row.id, 0): row.score for row in again}
    for shift in range(1, max(counts)):
        asked = [row for row, count in zip(again, counts, strict=True) if count > shift]
        replies = answered.replies[f"shift{shift}"]
        scored = score_rows(
            answered.scorer, variant, [row.id for row in asked], [row.group for row in asked],
            [replies[row.id].prediction for row in asked], [rotated_gold(row.reference, shift) for row in asked],
        )  # fmt: skip
        right |= {(row.id, shift): row.score for row in scored}
    found = {
        str(shift): float(np.mean([right[row.id, shift % count] for row, count in zip(again, counts, strict=True)]))
        for shift in range(max(counts))
    }
    by_order = [
        [right[row.id, shift % count] == 1.0 for row, count in zip(again, counts, strict=True)]
        for shift in range(max(counts))
    ]
    best, worst = max(by_order, key=sum), min(by_order, key=sum)
    p = mcnemar(
        sum(a > b for a, b in zip(best, worst, strict=True)), sum(a < b for a, b in zip(best, worst, strict=True))
    )
    always = [all(right[row.id, n] == 1.0 for n in range(count)) for row, count in zip(again, counts, strict=True)]
    return found, sum(always) / len(always), min(1.0, p * len(by_order) * (len(by_order) - 1) / 2)


def _unlettered(answered: Answered, rows: Sequence[Scored]) -> float | None:
    """Accuracy where options are shown without letters, read by their texts."""
    replies = answered.replies.get("unlettered", {})
    asked = [row for row in rows if row.id in replies]
    if not asked:
        return None
    right = 0
    for row in asked:
        right += shared_letter(replies[row.id].prediction, _lettered(row)) == row.reference["gold"]
    return right / len(asked)


def _lettered(row: Scored) -> dict[str, str]:
    return dict(zip(LETTERS, options_of(row.reference) or (), strict=False))


def _chi2(predicted: Sequence[int], gold: Sequence[int]) -> float | None:
    table = np.array([predicted, gold], float)
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2 or not table.sum(1).all():
        return None
    _, p, *_ = chi2_contingency(table)
    return float(p)  # type: ignore[arg-type]


def _yes_no(row: Scored) -> str | None:
    """The right answer, if it is yes or no."""
    reference = row.reference
    held = reference
    if isinstance(reference, Mapping):
        held = reference.get("label", reference.get("answer"))
    word = str(held).strip().lower()
    return word if word in YES_NO else None


def _yes_no_bias(known: Sequence[tuple[Scored, str]]) -> dict[str, Any]:
    yes = [row.score for row, gold in known if gold == "yes"]
    no = [row.score for row, gold in known if gold == "no"]
    answers: dict[str, list[str | None]] = defaultdict(list)
    for row, _ in known:
        answers[row.group].append(row.parsed)
    pairs = [given for given in answers.values() if len(given) > 1]
    return {
        "yes_ratio": sum(row.parsed == "yes" for row, _ in known) / len(known),
        "gold_yes": len(yes) / len(known),
        "on_yes": float(np.mean(yes)) if yes else None,
        "on_no": float(np.mean(no)) if no else None,
        "always_yes": sum(set(given) == {"yes"} for given in pairs) / len(pairs) if pairs else None,
        "always_no": sum(set(given) == {"no"} for given in pairs) / len(pairs) if pairs else None,
        "flags": _yes_no_flags(known),
    }


def _yes_no_flags(known: Sequence[tuple[Scored, str]]) -> list[str]:
    for word in ("yes", "no"):
        share = sum(row.parsed == word for row, _ in known) / len(known)
        if share > 0.95:
            return [f"constant answer: {word} in {share:.0%} of the questions"]
    return []
