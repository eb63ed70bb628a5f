"""Favourite letters, favourite places and constant answers, found in the answers themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest

from tests.evaluation.asked import answered, choices, yes_no
from vlm.contracts.benchmark import Reply
from vlm.evaluation.bias import bias_of
from vlm.evaluation.prompts import rotated_gold
from vlm.evaluation.results import results

GOLD = "ABCD" * 10


def bias(said, references, benchmark: str = "scienceqa", **changes: Any) -> Any:
    found = answered(benchmark, said, references, **changes)
    return bias_of(found, found.variants[0], found.scored(found.variants[0]))


def test_letters_are_counted_beside_how_often_they_are_right():
    found = bias(list("A" * 30 + "B" * 10), choices(GOLD))
    assert found["predicted"] == {"A": 0.75, "B": 0.25, "C": 0.0, "D": 0.0}
    assert found["gold"] == dict.fromkeys("ABCD", 0.25)
    assert found["chi2_p"] < 1e-5
    assert {letter: entry["n"] for letter, entry in found["per_letter"].items()} == dict.fromkeys("ABCD", 10)
    assert found["per_letter"]["A"]["accuracy"] == pytest.approx(8 / 10)  # 30 times A, of which eight stand at an A
    assert found["random"] == 0.25
    assert found["flags"] == ["letter bias: A is answered 75% of the time and right 25%"]


def test_right_answers_show_no_bias():
    found = bias(list(GOLD), choices(GOLD))
    assert (found["flags"], found["spread"], found["chi2_p"]) == ([], 0.0, 1.0)


def test_a_rare_letter_said_twice_is_no_habit():
    gold = "ABC" * 20
    assert bias(["D", "D", *gold[2:]], choices(gold))["flags"] == []


def test_unreadable_answers_are_no_letter():
    found = bias(["none of them"] * 20 + list(GOLD[20:]), choices(GOLD))
    assert sum(found["predicted"].values()) == pytest.approx(1.0)
    assert found["flags"] == []


def test_accuracy_is_split_by_the_number_of_options():
    references = choices("AB" * 5, ("red", "blue")) + choices("ABCD" * 5)
    found = bias(list("AB" * 5) + ["A"] * 20, references)
    assert found["by_options"] == {"2": {"n": 10, "accuracy": 1.0}, "4": {"n": 20, "accuracy": 0.25}}
    assert found["random"] == pytest.approx((10 / 2 + 20 / 4) / 30)


def shifted(read) -> dict[str, list[str]]:
    """What is said to every order of the options. read: gold data -> a letter."""
    golds = choices(GOLD)
    orders = {f"shift{shift}": [read(rotated_gold(gold, shift)) for gold in golds] for shift in (1, 2, 3)}
    return {"seen": [read(gold) for gold in golds], **orders}


def test_who_knows_the_answer_knows_it_in_every_order():
    found = bias(shifted(lambda gold: gold["gold"]), choices(GOLD))
    assert (found["shifts"], found["all_shifts"], found["flags"]) == (dict.fromkeys("0123", 1.0), 1.0, [])


def test_who_always_says_one_letter_is_right_in_no_question_under_all_orders():
    found = bias(shifted(lambda gold: "A"), choices(GOLD))
    assert found["shifts"] == dict.fromkeys("0123", 0.25)
    assert found["all_shifts"] == 0.0


def test_more_than_ten_points_between_orders_are_told():
    said = shifted(lambda gold: gold["gold"])
    said["shift2"] = ["A"] * 40
    found = bias(said, choices(GOLD))
    assert found["flags"] == ["place bias: 75 points between the best and the worst order of the same options"]


def test_orders_are_compared_on_the_questions_that_were_asked_again():
    """The first ten only; the headline's other thirty are wrong and must not count as an order's fault."""
    said = {condition: answers[:10] for condition, answers in shifted(lambda gold: gold["gold"]).items()}
    found = bias({**said, "seen": [*GOLD[:10], *["none"] * 30]}, choices(GOLD))
    assert found["shifts"] == dict.fromkeys("0123", 1.0)


def test_questions_with_fewer_options_have_fewer_orders():
    references = choices("A" * 6, ("red", "blue")) + choices("A" * 6)
    golds = {
        shift: [rotated_gold(gold, shift) for gold in references if len(gold["choices"]) > shift] for shift in (1, 2, 3)
    }
    found = answered("scienceqa", ["A"] * 12, references)
    replies = {**found.replies}
    for shift, moved in golds.items():
        names = [f"q{number}" for number in range(12) if len(references[number]["choices"]) > shift]
        replies[f"shift{shift}"] = {name: found.replies["seen"][name].__class__(name, gold["gold"]) for name, gold in zip(names, moved, strict=True)}  # fmt: skip
    found = answered("scienceqa", ["A"] * 12, references, replies=replies)
    told = bias_of(found, "llava", found.scored("llava"))
    assert told is not None
    assert (told["shifts"], told["all_shifts"]) == (dict.fromkeys("0123", 1.0), 1.0)


COLOURS = ("red", "green", "blue", "grey", "teal")


def mixed(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Questions of 2, 3, 4 and 5 options in turn, the right one anywhere."""
    draw = Random(seed)
    kinds = [COLOURS[: 2 + number % 4] for number in range(count)]
    return [choices(draw.choice("ABCDE"[: len(options)]), options)[0] for options in kinds]


