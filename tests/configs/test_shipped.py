"""Every YAML file of conf/ as it is shipped; a new file is tested the moment it exists."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import hf_folder
from tests.configs.commands import REPOSITORY
from vlm.build import compose
from vlm.check import check
from vlm.contracts.errors import ConfigError, Problem
from vlm.contracts.places import config_dir
from vlm.origins import group_defaults
from vlm.shapes import shapes
from vlm.signature import read

CONF = config_dir()
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml") if "hydra" not in path.parts)
GROUPS = [group for group in group_defaults(CONF / "train.yaml") if group != "experiment"]
NODES = sorted(path.relative_to(CONF) for group in GROUPS for path in (CONF / group).glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
# Nodes whose keys are names that a run brings along: parts, sets, terms. Their values are checked, their keys are free.
OPEN = (
    "weights",
    "phase.trainable",
    "phase.schedule.ends",
    "phase.aux",
    "phase.optimizer.clip_each",
    "data.train",
    "data.validate",
    "data.test",
)


def problems(*overrides: str) -> list[Problem]:
    try:
        compose(overrides)
    except ConfigError as error:
        return error.problems
    return []


def leaves(node: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in node.items():
        if ".".join((*at, key)) in OPEN:
            continue
        if isinstance(value, dict) and value:
            yield from leaves(value, (*at, key))
        elif key != "_target_":
            yield (*at, key)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model with the positions of Mistral 7B."""
    return hf_folder.whole(tmp_path_factory.mktemp("base"), max_position_embeddings=32768)


def completed(name: str, folder: Path) -> dict[str, Any]:
    """The configuration of an experiment, with what only a user can say: where a base and an earlier run lie."""
    only_a_user = {"llm.path": str(folder), "init_from": "runs/sft"}
    missing = [problem.key for problem in problems(f"experiment={name}")]
    return compose(
        [f"experiment={name}", *(f"{key}={only_a_user[key]}" for key in missing if key in only_a_user)]
    ).config


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_composes_and_its_parts_meet(name: str, folder: Path):
    config = completed(name, folder)
    assert config["name"] == name
    assert (shapes(config).visual_tokens > 0) == (config["fusion"] is not None)


BESIDE = {  # file -> what it only goes with
    "connector/none.yaml": ["encoder=none"],
    "connector/foveal.yaml": ["encoder=dinov2_small"],
    "fusion/foveated.yaml": ["encoder=dinov2_small", "connector=foveal"],
    "phase/contrastive.yaml": ["model=two_tower", "text=tower_nano"],
    "phase/dpo.yaml": ["adapter=dpo_r16", "init_from=runs/sft"],
    "recipe/card.yaml": ["experiment=fvlm_135m_sft"],
    "recipe/source.yaml": ["experiment=fvlm_135m_sft"],
    "recipe/source_slip.yaml": ["experiment=fvlm_135m_alignment"],
}
OPEN_ENDS = (
    "positions",
    "missing; give it",
    "is no folder",
)  # what depends on the other parts, and what only a user can say


@pytest.mark.parametrize("file", NODES, ids=str)
def test_a_file_of_a_group_has_no_mistake_of_its_own(file: Path):
    found = problems(f"{file.parent}={file.stem}", "phase.max_steps=1", *BESIDE.get(str(file), []))
    own = [problem for problem in found if problem.file == f"conf/{file}"]
    assert [problem for problem in own if not any(end in problem.message for end in OPEN_ENDS)] == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_key_is_looked_at_by_the_check(name: str, folder: Path):
    config = completed(name, folder)
    changed, wanted = copy.deepcopy(config), set()
    for *around, last in leaves(config):
        node = changed
        for key in around:
            node = node[key]
        node[f"{last}x"] = node[last]
        wanted.add(".".join([*around, f"{last}x"]))
    assert wanted - {problem.key for problem in check(changed) if "unknown key" in problem.message} == set()


def sources() -> str:
    files = [path for room in ("vlm", "data_prep", "experiments") for path in (REPOSITORY / room).rglob("*.py")]
    return "\n".join(path.read_text() for path in files if path.name != "settings.py")


def test_every_key_of_a_plain_node_is_read_somewhere():
    text = sources()
    config = compose(["experiment=purevlm"]).config
    plain = {key: value for key, value in config.items() if not isinstance(value, dict) or "_target_" not in value}
    for path in leaves(plain):
        assert re.search(rf"\.{path[-1]}\b|\[\"{path[-1]}\"\]", text), f"nothing reads {'.'.join(path)}"


