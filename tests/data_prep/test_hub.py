"""from=owner/name: fetched from a hub, gone on with, found again, or refused with the way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from data_prep.reading.hub import hub, is_hub_id, package_of
from data_prep.settings import Hub
from tests.data_prep.hub_server import COMMIT, HubServer, serving
from vlm.contracts.errors import InputError

ROOT = Path(__file__).parents[2]
FILES = {"rows.json": b"[1, 2]", "pictures/1.jpg": b"x" * 5000, "README.md": b"about"}
KNOWN = Hub("owner/name", None, ["*.json", "pictures/*"])
# The library reads its settings when it is imported, so calls have a process of their own: one line in, one out.
CALLS = """
import io, json, logging, sys
from pathlib import Path
from data_prep.reading.hub import hub
from data_prep.settings import Hub
from vlm.contracts.errors import InputError
for line in sys.stdin:
    text, cache, patterns = json.loads(line)
    log, folder, fault = io.StringIO(), "", ""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=log, force=True)
    try:
        folder = str(hub(text, Hub("owner/name", None, patterns), Path(cache)))
    except InputError as error:
        fault = str(error)
    print(json.dumps([folder, fault, log.getvalue()]), flush=True)
"""


class Answer(NamedTuple):
    """What a call gave: a folder or a fault, and the log."""

    folder: str
    fault: str
    log: str


class Caller:
    """The process that calls `hub`, over and over."""

    def __init__(self, server: HubServer, home: Path) -> None:
        places = {"HF_ENDPOINT": server.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CALLS], env=os.environ | places, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __call__(self, text: str, cache: Path, *patterns: str) -> Answer:
        self.ask(text, cache, *patterns)
        return self.answer()

    def ask(self, text: str, cache: Path, *patterns: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([text, str(cache), patterns or KNOWN.files]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Answer:
        assert self.process.stdout is not None
        return Answer(*json.loads(self.process.stdout.readline()))

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def call(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    caller = Caller(server, tmp_path_factory.mktemp("home"))
    yield caller
    caller.end()


def test_a_hub_id_is_owner_and_name_where_no_such_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("owner/name", "o-w.n/n_1", "owner/name@v1.0", "owner/name@refs/pr/3"):
        assert is_hub_id(text)
    for text in ("name", "../name", "./name", "/owner/name", "a/b/c", "owner/", "owner/name@", "owner/na me"):
        assert not is_hub_id(text)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert not is_hub_id("owner/name")


def test_only_the_files_of_the_source_are_fetched_and_revision_and_licence_are_told(call, server, tmp_path) -> None:
    server.show(FILES)
    done = call("owner/name", tmp_path)
    assert done.fault == ""
    folder = Path(done.folder)
    assert folder == tmp_path / "hub" / "owner--name" / COMMIT
    assert {name for name in FILES if (folder / name).is_file()} == {"rows.json", "pictures/1.jpg"}
    assert (folder / "pictures/1.jpg").read_bytes() == FILES["pictures/1.jpg"]
    assert f"owner/name at revision {COMMIT}: 2 files, 0.0 MB; licence by its card: cc-by-4.0" in done.log
    assert package_of(folder) == f"hub owner/name {COMMIT}"
    assert package_of(tmp_path / "pictures") == package_of(Path("pictures")) == package_of(Path(".")) == ""
    # the same again asks for the newest revision, and fetches nothing
    server.show(FILES)
    assert call("owner/name", tmp_path).folder == done.folder
    assert [path for method, path, _ in server.asked if method == "GET" and "resolve" in path] == []
    # its commit is enough without a network
    known = Hub("owner/name", COMMIT, KNOWN.files)
    assert hub("owner/name", known, tmp_path) == hub(f"owner/name@{COMMIT}", KNOWN, tmp_path) == folder
    (folder / "rows.json").write_bytes(b"[]")
    server.show(FILES, absent=True)
    assert "the hub cannot be read" in call(f"owner/name@{COMMIT}", tmp_path).fault


def test_a_file_that_is_not_what_the_hub_holds_is_removed_and_told(call, server, tmp_path: Path) -> None:
    server.show(FILES)
    server.checksums = {"pictures/1.jpg": "0" * 64}
    done = call("owner/name", tmp_path)
    assert "1.jpg is not what the hub holds (sha256); it is removed, give the same command again" in done.fault
    assert not list(tmp_path.rglob("1.jpg"))


@pytest.mark.parametrize("end", ["broken", "killed"])
def test_an_interrupted_download_is_gone_on_with(call: Caller, server, tmp_path: Path, end: str) -> None:
    files = {"rows.json": b"[]", "pictures/all.tar": os.urandom(1 << 20) * 24}
    server.show(files, stalls_after=14 << 20)
    first = Caller(server, tmp_path / "home") if end == "killed" else call
    first.ask("owner/name", tmp_path)
    # Files are fetched side by side: the small one must be in its place, or the kill may meet it on its way.
    while not (
        [path for path in tmp_path.rglob("*.incomplete") if path.stat().st_size >= 8 << 20]
        and [path for path in tmp_path.glob("hub/**/rows.json")]
    ):
        assert first.process.poll() is None
        time.sleep(0.02)
    assert not list(tmp_path.glob("hub/*/*.json")), "an unfinished folder is not called complete"
    if end == "killed":
        first.end()
    server.goes_on.set()
    if end == "broken":
        assert first.answer().fault == ""
    done = call("owner/name", tmp_path)
    assert done.fault == ""
    spans = [span for method, path, span in server.asked if method == "GET" and path.endswith("all.tar")]
    others = [path for method, path, _ in server.asked if method == "GET" and path.endswith("rows.json")]
    assert len(others) == 1, "a file that is whole is not fetched again"
    assert len(spans) == 2
    assert end == "killed" or str(spans[1]).startswith("bytes="), "a broken connection goes on where it broke"
    assert (Path(done.folder) / "pictures/all.tar").read_bytes() == files["pictures/all.tar"]
    assert not list(tmp_path.rglob("*.incomplete"))


@pytest.mark.parametrize(
    ("text", "patterns", "told"),
    [
        ("owner/name@v9", (), "there is no such revision; leave it out for the newest"),
        ("owner/nobody", (), "neither such a folder nor such a data set on the hub"),
        ("owner/name", ("*.parquet",), "no file there is *.parquet; it holds README.md, pictures/1.jpg, rows.json"),
    ],
)
def test_what_the_hub_does_not_have_is_refused(call, server, tmp_path, text: str, patterns, told: str) -> None:
    server.show(FILES)
    assert told in call(text, tmp_path, *patterns).fault


def test_a_gated_set_says_how_to_be_let_in_and_no_network_names_the_other_ways(call, server, tmp_path: Path) -> None:
    server.show(FILES, gated=True)
    told = call("owner/name", tmp_path).fault
    assert "ask for access on its page, then hf auth login, or download the files yourself and give from=DIR" in told
    server.show(FILES, absent=True)
    told = call("owner/name", tmp_path).fault
    assert "HF_ENDPOINT" in told
    assert "from=DIR" in told


def test_without_permission_to_ask_the_network_it_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="from=owner/name: the hub cannot be read"):
        hub("owner/name", KNOWN, tmp_path)  # tests run with HF_HUB_OFFLINE=1
