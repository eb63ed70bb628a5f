"""Constructors read from their source, without importing them: a configuration is checked before torch is loaded.

A parameter's annotation and a part's `describe` are evaluated in a namespace that holds only what the module gets
from light imports (typing, annotated_types, vlm.contracts, …) and its own definitions that need nothing else.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from vlm.wording import did_you_mean

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("vlm", "data_prep")  # the packages whose classes a configuration may name
LIGHT = (
    "__future__",
    "annotated_types",
    "collections",
    "dataclasses",
    "json",
    "math",
    "pathlib",
    "typing",
    "vlm.contracts",
)
UNREADABLE = object()  # an annotation or default that needs a heavy import

Function = ast.FunctionDef | ast.AsyncFunctionDef


class SignatureError(ValueError):
    """A `_target_` that names nothing usable, or a constructor that cannot be checked."""


@dataclass(frozen=True)
class Parameter:
    """annotation: a type, or UNREADABLE if it needs torch, so that no configuration can hold its value.

    default: its value, or UNREADABLE if there is none to be had without heavy imports.
    """

    annotation: Any
    required: bool
    default: Any = UNREADABLE


@dataclass(frozen=True)
class Signature:
    """parameters: in order, without self.   describe: the part's shape rule, ready to call.   file: of the class.

    reports: the names of the aux terms that a part gives.   nodes, parts: what a model is assembled from, and what is
    saved of it.   nodes, begins, measures: of a phase, what a model must have, what of it must not begin at random, and
    metrics of its validations of which more is better.   pairs: whether it reads preference pairs. All of them from the
    class attributes of these names.
    """

    target: str
    parameters: Mapping[str, Parameter]
    describe: Callable[..., Any] | None
    file: Path
    reports: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    begins: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    pairs: bool = False


@cache
def read(target: str, root: Path = ROOT) -> Signature:
    """The signature behind a dotted path such as "vlm.models.encoders.cnn.CNN".

    root: the folder that holds the packages. Base classes are followed inside the project.
    Raises: SignatureError, with the nearest name where there is one.
    """
    module_name, _, name = target.rpartition(".")
    if target.partition(".")[0] not in ROOMS or not module_name:
        raise SignatureError(f"{target!r} is not part of this project; write vlm.….ClassName or data_prep.….ClassName")
    module, statement = _find(_module(module_name, root), name)
    if isinstance(statement, Function):
        return Signature(target, _parameters(module, statement, skip=0), None, module.file)
    if not isinstance(statement, ast.ClassDef):
        raise SignatureError(f"{target} is neither a class nor a function")
    lineage = list(_lineage(module, statement))
    describe = next((_compile(owner, found) for owner, node in lineage if (found := _method(node, "describe"))), None)
    stated: dict[str, Any] = {
        name: owner.evaluate(value)
        for name in ("reports", "nodes", "begins", "measures", "parts", "pairs")
        for owner, value in [_first(lineage, name)]
        if owner is not None
    }
    return Signature(target, _constructor(lineage), describe, module.file, **stated)


@dataclass
class _Module:
    """One source file and the part of its names that exists without heavy imports."""

    name: str
    file: Path
    root: Path
    definitions: dict[str, ast.stmt]
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": __name__})
    pending: set[str] = field(default_factory=set)

    def define(self, name: str) -> bool:
        """Put `name` into the namespace. False if that needs a heavy import; builtins and locals need nothing."""
        if name in self.namespace or name in self.pending or name not in self.definitions:
            return True
        statement = self.definitions[name]
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return self._define_import(name, statement)
        self.pending.add(name)
        ready = all([self.define(used) for used in _names(statement)])
        self.pending.discard(name)
        if ready:
            _execute(statement, self)
        return ready

    def _define_import(self, name: str, statement: ast.Import | ast.ImportFrom) -> bool:
        source, original = _origin(self, statement, name)
        if any(source == light or source.startswith(f"{light}.") for light in LIGHT):
            _execute(statement, self)
            return True
        if original is None or source.partition(".")[0] not in ROOMS:
            return False
        other = _module(source, self.root)
        if original not in other.definitions or not other.define(original):
            return False
        self.namespace[name] = other.namespace[original]
        return True

    def evaluate(self, node: ast.expr) -> Any:
        """The value of an annotation or default; UNREADABLE if it needs a heavy import."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if not all([self.define(name) for name in _names(node)]):
            return UNREADABLE
        try:
            return eval(compile(ast.Expression(node), str(self.file), "eval"), self.namespace)
        except NameError as error:
            raise SignatureError(f"{self.file}, line {node.lineno}: {error}") from error


