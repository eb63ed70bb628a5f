"""Rows through `Work` in several processes, their outcomes in the order of the rows."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from data_prep.rows import Clip, Frames, Picture, Row
from vlm.contracts.errors import RunError

ROWS, BYTES = 256, 4_000_000  # of one package to a worker, whichever comes first
UNREAD = 200_000  # bytes that a picture is taken for before it is read
AHEAD = 3  # packages a worker that are under way: bounds memory, and keeps everyone busy
ORPHAN_S = 1.0  # between two looks at whether the first process is still there
GRACE_S = 3.0  # to end in order

Given = TypeVar("Given")
Made = TypeVar("Made")


def outcomes(
    rows: Iterable[tuple[int, Given]], work: Callable[[Given], Made], workers: int, at_once: int = ROWS
) -> Iterator[tuple[int, Made]]:
    """(number of the row, what became of it), in the order given. workers: processes; 0 = in this one.

    at_once: most rows that are sent to a worker together.

    Raises: what `work` raises; RunError if a worker is killed.
    """
    if workers == 0:
        for number, row in rows:
            yield number, _named(work, number, row)
        return
    try:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, (work, os.getpid()))
    except OSError as error:
        raise RunError(
            f"worker processes cannot be started ({error}; is /dev/shm full?); workers=0 needs none"
        ) from error
    waiting: deque[Future[list[tuple[int, Made]]]] = deque()
    try:
        for package in _packages(rows, at_once):
            with deaf():
                waiting.append(pool.submit(_carry_out, package))
            if len(waiting) >= AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RunError(
            "a worker process was killed, most often because memory ran out; the same command goes on from the last "
            f"state on the disk. Give it fewer processes with workers={workers // 2}"
        ) from error
    finally:
        with deaf():  # they end what they have begun: one killed while it answers would leave us waiting for the rest
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def deaf() -> Iterator[None]:
    """A request to stop is heard afterwards; a process that is started inside never hears one, even while it imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _packages(rows: Iterable[tuple[int, Given]], at_once: int) -> Iterator[list[tuple[int, Given]]]:
    package: list[tuple[int, Given]] = []
    size = 0
    for number, row in rows:
        package.append((number, row))
        size += _size(row)
        if len(package) >= at_once or size >= BYTES:
            yield package
            package, size = [], 0
    if package:
        yield package


def _size(row: Any) -> int:
    """Bytes that travel with a source row; other work is small."""
    if not isinstance(row, Row):
        return 0
    return sum(map(_weight, row.pictures)) + sum(map(len, row.texts()))


def _weight(picture: Picture | Clip) -> int:
    content = picture.content
    if isinstance(content, Frames):
        return sum(map(_weight, content.frames))
    return len(content) if isinstance(content, bytes) else UNREAD


_work: Callable[[Any], Any] | None = None  # of a worker process, set when it starts


def _start(work: Callable[[Any], Any], parent: int) -> None:
    global _work
    _work = work
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A worker whose first process was killed would wait for work for ever.

    SIGTERM comes from who stops the whole group, and then the first process ends its workers in order; or from the
    pool, when another worker was lost.
    """
    while os.getppid() == parent:
        if signal.sigtimedwait({signal.SIGTERM}, ORPHAN_S) is not None:
            time.sleep(GRACE_S)
            break
    os._exit(1)


def _carry_out(package: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    assert _work is not None
    return [(number, _named(_work, number, row)) for number, row in package]


def _named(work: Callable[[Given], Made], number: int, row: Given) -> Made:
    try:
        return work(row)
    except Exception as error:
        error.add_note(f"row {number} of the source, counted from 0")
        raise
