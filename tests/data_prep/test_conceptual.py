"""Lists of captions and addresses, and what img2dataset makes of them; it is run itself in test_img2dataset.py."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from data_prep.reading import img2dataset_output, links
from data_prep.rows import Unfit
from tests.data_prep.conftest import encoded, picture
from vlm.contracts.errors import InputError
from vlm.data.pictures import open_picture
from vlm.data.shards import ShardSet

CC3M, CC3M_VAL, CC12M = "Train_GCC-training.tsv", "Validation_GCC-1.1.0-Validation.tsv", "cc12m.tsv"
TRAIN_ONLY = ("source.reader.lists.val=null", "source.holdout={split: val, every: 4}")


def caption(number: int) -> str:
    return f'a boat numbered " {number} , tied to a pier .'


def address(number: int) -> str:
    return f"http://pics.example/boats/{number}.jpg"


def write_list(path: Path, rows: int, swapped: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [(caption(number), address(number)) for number in range(rows)]
    path.write_text("".join("\t".join(row[::-1] if swapped else row) + "\n" for row in fields), "utf-8")
    return path


def shard(folder: Path, name: str, rows: list[dict[str, Any]], count: int | None = None) -> None:
    """As img2dataset 1.47 writes it: tar and table in the order of arrival, here from the last to the first."""
    folder.mkdir(parents=True, exist_ok=True)
    table = []
    with tarfile.open(folder / f"{name}.tar", "w") as archive:
        for position, row in reversed(list(enumerate(rows))):
            data = row.pop("data", None)
            width, height = (None, None) if data is None else Image.open(io.BytesIO(data)).size
            entry = {
                "caption": None, "url": None, "key": f"{name}{position:04d}", "status": "success", "error_message": None,
                "width": width, "height": height, "original_width": width, "original_height": height, "exif": "{}",
                "sha256": None if data is None else hashlib.sha256(data).hexdigest(), **row,
            }  # fmt: skip
            table.append(entry)
            members = {} if data is None else {"jpg": data, "json": json.dumps(entry).encode(), "txt": b"text"}
            for ending, content in members.items():
                info = tarfile.TarInfo(f"{entry['key']}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    kinds = {"width": pa.int32(), "height": pa.int32(), "original_width": pa.int32(), "original_height": pa.int32()}
    kinds["row"] = pa.int64()
    schema = pa.schema([(column, kinds.get(column, pa.string())) for column in table[0]])
    parquet.write_table(pa.Table.from_pylist(table, schema), folder / f"{name}.parquet")
    (folder / f"{name}_stats.json").write_text(json.dumps({"count": count or len(rows), "successes": 1}))


def good(number: int, **more: Any) -> dict[str, Any]:
    return {"caption": caption(number), "url": address(number), "data": encoded(picture(number), "JPEG"), **more}


def dead(number: int, message: str = "HTTP Error 404: Not Found", status: str = "failed_to_download") -> dict[str, Any]:
    return {"caption": caption(number), "url": address(number), "status": status, "error_message": message}


def skips(out: Path, split: str = "train") -> list[tuple[int, str, str]]:
    lines = (out / split / "skipped.jsonl").read_text().splitlines()
    return [(row["row"], row["reason"], row["detail"]) for row in map(json.loads, lines)]


# --- the list


def test_the_captions_tabs_stay_and_the_address_is_at_its_end(tmp_path: Path) -> None:
    row = f"one\ttwo\t{address(1)}\n"
    path = tmp_path / CC3M
    path.write_text(row)
    assert list(links.LinkList((path,), "caption_first").links()) == [(0, (address(1), "one\ttwo"))]
    path.write_text(f"{address(1)}\tone\ttwo <PERSON>\n")
    assert list(links.LinkList((path,), "address_first").links()) == [(0, (address(1), "one\ttwo <PERSON>"))]


@pytest.mark.parametrize(
    ("source", "name", "looks"),
    [("cc3m", CC3M, "CC12M order .address first"), ("cc12m", CC12M, "CC3M order .caption first")],
)
def test_swapped_columns_are_refused_before_anything_is_fetched(prepare, tmp_path, source, name, looks) -> None:
    write_list(tmp_path / "in" / name, 20, swapped=source == "cc3m")
    write_list(tmp_path / "in" / CC3M_VAL, 20)
    with pytest.raises(InputError, match=rf"columns are swapped: this looks like {looks}"):
        prepare(source, tmp_path / "in", "dry_run=true")
    with pytest.raises(InputError, match="columns are swapped"):
        prepare(source, tmp_path / "in")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([f"{address(1)}\t{address(2)}"], r"100% of the first and 100% of the last fields are addresses"),
        (["one\ttwo", f"one\t{address(1)}"], r"0% of the first and 50% of the last.*Row 0: one<TAB>two"),
        (["a caption and no tab"], "none of the first 1000 rows has a tab"),
        (["caption,image_url"], "none of the first 1000 rows has a tab"),
    ],
)
def test_a_list_whose_columns_cannot_be_told_is_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    path = tmp_path / CC3M
    path.write_text("\n".join(rows))
    with pytest.raises(InputError, match=message):
        next(links.LinkList((path,), "caption_first").links())


def test_rows_without_a_tab_or_with_another_kind_of_address_are_malformed(tmp_path: Path) -> None:
    path = write_list(tmp_path / CC3M, 300)
    with path.open("ab") as stream:
        stream.write(b"no tab\ncaption\tfile:///secret\n\xff\thttp://a.example\na\0b\thttp://a.example\n\n")
    found = [
        (row, link.reason) for row, link in links.LinkList((path,), "caption_first").links() if isinstance(link, Unfit)
    ]
    assert found == [(row, "row_malformed") for row in range(300, 305)]


def test_links_are_handed_over_as_parquet_because_captions_hold_quotation_marks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(links, "A_SHARD", 10)
    monkeypatch.setattr(links, "A_FILE", 20)
    path = write_list(tmp_path / CC3M, 300)
    path.write_text(path.read_text().replace(f"{caption(7)}\t", "no tab "))
    made = links.split_links(links.LinkList((path,), "caption_first"), tmp_path / "home")
    tables = [parquet.read_table(file) for file in sorted(made.glob("*/*.parquet"))]
    assert [table.num_rows for table in tables] == [10] + [20] * 14 + [9]
    rows = [row for table in tables for row in table.to_pylist()]
    assert rows[6:8] == [{"url": address(n), "caption": caption(n), "row": n} for n in (6, 8)]
    assert [row for row, _ in links.malformed_links(made)] == [7]


def as_on_the_hub(folder: Path, name: str, rows: range, **changes: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [{"image_url": changes.get("url", address(n)), "caption": caption(n)} for n in rows]
    parquet.write_table(pa.Table.from_pylist(found), path)
    return path


def test_the_lists_of_the_hub_are_read_like_the_published_ones(prepare, program: Path, tmp_path: Path) -> None:
    first = as_on_the_hub(tmp_path / "in", "data/train-00000-of-00002.parquet", range(8))
    second = as_on_the_hub(tmp_path / "in", "data/train-00001-of-00002.parquet", range(8, 20))
    assert [row for row, _ in links.LinkList((first, second), "address_first").links()] == list(range(20))
    shard(tmp_path / "served", "00000", [{**(dead(n) if n in (2, 9) else good(n)), "row": n} for n in range(20)])
    (manifest,) = prepare("cc12m", tmp_path / "in", f"source.reader.fetching.program={program}")
    assert manifest["counts"]["samples_out"] == 18
    assert [file["file"] for file in manifest["source"]] == [f"data/{path.name}" for path in (first, second)]
    lines = map(json.loads, (tmp_path / "out/cc12m/train/skipped.jsonl").read_text().splitlines())
    assert [(line["file"], line["row"]) for line in lines] == [(first.name, 2), (second.name, 1)]


def test_a_dry_run_of_the_hubs_lists_finds_each_split_and_bad_addresses(prepare, tmp_path: Path) -> None:
    as_on_the_hub(tmp_path / "in", "unlabeled/train-00000-of-00002.parquet", range(30))
    as_on_the_hub(tmp_path / "in", "unlabeled/train-00001-of-00002.parquet", range(30, 31), url="ftp://pics.example/1")
    as_on_the_hub(tmp_path / "in", "unlabeled/validation-00000-of-00001.parquet", range(20))
    (told,) = prepare("cc3m", tmp_path / "in", "dry_run=true", "++source.budget.row_malformed=5")
    assert {split: counts["rows_in"] for split, counts in told["splits"].items()} == {"train": 31, "val": 20}
    assert told["splits"]["train"]["skipped"]["row_malformed"] == 1


def test_a_dry_run_shows_the_first_rows_and_fetches_nothing(prepare, tmp_path: Path) -> None:
    write_list(tmp_path / "in" / CC3M, 1500)
    write_list(tmp_path / "in" / CC3M_VAL, 20)
    (told,) = prepare("cc3m", tmp_path / "in", "dry_run=true")
    assert {split: counts["rows_in"] for split, counts in told["splits"].items()} == {"train": 1000, "val": 20}
    assert not (tmp_path / "data").exists()


def test_a_missing_list_is_named_with_the_way_to_do_without(prepare, tmp_path: Path) -> None:
    write_list(tmp_path / "in" / CC3M, 20)
    with pytest.raises(
        InputError,
        match=rf"neither {CC3M_VAL} nor .* nor a folder 'val'.*source.reader.lists.val=null .source.holdout=",
    ):
        prepare("cc3m", tmp_path / "in")


# --- the program


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Does as if: what lies in tmp_path/served is what it fetches."""
    path = tmp_path / "img2dataset"
    path.write_text(
        "#!/bin/sh\n"
        'for word in "$@"; do echo "$word" >> '
        f"{tmp_path / 'called'}; case $word in --output_folder=*) out=${{word#*=}};; esac; done\n"
        f'mkdir -p "$out"; cp {tmp_path}/served/* "$out"; echo its last words; test ! -e {tmp_path}/broken\n'
    )
    path.chmod(0o755)
    return path


