"""card.md says what the manifest says, for people and for the hub."""

from __future__ import annotations

from typing import Any

import yaml

from data_prep.writing.card import card
from tests.data_prep.small_talks import MANIFEST
from vlm.data.canonical import FORMAT

SHARD = {"name": "shard-000000.tar", "bytes": 1_234_567, "samples": 6, "sha256": "0" * 64}


def manifest(**changes: Any) -> dict[str, Any]:
    counts = MANIFEST["counts"] | {"samples_out": 6}
    return (
        {"format": FORMAT, "set": "talks", "split": "train", "shards": [SHARD]}
        | MANIFEST
        | {"counts": counts}
        | changes
    )


def front(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---")[1])


def test_the_card_tells_counts_skips_licences_sources_and_how_it_was_made() -> None:
    text = card(manifest())
    for line in (
        "# talks/train",
        "1 pictures with captions, 4 conversations, 1 pairs of a better and a worse answer, 6 pictures; 1.2 MB in 1 shards.",
        "| 13 | 0 | 6 | 6 | 1 |",
        "| text_empty | 3 |  | any number |",
        "| media_missing | 1 | 0.07 % | 5 % |",
        "| CC-BY-NC-4.0 | 6 |",
        "- **noncommercial**: not for commercial use (CC-BY-NC-4.0)",
        f"| rows.jsonl | hub owner/name 0123abcd | 123.5 kB | {'ab' * 32} |",
        "- Longer side of pictures, pixels: ≤ 64: 1, ≤ 128: 1, ≤ 448: 2, ≤ 1024: 2, more: 1",
        "- Answers: half of them up to 9 tokens, 95 % up to 2,000, 99 % up to 2,000, the longest 2,000",
        "- 1 samples whose text was there before",
        "| pope/test | 2 |",
        "python -m data_prep.prepare source=talks from=DIR",
        "    talks: {split: train}",
        "The published figure is 12 rows; the source differs by +1.",
        "Mended: turns_joined 2.",
    ):
        assert line in text.splitlines(), line


def test_the_front_matter_is_what_the_hub_reads() -> None:
    assert front(card(manifest())) == {
        "pretty_name": "talks (train)",
        "license": ["cc-by-nc-4.0"],
        "task_categories": ["image-text-to-text", "image-to-text"],
        "tags": ["webdataset"],
    }


def test_house_terms_are_other_and_texts_alone_are_text_generation() -> None:
    own = manifest(license={"counts": {"LicenseRef-Own": 6}, "flags": {}}, kind={"chat": 6})
    own["counts"] = own["counts"] | {"media_out": 0}
    assert front(card(own))["license"] == ["other"]
    assert front(card(own))["task_categories"] == ["text-generation"]
    assert "None of them asks for more than its name." in card(own)


def test_a_licence_without_flags_is_called_unknown() -> None:
    assert "- **unknown**: nobody has said what it asks for (MIT)" in card(manifest(license={"counts": {"MIT": 6}}))


def test_a_manifest_of_few_keys_has_a_short_card() -> None:
    few = {"set": "a", "split": "b", "shards": [SHARD], "counts": {"samples_out": 3}, "license": {"counts": {"MIT": 3}}}
    text = card(few)
    assert "3 samples" in text
    assert "## Duplicates" not in text
    assert "None" not in text.replace("None of them", "")


def test_words_of_a_source_cannot_break_the_page() -> None:
    wild = {"text": "a | b\n## <script>", "rows": 3}
    text = card(manifest(dup={"commonest_texts": [wild], "text": 1}, command="x ``` y"))
    assert "| a \\| b ## \\<script\\> | 3 |" in text.splitlines()
    assert text.count("```") == 4


def test_the_same_manifest_gives_the_same_card() -> None:
    assert card(manifest()) == card(manifest())
