"""What may be concluded where pairs and circles count, where questions show no picture, and where controls were not run."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.evaluation.asked import answered, choices, digits, headline_of, yes_no
from vlm.evaluation.results import ABOVE, BLIND, NOT_ABOVE, SEES, results

COLOURS = ("red", "green", "blue", "grey")
ALONE = "compared with constants alone: neither the model without its pictures nor training answers are known here"


def pairs(pictures: int = 20) -> tuple[list[dict[str, Any]], list[str]]:
    """MME: gold data and groups, two categories of as many pictures."""
    found = [
        {"category": category, "image": f"{number}.jpg", "answer": answer}
        for category in ("existence", "count") for number in range(pictures) for answer in ("Yes", "No")
    ]  # fmt: skip
    return found, [f"{one['category']}/{one['image']}" for one in found]


def circles(questions: int = 30) -> tuple[list[dict[str, Any]], list[str]]:
    """MMBench: questions of two, three and four options, each in all orders of them."""
    found = []
    for number in range(questions):
        texts = COLOURS[: 2 + number % 3]
        for shift in range(len(texts)):
            options = dict(zip("ABCD", texts[shift:] + texts[:shift], strict=False))
            gold = next(letter for letter, text in options.items() if text == texts[number // 3 % len(texts)])
            found.append(
                {
                    "options": options,
                    "gold": gold,
                    "index": number + 1_000_000 * shift,
                    "category": "c",
                    "l2-category": "d",
                }
            )
    return found, [str(one["index"] % 1_000_000) for one in found]  # fmt: skip


def clips(count: int = 60) -> tuple[list[dict[str, Any]], list[str]]:
    """MVBench: two tasks about clips of two questions each."""
    tasks = ("action_count", "state_change")
    found = [
        {"candidates": list(COLOURS[: 2 + number % 3]), "gold": "AB"[number % 2], "task": tasks[number // 2 % 2]}
        for number in range(count)
    ]
    return found, [f"{number // 2}.mp4" for number in range(count)]


BENCHMARKS = {"mme": pairs, "mmbench": circles, "mvbench": clips}


@pytest.mark.parametrize("benchmark", ["mme", "mmbench"])
@pytest.mark.parametrize("seed", range(6))
def test_a_coin_is_not_above_baseline_where_no_constant_gets_a_pair_or_a_circle_right(benchmark, seed):
    """It beats every constant on MME by chance pairs; drawn answers are a baseline of their own."""
    references, groups = BENCHMARKS[benchmark]()
    draw = Random(100 + seed)
    said = [draw.choice(list(one.get("options", ("Yes", "No")))) for one in references]
    found = headline_of(benchmark, said, references, groups=groups)
    assert found["verdict"] == NOT_ABOVE
    assert {"random answer", "random letter"} & set(found["baselines"])


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_truth_is_above_baseline_and_its_interval_is_not_empty(benchmark):
    """No resample of right answers leaves the top, which is no certainty: so many groups may hide a few wrong ones."""
    references, groups = BENCHMARKS[benchmark]()
    found = headline_of(
        benchmark, [one.get("answer", one.get("gold")) for one in references], references, groups=groups
    )
    assert (found["score"], found["verdict"]) == (found["top"], ABOVE)
    for measure in found["details"]["measures"].values():
        if measure["value"] == measure["top"]:
            low, high = measure["interval"]
            assert 0.7 * measure["top"] < low < high == measure["top"]


def with_and_without_pictures() -> tuple[list[dict[str, Any]], frozenset[str]]:
    """ScienceQA: sixty questions with a picture, sixty without."""
    references = [{**one, "has_image": number < 60} for number, one in enumerate(choices("ABCD" * 30))]
    return references, frozenset(f"q{number}" for number in range(60))


def test_questions_without_pictures_need_no_controls():
    """The model without pictures is the same model asked the same; being no better than itself is no fault."""
    references, pictured = with_and_without_pictures()
    truth = [one["gold"] for one in references]
    said = {"seen": truth, "blank": ["A"] * 60 + truth[60:], "shuffled": ["B"] * 60 + truth[60:]}
    given = answered("scienceqa", said, references, split_by=["has_image"], pictured=pictured)
    told = {entry["split"]: entry for entry in results(given)}
    text, shown = told["has_image=False"], told["has_image=True"]
    assert (text["verdict"], text["details"]["pictures"]) == (ABOVE, None)
    assert not any("pictures" in name for name in text["baselines"])
    assert (shown["verdict"], shown["details"]["pictures"]["verdict"]) == (ABOVE, SEES)
    assert told["all"]["details"]["pictures"]["verdict"] == SEES


def test_sight_is_judged_by_the_questions_that_show_something():
    """Sixty text questions whose answers change by chance tell nothing about pictures."""
    references, pictured = with_and_without_pictures()
    truth = [one["gold"] for one in references]
    said = {"seen": truth, "blank": truth[:60] + ["A"] * 60, "shuffled": truth[:60] + ["B"] * 60}
    found = headline_of("scienceqa", said, references, pictured=pictured)
    assert found["details"]["pictures"]["verdict"] == BLIND


@pytest.mark.parametrize(
    ("controls", "verdict"),
    [
        (("blank",), BLIND),
        (("shuffled",), SEES),
        (("blank", "shuffled"), SEES),
    ],
)
def test_only_other_questions_pictures_show_that_a_model_uses_its_own(controls, verdict):
    """Grey pictures alone may be answered with a constant, and all others with guesses."""
    names = ["zero", "one", "two", "three"] * 20
    said = {"seen": names, **dict.fromkeys(controls, ["zero"] * 80)}
    found = headline_of("digit_names", said, digits(names))
    assert found["details"]["pictures"]["verdict"] == verdict
    assert any(text.startswith("blind:") for text in found["details"]["warnings"]) == (verdict == BLIND)


def test_a_comparison_with_constants_alone_says_so():
    labels = ["yes", "no"] * 60
    for said in (labels, {"seen": labels, "blank": labels}, {"seen": labels, "prior": labels}):
        found = headline_of("pope", said, yes_no(labels))
        assert (ALONE in found["details"]["warnings"]) == isinstance(said, list)


@pytest.mark.parametrize(("count", "is_told"), [(39, True), (40, False)])
def test_fewer_than_forty_groups_are_told(count, is_told):
    labels = ["yes", "no"] * (3 * count)
    found = headline_of("pope", labels, yes_no(labels), groups=[str(number % count) for number in range(6 * count)])
    told = f"only {count} independent groups: intervals are too narrow, most of all near the ends"
    assert (told in found["details"]["warnings"]) == is_told
