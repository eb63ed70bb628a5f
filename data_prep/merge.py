"""Merge the parts of one set: the same bytes as if it had been prepared in one go.

python -m data_prep.merge parts=[DIR,DIR,...] [out=DIR]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from data_prep.command import run
from vlm.contracts.errors import InputError

GOES_ON = "stopped; what is complete is kept, the same command goes on"


@dataclass(frozen=True)
class MergeSettings:
    """The keys of the command."""

    parts: Annotated[list[Path], "folders <set>/part-i-of-n of all parts, or one folder that holds them all"]
    out: Annotated[Path | None, "the set is written to <out>/<set>; null = where its parts were told to go"] = None


def main(settings: MergeSettings) -> int:
    """Prints the counts of each split as prepare does."""
    from data_prep.prepare import told

    for manifest in merge(settings.parts, settings.out):
        print(told(manifest))
    return 0


def merge(given: Sequence[Path], out: Path | None) -> list[dict[str, Any]]:
    """Returns: the manifests. Raises: InputError for parts that are not complete or do not belong together."""
    from data_prep.convert import assemble, disk_faults_told, only_one
    from data_prep.earlier import already_prepared
    from data_prep.progress import bar
    from data_prep.rows import SourceFile
    from data_prep.settings import check
    from data_prep.writing.assembly import Assembly
    from data_prep.writing.manifest import Identity
    from data_prep.writing.parts import merged, read_part

    folders = [folder for path in given for folder in (sorted(path.glob("part-*-of-*/")) or [path])]
    parts = {folder: read_part(folder) for folder in folders}
    first = _belong_together(parts)
    prepared, _ = check(first["settings"])
    source = replace(prepared.source, budget=_widest([part["settings"]["source"]["budget"] for part in parts.values()]))
    # The places that were read from need not be there any more: what was read is held to its checksums.
    prepared = replace(prepared, source=source, part=None, folder=None, out=str(out or prepared.out))
    root, identity = Path(prepared.out) / prepared.source.name, Identity(**first["identity"])
    files = [SourceFile(**file) for file in first["files"]]
    with disk_faults_told(prepared.source.name, root):
        command = ["python", "-m", "data_prep.merge", f"parts=[{','.join(map(str, given))}]"]
        if finished := already_prepared(root, prepared, identity, command):
            if finished[0]["source"] != first["files"]:
                raise InputError(
                    f"{root} was prepared from other files; remove it, or name another folder with out=DIR"
                )
            return finished
        with bar(f"merging {prepared.source.name}", first["rows"]) as progress, only_one(root):
            assembly = Assembly(prepared.source, root, identity)
            rest = (entry for entry in merged(parts) if entry[0] >= assembly.next)
            return assemble(assembly, rest, files, progress.to)


def _widest(budgets: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Of each reason the largest that any part was given; None is no limit."""
    widest: dict[str, float | None] = {}
    for reason in {reason for budget in budgets for reason in budget}:
        given = [budget[reason] for budget in budgets if reason in budget]
        widest[reason] = None if None in given else max(value for value in given if value is not None)
    return widest


def _belong_together(parts: Mapping[Path, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns: one of them. Raises: InputError unless each part of one preparation is there once, complete."""
    from data_prep.writing.manifest import Identity

    (folder, first), *others = parts.items()
    for other, part in others:
        differing = [name for name in ("files", "rows") if part["complete"] and part[name] != first[name]]
        if Identity(**part["identity"]).unfinished != Identity(**first["identity"]).unfinished:
            differing.insert(0, "settings")
        if differing and first["complete"]:
            raise InputError(f"{other} and {folder} differ in their {differing[0]}; give the parts of one preparation")
    unfinished = [f"{part['part'][0]}/{part['part'][1]}" for part in parts.values() if not part["complete"]]
    if unfinished:
        raise InputError(f"not complete: part={', part='.join(unfinished)}; the same command goes on with each")
    numbers, of = sorted(part["part"][0] for part in parts.values()), first["part"][1]
    if numbers != list(range(of)):
        missing = sorted(set(range(of)) - set(numbers))
        raise InputError(f"parts {numbers} of {of} are given; each is needed once, missing: {missing or 'none'}")
    return first


if __name__ == "__main__":
    sys.exit(run(__doc__, MergeSettings, main, sys.argv[1:], GOES_ON))
