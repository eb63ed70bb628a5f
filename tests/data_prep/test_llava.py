"""LLaVA's published files in their own form, with their known traps."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_prep.rows import Inputs, Row, Skip
from data_prep.sets.llava import Llava
from tests.data_prep.conftest import encoded, picture, verify_shards
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Sample, Turn
from vlm.data.shards import ShardSet

EVERY = "++source.holdout.every=4"  # of so few rows, some must be kept out
LOOSE = [f"++source.budget.{reason}=60" for reason in ("placeholder_mismatch", "turns_bad", "row_malformed")]
LOOSE += [f"++source.budget.{reason}=60" for reason in ("text_empty", "media_missing", "media_is_html")]


def said(*texts: str) -> list[dict[str, str]]:
    """Question, answer, question, answer …"""
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


def row(number: int, *texts: str, **more: Any) -> dict[str, Any]:
    name = f"{900_000 + number:012d}"
    texts = texts or (f"<image>\nWhat is in picture {number}?", f"A boat, number {number}.")
    return {"id": name, "image": f"{name}.jpg", "conversations": said(*texts), **more}


def write(path: Path, rows: list[Any]) -> None:
    path.write_text(json.dumps(rows), encoding="utf-8")


def photographs(count: int, folder: str = "", first: int = 900_000) -> dict[str, bytes]:
    return {f"{folder}{first + n:012d}.jpg": encoded(picture(n), "JPEG", quality=90) for n in range(count)}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """The 150K file's form: 24 rows, names without folder, pictures in train2017."""
    home = tmp_path / "published"
    (home / "train2017").mkdir(parents=True)
    for name, data in photographs(24).items():
        (home / "train2017" / name).write_bytes(data)
    write(home / "llava_instruct_150k.json", [row(number) for number in range(24)])
    return home


def samples(out: Path, source: str) -> dict[str, Sample]:
    """The source's id -> the sample, of both splits."""
    found = {}
    for split in ("train", "val"):
        shards = ShardSet(out / source / split)
        for number in range(len(shards)):
            found[shards.read(number)[0].src.id] = shards[number]
    return found


def skipped(out: Path, source: str) -> dict[int, str]:
    lines = (out / source / "train" / "skipped.jsonl").read_text().splitlines()
    return {entry["row"]: entry["reason"] for entry in map(json.loads, lines)}


def repaired(manifests: list[dict[str, Any]]) -> dict[str, int]:
    names = {name for manifest in manifests for name in manifest["counts"]["repaired"]}
    return {name: sum(m["counts"]["repaired"].get(name, 0) for m in manifests) for name in names}


def settings(**changes: Any) -> Llava:
    given: dict[str, Any] = {"file": "rows.json", "also": [], "pictures": ["."], "pictures_in": None}
    given |= {"kind": "chat", "turns": "all", "text_rows": False, "license": "CC-BY-4.0"}
    return Llava(**given | changes)


def read(home: Path, rows: list[Any], **changes: Any) -> Iterator[Row | Skip]:
    write(home / "rows.json", rows)
    return settings(**changes).rows(Inputs({"from": home}))


# The 150K file


def test_every_talk_keeps_its_turns_and_shows_its_picture_where_the_placeholder_stood(
    prepare, coco: Path, tmp_path: Path
) -> None:
    rows = [row(number) for number in range(24)]
    rows[5] = row(5, "<image>\nWhat is it?", "A kite.", "Is it up?", "Yes.")
    rows[6] = row(6, "What is it?\n<image>", "A mill.")
    write(coco / "llava_instruct_150k.json", rows)
    manifests = prepare("llava_instruct_150k", coco, EVERY)
    found = samples(tmp_path / "out", "llava_instruct_150k")
    assert found["000000900005"].turns == (
        Turn("user", (0, "What is it?")),
        Turn("assistant", ("A kite.",)),
        Turn("user", ("Is it up?",)),
        Turn("assistant", ("Yes.",)),
    )
    assert found["000000900006"].turns[0] == Turn("user", ("What is it?", 0))
    assert len(found) == 24
    assert found["000000900006"].media[0].data == (coco / "train2017" / "000000900006.jpg").read_bytes()
    for manifest in manifests:
        assert verify_shards(tmp_path / "out" / "llava_instruct_150k" / manifest["split"]) == []
        assert manifest["license"]["counts"] == {"CC-BY-4.0": manifest["counts"]["samples_out"]}
        assert manifest["license"]["flags"] == {"model_output": ["CC-BY-4.0"], "no_media_rights": ["CC-BY-4.0"]}


