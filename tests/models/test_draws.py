"""Sampling whose random numbers belong to the row: right in distribution, and the same in every batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.models.speakers import TEXT, asked, speaker, views
from vlm.contracts.errors import InputError
from vlm.contracts.example import Example
from vlm.models.draws import Draws
from vlm.models.generation import answers
from vlm.models.vlm import VLM

NOTHING = torch.empty(0)
SCORES = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> VLM:
    return speaker("gpt2_nano", tmp_path_factory.mktemp("model"))


def rows(model: VLM, count: int = 12) -> list[Example]:
    made = views(model, 3)
    examples = [asked(model, [made[n % 3]], (0, TEXT[: 3 + n % 4]), n % 3) for n in range(count)]
    return [replace(example, key=f"question {number}") for number, example in enumerate(examples)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_their_probability_says(temperature):
    """20,000 draws; a share of 0.5 has a standard error of 0.0035."""
    keys = [str(number) for number in range(20_000)]
    drawn = Draws(keys, 0, temperature)(NOTHING, SCORES.expand(len(keys), -1)).argmax(1)
    shares = drawn.bincount(minlength=5) / len(keys)
    assert shares.tolist() == pytest.approx((SCORES / temperature).softmax(0).tolist(), abs=0.015)
    assert shares[4] == 0


def test_a_row_draws_alike_beside_any_others_and_otherwise_with_another_key_step_or_seed():
    scores = torch.zeros(3, 50)
    together = Draws(["a", "b", "c"], 7, 1.0)
    first, second = together(NOTHING, scores), together(NOTHING, scores)
    alone = Draws(["b"], 7, 1.0)
    assert torch.equal(alone(NOTHING, scores[:1])[0], first[1])
    assert torch.equal(alone(NOTHING, scores[:1])[0], second[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    assert not torch.equal(Draws(["b"], 8, 1.0)(NOTHING, scores[:1])[0], first[1])


def test_sampled_answers_depend_neither_on_how_many_are_decoded_together_nor_on_their_order(model):
    examples = rows(model)
    options = {"decoding": "sampled", "seed": 3, "max_new_tokens": 6}
    said = answers(model, examples, **options)
    assert [answers(model, examples, together=count, **options) for count in (1, 2, 5)] == [said] * 3
    assert answers(model, examples[::-1], **options)[::-1] == said
    assert [answers(model, [example], **options)[0] for example in examples] == said
    torch.manual_seed(5)  # nor on any other random numbers
    assert answers(model, examples, **options) == said
    assert answers(model, examples, decoding="sampled", seed=4, max_new_tokens=6) != said


def test_close_to_no_temperature_the_most_probable_words_are_drawn(model):
    examples = rows(model)
    cold = answers(model, examples, decoding="sampled", temperature=1e-6, max_new_tokens=6)
    assert cold == answers(model, examples, max_new_tokens=6)
    assert answers(model, examples, decoding="sampled", max_new_tokens=6) != cold


def test_answers_are_drawn_with_the_models_own_probabilities(model):
    """The first token over 2,000 keys against the softmax of a plain forward pass."""
    example = rows(model, 1)[0]
    batch = model.processor.collate([example])
    with torch.no_grad():
        embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
        expected = model.llm.logits(model.llm(embeds, batch.positions))[0, -1].softmax(-1)
    many = [replace(example, key=str(number)) for number in range(2000)]
    said = answers(model, many, decoding="sampled", max_new_tokens=1)
    likeliest = int(expected.argmax())
    word = model.processor.tokenizer.decode([likeliest])
    same = [id for id in range(len(expected)) if model.processor.tokenizer.decode([id]) == word]
    share = sum(one.text == word for one in said) / len(said)
    assert share == pytest.approx(float(expected[same].sum()), abs=0.04)


def test_a_seed_means_nothing_to_decodings_that_draw_otherwise_or_not_at_all(model):
    for decoding in ("greedy", "beam", "top_k"):
        with pytest.raises(InputError, match=f"seed means nothing to decoding={decoding}; choose decoding=sampled"):
            answers(model, rows(model, 1), decoding=decoding, seed=1)
