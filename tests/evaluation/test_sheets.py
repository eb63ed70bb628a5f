"""Answers on the disk: kept line by line, gone on with after any stop, and never of two settings in one file."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from vlm.contracts.benchmark import Reply
from vlm.contracts.errors import InputError, RunError
from vlm.evaluation.sheets import Sheet, read_replies, settings_id

REPLIES = [Reply("a", "yes"), Reply("b", "nö 🐈\nline\u2028", truncated=True), Reply("c", "", fault="text_long: 99")]


def sheet(folder: Path, **settings) -> Sheet:
    return Sheet(folder, "pope", {"prompt": "x", **settings}, {"model": "runs/a"})


def write(to: Sheet, replies=REPLIES, part: str = "0/1", condition: str = "seen") -> Path:
    with to.writer(condition, part) as writer:
        writer.write(replies)
    return writer.path


def test_replies_come_back_as_they_were_given(tmp_path):
    write(sheet(tmp_path))
    assert sheet(tmp_path).replies("seen") == {reply.id: reply for reply in REPLIES}
    assert sheet(tmp_path).replies("blank") == {}


def test_a_sheet_keeps_what_decided_its_answers(tmp_path):
    made = sheet(tmp_path)
    write(made)
    assert made.path == tmp_path / "sheets" / f"pope-{made.id}"
    assert json.loads((made.path / "settings.json").read_text()) == {"id": made.id, "prompt": "x", "model": "runs/a"}


def test_other_settings_are_another_sheet_and_their_order_is_none():
    first = {"prompt": "x", "data": {"a": "1", "b": "2"}}
    assert settings_id(first) == settings_id({"data": {"b": "2", "a": "1"}, "prompt": "x"})
    others = [{**first, "prompt": "y"}, {**first, "data": {"a": "1", "b": "3"}}, {**first, "limit": None}]
    assert len({settings_id(one) for one in [first, *others]}) == 4


def test_notes_are_no_part_of_the_identity(tmp_path):
    assert Sheet(tmp_path, "pope", {"prompt": "x"}, {"model": "runs/b"}).id == sheet(tmp_path).id


def test_parts_and_conditions_are_files_of_their_own_and_read_together(tmp_path):
    write(sheet(tmp_path), REPLIES[:1], "0/2")
    write(sheet(tmp_path), REPLIES[1:], "1/2")
    write(sheet(tmp_path), [Reply("a", "no")], condition="shift1")
    write(sheet(tmp_path), [Reply("a", "maybe")], condition="shift10")
    assert set(sheet(tmp_path).replies("seen")) == {"a", "b", "c"}
    assert sheet(tmp_path).replies("shift1")["a"].prediction == "no"


def test_a_writer_goes_on_behind_what_is_there(tmp_path):
    write(sheet(tmp_path), REPLIES[:2])
    write(sheet(tmp_path), REPLIES[2:])
    assert list(sheet(tmp_path).replies("seen")) == ["a", "b", "c"]


@pytest.mark.parametrize("left", [1, 10, 40])
def test_a_line_that_a_stop_cut_off_is_asked_again(tmp_path, left):
    path = write(sheet(tmp_path))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:left])
    assert set(sheet(tmp_path).replies("seen")) == {"a", "b"}
    write(sheet(tmp_path), REPLIES[2:])
    assert sheet(tmp_path).replies("seen") == {reply.id: reply for reply in REPLIES}


def test_a_last_line_that_only_lacks_its_end_is_not_lost(tmp_path):
    path = write(sheet(tmp_path))
    path.write_bytes(path.read_bytes()[:-1])
    known = sheet(tmp_path).replies("seen")
    write(sheet(tmp_path), [reply for reply in REPLIES if reply.id not in known])
    assert sheet(tmp_path).replies("seen") == {reply.id: reply for reply in REPLIES}


def test_a_character_that_a_stop_cut_in_two_is_asked_again(tmp_path):
    path = write(sheet(tmp_path), REPLIES[:1])
    with path.open("ab") as file:
        file.write('{"id": "b", "prediction": "é'.encode()[:-1])
    assert set(sheet(tmp_path).replies("seen")) == {"a"}


@pytest.mark.parametrize("line", ["nonsense", '{"id": "a"}', "[1]", '{"id": "a", "prediction": "x", "alien": 1}'])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, line):
    path = write(sheet(tmp_path), REPLIES[:2])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, lines[1]]) + "\n")
    with pytest.raises(InputError, match=r"seen\.0of1\.jsonl line 2 is damaged .*remove the line, or the file"):
        read_replies(path.parent, "seen")


def test_of_two_answers_to_one_question_the_first_counts(tmp_path):
    """Two machines were given overlapping parts."""
    write(sheet(tmp_path), [Reply("a", "first")], "0/1")
    write(sheet(tmp_path), [Reply("a", "second")], "1/2")
    assert sheet(tmp_path).replies("seen")["a"].prediction == "first"


def test_two_writers_of_one_part_never_mix(tmp_path):
    with sheet(tmp_path).writer("seen", "0/1") as writer:
        with pytest.raises(InputError, match=r"another process answers this benchmark here; wait for it, or .*out=DIR"):
            write(sheet(tmp_path))
        writer.write(REPLIES)
    write(sheet(tmp_path), [Reply("d", "yes")])  # the lock is free again
    assert len(sheet(tmp_path).replies("seen")) == 4


def test_other_parts_may_be_written_at_the_same_time(tmp_path):
    with sheet(tmp_path).writer("seen", "0/2"):
        write(sheet(tmp_path), REPLIES[:1], "1/2")
    assert set(sheet(tmp_path).replies("seen")) == {"a"}


def test_answers_are_on_the_disk_before_the_next_are_asked(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with sheet(tmp_path).writer("seen", "0/1") as writer:
        writer.write(REPLIES[:1])
        assert synced[-1] == writer.path.stat().st_size != 0
        assert set(sheet(tmp_path).replies("seen")) == {"a"}


def test_a_full_disk_ends_with_what_to_do(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with sheet(tmp_path).writer("seen", "0/1") as writer:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"cannot be written: No space left on device; free some space.*is kept"):
            writer.write(REPLIES)


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "sheets").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write(sheet(tmp_path))
