"""Two models that see nothing: one that was never trained, and one whose loss falls while it learns the questions alone."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

import vlm
from tests import prepared
from tests.data_prep.published import cached
from tests.data_prep.written_forms import written
from tests.evaluation.commands import entries, mme, pope, run, scienceqa, vqa, words
from tests.models.speakers import GPT2, READS, SMALL, TEXTS
from tests.runs.commands import rows
from vlm.build import compose
from vlm.evaluation.results import BLIND, NOT_ABOVE
from vlm.run import train
from vlm.training.weights import save_model

DRAWN = ("pope", "mme", "vqav2", "scienceqa")


def headlines(out: Path) -> dict[str, dict]:
    return {entry["benchmark"]: entry for entry in entries(out) if entry["headline"] and entry["split"] == "all"}


def test_an_untrained_model_is_above_no_baseline(tmp_path):
    data = scienceqa(vqa(mme(pope(tmp_path / "data"))))
    model = vlm.build_model([*SMALL, *GPT2, *READS, "llm.template.max_tokens=60"])
    model.processor.tokenizer.fit(TEXTS)
    save_model(model, tmp_path / "model")
    given = [f"benchmarks=[{','.join(DRAWN)}]", "shifts=0"]
    given += [f"change.{name}.reader.expected=null" for name in DRAWN]
    given += [f"change.{name}.prompt='{{question}}'" for name in DRAWN if name != "scienceqa"]
    given += ["change.scienceqa.prompt='{question} {options}'"]
    given += ["change.vqav2.candidates=['yes','no','red']", "decoding=likelihood"]  # it speaks no word yet
    code, _, told = run(*words(tmp_path / "model", data, tmp_path / "out", *given))
    assert code == 0, told
    found = headlines(tmp_path / "out")
    assert {name: entry["verdict"] for name, entry in found.items()} == dict.fromkeys(DRAWN, NOT_ABOVE)
    assert {entry["details"]["pictures"]["verdict"] for entry in found.values()} == {BLIND}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real easy-VQA, prepared, and its questions in the benchmarks' forms."""
    package, data = cached("pip", "easy-vqa"), tmp_path_factory.mktemp("published")
    with ZipFile(package) as wheel:
        wheel.extractall(data / "package")
    prepared.prepare("easy_vqa", data / "package", data)
    written(data / "forms", package, "vqav2", "pope")
    return data


@pytest.mark.slow
@pytest.mark.published
@pytest.mark.timeout(900)
def test_a_model_that_learned_the_questions_alone_is_called_blind_however_far_its_loss_has_fallen(published, tmp_path):
    words_of_run = [
        "experiment=vqa_joint_nano",
        f"paths.data={published}",
        f"paths.runs={tmp_path}",
        "hardware.threads=1",
    ]
    folder = Path(train(compose([*words_of_run, "logging.wandb=disabled", "logging.progress=false"]))["run"])
    losses = [row["train/loss"] for row in rows(folder) if "train/loss" in row]
    assert losses[-1] < losses[0] / 2
    asked = ["benchmarks=[small_vqa,small_pope]", "limit=600"]
    code, _, told = run(*words(folder, published, tmp_path / "out", *asked))
    assert code == 0, told
    found = headlines(tmp_path / "out")
    blind = found["small_vqa"]
    assert blind["score"] > 0.5, "it answers well above chance, by the questions"
    assert (blind["verdict"], blind["details"]["pictures"]["verdict"]) == (NOT_ABOVE, BLIND)
    assert "most frequent training answer to the same question" in blind["baselines"]
    assert found["small_pope"]["verdict"] == NOT_ABOVE
