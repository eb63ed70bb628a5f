"""Each kind of mistake has its message: what, in which file, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

import vlm.build
from vlm.build import compose
from vlm.contracts.errors import ConfigError, Problem
from vlm.contracts.places import config_dir

GOOD = "experiment=purevlm"  # bilinear, bilinear_repeat, tiny_tpa, mnist
SMALL = ("experiment=supravl_nano",)  # cnn, linear, gpt2_nano, flickr8k


def refusals(*overrides: str) -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        compose(overrides)
    return refused.value.problems


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("encodr=cnn", "encodr", "did you mean 'encoder'?"),
        ("encoder=cn", "encoder", "there is no encoder 'cn'; did you mean 'cnn'? choices: bilinear, cnn"),
        ("experiment=zzz", "experiment", "there is no experiment 'zzz'; choices: "),
        ("phase.optimizer.betaz=1", "phase.optimizer.betaz", "did you mean 'betas'? keys here: name, betas"),
        ("+encoder.ranks=3", "encoder.ranks", "unknown key; did you mean 'rank'?"),
        ("++llm.tokenizer.sizes=3", "llm.tokenizer.sizes", "unknown key; did you mean 'size'?"),
        ("+extra={a: 1}", "extra", "unknown key"),
        ("connector.width=3", "connector.width", "unknown key"),
        ("encoder.rank=ten", "encoder.rank", '"ten" is given, but it must be a whole number > 0'),
        ("encoder.rank=1.5", "encoder.rank", "1.5 is given, but it must be a whole number > 0"),
        ("encoder.rank=0", "encoder.rank", "0 is given, but it must be a whole number > 0"),
        ("seed=-1", "seed", "must be a whole number >= 0"),
        ("phase.schedule.floor=1.5", "phase.schedule.floor", "must be a number >= 0 and <= 1"),
        ("phase.optimizer.betas=[0.9]", "phase.optimizer.betas", "a list of length 2, each item a number >= 0 and < 1"),
        ("phase.targets=answer", "phase.targets", "must be one of answers, all"),
        ("llm.template.prompt=maybe", "llm.template.prompt", "must be true or false"),
        ("llm.template.begin=null", "llm.template.begin", "null is given, but it must be text"),
        ("~encoder.rank", "encoder.rank", "missing; vlm.models.encoders.bilinear.Bilinear needs it"),
        ("~encoder.views", "encoder.views", "missing; it must be a node with a `_target_`"),
        ("~encoder", "encoder", "cannot be left out"),
        ("~nothing.here", "nothing.here", "unknown key"),
        ("~phase.nothing", "phase.nothing", "there is nothing to delete"),
        ("seed.x=1", "seed.x", "seed has no keys inside"),
        ("name=???", "name", "missing; give it as name=VALUE"),
        ("name=${nowhere}", "name", "cannot be resolved: Interpolation key 'nowhere' not found"),
        ("name=${oc.env:NOT_SET_ANYWHERE}", "name", "Environment variable 'NOT_SET_ANYWHERE' not found"),
        ("data.prompts=[a", "data.prompts=[a", "cannot be read"),
        ("noequals", "noequals", "cannot be read"),
        ("seed=1,2", "seed", "several values; add -m"),
        ("hydra.mode=MULTIRUN", "hydra.mode", "a sweep is started with -m"),
        ("+experiment=purevlm", "experiment", "write experiment=purevlm without a plus sign"),
        ("encoder@teacher=cnn", "encoder", "Could not override 'encoder@teacher'"),
        ("hydra.jobs=1", "hydra.jobs", "of Hydra's own settings only"),
        ("hydra/launcher=slurm", "hydra/launcher", "there is no hydra/launcher 'slurm'"),
        ("encoder._target_=os.system", "encoder._target_", "'os.system' is not part of this project"),
        ("encoder._target_=vlm.models.encoders.cn.CNN", "encoder._target_", "did you mean 'vlm.models.encoders.cnn'?"),
        ("encoder._target_=vlm.models.encoders.cnn.CCN", "encoder._target_", "has no CCN; did you mean 'CNN'?"),
        ("encoder._target_=vlm.models.llms.gpt2.GPT2", "encoder._target_", "does not take views, so it is no encoder"),
        ("llm.heads=5", "llm.heads", "5 heads do not divide width 32"),
        ("llm.tokenizer.alphabet=abc", "llm.tokenizer.size", "3 characters"),
        ("llm.vocab_size=9", "llm.tokenizer", "17 entries, but llm embeds 9"),
        (
            "llm.template.max_tokens=9",
            "llm.template.max_tokens",
            "28 visual tokens + 9 text tokens = 37, but llm has 36",
        ),
        ("connector.repeat=40", "llm.template.max_tokens", "choose fewer visual tokens, connector.repeat <= 28, or"),
        ("phase.aux.reconstructon=1", "phase.aux.reconstructon", "did you mean 'reconstruction'? reported"),
        ("phase.aux.foo=0.1", "phase.aux.foo", "no part reports this term; reported: reconstruction"),
        ("phase.epochs=null", "phase.max_steps", "neither phase.max_steps nor phase.epochs is given"),
        (
            "hardware.micro_batch=7",
            "phase.global_batch",
            "multiple of hardware.micro_batch (7); choose phase.global_batch=63 or 70, or hardware.micro_batch=4 or 8",
        ),
        ("hardware.devices=2", "hardware.strategy", "single, but 2 processes are asked for; choose ddp or fsdp2"),
        ("hardware.strategy=fsdp2", "hardware.strategy", "fsdp2 needs several processes"),
        ("hardware.micro_tokens=512", "hardware.micro_tokens", "set hardware.pack=true with it"),
        ("phase.trainable.encodr=0.1", "phase.trainable.encodr", "did you mean 'encoder'?"),
        ("phase.trainable.llm=fast", "phase.trainable.llm", '"fast" is given, but it must be a rate > 0, null'),
        ("phase.trainable.llm={blocks: {0: -1}}", "phase.trainable.llm.blocks.0", "must be a rate > 0"),
        ("weights.decoder=runs/x", "weights.decoder", "unknown key"),
        ("data.train.mnist=null", "data.train", "no training set is left"),
        ("data.train.mnist.splitt=x", "data.train.mnist.splitt", "did you mean 'split'?"),
        ("data.train.mnist.rows=[0, -1]", "data.train.mnist.rows[1]", "-1 is given"),
    ],
)
def test_a_mistake_on_the_command_line_is_refused(override: str, key: str, words: str):
    found = refusals(GOOD, override)
    assert any(problem.key == key and words in problem.message for problem in found), found
    assert len(found) == 1, "a mistake is told once"


@pytest.mark.parametrize(
    "override",
    [
        "weights.encoder=runs/x",
        "+weights.encoder=runs/x",
        "phase.trainable.llm=null",
        "phase.trainable.llm={blocks: {0: 1.0e-4}}",
        "phase.aux.reconstruction=null",
        "data.train.easy={split: train}",
        "data.validate.mnist=null",
        "encoder={rank: 4}",
        "phase.trainable.encoder=1e-3",
        "hydra.verbose=true",
    ],
)
def test_names_in_open_mappings_and_null_for_off_are_taken_with_and_without_a_plus(override: str):
    compose([GOOD, override])


def test_a_mistake_in_one_part_does_not_hide_those_of_the_others():
    found = refusals(*SMALL, "encoder.gird=3", "llm.heads=5", "hardware.precision=bf16", "data.skip_budget=2")
    keys = {"encoder.gird", "llm.heads", "hardware.precision", "data.skip_budget"}
    assert {problem.key for problem in found} == keys


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["encoder=keural_nano", "llm.max_positions=100"], "encoder.token_budget=4,"),
        (["encoder=keural_nano", "llm.max_positions=120"], "encoder.token_budget=22,"),
        (["encoder=vit_nano", "llm.max_positions=110"], "encoder.patch=56,"),
        (["encoder=keural_nano", "encoder.width=100"], "choose 96 or 192"),
    ],
)
def test_what_a_refusal_names_is_not_refused_next(words: list[str], named: str):
    parts = ["connector=linear", "llm=mistral_nano", *words]
    (problem,) = refusals(*SMALL, *parts)
    assert named in problem.message
    way = named.strip(",") if "=" in named else "encoder.width=96"
    compose([*SMALL, *parts, way])
    compose([*SMALL, *parts, "encoder.width=192"]) if "=" not in named else None


def test_two_ways_to_start_exclude_each_other():
    (problem,) = refusals(GOOD, "resume=runs/a", "init_from=runs/b")
    assert problem.key == "resume"


def test_nothing_to_train_is_refused():
    frozen = [f"phase.trainable.{part}=null" for part in ("encoder", "connector", "llm")]
    (problem,) = refusals(GOOD, *frozen)
    assert problem.message.startswith("nothing would train")


def test_an_encoder_that_needs_other_views_is_refused_at_the_views():
    resize = "{_target_: vlm.data.views.Resize, mean: [0, 0, 0], std: [1, 1, 1]}"
    (problem,) = refusals(GOOD, f"encoder.views={resize}")
    assert (problem.key, problem.file) == ("encoder.views", "command line")
    assert "needs grey views" in problem.message


def test_a_problem_names_the_file_that_wrote_the_value():
    found = {problem.key: problem.file for problem in refusals(*SMALL, "encoder.views.size=8", "phase.max_steps=null")}
    assert found == {"encoder.grid": "conf/encoder/cnn.yaml", "phase.max_steps": "command line"}


def test_a_wrong_size_that_another_key_copies_is_told_once():
    (problem,) = refusals(*SMALL, "llm.tokenizer.size=big")
    assert problem.key == "llm.tokenizer.size"


def test_keys_of_a_misspelt_choice_are_judged_by_the_nearest_one():
    found = refusals("experiment=purevl", "encoder=vit_nan", "encoder.patch=13", "encoder.depth=2")
    assert [problem.key for problem in found] == ["experiment", "encoder"]
    found = refusals("experiment=purevl", "encoder.ranks=3")
    assert [problem.key for problem in found] == ["experiment", "encoder.ranks"]


# -- mistakes in files ------------------------------------------------------------------------------------------


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped configuration with room for an experiment of one's own."""
    copied = tmp_path / "conf"
    for file in config_dir().rglob("*.yaml"):
        target = copied / file.relative_to(config_dir())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    monkeypatch.setattr(vlm.build, "config_dir", lambda: copied)
    return copied


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("phase: {epoch: 3, max_steps: 2}", "phase.epoch", "did you mean 'epochs'?"),
        ("phase: {max_steps: 2, log_every: never}", "phase.log_every", '"never" is given'),
        ("phase: {max_steps: 2\nname: mine", "line 4", "this is no YAML"),
        (
            "defaults:\n  - override /encoder: cn\nphase: {max_steps: 2}",
            "defaults",
            "override /encoder: there is no encoder 'cn'; did you mean 'cnn'?",
        ),
        ("phase: {max_steps: 2}\nname: ${nam}", "name", "cannot be resolved"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_the_file(conf: Path, text: str, key: str, words: str):
    (conf / "experiment" / "mine.yaml").write_text(f"# @package _global_\n# Mine.\n{text}\n")
    (problem,) = refusals("experiment=mine")
    assert (problem.key, problem.file) == (key, "conf/experiment/mine.yaml")
    assert words in problem.message


def test_a_file_that_changed_is_read_again(conf: Path):
    mine = conf / "experiment" / "mine.yaml"
    for steps in (3, 4):
        mine.write_text(f"# @package _global_\nphase: {{max_steps: {steps}}}\n")
        assert compose(["experiment=mine"]).config["phase"]["max_steps"] == steps


# -- composing --------------------------------------------------------------------------------------------------


def test_what_was_composed_is_plain_and_says_what_was_chosen():
    composed = compose([GOOD, "+weights.encoder=runs/x", "seed=3"])
    assert composed.overrides == [GOOD, "weights.encoder=runs/x", "seed=3"]
    assert composed.choices["encoder"] == "bilinear"
    assert composed.config["llm"]["vocab_size"] == 17
    assert type(composed.config["encoder"]["views"]) is dict


def test_composing_leaves_a_hydra_that_is_already_running_as_it_was():
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        before = hydra_compose("train", [GOOD])
        compose([GOOD, "seed=5"])
        assert hydra_compose("train", [GOOD]) == before


@pytest.mark.parametrize(
    ("words", "key", "message"),
    [
        (["name=../../etc"], "name", "one plain folder name"),
        (["name="], "name", "one plain folder name"),
        (["phase=null"], "phase", "cannot be left out; choose one of alignment"),
        (["~encoder"], "encoder", "cannot be left out; choose one of bilinear"),
        (["data=[mnist,digits_small]"], "data", "takes one choice, not a list"),
        (["seed=18446744073709551616"], "seed", "< 9223372036854775808"),
        (["encoder.views.size=100000"], "encoder.views.size", "<= 4096"),
        (["hydra.run.dir=/elsewhere"], "hydra.run.dir", "only hydra/launcher and hydra.verbose"),
        (["hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs", "hydra/launcher=joblib"),
    ],
)
def test_ways_round_the_configuration_are_refused(words, key, message):
    with pytest.raises(ConfigError) as refused:
        compose(["experiment=purevlm", *words])
    assert any(problem.key == key and message in problem.message for problem in refused.value.problems)


def test_an_experiment_can_be_left_out():
    assert compose(["experiment=null", "phase.max_steps=1"]).config["name"] == "custom"
