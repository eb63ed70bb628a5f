"""Every file of conf/benchmark and conf/suite against what it names, and the rulebook's prompts word for word."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlm.build import compose
from vlm.contracts.benchmark import Question
from vlm.contracts.settings import BenchmarkSettings, OneBenchmark
from vlm.evaluation.prompts import ask
from vlm.evaluation.score import scorer

CONF = Path(__file__).resolve().parents[3] / "conf"
NAMES = sorted(path.stem for path in (CONF / "benchmark").glob("*.yaml"))
SUITES = sorted(path.stem for path in (CONF / "suite").glob("*.yaml"))
SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
OPTIONS = "A. kite\nB. boat"
VIDEO = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option."
)
PROMPTS = {  # the question "Which Ship sails?", the options kite and boat
    "vqav2": f"Which Ship sails?\n{SHORT}",
    "textvqa": f"Which ship sails?\n{SHORT}",
    "pope": f"Which Ship sails?\n{SHORT}",
    "mme": f"Asked?\n{SHORT}",
    "scienceqa": f"Context: Look.\nWhich Ship sails?\n{OPTIONS}\n{LETTER}",
    "scienceqa_img": f"Context: Look.\nWhich Ship sails?\n{OPTIONS}\n{LETTER}",
    "mmbench": f"Context: Look.\nWhich Ship sails?\n{OPTIONS}\n{LETTER}",
    "ai2d": f"Which Ship sails?\n{OPTIONS}\n{LETTER}",
    "mmmu": f"Which Ship sails?\n{OPTIONS}\n\n{LETTER}",
    "mathvista": f"Which Ship sails?\n{OPTIONS}\n{LETTER}",
    "mvbench": "Which Ship sails?\n(A) kite\n(B) boat\nOnly give the best option.\n",
    "videomme": f"{VIDEO}\nWhich Ship sails?\n{OPTIONS}\n{LETTER}",
    "chartqa": "Which Ship sails?\nAnswer the question with a single word.",
    "docvqa": f"Which Ship sails?\n{SHORT}",
    "vqa_rad": f"Which Ship sails?\n{SHORT}",
    "pathvqa": f"Which Ship sails?\n{SHORT}",
    "slake": f"Which Ship sails?\n{SHORT}",
    "pmc_vqa": f"Which Ship sails?\n{OPTIONS}\n{LETTER}",
    "flickr8k_captions": "Provide a one-sentence caption for the provided image.",
    "small_mme": "Asked?",
    "small_descriptions": "Describe the picture.",
    "small_descriptions_sampled": "Describe the picture.",
    "small_retrieval": "<image 1> among 2 texts",  # a caption alone, of a gallery
    "flickr8k_retrieval": "<image 1> among 2 texts",
}
LONGEST = {  # new tokens: 16 for letters, yes and no, charts; 32 for documents and medicine; 64 captions; 128 MMMU
    "mmmu": 128, "mathvista": 32, "docvqa": 32, "vqa_rad": 32, "pathvqa": 32, "slake": 32, "flickr8k_captions": 64,
    "small_descriptions": 64, "small_descriptions_sampled": 64,
}  # fmt: skip


def composed(name: str) -> dict[str, Any]:
    return compose([f"benchmark={name}"], "benchmark", OneBenchmark).config["benchmark"]


@pytest.fixture(scope="module")
def settings() -> dict[str, BenchmarkSettings]:
    return {name: BenchmarkSettings(**composed(name)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_passes_the_check_and_its_reader_takes_its_keys(name: str) -> None:
    node = dict(composed(name)["reader"])
    module, _, kind = node.pop("_target_").rpartition(".")
    reader = getattr(importlib.import_module(module), kind)
    assert set(node) == set(inspect.signature(reader).parameters), "every argument stands in the file, and no other"
    assert reader(**node).folder == node["folder"]


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_is_called_as_its_file_and_its_headline_is_its_scorers(settings, name: str) -> None:
    found = scorer(settings[name].scorer)
    assert settings[name].name == name
    # MathVista's own rule without a judge does not read the letters that its prompts ask for.
    assert settings[name].variants[0] == {"mathvista": "closed"}.get(name, found.default)
    assert set(settings[name].variants) <= set(found.cases)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_those_of_the_rulebook(settings, name: str) -> None:
    fields = {"capitalized": "Which ship sails?", "asked": "Asked?", "context": "Context: Look.\n"}
    gold = {"direction": "image_to_text", "gallery": 2, "right": [1]}  # which galleries alone read
    question = Question("1", "1", "Which Ship sails?", gold, options=("kite", "boat"), fields=fields)
    wanted = PROMPTS.get(name, "Which Ship sails?")
    assert ask(question, settings[name]).prompt == wanted
    assert settings[name].max_new_tokens == LONGEST.get(name, 16)


def test_drawn_descriptions_ask_what_greedy_ones_ask(settings) -> None:
    greedy, drawn = settings["small_descriptions"], settings["small_descriptions_sampled"]
    changed = {"name": drawn.name, "decoding": "sampled", "temperature": 1.0, "draws": 1}
    assert replace(greedy, **changed) == drawn


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_file_is_explained(name: str) -> None:
    lines = (CONF / f"benchmark/{name}.yaml").read_text("utf-8").splitlines()
    assert lines[0].startswith("# ")
    bare = [line for line in lines if line and line[0].isalpha() and "  # " not in line]
    assert bare == []


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_names_benchmarks_that_there_are(name: str) -> None:
    suite = yaml.safe_load((CONF / f"suite/{name}.yaml").read_text("utf-8"))
    assert set(suite) == {"benchmarks", "limit"}
    assert set(suite["benchmarks"]) <= set(NAMES)
    assert len(set(suite["benchmarks"])) == len(suite["benchmarks"])


def test_the_small_suite_covers_each_kind_of_question(settings) -> None:
    suite = yaml.safe_load((CONF / "suite/small.yaml").read_text("utf-8"))["benchmarks"]
    assert {settings[name].scorer for name in suite} == {
        "vqav2", "pope", "mme", "scienceqa", "descriptions", "digit_names",
    }  # fmt: skip
