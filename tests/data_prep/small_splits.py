"""Prepared splits of a few real pictures, written as the converters write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.pictures.media import PictureRules, store
from data_prep.writing.shard import ShardWriter, write_sealed
from vlm.data.canonical import FORMAT, Record, from_json
from vlm.data.shards import key_of

RULES = PictureRules("jpeg", 1536, 8, 20.0, True, 92, "4:2:0", 100_000_000)


@dataclass(frozen=True)
class Entry:
    """One sample to be: pictures as (bytes, name in the source), and the record's own fields."""

    pictures: Sequence[tuple[bytes, str]]
    fields: dict[str, Any] = field(default_factory=lambda: {"kind": "caption", "caption": "a boat"})


def photograph(seed: int, width: int = 200, height: int = 150) -> Image.Image:
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    target = BytesIO()
    picture.save(target, "JPEG", quality=quality)
    return target.getvalue()


def png(picture: Image.Image) -> bytes:
    target = BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


def split(home: Path, entries: Sequence[Entry], rules: PictureRules = RULES, **manifest: Any) -> Path:
    """<root>/<set>/<split>/ of the entries, with more fields of the manifest. Returns: home."""
    writer = ShardWriter(home, 40_000)
    media = 0
    for row, entry in enumerate(entries):
        pictures = [store(content, name, rules) for content, name in entry.pictures]
        media += len(pictures)
        writer.add(_record(home, row, entry, pictures), [picture.data for picture in pictures])
    written: dict[str, Any] = {
        "format": FORMAT, "converter": "tests", "set": home.parent.name, "split": home.name, "created": "today",
        "config_sha256": "0", "source": [], "license": {"counts": {"MIT": len(entries)}, "flags": {}},
        "kind": {entries[0].fields["kind"]: len(entries)},
    }  # fmt: skip
    written["counts"] = {
        "rows_in": len(entries), "rows_split": 0, "rows_merged": 0, "samples_out": len(entries), "media_out": media,
        "skipped": {}, "repaired": {}, "budget": {},
    }  # fmt: skip
    written["expected"] = {"rows_in": None, "difference": None}
    written |= {"index": writer.finish(), "shards": writer.shards, "several_captions": False}
    written["bytes"] = {
        "total": sum(shard["bytes"] for shard in writer.shards),
        "json": writer.json_bytes,
        "media": writer.media_bytes,
    }
    writer.close(keep=False)
    write_sealed(home / "manifest.json", json.dumps({**written, **manifest}).encode())
    return home


def _record(home: Path, row: int, entry: Entry, pictures: Sequence[Any]) -> Record:
    set, key = home.parent.name, key_of(home.parent.name, row)
    media = [
        {
            "type": "image", "member": f"{i:02d}.{p.member}" if len(pictures) > 1 else p.member, "w": p.width,
            "h": p.height, "bytes": len(p.data), "sha256": p.sha256, "phash": p.phash, "orig": name,
        }
        for i, (p, (_, name)) in enumerate(zip(pictures, entry.pictures, strict=True))
    ]  # fmt: skip
    content = {
        "v": 1, "key": key, "set": set, "split": home.name, "src": {"file": "a.tsv", "row": row, "id": str(row)},
        "license": "MIT", "media": media, **entry.fields,
    }  # fmt: skip
    return from_json(json.dumps(content).encode())
