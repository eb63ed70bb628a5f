"""The chain around a real language model, from package registries alone: that preference tuning starts at ln 2 and moves."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHORT = {
    "contrastive": 20,
    "alignment": 2,
    "sft": 2,
}  # steps of the phases before; their results are a matter for the log
SETS = ("easy_vqa", "easy_vqa_positions", "easy_vqa_described", "easy_vqa_flawed", "pairs_mixed")
PREPARE = "prepare=[[language_model,'name=smollm2_135m']," + ",".join(f"['source={name}']" for name in SETS) + "]"


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1500)
def test_preference_tuning_of_the_real_smollm2_starts_at_log_two_and_prefers_the_chosen_answers(tmp_path: Path) -> None:
    """20 steps of the published size's recipe; captions are easy-VQA's own, so that pip alone is needed."""
    words = [f"change.{phase}.phase.max_steps={steps}" for phase, steps in SHORT.items()]
    words += [
        "change.contrastive.data=easy_vqa_positions",
        "change.contrastive.phase.validate_every=20",
        "evaluate=null",
    ]
    data = os.environ.get("VLM_DATA", str(ROOT / "data"))
    command = [sys.executable, "-m", "experiments.pipeline", "pipeline=keural_smollm2", *words]
    command += [f"paths.runs={tmp_path}", f"paths.data={data}", PREPARE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    run = next((tmp_path / "keural_smollm2_dpo").iterdir())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    before, after = [row for row in rows if "val/preference" in row]
    assert before["step"] == 0
    assert before["val/preference"] == pytest.approx(math.log(2), abs=1e-4)
    assert (before["val/chosen_drift"], before["val/kl"]) == (pytest.approx(0, abs=1e-4), pytest.approx(0, abs=1e-6))
    assert after["step"] == 20
    assert after["val/preference"] < before["val/preference"]
    assert {path.name for path in (run / "model/adapters").iterdir()} == {"sft", "dpo"}
    assert not (run / "model/llm.safetensors").exists()  # the base stays where it is, and is named
