"""Constructors are read from source: types, defaults, base classes and `describe`, and nothing is imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, get_args

import pytest
from annotated_types import Len

from vlm.contracts.ranges import PositiveInt
from vlm.contracts.vision import FixedCount, VisionSpec
from vlm.signature import UNREADABLE, SignatureError, read

BASE = """
from __future__ import annotations
import absent_heavy_library as heavy
from dataclasses import dataclass

class Base(heavy.Module):
    def __init__(self, model: heavy.Module, rate: float = 0.5, *, seed: int) -> None:
        self.model = model

@dataclass(frozen=True)
class Record:
    name: str
    extras: dict[str, int] | None = None
"""
PARTS = '''
from __future__ import annotations
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, TYPE_CHECKING
import absent_heavy_library as heavy
from annotated_types import Len
from absent_heavy_library import nn
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.vision import FixedCount, VisionSpec
from .base import Base, Record

if TYPE_CHECKING:
    from vlm.contracts.vision import ViewSpec

KIND = Literal["a", "b"]
SIDE = 3

def squared(side: int, unused: nn.Tensor = None) -> int:
    return side * side

@dataclass(frozen=True)
class Doubled:
    tokens: int
    def __call__(self, height: int, width: int, token_budget: int | None) -> int:
        return 2 * self.tokens

class Part(nn.Module):
    def __init__(self, views: ViewSpec, net: nn.Module, sizes: Annotated[list[PositiveInt], Len(1)], kind: KIND = "a"):
        self.spec = self.describe(views, net, sizes, kind)

    @staticmethod
    def describe(views: ViewSpec, net: nn.Module, sizes: list[int], kind: str) -> VisionSpec:
        return VisionSpec(width=sizes[-1], count=FixedCount(squared(SIDE)) if kind == "a" else Doubled(4))

class Inherits(Base):
    """No constructor of its own."""

class Deeper(Record):
    """A dataclass's constructor is inherited as well."""

@dataclass(frozen=True)
class More(Record):
    size: PositiveInt = 3
    items: list[int] = field(default_factory=list)
    hidden: int = field(default=1, init=False)
    shared: ClassVar[int] = 5

class Model(heavy.Module):
    nodes = parts = ("encoder", "text")

class Phase(heavy.Module):
    nodes = begins = ()
    reports: tuple[str, ...] = ("drift",)

class Later(Phase):
    nodes = begins = ("llm",)
    measures = ("val/won",)

class Own(Later):
    """What it does not state, its nearest base states."""
    begins = ()

class Swallows:
    def __init__(self, size: int, **options: int) -> None: ...

class Untyped:
    def __init__(self, size) -> None: ...

class Heavy:
    def __init__(self, size: int) -> None: ...
    @staticmethod
    def describe(size: int) -> int:
        return heavy.round(size)

def reader(path: str, limit: int = 3) -> list[str]: ...
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    room = tmp_path / "vlm" / "parts"
    room.mkdir(parents=True)
    (room / "__init__.py").write_text("from vlm.parts.own import Part\n")
    (room / "own.py").write_text(PARTS)
    (room / "base.py").write_text(BASE)
    return tmp_path


def test_types_and_defaults_are_read_without_importing_the_module(root: Path):
    found = read("vlm.parts.own.Part", root).parameters
    assert list(found) == ["views", "net", "sizes", "kind"]
    assert found["sizes"].annotation == Annotated[list[PositiveInt], Len(1)]
    assert get_args(found["kind"].annotation) == ("a", "b")
    assert (found["kind"].required, found["kind"].default) == (False, "a")
    assert "absent_heavy_library" not in sys.modules


def test_a_type_that_needs_a_heavy_import_is_left_to_the_assembly(root: Path):
    assert read("vlm.parts.own.Part", root).parameters["net"].annotation is UNREADABLE


def test_describe_runs_with_the_modules_own_light_helpers(root: Path):
    describe = read("vlm.parts.own.Part", root).describe
    assert describe is not None
    assert describe(None, None, [4, 8], "a") == VisionSpec(width=8, count=FixedCount(9))
    assert describe(None, None, [4, 8], "b").count(1, 1, None) == 8


def test_a_re_exported_class_is_found_where_it_is_defined(root: Path):
    assert read("vlm.parts.Part", root).file.name == "own.py"


def test_an_inherited_constructor_is_followed_into_another_file(root: Path):
    found = read("vlm.parts.own.Inherits", root).parameters
    assert {name: entry.required for name, entry in found.items()} == {"model": True, "rate": False, "seed": True}


def test_the_fields_of_a_dataclass_are_its_arguments(root: Path):
    assert list(read("vlm.parts.own.Deeper", root).parameters) == ["name", "extras"]
    more = read("vlm.parts.own.More", root).parameters
    assert {name: entry.required for name, entry in more.items()} == {
        "name": True,
        "extras": False,
        "size": False,
        "items": False,
    }


def test_what_a_class_says_of_itself_is_read_from_it_or_its_nearest_base(root: Path):
    model, phase, later, own = (read(f"vlm.parts.own.{name}", root) for name in ("Model", "Phase", "Later", "Own"))
    assert model.nodes == model.parts == ("encoder", "text")
    assert (model.reports, model.begins, model.measures) == ((), (), ())
    assert (phase.nodes, phase.begins, phase.measures, phase.reports) == ((), (), (), ("drift",))
    assert (later.nodes, later.begins, later.measures) == (("llm",), ("llm",), ("val/won",))
    assert (own.nodes, own.begins, own.measures, own.reports) == (("llm",), (), ("val/won",), ("drift",))


def test_the_projects_models_and_phases_say_what_they_need():
    model, phase = read("vlm.models.two_tower.TwoTower"), read("vlm.phases.dpo.DPO")
    assert (model.nodes, model.parts) == (("encoder", "text"), ("encoder", "text", "joint"))
    assert phase.nodes == phase.begins == read("vlm.phases.alignment.Alignment").nodes == ("llm",)
    assert "val/retrieval_r1" in read("vlm.phases.contrastive.Contrastive").measures


def test_a_function_can_be_a_target(root: Path):
    assert list(read("vlm.parts.own.reader", root).parameters) == ["path", "limit"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("os.system", "is not part of this project"),
        ("CNN", "is not part of this project"),
        ("vlm.parts.won.Part", "there is no module vlm.parts.won; did you mean 'vlm.parts.own'?"),
        ("vlm.parts.own.Prat", "has no Prat; did you mean 'Part'?"),
        ("vlm.parts.own.SIDE", "is neither a class nor a function"),
        ("vlm.parts.own.Swallows", "hide misspelt keys"),
        ("vlm.parts.own.Untyped", "argument 'size' has no type"),
        ("vlm.parts.own.Heavy", "describe uses heavy"),
    ],
)
def test_a_target_that_cannot_be_checked_is_refused(root: Path, target: str, words: str):
    with pytest.raises(SignatureError, match=words.replace("?", r"\?")):
        read(target, root)


def test_the_project_is_read_by_default():
    targets = get_args(read("vlm.phases.sft.SFT").parameters["targets"].annotation)
    assert targets == get_args(Literal["answers", "all"])