def targets() -> list[str]:
    found = {match for file in NODES for match in re.findall(r"_target_: (\S+)", (CONF / file).read_text())}
    return sorted(found)


@pytest.mark.parametrize("target", targets())
def test_every_argument_of_a_constructor_is_used(target: str):
    signature = read(target)
    tree = ast.parse(signature.file.read_text())
    inside = next(node for node in tree.body if getattr(node, "name", "") == target.rpartition(".")[2])
    if not any(isinstance(node, ast.FunctionDef | ast.AnnAssign) for node in inside.body):
        return  # all that it does, its base class does
    used = {node.id for node in ast.walk(inside) if isinstance(node, ast.Name)}
    used |= {node.attr for node in ast.walk(inside) if isinstance(node, ast.Attribute)}
    text = sources()
    for name in signature.parameters:
        assert name in used or f'["{name}"]' in text, f"{target} takes {name} and does nothing with it"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_key_has_a_comment(file: Path):
    """On its own line, or on the line of a mapping around it.

    An experiment sets keys that are explained where they are declared; it says in its first lines what it is.
    """
    lines = (CONF / file).read_text().splitlines()
    assert any(line.startswith("#") and "@package" not in line for line in lines[:2]), f"{file} does not say what it is"
    if file.parts[0] == "experiment":
        return
    around: dict[int, bool] = {}  # indentation of the mappings around a line -> whether one of them has a comment
    for line in lines:
        match = re.match(r"( *)([\w-]+):([^#]*)(#.*)?", line)
        if not match or match[2] == "_target_":
            continue
        depth, explained = len(match[1]), bool(match[4])
        around = {indent: value for indent, value in around.items() if indent < depth}
        explained |= any(around.values())
        is_mapping = not match[3].strip()
        around[depth] = explained or line in ("defaults:", "hydra:")  # explained by Hydra
        assert is_mapping or explained, f"{file}: {match[2]} has no comment"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_numbers_read_the_same_with_every_yaml_reader(file: Path):
    """1e-3 is a number to one reader and text to another; 1.0e-3 is a number to both."""
    text = (CONF / file).read_text()
    assert re.findall(r"[:\[, ]\d+e-?\d+", re.sub(r"#.*", "", text)) == []
    assert isinstance(yaml.safe_load(text), dict)


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


PARTS = ("encoder", "connector", "llm", "fusion")
ROOMY = ("gpt2_nano", "llm.max_positions=8192")


def combinations() -> list[list[str]]:
    """Every encoder with every connector in front of a decoder that has room, and with every decoder as it is shipped.

    A part sees of its neighbours' neighbours no more than what its neighbour says, so threes would tell nothing new:
    beside the decoders as shipped, connectors and fusions take turns.
    """
    encoders, connectors, llms, fusions = map(names, PARTS)
    asked = [
        (encoder, connector, ROOMY[0], fusion) for encoder in encoders for connector in connectors for fusion in fusions
    ]
    roomy = [[f"{part}={name}" for part, name in zip(PARTS, choice, strict=True)] + [ROOMY[1]] for choice in asked]
    turns = [
        (encoder, connectors[(row + column) % len(connectors)], llm, fusions[(row + column) % len(fusions)])
        for row, encoder in enumerate(encoders)
        for column, llm in enumerate(llms)
    ]
    return roomy + [[f"{part}={name}" for part, name in zip(PARTS, choice, strict=True)] for choice in turns]


@pytest.mark.parametrize("words", combinations(), ids=lambda words: "-".join(word.partition("=")[2] for word in words))
def test_any_combination_of_parts_is_built_as_described_or_refused_with_a_reason(words: list[str]):
    """At full size and without memory: on the meta device."""
    overrides = [*words, "phase.max_steps=1"]
    if found := problems(*overrides):
        assert all(problem.file and problem.message for problem in found)
        return
    import torch

    from vlm.library import make

    config = compose(overrides).config
    with torch.device("meta"):
        described, model = shapes(config), make(config)
    view = described.views
    for part in ("encoder", "connector", "fusion"):
        plan, real = getattr(described, part), getattr(model, part).spec
        assert (plan.width, plan.levels, plan.query_width) == (real.width, real.levels, real.query_width)
        assert plan.count(view.height, view.width, None) == real.count(view.height, view.width, None)
    assert model.llm.spec == described.reader
    assert model.processor.views.spec == view
