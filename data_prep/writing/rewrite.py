"""A prepared split without some of its rows, as a prepared split of its own."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.overlaps.verdicts import Verdicts
from data_prep.rows import Skip
from data_prep.work import Kept, Same
from data_prep.writing.manifest import complete, content
from data_prep.writing.shard import ShardWriter
from data_prep.writing.tally import Tally
from vlm.contracts.errors import InputError
from vlm.data.canonical import Origin, Record
from vlm.data.shards import ShardSet, key_of

NOT_COUNTED = Same(None, "", "", None)
BEFORE = ("dup", "token_hist", "image_hist", "pair_hist")  # of a manifest: what only the source's rows could tell


def rewrite(split: ShardSet, verdicts: Verdicts, home: Path, against: list[dict[str, Any]], how: dict[str, Any]) -> Any:
    """Writes what stays into `home`, with new keys in the old order; the manifest comes last.

    against: evaluation sets compared with, for the manifest.   how: further settings, for the manifest.
    Returns: the manifest. Raises: InputError if nothing would be left.
    """
    removed = sum(verdicts.removed.values()) + verdicts.merged
    if removed == len(split):
        raise InputError(f"{split.directory} would have no rows left: {dict(verdicts.removed)}; nothing was written")
    writer = ShardWriter(home, max(shard["bytes"] for shard in split.manifest["shards"]))
    try:
        for skip in _skips_before(split):
            writer.skip(skip)
        tally = _copy(split, verdicts, writer)
        manifest = _manifest(split, verdicts, writer, tally, against, how)
        writer.close(keep=False)
        return complete(home, manifest)
    except BaseException:
        writer.close(keep=False)
        writer.abandon()
        raise


def _copy(split: ShardSet, verdicts: Verdicts, writer: ShardWriter) -> Tally:
    tally, gone = Tally(), verdicts.gone()
    next_gone = next(gone, None)
    index = np.load(split.directory / "index.npy", mmap_mode="r")
    for row in range(len(split)):
        record, payloads = split.read(row)
        if next_gone is not None and next_gone[0] == row:
            _, reason, detail = next_gone
            if reason:
                writer.skip(Skip(split.split, record.src, reason, detail))
            next_gone = next(gone, None)
            continue
        record = replace(_with_captions(record, verdicts, row), key=key_of(split.set, writer.samples))
        writer.add(record, payloads, int(index[row]["tokens"]))
        sources = tuple(("", "") for _ in record.media)
        tally.keep(Kept(record, tuple(payloads), sources, 0, (), _lengths(record), NOT_COUNTED))
    return tally


def _with_captions(record: Record, verdicts: Verdicts, row: int) -> Record:
    further = verdicts.further_captions(row) if record.caption is not None else []
    if not further:
        return record
    meta = record.meta or {}
    return replace(record, meta={**meta, "alt_captions": [*meta.get("alt_captions", []), *further]})


def _lengths(record: Record) -> tuple[int, int, int]:
    """Bytes of the questions, of the answer, and of the rejected answer."""
    turns = [*(record.messages or ()), *(record.chosen or ())]
    answered = sum(len(turn.text.encode()) for turn in turns if turn.role == "assistant") + len(
        (record.caption or "").encode()
    )
    asked = sum(len(turn.text.encode()) for turn in turns if turn.role != "assistant")
    return asked, answered, sum(len(turn.text.encode()) for turn in record.rejected or ())


def _skips_before(split: ShardSet) -> Iterator[Skip]:
    path = split.directory / "skipped.jsonl"
    if path.is_file():
        with path.open("rb") as stream:
            for line in map(json.loads, stream):
                origin = Origin(line["file"], line["row"], line["id"])
                yield Skip(split.split, origin, line["reason"], line["detail"], line.get("rows", 1))


def _manifest(
    split: ShardSet, verdicts: Verdicts, writer: ShardWriter, tally: Tally, against: list[dict[str, Any]], how: Any
) -> dict[str, Any]:
    old = split.manifest
    written = content(writer, tally, {})
    for unknown in ("mode", "format"):  # of the source's pictures
        del written["image_hist"][unknown]
    licenses = tally.sorted("licenses")
    causes = {flag: [name for name in names if name in licenses] for flag, names in old["license"]["flags"].items()}
    skipped = dict(old["counts"]["skipped"])
    for reason, rows in verdicts.removed.items():
        skipped[reason] = skipped.get(reason, 0) + rows
    overlap = old.get("overlap", {"against": [], "removed": {}})
    found = {**overlap["removed"]}
    for name, rows in verdicts.found.items():
        found[name] = found.get(name, 0) + rows
    options = json.dumps([split.manifest_sha256, against, how], sort_keys=True)
    origin = (split.directory / "manifest.json").stat().st_size
    return {
        **{name: value for name, value in old.items() if name not in BEFORE},
        "config_sha256": hashlib.sha256(options.encode()).hexdigest(),
        "command": f"python -m data_prep.dedupe dir={split.set}/{split.split} "
        + " ".join(f"{name}={json.dumps(value)}" for name, value in how.items()),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": [
            {
                "file": f"{split.set}/{split.split}/manifest.json",
                "bytes": origin,
                "sha256": split.manifest_sha256,
                "package": "",
            }
        ],
        "license": {
            **old["license"],
            "counts": licenses,
            "flags": {flag: names for flag, names in causes.items() if names},
        },
        "counts": {
            **old["counts"],
            "rows_merged": old["counts"]["rows_merged"] + verdicts.merged,
            "samples_out": writer.samples,
            "media_out": tally.media,
            "skipped": dict(sorted(skipped.items())),
        },
        **written,
        "overlap": {"against": [*overlap["against"], *against], "removed": dict(sorted(found.items()))},
        "deduped": how,
    }
