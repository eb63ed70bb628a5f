"""Whatever stops a preparation, and however many processes share it: the bytes are those of one quiet run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from data_prep import convert, merge, workers
from data_prep.merge import MergeSettings
from data_prep.rows import Skip
from data_prep.writing import assembly, parts
from tests.data_prep.conftest import encoded, picture, verify_shards
from vlm.contracts.errors import InputError, RunError
from vlm.data.canonical import Origin
from vlm.data.pictures import PictureError

ROOT = Path(__file__).parents[2]
ROWS = 170


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Captions of large enough pictures for several shards of 1 MB; some rows repeat, some are broken."""
    home = tmp_path_factory.mktemp("pictures")
    lines = []
    for number in range(ROWS):
        name = f"{number % 165:03d}.png"
        (home / name).write_bytes(b"broken" if number == 77 else encoded(picture(number % 165, 160, 160)))
        lines.append(f"{name}\tcaption {number}")
    lines.insert(100, "none.png\ta lost one")
    (home / "captions.tsv").write_text("\n".join(lines) + "\n")
    return home


OVERRIDES = ["source.shard_mb=1", "source.pictures.format=png", "source.duplicates=pictures"]


def contents(out: Path) -> dict[str, str]:
    """Every file of the set by its bytes; of manifests the day is left out."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name != "part.json":
            data = path.read_bytes()
            if path.name == "manifest.json":
                data = json.dumps({**json.loads(data), "created": None}).encode()
            found[str(path.relative_to(out))] = hashlib.sha256(data).hexdigest()
    return found


@pytest.fixture(scope="module")
def quiet(folder: Path, tmp_path_factory) -> dict[str, str]:
    """The bytes of one run in one process that nothing disturbs."""
    out = tmp_path_factory.mktemp("quiet")
    done = command(folder, out, "workers=0")
    assert done.returncode == 0, done.stderr
    found = contents(out)
    assert len([name for name in found if name.endswith(".tar")]) >= 4
    assert not [name for name in found if name.endswith((".part", ".sqlite", ".jsonl.part"))]
    return found


def words(folder: Path, out: Path, *more: str) -> list[str]:
    given = ["source=caption_table", f"from={folder}", f"out={out}", f"paths.data={out}", *OVERRIDES, *more]
    return [sys.executable, "-m", "data_prep.prepare", *given]


def command(folder: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(folder, out, *more), cwd=ROOT, capture_output=True, text=True)


def test_many_workers_write_the_bytes_of_one(folder: Path, quiet: dict[str, str], tmp_path: Path) -> None:
    assert command(folder, tmp_path, "workers=2").returncode == 0
    assert contents(tmp_path) == quiet


def test_after_kill_9_the_same_command_keeps_finished_shards_and_ends_with_the_same_bytes(
    folder: Path, quiet: dict[str, str], tmp_path: Path
) -> None:
    process = subprocess.Popen(words(folder, tmp_path, "workers=1"), cwd=ROOT, stderr=subprocess.DEVNULL)
    first = tmp_path / "caption_table/train/shard-000000.tar"
    while not first.with_name("shard-000001.tar").exists():  # the first is then in the journal too
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.rglob("manifest.json"))
    before = first.stat().st_mtime_ns, first.stat().st_ino
    done = command(folder, tmp_path, "workers=0")
    assert done.returncode == 0, done.stderr
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == before
    assert contents(tmp_path) == quiet


class Crash(BaseException):
    """A power cut: nothing that handles errors sees it in a real one."""


@pytest.mark.parametrize("at", [3, 70, 101, 160])
def test_a_cut_at_any_row_costs_nothing_but_time(
    prepare, folder: Path, quiet: dict[str, str], tmp_path: Path, monkeypatch, at: int
) -> None:
    whole = assembly.Assembly.take
    monkeypatch.setattr(assembly, "SAVE_S", 0.05 if at % 2 else 20.0)

    def take(self: Any, number: int, *rest: Any) -> None:
        if number == at:
            raise Crash
        whole(self, number, *rest)

    monkeypatch.setattr(assembly.Assembly, "take", take)
    monkeypatch.setattr(assembly.Assembly, "interrupt", lambda self: self.journal.close(remove=False))
    with pytest.raises(Crash):
        prepare("caption_table", folder, *OVERRIDES)
    monkeypatch.undo()
    prepare("caption_table", folder, *OVERRIDES)
    assert contents(tmp_path / "out") == quiet


@pytest.mark.parametrize("target", ["write_manifest", "ShardWriter.finish", "write_sealed"])
def test_a_cut_while_the_last_files_are_written_costs_nothing_either(
    prepare, folder: Path, quiet: dict[str, str], tmp_path: Path, monkeypatch, target: str
) -> None:
    calls = []
    home = {"write_manifest": "data_prep.writing.assembly", "ShardWriter.finish": "data_prep.writing.shard"}
    place = f"{home.get(target, 'data_prep.writing.manifest')}.{target}"
    original = __import__("pkgutil").resolve_name(place.replace(".ShardWriter", ":ShardWriter"))

    def second_time(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise Crash
        return original(*given)

    monkeypatch.setattr(place, second_time)
    with pytest.raises(Crash):
        prepare("caption_table", folder, *OVERRIDES)
    monkeypatch.undo()
    prepare("caption_table", folder, *OVERRIDES)
    assert contents(tmp_path / "out") == quiet


@pytest.fixture(scope="module")
def parts_of_two(folder: Path, tmp_path_factory) -> Path:
    """A set in two parts, made by two processes at once. Returns: the folder of the set."""
    out = tmp_path_factory.mktemp("parts")
    running = [subprocess.Popen(words(folder, out, f"part={i}/2", "workers=0"), cwd=ROOT) for i in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    return out / "caption_table"


def test_parts_of_two_processes_merge_to_the_same_bytes(
    parts_of_two: Path, quiet: dict[str, str], tmp_path: Path
) -> None:
    merge.merge([parts_of_two], tmp_path)
    assert contents(tmp_path) == quiet
    assert verify_shards(tmp_path / "caption_table/train") == []


@pytest.mark.parametrize(
    ("injure", "told"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-2048]), "is not as it was written"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b"caption", b"captain", 1)),
            "is not as it was written",
        ),
    ],
    ids=["lost", "cut", "changed"],
)
def test_a_damaged_part_is_refused_by_its_file(parts_of_two: Path, tmp_path: Path, injure, told: str) -> None:
    mine = Path(shutil.copytree(parts_of_two, tmp_path / "mine"))
    injure(sorted((mine / "part-1-of-2").glob("outcomes-*"))[-1])
    with pytest.raises(InputError, match=rf"outcomes-\d+.tar {told}; remove .*part-1-of-2 and run its part again"):
        merge.merge([mine], tmp_path / "merged")
    assert not list((tmp_path / "merged").rglob("manifest.json"))


def test_a_part_that_goes_on_from_another_source_is_refused(prepare, folder: Path, tmp_path: Path, monkeypatch) -> None:
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    monkeypatch.setattr(parts, "FILE_BYTES", 200_000)
    prepare("caption_table", mine, *OVERRIDES, "part=0/2")
    (mine / "captions.tsv").write_text((mine / "captions.tsv").read_text().replace("caption 5", "another 5"))
    with pytest.raises(InputError, match=r"captions.tsv has changed since this preparation was begun"):
        prepare("caption_table", mine, *OVERRIDES, "part=0/2")


def test_a_part_may_hold_more_bad_rows_than_the_whole(prepare, folder: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    for number in range(5):
        (mine / f"{number:03d}.png").write_bytes(b"broken")
    home = tmp_path / "out/caption_table"
    for number in range(3):
        prepare("caption_table", mine, *OVERRIDES, f"part={number}/3")
    with pytest.raises(InputError, match="media_undecodable: 11 of 171 rows"):
        merge.merge([home], tmp_path / "merged")
    prepare("caption_table", mine, "source.budget.media_undecodable=8", *OVERRIDES, "part=1/3")  # any part may be told
    shutil.rmtree(mine)  # where the merge runs, the source need not lie
    merged = merge.merge([home], tmp_path / "merged")
    assert merge.merge([home], tmp_path / "merged") == merged, "found prepared"


def test_rows_that_do_not_come_one_after_the_other_are_an_error(prepare, folder: Path, monkeypatch) -> None:
    whole = convert.outcomes
    monkeypatch.setattr(convert, "outcomes", lambda *given: (found for found in whole(*given) if found[0] != 40))
    with pytest.raises(RunError, match="row 41 came where row 40 was due"):
        prepare("caption_table", folder, *OVERRIDES)


def test_a_part_goes_on_behind_its_complete_files(prepare, folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(parts, "FILE_BYTES", 200_000)
    prepare("caption_table", folder, *OVERRIDES, "part=1/3")
    home = tmp_path / "out/caption_table/part-1-of-3"
    want = {path.name: path.read_bytes() for path in home.glob("outcomes-*")}
    assert len(want) > 2
    record = json.loads((home / "part.json").read_text())
    kept = {"complete": False, "sealed": record["sealed"][:2]}
    (home / "part.json").write_text(json.dumps({**record, **kept}))
    (home / "outcomes-000000009999.tar.part").write_bytes(b"half")
    prepare("caption_table", folder, *OVERRIDES, "part=1/3")
    assert {path.name: path.read_bytes() for path in home.glob("outcomes-*")} == want


def test_a_cut_before_the_last_clean_up_leaves_nothing_that_verify_finds(
    prepare, folder, tmp_path: Path, monkeypatch
) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise Crash

    monkeypatch.setattr("data_prep.writing.shard.ShardWriter.close", crash)
    with pytest.raises(Crash):
        prepare("caption_table", folder, *OVERRIDES)
    monkeypatch.undo()
    prepare("caption_table", folder, *OVERRIDES)
    assert not list((tmp_path / "out").rglob("*.part"))
    assert verify_shards(tmp_path / "out/caption_table/train") == []


def stopped(prepare, folder: Path, monkeypatch) -> None:
    """A preparation that a full disk has stopped behind its first shards."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data_prep.writing.shard.ShardWriter.finish", full)
    with pytest.raises(RunError, match="goes on from its last complete state"):
        prepare("caption_table", folder, *OVERRIDES)
    monkeypatch.undo()


