"""Curves by what was trained: language, pairs of answers, pairs of pictures and captions."""

from __future__ import annotations

import re

from tests.reporting.test_html import page_of
from vlm.reporting.figures import figures, guards
from vlm.reporting.groups import Group

DPO = {"phase": {"_target_": "vlm.phases.dpo.DPO", "guards": {"chosen_drift": 10.0, "score": None, "score_drop": 0.05}}}
NAMES = ("loss", "reward_accuracy", "reward_margin", "chosen_drift", "rejected_drift", "kl")


def preference_rows() -> list[dict[str, float]]:
    held = [{"step": step, **{f"val/{name}": float(step) for name in NAMES}} for step in (0, 20, 40)]
    trained = [{"step": step, **{f"train/{name}": 0.5 for name in NAMES}} for step in (10, 20, 30, 40)]
    return [*held, *trained]


def drawn(folders, rows, config=None, **more):
    run = folders.read("dpo", rows=rows, config=config or {}, **more)
    return {figure.heading: figure for figure in figures("dpo", [Group("dpo", {}, (run,))])}


def test_a_preference_run_has_the_usual_curves_with_training_and_held_out_apart(folders):
    found = drawn(folders, preference_rows(), DPO)
    assert [heading.split(",")[0] for heading in found] == [
        "Loss of a pair", "Reward accuracy", "Reward margin", "Drift from the reference", "KL from the reference",
    ]  # fmt: skip
    accuracy = found["Reward accuracy"]
    assert [line.kind for line in accuracy.legend] == ["training", "held-out"]
    assert 'class="line-0 training"' in accuracy.drawing
    assert 'class="line-0 held-out"' in accuracy.drawing
    assert accuracy.drawing.count("<circle") == 3  # a dot a validation


def test_both_drifts_share_one_figure_with_a_zero_line_and_the_guard(folders):
    drift = drawn(folders, preference_rows(), DPO)["Drift from the reference, nats an answer"]
    assert [line.label for line in drift.legend] == [
        "chosen, training", "chosen, held-out", "rejected, training", "rejected, held-out",
    ]  # fmt: skip
    assert 'class="zero"' in drift.drawing
    assert "guard: chosen" in drift.drawing


def test_exact_zeros_have_no_place_on_a_logarithmic_axis(folders):
    rows = [{"step": step, "val/kl": value, "val/reward_margin": 1.0} for step, value in ((0, 0.0), (1, 1.0), (2, 1e6))]
    kl = drawn(folders, rows)["KL from the reference, nats a token"]
    assert "1 at step 1, 1e+06 at step 2" in kl.drawing


def test_the_limits_of_the_guards_are_told(folders):
    both = {"phase": {"guards": {"chosen_drift": 10.0, "score": "val/small_vqa", "score_drop": 0.05}}}
    none = {"phase": {"guards": {"chosen_drift": None, "score": None, "score_drop": 0.05}}}
    groups = [
        Group("dpo", {}, (folders.read("dpo", str(n), config=config),)) for n, config in enumerate((both, none, {}))
    ]
    assert guards(groups) == [
        "Guards stop the run if the held-out chosen answers lose more than 10 nats each or if val/small_vqa falls more "
        "than 0.05 below its first value.",
        "No guard stops these runs.",
    ]


def test_a_contrastive_run_has_retrieval_by_budget_with_chance(folders):
    rows = [
        {"step": step, "train/temperature": 0.07, "val/retrieval_r1": 0.1, "val/retrieval_r1_16": 0.1,
         "val/retrieval_r1_64": 0.2, "val/retrieval_r1_low": 0.05, "val/chance_r1": 0.02, "val/loss": 3.0}
        for step in (10, 20)
    ]  # fmt: skip
    found = drawn(folders, rows)
    assert list(found) == ["Loss, nats a pair", "Retrieval, R@1", "Temperature of the similarities"]
    assert [line.label for line in found["Retrieval, R@1"].legend] == ["16 tokens", "64 tokens", "chance"]


def test_groups_that_differ_have_a_figure_each_where_lines_are_quantities(folders):
    runs = [folders.read("dpo", str(beta), rows=preference_rows(), config={"beta": beta}) for beta in (1, 2)]
    groups = [Group("dpo", {"beta": str(n)}, (run,)) for n, run in enumerate(runs)]
    headings = [figure.heading for figure in figures("dpo", groups)]
    assert headings[:2] == ["Loss of a pair · beta=0", "Loss of a pair · beta=1"]


def test_a_watched_benchmark_has_a_curve(folders):
    rows = [{"step": step, "val/loss": 1.0, "val/small_vqa": 0.5} for step in (1, 2)]
    assert "Held-out score, small_vqa" in drawn(folders, rows, {"benchmarks": {"small_vqa": {"limit": 10}}})


def test_the_report_shows_them_and_every_identity_is_unique(folders):
    folders.run("dpo", rows=preference_rows(), config=DPO)
    page = page_of(folders)
    assert "Guards stop the run if the held-out chosen answers lose more than 10 nats each." in page.text
    identities = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(identities) == len(set(identities))
    assert not [identity for identity in identities if re.search(r"\s", identity)]