def test_the_picture_keeps_its_coco_number_and_all_talks_about_one_stay_on_one_side(
    prepare, coco: Path, tmp_path: Path
) -> None:
    again = [row(number, "<image>\nAgain?", "Yes.") | {"id": f"again-{number}"} for number in range(24)]
    write(coco / "llava_instruct_150k.json", [row(number) for number in range(24)] + again)
    prepare("llava_instruct_150k", coco, EVERY)
    names = []
    for split in ("train", "val"):
        shards = ShardSet(tmp_path / "out" / "llava_instruct_150k" / split)
        names.append({shards.read(number)[0].media[0].orig for number in range(len(shards))})
    assert names[0] | names[1] == {f"{900_000 + number:012d}.jpg" for number in range(24)}
    assert not names[0] & names[1]


@pytest.mark.parametrize("folder", ["", "train2017/"])
def test_coco_is_read_from_its_zip_with_or_without_its_folder(prepare, coco: Path, tmp_path: Path, folder: str) -> None:
    (coco / "train2017").rename(tmp_path / "unused")
    with zipfile.ZipFile(coco / "train2017.zip", "w") as archive:
        for name, data in photographs(24, folder).items():
            archive.writestr(name, data)
    manifests = prepare("llava_instruct_150k", coco, EVERY)
    assert sum(manifest["counts"]["samples_out"] for manifest in manifests) == 24
    assert [file["file"] for file in manifests[0]["source"]] == ["train2017.zip", "llava_instruct_150k.json"]


def test_the_pictures_may_lie_elsewhere(prepare, coco: Path, tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (coco / "train2017").rename(tmp_path / "coco" / "train2017")
    with pytest.raises(InputError, match=r"looked for train2017, coco/train2017.*source.reader.pictures_in=DIR"):
        prepare("llava_instruct_150k", coco, EVERY)
    given = f"source.reader.pictures_in={tmp_path / 'coco'}"
    manifests = prepare("llava_instruct_150k", coco, EVERY, given)
    assert sum(manifest["counts"]["samples_out"] for manifest in manifests) == 24


def test_first_turns_alone_serve_alignment(prepare, coco: Path, tmp_path: Path) -> None:
    rows = [row(number, "<image>\nWhat?", "A boat.", "Why?", "So.") for number in range(24)]
    write(coco / "llava_instruct_150k.json", rows)
    manifests = prepare("llava_instruct_150k", coco, EVERY, "source.reader.turns=first")
    found = samples(tmp_path / "out", "llava_instruct_150k").values()
    assert {sample.turns for sample in found} == {(Turn("user", (0, "What?")), Turn("assistant", ("A boat.",)))}
    assert repaired(manifests) == {"later_turns_dropped": 24}


def test_first_turns_do_not_lose_a_picture_that_is_shown_later(coco: Path) -> None:
    names = ["train2017/000000900000.jpg", "train2017/000000900001.jpg"]
    rows = [row(0, "<image>What?", "A boat.", "<image>And?", "A kite.", image=names)]
    (skip,) = read(coco, rows, turns="first")
    assert isinstance(skip, Skip)
    assert skip.reason == "placeholder_mismatch"


def test_each_fault_is_skipped_by_its_name(prepare, coco: Path, tmp_path: Path) -> None:
    rows: list[Any] = [row(number) for number in range(24)]
    faults: list[tuple[Any, str]] = [
        (row(1, "<image><image>\nWhat?", "A boat."), "placeholder_mismatch"),
        (row(1, "Draw it.", "<image>"), "placeholder_mismatch"),
        (row(999), "media_missing"),
        (row(1, image="train2017/000000900001.jpg"), "media_missing"),  # 665K's path in the 150K's folder
        ({key: value for key, value in row(1).items() if key != "image"}, "media_missing"),
        (row(1, "What?", "A boat.", image=None), "media_missing"),
        (row(1, image=7), "row_malformed"),
        (row(1, image=""), "row_malformed"),
        (row(1, id=None), "row_malformed"),
        (row(1, id=True), "row_malformed"),
        (row(1, conversations="What?"), "row_malformed"),
        (row(1, conversations=[]), "turns_bad"),
        (row(1, conversations=said("What?")), "turns_bad"),
        (row(1, conversations=said("What?", "A boat.")[::-1]), "turns_bad"),
        (row(1, "<image>\nWhat?", " "), "text_empty"),
        (row(1, caption="A boat."), "row_malformed"),
        ({"id": "1", "image": "000000900001.jpg"}, "row_malformed"),
        ("no row", "row_malformed"),
        (None, "row_malformed"),
    ]
    (coco / "train2017" / "000000900002.jpg").write_text("<html>gone</html>")
    write(coco / "llava_instruct_150k.json", rows + [fault for fault, _ in faults])
    prepare("llava_instruct_150k", coco, EVERY, *LOOSE)
    expected = {24 + number: reason for number, (_, reason) in enumerate(faults)} | {2: "media_is_html"}
    assert skipped(tmp_path / "out", "llava_instruct_150k") == expected


def test_a_missing_placeholder_is_added_and_counted(prepare, coco: Path, tmp_path: Path) -> None:
    write(coco / "llava_instruct_150k.json", [row(number, "What?", "A boat.") for number in range(24)])
    manifests = prepare("llava_instruct_150k", coco, EVERY)
    assert repaired(manifests) == {"placeholder_added": 24}
    assert {s.turns[0] for s in samples(tmp_path / "out", "llava_instruct_150k").values()} == {
        Turn("user", (0, "What?"))
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"id": "1", "image": "1.jpg", "caption": "a boat", "url": "x"}],
            r"row 0 .*has no conversations and has a key",
        ),
        ([row(0, model="")], r"has a key 'model'.*source.reader.also=\[KEY\]"),
        (["no row"], "row 0 .* is 'no row'; expected"),
        ([row(0, conversations=[{"from": "bot", "value": "x"}])], "row 0 .*: role 'bot' is unknown"),
        ([row(0, image="../x.jpg")], r"row 0 .*: ../x.jpg leaves"),
        ([row(0, image="/x.jpg")], r"row 0 .*: /x.jpg leaves"),
        ([row(0, image="https://pics.example/x.jpg")], "row 0 .*is an address"),
    ],
)
def test_what_no_budget_covers_is_refused_at_once(coco: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read(coco, rows))


