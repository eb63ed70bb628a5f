"""A model that answers a benchmark: pictures once, batches of any size, prompts that do not fit, choices by probability."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from tests.evaluation.asked import choices, drawn, picture, question, settings
from tests.models.speakers import NAMES, TEXT, speaker
from vlm.contracts.benchmark import Question, Reply
from vlm.contracts.errors import InputError, RunError
from vlm.contracts.sample import Turn
from vlm.contracts.settings import BenchmarkSettings
from vlm.data.pictures import decode
from vlm.evaluation import answering
from vlm.evaluation.answering import Answering
from vlm.evaluation.conditions import Blank, other_pictures, shuffled
from vlm.evaluation.prompts import ask
from vlm.evaluation.subset import share
from vlm.models.likelihood import log_probabilities
from vlm.models.vlm import VLM

COMPARED = settings(decoding="likelihood", candidates=["e", "w", "on", "h", "i", "x", "tz", "v"])


@pytest.fixture(scope="module", params=NAMES)
def model(request, tmp_path_factory) -> VLM:
    return speaker(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> VLM:
    return speaker("gpt2_nano", tmp_path_factory.mktemp("gpt2"))


def questions(count: int = 24, each: int = 4) -> list[Question]:
    """`each` about a picture, of ragged lengths; every fifth is about two pictures, every seventh about none."""
    found = []
    for number in range(count):
        shown = [number // each] if number % 5 else [number // each, number // each + 1]
        found.append(replace(question(number, pictures=[] if number % 7 == 6 else shown), text=TEXT[: 2 + number % 5]))
    return found


def replies(model: VLM, asked, batch: int = 8, how: BenchmarkSettings = settings()) -> dict[str, Reply]:  # noqa: B008
    said = [
        reply
        for part in Answering(model, batch, normalise=how.normalise)(asked, partial(ask, settings=how))
        for reply in part
    ]
    assert len(said) == len({reply.id for reply in said})
    return {reply.id: reply for reply in said}


@contextmanager
def encoded(model: VLM) -> Iterator[list[int]]:
    """Views in each call of the encoder."""
    seen: list[int] = []
    hook = model.encoder.register_forward_hook(lambda module, given, found: seen.append(len(given[0])))
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize("how", [settings(), COMPARED], ids=["greedy", "likelihood"])
def test_answers_depend_neither_on_the_batch_nor_on_the_order_nor_on_the_number_of_parts(model, how):
    asked = questions()
    alone = {name: reply for one in asked for name, reply in replies(model, [one], 1, how).items()}
    assert len({reply.prediction for reply in alone.values()}) > 2
    assert [replies(model, asked, batch, how) for batch in (1, 3, 64)] == [alone] * 3
    assert replies(model, asked[::-1], 5, how) == alone
    for parts in (2, 3):
        merged = [replies(model, share(asked, part, parts), 4, how) for part in range(parts)]
        assert {name: reply for one in merged for name, reply in one.items()} == alone


@pytest.mark.parametrize("how", [settings(), COMPARED], ids=["greedy", "likelihood"])
def test_each_picture_is_read_and_encoded_once_for_all_its_questions(gpt2, how):
    read: list[int] = []

    def reading(number: int) -> bytes:
        read.append(number)
        return drawn(number)

    asked = [
        replace(
            question(number),
            pictures=(picture(number % 5, read=partial(reading, number % 5)),),
            text=TEXT[: 2 + number % 3],
        )
        for number in range(30)
    ]
    with encoded(gpt2) as seen:
        assert len(replies(gpt2, asked, 8, how)) == 30
    assert (sorted(read), sum(seen)) == ([0, 1, 2, 3, 4], 5)


def test_a_picture_with_more_questions_than_a_batch_holds_is_answered_in_pieces(gpt2):
    asked = [replace(question(number), text=TEXT[: 2 + number % 8]) for number in range(40)]
    assert replies(gpt2, asked, batch=2) == replies(gpt2, asked, batch=64)


def test_the_most_probable_answer_is_given_and_stands_for_its_letter(gpt2):
    how = settings(decoding="likelihood", candidates="options")
    for number in range(4):
        one = question(number, choices("A")[0], pictures=(number,), options=("nine", "two", "one", "three"))
        ((said),) = replies(gpt2, [one], 8, how).values()
        processor = gpt2.processor
        made = [processor.finished(processor.views(decode(drawn(number), "picture")))]
        texts = [(Turn("user", (0, "nine")), Turn("assistant", (option,))) for option in one.options]
        (values,) = log_probabilities(gpt2, [processor.alternatives(texts, made, [0])], [4])
        totals = [total for total, _ in values]
        assert said.prediction == "ABCD"[totals.index(max(totals))]


def test_probabilities_may_be_taken_per_token(gpt2):
    """A long answer has a low probability as a whole."""
    how = settings(decoding="likelihood", candidates=["no", "what is one and the other what is one and the other"])
    whole = {reply.prediction for reply in replies(gpt2, questions(12), 8, how).values()}
    each = {reply.prediction for reply in replies(gpt2, questions(12), 8, replace(how, normalise="tokens")).values()}
    assert whole == {"no"} != each


def test_equally_probable_answers_are_no_answer(gpt2):
    """Taking the first would be a guess that always favours A."""
    one = question(1, options=("two", "two"))
    (said,) = replies(gpt2, [one], 8, settings(decoding="likelihood", candidates="options")).values()
    assert said == Reply("q1", "", fault="tied: 2 answers are equally probable")


def test_a_longer_tie_between_losers_does_not_matter(gpt2):
    how = settings(decoding="likelihood", candidates="options")
    said = {
        replies(gpt2, [question(1, options=options)], 8, how)["q1"].prediction
        for options in (
            ("one", "nine nine nine nine", "nine nine nine nine"),
            ("nine nine nine nine", "nine nine nine nine", "one"),
        )
    }
    assert said == {"A", "C"}


@pytest.mark.parametrize("how", [settings(), COMPARED], ids=["greedy", "likelihood"])
def test_a_prompt_that_does_not_fit_is_counted_and_never_cut(model, how):
    asked = [question(0), replace(question(1), text=TEXT * 30), question(2, pictures=range(50)), question(3)]
    found = replies(model, asked, 8, how)
    assert [found[name].fault is None for name in ("q0", "q1", "q2", "q3")] == [True, False, False, True]
    assert "text_long" in (found["q1"].fault or "")
    assert "media_many" in (found["q2"].fault or "")
    assert (found["q1"].prediction, found["q2"].prediction) == ("", "")
    assert {name: found[name] for name in ("q0", "q3")} == replies(model, [asked[0], asked[3]], 8, how)


def test_each_question_has_its_own_longest_length(gpt2):
    asked = [question(0), question(1, max_new_tokens=1), question(2, pictures=(2,), max_new_tokens=1)]
    found = replies(gpt2, asked)
    assert len(found["q1"].prediction) <= len(found["q0"].prediction)
    assert found["q0"].prediction.startswith(found["q1"].prediction.rstrip("�"))
    assert found["q1"].truncated


def test_grey_and_exchanged_pictures_change_what_is_answered(gpt2):
    asked = [one for one in questions() if one.pictures]
    others = other_pictures(asked, 0)
    seen = replies(gpt2, asked)
    assert (
        replies(gpt2, [Blank()(one) for one in asked])
        != seen
        != replies(gpt2, [shuffled(one, others) for one in asked])
    )
    swapped = shuffled(asked[1], others)
    assert replies(gpt2, [swapped]) == replies(gpt2, [replace(asked[1], pictures=swapped.pictures)])


@pytest.mark.parametrize("data", [b"", b"no picture", drawn(1)[:90]])
def test_a_damaged_picture_ends_the_run_after_what_was_answered_has_been_given(gpt2, data):
    asked = [question(number, pictures=(number,)) for number in range(6)]
    asked.append(
        replace(question(6), pictures=(picture(6, read=lambda: data),), text=TEXT * 2)
    )  # the longest comes last
    said: list[Reply] = []

    def keep() -> None:
        for part in Answering(gpt2, 3)(asked, partial(ask, settings=settings())):
            said.extend(part)

    with pytest.raises(
        RunError, match=r"6\.png cannot be shown: .*; a score without it would be no score of this benchmark"
    ):
        keep()
    assert {reply.id for reply in said} == {f"q{number}" for number in range(6)}


def test_a_clip_is_refused_by_a_model_of_pictures(gpt2):
    clip = replace(picture(0), type="video")
    with pytest.raises(InputError, match=r"0\.png: this model takes pictures, no clips; choose benchmarks of pictures"):
        replies(gpt2, [replace(question(0), pictures=(clip,))])


def test_very_many_questions_about_one_picture_are_compared_in_rows_of_a_limited_length(gpt2, monkeypatch):
    """All grey pictures of one size are one picture; one row of all their questions would fill any memory."""
    asked = [replace(question(number), text=TEXT[: 2 + number % 9]) for number in range(60)]
    passes: list[list[int]] = []

    def watched(model, examples, *more):
        passes.append([len(example.ids) for example in examples])
        return log_probabilities(model, examples, *more)

    monkeypatch.setattr(answering, "log_probabilities", watched)
    alone = {name: reply for one in asked for name, reply in replies(gpt2, [one], 1, COMPARED).items()}
    longest = max(map(sum, passes))  # of one question with its picture and all its answers
    for most in (1, 2 * longest, 5 * longest):
        passes.clear()
        monkeypatch.setattr(answering, "BRANCH_TOKENS", most)
        assert replies(gpt2, asked, 64, COMPARED) == alone
        assert max(map(sum, passes)) <= max(most, longest), "no more than the limit, or than one question needs"
        assert len(passes) > 1
