"""Preference losses: closed forms, one row at a time, packed, in micro-batches, and beside TRL's."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests import hf_folder
from tests.models.layouts import apart, batch_of
from tests.models.stacked import PAIRS, pair_row, pairs_batch, stacked_model, with_pictures
from vlm.contracts.batch import Batch
from vlm.contracts.recipe import PreferenceLossSettings
from vlm.losses.preference import answers, at_start, compare, ddpo, ipo, mdpo, of_pairs, preference_loss, sigmoid
from vlm.models.llms.hf_causal import HFCausal

BETA = 0.1
NAMES = ["sigmoid", "ipo", "ddpo", "mdpo"]


def settings(name: str = "sigmoid", chosen_nll: float = 0.0, beta: float = BETA) -> PreferenceLossSettings:
    return PreferenceLossSettings(name, beta, chosen_nll, changed_weight=5.0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return hf_folder.whole(tmp_path_factory.mktemp("llama"))


def hand_made() -> tuple[Batch, Tensor, Tensor]:
    """One pair: a prompt of two tokens, a chosen answer of two of which one is changed, a rejected one of one."""
    batch = Batch(
        ids=torch.tensor([[1, 2, 3, 4, 2, 5]]),
        labels=torch.tensor([[-100, -100, 3, 4, -100, 5]]),
        positions=torch.tensor([[0, 1, 2, 3, 1, 2]]),
        segment=torch.tensor([[0, 1, 1, 1, 2, 2]]),
        parent=torch.tensor([-1, 0, 0]),
        sample=torch.tensor([0, 0, 0]),
        views=torch.zeros(1, 1, 1, 1),
        slots=torch.zeros(0, 2, dtype=torch.long),
        pictures=torch.tensor([-1]),
        changed=torch.tensor([[False, False, False, True, False, True]]),
        keys=("k",),
    )
    logp = torch.tensor([[0.0, -1.0, -2.0, 0.0, -4.0]], dtype=torch.float64)
    reference = torch.tensor([[0.0, -1.5, -2.25, 0.0, -3.0]], dtype=torch.float64)
    return batch, logp, reference  # log-ratios: chosen 0.5 and 0.25 (changed), rejected -1 (changed)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def divergence(here: float, there: float) -> float:
    """Of "this token" against "another one", from their log-probabilities."""
    p, q = math.exp(here), math.exp(there)
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sigmoid", -log_sigmoid(BETA * (0.75 + 1))),
        ("ipo", (0.75 / 2 + 1 - 1 / (2 * BETA)) ** 2),
        ("ddpo", -log_sigmoid(BETA * ((0.5 + 5 * 0.25) / 6 + 1))),
        ("mdpo", -log_sigmoid(BETA * 1.75) - log_sigmoid(BETA * (0.75 - 0.125)) - log_sigmoid(BETA * 0.75)),
    ],
)
def test_each_loss_is_its_closed_form(name, value):
    batch, logp, reference = hand_made()
    corrupted = torch.tensor([0.125], dtype=torch.float64)
    found = compare(logp, reference, batch, settings(name), corrupted)
    assert found["preference"].item() == pytest.approx(value, rel=1e-14)
    assert found["loss"].item() == pytest.approx(value, rel=1e-14)
    anchored = compare(logp, reference, batch, settings(name, chosen_nll=0.05), corrupted)
    assert anchored["loss"].item() == pytest.approx(value + 0.05 * 3, rel=1e-14)  # a sum over the chosen tokens
    assert anchored["preference"].item() == pytest.approx(value, rel=1e-14)


def test_what_is_logged_says_how_far_each_answer_moved():
    batch, logp, reference = hand_made()
    logs = {name: value.item() for name, value in preference_loss(logp, reference, batch, settings()).logs.items()}
    kl = sum(divergence(*pair) for pair in [(-1, -1.5), (-2, -2.25), (-4, -3)]) / 3
    assert logs == pytest.approx(
        {
            "preference": -log_sigmoid(BETA * 1.75), "reward_accuracy": 1, "reward_margin": BETA * 1.75,
            "chosen_drift": 0.75, "rejected_drift": -1, "logps_chosen": -3, "logps_rejected": -4, "kl": kl,
            "tokens_chosen": 2, "tokens_rejected": 1,
        }
    )  # fmt: skip


def test_the_logged_divergence_never_exceeds_that_of_the_whole_distributions():
    """As it is known of one outcome alone; for each outcome of each pair of distributions."""
    batch, *_ = hand_made()
    here, there = torch.randn(2, 50, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(3)
    here, there = here.log_softmax(-1), there.log_softmax(-1)
    exact = (here.exp() * (here - there)).sum(-1)
    for row in range(50):
        for token in range(20):
            logp, reference = (torch.zeros(1, 5, dtype=torch.float64) for _ in "ab")
            logp[0, [1, 2, 4]], reference[0, [1, 2, 4]] = here[row, token], there[row, token]
            found = compare(logp, reference, batch, settings())["kl"].item()
            assert -1e-12 <= found <= exact[row] + 1e-12


@pytest.mark.parametrize(("logp", "reference"), [(-0.5, -15.5), (-15.5, -0.5), (0.0, -15.0), (-15.0, 0.0)])
def test_a_model_that_moved_far_has_a_finite_divergence(logp, reference):
    batch, *_ = hand_made()
    at = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]])  # float32, as a run has it
    found = compare(at * logp, at * reference, batch, settings())["kl"].item()
    assert math.isfinite(found)
    assert found >= 0


@pytest.mark.parametrize("name", NAMES)
def test_two_equal_models_give_the_known_value(name):
    batch, logp, _ = hand_made()
    nothing = torch.zeros(1, dtype=torch.float64)
    loss = preference_loss(logp, logp, batch, settings(name), nothing)
    assert (loss.total / loss.count).item() == pytest.approx(at_start(settings(name)), rel=1e-14)
    assert loss.logs["kl"].item() == 0
    assert loss.logs["reward_accuracy"].item() == 0
    assert at_start(settings("sigmoid")) == pytest.approx(0.6931, abs=1e-4)


def test_each_loss_rises_with_the_rejected_answer_and_falls_with_the_chosen_one():
    steps = torch.linspace(-2, 2, 9, dtype=torch.float64)
    still = torch.zeros_like(steps)
    for loss in (sigmoid, ipo, ddpo, lambda c, r, beta: mdpo(c, r, still, beta)):
        assert all(a > b for a, b in pairwise(loss(steps, still, BETA).tolist()))
        assert all(a < b for a, b in pairwise(loss(still, steps, BETA).tolist()))


def one_row_at_a_time(model, pairs=PAIRS) -> tuple[Tensor, Tensor]:
    """Log-probabilities of chosen and rejected answers by the model and its reference, each in a batch of its own."""
    found = []
    for number, (prompt, *both) in enumerate(pairs):
        for row, answer in zip(apart(pair_row(0, prompt, *both)), both, strict=True):
            batch = batch_of(model, [row], [len(answer)])
            batch = replace(batch, views=pairs_batch(model, pairs).views[number : number + 1])
            output = model(batch, reference=True)
            found.append([output.logp.sum().item(), output.reference.sum().item()])
    sums = torch.tensor(found, dtype=next(model.parameters()).dtype)
    return sums[0::2], sums[1::2]


@pytest.mark.parametrize("layout", ["rows", "packed", "padded"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["64", "32"])
def test_branches_of_one_prefix_score_as_rows_one_at_a_time(folder, layout, dtype, tolerance):
    model = stacked_model(folder, started=True).to(dtype).eval()
    batch = pairs_batch(model, packed=layout == "packed", padding=3 if layout == "padded" else 0)
    output = model(batch, reference=True)
    scored = [answers(logp, batch) for logp in (output.logp, output.reference)]
    together = [torch.stack(column, 1) for column in zip(*scored, strict=True)]
    for one, other in zip(together, one_row_at_a_time(model), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * 10)
    assert (output.logp - output.reference).abs().max() > 0.01


def test_the_last_two_segments_of_each_sample_are_its_answers(folder):
    batch = pairs_batch(stacked_model(folder), packed=True)
    chosen, rejected = of_pairs(batch)
    assert chosen.tolist() == list(range(1, 3 * len(PAIRS), 3))
    assert rejected.tolist() == list(range(2, 3 * len(PAIRS), 3))


def test_the_reference_is_a_model_that_never_had_the_upper_adapter(folder):
    model = stacked_model(folder, started=True).double().eval()
    output = model(pairs_batch(model), reference=True)
    for name, parameter in model.llm.named_parameters():
        if "lora_B.dpo" in name:
            parameter.data.zero_()
    alone = model(pairs_batch(model))
    torch.testing.assert_close(output.reference, alone.logp, rtol=0, atol=1e-12)
    assert not output.reference.requires_grad
    assert (output.logp - output.reference).abs().max() > 0.01


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "ddpo"])
def test_micro_batches_give_the_gradients_of_the_whole_batch(folder, name):
    model = stacked_model(folder, started=True).double()
    model.llm.train()
    model.encoder.eval()  # as the phase has it: frozen

    def gradients(pieces: list[Batch]) -> dict[str, Tensor]:
        model.zero_grad()
        count = 0
        for batch in pieces:
            output = model(batch, reference=True)
            loss = preference_loss(output.logp, output.reference, batch, settings(name, chosen_nll=0.05))
            loss.total.backward()
            count += int(loss.count)
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        return {n: gradient / count for n, gradient in found.items()}

    def piece(begin: int, end: int, packed: bool = False) -> Batch:
        batch = pairs_batch(model, PAIRS[begin:end], packed)
        return replace(batch, views=pairs_batch(model).views[begin:end])

    whole = gradients([piece(0, 8)])
    assert any("lora_A.dpo" in name for name in whole)
    for pieces in (
        [piece(0, 4), piece(4, 8)],
        [piece(n, n + 1) for n in range(8)],
        [piece(0, 3, True), piece(3, 8, True)],
    ):
        for name_, gradient in gradients(pieces).items():
            torch.testing.assert_close(gradient, whole[name_], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sigmoid", "ipo"])
def test_it_is_the_loss_of_trl_on_the_same_batch(folder, tmp_path, name):
    """trl 1.16, DPOTrainer.compute_loss; its batch is chosen rows, then rejected rows."""
    pytest.importorskip("trl", reason="trl is installed for benchmarks alone: pip install -e .[bench]")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    rows = [
        {"prompt": "what is on the table?", "chosen": " a red kite and two books", "rejected": " a red book"},
        {"prompt": "how many?", "chosen": " three", "rejected": " three, I think so, or two"},
    ]
    reference = AutoModelForCausalLM.from_pretrained(folder)
    for parameter in reference.parameters():
        parameter.data *= 1.1
    config = DPOConfig(
        output_dir=str(tmp_path), loss_type=[name], beta=BETA, max_steps=1, learning_rate=0.0, use_cpu=True, bf16=False,
        report_to=[], per_device_train_batch_size=2, gradient_checkpointing=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder)
    trainer = DPOTrainer(
        model=model, ref_model=reference, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(model.eval(), inputs).item()

    pairs = []
    halves = (half for column in ("input_ids", "completion_mask") for half in inputs[column].chunk(2))
    for *ids, chosen_mask, rejected_mask in zip(*halves, strict=True):
        masks = (chosen_mask.bool(), rejected_mask.bool())
        answers_ = [tuple(row[mask].tolist()) for row, mask in zip(ids, masks, strict=True)]
        pairs.append((tuple(ids[0][: int(masks[0].int().argmax())].tolist()), *answers_))
    ours = with_pictures(loaded(folder)).eval()
    batch = replace(pairs_batch(ours, pairs), slots=torch.zeros(0, 2, dtype=torch.long))
    batch = without_pictures(batch)
    said = ours(batch).logp
    before = with_pictures(loaded(folder, scaled=1.1)).eval()(batch).logp
    loss = preference_loss(said, before, batch, settings(name))
    assert (loss.total / loss.count).item() == pytest.approx(theirs, rel=1e-5)


def loaded(folder, scaled: float = 1.0) -> HFCausal:
    llm = HFCausal(str(folder))
    llm.load_pretrained()
    for parameter in llm.parameters():
        parameter.data *= scaled
    return llm


def without_pictures(batch: Batch) -> Batch:
    """Each row without the places of its picture."""
    text = batch.ids[0] >= 0  # in all rows the picture stands in front
    parts = {name: getattr(batch, name)[:, text] for name in ("ids", "labels", "segment", "changed")}
    skipped = int((~text).sum())
    return replace(batch, **parts, positions=(batch.positions[:, text] - skipped).clamp_min(0))
