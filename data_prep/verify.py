"""Check prepared sets again: every byte, record, picture and count; faults go to standard error.

python -m data_prep.verify dir=DIR [workers=N]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from data_prep.command import run
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import NonNegativeInt

if TYPE_CHECKING:
    from data_prep.checking.inspection import Faults, Found, ShardJob

TRACES = ("manifest.json", "shard-*.tar*", "index.npy*", "skipped.jsonl*")  # any of them makes a folder a split
JOURNAL = "journal.sqlite"  # in the set's folder while the set is prepared
UNFINISHED = ("*.part", "*.whole")
OWN = ("manifest.json", "card.md", "index.npy", "skipped.jsonl")


@dataclass(frozen=True)
class VerifySettings:
    """The keys of the command."""

    dir: Annotated[Path, "a split (<set>/<split>), a set, or a folder of sets"]
    workers: Annotated[NonNegativeInt | None, "processes that read and decode; null = one a CPU core, 0 = this one"] = (
        None
    )


def main(settings: VerifySettings) -> int:
    """Prints one JSON line a split. Returns: 1 if anything is wrong."""
    is_sound = True
    for directory in splits(settings.dir):
        start = time.perf_counter()
        found = verify_split(directory, settings.workers)
        for line in found.faults.lines():
            print(line, file=sys.stderr)
        told = {"dir": str(directory), "samples": found.samples, "media": found.media, "faults": found.faults.counts}
        print(json.dumps({**told, "seconds": round(time.perf_counter() - start, 1)}), flush=True)
        is_sound = is_sound and not found.faults.counts
    return 0 if is_sound else 1


def splits(place: Path) -> list[Path]:
    """Every folder at or below `place` that holds a prepared split or a part of one, two levels deep.

    Raises: InputError if there is none.
    """
    folders = [place, *sorted(place.glob("*/")), *sorted(place.glob("*/*/"))]
    found = [
        folder
        for folder in folders
        if not any(part.startswith(".") for part in folder.relative_to(place).parts)
        and any(next(folder.glob(pattern), None) for pattern in TRACES)
    ]
    if not found:
        what = "holds no prepared set" if place.is_dir() else "is not a folder"
        raise InputError(f"dir: {place} {what}; give a split (<set>/<split>), a set, or the folder of all sets")
    return found


def verify_split(directory: Path, workers: int | None = None) -> Found:
    """Every check of one split. workers: as in `VerifySettings`.

    Returns: what was found in its shards, with all faults. Raises: RunError if a worker is killed.
    """
    from data_prep.checking.inspection import Found
    from vlm.data.manifest import read_manifest

    found = Found()
    _check_unfinished(directory, found.faults)
    if not (directory / "manifest.json").is_file():
        if not found.faults.counts:
            found.faults.add("unfinished", directory, "has no manifest.json; prepare it again with the same command")
        return found
    try:
        manifest = read_manifest(directory)
    except InputError as error:
        found.faults.add("manifest_malformed", directory, str(error))
        return found
    _check_counts(directory, manifest, found.faults)
    _check_names(directory, manifest, found.faults)
    _check_card(directory, manifest, found.faults)
    index = _check_index_file(directory, manifest, found.faults)
    _check_skips(directory, manifest, found.faults)
    for one in _inspected(list(_jobs(directory, manifest, index, found.faults)), workers):
        found.merge(one)
    _check_totals(directory, manifest, found)
    return found


def _check_unfinished(directory: Path, faults: Faults) -> None:
    left = [path for pattern in UNFINISHED for path in directory.glob(pattern)]
    for path in sorted([*left, *directory.resolve().parent.glob(JOURNAL)]):
        faults.add("unfinished", path, "a preparation did not come to its end; run the same command again")


def _check_counts(directory: Path, manifest: dict[str, Any], faults: Faults) -> None:
    """What the manifest says against itself."""
    from vlm.data.shards import manifest_sha256

    where, counts = directory / "manifest.json", manifest["counts"]
    if manifest_sha256({name: value for name, value in manifest.items() if name != "sha256"}) != manifest.get("sha256"):
        faults.add("manifest_changed", where, "it is not as it was written (sha256), or by an earlier version")
    needed = {"rows_in": int, "rows_split": int, "rows_merged": int, "media_out": int, "skipped": dict}
    if missing := [name for name, kind in needed.items() if not isinstance(counts.get(name), kind)]:
        faults.add("manifest_malformed", where, f"counts lack {', '.join(missing)}")
    else:
        left = counts["rows_in"] + counts["rows_split"]
        right = counts["samples_out"] + sum(counts["skipped"].values()) + counts["rows_merged"]
        if left != right:
            sum_of = "samples, skipped and merged rows"
            faults.add("counts_wrong", where, f"{left} rows went in, but {sum_of} are {right}")
    held = sum(shard.get("samples", 0) for shard in manifest["shards"])
    if held != counts["samples_out"]:
        faults.add("counts_wrong", where, f"the shards hold {held} samples, counts say {counts['samples_out']}")
    for flag, causes in (manifest["license"].get("flags") or {}).items():
        if strange := sorted(set(causes) - set(manifest["license"]["counts"])):
            faults.add("license_wrong", where, f"{flag} is said to come from {', '.join(strange)}, of which are none")


def _check_names(directory: Path, manifest: dict[str, Any], faults: Faults) -> None:
    """The files that the manifest lists, and no other shard."""
    names = [shard["name"] for shard in manifest["shards"]]
    if names != [f"shard-{number:06d}.tar" for number in range(len(names))]:
        faults.add("manifest_malformed", directory / "manifest.json", "its shards are not numbered one by one")
    for shard in manifest["shards"]:
        path = directory / shard["name"]
        if path.is_file() and path.stat().st_size != shard["bytes"]:
            faults.add("shard_changed", path, f"has {path.stat().st_size} bytes, the manifest says {shard['bytes']}")
    for path in sorted(directory.iterdir()):
        if path.name not in (*names, *OWN) and not any(path.match(pattern) for pattern in UNFINISHED):
            faults.add("file_foreign", path, "does not belong to the split; move it away")


def _check_card(directory: Path, manifest: dict[str, Any], faults: Faults) -> None:
    """The card says what the manifest says."""
    from data_prep.writing.card import card

    path = directory / "card.md"
    if not path.is_file():
        faults.add("card_wrong", path, "is missing")
    elif path.read_bytes() != card({name: value for name, value in manifest.items() if name != "sha256"}).encode():
        faults.add("card_wrong", path, "does not say what the manifest says")


def _check_index_file(directory: Path, manifest: dict[str, Any], faults: Faults) -> bool:
    """Whether index.npy has a row for each sample, so that its rows can be compared."""
    import hashlib
    from tokenize import TokenError

    import numpy as np

    from vlm.data.canonical import INDEX_DTYPE

    path = directory / "index.npy"
    try:
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != manifest["index"].get("sha256"):
                faults.add("index_changed", path, "its bytes are not those that were written (sha256)")
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:  # by NumPy's reader of headers
        faults.add("index_unreadable", path, str(error))
        return False
    if rows.dtype != INDEX_DTYPE or rows.shape != (manifest["counts"]["samples_out"],):
        faults.add("index_wrong", path, f"lists {rows.shape} rows of {rows.dtype.itemsize} bytes")
        return False
    return True


def _check_skips(directory: Path, manifest: dict[str, Any], faults: Faults) -> None:
    """The lines of skipped.jsonl, summed by reason, against the manifest."""
    import hashlib
    from collections import Counter

    path, rows = directory / "skipped.jsonl", Counter[str]()
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream):
                try:
                    skip = json.loads(line)
                    rows[skip["reason"]] += skip.get("rows", 1)
                except (ValueError, KeyError, TypeError) as error:
                    faults.add("skips_wrong", path, f"line {number} cannot be read: {error!r}")
    except OSError as error:
        faults.add("skips_wrong", path, f"cannot be read: {error.strerror}")
        return
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != (manifest.get("skipped") or {}).get("sha256"):
            faults.add("skips_wrong", path, "its bytes are not those that were written (sha256)")
    told = manifest["counts"].get("skipped")
    if isinstance(told, dict) and dict(rows) != told:
        faults.add("skips_wrong", path, f"tells of {dict(sorted(rows.items()))}, the manifest of {told}")


def _jobs(directory: Path, manifest: dict[str, Any], index: bool, faults: Faults) -> Iterator[ShardJob]:
    from data_prep.checking.inspection import ShardJob

    first, checks = 0, manifest.get("sample_check") or {}
    for number, shard in enumerate(manifest["shards"]):
        name, rows = shard["name"], shard.get("samples", 0)
        last = f"{manifest['set']}-{first + rows:010d}"
        own = {key: entry for key, entry in checks.items() if f"{manifest['set']}-{first:010d}" <= key < last}
        if (directory / name).is_file():
            kind = (manifest["set"], manifest["split"])
            yield ShardJob(directory, name, number, first, rows, shard.get("sha256", ""), *kind, index, own)
        else:
            faults.add("shard_missing", directory / name, "is not there")
        first += rows


def _inspected(jobs: list[ShardJob], workers: int | None) -> Iterable[Found]:
    """The jobs in processes of their own, or here if one is enough."""
    import os

    from data_prep.checking.inspection import inspect_shard
    from data_prep.workers import outcomes

    count = min(len(jobs), len(os.sched_getaffinity(0)) if workers is None else workers)
    return (found for _, found in outcomes(enumerate(jobs), inspect_shard, count if count > 1 else 0, at_once=1))


def _check_totals(directory: Path, manifest: dict[str, Any], found: Found) -> None:
    """What the shards hold together against the manifest's sums; a record that cannot be read was told before."""
    faults, where = found.faults, directory / "manifest.json"
    if any(kind.startswith(("shard_", "record_")) for kind in faults.counts):
        return
    sizes = manifest.get("bytes") or {}
    pairs = [
        ("license_wrong", "licences", dict(found.licenses), manifest["license"]["counts"]),
        ("counts_wrong", "kinds", dict(found.kinds), manifest.get("kind")),
        ("counts_wrong", "media", found.media, manifest["counts"].get("media_out")),
        ("counts_wrong", "bytes of records", found.json_bytes, sizes.get("json")),
        ("counts_wrong", "bytes of media", found.media_bytes, sizes.get("media")),
    ]
    for kind, what, real, told in pairs:
        if real != told:
            faults.add(kind, where, f"{what}: the shards hold {real}, the manifest says {told}")
    if lost := sorted(set(manifest.get("sample_check") or ()) - found.checked):
        faults.add("sample_check", where, f"records checks of {', '.join(lost[:3])}, which are not there")


if __name__ == "__main__":
    sys.exit(run(__doc__, VerifySettings, main, sys.argv[1:]))
