"""What a prepared directory says about itself, and whether it still tells the truth."""

from __future__ import annotations

import datetime
import hashlib
import json
import tarfile
from bisect import bisect_left
from collections import Counter
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from data_prep.budget import Budget
from data_prep.media import Stored
from data_prep.rows import Row, SourceFile
from data_prep.settings import SourceSettings
from data_prep.writing.shard import ShardWriter, write_sealed
from vlm.contracts.errors import InputError
from vlm.data.canonical import FORMAT, Record, to_json
from vlm.data.pictures import open_picture
from vlm.data.shards import ShardSet

CONVERTER_VERSION = 1  # raised when the same input would give other bytes
SIDES = (64, 128, 224, 336, 448, 672, 1024, 1536)  # longer side, pixels, upper edges
ASPECTS = (1.1, 1.5, 2.0, 3.0, 5.0, 10.0)  # longer over shorter side, upper edges
CHECKED = 32  # samples whose pixels and text are recorded for a comparison after copying


class Tally:
    """Counts of one split while it is written."""

    def __init__(self) -> None:
        self.rows_in = self.merged = self.media = 0
        self.skipped: Counter[str] = Counter()
        self.repaired: Counter[str] = Counter()
        self.licenses: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.turns: Counter[int] = Counter()
        self.media_of_sample: Counter[int] = Counter()
        self.texts: Counter[str] = Counter()
        self.several_captions = False
        self._hist: dict[str, Counter[str]] = {name: Counter() for name in ("longer_side", "aspect", "mode", "format")}

    def keep(self, row: Row, record: Record, pictures: list[Stored]) -> None:
        self.rows_in += 1 + row.merged
        self.merged += row.merged
        self.media += len(pictures)
        self.repaired.update(row.repaired)
        self.licenses[record.license] += 1
        self.kinds[record.kind] += 1
        self.turns[2 if record.messages is None else len(record.messages) + len(record.chosen or ())] += 1
        self.media_of_sample[len(pictures)] += 1
        self.texts[record.caption or ""] += 1
        self.several_captions |= bool((record.meta or {}).get("captions"))
        for picture in pictures:
            short, long = sorted((picture.width, picture.height))
            self._hist["longer_side"][_bin(long, SIDES)] += 1
            self._hist["aspect"][_bin(long / short, ASPECTS)] += 1
            self._hist["mode"][picture.source_mode] += 1
            self._hist["format"][picture.source_format] += 1

    def skip(self, reason: str, rows: int) -> None:
        self.rows_in += rows
        self.skipped[reason] += rows

    def image_hist(self) -> dict[str, dict[str, int]]:
        return {name: dict(sorted(counts.items())) for name, counts in self._hist.items()}


