"""A user's own conversations, with everything that may be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.reading import tables
from tests.data_prep.conftest import encoded, picture, verify_shards
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Sample, Turn
from vlm.data.shards import ShardSet

LOOSE = [f"++source.budget.{reason}=30" for reason in ("placeholder_mismatch", "turns_bad", "row_malformed")]
LOOSE += [f"++source.budget.{reason}=30" for reason in ("text_empty", "media_missing", "text_long")]


def chat(question: Any, answer: str = "Three.", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 text rows, then whatever a test adds."""
    home = tmp_path / "mine"
    (home / "im").mkdir(parents=True)
    for number in range(4):
        (home / "im" / f"k{number}.png").write_bytes(encoded(picture(number)))
    add(home, *(chat(f"How many kites in row {number}?") for number in range(60)))
    return home


def add(folder: Path, *rows: Any) -> None:
    with (folder / "chats.jsonl").open("a", encoding="utf-8") as stream:
        stream.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def samples(out: Path) -> dict[str, Sample]:
    """The source's id -> the sample, of both splits."""
    found = {}
    for split in ("train", "val"):
        shards = ShardSet(out / "chat_jsonl" / split)
        for row in range(len(shards)):
            found[shards.read(row)[0].src.id] = shards[row]
    return found


def skipped(out: Path) -> dict[int, str]:
    lines = (out / "chat_jsonl" / "train" / "skipped.jsonl").read_text().splitlines()
    return {row["row"]: row["reason"] for row in map(json.loads, lines)}


def test_every_conversation_becomes_a_sample_in_one_of_two_splits(prepare, folder: Path, tmp_path: Path) -> None:
    manifests = prepare("chat_jsonl", folder)
    counts = {m["split"]: m["counts"]["samples_out"] for m in manifests}
    assert sum(counts.values()) == 60
    assert 1 <= counts["val"] <= 15
    assert samples(tmp_path / "out")["line 8"].turns == (
        Turn("user", ("How many kites in row 7?",)),
        Turn("assistant", ("Three.",)),
    )
    for split in counts:
        assert verify_shards(tmp_path / "out" / "chat_jsonl" / split) == []


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("<image>\nHow many?", (0, "How many?")),
        ("How many?\n<image>", ("How many?", 0)),
        ("Here \n<image>\n\nhow many?", ("Here \n", 0, "\nhow many?")),
        ("How many?", (0, "How many?")),
        ([{"type": "text", "text": "In <image>:"}, {"type": "image"}], ("In <image>:", 0)),
    ],
)
def test_a_picture_takes_the_place_that_the_text_leaves(
    prepare, folder: Path, tmp_path: Path, question: Any, parts: tuple[str | int, ...]
) -> None:
    add(folder, chat(question, images=["im/k0.png"], id="it"))
    prepare("chat_jsonl", folder)
    found = samples(tmp_path / "out")["it"]
    assert found.turns[0].parts == parts
    assert len(found.media) == 1


def test_both_forms_say_the_same(prepare, folder: Path, tmp_path: Path) -> None:
    turns = [
        ("system", "Be brief."),
        ("human", "<image>A <image>?"),
        ("gpt", "Yes."),
        ("human", "Why?"),
        ("gpt", "So."),
    ]
    other = [{"from": role, "value": text} for role, text in turns]
    add(folder, {"id": "old", "conversations": other, "image": ["im/k0.png", "im/k1.png"], "independent": True})
    prepare("chat_jsonl", folder)
    found = samples(tmp_path / "out")["old"]
    assert [turn.role for turn in found.turns] == ["system", "user", "assistant", "user", "assistant"]
    assert found.turns[1].parts == (0, "A ", 1, "?")
    assert found.meta == {"independent": True}


