"""Shards read as a stream: the samples of the set, forwards, and loud where the stream is not whole."""

from __future__ import annotations

import http.server
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from data_prep.writing.shard import END, member
from tests.data.small_sets import small_record, small_set
from vlm.contracts.errors import InputError, RunError
from vlm.data.canonical import to_json
from vlm.data.order import Mix, Source
from vlm.data.shards import RowError, ShardSet
from vlm.data.stream import KEPT, StreamSet

ROWS = 700


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 rows in several archives, more than a stream keeps."""
    return small_set(tmp_path_factory.mktemp("sets"), "demo", "train", ROWS, shard_bytes=600_000)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that a stream was opened from its beginning."""
    from vlm.data import stream

    seen: list[int] = []
    whole = stream._samples
    monkeypatch.setattr(stream, "_samples", lambda archives: seen.append(0) or whole(archives))
    return seen


def captions(stream: StreamSet, rows: range) -> list[str]:
    return [str(stream[row].turns[-1].parts[0]) for row in rows]


@pytest.mark.parametrize("address", ["{home}/shard-*.tar", "{home}/shard-00000{{0,1,2}}.tar", "pipe:cat {home}/*0.tar"])
def test_its_samples_are_those_of_the_set_in_order(home: Path, address: str) -> None:
    shards, stream = ShardSet(home), StreamSet("demo", address.format(home=home), 50)
    assert len(list(home.glob("*.tar"))) == 3
    assert [stream[row] for row in range(50)] == [shards[row] for row in range(50)]


def test_addresses_are_joined_by_two_colons_and_run_on_across_archives(home: Path) -> None:
    first, second = home / "shard-000000.tar", home / "shard-000001.tar"
    held = ShardSet(home).manifest["shards"][1]["samples"]
    stream = StreamSet("demo", f"{second}::{first}", held + 1)
    assert stream[0].key != "demo-0000000000"
    assert stream[held].key == "demo-0000000000"


@pytest.mark.skipif(shutil.which("curl") is None, reason="WebDataset fetches with curl")
def test_it_reads_from_a_web_server(home: Path) -> None:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(home))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stream = StreamSet("demo", f"http://127.0.0.1:{server.server_port}/shard-00000{{0..2}}.tar", ROWS)
        assert stream[ROWS - 1].key == f"demo-{ROWS - 1:010d}"
        server.shutdown()


def test_a_whole_epoch_in_the_order_of_a_mix_opens_the_stream_once(home: Path, opened: list[int]) -> None:
    stream, mix = StreamSet("demo", f"{home}/*.tar", ROWS), Mix([Source(ROWS, ROWS, in_order=True)], seed=3)
    for position in range(ROWS):
        row = mix.place(position).row
        assert stream[row].key == f"demo-{row:010d}"
        assert len(stream._kept) <= KEPT
    assert len(opened) == 1


@pytest.mark.parametrize("rows", [ROWS, 100])
def test_every_further_pass_opens_it_once_even_where_passes_meet_within_a_block(
    home: Path, opened: list[int], rows: int
) -> None:
    stream, mix = StreamSet("demo", f"{home}/*.tar", rows), Mix([Source(rows, 2 * rows, in_order=True)], seed=3)
    for position in range(2 * mix.length):
        stream[mix.place(position).row]
    assert len(opened) <= 4


def test_an_earlier_row_opens_the_stream_again(home: Path, opened: list[int]) -> None:
    stream = StreamSet("demo", f"{home}/*.tar", ROWS)
    assert captions(stream, range(600, 602)) == ["row 600", "row 601"]
    assert captions(stream, range(2)) == ["row 0", "row 1"]
    assert len(opened) == 2


