"""Phases that begin with another phase's model are held against it before either is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import hf_folder
from tests.configs import commands
from vlm.build import compose
from vlm.carried import misfits
from vlm.contracts.errors import ConfigError
from vlm.contracts.pipeline import PipelineConfig
from vlm.pipeline import plan
from vlm.readiness import refuse

NANO = "pipeline=keural_nano"
LORA = "{rank: 4, alpha: 8, dropout: 0.0, targets: [q_proj]}"


def told(*words: str) -> list[str]:
    phases = {phase.name: phase for phase in plan(compose(words, "pipeline", PipelineConfig)).phases}
    return [str(problem) for phase in phases.values() for problem in misfits(phase, phases)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model with the positions of Mistral 7B."""
    return hf_folder.whole(tmp_path_factory.mktemp("base"), max_position_embeddings=32768)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["change.sft.encoder.token_budget=16"],
        ["change.sft.encoder.drop_path=0.1", "change.sft.encoder.kappa=1.0", "change.sft.encoder.heads=6"],
        ["change.sft.llm.template.max_tokens=64", "change.sft.llm.max_positions=256"],
        ["change.contrastive.encoder.views.size=128"],  # its weights know no size
        ["change.dpo.llm.adapters.dpo.rank=3"],  # it is new there
        ["change.sft.encoder.saliency_target=0.5", "change.sft.encoder.strides=[2,4,1]"],
    ],
)
def test_a_chain_whose_tensors_fit_is_never_refused(words: list[str]):
    assert told(NANO, *words) == []


def test_the_published_chain_fits_with_a_base_that_is_quantized_in_some_phases_only(base: Path):
    assert told("pipeline=keural", f"base={base}") == []
    assert told("pipeline=keural", f"base={base}", "change.dpo.llm.quantize=null") == []


@pytest.mark.parametrize(
    ("words", "phase", "words_told"),
    [
        (
            ["change.sft.connector.hidden=100"],
            "phase sft: connector.hidden: ",
            ["connector of phase alignment", "init_from=alignment", "connector.hidden is 100 here and 256 there",
             "inner.weight has shape [256, 96], the model needs [100, 96]", "change.sft.connector.hidden=256"],
        ),
        (["change.alignment.encoder.width=192"], "phase alignment: encoder.width: ", ["weights.encoder=contrastive", "192 here and 96 there"]),
        (["change.contrastive.encoder.saliency=uniform"], "phase alignment: encoder.saliency: ", ["saliency"]),
        (["change.sft.llm.tokenizer.size=1024"], "phase sft: llm.vocab_size: ", ["1024 here and 2048 there"]),
        (["change.dpo.llm.layers=2"], "phase dpo: llm.layers: ", ["not part of the model"]),
        (["change.dpo.connector.levels=false"], "phase dpo: connector.levels: ", ["levels is not part of the model"]),
        (["phases.sft={experiment: keural_nano_sft, init_from: contrastive}"], "phase sft: connector: ", ["gives no connector"]),
    ],
)  # fmt: skip
def test_what_will_not_fit_is_told_with_phase_key_both_values_and_remedy(words, phase, words_told):
    found = told(NANO, *words)
    (first, *_) = [line for line in found if line.startswith(phase)]
    assert all(word in first for word in words_told), first


def test_a_wider_encoder_is_told_once_and_not_for_the_connector_behind_it():
    words = [f"change.{phase}.encoder.width=192" for phase in ("sft", "dpo")]
    assert [line.partition(": the")[0] for line in told(NANO, *words)] == ["phase sft: encoder.width"]


def test_an_adapter_must_come_with_the_sizes_that_it_was_trained_with(base: Path):
    words = ["pipeline=keural", f"base={base}"]
    (line,) = told(*words, "change.dpo.llm.adapters.sft.rank=32")
    assert line.startswith("phase dpo: llm.adapters.sft.rank: 32 is given, but phase sft, from which it comes")
    (line,) = told(*words, "change.dpo.llm.adapters.sft.targets=[q_proj]")
    assert line.startswith("phase dpo: llm.adapters.sft.targets")
    reordered = "[down_proj,q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj]"
    assert told(*words, f"change.dpo.llm.adapters.sft.targets={reordered}") == []
    found = told(NANO, f"change.sft.llm.adapters.sft={LORA}")
    assert any(line.startswith("phase sft: llm.adapters.sft: ") and "do nothing" in line for line in found)
    assert any(line.startswith("phase dpo: llm.adapters.sft: ") and "would be lost" in line for line in found)


def test_equal_parts_are_compared_without_torch(tmp_path: Path):
    """commands.run fails if a command has loaded it; the data are missing, so that the pipeline is refused."""
    ended = commands.run("experiments.pipeline", NANO, "prepare=[]", f"paths.data={tmp_path}", cwd=tmp_path)
    assert ended.returncode == 2
    assert "shapes" not in ended.stderr


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (65, "cannot be cut into 65 squares; choose token_budget=61 or 64"),
        (64, None),
        (16, None),
    ],
)
def test_a_budget_that_the_scored_encoder_cannot_have_is_refused_before_training(tmp_path, budget, message):
    words = [NANO, f"paths.data={tmp_path}", f"paths.runs={tmp_path}", f"evaluate.keys.token_budget={budget}"]
    try:
        refuse(plan(compose(words, "pipeline", PipelineConfig)))
        found = []
    except ConfigError as error:
        found = [str(problem) for problem in error.problems]
    about = [line for line in found if "token_budget" in line]
    assert (about == []) if message is None else (len(about) == 1 and message in about[0])


def test_a_budget_that_leaves_no_room_for_the_question_is_refused_too(tmp_path):
    views = [f"change.{phase}.encoder.views.size=128" for phase in ("alignment", "sft", "dpo")]
    words = [NANO, f"paths.data={tmp_path}", *views, "evaluate.keys.token_budget=256"]
    with pytest.raises(
        ConfigError, match="256 makes 256 visual tokens, which leave no room for text in the 192 positions"
    ):
        refuse(plan(compose(words, "pipeline", PipelineConfig)))