def test_a_list_is_fetched_and_its_pictures_converted_in_its_order(prepare, program: Path, tmp_path: Path) -> None:
    path = write_list(tmp_path / "in" / CC3M, 30)
    path.write_text(path.read_text().replace(f"{caption(2)}\t", "no tab "))
    rows = [{**(good(n) if n % 3 else dead(n)), "row": n} for n in range(30) if n != 2]
    shard(tmp_path / "served", "00000", rows)
    budget = ["++source.budget.row_malformed=5", f"source.reader.fetching.program={program}", *TRAIN_ONLY]
    train, val = prepare("cc3m", tmp_path / "in", *budget)
    assert train["counts"]["skipped"] == {"row_malformed": 1, "link_dead": 10}
    assert [row for row, _, _ in skips(tmp_path / "out/cc3m")] == sorted([2, *range(0, 30, 3)])
    assert [file["file"] for file in train["source"]] == [CC3M]
    assert train["counts"]["samples_out"] + val["counts"]["samples_out"] == 19
    shards = ShardSet(tmp_path / "out/cc3m/train")
    order = [int(str(shards[row].turns[-1].parts[0]).split()[4]) for row in range(len(shards))]
    assert order == sorted(order)
    assert set(order) <= {n for n in range(30) if n % 3 and n != 2}
    assert shards[0].meta["url"] == address(order[0])
    assert (shards[0].meta["status"], shards[0].meta["original_size"]) == ("success", [40, 32])
    assert len(shards[0].meta["sha256"]) == 64
    called = (tmp_path / "called").read_text().splitlines()
    assert {"--input_format=parquet", "--resize_mode=keep_ratio", "--user_agent_token=vlm-data-prep"} <= set(called)