def test_other_processes_read_it_for_themselves(home: Path) -> None:
    stream = StreamSet("demo", f"{home}/*.tar", ROWS)
    assert captions(stream, range(3)) == ["row 0", "row 1", "row 2"]
    sent = pickle.dumps(stream)
    assert len(sent) < 2000
    assert captions(pickle.loads(sent), range(3)) == ["row 0", "row 1", "row 2"]
    child = os.fork()
    if child == 0:
        os._exit(0 if captions(stream, range(3, 200)) == [f"row {row}" for row in range(3, 200)] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert captions(stream, range(3, 200)) == [f"row {row}" for row in range(3, 200)]


def test_a_row_beyond_its_rows_is_an_index_error_and_costs_are_unknown(home: Path) -> None:
    stream = StreamSet("demo", f"{home}/*.tar", 5)
    with pytest.raises(IndexError, match="there is no row 5"):
        stream[5]
    assert stream.costs(0) is None


def test_files_that_are_not_there_are_refused_at_once(home: Path) -> None:
    with pytest.raises(InputError, match=r"data.<use>.demo.stream: there is no file .*/part-\*.tar"):
        StreamSet("demo", f"{home}/part-*.tar", 5)


@pytest.mark.parametrize("keep", [lambda size: 0, lambda size: 300, lambda size: size // 2, lambda size: size - 1024])
def test_an_archive_that_is_cut_short_stops_the_run_with_address_row_and_remedy(
    tmp_path: Path, keep: Callable[[int], int]
) -> None:
    path = small_set(tmp_path, "demo", "train", 9) / "shard-000000.tar"
    os.truncate(path, keep(path.stat().st_size))
    stream = StreamSet("demo", f"{path.parent}/*.tar", 9)
    with pytest.raises(
        RunError,
        match=r"gave \d of 9 rows, then: .*shard-000000.tar cannot be read on .*; mend the archive .* same command",
    ) as error:
        captions(stream, range(9))
    assert ("demo.rows" in str(error.value)) == ("gave 0" not in str(error.value))


def test_a_cut_between_two_members_is_found(tmp_path: Path) -> None:
    path = small_set(tmp_path, "demo", "train", 9, shard_bytes=12_000) / "shard-000000.tar"
    assert len(ShardSet(path.parent).manifest["shards"]) == 2
    os.truncate(path, 4 * 2048)
    with pytest.raises(RunError, match=rf"gave 3 of 9 rows, then: {path} cannot be read on .it is cut short"):
        captions(StreamSet("demo", f"{path.parent}/*.tar", 9), range(9))


def test_a_stream_that_ends_early_says_how_many_rows_it_had(home: Path) -> None:
    stream = StreamSet("demo", f"{home}/shard-000002.tar", ROWS)
    with pytest.raises(RunError, match=rf"gave \d+ of {ROWS} rows, then: the stream ends there; mend .* to end at \d+"):
        captions(stream, range(ROWS))


def test_archives_that_were_joined_are_refused_before_rows_are_missed(home: Path) -> None:
    with pytest.raises(RunError, match="it goes on behind its end: archives cannot be joined, name each of them"):
        captions(StreamSet("demo", f"pipe:cat {home}/*.tar", ROWS), range(ROWS))


def test_a_command_that_fails_is_no_end_of_data(home: Path) -> None:
    stream = StreamSet("demo", f"pipe:cat {home}/shard-000000.tar; exit 3", ROWS)
    with pytest.raises(RunError, match="exit 3"):
        captions(stream, range(ROWS))


GOOD = to_json(small_record("demo", "train", 0))


@pytest.mark.parametrize(
    ("members", "reason", "detail"),
    [
        ([("png", b"picture 0")], "row_malformed", "there is no record, only png"),
        ([("png", b"picture 0"), ("json", GOOD)], "row_malformed", "demo-0000000000 with png, json is not"),
        ([("json", GOOD)], "media_missing", "there is no member png"),
        ([("json", GOOD), ("png", b"picture 1")], "media_undecodable", "the bytes of png changed"),
        ([("json", GOOD), ("png", b"picture 0"), ("jpg", b"")], "row_malformed", "with json, png, jpg is not"),
        ([("json", GOOD[:-1]), ("png", b"picture 0")], "row_malformed", "Invalid JSON"),
        (
            [("json", GOOD.replace(b"demo-0000000000", b"demo-0000000007")), ("png", b"")],
            "row_malformed",
            "is not demo",
        ),
    ],
)
def test_a_sample_that_is_not_whole_is_one_bad_row_and_the_next_one_is_read(
    tmp_path: Path, members: list[tuple[str, bytes]], reason: str, detail: str
) -> None:
    name = "demo-0000000000"
    after = [member("demo-0000000001.json", to_json(small_record("demo", "train", 1)))]
    after.append(member("demo-0000000001.png", b"picture 1"))
    path = tmp_path / "a.tar"
    path.write_bytes(b"".join([member(f"{name}.{kind}", data) for kind, data in members] + after) + END)
    stream = StreamSet("demo", str(path), 2)
    with pytest.raises(RowError, match=rf"^{reason}: demo row 0 \({name}\): .*{detail}.*; prepare .*a.tar again"):
        stream[0]
    assert stream[1].key == "demo-0000000001"
