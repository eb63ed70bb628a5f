"""Packed rows and branches: the same numbers as rows of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.models.layouts import DECODERS, Segment, apart, batch_of, small_model
from vlm.contracts.batch import IGNORE
from vlm.losses.language import language_loss, sample_nll
from vlm.models.mask import attention_mask
from vlm.models.recompute import recompute

PACKED = (
    [
        Segment((3, 1, 4, 1, 5), picture=0, sample=0),
        Segment((9, 2, 6), picture=1, sample=1),
        Segment((5, 3, 5, 8, 9), picture=0, sample=2),
        Segment((7, 9, 3, 2, 3, 8, 4), sample=3),
    ],
    (4, 2, 3, 6),
)
QUESTIONS = (  # about one picture, beside a sample of its own
    [
        Segment((3, 1), picture=0, sample=0),
        Segment((4, 1, 5, 9), above=0, sample=0),
        Segment((4, 2, 6), above=0, sample=0),
        Segment((4, 5, 3, 5), above=0, sample=0),
        Segment((8, 9, 7), picture=1, sample=1),
    ],
    (2, 1, 3, 2),
)
PAIR = ([Segment((3, 1), picture=0), Segment((4, 1, 5, 9), above=0), Segment((4, 2, 6), above=0)], (3, 2))
NESTED = (  # a question on a shared start, two answers on the question
    [
        Segment((3, 1), picture=0),
        Segment((4, 1, 5), above=0),
        Segment((9, 2), above=1),
        Segment((9, 6, 5), above=1),
        Segment((4, 8, 8), above=0),
    ],
    (1, 2, 2),
)
ROWS = {"packed": PACKED, "questions": QUESTIONS, "pair": PAIR, "nested": NESTED}


@pytest.fixture(params=DECODERS)
def decoder(request):
    return request.param


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def model(decoder, request):
    return small_model(decoder).to(request.param).eval()


def results(model, batch, reduction="token"):
    """Log-probabilities of the targets in reading order, the loss, and the gradient of every parameter."""
    model.zero_grad()
    logp = model(batch).logp
    loss = language_loss(logp, batch, reduction)
    (loss.total / loss.count).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return {"logp": logp[batch.labels[:, 1:] != IGNORE].detach(), "loss": loss.total.detach(), **gradients}


def assert_same(first, second, tolerance=None):
    tolerance = tolerance or (1e-10 if first["loss"].dtype == torch.float64 else 1e-5)
    for name in first:
        torch.testing.assert_close(
            first[name], second[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ROWS)
def test_a_packed_row_gives_the_loss_and_gradients_of_separate_rows(model, name, training):
    row, answers = ROWS[name]
    model.train(training)
    together = results(model, batch_of(model, [row], answers))
    assert_same(together, results(model, batch_of(model, apart(row), answers)))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ROWS)
def test_recomputation_changes_nothing_in_a_packed_row(decoder, name, training):
    model = small_model(decoder).double().train(training)
    row, answers = ROWS[name]
    batch = batch_of(model, [row], answers)
    before = results(model, batch)
    recompute(model)
    assert_same(results(model, batch), before)
    assert_same(results(model, batch_of(model, apart(row), answers)), before)


def test_samples_packed_in_several_padded_rows_score_as_rows_of_their_own(model):
    (first, second), answers = (PACKED[0], QUESTIONS[0]), (*PACKED[1], *QUESTIONS[1])
    second = [replace(segment, sample=segment.sample + 4) for segment in second]
    together = results(model, batch_of(model, [first, second], answers, padding=3))
    assert_same(together, results(model, batch_of(model, [*apart(first), *apart(second)], answers)))


def test_a_mean_over_samples_counts_samples_not_rows(model):
    row, answers = QUESTIONS
    together = batch_of(model, [row], answers)
    nll, tokens = sample_nll(model(together).logp, together)
    assert tokens.tolist() == [6, 2]
    loss = language_loss(model(together).logp, together, "sample")
    torch.testing.assert_close(loss.total / loss.count, (nll / tokens).mean())
    separate = batch_of(model, apart(row), answers)
    assert_same(results(model, together, "sample"), results(model, separate, "sample"))


def test_hidden_states_of_a_packed_row_are_those_of_separate_rows(model):
    """Every position, asked for or not."""
    row, answers = NESTED
    batch = batch_of(model, [row], answers)
    embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
    hidden = model.llm(embeds, batch.positions, attention_mask(batch))[0]
    shared = int((batch.segment == 0).sum())
    at = {number: (batch.segment[0] == number).nonzero().squeeze(1) for number in range(5)}
    for leaf, chain in ((2, (0, 1, 2)), (3, (0, 1, 3)), (4, (0, 4))):
        index = torch.cat([at[number] for number in chain])
        alone = model.llm(embeds[:, index], torch.arange(len(index)).unsqueeze(0))[0]
        torch.testing.assert_close(hidden[at[leaf]], alone[-len(at[leaf]) :], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(hidden[:shared], alone[:shared], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("again", [False, True], ids=["stored", "recomputed"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_one_sample_of_a_packed_row_is_deaf_to_the_others(decoder, training, again):
    model = small_model(decoder).train(training)
    if again:
        recompute(model)
    row, answers = PACKED
    batch = batch_of(model, [row], answers)
    other = replace(batch, ids=batch.ids.clone())
    other.ids[batch.segment == 1] = other.ids[batch.segment == 1].where(other.ids[batch.segment == 1] != 2, 7)
    assert not torch.equal(other.ids, batch.ids)
    logits = [
        model.llm.logits(
            model.llm(model.fusion(b, model.encoder, model.connector, model.llm)[0], b.positions, attention_mask(b))
        )
        for b in (batch, other)
    ]
    for sample in range(4):
        place = batch.segment[0] == sample
        assert torch.equal(logits[0][0, place], logits[1][0, place]) == (sample != 1)


@pytest.mark.parametrize("again", [False, True], ids=["stored", "recomputed"])
def test_the_loss_of_one_sample_has_no_gradient_in_anothers_embeddings(decoder, again):
    model = small_model(decoder).train()
    if again:
        recompute(model)
    row, answers = PACKED
    batch = batch_of(model, [row], answers)
    embeds = model.fusion(batch, model.encoder, model.connector, model.llm)[0].detach().requires_grad_()
    hidden = model.llm(embeds, batch.positions, attention_mask(batch))
    labels = batch.labels.where(batch.segment == 1, IGNORE)
    model.llm.logp(hidden[:, :-1], labels[:, 1:]).sum().backward()
    reached = embeds.grad[0].ne(0).any(1)
    assert torch.equal(reached, (batch.segment[0] == 1) & reached)
    assert reached.sum() == (batch.segment[0] == 1).sum() - 1  # the last token predicts nothing


def test_a_text_only_batch_still_reaches_every_parameter(model):
    results(model, batch_of(model, [[Segment((3, 1, 4)), Segment((1, 5))]], (2, 1)))
