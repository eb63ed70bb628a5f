"""How a question reaches a model: text, letters and pictures in their places, and the same with its options moved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.evaluation.asked import picture, question, settings
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Turn
from vlm.evaluation.prompts import ask, options_of, rotated, rotated_gold

CHOICE = settings(prompt="{hint}{question}\n{options}\nAnswer with the letter.", candidates="letters")
OPTIONS = ("a cat", "a dog", "a kite")


def choice(**more):
    return question(1, options=OPTIONS, fields={"hint": "Context: pets\n"}, **more)


def test_pictures_stand_in_front_of_the_filled_in_prompt():
    asked = ask(choice(pictures=(3, 4)), CHOICE)
    assert asked.parts == (0, 1, "Context: pets\nnine\nA. a cat\nB. a dog\nC. a kite\nAnswer with the letter.")
    assert asked.turns == (Turn("user", asked.parts),)
    assert asked.prompt.startswith("<image 1><image 2>Context: pets")


def test_inline_marks_place_pictures_in_text_and_options_and_a_mark_may_repeat():
    text = "Compare <image 2> with <image 1>."
    found = ask(replace(choice(pictures=(0, 1), inline=True), text=text, options=("<image 1>", "none")), CHOICE)
    expected = ("Context: pets\nCompare ", 1, " with ", 0, ".\nA. ", 0, "\nB. none\nAnswer with the letter.")
    assert found.parts == expected


def test_pictures_stand_in_front_once_and_their_marks_stay_where_a_template_can_place_none():
    text = "Compare <image 2> with <image 1>, then <image 2>."
    found = ask(replace(choice(pictures=(0, 1), inline=True), text=text), CHOICE, inline=False)
    assert found.parts[:2] == (0, 1)
    assert [part for part in found.parts if isinstance(part, int)] == [0, 1]
    assert text in str(found.parts[2])


def test_a_mark_in_an_ordinary_question_is_text():
    assert ask(question(1, pictures=(0,), fields={}), settings(prompt="<image 1> {question}")).parts == (
        0,
        "<image 1> nine",
    )


def test_an_empty_prompt_is_the_picture_alone():
    assert ask(replace(question(1), text=""), settings()).parts == (0,)


def test_braces_in_a_question_or_an_option_are_text():
    found = ask(replace(choice(), text="what is {x}?", options=("{}", "{question}")), CHOICE)
    assert "what is {x}?\nA. {}\nB. {question}" in found.prompt


def test_a_question_may_bring_its_own_prompt_and_length():
    own = question(1, prompt="Q: {question}", max_new_tokens=128)
    assert (ask(own, settings()).prompt, ask(own, settings()).max_new_tokens) == ("<image 1>Q: nine", 128)
    assert ask(question(1), settings()).max_new_tokens == 5


def test_options_may_stand_without_letters():
    assert "\na cat\na dog\na kite\n" in ask(choice(), CHOICE, lettered=False).prompt


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ("letters", (("A", "A"), ("B", "B"), ("C", "C"))),
        ("options", (("a cat", "A"), ("a dog", "B"), ("a kite", "C"))),
        (None, (("A", "A"), ("B", "B"), ("C", "C"))),
        (["yes", "no"], (("yes", "yes"), ("no", "no"))),
    ],
)
def test_compared_answers_stand_for_what_the_scorer_reads(candidates, expected):
    assert ask(choice(), replace(CHOICE, decoding="likelihood", candidates=candidates)).candidates == expected
    assert ask(choice(), replace(CHOICE, candidates=candidates)).candidates == ()  # greedy compares nothing


def test_equal_options_stay_apart_by_their_letters():
    found = ask(
        replace(choice(), options=("a cat", "a cat")), replace(CHOICE, decoding="likelihood", candidates="options")
    )
    assert found.candidates == (("a cat", "A"), ("a cat", "B"))


@pytest.mark.parametrize(
    ("asked", "how", "message"),
    [
        (
            question(1),
            settings(prompt="{question} {hint}"),
            "prompt names hint, but a question has options",
        ),
        (choice(), settings(option="{number}) {text}"), "option names number, but a question has letter, text"),
        (
            question(1, options=tuple(map(str, range(27)))),
            settings(),
            "small q1: 27 options, there are only 26 letters",
        ),
        (
            question(1),
            settings(decoding="likelihood"),
            r"there are none; set change\.small\.candidates, or decoding=greedy",
        ),
        (question(1), settings(decoding="likelihood", candidates="options"), "there are none"),
        (question(1), settings(decoding="likelihood", candidates=[]), "there are none"),
        (
            question(1),
            settings(prompt="{question"),
            r"prompt: '\{question' cannot be read .* a brace that is meant as it is",
        ),
        (question(1), settings(prompt="{question} }"), "prompt: .* cannot be read"),
        (question(1), settings(prompt="{question!r}"), "prompt: .* a field is its name in braces, and nothing more"),
        (question(1), settings(prompt="{question:>9}"), "nothing more"),
        (choice(), settings(option="{letter!s}. {text}"), "option: .* nothing more"),
        (
            question(1),
            settings(decoding="likelihood", candidates=["yes", "no", "yes"]),
            "candidates: yes, no, yes: an answer stands there twice",
        ),
        (question(1, inline=True, prompt="<image 2>"), settings(), "small q1: <image 2> is asked for, it has 1"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(asked, how, message):
    with pytest.raises(InputError, match=message):
        ask(asked, how)


def test_an_inline_picture_number_zero_is_refused():
    with pytest.raises(InputError, match="<image 0>"):
        ask(question(1, inline=True, prompt="<image 0> {question}"), settings())


@pytest.mark.parametrize(
    "held",
    [
        {"options": ["cat", "dog", "kite"]},
        {"choices": ["cat", "dog", "kite"]},
        {"candidates": ["cat", "dog", "kite"]},
        {"options": {"A": "cat", "B": "dog", "C": "kite"}},
        {"options": ["A. cat", "B. dog", "C. kite"]},
    ],
)
@pytest.mark.parametrize("shift", [1, 2])
def test_moved_gold_data_keeps_its_shape_and_its_right_text(held, shift):
    """Shift 1 makes the second option the first, and the letter of the right one falls by one."""
    gold = {**held, "gold": "A", "subject": "pets"}
    moved = rotated_gold(gold, shift)
    key = next(iter(held))
    assert (type(moved[key]), moved["subject"]) == (type(held[key]), "pets")
    texts = [text.removeprefix(f"{letter}. ") for letter, text in zip("ABC", options_of(moved) or (), strict=True)]
    assert texts == ["cat", "dog", "kite"][shift:] + ["cat", "dog", "kite"][:shift]
    assert texts["ABC".index(moved["gold"])] == "cat"
    carries = held[key] == ["A. cat", "B. dog", "C. kite"]
    assert all(
        text.startswith(f"{letter}. ") == carries for letter, text in zip("ABC", options_of(moved) or (), strict=True)
    )
    assert rotated_gold(moved, 3 - shift) == gold


def test_a_moved_question_shows_the_options_that_its_gold_data_has():
    asked = choice(reference={"options": list(OPTIONS), "gold": "B"})
    moved = rotated(asked, 1)
    assert moved.options == ("a dog", "a kite", "a cat") == tuple(moved.reference["options"])
    assert (moved.reference["gold"], moved.id, moved.pictures) == ("A", asked.id, asked.pictures)
    assert rotated(asked, 3) == asked


def test_equal_options_move_by_their_places():
    gold = {"options": ["cat", "cat", "dog"], "gold": "B"}
    assert rotated_gold(gold, 1) == {"options": ["cat", "dog", "cat"], "gold": "A"}


def test_gold_data_without_options_says_so():
    assert options_of({"label": "yes"}) is None
    assert options_of("yes") is None
    assert options_of({"options": [], "gold": "12.5"}) is None  # an open question of MMMU


def test_recognised_text_stands_in_front_of_the_question():
    found = ask(question(1), settings(), recognised="STOP {now}").prompt
    assert found.index("STOP {now}") < found.index("nine")
    assert ask(question(1), settings(), recognised="").prompt == ask(question(1), settings()).prompt


def test_pictures_of_a_question_go_with_it():
    assert ask(question(1, pictures=(5, 6)), settings()).pictures[1].id == picture(6).id
