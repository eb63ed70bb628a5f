"""What the writer itself does with rows of any set: texts that cannot be stored, repeats, overlaps, lengths."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.overlaps.overlap import gather
from tests import hf_folder
from tests.data_prep.conftest import encoded, picture, verify_shards
from vlm.contracts.errors import ConfigError, InputError
from vlm.data.shards import ShardSet


def chat(number: int, answer: str = "yes", **more: Any) -> dict[str, Any]:
    asked = {"role": "user", "content": f"<image>Is this picture {number}?"}
    return {"images": [f"{number}.png"], "messages": [asked, {"role": "assistant", "content": answer}], **more}


@pytest.fixture
def write(tmp_path: Path):
    """write(rows) -> the folder of a chats.jsonl with 60 good rows before them, and all their pictures."""

    def made(*rows: Any) -> Path:
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        for number in range(60):
            (folder / f"{number}.png").write_bytes(encoded(picture(number)))
        lines = [json.dumps(row) for row in [*(chat(number) for number in range(60)), *rows]]
        (folder / "chats.jsonl").write_text("\n".join(lines) + "\n")
        return folder

    return made


FREE = [f"source.budget.{name}=100" for name in ("text_malformed", "text_long", "text_empty")]
FREE = [word.replace("source.", "++source.") for word in FREE]


def skipped(out: Path) -> list[tuple[str, str]]:
    lines = [line for path in sorted(out.rglob("skipped.jsonl")) for line in path.read_bytes().splitlines()]
    return sorted((entry["reason"], entry["id"]) for entry in map(json.loads, lines))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("a\0b", "text_malformed"),
        ("half \ud83d of a sign", "text_malformed"),
        ("word " * 20_001, "text_long"),
        ("x" * 5_000_000, "text_long"),
    ],
    ids=["NUL", "surrogate", "many words", "one word of 5 MB"],
)
def test_texts_that_cannot_be_kept_are_counted_by_their_reason(
    prepare, write, tmp_path: Path, answer: str, reason: str
) -> None:
    manifests = prepare("chat_jsonl", write(chat(3, answer, id="bad")), *FREE)
    assert skipped(tmp_path / "out") == [(reason, "bad")]
    assert sum(manifest["counts"]["rows_in"] for manifest in manifests) == 61


def test_odd_names_and_ids_are_stored_as_readable_text(prepare, write, tmp_path: Path) -> None:
    prepare("chat_jsonl", write(chat(3, "another answer", id="id \ud800")))
    for split in ("train", "val"):
        assert verify_shards(tmp_path / "out/chat_jsonl" / split) == []
    ids = [ShardSet(tmp_path / "out/chat_jsonl/train").read(row)[0].src.id for row in range(40)]
    ids += [ShardSet(tmp_path / "out/chat_jsonl/val").read(row)[0].src.id for row in range(5)]
    assert all(id.isprintable() for id in ids)


def test_equal_rows_are_removed_and_equal_pictures_only_counted(prepare, write, tmp_path: Path) -> None:
    manifests = prepare("chat_jsonl", write(chat(3, id="again"), chat(4, "no", id="another answer")))
    assert skipped(tmp_path / "out") == [("dup_exact", "again")]
    assert sum(manifest["dup"]["image"] for manifest in manifests) == 1
    assert sum(manifest["dup"]["removed"] for manifest in manifests) == 1


def test_lengths_are_bytes_or_the_tokens_of_a_given_tokenizer(prepare, write, tmp_path: Path) -> None:
    folder = write(chat(3, "a much longer answer of eight words there", id="long"))
    plain = prepare("chat_jsonl", folder)
    assert {manifest["token_hist"]["unit"] for manifest in plain} == {"bytes of UTF-8"}
    assert max(manifest["token_hist"]["answer"]["max"] for manifest in plain) == 41
    home = tmp_path / "tokenizer"
    hf_folder.write_tokenizer(home)
    prepare("chat_jsonl", folder, f"out={tmp_path / 'counted'}", f"tokenizer={home}")
    index = np.load(tmp_path / "counted/chat_jsonl/train/index.npy")
    assert (index["tokens"] > 0).all()
    assert len(set(index["tokens"].tolist())) > 1


def test_evaluation_pictures_are_left_out_and_counted_by_set(prepare, write, tmp_path: Path) -> None:
    held_out = tmp_path / "mine2"
    held_out.mkdir()
    for number in range(40):
        (held_out / f"{number}.png").write_bytes(encoded(picture(5 if number == 0 else 500 + number)))
    (held_out / "captions.tsv").write_text("".join(f"{number}.png\tcaption {number}\n" for number in range(40)))
    names = ["source.name=benchmark", "source.evaluation=[train,val]"]
    prepare("caption_table", held_out, f"out={tmp_path / 'data'}", *names)
    manifests = prepare("chat_jsonl", write())
    assert [reason for reason, _ in skipped(tmp_path / "out")] == ["eval_overlap"]
    removed = {by: count for manifest in manifests for by, count in manifest["overlap"]["removed"].items()}
    assert sum(removed.values()) == 1
    assert next(iter(removed)).startswith("benchmark/")
    assert {table["name"] for table in manifests[0]["overlap"]["against"]} == {"benchmark/train", "benchmark/val"}
    kept = prepare("chat_jsonl", write(), f"out={tmp_path / 'all'}", "against=[]")
    assert sum(manifest["counts"]["samples_out"] for manifest in kept) == 60


def test_an_unknown_licence_is_refused_by_row(prepare, write) -> None:
    with pytest.raises(
        InputError,
        match=r"chats.jsonl row 0: licence 'WTFPL' is unknown; add it .* '\+\+source.licenses=\{WTFPL: \[\]\}'",
    ):
        prepare("chat_jsonl", write(), "source.reader.license=WTFPL")


def test_a_policy_refuses_licences_before_anything_is_read(prepare, write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="licence_policy"):
        prepare(
            "chat_jsonl",
            write(),
            "licence_policy=no_noncommercial",
            "source.licenses={LicenseRef-Own: [noncommercial]}",
        )
    assert not (tmp_path / "out").exists()


def test_the_first_rows_of_a_set_may_hold_none_for_one_of_its_splits(prepare, write, caplog) -> None:
    (manifest,) = prepare("chat_jsonl", write(), "limit=3", "source.holdout.every=1000")
    assert manifest["counts"]["samples_out"] == 3
    assert "left out: chat_jsonl/val would hold no samples" in caplog.text
    assert prepare("chat_jsonl", write(), "limit=3", "source.holdout.every=1000") == [manifest], "found prepared"


def test_a_picture_that_is_held_out_is_never_trained_on(prepare, write, tmp_path: Path) -> None:
    pairs = [
        chat(number, f"both {number}", images=[f"{number}.png", f"{(number * 7 + 1) % 60}.png"]) for number in range(60)
    ]
    for pair in pairs:
        pair["messages"][0]["content"] = "<image><image>The same?"
    prepare("chat_jsonl", write(*pairs), "source.holdout.every=5")
    media = {}
    for split in ("train", "val"):
        shards = ShardSet(tmp_path / "out/chat_jsonl" / split)
        media[split] = [{medium.sha256 for medium in shards.read(row)[0].media} for row in range(len(shards))]
    alone = {next(iter(found)) for found in media["val"] if len(found) == 1}
    assert alone
    assert not any(found & alone for found in media["train"])
    assert any(len(found) == 2 for found in media["val"])


def test_a_file_name_that_is_not_utf_8_is_stored_spelt_out(prepare, tmp_path: Path) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    for number in range(40):
        (home / f"{number}.png").write_bytes(encoded(picture(number)))
        (home / f"{number}.txt").write_text(f"caption {number}")
    Path(os.fsdecode(bytes(home) + b"/odd-\xff.png")).write_bytes(encoded(picture(77)))
    Path(os.fsdecode(bytes(home) + b"/odd-\xff.txt")).write_text("an odd one")
    prepare("folder", home)
    names = []
    for split in ("train", "val"):
        shards = ShardSet(tmp_path / "out/folder" / split)
        names += [shards.read(row)[0].media[0].orig for row in range(len(shards))]
    assert "odd-\\udcff.png" in names


def test_parts_of_a_set_cannot_be_chosen_from_a_folder(prepare, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"parts: chooses among packages that are fetched; with from="):
        prepare("captions_small", tmp_path, "parts=[emoji]")


def test_a_dry_run_writes_nothing_at_all(prepare, write, tmp_path: Path) -> None:
    folder = write()
    before = sorted(tmp_path.rglob("*"))
    (told,) = prepare("chat_jsonl", folder, "dry_run=true")
    assert told["first"][0]["texts"] == ["user: '<picture>Is this picture 0?'", "assistant: 'yes'"]
    assert sorted(tmp_path.rglob("*")) == before


def test_the_manifest_tells_the_command_without_places_of_this_machine(prepare, write) -> None:
    manifests = prepare("chat_jsonl", write(), "source.pictures.max_side=20", "against=[]")
    words = "source=chat_jsonl source.pictures.max_side=20 'against=[]' from=DIR"
    assert {manifest["command"] for manifest in manifests} == {f"python -m data_prep.prepare {words}"}


def test_another_picture_under_the_same_name_is_noticed(prepare, write, tmp_path: Path) -> None:
    folder = write()
    prepare("chat_jsonl", folder)
    (folder / "7.png").write_bytes(encoded(picture(700, 50, 50)))
    with pytest.raises(InputError, match=r"was prepared from other files in .*mine.*\n  rm -r .* && python -m"):
        prepare("chat_jsonl", folder)


@pytest.mark.parametrize(("name", "told"), [("nowhere/at/all", "is not there"), ("mine/chats.jsonl", "is a file")])
def test_a_place_that_is_no_folder_is_refused_though_the_set_is_prepared(
    prepare, write, tmp_path: Path, name: str, told: str
) -> None:
    prepare("chat_jsonl", write())
    with pytest.raises(InputError, match=told):
        prepare("chat_jsonl", tmp_path / name)


@pytest.mark.parametrize("part", ["2/2", "0/0", "1", "a/b"])
def test_a_part_is_i_of_n_from_0_on(prepare, write, part: str) -> None:
    with pytest.raises(ConfigError, match=r"is not i/n with i below n: of two parts the first is 0/2"):
        prepare("chat_jsonl", write(), f"part='{part}'")


def test_a_folder_without_a_tokenizer_is_refused(prepare, write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer: .*mine has no tokenizer.json"):
        prepare("chat_jsonl", write(), f"tokenizer={tmp_path / 'mine'}")


def test_an_answer_that_is_chosen_here_and_rejected_there_is_counted(prepare, tmp_path: Path) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    answers = [("red", "blue"), ("green", "red"), ("red", "pink")] + [(f"yes {n}", f"no {n}") for n in range(40)]
    rows = [{"prompt": "Which colour?", "chosen": chosen, "rejected": rejected} for chosen, rejected in answers]
    (home / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (manifest,) = prepare("preference_jsonl", home, "source.holdout=null")
    assert manifest["dup"]["contradictions"] == 2, "the second row rejects what the first chose, the third chooses it"


def test_further_sets_are_compared_with_beside_the_evaluation_splits(prepare, write, tmp_path: Path) -> None:
    prepare("chat_jsonl", write(), f"out={tmp_path / 'data'}", "source.evaluation=[val]", "source.name=benchmark")
    tables = gather(["all", "benchmark/train"], tmp_path / "data", "chat_jsonl")
    assert [table.name for table in tables] == ["benchmark/val", "benchmark/train"]
