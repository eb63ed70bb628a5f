"""What leaves a prepared split, what is told about it, and what the new split looks like."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_prep.dedupe import DedupeSettings, dedupe, main
from data_prep.overlaps import sweep
from data_prep.writing.shard import ShardWriter
from tests.data_prep.conftest import verify_shards
from tests.data_prep.small_splits import Entry, jpeg, photograph, split
from vlm.contracts.errors import InputError
from vlm.data.canonical import Record
from vlm.data.manifest import read_manifest
from vlm.data.shards import ShardSet, manifest_sha256


def caption(seed: int, text: str, name: str = "", quality: int = 90) -> Entry:
    content = jpeg(photograph(seed), quality)
    return Entry([(content, name or f"{seed}.jpg")], {"kind": "caption", "caption": text})


def turn(role: str, text: str, picture: bool = False) -> dict[str, Any]:
    shown = [{"type": "image", "i": 0}] if picture else []
    return {"role": role, "content": [*shown, {"type": "text", "text": text}]}


def chat(seed: int, question: str, reply: str, /, **fields: Any) -> Entry:
    messages = [turn("user", question, picture=True), turn("assistant", reply)]
    return Entry([(jpeg(photograph(seed)), f"{seed}.jpg")], {"kind": "chat", "messages": messages, **fields})


def records(home: Path) -> list[Record]:
    shards = ShardSet(home)
    return [shards.read(row)[0] for row in range(len(shards))]


def digests(home: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(home.iterdir())}


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """pope/test with pictures 0 to 4, and mine/train of which two rows show pictures of it."""
    root = tmp_path / "data"
    split(root / "pope/test", [caption(seed, f"eval {seed}") for seed in range(5)], evaluation=True)
    entries = [caption(seed, f"a boat {seed}") for seed in range(20, 26)]
    entries.insert(2, caption(3, "the same file"))
    entries.insert(5, caption(1, "saved anew", quality=40))
    split(root / "mine/train", entries)
    before = digests(root / "mine/train")
    yield root
    assert digests(root / "mine/train") == before, "the input was changed"


def settings(root: Path, /, **keys: Any) -> DedupeSettings:
    return DedupeSettings(**{"dir": root / "mine/train", "workers": 0, **keys})


# the report


def test_without_out_it_only_reports(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(settings(data)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["policy"] == "image"
    assert (told["samples"], told["stay"], told["removed"]) == (8, 6, {"eval_overlap": 2})
    assert told["found"] == {"pope/test by looks": 1, "pope/test by pixels": 1}
    assert told["against"] == ["pope/test"]
    assert told["examples"][0].startswith("row 2: eval_overlap: pope/test by pixels: the same picture as row 3")
    assert sorted(path.name for path in data.iterdir()) == [".cache", "mine", "pope"]


def test_looks_can_be_left_out(data: Path) -> None:
    assert dedupe(settings(data, near=False))["found"] == {"pope/test by pixels": 1}


def test_evaluation_splits_of_the_same_set_are_compared_with_too(data: Path) -> None:
    split(data / "mine/test", [caption(20, "held out")], evaluation=True)
    assert dedupe(settings(data))["against"] == ["mine/test", "pope/test"]
    assert dedupe(settings(data))["removed"] == {"eval_overlap": 3}


def test_a_list_of_numbers_is_enough(data: Path, tmp_path: Path) -> None:
    split(data / "coco/train", [caption(30, "a", "train2017/000000310196.jpg"), caption(31, "b")])
    (tmp_path / "questions.json").write_text('{"questions": [{"image_id": 310196}]}')
    told = dedupe(settings(data, dir=data / "coco/train", against=[str(tmp_path / "questions.json")]))
    assert told["found"] == {"questions.json by id": 1}


# the new split


def test_what_stays_becomes_a_sound_split_with_new_keys_in_the_old_order(data: Path, tmp_path: Path) -> None:
    home = tmp_path / "out/mine/train"
    assert dedupe(settings(data, out=tmp_path / "out"))["out"] == str(home)
    assert verify_shards(home) == []
    found = records(home)
    assert [record.caption for record in found] == [f"a boat {seed}" for seed in range(20, 26)]
    assert [record.key for record in found] == [f"mine-{row:010d}" for row in range(6)]
    assert [record.src.row for record in found] == [0, 1, 3, 4, 6, 7]


def test_the_new_manifest_accounts_for_every_row(data: Path, tmp_path: Path) -> None:
    dedupe(settings(data, out=tmp_path / "out"))
    manifest = read_manifest(tmp_path / "out/mine/train")
    counts = manifest["counts"]
    assert counts["rows_in"] == 8
    assert (counts["samples_out"], counts["media_out"], counts["skipped"]) == (6, 6, {"eval_overlap": 2})
    assert manifest["source"][0]["sha256"] == ShardSet(data / "mine/train").manifest_sha256
    assert manifest["overlap"]["removed"] == {"pope/test by looks": 1, "pope/test by pixels": 1}
    (table,) = manifest["overlap"]["against"]
    assert (table["name"], table["pictures"], table["policy"]) == ("pope/test", 5, "image")
    skipped = [json.loads(line) for line in (tmp_path / "out/mine/train/skipped.jsonl").read_text().splitlines()]
    assert [(line["row"], line["reason"]) for line in skipped] == [(2, "eval_overlap"), (5, "eval_overlap")]


def test_skips_of_the_first_preparation_are_kept(data: Path, tmp_path: Path) -> None:
    dedupe(settings(data, out=tmp_path / "first", against=["pope/test"], near=False))
    told = dedupe(settings(data, dir=tmp_path / "first/mine/train", data=data, out=tmp_path / "second"))
    assert told["removed"] == {"eval_overlap": 1}
    manifest = read_manifest(tmp_path / "second/mine/train")
    assert manifest["counts"]["skipped"] == {"eval_overlap": 2}
    assert verify_shards(tmp_path / "second/mine/train") == []


def test_twice_the_same_gives_the_same_bytes_in_any_number_of_processes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dedupe(settings(data, out=tmp_path / "a", inside=True))
    monkeypatch.setattr(sweep, "ALONE", 0)
    dedupe(settings(data, out=tmp_path / "b", inside=True, workers=2))
    one, two = (tmp_path / name / "mine/train" for name in "ab")
    assert manifest_sha256(read_manifest(one)) == manifest_sha256(read_manifest(two))
    names = ("shard-000000.tar", "index.npy", "skipped.jsonl")
    assert [digests(one)[name] for name in names] == [digests(two)[name] for name in names]


def test_an_interrupted_writing_leaves_nothing_that_looks_finished(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: ShardWriter) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            dedupe(settings(data, out=tmp_path / "out"))
    assert not (tmp_path / "out/mine/train").exists()
    (tmp_path / "out/mine/train").mkdir(parents=True)
    (tmp_path / "out/mine/train/shard-000000.tar.part").write_bytes(b"of a killed one")
    dedupe(settings(data, out=tmp_path / "out"))
    assert verify_shards(tmp_path / "out/mine/train") == []


# its own rows


def test_further_captions_of_a_picture_join_its_first_row(tmp_path: Path) -> None:
    entries = [
        caption(1, "a red boat"),
        caption(2, "a kite"),
        caption(1, "a boat at the pier", "copy.jpg"),
        caption(1, "a red boat", "again.jpg"),
        caption(1, "a boat, red", "last.jpg"),
    ]
    home = split(tmp_path / "data/mine/train", entries)
    told = dedupe(DedupeSettings(home, inside=True, against=[], out=tmp_path / "out", workers=0))
    assert (told["removed"], told["merged"], told["stay"]) == ({"dup_exact": 1}, 2, 2)
    found = records(tmp_path / "out/mine/train")
    assert [record.caption for record in found] == ["a red boat", "a kite"]
    assert found[0].meta == {"alt_captions": ["a boat at the pier", "a boat, red"]}
    assert found[1].meta is None
    assert read_manifest(tmp_path / "out/mine/train")["counts"]["rows_merged"] == 2
    assert verify_shards(tmp_path / "out/mine/train") == []


def test_of_conversations_only_equal_ones_go(tmp_path: Path) -> None:
    entries = [chat(1, "What is it?", "A boat."), chat(1, "What colour?", "Red."), chat(1, "What is it?", "A boat.")]
    home = split(tmp_path / "data/mine/train", entries)
    told = dedupe(DedupeSettings(home, inside=True, against=[], workers=0))
    assert (told["removed"], told["merged"]) == ({"dup_exact": 1}, 0)
    assert told["examples"] == ["row 2: dup_exact: the same as row 0"]


def test_a_training_split_takes_its_pictures_out_of_another(tmp_path: Path) -> None:
    split(tmp_path / "cc3m/train", [caption(seed, "a") for seed in range(4)])
    home = split(tmp_path / "cc12m/train", [caption(seed, "b") for seed in range(2, 8)])
    told = dedupe(DedupeSettings(home, against=["cc3m/train"], workers=0))
    assert told["found"] == {"cc3m/train by pixels": 2}


# questions


def test_by_pairs_only_the_same_question_on_the_same_picture_goes(tmp_path: Path) -> None:
    asked = [turn("user", "Is there a kite in the image?", picture=True)]
    answer = {"type": "yesno", "values": ["no"]}
    fields = {"kind": "chat", "messages": [*asked, turn("assistant", "no")], "answer": answer}
    evaluation = [Entry([(jpeg(photograph(seed)), f"{seed}.jpg")], fields) for seed in (1, 2)]
    split(tmp_path / "pope/test", evaluation, evaluation=True)
    entries = [
        chat(1, "is there a kite in  the image", "No."),
        chat(1, "What is it?", "A boat."),
        chat(9, "Is there a kite in the image?", "No."),
    ]
    home = split(tmp_path / "mine/train", entries)
    told = dedupe(DedupeSettings(home, policy="pair", workers=0, out=tmp_path / "out"))
    assert (told["policy"], told["removed"]) == ("pair", {"eval_overlap": 1})
    assert told["examples"][0].startswith("row 0: ")
    assert read_manifest(tmp_path / "out/mine/train")["overlap"]["against"][0]["policy"] == "pair"
    assert dedupe(DedupeSettings(home, workers=0))["removed"] == {"eval_overlap": 2}


def test_a_question_with_the_same_choices_goes_whatever_it_is_shown_with(tmp_path: Path) -> None:
    def choice(seed: int, question: str, choices: list[str]) -> Entry:
        answer = {"type": "choice", "values": ["A"], "choices": choices, "index": 0}
        return chat(seed, question, choices[0], answer=answer)

    split(tmp_path / "ai2d/test", [choice(1, "Which eats grass?", ["hare", "fox", "owl"])], evaluation=True)
    entries = [
        choice(8, "Which eats grass", ["Owl", "hare", "fox"]),
        choice(8, "Which eats grass?", ["hare", "fox", "elk"]),
        chat(8, "Which eats grass?", "hare"),
    ]
    home = split(tmp_path / "mine/train", entries)
    told = dedupe(DedupeSettings(home, workers=0))
    assert told["found"] == {"ai2d/test by text": 1}
    assert told["examples"][0].startswith("row 0: ")


# refused


def refusal(settings: DedupeSettings) -> str:
    with pytest.raises(InputError) as caught:
        dedupe(settings)
    return str(caught.value)


def test_it_never_writes_onto_a_prepared_split(data: Path, tmp_path: Path) -> None:
    assert "the split itself" in refusal(settings(data, out=data))
    dedupe(settings(data, out=tmp_path / "out"))
    assert "holds a prepared split" in refusal(settings(data, out=tmp_path / "out"))


def test_nothing_to_compare_with_is_refused(tmp_path: Path) -> None:
    home = split(tmp_path / "mine/train", [caption(1, "a")])
    assert "nothing to compare mine/train with" in refusal(DedupeSettings(home))
    assert "compare its own rows with inside=true" in refusal(DedupeSettings(home, against=["mine/train"]))


def test_pairs_need_questions(data: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("000000310196\n")
    assert "policy=pair needs questions" in refusal(
        settings(data, policy="pair", against=[str(tmp_path / "names.txt")])
    )


def test_a_split_that_would_be_empty_is_refused(data: Path, tmp_path: Path) -> None:
    copy = split(tmp_path / "copy/train", [caption(seed, "a") for seed in range(3)])
    assert "would have no rows left" in refusal(settings(data, dir=copy, data=data, out=tmp_path / "out"))
    assert not (tmp_path / "out/copy/train").exists()