def test_each_fault_is_skipped_by_its_name(prepare, folder: Path, tmp_path: Path) -> None:
    good = chat("Q")["messages"]
    faults: list[tuple[Any, str]] = [
        (chat("<image> and <image>", images=["im/k0.png"]), "placeholder_mismatch"),
        (chat("Q", "<image>", images=["im/k0.png"]), "placeholder_mismatch"),
        (chat("<image>"), "media_missing"),
        (chat("<image>", images=["im/none.png"]), "media_missing"),
        ({"messages": good[:1]}, "turns_bad"),
        ({"messages": [*good, *good[1:]]}, "turns_bad"),
        ({"messages": []}, "turns_bad"),
        (chat("Q", "  "), "text_empty"),
        (chat("Q", None), "row_malformed"),  # type: ignore[arg-type]
        (chat("Q", images=7), "row_malformed"),
        (chat("Q", independent="yes"), "row_malformed"),
        ("{not json", "row_malformed"),
        ({"text": "Q"}, "row_malformed"),
        (chat("word " * 30_000), "text_long"),
        (chat("How many kites in row 3?"), "dup_exact"),
    ]
    add(folder, *(row for row, _ in faults))
    prepare("chat_jsonl", folder, *LOOSE)
    assert skipped(tmp_path / "out") == {60 + number: reason for number, (_, reason) in enumerate(faults)}


def test_an_empty_answer_goes_with_its_question_but_not_with_its_picture(prepare, folder: Path, tmp_path: Path) -> None:
    messages = [*chat("<image>One?", "")["messages"], *chat("Two?")["messages"]]
    add(folder, {"id": "it", "messages": messages, "images": ["im/k0.png"]})
    manifests = prepare("chat_jsonl", folder)
    assert samples(tmp_path / "out")["it"].turns == (Turn("user", (0, "Two?")), Turn("assistant", ("Three.",)))
    assert sum(m["counts"]["repaired"].get("answer_empty", 0) for m in manifests) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (chat("Q", images=["../x.png"]), r"line 61: \.\./x.png leaves the folder"),
        (chat("Q", images=["https://pics.example/1.png"]), r"line 61: .* is an address"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"line 61: role 'tool' is unknown; known: system, human"),
    ],
)
def test_what_no_budget_covers_is_refused_at_once(prepare, folder: Path, row: Any, message: str) -> None:
    add(folder, row)
    with pytest.raises(InputError, match=message):
        prepare("chat_jsonl", folder)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (b"{not json", r"line 1 is not JSON .*each line is"),
        (b'{"messages": "\xff"}', r"line 1 is not JSON .*each line is"),
        (b'{"messages": [], "score": NaN}', r"line 1 is not JSON .*each line is"),
        (b'{"text": "Q"}', r"line 1 is no object with a list of messages or conversations; each line is"),
        (b"[{}]", r"holds one JSON array; write each of its objects on a line of its own"),
        (b"plain text", r"begins with 'plain text"),
    ],
)
def test_a_file_of_another_form_is_refused_by_its_first_line(prepare, folder: Path, first: bytes, message: str) -> None:
    (folder / "chats.jsonl").write_bytes(first + b"\n" + json.dumps(chat("Q")).encode())
    with pytest.raises(InputError, match=message):
        prepare("chat_jsonl", folder)


def test_a_later_line_that_is_not_utf_8_is_one_bad_row(prepare, folder: Path, tmp_path: Path) -> None:
    with (folder / "chats.jsonl").open("ab") as stream:
        stream.write(b'{"messages": "\xff"}\n')
    prepare("chat_jsonl", folder)
    assert skipped(tmp_path / "out") == {60: "row_malformed"}


def test_one_file_of_rows_is_needed(prepare, folder: Path) -> None:
    (folder / "chats.jsonl").rename(folder / "chats.json")
    with pytest.raises(InputError, match=r"exactly one file of rows \(chats.jsonl\), found: none"):
        prepare("chat_jsonl", folder)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(prepare, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "LONGEST", 1 << 10)
    add(folder, chat("word " * 300))
    with pytest.raises(InputError, match=r"the line at byte \d+ is longer than"):
        prepare("chat_jsonl", folder)
