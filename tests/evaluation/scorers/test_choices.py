"""Multiple choice: the truth scores 1, constants score their shares, and groups are scored as groups."""

from __future__ import annotations

from string import ascii_uppercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import CHOICES, choice, circular, figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer
from vlm.evaluation.scorers.mcq_extract import mcq_letter

TEXTS = st.lists(st.text(max_size=12), min_size=2, max_size=5)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(TEXTS, st.data())
def test_the_gold_letter_always_scores_one(texts, data):
    """Whatever the options' texts are: empty, equal, letters themselves, any script."""
    gold = ascii_uppercase[data.draw(st.integers(0, len(texts) - 1))]
    for benchmark in CHOICES:
        for variant in scorer(benchmark).cases:
            if (
                benchmark == "videomme"
                and variant.startswith("vlmevalkit")
                and variant != "vlmevalkit-mc"
                and gold > "D"
            ):
                continue  # these look for A to D, which is all that the benchmark has
            assert score_answer(benchmark, gold, choice(benchmark, texts, gold), variant)["score"] == 1


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.text(max_size=60), TEXTS)
def test_every_answer_is_read_without_a_crash(text, texts):
    for benchmark in CHOICES:
        for variant in scorer(benchmark).cases:
            record = score_answer(benchmark, text, choice(benchmark, texts, "A"), variant)
            assert record["score"] in (0, 1)
            assert record.get("extracted") in {None, *ascii_uppercase}


@pytest.mark.parametrize("benchmark", ["scienceqa", "ai2d", "videomme", "pmc_vqa"])
def test_constant_letters_score_the_gold_shares(benchmark):
    gold = [choice(benchmark, ["x", "yy", "z"], letter) for letter in "AABC"]
    said = scorer(benchmark).constants(gold)
    assert set(said.pop("random letter")) <= set("ABC")
    scores = {name: figures(benchmark, scored(benchmark, answers, gold))["accuracy"] for name, answers in said.items()}
    assert scores == {
        "always A": 0.5, "always B": 0.25, "always C": 0.25, "longest option": 0.25, "last option": 0.25, "empty": 0,
    }  # fmt: skip


def test_constants_cover_every_letter_that_occurs_and_stay_in_each_question():
    gold = [choice("ai2d", ["x", "y"], "A"), choice("ai2d", ["x", "y", "zzz"], "C")]
    said = scorer("ai2d").constants(gold)
    assert said["always C"] == ["C", "C"]
    assert said["last option"] == ["B", "C"]
    assert said["longest option"] == ["A", "C"]
    assert [row.unparsable for row in scored("ai2d", said["always C"], gold)] == [True, False]


def test_a_row_is_unparsable_where_no_letter_was_read():
    gold = [choice("videomme", ["A. x", "B. y"], "A")] * 3
    rows = scored("videomme", ["B", "no idea", ""], gold)
    assert [(row.parsed, row.unparsable, row.score) for row in rows] == [
        ("B", False, 0),
        (None, True, 0),
        (None, True, 0),
    ]


def test_a_word_read_as_a_letter_is_counted_beside_the_accuracy():
    gold = [choice("ai2d", ["cat", "hen", "cow", "ant"], "D")] * 2
    assert figures("ai2d", scored("ai2d", ["the answer is dog", "D"], gold)) == {"accuracy": 1, "word_as_letter": 0.5}


def test_mvbench_is_the_mean_over_tasks():
    gold = [{"candidates": ["x", "y"], "gold": "A", "task": task} for task in ("one", "one", "one", "two")]
    found = figures("mvbench", scored("mvbench", ["A", "A", "B", "B"], gold))
    assert found == pytest.approx({"mean_over_tasks": 1 / 3, "accuracy": 0.5, "word_as_letter": 0})
    with pytest.raises(InputError, match="has no 'task'"):
        figures("mvbench", scored("mvbench", ["A"], [{"candidates": ["x", "y"], "gold": "A"}]))


def test_nothing_at_all_is_right_for_the_official_mvbench_and_wrong_for_ours():
    gold = {"candidates": ["x", "y"], "gold": "A"}
    assert score_answer("mvbench", "", gold, "official") == {"score": 1}
    assert score_answer("mvbench", "", gold) == {"extracted": None, "score": 0}


def test_sciences_own_rule_has_five_letters():
    with pytest.raises(InputError, match="6 choices"):
        score_answer("scienceqa", "A", choice("scienceqa", ["x"] * 6, "A"))


def test_the_general_extractor_prefers_start_and_end_over_phrases_and_formats():
    options = dict.fromkeys("ABC", "")
    assert mcq_letter("A is right, not (B)", options) == "A"
    assert mcq_letter("not (B) but A", options) == "A"
    assert mcq_letter("The answer is (B) because A is too small.", options) == "A"
    assert mcq_letter("İ: the answer is B, surely", options) == "B"  # a letter that gets longer in lower case
    assert mcq_letter("", options) is None


MIXED = circular(["x", "y", "z"], 0, question=1) + circular(["u", "v"], 1, question=2)


def test_a_question_counts_if_all_its_shifts_are_right():
    right = [row["gold"] for row in MIXED]
    assert figures("mmbench", scored("mmbench", right, MIXED))["circular_accuracy"] == 1
    wrong = [*right[:2], "", *right[3:]]
    expected = {"circular_accuracy": 0.5, "first_shift_accuracy": 1, "per_shift_accuracy": 0.8, "word_as_letter": 0}
    assert figures("mmbench", scored("mmbench", wrong, MIXED)) == pytest.approx(expected)


@pytest.mark.parametrize("letter", "ABC")
def test_a_constant_letter_is_never_right_in_all_shifts(letter):
    said = scorer("mmbench").constants(MIXED)[f"always {letter}"]
    assert figures("mmbench", scored("mmbench", said, MIXED))["circular_accuracy"] == 0


@pytest.mark.parametrize("rows", [MIXED[1:], MIXED[:4], [*MIXED, MIXED[0]]])
def test_a_question_with_a_missing_or_a_second_shift_is_refused(rows):
    with pytest.raises(InputError, match="one of each is needed"):
        figures("mmbench", scored("mmbench", ["A"] * len(rows), rows))


def test_without_an_index_the_group_is_the_question():
    rows = [{key: value for key, value in row.items() if key != "index"} for row in MIXED]
    groups = ["one"] * 3 + ["two"] * 2
    found = figures("mmbench", scored("mmbench", [row["gold"] for row in rows], rows, groups=groups))
    assert found["circular_accuracy"] == 1


def test_the_shifts_of_a_question_can_be_scored_as_one_answer():
    right = [row["gold"] for row in MIXED[:3]]
    assert score_answer("mmbench", right, MIXED[:3], "circular") == {"hit": 1}
    assert score_answer("mmbench", [*right[:2], "?"], MIXED[:3], "circular-lmms") == {"hit": 0}
    assert score_answer("mmbench", right[0], MIXED[0]) == {"extracted": right[0], "score": 1}
    assert score_answer("mmbench", [right], [MIXED[:3]])["circular_accuracy"] == 1
    assert score_answer("mmbench", right, MIXED[:3]) == {"hit": 1}
    with pytest.raises(InputError, match="2 answers to 3 shifts"):
        score_answer("mmbench", right[:2], MIXED[:3], "circular")


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.sampled_from(["A", "B", "C", "", "x"]), min_size=5, max_size=5), st.randoms())
def test_the_order_of_rows_does_not_matter(predictions, random):
    rows = scored("mmbench", predictions, MIXED)
    expected = figures("mmbench", rows)
    random.shuffle(rows)
    assert figures("mmbench", rows) == pytest.approx(expected)
