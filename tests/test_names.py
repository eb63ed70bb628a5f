"""Names and sizes of files: the code knows architectures, configurations know systems."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for folder in ("vlm", "data_prep") for path in (ROOT / folder).rglob("*.py"))
SIZE = re.compile(r"nano(?!second)|\b\d+(_\d+)?[mb]\b", re.IGNORECASE)  # as in x_nano, 135m, 1_7b
LAYOUTS = {path.stem for path in (ROOT / "vlm" / "interop").glob("*.py")}  # these may be called by their names
LINES = 400  # a longer file is usually two
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}


def names_and_keys(path: Path) -> Iterator[tuple[int, str]]:
    """Names that code defines or uses and the words of its strings, with line numbers; docstrings and comments not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        for value in (getattr(node, field, None) for field in ("id", "attr", "name", "arg", "module", "value")):
            if isinstance(value, str) and id(node) not in prose:
                yield getattr(node, "lineno", 0), value


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_foreign_layouts_know_the_size_of_a_system(path):
    if "interop" in path.parts:
        return
    for line, name in names_and_keys(path):
        found = None if name in LAYOUTS else SIZE.search(name)
        assert not found, f"{path.relative_to(ROOT)}:{line}: {found[0]!r} in {name!r} belongs into conf/"


def test_a_file_holds_one_idea():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > LINES} == {}


def test_a_module_is_named_after_what_it_does():
    assert [path for path in FILES if path.stem in VAGUE] == []