def in_every_order(references: list[dict[str, Any]], say: Callable[[int, dict[str, Any]], str]) -> Any:
    """Bias of a model that is asked every order that a question has. say: number of the question, its gold data."""
    replies = {
        "seen" if shift == 0 else f"shift{shift}": {
            f"q{number}": Reply(f"q{number}", say(number, rotated_gold(gold, shift)))
            for number, gold in enumerate(references)
            if len(gold["choices"]) > shift
        }
        for shift in range(max(len(gold["choices"]) for gold in references))
    }
    return bias([""] * len(references), references, replies=replies)


def test_who_knows_half_of_the_questions_is_as_good_in_every_order_whatever_their_numbers_of_options():
    """A question of two options has two orders, one of five has five; the same questions count under each."""
    wrong = {"A": "B"}
    found = in_every_order(mixed(200), lambda n, gold: gold["gold"] if n % 5 < 3 else wrong.get(gold["gold"], "A"))
    assert found["shifts"] == dict.fromkeys("01234", 0.6)
    assert (found["all_shifts"], found["shifts_p"]) == (0.6, 1.0)
    assert not any("place bias" in flag for flag in found["flags"])


def guessed(draw: Random, number: int, gold: dict[str, Any]) -> str:
    return draw.choice("ABCDE"[: len(gold["choices"])])


@pytest.mark.parametrize("count", [60, 500])
def test_who_guesses_has_no_habit(count):
    for seed in range(12):
        found = in_every_order(mixed(count, seed), partial(guessed, Random(1000 + seed)))
        assert found["flags"] == []


@pytest.mark.parametrize("count", [60, 500])
def test_who_always_says_one_letter_is_told_by_it(count):
    found = in_every_order(mixed(count), lambda n, gold: "A")
    assert any(flag.startswith("letter bias: A is answered 100% of the time") for flag in found["flags"])


def test_who_knows_more_where_the_right_option_stands_first_is_told():
    """70 % there and 55 % anywhere else, in 400 questions whose first option is right."""
    draw = Random(0)

    def say(number: int, gold: dict[str, Any]) -> str:
        is_right = draw.random() < (0.70 if gold["gold"] == "A" else 0.55)
        return gold["gold"] if is_right else draw.choice([letter for letter in "ABCD" if letter != gold["gold"]])

    found = in_every_order(choices("A" * 400), say)
    assert found["shifts_p"] < 0.01
    assert any(flag.startswith("place bias:") for flag in found["flags"])


def test_options_without_letters_are_read_by_their_texts():
    texts = dict(zip("ABCD", ("red", "green", "blue", "grey"), strict=True))
    said = {"seen": list(GOLD), "unlettered": [f"it is {texts[letter]}" for letter in GOLD[:20]] + ["red or blue"] * 20}
    assert bias(said, choices(GOLD))["unlettered"] == 0.5


def test_words_taken_for_letters_are_counted():
    assert bias(["the answer is dog", *GOLD[1:]], choices(GOLD), variants=["vlmevalkit-mc"])["word_as_letter"] == 1


def test_yes_is_counted_on_both_kinds_of_questions():
    found = bias(["yes"] * 3 + ["no"], yes_no(["yes", "yes", "no", "no"]), "pope")
    assert (found["yes_ratio"], found["gold_yes"], found["on_yes"], found["on_no"]) == (0.75, 0.5, 1.0, 0.5)
    assert (found["always_yes"], found["flags"]) == (None, [])  # a question a picture: nothing to compare


def test_pictures_whose_questions_all_get_one_answer_are_counted():
    pairs = [{"category": "count", "image": f"{n // 2}", "answer": "Yes" if n % 2 else "No"} for n in range(8)]
    found = bias(
        ["yes", "yes", "yes", "yes", "no", "no", "no", "yes"], pairs, "mme", groups=[str(n // 2) for n in range(8)]
    )
    assert (found["always_yes"], found["always_no"]) == (0.5, 0.25)


@pytest.mark.parametrize("word", ["yes", "no"])
def test_a_constant_answer_is_told(word):
    labels = ["yes", "no"] * 20
    assert bias([word] * 40, yes_no(labels), "pope")["flags"] == [f"constant answer: {word} in 100% of the questions"]


def test_open_questions_have_neither():
    assert bias(["one"], [{"answer": "one"}], "digit_names") is None
    mixed = [{"answer": "yes", "answer_type": "closed"}, {"answer": "the liver", "answer_type": "open"}]
    assert bias(["yes", "liver"], mixed, "digit_names") is None


def test_flags_become_warnings_of_the_headline_alone():
    found = answered("scienceqa", list("A" * 40), choices(GOLD), variants=["llava", "lmms"])
    first, second = results(found)
    assert any("letter bias" in warning for warning in first["details"]["warnings"])
    assert second["details"]["bias"] is None
