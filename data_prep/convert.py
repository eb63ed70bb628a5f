"""One set from its published files to prepared splits, or the finding that it is prepared already."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from data_prep.budget import OverBudget
from data_prep.earlier import COMMAND, already_prepared, identity_of
from data_prep.inputs import check_origin, gather, numbered
from data_prep.overlaps import overlap
from data_prep.progress import bar
from data_prep.rows import Converter, SourceFile
from data_prep.settings import PrepareSettings
from data_prep.trial import trial
from data_prep.work import Outcome, Work
from data_prep.workers import deaf, outcomes
from data_prep.writing.assembly import Assembly
from data_prep.writing.parts import PartLog, of_part
from vlm.contracts.errors import InputError, RunError
from vlm.data.licences import refuse_source

log = logging.getLogger(__name__)


def prepare(settings: PrepareSettings, converter: Converter, words: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Prepares every split of a source below `<out>/<set>/`, or finds them prepared; with `part`, one share of the rows.

    words: of the command line, for the manifest. Returns: the manifests (of a dry run, and of a part: its counts).
    Raises: InputError if the input, a budget or an earlier output refuses it; RunError if the disk does.
    """
    source, start = settings.source, time.perf_counter()
    root = Path(settings.out) / source.name
    refuse_source(source.name, settings.licenses_read, settings.licence_policy)
    with disk_faults_told(source.name, root):
        check_origin(settings)
        if settings.dry_run:
            work = Work(source, overlap.Overlap((), near=False), settings.tokenizer, settings.licence_policy)
            return [trial(settings, converter, gather(settings), work)]
        tables = overlap.gather(settings.against, Path(settings.paths.data), source.name)
        identity = identity_of(settings, overlap.describe(tables), words)
        work = Work(source, overlap.Overlap(tables, source.near), settings.tokenizer, settings.licence_policy)
        place = root / settings.part_name if settings.part else root
        with only_one(place):
            if finished := already_prepared(root, settings, identity, [*COMMAND, *words]):
                log.info("%s is already prepared in %s", source.name, root)
                return finished
            inputs = gather(settings)
            workers = len(os.sched_getaffinity(0)) if settings.workers is None else settings.workers
            total = None if settings.limit else source.rows or converter.total(inputs)
            rows = numbered(settings, converter, inputs)
            with bar(f"preparing {source.name}", total) as progress:
                if settings.part is not None:
                    with PartLog(root, settings, identity) as part:
                        return [part.write(outcomes(of_part(rows, part), work, workers), inputs.files, progress.to)]
                assembly = Assembly(source, root, identity)
                rest = (entry for entry in rows if entry[0] >= assembly.next)
                manifests = assemble(assembly, outcomes(rest, work, workers), inputs.files, progress.to)
    log.info("prepared %s in %.1f s", source.name, time.perf_counter() - start)
    return manifests


def assemble(
    assembly: Assembly, found: Iterable[Outcome], files: list[SourceFile], progress: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Every outcome into its split. On an error or a stop what was saved stays, and goes on with the next call.

    files: what has been read so far; it grows meanwhile. Returns: the manifests.
    """
    if assembly.next:
        log.info("%s: going on behind row %s", assembly.source.name, f"{assembly.next - 1:,}")
    try:
        for number, outcome in found:
            assembly.take(number, outcome, files)
            if number % 64 == 0:
                progress(number)
        manifests = assembly.finish(files)
    except OverBudget as error:
        with deaf():
            try:
                assembly.refuse()
            finally:
                assembly.interrupt()
        raise OverBudget(f"{error}\nEvery skipped row with its reason: {assembly.refused}") from error
    except BaseException:
        with deaf():
            assembly.interrupt()
        raise
    for manifest in manifests:
        log.info(summary(manifest))
    return manifests


@contextmanager
def disk_faults_told(name: str, root: Path) -> Iterator[None]:
    """Raises: RunError for an error of the disk, with what to do."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{error.strerror or error}: {error.filename or root}; {name} is not finished, other sets are untouched. "
            "See to space and permissions there, or name another place with out=DIR, and run it again: it goes on "
            "from its last complete state"
        ) from error


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Holds a folder for this process. Raises: InputError if another one is preparing the set there."""
    root.mkdir(parents=True, exist_ok=True)
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(folder)
        raise InputError(f"{root} is being prepared by another process; wait for it, or name out=DIR") from error
    try:
        yield
    finally:
        os.close(folder)
        with suppress(OSError):  # whatever lies there stays
            root.rmdir()


def summary(manifest: dict[str, Any]) -> str:
    """One line on a finished split, for people."""
    counts, expected = manifest["counts"], manifest["expected"]
    parts = [
        f"{counts['samples_out']:,} samples of {counts['rows_in']:,} rows, {manifest['bytes']['total'] / 1e6:.1f} MB"
    ]
    if expected["difference"]:
        parts.append(f"{expected['difference']:+,} rows against the {expected['rows_in']:,} that were expected")
    if counts["skipped"]:
        parts.append("skipped " + ", ".join(f"{reason} {count:,}" for reason, count in counts["skipped"].items()))
    if counts["repaired"]:
        parts.append("mended " + ", ".join(f"{name} {count:,}" for name, count in counts["repaired"].items()))
    if not manifest["evaluation"]:
        against = ", ".join(table["name"] for table in manifest["overlap"]["against"])
        parts.append(
            f"compared with the pictures of {against or 'no evaluation set (none is prepared, or against=[])'}"
        )
    flags = f" ({', '.join(manifest['license']['flags'])})" if manifest["license"]["flags"] else ""
    parts.append("licence " + " AND ".join(manifest["license"]["counts"]) + flags)
    return f"{manifest['set']}/{manifest['split']}: " + "; ".join(parts)
