"""What the pages say can be done, can be done."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests import hf_folder
from vlm.build import compose
from vlm.signature import read

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("experiments/**/*.md"), *ROOT.glob("docs/**/*.md")])
BLOCKS = dict(re.findall(r"`([\w/.]+)`\n```(?:python|yaml)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))


def commands(page: Path, start: str) -> list[str]:
    return [line.split(" #")[0].strip() for line in page.read_text().splitlines() if line.startswith(start)]


def trainings() -> list[str]:
    return sorted({line for page in PAGES for line in commands(page, "python -m experiments.train")})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """With the language model that `data_prep.language_model` puts there."""
    folder = tmp_path_factory.mktemp("data")
    model = folder / "models" / "smollm2_135m_instruct"
    model.mkdir(parents=True)
    hf_folder.whole(model, max_position_embeddings=2048)
    return folder


@pytest.mark.parametrize("line", trainings())
def test_every_training_command_of_the_pages_is_accepted(line, data, monkeypatch):
    monkeypatch.setenv("VLM_DATA", str(data))
    my_model = data / "models" / "smollm2_135m_instruct"  # the folder that the pages call so
    line = line.replace("llm.path=my_model", f"llm.path={my_model}")
    words = [word for word in shlex.split(line)[3:] if word != "-m"]
    compose([word.split(",")[0] if re.fullmatch(r"[\w.]+=[\w.]+(,[\w.]+)+", word) else word for word in words])


def test_every_target_is_documented_and_every_documented_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    (declared,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make ([\w-]+)", told, re.MULTILINE)) == set(declared.split())
    for page in PAGES:
        used = set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", page.read_text(), re.MULTILINE))
        assert used <= set(declared.split()), page


def test_a_target_that_needs_a_name_says_so_before_it_installs_anything(tmp_path):
    words = ["make", "data", f"VENV={tmp_path / 'none'}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "SOURCE=... is missing" in done.stderr
    assert not (tmp_path / "none").exists()


def test_the_encoder_of_the_readme_is_complete(monkeypatch, tmp_path):
    """Its module and its test run as printed, and its YAML holds exactly the keys of its constructor."""
    module, config, test = BLOCKS
    name = module.removesuffix(".py").replace("/", ".")
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    exec(compile(BLOCKS[module], module, "exec"), vars(sys.modules[name]))
    space: dict = {}
    exec(compile(BLOCKS[test], test, "exec"), space)
    for found in [value for key, value in space.items() if key.startswith("test_")]:
        found()

    (tmp_path / module).parent.mkdir(parents=True)
    (tmp_path / module).write_text(BLOCKS[module])
    (tmp_path / "vlm" / "contracts").symlink_to(ROOT / "vlm" / "contracts")
    node = yaml.safe_load(BLOCKS[config])
    signature = read(node["_target_"], root=tmp_path)
    assert set(signature.parameters) - {"views"} == set(node) - {"_target_", "views"}
    assert signature.describe is not None
