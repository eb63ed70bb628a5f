"""Two models' answers to the same questions: who was right, what they marked, and which words changed."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.contracts.errors import InputError
from vlm.evaluation.compare import ASKED_ALIKE, folder_of
from vlm.evaluation.records import PREDICTIONS, RESULTS
from vlm.evaluation.score import scorer
from vlm.reporting.evaluation_errors import LONGEST, Text, shorten, truth
from vlm.reporting.evaluation_records import Entry, read_results, read_rows

# Which rows are shown, in this order, and at most how many of each.
KINDS = {"lost": 30, "gained": 30, "more": 30, "fewer": 30, "words": 20, "same": 8}
Piece = tuple[str, bool]  # words, and whether the other answer does not have them


@dataclass(frozen=True)
class Said:
    """One model's answer. verdict: right, wrong, unreadable, or partly with its score.   faults: what a rule found in it."""

    pieces: Sequence[Piece]
    verdict: str
    faults: tuple[str, ...]
    truncated: bool
    length: int | None = None


@dataclass(frozen=True)
class Both:
    """A question with both answers. kind: of KINDS, what the second model changed.   id: of the benchmark."""

    id: str
    kind: str
    prompt: Text
    truth: Text
    first: Said
    other: Said


@dataclass(frozen=True)
class Pairing:
    """A benchmark that two models answered under the same settings.

    totals: kind -> number of questions, of all of them.   rows: those that are shown.
    settings: of the benchmark, from which its pictures can be read again.
    """

    title: str
    first: str
    other: str
    n: int
    totals: Mapping[str, int]
    rows: Sequence[Both]
    settings: Mapping[str, Any]


def pairings(models: Sequence[Path]) -> list[Pairing]:
    """The first model with each of the others, on every benchmark that both answered alike.

    Raises: InputError for evaluation folders that cannot be read, or that hold other questions of the same files.
    """
    folders = [folder_of(model) for model in models]
    known = [_by_question(folder) for folder in folders]
    answers = [_answers(folder) for folder in folders]
    found = []
    for model, entries, rows in zip(models[1:], known[1:], answers[1:], strict=True):
        for key in (key for key in known[0] if key in entries):
            one, two = known[0][key], entries[key]
            found.append(_pairing(models[0], model, one, two, answers[0][one.key], rows[two.key]))
    return found


def marked(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, of which those are marked that the other text does not have in their place."""
    one, two = first.split(), second.split()
    own: tuple[list[Piece], list[Piece]] = [], []
    for tag, begin, end, start, stop in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        for pieces, words in zip(own, (one[begin:end], two[start:stop]), strict=True):
            if words:
                pieces.append((" ".join(words), tag != "equal"))
    return own


def _by_question(folder: Path) -> dict[str, Entry]:
    """What was asked -> the entry on all of its questions."""
    found = {}
    for entry in read_results(folder / RESULTS):
        if entry.headline and entry.split == "all" and isinstance(entry.settings.get("benchmark"), Mapping):
            asked = {key: entry.settings.get(key) for key in ASKED_ALIKE}
            if asked["limit"] is None:
                del asked["seed"]  # it draws the questions, and here all are asked
            found[json.dumps([entry.benchmark, entry.variant, asked], sort_keys=True)] = entry
    return found


def _answers(folder: Path) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Benchmark and settings -> id -> the line of predictions.jsonl."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in read_rows(folder / PREDICTIONS):
        if row.get("score") is not None:
            found[row["benchmark"], str(row.get("settings", ""))][str(row["id"])] = row
    return found


def _pairing(
    first: Path,
    other: Path,
    entry: Entry,
    again: Entry,
    one: Mapping[str, dict[str, Any]],
    two: Mapping[str, dict[str, Any]],
) -> Pairing:
    if one.keys() != two.keys():
        raise InputError(
            f"compare: {entry.benchmark}: {first} and {other} hold other questions of the same files; evaluate both again "
            "with one version of this project"
        )
    rows = [_both(one[id], two[id], entry) for id in one]
    totals = Counter(row.kind for row in rows)
    return Pairing(
        title=entry.title,
        first=str(first),
        other=str(other),
        n=len(rows),
        totals={kind: totals[kind] for kind in KINDS},
        rows=list(_chosen(rows)),
        settings={**entry.settings["benchmark"], "files": again.settings.get("data") or {}},
    )


def _chosen(rows: Sequence[Both]) -> Iterator[Both]:
    """Of each kind some, in an order that does not depend on the file: by a hash of the question."""
    for kind, most in KINDS.items():
        own = [row for row in rows if row.kind == kind]
        yield from sorted(own, key=lambda row: hashlib.blake2b(row.id.encode("utf-8", "replace")).digest())[:most]


def _both(one: Mapping[str, Any], two: Mapping[str, Any], entry: Entry) -> Both:
    faults = [_faults(row, entry) for row in (one, two)]
    said = [str(row["prediction"]) for row in (one, two)]
    pieces = marked(*(text[: LONGEST * 2] for text in said))
    first, other = (
        Said(part, _verdict(row), found, bool(row.get("truncated")), len(text) if len(text) > LONGEST * 2 else None)
        for part, row, found, text in zip(pieces, (one, two), faults, said, strict=True)
    )
    prompt = str(one.get("prompt", "")).replace("<image 1>", "").strip()
    right = shorten(truth(one["reference"]) if "reference" in one else "not known")
    return Both(str(one["id"]), _kind(one, two, faults), shorten(prompt), right, first, other)


def _kind(one: Mapping[str, Any], two: Mapping[str, Any], faults: Sequence[tuple[str, ...]]) -> str:
    before, after = float(one["score"]), float(two["score"])
    if before != after:
        return "gained" if after > before else "lost"
    if len(faults[0]) != len(faults[1]):
        return "more" if len(faults[1]) > len(faults[0]) else "fewer"
    return "same" if one["prediction"] == two["prediction"] else "words"


def _faults(row: Mapping[str, Any], entry: Entry) -> tuple[str, ...]:
    """What the rule says of the answer beside its score, such as that it invents; those that the results count, too."""
    if "reference" not in row:
        return ()
    record = scorer(entry.settings["benchmark"]["scorer"]).cases[entry.variant](row["prediction"], row["reference"])
    return tuple(name for name, value in record.items() if value is True and name in entry.measures)


def _verdict(row: Mapping[str, Any]) -> str:
    if row.get("unparsable"):
        return "unreadable"
    score = float(row["score"])
    return {0.0: "wrong", 1.0: "right"}.get(score, f"partly, {score:.2f}")