@pytest.mark.parametrize("name", ["train/shard-*.tar.part", "train/index.npy.part", "train/skipped.jsonl.part"])
def test_a_file_that_changed_while_it_was_unfinished_is_refused(
    prepare, folder: Path, tmp_path: Path, monkeypatch, name: str
) -> None:
    stopped(prepare, folder, monkeypatch)
    (path,) = (tmp_path / "out/caption_table").glob(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"{path.name} is not as it was written; .* Start anew with: rm -r"):
        prepare("caption_table", folder, *OVERRIDES)


def test_a_journal_that_changed_is_refused(prepare, folder: Path, tmp_path: Path, monkeypatch) -> None:
    stopped(prepare, folder, monkeypatch)
    journal = tmp_path / "out/caption_table/journal.sqlite"
    data = journal.read_bytes()
    assert data.count(b'"next": 1') == 1
    journal.write_bytes(data.replace(b'"next": 1', b'"next": 0'))
    with pytest.raises(InputError, match=r"journal.sqlite is damaged; .* Start anew with: rm -r"):
        prepare("caption_table", folder, *OVERRIDES)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_several_stops_in_a_row_end_it_too(folder: Path, tmp_path: Path, sent: signal.Signals) -> None:
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    (mine / "captions.tsv").write_text("".join(f"{n % 165:03d}.png\tcaption {n}\n" for n in range(200_000)))
    process = subprocess.Popen(
        words(mine, tmp_path, "workers=2"), cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(tmp_path.rglob("*.part")):
        assert process.poll() is None
        time.sleep(0.002)
    for _ in range(3):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        time.sleep(0.1)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 75
    assert "Traceback" not in told


def test_parts_that_do_not_belong_together_are_refused(prepare, folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "out/caption_table"
    prepare("caption_table", folder, *OVERRIDES, "part=0/2")
    with pytest.raises(InputError, match=r"parts \[0\] of 2 are given; each is needed once, missing: \[1\]"):
        merge.merge([home / "part-0-of-2"], tmp_path / "m")
    with pytest.raises(InputError, match=r"is no part of a set"):
        merge.merge([home / "part-1-of-2"], tmp_path / "m")
    prepare("caption_table", folder, *OVERRIDES, "part=1/2", "source.pictures.max_side=50")
    with pytest.raises(InputError, match="differ in their settings"):
        merge.main(MergeSettings([home], tmp_path / "m"))
    assert not (tmp_path / "m").exists()


def test_a_source_that_changed_between_two_starts_is_refused(
    prepare, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    stopped(prepare, mine, monkeypatch)
    shards = sorted((tmp_path / "out").rglob("shard-*.tar"))
    assert shards, "finished shards stay when the disk is full"
    (mine / "captions.tsv").write_text((mine / "captions.tsv").read_text().replace("caption 5", "another 5"))
    with pytest.raises(InputError, match=r"captions.tsv has changed since this preparation was begun. .*rm -r"):
        prepare("caption_table", mine, *OVERRIDES)
    with pytest.raises(InputError, match=r"begun with other settings.*rm -r"):
        prepare("caption_table", mine, *OVERRIDES, "source.pictures.max_side=50")
    assert sorted((tmp_path / "out").rglob("shard-*.tar")) == shards


def test_a_spent_budget_keeps_what_is_finished_and_a_larger_one_goes_on(
    prepare, folder: Path, quiet: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="media_undecodable"):
        prepare(
            "caption_table", folder, *OVERRIDES, "source.budget.media_undecodable=0", "source.budget.media_truncated=0"
        )
    assert (tmp_path / "out/caption_table/refused.jsonl").exists()
    assert list((tmp_path / "out").rglob("shard-*.tar"))
    prepare("caption_table", folder, *OVERRIDES)
    assert contents(tmp_path / "out") == quiet


LOST = Skip(None, Origin("table", 0, "0"), "media_missing", "")


def test_a_worker_that_is_killed_ends_the_run_with_what_to_do() -> None:
    with pytest.raises(RunError, match=r"a worker process was killed.*workers=1"):
        list(workers.outcomes(((number, LOST) for number in range(2)), _Dies(), 2))  # type: ignore[arg-type]


class _Dies:
    def __call__(self, row: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_an_error_in_a_worker_arrives_whole() -> None:
    with pytest.raises(PictureError, match="media_huge: x"):
        list(workers.outcomes(((number, LOST) for number in range(2)), _Raises(), 1))  # type: ignore[arg-type]


class _Raises:
    def __call__(self, row: object) -> None:
        raise PictureError("media_huge", "x")
