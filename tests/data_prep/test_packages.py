"""Packages come through whichever client is there, are checked, and are kept; no network in these tests."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from data_prep.reading.packages import fetch
from data_prep.settings import Package
from vlm.contracts.errors import InputError

CONTENT = b"kites" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def package(client: str = "npm", version: str | None = "1.2.0", sha256: str | None = DIGEST) -> Package:
    return Package(client, "kites", version, sha256, len(CONTENT), "MIT")  # type: ignore[arg-type]


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the search path: a test puts the clients that a machine has into it."""
    home = tmp_path / "bin"
    home.mkdir()
    monkeypatch.setenv("PATH", str(home))
    return home


def install(clients: Path, name: str, script: str) -> None:
    (clients / name).write_text(f"#!/bin/sh\n{script}\n")
    (clients / name).chmod(0o755)


def test_a_package_is_fetched_once_and_told_with_its_licence(clients: Path, tmp_path: Path, caplog) -> None:
    install(clients, "npm", f"printf '{CONTENT.decode()}' > kites-1.2.0.tgz; echo called >> {clients}/calls")
    with caplog.at_level(logging.INFO):
        first = fetch(package(), tmp_path / "cache")
        second = fetch(package(), tmp_path / "cache")
    assert first.path == tmp_path / "cache/npm/kites/kites-1.2.0.tgz"
    assert first.path.read_bytes() == CONTENT
    assert (first.source, first.seconds > 0, second.seconds) == (second.source, True, 0)
    assert first.source.package == "npm kites 1.2.0"
    assert (clients / "calls").read_text() == "called\n"
    for told in ("npm kites 1.2.0", "downloaded in", "in the cache", DIGEST, "licence MIT"):
        assert told in caplog.text


def test_a_file_that_is_not_the_pinned_one_is_refused_and_not_kept(clients: Path, tmp_path: Path) -> None:
    install(clients, "npm", "echo other > kites-1.2.0.tgz")
    with pytest.raises(InputError, match=r"npm package kites 1.2.0: sha256 .* is not the pinned"):
        fetch(package(), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_damaged_file_in_the_cache_is_fetched_again(clients: Path, tmp_path: Path) -> None:
    install(clients, "npm", f"printf '{CONTENT.decode()}' > kites-1.2.0.tgz")
    damaged = tmp_path / "cache/npm/kites/kites-1.2.0.tgz"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half")
    assert fetch(package(), tmp_path / "cache").path.read_bytes() == CONTENT


@pytest.mark.parametrize(("client", "remedy"), [("npm", "install Node.js"), ("apt", "Debian")])
def test_a_missing_client_is_told_with_what_to_install(clients: Path, tmp_path: Path, client: str, remedy: str) -> None:
    with pytest.raises(InputError, match=remedy):
        fetch(package(client), tmp_path / "cache")


def test_a_failed_download_tells_the_clients_own_words_and_the_way_round(clients: Path, tmp_path: Path) -> None:
    install(clients, "npm", "echo 'no route to host' >&2; exit 7")
    with pytest.raises(InputError, match=r"exit code 7\): no route to host; .*from=DIR"):
        fetch(package(), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob(".part-*"))


def test_another_debian_release_has_another_version_which_is_told(clients: Path, tmp_path: Path, caplog) -> None:
    install(clients, "apt-get", "echo newer > kites_1%3a2.0-1_all.deb")
    install(clients, "dpkg-deb", "exit 0")
    fetched = fetch(package("apt", "1:1.2-1"), tmp_path / "cache")
    assert fetched.source.package == "apt kites 1:2.0-1"
    assert "version 1:2.0-1 here, 1:1.2-1 is pinned" in caplog.text


def test_a_set_goes_on_with_the_parts_that_can_be_had(prepare, clients: Path) -> None:
    with pytest.raises(InputError, match=r"no part of captions_small can be had(.|\n)*emoji: npm is missing"):
        prepare("captions_small")
    with pytest.raises(InputError, match=r"install Node.js"):
        prepare("captions_small", None, "parts=[emoji]")