@cache
def _module(name: str, root: Path) -> _Module:
    base = root.joinpath(*name.split("."))
    file = next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
    if file is None:
        folder, parent = base.parent, name.rpartition(".")[0]
        siblings = [f"{parent}.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"]
        raise SignatureError(f"there is no module {name}{did_you_mean(name, siblings)}")
    definitions: dict[str, ast.stmt] = {}
    for statement in _statements(ast.parse(file.read_text(encoding="utf-8"), str(file)).body):
        for defined in _defined(statement):
            definitions[defined] = statement
    return _Module(name, file, root, definitions)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements; those of `if TYPE_CHECKING:` and the like count as top-level."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _statements([*statement.body, *statement.orelse])
        else:
            yield statement


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
    if isinstance(statement, Function | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _origin(module: _Module, statement: ast.Import | ast.ImportFrom, name: str) -> tuple[str, str | None]:
    """Where an imported name comes from: (module, name in it), or (module, None) for a whole module."""
    alias = next(alias for alias in statement.names if name in (alias.asname, alias.name.partition(".")[0]))
    if isinstance(statement, ast.Import):
        return alias.name, None
    source = statement.module or ""
    if statement.level:
        package = module.name.split(".") if module.file.name == "__init__.py" else module.name.split(".")[:-1]
        above = package[: len(package) - statement.level + 1]
        source = ".".join([*above, source] if source else above)
    return source, alias.name


def _find(module: _Module, name: str) -> tuple[_Module, ast.stmt]:
    """The definition of a name, followed through re-exports."""
    statement = module.definitions.get(name)
    if statement is None:
        classes = [key for key, value in module.definitions.items() if isinstance(value, ast.ClassDef)]
        raise SignatureError(f"{module.name} has no {name}{did_you_mean(name, classes)}")
    if isinstance(statement, ast.ImportFrom):
        source, original = _origin(module, statement, name)
        if original is not None and source.partition(".")[0] in ROOMS:
            return _find(_module(source, module.root), original)
    return module, statement


def _lineage(module: _Module, node: ast.ClassDef) -> Iterator[tuple[_Module, ast.ClassDef]]:
    """The class and its bases inside the project, nearest first."""
    yield module, node
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in module.definitions:
            owner, found = _find(module, base.id)
            if isinstance(found, ast.ClassDef):
                yield from _lineage(owner, found)


def _constructor(lineage: list[tuple[_Module, ast.ClassDef]]) -> dict[str, Parameter]:
    for position, (module, node) in enumerate(lineage):
        if method := _method(node, "__init__"):
            return _parameters(module, method, skip=1)
        if _is_dataclass(node):
            merged: dict[str, Parameter] = {}
            for owner, ancestor in reversed(lineage[position:]):
                if _is_dataclass(ancestor):
                    merged |= _fields(owner, ancestor)
            return merged
    return {}


def _method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == name), None)


def _first(lineage: list[tuple[_Module, ast.ClassDef]], name: str) -> tuple[_Module | None, Any]:
    """The nearest class that gives a value to a name, and the value's expression."""
    return next(((owner, found) for owner, node in lineage if (found := _attribute(node, name))), (None, None))


def _attribute(node: ast.ClassDef, name: str) -> ast.expr | None:
    """The value that a class body gives to a name."""
    for item in node.body:
        if isinstance(item, ast.Assign | ast.AnnAssign) and item.value is not None and name in _defined(item):
            return item.value
    return None


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in _names(decorator) for decorator in node.decorator_list)


def _fields(module: _Module, node: ast.ClassDef) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if "ClassVar" in _names(item.annotation):
            continue
        options = {word.arg: word.value for word in item.value.keywords} if isinstance(item.value, ast.Call) else {}
        has_init = options.get("init")
        if isinstance(has_init, ast.Constant) and has_init.value is False:
            continue
        default = options.get("default", item.value)
        found[item.target.id] = Parameter(
            annotation=module.evaluate(item.annotation),
            required=item.value is None,
            default=UNREADABLE if default is None or isinstance(default, ast.Call) else module.evaluate(default),
        )
    return found


def _parameters(module: _Module, function: Function, skip: int) -> dict[str, Parameter]:
    signature = function.args
    where = f"{module.file}, line {function.lineno}"
    if signature.vararg or signature.kwarg:
        raise SignatureError(f"{where}: *args and **kwargs hide misspelt keys; name every argument")
    positional = [*signature.posonlyargs, *signature.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(signature.defaults))
    pairs = [*zip(positional, [*defaults, *signature.defaults], strict=True)][skip:]
    pairs += zip(signature.kwonlyargs, signature.kw_defaults, strict=True)
    found: dict[str, Parameter] = {}
    for argument, default in pairs:
        if argument.annotation is None:
            raise SignatureError(f"{where}: argument {argument.arg!r} has no type; its values cannot be checked")
        value = UNREADABLE if default is None else module.evaluate(default)
        found[argument.arg] = Parameter(module.evaluate(argument.annotation), default is None, value)
    return found


def _compile(module: _Module, function: ast.FunctionDef) -> Callable[..., Any]:
    """A static method as a plain function of the light namespace."""
    heavy = sorted(name for name in _names(function) if not module.define(name))
    if heavy:
        raise SignatureError(
            f"{module.file}, line {function.lineno}: describe uses {', '.join(heavy)}, which is only there after heavy "
            "imports; keep it plain arithmetic"
        )
    plain = copy.copy(function)
    plain.decorator_list = []
    space = dict(module.namespace)
    _execute(plain, module, space)
    return space[function.name]


def _execute(statement: ast.stmt, module: _Module, space: dict[str, Any] | None = None) -> None:
    later = ast.ImportFrom("__future__", [ast.alias("annotations")], level=0)  # annotations stay text, as everywhere
    tree = ast.fix_missing_locations(ast.Module([later, statement], type_ignores=[]))
    exec(compile(tree, str(module.file), "exec"), module.namespace if space is None else space)


def _names(node: ast.AST) -> set[str]:
    """Names that a statement reads; the annotations of a function or class body are never evaluated."""
    found: set[str] = set()
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                found |= _names(child)
    if isinstance(node, ast.Name):
        found.add(node.id)
    return found
