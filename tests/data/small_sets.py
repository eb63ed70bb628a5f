"""Prepared sets of a few bytes a row, written as the converters write them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from data_prep.writing.shard import ShardWriter, write_sealed
from vlm.data.canonical import FORMAT, Record, from_json
from vlm.data.shards import key_of


def small_set(
    root: Path, name: str, split: str, rows: int, shard_bytes: int = 20_000, named: str | None = None
) -> Path:
    """<root>/<name>/<split>/ with `rows` captions "row 0", "row 1", ... and a medium each. named: in the manifest."""
    named = named or name
    home = root / name / split
    writer = ShardWriter(home, shard_bytes)
    for row in range(rows):
        writer.add(small_record(named, split, row), [b"picture %d" % row])
    manifest = {"format": FORMAT, "set": named, "split": split, "index": writer.finish(), "shards": writer.shards}
    manifest |= {"counts": {"samples_out": rows}, "license": {"counts": {"MIT": rows}}}
    write_sealed(home / "manifest.json", json.dumps(manifest).encode())
    return home


def small_record(name: str, split: str, row: int) -> Record:
    data = b"picture %d" % row
    medium = {"type": "image", "member": "png", "w": 3, "h": 2, "bytes": len(data), "phash": "0" * 16, "orig": "a.png"}
    content = {
        "v": 1,
        "kind": "caption",
        "key": key_of(name, row),
        "set": name,
        "split": split,
        "src": {"file": "a.tsv", "row": row, "id": str(row)},
        "license": "MIT",
        "media": [{**medium, "sha256": hashlib.sha256(data).hexdigest()}],
        "caption": f"row {row}",
    }
    return from_json(json.dumps(content).encode())
