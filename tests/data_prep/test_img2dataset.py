"""The real img2dataset, installed into an environment of its own, against a server on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from data_prep.reading import links
from tests.data_prep.conftest import encoded, picture
from vlm.data.pictures import open_picture
from vlm.data.shards import ShardSet

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(900)]
PACKAGE = "img2dataset>=1.47,<2"
ROWS = 120


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed with pip, whose index is all that these tests ask; VLM_IMG2DATASET names one that is there already."""
    if "VLM_IMG2DATASET" in os.environ:
        return Path(os.environ["VLM_IMG2DATASET"])
    if sys.version_info >= (3, 13):
        pytest.skip("img2dataset needs a Python before 3.13")
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    command = [home / "bin/pip", "install", "--quiet", "--retries=1", "--disable-pip-version-check", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "after connection broken" in done.stderr:
        pytest.skip(f"{PACKAGE} cannot be installed: no package registry answers")
    assert done.returncode == 0, done.stderr
    return home / "bin/img2dataset"


class Server(ThreadingHTTPServer):
    """Pictures and what servers answer instead of them. asked: path -> times.   agents: how the clients called themselves."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.delay = 0.0
        exif = Image.Exif()
        exif[0x0112] = 6
        gif = [Image.new("P", (60, 50), colour) for colour in (3, 9)]
        self.pages = {f"/{n}.jpg": encoded(picture(n, 300 + n, 400), "JPEG") for n in range(ROWS)}
        self.pages |= {
            "/turned.jpg": encoded(picture(500, 900, 600), "JPEG", exif=exif),
            "/moving.gif": encoded(picture(501, 60, 50), "GIF", save_all=True, append_images=gif),
            "/cut.jpg": encoded(picture(502, 600, 600), "JPEG")[:3000],
            "/page.jpg": b"<html>gone</html>",
            "/empty.jpg": b"",
            "/noai.jpg": encoded(picture(503), "JPEG"),
            "/gone.jpg": encoded(Image.new("L", (80, 60), 90), "JPEG"),
        }


class Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked[self.path] += 1
        self.server.agents.add(self.headers["User-Agent"])
        time.sleep(self.server.delay)
        content = self.server.pages.get(path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        if path == "/noai.jpg":
            self.send_header("X-Robots-Tag", "noai")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


BAD = ["turned.jpg", "moving.gif", "cut.jpg", "page.jpg", "empty.jpg", "noai.jpg", "missing.jpg"]


@pytest.fixture
def listed(tmp_path: Path, server: Server) -> Path:
    home = tmp_path / "in"
    home.mkdir()
    root = f"http://127.0.0.1:{server.server_port}"
    names = [f"{n}.jpg" for n in range(ROWS)] + BAD + [f"gone.jpg?{n}" for n in range(25)]
    rows = [f'a "quoted boat {n} .\t{root}/{name}' for n, name in enumerate(names)]
    (home / "Train_GCC-training.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    return home


BUDGET = [
    "++source.budget.media_placeholder=50",
    "source.reader.lists.val=null",
    "source.holdout={split: val, every: 4}",
]


def skips(out: Path) -> dict[int, tuple[str, str]]:
    rows = map(json.loads, (out / "cc3m/train/skipped.jsonl").read_text().splitlines())
    return {row["row"]: (row["reason"], row["detail"].rsplit(": http", 1)[0]) for row in rows}


def test_a_list_of_addresses_becomes_shards(
    prepare, listed: Path, program: Path, server: Server, tmp_path: Path
) -> None:
    manifests = prepare("cc3m", listed, f"source.reader.fetching.program={program}", *BUDGET)
    assert sum(manifest["counts"]["rows_in"] for manifest in manifests) == ROWS + len(BAD) + 25
    assert sum(manifest["counts"]["samples_out"] for manifest in manifests) == ROWS + 2
    found = skips(tmp_path / "out")
    assert found.pop(ROWS + 2) == ("link_dead", "failed_to_resize: Image decoding error")
    assert found.pop(ROWS + 3) == ("link_dead", "failed_to_resize: Image decoding error")
    assert found.pop(ROWS + 4)[0] == "link_dead"
    assert found.pop(ROWS + 5) == ("link_dead", "failed_to_download: Use of image disallowed by X-Robots-Tag directive")
    assert found.pop(ROWS + 6) == ("link_dead", "failed_to_download: HTTP Error 404: Not Found")
    assert {row: reason for row, (reason, _) in found.items()} == dict.fromkeys(
        range(ROWS + 7, ROWS + 32), "media_placeholder"
    )
    samples = {}
    for split in ("train", "val"):
        shards = ShardSet(tmp_path / "out/cc3m" / split)
        samples |= {str(shards[row].turns[-1].parts[0]): shards[row] for row in range(len(shards))}
    assert set(samples) == {f'a "quoted boat {n} .' for n in range(ROWS + 2)}
    stored = [samples[f'a "quoted boat {n} .'].media[0].data for n in (0, ROWS, ROWS + 1)]
    assert [open_picture(data, "a").size for data in stored] == [(256, 341), (256, 384), (60, 50)]  # the second upright
    assert all("vlm-data-prep" in agent for agent in server.agents)


def test_a_killed_preparation_goes_on_where_it_was(
    listed, program, server: Server, tmp_path, prepare, monkeypatch
) -> None:
    monkeypatch.setattr(links, "A_SHARD", 10)  # of the uninterrupted one in this process
    ours = [f"source.reader.fetching.program={program}", "source.reader.fetching.processes=1", *BUDGET]
    ours += ["source.reader.fetching.threads=2"]
    command = [
        sys.executable, "-c",
        "import data_prep.reading.links as links; links.A_SHARD = 10\nimport sys\nimport data_prep.prepare as prepare\nsys.exit(prepare.main(sys.argv[1:]))",
        "source=cc3m", f"from={listed}", f"out={tmp_path / 'killed'}", f"paths.data={tmp_path / 'cache'}", "workers=0",
        *(word.removeprefix("++") for word in ours),
    ]  # fmt: skip
    server.delay = 0.05
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    finished = tmp_path / "cache/.cache/made/cc3m"
    deadline = time.monotonic() + 120
    while len(list(finished.rglob("*_stats.json"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = int(next(finished.rglob("lock")).read_text())
    os.killpg(left, signal.SIGKILL)  # what it started goes on without it, until it is stopped too
    begun = len(list(finished.rglob("*_stats.json")))
    assert 3 <= begun < 16
    server.delay = 0.0
    asked = Counter(server.asked)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = [path for path in asked if server.asked[path] > asked[path]]
    assert len(again) <= len(asked) - 10 * begun + 10
    for whole in prepare("cc3m", listed, *ours):
        killed = json.loads((tmp_path / "killed/cc3m" / whole["split"] / "manifest.json").read_text())
        assert killed["shards"] == whole["shards"]
        assert killed["counts"] == whole["counts"]


def test_the_same_command_waits_for_a_fetch_that_its_killed_forerunner_left(listed, program, server, tmp_path) -> None:
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    command = [
        sys.executable, "-m", "data_prep.prepare", "source=cc3m", f"from={listed}", f"out={tmp_path / 'out'}",
        f"paths.data={tmp_path / 'cache'}", "workers=0", f"source.reader.fetching.program={program}",
        "source.reader.fetching.threads=2", *(word.removeprefix("++") for word in BUDGET),
    ]  # fmt: skip
    server.delay = 0.05
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not server.asked and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "waiting for it" in done.stderr
    assert max(count for path, count in server.asked.items() if "gone" not in path and path[1:] not in BAD) == 1
