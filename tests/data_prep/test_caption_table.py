"""A user's own pictures and captions, with everything that may be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from data_prep.convert import only_one
from tests.data_prep.conftest import encoded, picture, verify_shards
from vlm.contracts.errors import InputError, RunError
from vlm.data.pictures import open_picture
from vlm.data.shards import ShardSet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 good rows, then whatever a test adds."""
    home = tmp_path / "mine"
    (home / "im").mkdir(parents=True)
    rows = ["picture\tcaption"]
    for number in range(60):
        (home / "im" / f"k{number}.png").write_bytes(encoded(picture(number)))
        rows.append(f"im/k{number}.png\ta kite number {number}")
    (home / "captions.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    return home


def add(folder: Path, *rows: str) -> None:
    with (folder / "captions.tsv").open("a", encoding="utf-8") as stream:
        stream.write("".join(row + "\n" for row in rows))


def all_samples(out: Path) -> dict[str, tuple[ShardSet, int]]:
    """caption -> where it lies."""
    found = {}
    for split in ("train", "val"):
        shards = ShardSet(out / "caption_table" / split)
        found |= {str(shards[row].turns[-1].parts[0]): (shards, row) for row in range(len(shards))}
    return found


def skips(out: Path) -> dict[str, str]:
    lines = (out / "caption_table" / "train" / "skipped.jsonl").read_text().splitlines()
    return {f"{row['id']}@{row['row']}": row["reason"] for row in map(json.loads, lines)}


def test_every_row_becomes_a_sample_in_one_of_two_splits(prepare, folder: Path, tmp_path: Path) -> None:
    manifests = prepare("caption_table", folder)
    assert {m["split"] for m in manifests} == {"train", "val"}
    assert sum(m["counts"]["samples_out"] for m in manifests) == 60
    assert set(all_samples(tmp_path / "out")) == {f"a kite number {number}" for number in range(60)}
    for manifest in manifests:
        assert verify_shards(tmp_path / "out" / "caption_table" / manifest["split"]) == []


def test_counts_add_up_whatever_was_skipped_or_merged(prepare, folder: Path) -> None:
    add(
        folder, "im/k0.png\tanother text", "im/k1.png\t", "im/none.png\ta lost one", "im/k2.png\ta kite number 2", "\t?"
    )
    budget = [f"++source.budget.{reason}=10" for reason in ("text_empty", "media_missing", "row_malformed")]
    manifests = prepare("caption_table", folder, *budget)
    counts = [m["counts"] for m in manifests]
    assert sum(c["rows_in"] for c in counts) == 65
    for c in counts:
        assert c["rows_in"] + c["rows_split"] == c["samples_out"] + sum(c["skipped"].values()) + c["rows_merged"]
    skipped = {reason: n for c in counts for reason, n in c["skipped"].items()}
    assert skipped == {"text_empty": 1, "media_missing": 1, "dup_exact": 1, "row_malformed": 1}


def test_each_fault_is_skipped_by_its_name(prepare, folder: Path, tmp_path: Path) -> None:
    faults = {
        "cut.png": encoded(picture(90, 200, 200))[:900],
        "page.png": b"<html>not found</html>",
        "dot.png": encoded(picture(91, 1, 1)),
        "thin.png": encoded(picture(92, 2000, 30)),
        "plain.png": encoded(Image.new("RGB", (40, 40), "white")),
        "other.png": b"not a picture",
    }
    for name, data in faults.items():
        (folder / "im" / name).write_bytes(data)
        add(folder, f"im/{name}\t{name}")
    (folder / "im" / "long.png").write_bytes(encoded(picture(93)))
    add(folder, "im/long.png\t" + "word " * 10_000)
    reasons = ["media_truncated", "media_undecodable", "media_is_html", "media_tiny", "media_aspect", "media_blank"]
    prepare("caption_table", folder, *[f"++source.budget.{reason}=20" for reason in [*reasons, "text_long"]])
    assert skips(tmp_path / "out") == {
        "im/cut.png@61": "media_truncated",
        "im/page.png@62": "media_is_html",
        "im/dot.png@63": "media_tiny",
        "im/thin.png@64": "media_aspect",
        "im/plain.png@65": "media_blank",
        "im/other.png@66": "media_undecodable",
        "im/long.png@67": "text_long",
    }


def test_a_spent_budget_stops_with_rows_and_remedy_and_leaves_nothing(prepare, folder: Path, tmp_path: Path) -> None:
    add(folder, "im/none.png\ta lost one", "im/gone.png\tanother")
    with pytest.raises(
        InputError, match=r"media_missing: 2 of 62 rows(.|\n)*row 61 (.|\n)*source.budget.media_missing="
    ) as caught:
        prepare("caption_table", folder)
    (refused,) = [path for path in (tmp_path / "out" / "caption_table").iterdir()]
    assert str(refused) in str(caught.value)
    rows = [json.loads(line) for line in refused.read_text().splitlines()]
    assert [(row["row"], row["id"], row["reason"]) for row in rows] == [
        (61, "im/none.png", "media_missing"),
        (62, "im/gone.png", "media_missing"),
    ]
    assert prepare("caption_table", folder, "++source.budget.media_missing=5")
    assert not refused.exists()


@pytest.mark.parametrize("name", ["im/none.png", "n" * 300, "im"])
def test_one_bad_picture_among_a_few_is_counted(prepare, folder: Path, tmp_path: Path, name: str) -> None:
    add(folder, f"{name}\ta lost one")
    prepare("caption_table", folder)
    assert skips(tmp_path / "out") == {f"{name}@61": "media_missing"}


def test_every_caption_of_a_picture_obeys_max_words(prepare, folder: Path, tmp_path: Path) -> None:
    add(folder, "im/k3.png\t" + "word " * 300, "im/k3.png\ta red kite")
    manifests = prepare("caption_table", folder)
    shards, row = all_samples(tmp_path / "out")["a kite number 3"]
    assert shards[row].meta["captions"] == ["a kite number 3", "a red kite"]
    assert sum(m["counts"]["repaired"].get("caption_too_long", 0) for m in manifests) == 1


def test_only_line_ends_of_files_end_a_row(prepare, folder: Path, tmp_path: Path) -> None:
    (folder / "im" / "new.png").write_bytes(encoded(picture(99)))
    add(folder, "im/new.png\ta kite\u2028in two lines\r")
    prepare("caption_table", folder)
    assert "a kite in two lines" in all_samples(tmp_path / "out")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("../secret.png\ta", r"line 62: \.\./secret.png leaves"),
        ("/etc/secret.png\ta", r"line 62: /etc/secret.png leaves"),
        ("https://pics.example/1.png\ta", r"line 62: https.* is an address"),
    ],
)
def test_a_path_that_leaves_the_folder_is_refused_at_once(prepare, folder: Path, row: str, message: str) -> None:
    add(folder, row)
    with pytest.raises(InputError, match=message):
        prepare("caption_table", folder)


