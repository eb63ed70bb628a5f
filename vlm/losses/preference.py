"""Losses of preference pairs: how much more than its reference a model prefers the chosen answer.

What is compared are log-ratios, the model's log-probability of an answer less the reference's. Only differences of
models enter, so at the start, where both agree, every loss has a known value (`at_start`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vlm.contracts.batch import Batch
from vlm.contracts.fusion import Loss
from vlm.contracts.recipe import PreferenceLossSettings


def sigmoid(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """chosen, rejected [B]: log-ratios of whole answers, summed, in nats -> [B].

    Source: Rafailov et al. 2023 (DPO), equation 7.
    """
    return -logsigmoid(beta * (chosen - rejected))


def ipo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """chosen, rejected [B]: log-ratios as means over the answer's tokens, in nats -> [B].

    Source: Azar et al. 2023, equation 17, beta for its tau; the mean over tokens is that of its authors' experiments,
    as TRL has it. (The paper writes sums.)
    """
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def ddpo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """chosen, rejected [B]: log-ratios as weighted means, changed tokens with weight `changed_weight` -> [B].

    An answer's score is (sum of unchanged + weight * sum of changed) / (unchanged + weight * changed), so that a
    longer answer or a longer correction does not count more. Source: Yu et al. 2024 (RLHF-V), equation 3.
    """
    return sigmoid(chosen, rejected, beta)


def mdpo(chosen: Tensor, rejected: Tensor, corrupted: Tensor, beta: float) -> Tensor:
    """Prefer the chosen answer, prefer it with its picture, and do not let it become less probable -> [B].

    chosen, rejected [B]: as in `sigmoid`.   corrupted [B]: log-ratio of the chosen answer behind a corrupted picture.
    Source: Wang et al. 2024 (mDPO), its three terms with equal weights and an anchor at 0.
    """
    kept = torch.zeros_like(chosen)
    return sigmoid(chosen, rejected, beta) + sigmoid(chosen, corrupted, beta) + sigmoid(chosen, kept, beta)


def at_start(settings: PreferenceLossSettings) -> float:
    """The preference term of a model that equals its reference."""
    if settings.name == "ipo":
        return 1 / (2 * settings.beta) ** 2
    return (3 if settings.name == "mdpo" else 1) * math.log(2)


def answers(logp: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """logp [R, L-1] of labels[:, 1:] -> sums over the chosen [B] and the rejected answers [B]."""
    sums, _ = batch.by_segment(logp)
    chosen, rejected = of_pairs(batch)
    return sums[chosen], sums[rejected]


def of_pairs(batch: Batch) -> tuple[Tensor, Tensor]:
    """The segments of the chosen [B] and the rejected answers [B]: the last two of each sample."""
    ends = torch.bincount(batch.sample, minlength=len(batch.keys)).cumsum(0)
    return ends - 2, ends - 1


def compare(
    logp: Tensor, reference: Tensor, batch: Batch, settings: PreferenceLossSettings, corrupted: Tensor | None = None
) -> dict[str, Tensor]:
    """logp, reference [R, L-1], 0 where there is no label -> for each of B pairs, all [B]:

    loss: the objective, `preference` + chosen_nll * negative log-likelihood of the chosen answer, a *sum* over its
    tokens in nats: on the scale of beta's log-ratios, so that the anchor outweighs the loss's own pull on the chosen
    answer where beta * sigmoid(-margin) < chosen_nll, whatever the length.
    preference: the loss without that anchor.
    reward_margin, reward_accuracy: of beta * (chosen_drift - rejected_drift), whatever the objective; a tie is no win.
    chosen_drift, rejected_drift: log-ratios, sums in nats.   logps_chosen, logps_rejected: sums in nats.
    kl: of the model from its reference, nats a token, a lower bound: the mean over both answers' tokens of the divergence
    between "this token" and "another one". What is known of a place is the probability of the data's token alone, and
    merging outcomes never raises a divergence.
    tokens_chosen, tokens_rejected: their lengths, end tokens included.
    corrupted [B]: as in `mdpo`, which alone needs it.
    """
    moved = logp - reference
    drifts, said = answers(moved, batch), answers(logp, batch)
    lengths = answers(torch.ones_like(logp), batch)
    beta = settings.beta
    if settings.name == "sigmoid":
        preference = sigmoid(*drifts, beta)
    elif settings.name == "ipo":
        preference = ipo(drifts[0] / lengths[0], drifts[1] / lengths[1], beta)
    elif settings.name == "ddpo":
        assert batch.changed is not None
        assert settings.changed_weight is not None
        weights = 1 + (settings.changed_weight - 1) * batch.changed[:, 1:].to(logp.dtype)
        sums, norms = answers(moved * weights, batch), answers(weights, batch)
        preference = ddpo(sums[0] / norms[0], sums[1] / norms[1], beta)
    else:
        assert corrupted is not None
        preference = mdpo(*drifts, corrupted, beta)
    strayed = sum(answers(_divergence(logp, reference), batch))
    margin = beta * (drifts[0] - drifts[1]).detach()
    return {
        "loss": preference - settings.chosen_nll * said[0],
        "preference": preference.detach(),
        "reward_accuracy": (margin > 0).to(logp.dtype),
        "reward_margin": margin,
        "chosen_drift": drifts[0].detach(),
        "rejected_drift": drifts[1].detach(),
        "logps_chosen": said[0].detach(),
        "logps_rejected": said[1].detach(),
        "kl": (strayed / (lengths[0] + lengths[1])).to(logp.dtype),
        "tokens_chosen": lengths[0],
        "tokens_rejected": lengths[1],
    }


def _divergence(logp: Tensor, reference: Tensor) -> Tensor:
    """Of two coins with these log-probabilities of heads, 0 where both are certain."""
    here, there = (value.detach().double().clamp(max=-1e-12) for value in (logp, reference))
    tails = [torch.log(-torch.expm1(value)) for value in (here, there)]
    return here.exp() * (here - there) + tails[0].exp() * (tails[0] - tails[1])


def preference_loss(
    logp: Tensor, reference: Tensor, batch: Batch, settings: PreferenceLossSettings, corrupted: Tensor | None = None
) -> Loss:
    """The sum of the objective over B pairs, count B, and the means of everything else that `compare` finds."""
    found = compare(logp, reference, batch, settings, corrupted)
    total = found.pop("loss")
    logs = {name: value.mean() for name, value in found.items()}
    return Loss(total=total.sum(), count=torch.tensor(len(total), device=total.device), logs=logs)
