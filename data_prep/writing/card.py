"""card.md of a split: its manifest in words and tables, with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from data_prep.writing.overview import duplicates, equation, flags, histograms, removed_for_evaluation, size, skips

SPDX = re.compile(r"[A-Za-z0-9.+-]+")
KINDS = {
    "caption": "pictures with captions",
    "chat": "conversations",
    "preference": "pairs of a better and a worse answer",
}
LONGEST = 100  # characters of a text in a table
TASKS = {"caption": "image-to-text", "chat": "image-text-to-text", "preference": "image-text-to-text"}


def card(manifest: Mapping[str, Any]) -> str:
    """The whole file. Keys that an older manifest does not have are left out of it."""
    name = f"{manifest['set']}/{manifest['split']}"
    parts = [
        _front(manifest),
        f"# {name}\n",
        _what(manifest),
        *_section("Source", _source(manifest)),
        *_section("Rows", _rows(manifest)),
        *_section("Skipped", _skipped(manifest)),
        *_section("Faults put in on purpose", _declared(manifest)),
        *_section("Licences", _licences(manifest)),
        *_section("Sizes", _sizes(manifest)),
        *_section("Duplicates", _duplicates(manifest)),
        *_section("Evaluation pictures", _evaluation(manifest)),
        *_section("Made with", _made(manifest)),
        *_section("Training on it", _training(manifest)),
    ]
    return "\n".join(parts)


def _front(manifest: Mapping[str, Any]) -> str:
    """YAML in the form of JSON values, so that no text of a source can end it."""
    licenses = [name.lower() if _is_listed(name) else "other" for name in manifest["license"]["counts"]]
    kinds = manifest.get("kind") or {}
    has_media = bool(manifest["counts"].get("media_out"))
    tasks = [TASKS[kind] if has_media else "text-generation" for kind in kinds if kind in TASKS]
    fields = {
        "pretty_name": f"{manifest['set']} ({manifest['split']})",
        "license": sorted(set(licenses)),
        "task_categories": sorted(set(tasks)),
        "tags": ["webdataset"],
    }
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in fields.items() if value), "---", ""])


def _is_listed(name: str) -> bool:
    """Whether the hub knows a licence by this name; house terms it knows as "other"."""
    return bool(SPDX.fullmatch(name)) and not name.startswith("LicenseRef-")


def _what(manifest: Mapping[str, Any]) -> str:
    kinds = [f"{count:,} {KINDS.get(kind, kind)}" for kind, count in (manifest.get("kind") or {}).items()]
    told = ", ".join(kinds) or f"{manifest['counts']['samples_out']:,} samples"
    media = manifest["counts"].get("media_out")
    lines = [f"{told}{f', {media:,} pictures' if media else ''}; {size((manifest.get('bytes') or {}).get('total') or 0)} in {len(manifest['shards'])} shards."]  # fmt: skip
    if manifest.get("several_captions"):
        lines.append("A picture may have several captions; training shows another one at each visit.")
    if manifest.get("evaluation"):
        lines.append("This split is for evaluation alone.")
    return " ".join(lines) + "\n"


def _source(manifest: Mapping[str, Any]) -> Iterator[str]:
    files = manifest.get("source") or []
    rows = [
        (file["file"], file.get("package") or "given by the user", size(file["bytes"]), file["sha256"])
        for file in files
    ]
    yield from _table(("file", "from", "size", "sha256"), rows)


def _rows(manifest: Mapping[str, Any]) -> Iterator[str]:
    numbers = equation(manifest)
    yield from _table(
        ("rows in", "+ gained by cutting rows", "= samples", "+ skipped", "+ joined to another's sample"),
        [tuple(f"{numbers[name]:,}" for name in ("rows_in", "rows_split", "samples_out", "skipped", "rows_merged"))],
    )
    expected = manifest.get("expected") or {}
    if expected.get("difference"):
        yield f"\nThe published figure is {expected['rows_in']:,} rows; the source differs by {expected['difference']:+,}."
    if repaired := manifest["counts"].get("repaired"):
        yield "\nMended: " + ", ".join(f"{name} {count:,}" for name, count in repaired.items()) + "."


def _skipped(manifest: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            skipped.reason,
            f"{skipped.rows:,}",
            "" if skipped.used is None else f"{skipped.used:g} %",
            "any number" if skipped.allowed is None else f"{skipped.allowed:g} %",
        )
        for skipped in skips(manifest)
    ]
    if rows:
        yield from _table(("reason", "rows", "of the source", "allowed"), rows)
        yield "\nEvery one stands in skipped.jsonl with its file, row and what was found."
    else:
        yield "No row was skipped."


def _declared(manifest: Mapping[str, Any]) -> Iterator[str]:
    rows = [(name, f"{count:,}") for name, count in (manifest.get("declared_faults") or {}).items()]
    yield from _table(("fault", "samples"), rows)
    if rows:
        yield "\nEach such sample names its faults in `meta.declared_faults`; a run that trains on it says so in data.json."


def _licences(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield from _table(
        ("licence", "samples"), [(name, f"{count:,}") for name, count in manifest["license"]["counts"].items()]
    )
    asked = [f"- **{flag}**: {words} ({', '.join(map(_cell, causes))})" for flag, words, causes in flags(manifest)]
    yield "\n" + ("\n".join(asked) or "None of them asks for more than its name.")


def _sizes(manifest: Mapping[str, Any]) -> Iterator[str]:
    for histogram in histograms(manifest):
        heading = f"{histogram.heading}{f' ({histogram.unit})' if histogram.unit else ''}"
        yield f"- {heading}: " + ", ".join(f"{_cell(name)}: {count:,}" for name, count in histogram.bins.items())
    lengths = manifest.get("token_hist") or {}
    for name in ("prompt", "answer"):
        if known := lengths.get(name):
            unit, of = lengths.get("unit", ""), {"prompt": "Prompts", "answer": "Answers"}[name]
            yield (
                f"- {of}: half of them up to {known['p50']:,} {unit}, 95 % up to {known['p95']:,}, "
                f"99 % up to {known['p99']:,}, the longest {known['max']:,}"
            )
    if pairs := manifest.get("pair_hist"):
        yield f"- Length of the chosen answer less that of the rejected one: {pairs['mean']:g} on average"
    if tokenizer := lengths.get("tokenizer"):
        yield f"\nTokens are those of {_cell(tokenizer['name'])} (`{tokenizer['sha256']}`)."


def _duplicates(manifest: Mapping[str, Any]) -> Iterator[str]:
    for words, count in duplicates(manifest):
        yield f"- {count:,} {words}"
    commonest = (manifest.get("dup") or {}).get("commonest_texts") or []
    if commonest:
        yield "\nThe commonest texts of the whole set:\n"
        rows = [(str(entry["text"])[:LONGEST], f"{entry['rows']:,}") for entry in commonest]
        yield from _table(("text", "rows"), rows)


def _evaluation(manifest: Mapping[str, Any]) -> Iterator[str]:
    if manifest.get("evaluation"):
        yield "Other sets leave this split's pictures out when they are prepared after it."
        return
    if manifest.get("overlap") is None:
        return
    against, removed = removed_for_evaluation(manifest)
    yield from _table(("evaluation set", "rows removed"), [(name, f"{removed.get(name, 0):,}") for name in against])
    if not against:
        yield "It was compared with no evaluation set. `python -m data_prep.dedupe dir=DIR against=[SET/SPLIT]` does so."


def _made(manifest: Mapping[str, Any]) -> Iterator[str]:
    if command := manifest.get("command"):
        yield f"```\n{str(command).replace('```', '')}\n```\n"
    facts = [("converter", manifest.get("converter")), ("its version", manifest.get("converter_version"))]
    facts += [("settings (sha256)", manifest.get("config_sha256"))]  # no date: equal input gives an equal card
    yield "\n".join(f"- {name}: {value}" for name, value in facts if value is not None)
    yield "\nThe same input and settings give the same bytes. `python -m data_prep.verify dir=DIR` checks every one."


def _training(manifest: Mapping[str, Any]) -> Iterator[str]:
    name, split = manifest["set"], manifest["split"]
    use = "test" if manifest.get("evaluation") else "train"
    yield f"```yaml\ndata:\n  {use}:\n    {name}: {{split: {split}}}\n```"
    yield f"\nThe folder is read at `<paths.data>/{name}/{split}/`; `python -m data_prep.browse dir=DIR` shows samples."


def _section(heading: str, lines: Iterable[str]) -> Iterator[str]:
    """Nothing of a section that has nothing to say."""
    content = list(lines)
    if any(content):
        yield f"## {heading}\n"
        yield "\n".join(content) + "\n"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        yield f"| {' | '.join(heads)} |"
        yield f"|{' --- |' * len(heads)}"
        yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(text: Any) -> str:
    """Text of a source as one line that ends no cell and starts no markup."""
    plain = " ".join(str(text).split())
    return re.sub(r"([|<>\[\]\\*`])", r"\\\1", plain)
