"""Find the rows of a prepared split that evaluation sets, other splits or earlier rows hold too, and leave them out.

python -m data_prep.dedupe dir=DIR [against=[SET/SPLIT,LIST]] [inside=true] [policy=image|pair] [out=DIR]
Without out= it only reports. The split itself is never changed.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from data_prep.command import run
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import NonNegativeInt

if TYPE_CHECKING:
    from data_prep.overlaps.tables import Table
    from data_prep.overlaps.verdicts import Verdicts
    from vlm.data.shards import ShardSet

EXAMPLES = 5  # rows that the report shows
STOPPED = "stopped; nothing was written that a reader would take for a split: the same command starts again"


@dataclass(frozen=True)
class DedupeSettings:
    """The keys of the command."""

    dir: Annotated[Path, "the prepared split, <set>/<split>"]
    against: Annotated[
        list[str] | None,
        "what it is compared with: names SET/SPLIT, folders of splits, published lists of COCO pictures; "
        "null = every prepared evaluation split",
    ] = None
    inside: Annotated[
        bool, "also compare its own rows: further captions of a picture join the first row, equal rows go"
    ] = False
    policy: Annotated[
        Literal["image", "pair"], "image = the same picture is enough; pair = the same question has to be asked too"
    ] = "image"
    near: Annotated[bool, "pictures that look alike count as the same, not only those with the same pixels"] = True
    out: Annotated[Path | None, "the new split is written to <out>/<set>/<split>; null = only report"] = None
    data: Annotated[Path | None, "folder of the prepared sets; null = the one that dir lies in"] = None
    workers: Annotated[NonNegativeInt | None, "processes that read and decode; null = one a CPU core, 0 = this one"] = (
        None
    )


def main(settings: DedupeSettings) -> int:
    """Prints one JSON line: what goes, by reason and by evaluation set, with the first rows."""
    print(json.dumps(dedupe(settings), ensure_ascii=False))
    return 0


def dedupe(settings: DedupeSettings) -> dict[str, Any]:
    """Returns: the report. Raises: InputError for folders and names that cannot be used; OSError of the disk."""
    import sqlite3
    from tempfile import TemporaryDirectory

    from data_prep.overlaps.overlap import describe
    from data_prep.overlaps.verdicts import Verdicts
    from vlm.data.shards import ShardSet

    split = ShardSet(settings.dir.resolve())
    home = None if settings.out is None else _home(settings.out, split)
    tables = _tables(settings, split)
    with TemporaryDirectory(prefix="dedupe-") as scratch:
        verdicts = Verdicts(Path(scratch) / "verdicts.sqlite")
        try:
            _judge(settings, split, tables, verdicts)
            against = [{**told, "policy": settings.policy} for told in describe(tables)]
            report = _report(settings, split, verdicts, against)
            if home is not None:
                _write(settings, split, verdicts, home, against)
                report["out"] = str(home)
        except sqlite3.OperationalError as error:
            raise OSError(None, f"{error}; TMPDIR names a folder with more room", scratch) from error
        finally:
            verdicts.close()
    return report


def _home(out: Path, split: ShardSet) -> Path:
    home = out / split.set / split.split
    if home.resolve() == split.directory:
        raise InputError(f"out={out}: {home} is the split itself, which is never changed; name another folder")
    if (home / "manifest.json").is_file():
        raise InputError(f"out={out}: {home} holds a prepared split; remove it, or name another folder")
    return home


def _tables(settings: DedupeSettings, split: ShardSet) -> tuple[Table, ...]:
    from data_prep.overlaps.overlap import gather

    data = settings.data or split.directory.parent.parent
    tables = gather(settings.against, data, own="")
    if settings.against is None:
        tables = tuple(table for table in tables if table.origin.resolve() != split.directory)
    for table in tables:
        if table.origin.resolve() == split.directory:
            raise InputError(f"against: {table.name} is the split itself; compare its own rows with inside=true")
        if settings.policy == "pair" and table.kind == "list":
            raise InputError(
                f"policy=pair needs questions, and {table.name} is read as a list of pictures; prepare the evaluation "
                "set and name it as SET/SPLIT, or take policy=image"
            )
    if not tables and not settings.inside:
        raise InputError(
            f"there is nothing to compare {split.set}/{split.split} with: no evaluation split is prepared below {data}; "
            "name some with against=[SET/SPLIT], or compare its own rows with inside=true"
        )
    return tables


def _judge(settings: DedupeSettings, split: ShardSet, tables: tuple[Table, ...], verdicts: Verdicts) -> None:
    from data_prep.overlaps.overlap import Overlap
    from data_prep.overlaps.sweep import sweep
    from data_prep.overlaps.verdicts import Look
    from data_prep.progress import bar

    near = settings.near and split.manifest.get("near") is not False
    look = Look(Overlap(tables, near), settings.policy, settings.inside)
    with bar(f"comparing {split.set}/{split.split}", len(split)) as progress:
        for looked in sweep(split, look, settings.workers):
            verdicts.note(looked)
            if looked.row % 64 == 0:
                progress.to(looked.row)


def _report(settings: DedupeSettings, split: ShardSet, verdicts: Verdicts, against: list[dict[str, Any]]) -> Any:
    goes = sum(verdicts.removed.values()) + verdicts.merged
    return {
        "set": split.set,
        "split": split.split,
        "policy": settings.policy,
        "samples": len(split),
        "stay": len(split) - goes,
        "removed": dict(sorted(verdicts.removed.items())),
        "merged": verdicts.merged,
        "found": dict(sorted(verdicts.found.items())),
        "against": [table["name"] for table in against],
        "examples": verdicts.examples(EXAMPLES),
    }


def _write(
    settings: DedupeSettings, split: ShardSet, verdicts: Verdicts, home: Path, against: list[dict[str, Any]]
) -> None:
    from data_prep.convert import only_one
    from data_prep.writing.rewrite import rewrite

    how = {"against": [table["name"] for table in against]}
    how |= {"inside": settings.inside, "policy": settings.policy, "near": settings.near}
    with only_one(home):
        if (home / "manifest.json").is_file():
            raise InputError(f"{home} was finished by another process meanwhile")
        rewrite(split, verdicts, home, against, how)


if __name__ == "__main__":
    sys.exit(run(__doc__, DedupeSettings, main, sys.argv[1:], STOPPED))