def test_a_folder_without_exactly_one_table_is_refused(prepare, folder: Path, tmp_path: Path) -> None:
    (folder / "more.csv").write_text("a,b\n")
    with pytest.raises(InputError, match=r"exactly one table.*captions.tsv, more.csv"):
        prepare("caption_table", folder)
    with pytest.raises(InputError, match="is not there; give the folder"):
        prepare("caption_table", tmp_path / "nowhere")


def test_a_table_of_another_form_is_refused_by_its_row(prepare, folder: Path) -> None:
    (folder / "captions.tsv").write_text("im/k0.png a kite\n")
    with pytest.raises(InputError, match="line 1 has no tab"):
        prepare("caption_table", folder)
    (folder / "captions.tsv").write_bytes(b"im/k0.png\ta kite\nim/k1.png\t\xff\n")
    with pytest.raises(InputError, match=r"line 2: not UTF-8 .* save the table as UTF-8"):
        prepare("caption_table", folder)
    (folder / "captions.tsv").write_bytes(b"im/k0.png\ta kite\nim/k\0.png\ta kite\n")
    with pytest.raises(InputError, match="line 2: a NUL byte"):
        prepare("caption_table", folder)


def test_a_table_with_commas_may_quote_its_captions(prepare, folder: Path, tmp_path: Path) -> None:
    lines = [f'im/k{number}.png,"kite {number}, red"' for number in range(60)]
    (folder / "captions.tsv").unlink()
    (folder / "captions.csv").write_text("image,caption\n" + "\n".join(lines))
    prepare("caption_table", folder)
    assert "kite 7, red" in all_samples(tmp_path / "out")


def test_several_captions_of_a_picture_stay_together(prepare, folder: Path, tmp_path: Path) -> None:
    add(folder, "im/k3.png\ta red kite")
    prepare("caption_table", folder)
    shards, row = all_samples(tmp_path / "out")["a kite number 3"]
    assert shards[row].meta["captions"] == ["a kite number 3", "a red kite"]
    assert shards.manifest["several_captions"]


