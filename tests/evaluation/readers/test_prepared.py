"""This project's own prepared splits as benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.data_prep.small_splits import Entry, photograph, png, split
from tests.evaluation.readers.written import is_perfect, read, refused
from vlm.evaluation.readers.prepared import Answers, Captions, Classes, Facts

NAMES = ["zero", "one", "two"]
VALUES = {"color": ["red", "teal"], "shape": ["circle", "triangle"]}


def turns(*said: tuple[str, str]) -> list[dict[str, Any]]:
    """Messages: the picture in front of the first question."""
    messages = []
    for number, (asked, answer) in enumerate(said):
        shown = [{"type": "image", "i": 0}] if number == 0 else []
        text = [{"type": "text", "text": asked}] if asked else []
        messages.append({"role": "user", "content": [*shown, *text]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


def prepared(path: Path, *fields: dict[str, Any]) -> str:
    entries = [Entry([(png(photograph(seed)), f"{seed}.png")], own) for seed, own in enumerate(fields)]
    return str(split(path / "digits/test", entries))


def chat(*said: tuple[str, str], **meta: Any) -> dict[str, Any]:
    return {"kind": "chat", "messages": turns(*said)} | ({"meta": meta} if meta else {})


def test_a_digit_is_a_picture_and_its_name(tmp_path: Path) -> None:
    folder = prepared(tmp_path, chat(("", "two")), chat(("", "zero")))
    first, second = read(Answers(folder, {"questions": 2}, NAMES))
    assert (first.id, first.text, first.reference) == ("digits-0000000000", "", {"answer": "two"})
    assert second.group == second.id
    assert first.pictures[0].id != second.pictures[0].id
    assert first.pictures[0].read()[:2] == b"\xff\xd8"
    assert is_perfect(Answers(folder), "digit_names", lambda question: question.reference["answer"])
    assert Answers(folder).files() == ["index.npy", "shard-000000.tar"]
    refused(Answers(folder, names=["one"]), "digits-0000000000: 'two' is none of one")
    refused(Answers(folder, {"questions": 10_000}), "2 questions, but 10,000 are published")


def test_independent_questions_about_a_picture_are_questions_of_their_own(tmp_path: Path) -> None:
    said = [("is it red?", "yes"), ("what shape?", "circle")]
    folder = prepared(tmp_path, chat(*said, independent=True, types=["yesno", "open"]))
    first, second = read(Answers(folder, {"questions": 2}))
    assert (first.id, second.id) == ("digits-0000000000/0", "digits-0000000000/1")
    assert second.reference == {"answer": "circle", "answer_type": "open"}
    assert first.pictures[0].id == second.pictures[0].id
    refused(Answers(prepared(tmp_path / "talk", chat(*said))), "is a conversation; single questions are needed")


def test_captions_are_all_that_the_source_has(tmp_path: Path) -> None:
    one = {"kind": "caption", "caption": "a boat"}
    five = {"kind": "caption", "caption": "a hill", "meta": {"captions": ["a hill", "some grass"]}}
    assert [question.reference for question in read(Captions(prepared(tmp_path, one, five)))] == [
        ["a boat"], ["a hill", "some grass"],
    ]  # fmt: skip


def test_a_caption_may_be_the_name_of_a_class(tmp_path: Path) -> None:
    folder = prepared(tmp_path, {"kind": "caption", "caption": "a boat"}, {"kind": "caption", "caption": "a hill"})
    reader = Classes(folder, names=["a boat", "a hill"])
    assert is_perfect(reader, "zeroshot", lambda question: question.reference["label"])
    refused(Classes(folder, names=["a boat"]), "digits-0000000001: 'a hill' is none of a boat")


def test_facts_are_what_the_rows_tell_of_their_pictures(tmp_path: Path) -> None:
    row = {"kind": "caption", "caption": "there is one teal circle", "meta": {"color": "teal", "shape": "circle"}}
    folder = prepared(tmp_path, row)
    (question,) = read(Facts(folder, values=VALUES))
    assert question.reference == {"color": "teal", "shape": "circle"}
    assert is_perfect(Facts(folder, values=VALUES), "descriptions", lambda question: "There is one teal circle.")
    refused(Facts(folder, values={"color": ["red"]}), "color is 'teal', none of red")
    refused(Facts(folder, values={"size": ["big"]}), "size is None, none of big")


def test_a_split_that_is_not_there_says_how_to_prepare_it(tmp_path: Path) -> None:
    refused(Answers(str(tmp_path / "mnist/test")), "does not exist; prepare it with: make data SOURCE=mnist")
