"""What a prepared directory says about itself."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.budget import Budget
from data_prep.rows import SourceFile
from data_prep.settings import SourceSettings
from data_prep.writing.card import card
from data_prep.writing.shard import ShardWriter, write_sealed
from data_prep.writing.tally import Tally
from vlm.contracts.errors import RunError
from vlm.data.canonical import FORMAT, grouped, to_json
from vlm.data.pictures import open_picture
from vlm.data.shards import ShardSet, manifest_sha256

CONVERTER_VERSION = 2  # raised when the same input would give other bytes
CHECKED = 32  # samples whose pixels and text are recorded for a comparison after copying


@dataclass(frozen=True)
class Identity:
    """What decides about the output beside the input. command: that gives it, without from, out, part and workers.

    overlap: the evaluation sets compared with.   tokenizer: {name, sha256} of what counted the tokens, or {}.
    first_rows: whether only the first rows are taken, for a try.
    """

    config_sha256: str
    command: str
    overlap: list[dict[str, Any]]
    tokenizer: dict[str, str]
    first_rows: bool

    @property
    def unfinished(self) -> str:
        """Equal for two starts of which the second may go on from the first."""
        return hashlib.sha256(json.dumps([self.config_sha256, self.overlap], sort_keys=True).encode()).hexdigest()


def write_manifest(
    writer: ShardWriter,
    tally: Tally,
    budget: Budget,
    source: SourceSettings,
    split: str,
    inputs: Sequence[SourceFile],
    identity: Identity,
    whole: dict[str, Any],
) -> dict[str, Any]:
    """Completes the split: index, then card.md, then manifest.json last. whole: what is known of the whole
    set, `splits` and `commonest_texts`."""
    expected = source.expected[split]
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "converter": source.reader["_target_"],
        "converter_version": CONVERTER_VERSION,
        "config_sha256": identity.config_sha256,
        "command": identity.command,
        "set": source.name,
        "split": split,
        "splits": whole["splits"],
        "evaluation": split in source.evaluation,
        "near": source.near,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": [asdict(file) for file in inputs],
        "license": {
            "counts": tally.sorted("licenses"),
            "flags": _flags(source, tally),
            "texts": {name: _text_of(name) for name in tally.sorted("licenses")},
        },
        "counts": {
            "rows_in": tally.rows_in,
            "rows_split": tally.cut,
            "rows_merged": tally.merged,
            "samples_out": writer.samples,
            "media_out": tally.media,
            "skipped": tally.sorted("skipped"),
            "repaired": tally.sorted("repaired"),
            "budget": budget.used(),
        },
        "expected": {
            "rows_in": expected,
            "difference": None if expected is None or identity.first_rows else tally.rows_in - expected,
            "source_rows": source.rows,
        },
        **content(writer, tally, identity.tokenizer),
        "dup": {
            "image": tally.image_twins,
            "text": tally.text_twins,
            "both": tally.both_twins,
            "contradictions": tally.contradictions,
            "removed": tally.of["skipped"]["dup_exact"],
            "commonest_texts": whole["commonest_texts"],
        },
        "overlap": {"against": identity.overlap, "removed": tally.sorted("overlap")},
    }
    return complete(writer.directory, manifest)


def content(writer: ShardWriter, tally: Tally, tokenizer: dict[str, str]) -> dict[str, Any]:
    """What was written, completes the index. tokenizer: {name, sha256} of what counted the lengths, or {}."""
    clips = {name: tally.sorted(f"clip_{name}") for name in ("seconds", "frames", "rate")}
    return {
        "kind": tally.sorted("kinds"),
        "index": writer.finish(),
        "shards": writer.shards,
        "skipped": writer.skipped,
        "bytes": {
            "total": sum(shard["bytes"] for shard in writer.shards),
            "json": writer.json_bytes,
            "media": writer.media_bytes,
        },
        "several_captions": tally.several_captions,
        "declared_faults": tally.sorted("declared_faults"),
        "image_hist": {name: tally.sorted(name) for name in ("longer_side", "aspect", "mode", "format")},
        **({"clip_hist": clips} if any(clips.values()) else {}),
        "token_hist": {
            "unit": "tokens" if tokenizer else "bytes of UTF-8",
            "tokenizer": tokenizer or None,
            "prompt": tally.lengths("asked"),
            "answer": tally.lengths("answered"),
        },
        "pair_hist": tally.differences(),
        "turn_hist": tally.by_number("turns"),
        "media_hist": tally.by_number("media_of_sample"),
    }


def complete(directory: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Reads samples back, then writes card.md and, last, manifest.json. Returns: the manifest as it stands there.

    Raises: RunError if rows are not accounted for.
    """
    counts = manifest["counts"]
    left = counts["rows_in"] + counts["rows_split"]
    right = counts["samples_out"] + sum(counts["skipped"].values()) + counts["rows_merged"]
    if left != right:
        raise RunError(f"{directory}: {left} rows in, but {right} accounted for; no manifest is written")
    manifest = {name: value for name, value in manifest.items() if name != "sha256"}
    manifest["sample_check"] = sample_check(directory, manifest)
    manifest["sha256"] = manifest_sha256(manifest)
    write_sealed(directory / "card.md", card(manifest).encode())
    write_sealed(directory / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    return manifest


def sample_check(directory: Path, manifest: dict[str, Any]) -> dict[str, dict[str, str]]:
    """key -> sha256 of the decoded pixels and of the JSON, for 32 samples spread over the split."""
    shards = ShardSet(directory, manifest)
    rows = sorted({len(shards) * number // CHECKED for number in range(CHECKED)})
    checks = {}
    for row in rows:
        record, payloads = shards.read(row)
        pixels = hashlib.sha256()
        for medium, files in grouped(record, payloads):
            for data in files if medium.type != "video" else ():  # decoders of other versions may give other pixels
                pixels.update(open_picture(data, medium.orig, min_side=1).tobytes())
        checks[record.key] = {"pixels": pixels.hexdigest(), "json": hashlib.sha256(to_json(record)).hexdigest()}
    shards.close()
    return checks


def _flags(source: SourceSettings, tally: Tally) -> dict[str, list[str]]:
    """flag -> the licences in the split that cause it."""
    flags: dict[str, list[str]] = {}
    for license in tally.sorted("licenses"):
        for flag in source.licenses[license]:
            flags.setdefault(flag, []).append(license)
    return dict(sorted(flags.items()))


def _text_of(license: str) -> str | None:
    """Address of a licence's text; house terms have none that is known here."""
    return None if license.startswith("LicenseRef-") else f"https://spdx.org/licenses/{license}.html"
