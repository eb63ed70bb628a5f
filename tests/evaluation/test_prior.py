"""The baseline of training answers: what a model could say that has read the questions and never looked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.writing.shard import ShardWriter, write_sealed
from tests.evaluation.asked import question
from vlm.contracts.errors import InputError
from vlm.data.canonical import FORMAT, from_json
from vlm.data.shards import key_of
from vlm.evaluation.prior import prior_replies

Talk = Sequence[tuple[str, str]]


def split(root: Path, talks: Sequence[Talk], independent: bool = True) -> Path:
    """A prepared split of conversations: pairs of question and answer."""
    home = root / "small" / "train"
    writer = ShardWriter(home, 20_000)
    for row, talk in enumerate(talks):
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for pair in talk
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        content = {
            "v": 1, "kind": "chat", "key": key_of("small", row), "set": "small", "split": "train", "license": "MIT",
            "src": {"file": "a", "row": row, "id": str(row)}, "media": [], "messages": messages,
            "meta": {"independent": independent},
        }  # fmt: skip
        writer.add(from_json(json.dumps(content).encode()), [])
    manifest = {"format": FORMAT, "set": "small", "split": "train", "index": writer.finish(), "shards": writer.shards}
    manifest |= {"counts": {"samples_out": len(talks)}, "license": {"counts": {"MIT": len(talks)}}}
    write_sealed(home / "manifest.json", json.dumps(manifest).encode())
    return home


def said(directory: Path, text: str, **more) -> str:
    (reply,) = prior_replies([replace(question(1, **more), text=text)], directory)
    return reply.prediction


TALKS = [
    [("is it red?", "yes"), ("what shape?", "circle")],
    [("is it red?", "no"), ("what shape?", "square")],
    [("is it red?", "no"), ("what shape?", "circle")],
    [("is it blue?", "no")],
]


def test_the_commonest_answer_to_the_same_text_is_given(tmp_path):
    directory = split(tmp_path, TALKS)
    assert (said(directory, "is it red?"), said(directory, "what shape?")) == ("no", "circle")


def test_letter_case_and_white_space_make_no_other_question(tmp_path):
    assert said(split(tmp_path, TALKS), " What\n SHAPE? ") == "circle"


def test_a_text_that_training_has_not_gets_the_commonest_answer_of_all(tmp_path):
    assert said(split(tmp_path, TALKS), "how many?") == "no"


def test_equally_common_answers_give_the_same_one_every_time(tmp_path):
    directory = split(tmp_path, [[("a?", "two")], [("a?", "one")]])
    assert {said(directory, "a?") for _ in range(3)} == {"one"}


def test_of_a_choice_the_option_that_training_gives_most_often_is_named_by_its_letter(tmp_path):
    directory = split(tmp_path, TALKS)
    assert said(directory, "what shape?", options=("Square", "triangle", "Circle")) == "C"
    assert said(directory, "what shape?", options=("square", "triangle")) == "A"


def test_every_question_of_one_conversation_counts(tmp_path):
    directory = split(tmp_path, [[("a?", "x"), ("b?", "y"), ("b?", "y")]], independent=False)
    assert (said(directory, "a?"), said(directory, "b?")) == ("x", "y")


def test_a_split_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError):
        prior_replies([question(1)], tmp_path / "none")
