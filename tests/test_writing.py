"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os

import pytest

from vlm.contracts.errors import InputError, RunError
from vlm.contracts.writing import write_whole


def test_pieces_become_a_file_in_a_new_folder(tmp_path):
    write_whole(tmp_path / "a" / "b.txt", (f"{name}\n" for name in "äb"))
    assert (tmp_path / "a" / "b.txt").read_bytes() == "ä\nb\n".encode()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_full_disk_is_told_and_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "x.json"
    write_whole(file, ["old"])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"x\.json cannot be written: No space left on device; free some space"):
        write_whole(file, ["new"])
    with pytest.raises(RunError, match="; name another one"):
        write_whole(file, ["new"], "name another one")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        write_whole(tmp_path / "file" / "x.json", ["new"])


def test_a_piece_that_cannot_be_made_leaves_the_old_file(tmp_path):
    def pieces():
        yield "new"
        raise InputError("a line is damaged")

    write_whole(tmp_path / "x", ["old"])
    with pytest.raises(InputError, match="damaged"):
        write_whole(tmp_path / "x", pieces())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
