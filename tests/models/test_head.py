"""Log-probabilities in chunks: the numbers of the whole, the memory of a piece."""

from __future__ import annotations

import pytest
import torch

from vlm.contracts.batch import IGNORE
from vlm.models.llms import head
from vlm.models.llms.head import token_logp

VOCABULARY, WIDTH, ROWS, LENGTH = 97, 16, 4, 50


class Head:
    """A head with a bias and a soft cap that remembers the sizes of its calls."""

    def __init__(self, dtype=torch.float64):
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64)
        self.bias = torch.randn(VOCABULARY, generator=generator, dtype=torch.float64)
        self.weight, self.bias = (t.to(dtype).requires_grad_() for t in (self.weight, self.bias))
        self.calls: list[int] = []

    def __call__(self, hidden):
        self.calls.append(len(hidden))
        return 5 * ((hidden @ self.weight.T + self.bias) / 5).tanh()


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(ROWS, LENGTH, WIDTH, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=generator)
    return hidden, targets.where(torch.rand(ROWS, LENGTH, generator=generator) < 0.8, IGNORE)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(head, "CHUNK_BYTES", 0)
    monkeypatch.setattr(head, "CHUNK_ROWS", 7)


def results(hidden, targets, logits, floor=None):
    hidden = hidden.clone().requires_grad_()
    logp = token_logp(hidden, targets, logits, floor)
    (logp * torch.linspace(0, 1, logp.numel()).view_as(logp)).sum().backward()
    return logp.detach(), hidden.grad, logits.weight.grad, logits.bias.grad


@pytest.mark.parametrize("floor", [None, 1e-2])
def test_chunks_give_the_values_and_gradients_of_the_whole(data, request, floor):
    whole = results(*data, Head(), floor)
    request.getfixturevalue("small_chunks")
    chunked = results(*data, Head(), floor)
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_no_more_than_a_chunk_of_logits_is_ever_made_and_each_twice(data, small_chunks):
    logits = Head()
    results(*data, logits)
    targets = int((data[1] != IGNORE).sum())
    assert max(logits.calls) == 7
    assert sum(logits.calls) == 2 * targets


def test_what_fits_into_one_chunk_is_made_once(data):
    logits = Head()
    results(*data, logits)
    assert sum(logits.calls) == int((data[1] != IGNORE).sum())


def test_without_gradients_a_chunk_is_made_once_and_forgotten(data, small_chunks):
    logits = Head()
    with torch.no_grad():
        token_logp(*data, logits)
    assert max(logits.calls) == 7
    assert sum(logits.calls) == int((data[1] != IGNORE).sum())


def test_a_chunk_holds_about_64_megabytes_and_at_least_64_rows():
    assert head.chunk_rows(65_536) == 256
    assert head.chunk_rows(2_048) == 8192
    assert head.chunk_rows(10**7) == 64


def test_half_precision_is_summed_in_float32(data, small_chunks):
    """What bf16 costs is the rounding of hidden, weights and logits, not the sum over the vocabulary or the tokens."""
    exact = results(*data, Head())
    hidden, targets = data
    logp, *gradients = results(hidden.bfloat16(), targets, Head(torch.bfloat16))
    assert logp.dtype == torch.float32
    torch.testing.assert_close(logp.double(), exact[0], rtol=0.05, atol=0.05)
    torch.testing.assert_close(logp.sum().double(), exact[0].sum(), rtol=1e-3, atol=0)
    for one, other in zip(gradients, exact[1:], strict=True):
        assert float((one.double() - other).norm() / other.norm()) < 0.02


def test_rows_without_a_target_leave_the_head_in_the_graph(small_chunks):
    """Else one rank of several would have no gradient to share."""
    logits = Head()
    hidden = torch.ones(2, 3, WIDTH, dtype=torch.float64)
    logp, reached, weight, bias = results(hidden, torch.full((2, 3), IGNORE), logits)
    assert not any(t.any() for t in (logp, reached, weight, bias))


def test_autocast_gradients_reach_the_head_through_chunks(data, small_chunks):
    hidden, targets = data[0].float().requires_grad_(), data[1]
    linear = torch.nn.Linear(WIDTH, VOCABULARY)
    with torch.autocast("cpu", torch.bfloat16):
        logp = token_logp(hidden, targets, linear)
    logp.sum().backward()
    chunked = linear.weight.grad.clone()
    linear.zero_grad()
    kept = targets != IGNORE
    linear(hidden[kept]).log_softmax(-1)[torch.arange(int(kept.sum())), targets[kept]].sum().backward()
    assert logp.dtype == torch.float32
    assert float((chunked - linear.weight.grad).norm() / linear.weight.grad.norm()) < 0.02