def test_pictures_are_stored_as_they_are_where_that_is_possible(prepare, folder: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = encoded(picture(101), "JPEG")
    files = {
        "plain.jpg": jpeg,
        "grey.jpg": encoded(picture(102, mode="L"), "JPEG"),
        "cmyk.jpg": encoded(picture(103, mode="CMYK"), "JPEG"),
        "turned.jpg": encoded(picture(104, 60, 40), "JPEG", exif=exif),
        "large.jpg": encoded(picture(105, 2000, 1000), "JPEG"),
        "clear.png": encoded(picture(106, mode="RGBA")),
        "palette.png": encoded(picture(107, mode="P")),
    }
    for name, data in files.items():
        (folder / "im" / name).write_bytes(data)
        add(folder, f"im/{name}\t{name}")
    prepare("caption_table", folder)
    samples = all_samples(tmp_path / "out")
    stored = {name: samples[name][0][samples[name][1]].media[0].data for name in files}
    opened = {name: open_picture(data, name) for name, data in stored.items()}
    assert stored["plain.jpg"] == jpeg
    assert opened["grey.jpg"].mode == "L"
    assert opened["turned.jpg"].size == (40, 60)
    assert opened["large.jpg"].size == (1536, 768)
    assert all(opened[name].mode == "RGB" for name in files if name != "grey.jpg")
    assert all(data.startswith(b"\xff\xd8") for data in stored.values())


def test_the_same_input_gives_the_same_bytes(prepare, folder: Path, tmp_path: Path) -> None:
    first = prepare("caption_table", folder, f"out={tmp_path / 'a'}")
    second = prepare("caption_table", folder, f"out={tmp_path / 'b'}")
    for one, other in zip(first, second, strict=True):
        assert one.pop("created")
        assert other.pop("created")
        assert one == other


def test_a_second_call_finds_the_set_prepared(prepare, folder: Path, tmp_path: Path) -> None:
    first = prepare("caption_table", folder)
    shard = tmp_path / "out/caption_table/train/shard-000000.tar"
    written = shard.stat().st_mtime_ns
    assert prepare("caption_table", folder) == first
    assert shard.stat().st_mtime_ns == written


def test_another_configuration_or_another_table_is_refused(prepare, folder: Path) -> None:
    prepare("caption_table", folder)
    with pytest.raises(
        InputError,
        match=r"other settings.*captions.tsv(.|\n)*rm -r .* && python -m .* source=caption_table .*from=.*\n.*\n.* out=ANOTHER_FOLDER",
    ):
        prepare("caption_table", folder, "source.pictures.max_side=64")
    add(folder, "im/k3.png\ta red kite")
    with pytest.raises(InputError, match=r"from another .*captions.tsv"):
        prepare("caption_table", folder)


def test_an_interrupted_preparation_leaves_nothing_that_a_reader_takes(prepare, folder, tmp_path, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data_prep.writing.assembly.write_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare("caption_table", folder)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"is not finished.*make data SOURCE=caption_table"):
        ShardSet(tmp_path / "out/caption_table/train")
    assert prepare("caption_table", folder)


def test_a_full_disk_is_told_and_gives_its_space_back(prepare, folder: Path, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "shard-000000.tar.part")

    monkeypatch.setattr("data_prep.writing.shard.Growing.write", full)
    with pytest.raises(RunError, match=r"No space left on device: shard.*out=DIR"):
        prepare("caption_table", folder)
    assert not list((tmp_path / "out").rglob("*.*"))


def test_a_place_that_cannot_be_written_is_told(prepare, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file.*out=DIR"):
        prepare("caption_table", folder, f"out={tmp_path / 'file'}")


def test_two_processes_never_write_the_same_set(prepare, folder: Path, tmp_path: Path) -> None:
    with (
        only_one(tmp_path / "out/caption_table"),
        pytest.raises(InputError, match="is being prepared by another process"),
    ):
        prepare("caption_table", folder)
    assert prepare("caption_table", folder)


def test_too_few_pictures_for_a_validation_split_are_refused(prepare, folder: Path, tmp_path: Path) -> None:
    (folder / "captions.tsv").write_text("im/k0.png\ta kite\n")
    with pytest.raises(InputError, match=r"would hold no samples.*lower source.holdout.every"):
        prepare("caption_table", folder)
    assert not (tmp_path / "out" / "caption_table").exists()


def test_a_dry_run_counts_and_writes_nothing(prepare, folder: Path, tmp_path: Path) -> None:
    (told,) = prepare("caption_table", folder, "dry_run=true")
    assert sum(split["rows_in"] for split in told["splits"].values()) == 60
    assert not (tmp_path / "out").exists()
