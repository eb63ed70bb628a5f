"""From answers to what may be concluded: intervals, trivial baselines on the same rows, verdicts and warnings."""

from __future__ import annotations

import json
from random import Random

import pytest

from tests.evaluation.asked import answered, choices, digits, headline_of, scored, yes_no
from vlm.contracts.errors import InputError
from vlm.evaluation.intervals import wilson
from vlm.evaluation.results import ABOVE, BLIND, FEWEST_GROUPS, NOT_ABOVE, SEES, Figures, results
from vlm.evaluation.scorers.measures import mean

LABELS = ["yes", "no"] * 60
NAMES = ["zero", "one", "two", "three"] * 20
PAIRS = [
    {"category": category, "image": f"{number}.jpg", "answer": answer}
    for category in ("existence", "count") for number in range(10) for answer in ("Yes", "No")
]  # fmt: skip
PAIR_GROUPS = [f"{pair['category']}/{pair['image']}" for pair in PAIRS]


def test_independent_right_or_wrong_rows_have_a_wilson_interval():
    found = headline_of("digit_names", ["zero"] * 80, digits(NAMES))
    assert (found["score"], found["n"], found["groups"]) == (0.25, 80, 80)
    assert tuple(found["interval"]) == wilson(20, 80)


def test_rows_of_one_picture_are_one_draw():
    """Six equal answers to a picture are no more evidence than one."""
    once = Figures([mean(scored([1, 0] * 20))], scored([1, 0] * 20))
    rows = scored([1.0] * 6 + [0.0] * 6, ["a"] * 6 + ["b"] * 6)
    many = scored([score for score in [1.0, 0.0] * 20 for _ in range(6)], [str(n) for n in range(40) for _ in range(6)])
    wide, narrow = Figures([mean(many)], many).interval(0), wilson(120, 240)
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])
    assert wide == pytest.approx(once.interval(0), abs=0.03)
    assert Figures([mean(rows)], rows).resamples.count == 2


