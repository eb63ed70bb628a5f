"""from=owner/name: fetched from a hub, gone on with, found again, or refused with the way out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from data_prep.reading.hub import hub, is_hub_id, package_of
from data_prep.settings import Hub
from tests.data_prep.hub_server import COMMIT, HubServer, serving
from vlm.contracts.errors import InputError

ROOT = Path(__file__).parents[2]
FILES = {"rows.json": b"[1, 2]", "pictures/1.jpg": b"x" * 5000, "README.md": b"about"}
KNOWN = Hub("owner/name", None, ["*.json", "pictures/*"])
# The library reads its settings when it is imported, so every call has a process of its own.
CALL = """
import logging, sys
from pathlib import Path
from data_prep.reading.hub import hub
from data_prep.settings import Hub
from vlm.contracts.errors import InputError
logging.basicConfig(level=logging.INFO, format="%(message)s")
try:
    print(hub(sys.argv[1], Hub("owner/name", None, sys.argv[3:]), Path(sys.argv[2])))
except InputError as error:
    sys.exit(str(error))
"""


def arguments(server: HubServer | None, text: str, cache: Path, *patterns: str) -> dict[str, Any]:
    address = server.address if server else "http://127.0.0.1:9"  # the port that nobody answers
    places = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache / "home"), "PYTHONPATH": str(ROOT)}
    words = [text, str(cache), *(patterns or KNOWN.files)]
    return {"args": [sys.executable, "-c", CALL, *words], "env": os.environ | places, "text": True}


def call(*given) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**arguments(*given), capture_output=True, timeout=60)


def test_a_hub_id_is_owner_and_name_where_no_such_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("owner/name", "o-w.n/n_1", "owner/name@v1.0", "owner/name@refs/pr/3"):
        assert is_hub_id(text)
    for text in ("name", "../name", "./name", "/owner/name", "a/b/c", "owner/", "owner/name@", "owner/na me"):
        assert not is_hub_id(text)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert not is_hub_id("owner/name")


def test_only_the_files_of_the_source_are_fetched_and_revision_and_licence_are_told(tmp_path: Path) -> None:
    with serving(FILES) as server:
        done = call(server, "owner/name", tmp_path)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder == tmp_path / "hub" / "owner--name" / COMMIT
    assert {name for name in FILES if (folder / name).is_file()} == {"rows.json", "pictures/1.jpg"}
    assert (folder / "pictures/1.jpg").read_bytes() == FILES["pictures/1.jpg"]
    assert f"owner/name at revision {COMMIT}: 2 files, 0.0 MB; licence by its card: cc-by-4.0" in done.stderr
    assert package_of(folder) == f"hub owner/name {COMMIT}"
    assert package_of(tmp_path / "pictures") == ""
    # the same again asks for the newest revision, and fetches nothing
    with serving(FILES) as server:
        assert call(server, "owner/name", tmp_path).stdout == done.stdout
        assert [path for method, path, _ in server.asked if method == "GET" and "resolve" in path] == []
    # its commit is enough without a network
    known = Hub("owner/name", COMMIT, KNOWN.files)
    assert hub("owner/name", known, tmp_path) == hub(f"owner/name@{COMMIT}", KNOWN, tmp_path) == folder
    (folder / "rows.json").write_bytes(b"[]")
    refused = call(None, f"owner/name@{COMMIT}", tmp_path)
    assert "the hub cannot be read" in refused.stderr


@pytest.mark.parametrize("end", ["broken", "killed"])
def test_an_interrupted_download_is_gone_on_with(tmp_path: Path, end: str) -> None:
    files = {"rows.json": b"[]", "pictures/all.tar": os.urandom(1 << 20) * 24}
    with serving(files, stalls_after=14 << 20) as server:
        process = subprocess.Popen(
            **arguments(server, "owner/name", tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not [path for path in tmp_path.rglob("*.incomplete") if path.stat().st_size >= 8 << 20]:
            assert process.poll() is None
            time.sleep(0.02)
        assert not list(tmp_path.glob("hub/*/*.json")), "an unfinished folder is not called complete"
        if end == "killed":
            process.kill()
        server.goes_on.set()
        process.communicate(timeout=30)
        done = call(server, "owner/name", tmp_path)
        assert done.returncode == 0, done.stderr
        spans = [span for method, path, span in server.asked if method == "GET" and path.endswith("all.tar")]
        others = [path for method, path, _ in server.asked if method == "GET" and path.endswith("rows.json")]
    assert len(others) == 1, "a file that is whole is not fetched again"
    assert len(spans) == 2
    assert end == "killed" or str(spans[1]).startswith("bytes="), "a broken connection goes on where it broke"
    assert (Path(done.stdout.strip()) / "pictures/all.tar").read_bytes() == files["pictures/all.tar"]
    assert not list(tmp_path.rglob("*.incomplete"))


@pytest.mark.parametrize(
    ("text", "patterns", "told"),
    [
        ("owner/name@v9", (), "there is no such revision; leave it out for the newest"),
        ("owner/nobody", (), "neither such a folder nor such a data set on the hub"),
        ("owner/name", ("*.parquet",), "no file there is *.parquet; it holds README.md, pictures/1.jpg, rows.json"),
    ],
)
def test_what_the_hub_does_not_have_is_refused(tmp_path: Path, text: str, patterns: tuple[str, ...], told: str) -> None:
    with serving(FILES) as server:
        done = call(server, text, tmp_path, *patterns)
    assert done.returncode == 1
    assert told in done.stderr


def test_a_gated_set_says_how_to_be_let_in_and_no_network_names_the_other_ways(tmp_path: Path) -> None:
    with serving(FILES, gated=True) as server:
        told = call(server, "owner/name", tmp_path).stderr
    assert "ask for access on its page, then hf auth login, or download the files yourself and give from=DIR" in told
    told = call(None, "owner/name", tmp_path).stderr
    assert "HF_ENDPOINT" in told
    assert "from=DIR" in told
    assert "Traceback" not in told


def test_without_permission_to_ask_the_network_it_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="from=owner/name: the hub cannot be read"):
        hub("owner/name", KNOWN, tmp_path)  # tests run with HF_HUB_OFFLINE=1
