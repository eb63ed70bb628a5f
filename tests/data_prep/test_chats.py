"""What a source's turns, placeholders and answers become."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from data_prep.chats import PLACEHOLDER, asked, chat
from data_prep.rows import Unfit
from vlm.contracts.errors import InputError
from vlm.data.canonical import MediumPart, Message, TextPart

WHERE = "talks.json row 3 (from 0)"


def told(*texts: str | None, form: str = "from") -> list[dict[str, Any]]:
    """Question, answer, question, answer …"""
    role, value = ("from", "value") if form == "from" else ("role", "content")
    names = ("human", "gpt") if form == "from" else ("user", "assistant")
    return [{role: names[number % 2], value: text} for number, text in enumerate(texts)]


def parts(message: Message) -> list[str | int]:
    return [part.text if isinstance(part, TextPart) else part.i for part in message.content]


def plain(messages: list[Message]) -> list[tuple[str, list[str | int]]]:
    return [(message.role, parts(message)) for message in messages]


def reason(turns: Any, pictures: int) -> str:
    with pytest.raises(Unfit) as fault:
        chat(turns, pictures, WHERE)
    return fault.value.reason


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ("<image>\nHow many?", [0, "How many?"]),
        ("How many?\n<image>", ["How many?", 0]),
        ("<image>How many?", [0, "How many?"]),
        ("Is \n<image>\n\nred?", ["Is \n", 0, "\nred?"]),
        ("<image>", [0]),
        ("  two  spaces \n<image>", ["  two  spaces ", 0]),
    ],
)
def test_a_picture_stands_where_its_placeholder_stood_and_one_line_end_goes_with_it(
    question: str, shown: list[str | int]
) -> None:
    messages, repaired = chat(told(question, "Three."), 1, WHERE)
    assert plain(messages) == [("user", shown), ("assistant", ["Three."])]
    assert repaired == []


def test_without_a_placeholder_all_pictures_stand_before_the_first_question() -> None:
    messages, repaired = chat([{"role": "system", "content": "Be brief."}, *told("Which?", "Both.")], 2, WHERE)
    assert plain(messages) == [("system", ["Be brief."]), ("user", [0, 1, "Which?"]), ("assistant", ["Both."])]
    assert repaired == ["placeholder_added"]


def test_pictures_are_counted_over_all_questions_in_order() -> None:
    messages, _ = chat(told("<image>First?", "A.", "And <image>\n<image>?", "B."), 3, WHERE)
    assert plain(messages)[::2] == [("user", [0, "First?"]), ("user", ["And ", 1, 2, "?"])]


@pytest.mark.parametrize(
    ("turns", "pictures", "why"),
    [
        (told("<image><image>", "Two."), 1, "placeholder_mismatch"),
        (told("<image>?", "One."), 2, "placeholder_mismatch"),
        (told("Draw it.", "<image>"), 1, "placeholder_mismatch"),
        ([{"from": "system", "value": "<image>"}, *told("So?", "So.")], 1, "placeholder_mismatch"),
        (told("<image>What?", "A cat."), 0, "media_missing"),
        (told("One?"), 0, "turns_bad"),
        ([], 0, "turns_bad"),
        (told("One?", "Yes.")[::-1], 0, "turns_bad"),
        ([*told("One?", "Yes."), {"from": "system", "value": "Late."}], 0, "turns_bad"),
        ([*told("One?"), *told("Two?", "Yes.")], 0, "turns_bad"),
        (told("One?", " \n"), 0, "text_empty"),
        (told("<image>One?", "Yes.", "<image>Two?", ""), 2, "text_empty"),
        (told(" ", "Yes."), 0, "text_empty"),
        (told("One?", None), 0, "row_malformed"),
        ([*told("One?", "Yes."), "no turn"], 0, "row_malformed"),
        ([{"from": None, "value": "x"}], 0, "row_malformed"),
        ([{"from": ["human"], "value": "x"}], 0, "row_malformed"),
        ("One?", 0, "row_malformed"),
        ({"from": "human"}, 0, "row_malformed"),
    ],
)
def test_each_fault_has_its_name(turns: Any, pictures: int, why: str) -> None:
    assert reason(turns, pictures) == why


def test_every_known_role_is_one_of_three_and_any_other_is_refused_with_its_place() -> None:
    for user, assistant in (("human", "gpt"), ("user", "assistant"), ("question", "model")):
        turns = [{"from": user, "value": "Why?"}, {"role": assistant, "content": "So."}]
        assert [message.role for message in chat(turns, 0, WHERE)[0]] == ["user", "assistant"]
    with pytest.raises(InputError, match=r"talks.json row 3 .*role 'bot' is unknown; known: system, human"):
        chat([{"from": "bot", "value": "x"}], 0, WHERE)


def test_an_empty_answer_goes_with_its_question_whose_picture_moves_on() -> None:
    messages, repaired = chat(told("<image>One?", "", "Two?", "Yes."), 1, WHERE)
    assert plain(messages) == [("user", [0, "Two?"]), ("assistant", ["Yes."])]
    assert repaired == ["answer_empty"]


def test_equal_roles_are_joined_with_a_blank_line_only_where_a_set_allows_it() -> None:
    turns = [*told("<image>\nOne?"), *told("Two?", "Yes."), {"from": "gpt", "value": "Both."}]
    assert reason(turns, 1) == "turns_bad"
    messages, repaired = chat(turns, 1, WHERE, joins=True)
    assert plain(messages) == [("user", [0, "One?\n\nTwo?"]), ("assistant", ["Yes.\n\nBoth."])]
    assert repaired == ["turns_joined", "turns_joined"]


def test_a_picture_between_joined_texts_takes_the_place_of_the_blank_line() -> None:
    messages, _ = chat([*told("One?"), *told("<image>Two?", "Yes.")], 1, WHERE, joins=True)
    assert parts(messages[0]) == ["One?", 0, "Two?"]


def test_lists_of_parts_name_their_pictures_so_a_placeholder_in_their_text_is_text() -> None:
    content = [{"type": "text", "text": "In <image>:"}, {"type": "image"}, {"type": "text", "text": ""}]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "Yes."}]
    assert parts(chat(turns, 1, WHERE)[0][0]) == ["In <image>:", 0]
    turns[0]["content"] = [{"type": "sound"}]
    assert reason(turns, 1) == "row_malformed"


def test_in_a_set_without_pictures_a_placeholder_is_text_on_both_sides() -> None:
    turns = told("What does <image>\n do in HTML?", "<image> is no tag.", form="role")
    messages, repaired = chat(turns, 0, WHERE, placeholders=False)
    assert [parts(message) for message in messages] == [["What does <image>\n do in HTML?"], ["<image> is no tag."]]
    assert repaired == []


@pytest.mark.parametrize(
    ("text", "shown", "repairs"),
    [
        ("What is it?", [0, "What is it?"], ["placeholder_added"]),
        ("<image>\nWhat is it?", [0, "What is it?"], []),
        ("What is it?\n<image>", ["What is it?", 0], []),
    ],
)
def test_a_question_alone_becomes_a_turn_that_shows_its_picture(
    text: str, shown: list[str | int], repairs: list[str]
) -> None:
    message, repaired = asked(text, 1)
    assert (message.role, parts(message), repaired) == ("user", shown, repairs)


@pytest.mark.parametrize(
    ("text", "pictures", "why"),
    [
        ("", 1, "text_empty"),
        ("<image>\n ", 1, "text_empty"),
        ("<image><image>What?", 1, "placeholder_mismatch"),
        ("<image>What?", 0, "media_missing"),
    ],
)
def test_a_question_that_was_never_asked_is_not_made_up(text: str, pictures: int, why: str) -> None:
    with pytest.raises(Unfit) as fault:
        asked(text, pictures)
    assert fault.value.reason == why


WORDS = some.lists(some.text(some.sampled_from("ab \n<>image"), max_size=9), min_size=1, max_size=4)


@given(words=WORDS)
def test_nothing_but_placeholders_and_one_line_end_beside_each_is_lost(words: list[str]) -> None:
    text = "x" + PLACEHOLDER.join(words)
    places = text.count(PLACEHOLDER)
    messages, repaired = chat(told(text, "Yes."), places, WHERE)
    content = messages[0].content
    assert [part.i for part in content if isinstance(part, MediumPart)] == list(range(places))
    assert all(part.text for part in content if isinstance(part, TextPart))
    assert repaired == []
    kept = "".join(part.text if isinstance(part, TextPart) else PLACEHOLDER for part in content)
    assert kept.replace("\n", "") == text.replace("\n", "")
    assert 0 <= text.count("\n") - kept.count("\n") <= places
