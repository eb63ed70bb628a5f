"""The shared rule for option letters says what it read, and nothing where the answer names none or several."""

from __future__ import annotations

from string import ascii_uppercase

import pytest

from tests.evaluation.scorers.rows import CHOICES, choice
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer
from vlm.evaluation.scorers.letters import REFUSALS, lettered, shared_letter, word_as_letter

ANIMALS = lettered(["cat", "dog", "cow", "hen"])


@pytest.mark.parametrize("text", ["B", " B\n", "(B)", "**B**", "Answer: B.", "I would say B", "😀 B"])
def test_a_lone_letter_is_read(text):
    assert shared_letter(text, ANIMALS) == "B"


@pytest.mark.parametrize("text", ["", "  ", "A or B", "B/C", "b", "\uff22", "\u0412", "B。", "E", "正确", "None"])
def test_no_letter_or_several_are_no_answer(text):
    assert shared_letter(text, ANIMALS) is None


def test_the_article_in_front_of_a_sentence_is_no_option():
    assert shared_letter("A man sits here on the mat", ANIMALS) is None
    assert shared_letter("on the mat sits A", ANIMALS) == "A"


@pytest.mark.parametrize("text", [f"{refusal} B" for refusal in REFUSALS] + ["Z"])
def test_a_refusal_is_no_answer(text):
    assert shared_letter(text, ANIMALS) is None


def test_z_is_an_answer_where_it_is_an_option():
    assert shared_letter("Z", lettered([f"option {number}" for number in range(26)])) == "Z"


def test_a_text_is_read_if_it_is_the_only_one_in_a_short_answer():
    assert shared_letter("It is a COW", ANIMALS) == "C"
    assert shared_letter("a cow and a hen", ANIMALS) is None
    assert shared_letter("a cow that stands somewhere on a green field", ANIMALS) is None


def test_the_beginning_of_a_word_is_taken_for_a_letter_and_counted():
    assert shared_letter("the answer is dog", ANIMALS) == "D"
    assert word_as_letter("the answer is dog", ANIMALS)
    assert not word_as_letter("the answer is d", ANIMALS)
    assert not word_as_letter("the answer is dog, so B", ANIMALS)  # read by its letter, and rightly


def test_options_with_one_text_are_told_apart_by_letter_alone():
    twice = lettered(["cat", "cat", "dog"])
    assert shared_letter("B", twice) == "B"
    assert shared_letter("cat", twice) is None


def test_an_option_without_text_is_not_found_in_every_answer():
    assert shared_letter("a dog", lettered(["dog", "", ""])) == "A"
    assert shared_letter("a hen", lettered(["dog", "", ""])) is None


@pytest.mark.parametrize("count", [0, 27])
def test_options_that_have_no_letters_are_refused(count):
    with pytest.raises(InputError, match=f"^{count} options cannot be lettered A to Z"):
        lettered(["x"] * count)


@pytest.mark.parametrize("benchmark", CHOICES)
def test_gold_data_that_cannot_be_right_is_refused(benchmark):
    with pytest.raises(InputError, match="gold answer 'C' is not among the options"):
        score_answer(benchmark, "A", choice(benchmark, ["x", "y"], "C"))
    with pytest.raises(InputError, match="options"):
        score_answer(benchmark, "A", {"gold": "A"})
    with pytest.raises(InputError, match="options"):
        score_answer(benchmark, "A", None)


def test_letters_other_than_a_to_z_are_refused():
    for letters in (["AA", "AB"], ["1", "2"], ["Ä"], [""]):
        with pytest.raises(InputError, match="need letters from A to Z"):
            score_answer("mmbench", "A", {"options": dict.fromkeys(letters, "x"), "gold": letters[0]})


@pytest.mark.parametrize("letter", ascii_uppercase)
def test_26_options_are_readable(letter):
    assert score_answer("ai2d", letter, choice("ai2d", ["x"] * 26, letter)) == {"extracted": letter, "score": 1}