def test_groups_that_are_all_right_are_no_certainty():
    rows = scored([1.0] * 40, [str(n // 4) for n in range(40)])
    assert Figures([mean(rows)], rows).interval(0) == wilson(10, 10)


def test_one_group_has_no_interval_and_json_says_null():
    found = headline_of("digit_names", ["zero"] * 4, digits(NAMES[:4]), groups=["a"] * 4)
    assert found["interval"] == [None, None]
    assert found["verdict"] == NOT_ABOVE
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_every_interval_holds_its_score_and_is_the_same_every_time():
    said = [answer if number % 3 else "no" for number, answer in enumerate(LABELS)]
    first = headline_of("pope", said, yes_no(LABELS), groups=[str(n // 6) for n in range(120)])
    for measure in first["details"]["measures"].values():
        assert measure["interval"][0] <= measure["value"] <= measure["interval"][1]
    assert first == headline_of("pope", said, yes_no(LABELS), groups=[str(n // 6) for n in range(120)])


def test_truth_is_above_every_baseline():
    found = headline_of("pope", LABELS, yes_no(LABELS))
    assert (found["score"], found["verdict"], found["unparsable"]) == (1.0, ABOVE, 0.0)
    assert set(found["baselines"]) == {"always yes", "always no", "random answer", "empty"}
    assert found["baselines"]["always yes"]["difference"] == 0.5


@pytest.mark.parametrize(
    ("benchmark", "said", "references", "score"),
    [
        ("pope", ["yes"] * 120, yes_no(LABELS), 0.5),
        ("pope", ["no"] * 120, yes_no(LABELS), 0.5),
        ("pope", [""] * 120, yes_no(LABELS), 0.0),
        ("digit_names", ["two"] * 80, digits(NAMES), 0.25),
        ("scienceqa", ["A"] * 80, choices("ABCD" * 20), 0.25),
    ],
)
def test_a_constant_scores_its_constant_and_is_not_above_it(benchmark, said, references, score):
    found = headline_of(benchmark, said, references)
    assert (found["score"], found["verdict"]) == (score, NOT_ABOVE)


@pytest.mark.parametrize(("said", "score"), [("yes", 200), ("no", 200), ("", 0)])
def test_a_constant_answer_gets_a_hundred_a_category_of_mme(said, score):
    """Half of the questions right and no picture with both: 50 a category, as the published 700 of 14."""
    found = headline_of("mme", [said] * 40, PAIRS, groups=PAIR_GROUPS)
    assert found["score"] == score / 2
    assert (found["top"], found["verdict"]) == (400.0, NOT_ABOVE)
    assert headline_of("mme", [pair["answer"] for pair in PAIRS], PAIRS, groups=PAIR_GROUPS)["score"] == 400


def test_guessing_is_not_above_the_best_constant():
    generator = Random(0)
    above = sum(
        headline_of("pope", [generator.choice(["yes", "no"]) for _ in LABELS], yes_no(LABELS))["verdict"] == ABOVE
        for _ in range(8)
    )
    assert above == 0


def test_a_model_that_says_what_training_said_is_not_above_it():
    """It is far above every constant, and has learned nothing that the questions' texts do not tell."""
    prior = [name if number % 5 else "zero" for number, name in enumerate(NAMES)]
    alone = headline_of("digit_names", prior, digits(NAMES))
    beside = headline_of("digit_names", {"seen": prior, "prior": prior}, digits(NAMES))
    assert (alone["verdict"], beside["verdict"]) == (ABOVE, NOT_ABOVE)
    told = beside["baselines"]["most frequent training answer to the same question"]
    assert (told["score"], told["difference"], told["interval"]) == (beside["score"], 0.0, [0.0, 0.0])
    assert beside["details"]["pictures"] is None  # the prior is no control of sight


def test_a_model_that_answers_alike_without_its_pictures_is_called_blind():
    said = {"seen": NAMES, "blank": NAMES, "shuffled": NAMES}
    found = headline_of("digit_names", said, digits(NAMES))
    assert (found["score"], found["verdict"]) == (1.0, NOT_ABOVE)
    assert found["details"]["pictures"]["verdict"] == BLIND
    assert any(warning.startswith("blind:") for warning in found["details"]["warnings"])


def test_a_model_whose_score_falls_under_both_controls_uses_its_pictures():
    constant = ["zero"] * 80
    found = headline_of("digit_names", {"seen": NAMES, "blank": constant, "shuffled": constant}, digits(NAMES))
    assert (found["verdict"], found["details"]["pictures"]["verdict"]) == (ABOVE, SEES)
    half = headline_of("digit_names", {"seen": NAMES, "blank": constant, "shuffled": NAMES}, digits(NAMES))
    assert half["details"]["pictures"]["verdict"] == BLIND


def test_controls_mean_nothing_to_questions_without_pictures():
    said = {"seen": NAMES, "blank": NAMES}
    assert headline_of("digit_names", said, digits(NAMES), pictured=frozenset())["details"]["pictures"] is None


@pytest.mark.parametrize(("count", "verdict"), [(FEWEST_GROUPS - 1, NOT_ABOVE), (FEWEST_GROUPS, ABOVE)])
def test_fewer_than_six_differing_groups_tell_nothing(count, verdict):
    """Every resample of five right answers is all right; chance does that in one of 32 runs."""
    found = headline_of("digit_names", ["zero"] * count, digits(["zero"] * count))
    assert found["verdict"] == NOT_ABOVE  # the best constant is as good
    names = [f"name {number}" for number in range(count + 1)]
    found = headline_of("digit_names", names, digits(names))
    assert found["baselines"]["most frequent answer"]["interval"][0] > 0
    assert found["verdict"] == verdict


def test_few_groups_are_warned_of_however_many_rows_they_have():
    found = headline_of("digit_names", NAMES, digits(NAMES), groups=[str(number % 8) for number in range(80)])
    assert (
        "only 8 independent groups: intervals are too narrow, most of all near the ends" in found["details"]["warnings"]
    )


def test_unreadable_answers_are_wrong_counted_and_warned_of():
    said = [answer if number % 10 else "maybe, yes or no" for number, answer in enumerate(LABELS)]
    found = headline_of("pope", said, yes_no(LABELS))
    assert (found["score"], found["unparsable"], found["details"]["unparsable_n"]) == (0.9, 0.1, 12)
    assert any(warning.startswith("10.0% of the answers could not be read") for warning in found["details"]["warnings"])


@pytest.mark.parametrize(
    "odd",
    ["", "🐈" * 50, "да", "答案是", "yes " * 10_000, "\x00", "\u2028\n\t ", "no\u200b", "A" * 40_000],
    ids=[
        "empty",
        "emoji",
        "Cyrillic",
        "Chinese",
        "10,000 words",
        "zero byte",
        "white space",
        "invisible",
        "40,000 letters",
    ],
)
def test_odd_answers_are_scored_and_never_end_a_run(odd):
    for benchmark, references in (
        ("pope", yes_no(LABELS[:20])),
        ("digit_names", digits(NAMES[:20])),
        ("scienceqa", choices("ABCD" * 5)),
    ):
        found = headline_of(benchmark, [odd] * len(references), references)
        assert 0.0 <= found["score"] <= 0.5
        json.dumps(found, allow_nan=False)


def test_each_split_has_a_result_on_its_own_rows():
    references = [
        {**one, "category": "random" if number < 40 else "popular"} for number, one in enumerate(yes_no(LABELS))
    ]
    said = [*LABELS[:40], *["yes"] * 80]
    found = results(answered("pope", said, references, split_by=["category"], variants=["vlmevalkit", "official"]))
    told = {(entry["variant"], entry["split"]): (entry["n"], entry["score"], entry["verdict"]) for entry in found}
    assert told["vlmevalkit", "category=random"] == (40, 1.0, ABOVE)
    assert told["vlmevalkit", "category=popular"] == (80, 0.5, NOT_ABOVE)
    assert told["official", "all"][:2] == (120, 80 / 120)
    assert [entry["headline"] for entry in found] == [True] * 3 + [False] * 3


def test_a_category_without_one_label_has_null_for_what_is_undefined():
    references = [
        {**one, "category": "yes alone" if number < 20 else "both"}
        for number, one in enumerate(yes_no(["yes"] * 20 + LABELS))
    ]
    found = results(answered("pope", ["no"] * 140, references, split_by=["category"]))
    told = next(entry for entry in found if entry["split"] == "category=yes alone")
    assert told["details"]["measures"]["precision"]["value"] is None
    json.dumps(found, allow_nan=False)


def test_a_key_with_one_value_is_no_split():
    assert [entry["split"] for entry in results(answered("pope", LABELS, yes_no(LABELS), split_by=["category"]))] == [
        "all"
    ]


def test_a_question_without_an_answer_is_an_error_and_never_left_out():
    with pytest.raises(InputError, match=r"pope: 20 of 120 questions have no prediction \(seen\), first: q100, q101"):
        headline_of("pope", LABELS[:100], yes_no(LABELS))
    with pytest.raises(InputError, match=r"have no prediction \(blank\)"):
        headline_of("pope", {"seen": LABELS, "blank": LABELS[:3]}, yes_no(LABELS))


def test_no_questions_are_no_result():
    with pytest.raises(InputError, match="there are no questions to score"):
        headline_of("pope", [], [])


def test_gold_data_that_cannot_be_scored_names_its_question():
    with pytest.raises(InputError, match=r"question q1: .*neither yes nor no"):
        headline_of("pope", ["yes"] * 2, [*yes_no(["yes"]), {"label": "perhaps", "category": "random"}])
    with pytest.raises(InputError, match=r"question q0: gold answer 'E' is not among the options"):
        headline_of("scienceqa", ["A"], choices("E"))


def test_the_trivial_answers_are_scored_by_the_variants_own_rule():
    """The official rule of POPE reads everything but no as yes, also nothing at all."""
    found = headline_of("pope", LABELS, yes_no(LABELS), variants=["official"])
    assert found["baselines"]["empty"]["score"] == found["baselines"]["always yes"]["score"] == 0.5


def test_figures_of_two_models_are_paired_over_the_same_draws():
    rows, other = scored([1.0, 0.0] * 50), scored([0.0, 0.0, 1.0, 0.0] * 25)
    found = Figures([mean(rows)], rows).against(mean(other), other)
    assert (found["score"], found["difference"], found["differing"]) == (0.25, 0.25, 25)
    same = Figures([mean(rows)], rows).against(mean(rows), rows)
    assert (same["difference"], same["interval"], same["differing"]) == (0.0, (0.0, 0.0), 0)