def test_a_try_fetches_the_first_shard_only(prepare, program: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(links, "A_SHARD", 10)
    write_list(tmp_path / "in" / CC12M, 30, swapped=True)
    shard(tmp_path / "served", "00000", [good(n, row=n) for n in range(10)])
    (manifest,) = prepare("cc12m", tmp_path / "in", f"source.reader.fetching.program={program}", "limit=5")
    assert manifest["counts"]["samples_out"] == 5
    called = (tmp_path / "called").read_text().splitlines()
    assert [Path(word).name for word in called if word.startswith("--url_list")] == ["first"]


def test_a_try_of_two_lists_fetches_the_first_shard_of_each(
    prepare, program: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(links, "A_SHARD", 10)
    write_list(tmp_path / "in" / CC3M, 30)
    write_list(tmp_path / "in" / CC3M_VAL, 20)
    shard(tmp_path / "served", "00000", [good(n, row=n) for n in range(10)])
    ours = (f"source.reader.fetching.program={program}", "limit=10", "source.duplicates=keep")
    manifests = prepare("cc3m", tmp_path / "in", *ours)
    assert [manifest["counts"]["samples_out"] for manifest in manifests] == [10, 10]
    called = (tmp_path / "called").read_text().splitlines()
    assert [Path(word).name for word in called if word.startswith("--url_list")] == ["first", "first"]


def test_what_is_fetched_already_is_not_fetched_again(prepare, program: Path, tmp_path: Path) -> None:
    write_list(tmp_path / "in" / CC3M, 30)
    shard(tmp_path / "served", "00000", [good(n, row=n) for n in range(30)])
    ours = (f"source.reader.fetching.program={program}", *TRAIN_ONLY)
    first = prepare("cc3m", tmp_path / "in", *ours)
    program.unlink()
    second = prepare("cc3m", tmp_path / "in", *ours, f"out={tmp_path / 'again'}")
    assert [m["shards"] for m in first] == [m["shards"] for m in second]


def test_a_missing_program_is_told_with_the_way_to_install_it(prepare, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_list(tmp_path / "in" / CC12M, 20, swapped=True)
    with pytest.raises(InputError, match=r"img2dataset is not installed(.|\n)*make img2dataset(.|\n)*program=PATH"):
        prepare("cc12m", tmp_path / "in")


def test_a_program_that_fails_or_leaves_shards_out_is_told_with_its_last_words(
    prepare, program, tmp_path: Path
) -> None:
    write_list(tmp_path / "in" / CC12M, 20, swapped=True)
    shard(tmp_path / "served", "00000", [good(0, row=0)])
    (tmp_path / "served/00000_stats.json").unlink()
    ours = f"source.reader.fetching.program={program}"
    with pytest.raises(
        InputError, match=r"exit code 0 and 1 of 1 shards missing(.|\n)*its last words\nThe same command"
    ):
        prepare("cc12m", tmp_path / "in", ours)
    (tmp_path / "broken").touch()
    with pytest.raises(InputError, match="exit code 1"):
        prepare("cc12m", tmp_path / "in", ours)


# --- its output


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two shards of twelve links."""
    home = tmp_path / "fetched"
    for name, numbers in (("00000", range(12)), ("00001", range(12, 24))):
        shard(home, name, [good(number) for number in numbers])
    return home


def test_an_output_of_the_program_is_converted_as_it_lies_there(prepare, output: Path, tmp_path: Path) -> None:
    (manifest,) = prepare("cc12m", output)
    shards = ShardSet(tmp_path / "out/cc12m/train")
    assert [str(shards[row].turns[-1].parts[0]) for row in range(24)] == [caption(n) for n in range(24)]
    assert shards[5].media[0].data == encoded(picture(5), "JPEG")
    assert [file["file"] for file in manifest["source"]] == ["00000.parquet", "00001.parquet"]
    assert manifest["license"]["flags"] == {"no_media_rights": ["LicenseRef-GoogleCC"]}


def test_pictures_can_be_sent_to_other_processes_before_they_are_read(output: Path) -> None:
    found = [link for part in img2dataset_output.shards(output) for link in img2dataset_output.read_shard(part, False)]
    sent = [pickle.dumps(link.picture) for link in found]
    assert max(map(len, sent)) < 500
    assert [pickle.loads(one).read() for one in sent] == [encoded(picture(n), "JPEG") for n in range(24)]


def test_a_dry_run_reads_an_output_and_writes_nothing(prepare, output: Path, tmp_path: Path) -> None:
    (told,) = prepare("cc12m", output, "dry_run=true")
    assert told["splits"]["train"]["samples_out"] == 24
    assert not (tmp_path / "out").exists()


def test_two_halves_prepared_apart_fetch_once(prepare, program: Path, tmp_path: Path) -> None:
    write_list(tmp_path / "in" / CC12M, 200, swapped=True)
    shard(tmp_path / "served", "00000", [good(n, row=n) for n in range(200)])
    for part in ("0/2", "1/2"):
        prepare("cc12m", tmp_path / "in", f"source.reader.fetching.program={program}", f"part={part}")
    assert len([word for word in (tmp_path / "called").read_text().splitlines() if "--url_list" in word]) == 1


def test_folders_of_pictures_do_as_well_as_tars(prepare, output: Path, tmp_path: Path) -> None:
    packed = prepare("cc12m", output)
    for path in output.glob("*.tar"):
        with tarfile.open(path) as archive:
            archive.extractall(path.with_suffix(""), filter="data")
        path.unlink()
    assert [m["shards"] for m in prepare("cc12m", output, f"out={tmp_path / 'b'}")] == [m["shards"] for m in packed]


def test_two_splits_lie_in_folders_of_their_names(prepare, output: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(output, tmp_path / "both" / split)
    train, val = prepare("cc3m", tmp_path / "both", "source.duplicates=keep")
    assert (train["counts"]["samples_out"], val["counts"]["samples_out"]) == (24, 24)


def test_dead_and_lost_links_are_counted_with_their_row_and_status(prepare, output: Path, tmp_path: Path) -> None:
    rows = [good(24), dead(25), dead(26, "Image decoding error", "failed_to_resize")]
    shard(output, "00002", rows, count=4)
    prepare("cc12m", output)
    assert skips(tmp_path / "out/cc12m") == [
        (25, "link_dead", f"failed_to_download: HTTP Error 404: Not Found: {address(25)}"),
        (26, "link_dead", f"failed_to_resize: Image decoding error: {address(26)}"),
        (27, "link_dead", "lost by img2dataset: "),
    ]


def test_the_same_bytes_from_more_than_twenty_addresses_are_a_placeholder(
    prepare, output: Path, tmp_path: Path
) -> None:
    gone = encoded(picture(999), "JPEG")
    shard(output, "00002", [good(24 + n, data=gone) for n in range(21)])
    shard(output, "00003", [good(50, data=encoded(picture(998), "JPEG")) for n in range(21)])  # one address, many times
    prepare("cc12m", output, "++source.budget.media_placeholder=50", "source.duplicates=keep")
    found = skips(tmp_path / "out/cc12m")
    assert {reason for _, reason, _ in found} == {"media_placeholder"}
    assert [row for row, _, _ in found] == list(range(24, 45))
    assert "like 20 other addresses" in found[0][2]


def test_pictures_that_lost_their_orientation_in_shrinking_are_turned(prepare, output: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    told = json.dumps({"Image Orientation": "Rotated 90 CW"})
    kept = encoded(picture(31, 60, 40), "JPEG", exif=exif)
    shard(
        output,
        "00002",
        [good(30, data=encoded(picture(30, 60, 40), "JPEG"), exif=told), good(31, data=kept, exif=told)],
    )
    prepare("cc12m", output)
    shards = ShardSet(tmp_path / "out/cc12m/train")
    assert [open_picture(shards[row].media[0].data, "a").size for row in (24, 25)] == [(40, 60), (40, 60)]


def test_white_space_before_punctuation_is_taken_out_only_when_asked(prepare, tmp_path: Path) -> None:
    rows = [good(n) for n in range(20)]
    rows[0]["caption"] = "the boat 's  sail ( red ) is n't new , but <PERSON> likes it !"
    shard(tmp_path / "fetched", "00000", rows)
    (manifest,) = prepare("cc12m", tmp_path / "fetched", "source.reader.detokenize=true")
    caption_of = ShardSet(tmp_path / "out/cc12m/train")[0].turns[-1].parts[0]
    assert caption_of == "the boat's sail (red) isn't new, but <PERSON> likes it!"
    assert manifest["counts"]["repaired"] == {"detokenized": 20}


@pytest.mark.parametrize("gone", ["00000.parquet", "00001.tar", "00000_stats.json"])
def test_an_output_that_is_not_finished_is_refused_with_the_way_out(prepare, output: Path, gone: str) -> None:
    (output / gone).unlink()
    with pytest.raises(InputError, match=rf"shard {gone[:5]} is not finished .*run img2dataset again"):
        prepare("cc12m", output)


def test_a_shard_that_is_cut_short_is_refused(prepare, output: Path) -> None:
    archive = output / "00001.tar"
    whole = archive.read_bytes()
    with tarfile.open(archive) as members:
        at = members.getmembers()[3].offset
    for content in (whole[:at], whole[: at + 700]):
        archive.write_bytes(content)
        with pytest.raises(InputError, match=r"cut short.*[Rr]emove 00001\*.* run img2dataset again"):
            prepare("cc12m", output)
    archive.write_bytes(whole)
    (output / "00001.parquet").write_bytes((output / "00001.parquet").read_bytes()[:500])
    with pytest.raises(InputError, match=r"00001.parquet .*cut short"):
        prepare("cc12m", output)


def test_a_table_fetched_without_captions_is_refused(prepare, output: Path) -> None:
    table = parquet.read_table(output / "00000.parquet").drop_columns(["caption"])
    parquet.write_table(table, output / "00000.parquet")
    with pytest.raises(InputError, match="column 'caption' is missing"):
        prepare("cc12m", output)


def test_columns_that_people_kept_do_not_matter_nor_do_missing_checksums(prepare, output: Path) -> None:
    for name in ("00000", "00001"):
        table = parquet.read_table(output / f"{name}.parquet").drop_columns(["sha256", "exif"])
        parquet.write_table(table.append_column("row", [["mine"] * 12]), output / f"{name}.parquet")
    (manifest,) = prepare("cc12m", output)
    assert manifest["counts"]["samples_out"] == 24


def test_the_addresses_of_placeholders_take_little_memory(output: Path) -> None:
    assert img2dataset_output.placeholders(img2dataset_output.shards(output)) == {}
