"""The house has floors: a room imports rooms on lower floors and its own, and each large library has its place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "vlm.contracts": 0,
    "vlm.models": 1, "vlm.losses": 1, "vlm.data": 1,
    "vlm.training": 2, "vlm.evaluation": 2, "vlm.interop": 2, "data_prep": 2,
    "vlm.phases": 3, "vlm.reporting": 3,
    "vlm": 4,  # the modules beside the rooms
    "experiments": 5, "vlm.harnesses": 5,
}  # fmt: skip
DATA_PREP_SEES = ("vlm.contracts", "vlm.data")
FACADE = "vlm"  # vlm/__init__.py names what lies above it, and imports that only when it is called

# library -> the modules, or packages of modules, that may import it
PLACES = {
    "hydra": ("vlm.build", "experiments", "data_prep.prepare"),
    "omegaconf": ("vlm.build", "experiments", "data_prep.prepare"),
    "lightning": ("vlm.training", "vlm.phases", "vlm.job"),
    "transformers": (
        "vlm.models.llms", "vlm.models.encoders.hf_vision", "vlm.models.hf_text", "vlm.models.hf_model", "vlm.models.generation",
        "vlm.data.tokens", "vlm.interop",
    ),
    "torch": ("vlm", "experiments"),
}  # fmt: skip
# modules that are read before torch is loaded -> they may name it for type checkers only
TORCH_FREE = (
    "vlm.contracts",
    "vlm.build",
    "vlm.benchmarks",
    "vlm.check",
    "vlm.phase_check",
    "vlm.signature",
    "vlm.shapes",
    "vlm.origins",
    "vlm.wording",
)


def modules(*folders: str) -> dict[str, Path]:
    """Dotted name -> file."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, tree: ast.AST, is_package: bool, known: frozenset[str] = frozenset()) -> Iterator[str]:
    """Every module that is imported anywhere in the tree, as an absolute dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".") if is_package else name.split(".")[:-1]
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in known else source


def is_under(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def room(name: str) -> str:
    return max((place for place in FLOORS if is_under(name, (place,))), key=len)


MODULES = modules("vlm", "data_prep", "experiments")
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
IMPORTS = {
    name: sorted(set(imports(name, tree, MODULES[name].name == "__init__.py", frozenset(MODULES))))
    for name, tree in TREES.items()
}
OURS = ("vlm", "data_prep", "experiments")


def test_every_room_has_a_floor():
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name.count(".") == 1 and name.startswith("vlm."):
            assert name in FLOORS, f"{name} is a new room; give it a floor here and in the guide"


@pytest.mark.parametrize("name", [name for name in MODULES if name != FACADE])
def test_a_module_imports_only_lower_floors_and_its_own_room(name):
    for source in IMPORTS[name]:
        if is_under(source, OURS) and room(source) != room(name):
            assert FLOORS[room(source)] < FLOORS[room(name)], f"{name} imports {source}"


def test_data_preparation_sees_contracts_and_data_only():
    for name in MODULES:
        if is_under(name, ("data_prep",)):
            for source in IMPORTS[name]:
                assert not is_under(source, ("vlm", "experiments")) or is_under(source, DATA_PREP_SEES), (
                    f"{name}: {source}"
                )


@pytest.mark.parametrize("library", PLACES)
def test_a_large_library_stays_in_its_place(library):
    for name in MODULES:
        if name != FACADE and any(is_under(source, (library,)) for source in IMPORTS[name]):
            assert is_under(name, PLACES[library]), f"{name} imports {library}"


@pytest.mark.parametrize("name", [name for name in MODULES if is_under(name, TORCH_FREE)])
def test_what_is_read_before_the_check_names_torch_for_type_checkers_only(name):
    top = [node for node in TREES[name].body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = imports(name, ast.Module(top, []), MODULES[name].name == "__init__.py")
    assert not [source for source in found if is_under(source, ("torch", "lightning", "transformers"))]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import vlm.models.vlm", "vlm.models.vlm"),
        ("from vlm import models", "vlm.models"),
        ("from .. import models", "vlm.models"),
        ("from ..models.vlm import VLM", "vlm.models.vlm"),
        ("def f():\n    from vlm.models import vlm", "vlm.models.vlm"),
        ("from . import order", "vlm.data.order"),
    ],
)
def test_every_way_to_import_is_seen(code, found):
    assert list(imports("vlm.data.loader", ast.parse(code), False, frozenset(MODULES))) == [found]
