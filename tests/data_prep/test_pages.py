"""What the pages and comments say can be given to data_prep's commands, can be given."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from data_prep.budget import PERCENT
from data_prep.command import parse
from data_prep.settings import check, unknown_keys

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/preparing.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("experiments/*/*.md"))]
COMMENTED = sorted((ROOT / "conf").rglob("*.yaml"))
SOURCES = sorted(path.stem for path in (ROOT / "conf/source").glob("*.yaml"))
COMMANDS = ("verify", "browse", "dedupe", "merge", "forms.__main__")
# What stands for a value of one's own -> one that would do.
OWN = {"NAME": "mnist", "N": "3", "DIR_OR_HUB": "DIR", "i/n": "0/2", "SET/SPLIT": "pope/test"}


def wanted(word: str) -> list[str]:
    """`[limit=N]` -> limit=3; a=b|c -> a=b, a=c."""
    optional = re.fullmatch(r"\[(\w+=.*)\]", word)
    key, sign, value = (optional[1] if optional else word).partition("=")
    return [f"{key}{sign}{OWN.get(one, one)}" for one in (value.split("|") if "|" in value else [value])]


def prepared() -> list[str]:
    """Every line that prepares a set, as words of data_prep.prepare."""
    found = set()
    for path in [*PAGES, *COMMENTED]:
        text = path.read_text("utf-8")
        for source, arguments in re.findall(r'SOURCE=(\w+)(?: ARGS="([^"]*)")?', text):
            found.add(f"source={source} {arguments}".strip())
        found |= set(re.findall(r"python -m data_prep\.prepare (source=[^`#\n]*)", text))
    return sorted(line.strip() for line in found if "key=value" not in line)


def other_commands() -> list[tuple[str, str]]:
    """(module, its words)"""
    text = "\n".join(path.read_text("utf-8") for path in [*PAGES, *COMMENTED])
    found = re.findall(r'python -m data_prep\.(\w+) ([^`#\n"]*=[^`#\n"]*)', text)
    return sorted({(module, words.strip()) for module, words in found if module != "prepare"})


def keys() -> list[str]:
    """Every key=value, or key= with values of one's own, that the page names between backticks."""
    named = re.findall(r"`([^`\n]+)`", PAGE.read_text("utf-8"))
    return sorted({entry for entry in named if re.fullmatch(r"[\w.]+=\S*", entry)})


def checked(words: list[str]) -> None:
    """Raises: whatever keeps the command from beginning its work."""
    with initialize_config_module("conf", version_base=None):
        plain: Any = OmegaConf.to_container(compose("prepare", [_any_key(word) for word in words]), resolve=True)
    plain.pop("hydra", None)
    check(plain, unknown_keys(word.split("=")[0] for word in words))


def _any_key(word: str) -> str:
    """As data_prep.prepare gives it on: unknown keys are told by the check."""
    return word if word.startswith("source=") else f"++{word}"


@cache
def source(name: str) -> Any:
    with initialize_config_module("conf", version_base=None):
        return OmegaConf.to_container(compose("prepare", [f"source={name}"]), resolve=False)


@cache
def settings(module: str) -> Any:
    found = vars(import_module(f"data_prep.{module}")).items()
    (kind,) = [
        kind
        for name, kind in found
        if name.endswith("Settings") and is_dataclass(kind) and kind.__module__.endswith(module)
    ]
    return kind


def holds(node: Any, key: str) -> bool:
    """Whether the dotted key stands in a nested mapping."""
    for step in key.split("."):
        if not isinstance(node, dict) or step not in node:
            return False
        node = node[step]
    return True


@pytest.mark.parametrize("line", prepared())
def test_every_preparation_that_is_named_anywhere_has_known_keys_and_values(line: str) -> None:
    words = [one for word in shlex.split(line) for one in wanted(word)[:1] if not one.startswith("parts=[a,b]")]
    checked(words)


@pytest.mark.parametrize(("module", "line"), other_commands())
def test_every_other_command_that_is_named_anywhere_has_known_keys_and_values(module: str, line: str) -> None:
    kind = settings("forms.__main__" if module == "forms" else module)
    parse(kind, [one for word in shlex.split(line) for one in wanted(word)[:1]])


@pytest.mark.parametrize("entry", keys())
def test_every_key_that_the_page_names_is_one(entry: str) -> None:
    key, _, value = entry.partition("=")
    if key.startswith("data."):  # of training
        mixes = [yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / "conf/data").glob("*.yaml")]
        assert all(key.removeprefix("data.") in mix for mix in mixes)
        return
    if key.startswith("source.budget."):
        assert key.removeprefix("source.budget.") in PERCENT
        return
    owners = [name for name in SOURCES if holds(source(name), key)]
    commands = [module for module in COMMANDS if key in {entry.name.rstrip("_") for entry in fields(settings(module))}]
    assert owners or commands, f"no command has a key {key}"
    for one in wanted(entry) if value and owners else ():
        checked([f"source={owners[0]}", one])


def test_lines_and_keys_are_found() -> None:
    assert len(prepared()) > 10
    assert len(other_commands()) >= 4
    assert len(keys()) >= 5
