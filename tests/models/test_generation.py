"""Rows that begin alike share what they begin with, and every answer is the one that is given to its row alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch

from tests.models.speakers import NAMES, TEXT, asked, speaker, views
from vlm.contracts.errors import InputError
from vlm.contracts.example import Example
from vlm.models.generation import Said, answers
from vlm.models.vlm import VLM


@pytest.fixture(scope="module", params=NAMES)
def model(request, tmp_path_factory) -> VLM:
    return speaker(request.param, tmp_path_factory.mktemp("model"))


def of_all_kinds(model: VLM) -> list[Example]:
    """Three questions about each of three pictures; two pictures; a picture behind its text; no picture."""
    made = views(model, 3)
    examples = [asked(model, [view], (0, TEXT[:end]), number) for number, view in enumerate(made) for end in (2, 6, 9)]
    examples += [asked(model, [view], (TEXT[:5], 0), number) for number, view in enumerate(made)]
    examples += [asked(model, made[:2], (0, TEXT[:3], 1, TEXT[3:end])) for end in (5, 8)]
    examples += [asked(model, made[:2], (0, 1, TEXT[:6])), asked(model, made[1:], (0, 1, TEXT[:6]), 1)]
    return examples + [asked(model, [], (TEXT[:end],)) for end in (4, 4, 8)]


@contextmanager
def encoded(model: VLM) -> Iterator[list[int]]:
    """Views in each call of the encoder."""
    seen: list[int] = []
    hook = model.encoder.register_forward_hook(lambda module, given, found: seen.append(len(given[0])))
    try:
        yield seen
    finally:
        hook.remove()


def one_by_one(model: VLM, examples: Sequence[Example], **options) -> list[Said]:
    return [answers(model, [example], **options)[0] for example in examples]


def stops(model: VLM) -> list[int]:
    template = model.processor.template
    return [model.processor.tokenizer.special(name) for name in (template.end, template.begin)]


@pytest.mark.parametrize("decoding", ["greedy", "beam"])
def test_rows_that_share_their_beginning_answer_as_each_of_them_alone(model, decoding):
    examples = of_all_kinds(model)
    said = answers(model, examples, decoding=decoding, max_new_tokens=7)
    assert said == one_by_one(model, examples, decoding=decoding, max_new_tokens=7)
    assert len({one.text for one in said}) > len(said) // 2  # the answers tell rows apart


def test_answers_depend_neither_on_how_many_are_decoded_together_nor_on_their_order(model):
    examples = of_all_kinds(model)
    said = answers(model, examples, max_new_tokens=6)
    assert [answers(model, examples, together=count, max_new_tokens=6) for count in (1, 2, 5)] == [said] * 3
    assert answers(model, examples[::-1], max_new_tokens=6)[::-1] == said


def test_an_answer_is_what_the_whole_model_finds_most_probable_at_each_step(model):
    """The reference is a plain forward pass over the whole row, without a cache and without sharing."""
    examples = [example for example in of_all_kinds(model) if len(example.views)]
    ends = stops(model)
    for example, said in zip(examples, answers(model, examples, max_new_tokens=4), strict=True):
        ids: list[int] = []
        with torch.no_grad():
            batch = model.processor.collate([example])
            embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
            while len(ids) < 4 and not (ids and ids[-1] in ends):
                positions = torch.arange(embeds.shape[1])[None]
                ids.append(int(model.llm.logits(model.llm(embeds, positions))[0, -1].argmax()))
                embeds = torch.cat([embeds, model.llm.embed(torch.tensor([ids[-1:]]))], 1)
        assert said.text == model.processor.tokenizer.decode([id for id in ids if id not in ends])
        assert said.ended == (ids[-1] in ends)


def test_a_picture_is_encoded_once_for_all_its_questions(model):
    made = views(model, 2)
    examples = [
        asked(model, [view], (0, TEXT[:end]), number) for number, view in enumerate(made) for end in range(2, 8)
    ]
    with encoded(model) as seen:
        answers(model, examples, max_new_tokens=3)
    assert seen == [2]


def test_pictures_in_another_order_are_another_beginning(model):
    made = views(model, 2)
    forth, back = asked(model, made, (0, 1, TEXT[:4])), asked(model, made, (1, 0, TEXT[:4]))
    assert answers(model, [forth, back], max_new_tokens=6) == one_by_one(model, [forth, back], max_new_tokens=6)
    assert answers(model, [forth], max_new_tokens=6) != answers(model, [back], max_new_tokens=6)


def test_an_answer_that_the_longest_length_cuts_is_told_from_one_that_ended(model):
    example, ends = asked(model, views(model, 1), (0, TEXT[:4])), stops(model)
    others = [id for id in range(model.llm.spec.vocabulary) if id not in ends]
    assert answers(model, [example], max_new_tokens=3, suppress_tokens=others) == [Said("", ended=True)]
    assert not answers(model, [example], max_new_tokens=3, suppress_tokens=ends)[0].ended


def test_an_answer_ends_where_the_positions_end(model, monkeypatch):
    """The last token needs no position of its own: nothing follows it."""
    example = asked(model, views(model, 1), (0, TEXT[:4]))
    monkeypatch.setattr(model.processor.tokenizer, "decode", lambda ids: str(len(ids)))
    (said,) = answers(model, [example], max_new_tokens=10_000, suppress_tokens=stops(model))
    assert said == Said(str(model.llm.spec.positions - len(example.ids) + 1), ended=False)


def test_asking_leaves_the_model_in_its_mode(model):
    model.train()
    try:
        answers(model, [asked(model, views(model, 1), (0, TEXT[:4]))], max_new_tokens=1)
        assert model.training
    finally:
        model.eval()


def test_a_prompt_beyond_the_positions_is_refused(model):
    made = views(model, 40)
    with pytest.raises(InputError, match=r"media_many: 40 views of . tokens leave no room for text"):
        asked(model, made, (*range(40), TEXT))
    long = asked(model, made[:1], (0, TEXT * 20))
    with pytest.raises(InputError, match=rf"the prompt takes {len(long.ids)} positions and the model has"):
        answers(model, [long])