def write_manifest(
    writer: ShardWriter,
    tally: Tally,
    budget: Budget,
    source: SourceSettings,
    split: str,
    inputs: list[SourceFile],
    config_sha256: str,
) -> dict[str, Any]:
    """Completes the split: index, then manifest.json last. Raises: InputError if the split would be empty."""
    if not writer.samples:
        raise InputError(
            f"{source.name}/{split} would hold no samples: {dict(tally.skipped) or 'the source has no rows for it'}; "
            f"give more rows{f', or lower source.holdout.every={source.holdout.every}' if source.holdout else ''}"
        )
    left, right = tally.rows_in, writer.samples + sum(tally.skipped.values()) + tally.merged
    assert left == right, f"{source.name}/{split}: {left} rows in, but {right} accounted for"
    index = writer.finish()
    expected = source.expected[split]
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "converter": source.reader["_target_"],
        "converter_version": CONVERTER_VERSION,
        "config_sha256": config_sha256,
        "set": source.name,
        "split": split,
        "kind": dict(sorted(tally.kinds.items())),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": [asdict(file) for file in inputs],
        "license": {"counts": dict(sorted(tally.licenses.items())), "flags": _flags(source, tally)},
        "counts": {
            "rows_in": tally.rows_in,
            "rows_split": 0,
            "rows_merged": tally.merged,
            "samples_out": writer.samples,
            "media_out": tally.media,
            "skipped": dict(sorted(tally.skipped.items())),
            "repaired": dict(sorted(tally.repaired.items())),
            "budget": budget.used(),
        },
        "expected": {"rows_in": expected, "difference": None if expected is None else tally.rows_in - expected},
        "shards": writer.shards,
        "index": index,
        "bytes": {
            "total": sum(shard["bytes"] for shard in writer.shards),
            "json": writer.json_bytes,
            "media": writer.media_bytes,
        },
        "several_captions": tally.several_captions,
        "image_hist": tally.image_hist(),
        "turn_hist": _by_number(tally.turns),
        "media_hist": _by_number(tally.media_of_sample),
        "dup": {
            "image_removed": tally.skipped["dup_exact"],
            "text": sum(count - 1 for text, count in tally.texts.items() if text),
        },
    }
    manifest["sample_check"] = sample_check(writer.directory, manifest)
    write_sealed(writer.directory / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    return manifest


def sample_check(directory: Path, manifest: dict[str, Any]) -> dict[str, dict[str, str]]:
    """key -> sha256 of the decoded pixels and of the JSON, for 32 samples spread over the split."""
    shards = ShardSet(directory, manifest)
    rows = sorted({len(shards) * number // CHECKED for number in range(CHECKED)})
    checks = {}
    for row in rows:
        record, payloads = shards.read(row)
        pixels = hashlib.sha256()
        for medium, data in zip(record.media, payloads, strict=True):
            pixels.update(open_picture(data, medium.orig, min_side=1).tobytes())
        checks[record.key] = {"pixels": pixels.hexdigest(), "json": hashlib.sha256(to_json(record)).hexdigest()}
    shards.close()
    return checks


def verify_shards(directory: Path) -> list[str]:
    """Everything in a prepared split that is not as its manifest says; empty if all is well.

    Reads every byte once, so one flipped bit is found. Raises: InputError if the directory has no readable manifest.
    """
    shards = ShardSet(directory)
    faults = []
    for name, digest in [
        ("index.npy", shards.manifest["index"]["sha256"]),
        *((shard["name"], shard["sha256"]) for shard in shards.manifest["shards"]),
    ]:
        with (directory / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                faults.append(f"{directory / name}: its bytes are not those that were written")
    keys = [key for shard in shards.manifest["shards"] for key in _keys(directory / shard["name"], faults)]
    faults += [f"{directory}: key {one} stands before {two}" for one, two in pairwise(keys) if one >= two]
    if len(keys) != len(shards):
        faults.append(f"{directory}: {len(keys)} samples in the shards, {len(shards)} in the manifest")
    for row in range(len(shards)):
        try:
            record, _ = shards.read(row)
        except InputError as error:
            faults.append(str(error))
        else:
            if row < len(keys) and record.key != keys[row]:
                faults.append(f"{directory}: row {row} of the index is {record.key}, in order it is {keys[row]}")
    if not faults and sample_check(directory, shards.manifest) != shards.manifest["sample_check"]:
        faults.append(f"{directory}: pictures decode to other pixels than where they were written")
    shards.close()
    return faults


def _keys(path: Path, faults: list[str]) -> list[str]:
    """Keys in the order of the archive, read by its headers alone."""
    try:
        with tarfile.open(path, "r:") as archive:
            return [name.removesuffix(".json") for name in archive.getnames() if name.endswith(".json")]
    except tarfile.TarError as error:
        faults.append(f"{path}: {error}")
        return []


def _flags(source: SourceSettings, tally: Tally) -> dict[str, list[str]]:
    """flag -> the licences in the split that cause it."""
    flags: dict[str, list[str]] = {}
    for license in sorted(tally.licenses):
        for flag in source.licenses[license]:
            flags.setdefault(flag, []).append(license)
    return dict(sorted(flags.items()))


def _bin(value: float, edges: tuple[float, ...]) -> str:
    place = bisect_left(edges, value)
    return "more" if place == len(edges) else f"<={edges[place]:g}"


def _by_number(counts: Counter[int]) -> dict[str, int]:
    return {str(number): counts[number] for number in sorted(counts)}
