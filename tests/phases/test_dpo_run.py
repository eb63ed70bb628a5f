"""A whole run of preference optimization: where it begins, what it writes down, and how a guard ends it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests import hf_folder, prepared
from tests.phases.test_dpo import TOLD, sample
from vlm.build import compose
from vlm.contracts.errors import RunError
from vlm.phases.guards import Guards
from vlm.run import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return hf_folder.whole(tmp_path_factory.mktemp("llama"))


def prepared_pairs(root: Path) -> Path:
    """A set `preference_jsonl` under root/data. Returns root/data."""
    source = root / "published"
    source.mkdir(parents=True)
    lines = []
    for number in range(80):
        one = sample(number)
        (source / f"{number}.png").write_bytes(one.media[0].data)
        chosen = one.turns[-1].parts[0]
        row = {"prompt": "<image>what is it?", "chosen": chosen, "rejected": one.rejected, "images": [f"{number}.png"]}
        lines.append(json.dumps(row) + "\n")
    (source / "pairs.jsonl").write_text("".join(lines))
    return prepared.prepare("preference_jsonl", source, root / "data")


def words_of(folder: Path, root: Path) -> list[str]:
    """A run of four steps over a whole model of which nothing but a new adapter trains."""
    return [
        "encoder=vit_nano", "connector=linear", "llm=hf_causal", f"llm.path={folder}", "llm.template.max_tokens=100",
        "adapter=dpo_r16", "phase=dpo", "data=own_preferences", f"paths.data={prepared_pairs(root)}", f"paths.runs={root}",
        "phase.max_steps=4", "phase.validate_every=2", "phase.log_every=1", "phase.samples=1", "phase.schedule.warmup=0.0",
        "phase.trainable.adapter.dpo=1.0e-2", "logging.wandb=disabled", "logging.progress=false", "hardware.threads=1",
    ]  # fmt: skip


def rows_of(run_folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_begins_with_a_validation_at_log_two_and_tells_all_of_both_sides(folder, tmp_path):
    rows = rows_of(Path(train(compose(words_of(folder, tmp_path)))["run"]))
    first = rows[0]
    assert first["step"] == 0
    assert first["val/preference"] == pytest.approx(math.log(2), abs=1e-4)
    assert {f"val/{name}" for name in TOLD} <= first.keys()
    trained = [row for row in rows if "train/preference" in row]
    assert trained[0]["train/preference"] == pytest.approx(math.log(2), abs=1e-4)
    assert {f"train/{name}" for name in TOLD} <= trained[0].keys()
    assert [row["step"] for row in rows if "val/preference" in row] == [0, 2, 4]
    assert rows[-1].get("val/preference", 1) < math.log(2)


def test_the_validation_that_ends_a_run_stands_in_its_metrics(folder, tmp_path, monkeypatch):
    """Who looks for the reason finds the numbers that were judged, and no checkpoint of that step."""
    monkeypatch.setattr(Guards, "faults", lambda self, metrics, before: ["it fell"] if metrics["val/kl"] > 0 else [])
    with pytest.raises(RunError, match="step 2: it fell; the last validation without fault was at step 0"):
        train(compose(words_of(folder, tmp_path)))
    (file,) = tmp_path.rglob("metrics.jsonl")
    assert [row["step"] for row in rows_of(file.parent) if "val/chosen_drift" in row] == [0, 2]
    assert not list((file.parent / "checkpoints").glob("step-*"))
