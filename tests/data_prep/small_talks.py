"""A prepared set of every kind of sample, with texts that would break a careless page."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from data_prep.writing.shard import ShardWriter, write_sealed
from tests.data_prep.conftest import encoded, picture
from vlm.data.canonical import FORMAT, from_json
from vlm.data.shards import key_of

HOSTILE = '</style><script>alert("x")</script><img src=x onerror=alert(1)> & "quoted" <image> <eos>'


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def turn(role: str, *parts: str | int) -> dict[str, Any]:
    shown = [{"type": "image", "i": part} if isinstance(part, int) else text(part) for part in parts]
    return {"role": role, "content": shown}


SAMPLES: list[dict[str, Any]] = [
    {"kind": "caption", "caption": "a red kite over the sea", "pictures": 1,
     "meta": {"captions": ["a red kite over the sea", "one kite is up", "wind and a kite"]}},
    {"kind": "chat", "pictures": 2, "messages": [
        turn("system", "You look closely."), turn("user", 0, "and", 1, "Which is larger?"), turn("assistant", "The first."),
        turn("user", "Why?"), turn("assistant", "It fills the picture.")]},
    {"kind": "chat", "pictures": 1, "meta": {"independent": True, "types": ["colour", "count"]}, "messages": [
        turn("user", 0, "What colour is the roof?"), turn("assistant", "Brown."),
        turn("user", "How many doors are there?"), turn("assistant", "Two.")]},
    {"kind": "preference", "pictures": 1, "messages": [turn("user", 0, "What is on the shelf?")],
     "chosen": [turn("assistant", "A clock and two books stand there.")],
     "rejected": [turn("assistant", "A clock and a cat stand there, asleep.")]},
    {"kind": "chat", "pictures": 1, "answer": {"type": "choice", "values": ["B"], "choices": ["kite", "boat"], "index": 1},
     "messages": [turn("user", 0, HOSTILE), turn("assistant", f"{HOSTILE} ünïcödé \u202ereversed\u202c 漢字 🙂\u0000")]},
    {"kind": "chat", "pictures": 0, "messages": [turn("user", "Say it long."), turn("assistant", "word " * 2000)]},
]  # fmt: skip


def talks(root: Path, samples: list[dict[str, Any]] | None = None) -> Path:
    """<root>/talks/train/ with one sample of each entry."""
    home, samples = root / "talks" / "train", SAMPLES if samples is None else samples
    writer = ShardWriter(home, 1_000_000)
    for row, sample in enumerate(samples):
        count = sample["pictures"]
        payloads = [
            encoded(picture(10 * row + n, 28 if row == 0 else 240, 28 if row == 0 else 160)) for n in range(count)
        ]
        media = [
            {"type": "image", "member": f"{n:02d}.png" if count > 1 else "png", "w": 28 if row == 0 else 240,
             "h": 28 if row == 0 else 160, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(),
             "phash": "0" * 16, "orig": f"pictures/{row}<{n}>.png"}
            for n, data in enumerate(payloads)
        ]  # fmt: skip
        content = {name: value for name, value in sample.items() if name != "pictures"}
        content |= {"v": 1, "key": key_of("talks", row), "set": "talks", "split": "train", "license": "CC-BY-NC-4.0"}
        content |= {"src": {"file": "<b>rows</b>.jsonl", "row": row, "id": f"k{row}"}, "media": media}
        writer.add(from_json(json.dumps(content).encode()), payloads)
    manifest = {"format": FORMAT, "set": "talks", "split": "train", "index": writer.finish(), "shards": writer.shards}
    manifest |= MANIFEST | {"counts": MANIFEST["counts"] | {"samples_out": len(samples)}}
    write_sealed(home / "manifest.json", json.dumps(manifest).encode())
    return home


MANIFEST: dict[str, Any] = {
    "converter": "data_prep.sets.talks.Talks",
    "command": "python -m data_prep.prepare source=talks from=DIR",
    "created": "2025-01-01T00:00:00+00:00",
    "kind": {"caption": 1, "chat": 4, "preference": 1},
    "source": [{"file": "rows.jsonl", "bytes": 123_456, "sha256": "ab" * 32, "package": "hub owner/name 0123abcd"}],
    "license": {"counts": {"CC-BY-NC-4.0": 6}, "flags": {"noncommercial": ["CC-BY-NC-4.0"]}},
    "counts": {
        "rows_in": 13, "rows_split": 0, "rows_merged": 1, "media_out": 6, "repaired": {"turns_joined": 2},
        "skipped": {"media_missing": 1, "eval_overlap": 2, "text_empty": 3},
        "budget": {"media_missing": {"percent": 5.0, "used": 0.07}, "eval_overlap": {"percent": None, "used": 0.15}},
    },
    "expected": {"rows_in": 12, "difference": 1},
    "bytes": {"total": 1_234_567, "json": 2345, "media": 1_200_000},
    "image_hist": {
        "longer_side": {"<=1024": 2, "<=128": 1, "<=448": 2, "<=64": 1, "more": 1},
        "aspect": {"<=1.1": 1, "<=1.5": 5}, "mode": {"RGB": 6}, "format": {"JPEG": 4, "PNG": 2},
    },
    "token_hist": {
        "unit": "tokens", "tokenizer": {"name": "small", "sha256": "cd" * 8},
        "prompt": {"counts": {"<=16": 1, "<=4": 2, "<=8": 3}, "p50": 6, "p95": 12, "p99": 14, "max": 15},
        "answer": {"counts": {"<=16": 5, "<=4096": 1}, "p50": 9, "p95": 2000, "p99": 2000, "max": 2000},
    },
    "pair_hist": {"chosen_minus_rejected": {"-<=2": 1}, "mean": -2.0, "share_equal": 0.0},
    "turn_hist": {"2": 3, "4": 2}, "media_hist": {"0": 1, "1": 4, "2": 1},
    "dup": {"image": 0, "text": 1, "both": 0, "removed": 0, "commonest_texts": [{"text": "Yes.", "rows": 2}]},
    "overlap": {"against": [{"name": "pope/test", "sha256": "ef" * 32, "pictures": 500}],
                "removed": {"pope/test": 2}},
}  # fmt: skip
