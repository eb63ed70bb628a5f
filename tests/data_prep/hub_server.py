"""A small server that speaks as much of the Hugging Face hub's protocol as fetching a data set needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef" * 2 + "01234567"


class HubServer(ThreadingHTTPServer):
    """One data set, owner/name, at one revision. asked: (method, path, Range) of every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.show({})

    def show(
        self, files: dict[str, bytes], gated: bool = False, absent: bool = False, stalls_after: int | None = None
    ) -> None:
        """From now on.

        files: name -> content.   gated: nobody is let in.   absent: it hangs up on everybody.   stalls_after: bytes of an
        answer after which nothing more comes, and the connection breaks when `goes_on` is set.
        """
        self.files, self.gated, self.absent, self.stalls_after = files, gated, absent, stalls_after
        self.goes_on = Event()
        self.checksums: dict[str, str] = {}  # name -> what is said of it, where that is not true
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[HubServer]:
    server = HubServer()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.goes_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer  # type: ignore[assignment]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on standard error."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append((self.command, path, self.headers.get("Range")))
        if self.server.absent:
            self.close_connection = True
            return
        api, place = "/api/datasets/owner/name", "/datasets/owner/name/resolve/"
        if not path.startswith((api, place)):
            self._refuse(401, "RepoNotFound")
        elif self.server.gated:
            self._refuse(403, "GatedRepo")
        elif path.startswith(place):
            self._file(path.removeprefix(place).partition("/")[2], body)
        else:
            what, _, rest = path.removeprefix(api).strip("/").partition("/")
            if rest.partition("/")[0] not in ("", "main", COMMIT):
                self._refuse(404, "RevisionNotFound")
            elif what == "tree":
                self._json([{"type": "file", "oid": _etag(data), "size": len(data), "path": name}
                            for name, data in self.server.files.items()])  # fmt: skip
            else:
                siblings = [self._told(name, data) for name, data in self.server.files.items()]
                self._json({"id": "owner/name", "sha": COMMIT, "siblings": siblings, "private": False, "tags": [],
                            "downloads": 0, "likes": 0, "cardData": {"license": "cc-by-4.0"}})  # fmt: skip

    def _told(self, name: str, data: bytes) -> dict[str, Any]:
        told: dict[str, Any] = {"rfilename": name, "size": len(data)}
        if len(data) > 1000:  # the hub keeps large files apart, under their checksum
            digest = self.server.checksums.get(name, hashlib.sha256(data).hexdigest())
            told["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
        return told

    def _file(self, name: str, body: bool) -> None:
        data = self.server.files.get(name)
        if data is None:
            self._refuse(404, "EntryNotFound")
            return
        span = self.headers.get("Range")
        begin = int(span.removeprefix("bytes=").partition("-")[0]) if span and body else 0
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{_etag(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if not body:
            return
        first = (
            len(data) if self.server.stalls_after is None or self.server.goes_on.is_set() else self.server.stalls_after
        )
        with suppress(ConnectionError):  # the other side was ended
            self.wfile.write(data[begin : begin + first])
            self.wfile.flush()
            if begin + first < len(data):
                self.server.goes_on.wait(60)
                self.close_connection = True

    def _json(self, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, code: int, reason: str) -> None:
        self.send_response(code)
        self.send_header("X-Error-Code", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