def test_json_lines_where_an_array_is_published_are_refused(prepare, coco: Path) -> None:
    lines = "\n".join(json.dumps(row(number)) for number in range(24))
    (coco / "llava_instruct_150k.json").write_text(lines)
    with pytest.raises(InputError, match=r"holds one JSON object a line; expected one JSON array.*source=chat_jsonl"):
        prepare("llava_instruct_150k", coco)


def test_a_missing_or_cut_file_is_refused(prepare, coco: Path) -> None:
    path = coco / "llava_instruct_150k.json"
    path.write_text(path.read_text()[:-200])
    with pytest.raises(InputError, match=r"llava_instruct_150k.json row \d+ .*rows before it are\s+whole"):
        prepare("llava_instruct_150k", coco)
    path.unlink()
    with pytest.raises(InputError, match=r"llava_instruct_150k.json is missing.*source.reader.file=NAME"):
        prepare("llava_instruct_150k", coco)


def test_another_number_of_rows_than_published_is_told(prepare, coco: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifests = prepare("llava_instruct_150k", coco, EVERY, *LOOSE)
    found = sum(manifest["counts"]["rows_in"] for manifest in manifests)
    assert f"llava_instruct_150k has {found} rows, its page says 157,712" in caplog.text
    assert {manifest["expected"]["source_rows"] for manifest in manifests} == {157_712}


# The 665K mix


def test_the_665k_mix_has_folders_text_rows_and_pictures_whose_suffix_lies(prepare, coco: Path, tmp_path: Path) -> None:
    mix = [row(number, image=f"coco/train2017/{900_000 + number:012d}.jpg") for number in range(24)]
    mix += [row(24, image="ocr_vqa/images/0001.jpg"), row(25, image="ocr_vqa/images/0002.jpg")]
    talk = said("Name a warm colour.", "Orange.")
    mix += [{"id": f"talk_{number}", "model": "", "conversations": talk} for number in range(3)]
    mix += [{"id": "talk_3", "model": "m1", "conversations": talk}]
    mix += [{"id": "talk_4", "conversations": said("What is <image>?", "A tag.")}]
    write(coco / "llava_v1_5_mix665k.json", mix)
    (coco / "coco").mkdir()
    (coco / "train2017").rename(coco / "coco" / "train2017")
    (coco / "ocr_vqa" / "images").mkdir(parents=True)
    (coco / "ocr_vqa" / "images" / "0001.jpg").write_bytes(encoded(picture(101), "PNG"))
    (coco / "ocr_vqa" / "images" / "0002.jpg").write_bytes(encoded(picture(102), "GIF"))
    keys = ["file=llava_v1_5_mix665k.json", "also=[model]", "pictures=[.]", "text_rows=true"]
    manifests = prepare("llava_instruct_150k", coco, EVERY, *(f"source.reader.{key}" for key in keys), *LOOSE)
    found = samples(tmp_path / "out", "llava_instruct_150k")
    assert len(found) == 30
    assert found["talk_0"].media == ()
    assert found["talk_0"].turns[0] == Turn("user", ("Name a warm colour.",))
    assert found["talk_3"].meta == {"model": "m1"}
    assert skipped(tmp_path / "out", "llava_instruct_150k") == {30: "media_missing"}
    forms = {name for manifest in manifests for name in manifest["image_hist"]["format"]}
    assert forms == {"JPEG", "PNG", "GIF"}


def test_an_id_may_be_a_number_and_need_not_be_unique(coco: Path) -> None:
    image = "train2017/000000900000.jpg"
    rows = list(read(coco, [row(0, id=7, image=image), row(0, id="7", image=image), row(0, id=0, image=[image])]))
    assert [(found.origin.row, found.origin.id) for found in rows] == [(0, "7"), (1, "7"), (2, "0")]
    assert all(isinstance(found, Row) for found in rows)


# The two pretraining sets


def captions_558k(home: Path) -> list[dict[str, Any]]:
    rows = []
    with zipfile.ZipFile(home / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(24):
            name = f"{number % 3:05d}/{number:09d}.jpg"
            archive.writestr(name, encoded(picture(number), "JPEG"))
            prompt = "Say what you see.\n<image>" if number % 2 else "<image>\nSay what you see."
            talk = said(prompt, f" a boat\n and  kite {number} ")
            rows.append({"id": f"{number:09d}", "image": name, "conversations": talk})
    return rows


def test_558k_gives_captions_without_their_prompts_from_the_zip_in_place(prepare, tmp_path: Path) -> None:
    home = tmp_path / "published"
    home.mkdir()
    write(home / "blip_laion_cc_sbu_558k.json", captions_558k(home))
    manifests = prepare("llava_pretrain_558k", home, EVERY)
    found = samples(tmp_path / "out", "llava_pretrain_558k")
    assert found["000000007"].turns == (Turn("user", (0,)), Turn("assistant", ("a boat and kite 7",)))
    assert len(found) == 24
    assert repaired(manifests) == {"prompt_dropped": 24}
    assert manifests[0]["license"]["flags"] == {"no_media_rights": ["LicenseRef-LLaVA-Pretrain"]}
    assert not list(home.rglob("*.jpg"))


def test_595k_gives_captions_of_pictures_that_lie_flat(prepare, tmp_path: Path) -> None:
    home = tmp_path / "published"
    (home / "images").mkdir(parents=True)
    rows = []
    for number in range(24):
        name = f"GCC_train_{number:09d}"
        (home / "images" / f"{name}.jpg").write_bytes(encoded(picture(number), "JPEG"))
        prompt = "Tell me of this picture.\n<image>" if number % 2 else "<image>\nTell me of this picture."
        rows.append(
            {"id": name, "image": f"{name}.jpg", "conversations": said(prompt, f"kettle {number} on a stove .")}
        )
    write(home / "chat.json", rows)
    manifests = prepare("llava_pretrain_595k", home, EVERY)
    found = samples(tmp_path / "out", "llava_pretrain_595k")
    assert found["GCC_train_000000004"].turns[1] == Turn("assistant", ("kettle 4 on a stove .",))
    assert repaired(manifests) == {"prompt_dropped": 24}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conversations": said("<image>What?", "A boat.", "Why?", "So.")}, "turns_bad"),
        ({"conversations": said("<image>What?", "")}, "text_empty"),
        ({"conversations": said("<image>What?", "A <image>.")}, "placeholder_mismatch"),
        ({"conversations": said("<image><image>What?", "A boat.")}, "placeholder_mismatch"),
        ({"image": ["1.jpg", "2.jpg"]}, "placeholder_mismatch"),
        ({"image": None}, "media_missing"),
        ({"conversations": None}, "row_malformed"),
    ],
)
def test_a_caption_is_one_answer_about_one_picture(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    (skip,) = read(tmp_path, [row(0) | change], kind="caption")
    assert isinstance(skip, Skip)
    assert skip.reason == reason


def test_a_half_unpacked_set_does_not_train_on_its_half_without_a_word(prepare, tmp_path: Path) -> None:
    home = tmp_path / "published"
    home.mkdir()
    rows = captions_558k(home)
    write(home / "blip_laion_cc_sbu_558k.json", [*rows[:12], *({**r, "image": f"x{r['image']}"} for r in rows[12:])])
    with pytest.raises(InputError, match="media_missing: 12 of 24 rows"):
        prepare("llava_pretrain_558k", home, EVERY)
