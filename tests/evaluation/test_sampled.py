"""Benchmarks with drawn answers: the same whatever the batching, and a result of their own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.evaluation.asked import picture, question, settings
from tests.evaluation.commands import PLAIN, SHORT, entries, lines, run, words
from tests.models.speakers import TEXT, speaker
from vlm.contracts.benchmark import Question, Reply
from vlm.contracts.errors import InputError
from vlm.evaluation.answerers import answerer
from vlm.evaluation.prepared import Prepared
from vlm.evaluation.prompts import ask
from vlm.evaluation.readers.pope import Pope
from vlm.evaluation.runner import Asking, Task
from vlm.evaluation.subset import share
from vlm.models.vlm import VLM

DRAWN = settings(decoding="sampled")


@pytest.fixture(scope="module")
def speaking(tmp_path_factory) -> VLM:
    return speaker("gpt2_nano", tmp_path_factory.mktemp("gpt2"))


def questions(count: int = 16) -> list[Question]:
    return [replace(question(n, pictures=[n // 4]), text=TEXT[: 2 + n % 5]) for n in range(count)]


def replies(model: VLM, asked, batch: int = 8, how=DRAWN, seed: int = 0) -> dict[str, Reply]:
    parts = answerer(model, how, batch, seed=seed)(asked, partial(ask, settings=how))
    return {reply.id: reply for part in parts for reply in part}


def prepared(data: Path, **changes) -> Prepared:
    return Prepared(settings(name="pope", **changes), Pope(str(data / "pope")))


def task(data: Path, folder: Path, seed: int = 0, **changes) -> Task:
    return Task(prepared(data, **changes), Asking("m", "w", data, None, seed, 0, None), folder)


def test_drawn_answers_depend_neither_on_the_batch_nor_on_the_order_nor_on_the_number_of_parts(speaking):
    asked = questions()
    alone = {name: reply for one in asked for name, reply in replies(speaking, [one], 1).items()}
    assert [replies(speaking, asked, batch) for batch in (1, 3, 64)] == [alone] * 3
    assert replies(speaking, asked[::-1], 5) == alone
    merged = [replies(speaking, share(asked, part, 2), 4) for part in range(2)]
    assert {name: reply for one in merged for name, reply in one.items()} == alone
    assert replies(speaking, asked, how=settings()) != alone
    assert replies(speaking, asked, seed=1) != alone


def test_equal_questions_are_drawn_each_by_itself(speaking):
    asked = [replace(question(n), pictures=(picture(0),), text="nine") for n in range(8)]
    assert len({reply.prediction for reply in replies(speaking, asked).values()}) > 4
    assert len({reply.prediction for reply in replies(speaking, asked, how=settings()).values()}) == 1


def test_several_draws_are_questions_of_one_group(data):
    once, thrice = prepared(data, decoding="sampled"), prepared(data, decoding="sampled", draws=3)
    found = thrice.questions()
    assert len(found) == 3 * len(once.questions()) == thrice.count
    assert [one.id for one in found[:3]] == [f"{once.questions()[0].id}/draw {n}" for n in range(3)]
    assert len({one.group for one in found}) == len({one.group for one in once.questions()})


def test_keys_of_sampling_are_refused_where_nothing_is_drawn(data):
    for change in ({"temperature": 0.5}, {"draws": 2}):
        with pytest.raises(InputError, match=f"benchmark pope: {next(iter(change))} means nothing to decoding=greedy"):
            prepared(data, **change).questions()


def test_temperature_draws_and_seed_decide_drawn_answers_and_leave_others_results_as_they_are(data, tmp_path):
    drawn = [
        task(data, tmp_path, decoding="sampled", **change).sheet.id
        for change in ({}, {"temperature": 0.5}, {"draws": 2}, {"seed": 1})
    ]
    assert len(set(drawn)) == 4
    assert not {"temperature", "draws"} & set(task(data, tmp_path).sheet.settings["benchmark"])


def test_the_command_draws_and_says_so(model, data, tmp_path):
    given = words(model, data, tmp_path, *SHORT, "decoding=sampled", "batch=5")
    assert run(*given)[0] == 0
    (entry,) = entries(tmp_path)
    assert (entry["settings"]["decoding"], entry["n"]) == ("sampled", 24)
    first = lines(tmp_path)
    other = tmp_path / "again"
    for part in ("part=0/2", "part=1/2"):
        assert run(*words(model, data, other, *SHORT, "decoding=sampled", part))[0] == 0
    assert run(*words(model, data, other, *SHORT, "decoding=sampled"))[0] == 0
    assert [line["prediction"] for line in lines(other)] == [line["prediction"] for line in first]


def test_controls_are_drawn_too(model, data, tmp_path):
    assert run(*words(model, data, tmp_path, *PLAIN, "decoding=sampled", "limit=8"))[0] == 0
    assert "the model with grey pictures" in entries(tmp_path)[0]["baselines"]
