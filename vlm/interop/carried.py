"""The code that a saved model needs, as flat files that import each other and nothing of this project.

transformers copies the file that a folder's config.json names, and the files beside it that it imports as
`from .name import …`, no sub-folders. So vlm/a/b.py becomes vlm_a_b.py, and every import is written anew.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OURS = "vlm."
FINDER = ("vlm.models.assemble", "find")  # looks a class up by its name here; carried along it looks into PARTS
PARTS = "vlm_parts"
STANDS_IN = {"annotated_types": "vlm_ranges_only"}  # ranges are checked here, before a model is saved
# What comes with torch and transformers. Others are needed by some models only, and transformers refuses a folder
# for every import that it finds outside of a `try`.
EXPECTED = {"PIL", "numpy", "safetensors", "tokenizers", "torch", "transformers", "huggingface_hub"}
WITHOUT = {"simplejpeg"}  # reads encoded pictures; the carried code is given decoded ones


def carried(entry: str, config: Mapping[str, Any]) -> dict[str, str]:
    """File name -> source of everything that module `entry` and the classes in `config` (`_target_`) need."""
    targets = sorted({(module, name) for module, _, name in (t.rpartition(".") for t in _targets(config))})
    files: dict[str, str] = {}
    waiting = [entry, *(module for module, _ in targets)]
    while waiting:
        module = waiting.pop()
        if f"{flat(module)}.py" in files:
            continue
        source = _source(module)
        files[f"{flat(module)}.py"] = _rewritten(module, source)
        waiting += _needed(module, ast.parse(source))
    files[f"{PARTS}.py"] = _parts(targets)
    stand_in = "class Limit:\n    def __init__(self, *values: float) -> None:\n        self.values = values\n"
    names = "\n\nGe = Gt = Le = Lt = Len = Limit\n"
    header = '"""In place of annotated_types: limits were checked when the model was made."""\n\n\n'
    files[f"{STANDS_IN['annotated_types']}.py"] = header + stand_in + names
    return dict(sorted(files.items()))


def flat(module: str) -> str:
    return module.replace(".", "_")


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from _targets(value)


def _source(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None, module
    return Path(str(spec.origin)).read_text(encoding="utf-8")


def _needed(module: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{module}:{node.lineno}: a relative import"
            if node.module.startswith(OURS):
                yield node.module
        elif isinstance(node, ast.Import):
            assert not any(name.name.startswith(OURS) for name in node.names), (
                f"{module}:{node.lineno}: import the names"
            )


def _rewritten(module: str, source: str) -> str:
    lines = source.splitlines()
    tree = ast.parse(source)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in sorted(statements, key=lambda node: -node.lineno):  # from the end, so that numbers of lines stay true
        first, last = node.lineno - 1, node.end_lineno or node.lineno
        lines[first:last] = _import(node, lines[first:last])
    if module == FINDER[0]:
        lines = _with_parts("\n".join(lines)).splitlines()
    return (
        f"# Part of vlm, written by its export; the original is {module.replace('.', '/')}.py.\n"
        + "\n".join(lines)
        + "\n"
    )


def _import(node: ast.Import | ast.ImportFrom, lines: list[str]) -> list[str]:
    name = (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
    library = name.partition(".")[0]
    if name.startswith(OURS) or library in STANDS_IN:
        place = STANDS_IN.get(library) or flat(name)
        return [lines[0].replace(f"from {name} import", f"from .{place} import"), *lines[1:]]
    if library in EXPECTED or library in sys.stdlib_module_names:
        return lines
    indent = re.match(r"\s*", lines[0])[0]  # type: ignore[index]
    last = f"{library} = None  # type: ignore" if library in WITHOUT else "raise"
    return [f"{indent}try:", *(f"    {line}" for line in lines), f"{indent}except ImportError:", f"{indent}    {last}"]


def _with_parts(source: str) -> str:
    """The finder looks into PARTS: in a folder by itself there is no package to import from by name."""
    found = next(
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == FINDER[1]
    )
    body = f"def {FINDER[1]}(node):\n    from .{PARTS} import PARTS\n\n    return PARTS[node['_target_']]".splitlines()
    lines = source.splitlines()
    lines[found.lineno - 1 : found.end_lineno] = body
    return "\n".join(lines)


def _parts(targets: list[tuple[str, str]]) -> str:
    imports = [f"from .{flat(module)} import {name} as {flat(module)}_{name}" for module, name in targets]
    table = [f'    "{module}.{name}": {flat(module)}_{name},' for module, name in targets]
    return "\n".join(['"""The classes that this model is made of."""', "", *imports, "", "PARTS = {", *table, "}", ""])
