"""img2dataset, a program of its own, fetches the pictures of a list and goes on where it was stopped."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, ClassVar, Literal

from pyarrow import parquet
from pydantic import Field

from data_prep.reading import links
from data_prep.reading.img2dataset_output import STATISTICS
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import NonNegativeInt, PositiveInt
from vlm.contracts.settings import STRICT

log = logging.getLogger(__name__)
MOST_PIXELS = 100_000_000  # larger pictures are refused by their header, undecoded
TELL_EVERY = 60  # seconds
OWN_VENV = Path(".venv-img2dataset/bin/img2dataset")  # its libraries cannot share an environment with ours


@dataclass(frozen=True)
class Fetching:
    """How img2dataset works. program: its path, None = .venv-img2dataset, or the one on PATH.

    distributor: multiprocessing on this machine, pyspark or ray on many.   processes: None = one a CPU core.
    threads: connections of each process.   side: pixels of the shorter side, larger pictures shrink; None = as they are.
    timeout: seconds for a picture.   retries: after the first failure.   agent: how it names itself to servers.
    """

    __pydantic_config__: ClassVar = STRICT
    program: str | None
    distributor: Literal["multiprocessing", "pyspark", "ray"]
    processes: PositiveInt | None
    threads: PositiveInt
    side: PositiveInt | None
    timeout: PositiveInt
    retries: NonNegativeInt
    agent: Annotated[str, Field(pattern=r"^[\w./-]+$")]


def fetch_links(made: Path, share: str, how: Fetching) -> Path:
    """The folder of img2dataset's output for a share of what `split_links` made; shards that are there stay.

    Raises: InputError if the program is missing or fails, or leaves shards out.
    """
    home = made.parent
    images = home / f"pictures-{how.side or 'whole'}" / share
    total = sum(-(-parquet.read_metadata(path).num_rows // links.A_SHARD) for path in (made / share).glob("*.parquet"))
    with links.locked(home / "lock") as lock:
        if _finished(images) == total:
            return images
        command = [_program(how), *_arguments(made / share, images, how)]
        images.parent.mkdir(exist_ok=True)
        log.info("fetching %d shards of %d links into %s", total - _finished(images), links.A_SHARD, images)
        messages = home / "img2dataset.log"
        with messages.open("wb") as told:
            code = _run(command, told, lock, images, total)
    missing = total - _finished(images)
    if code or missing:
        last = messages.read_text("utf-8", "replace").replace("\r", "\n").strip().splitlines()[-5:]
        raise InputError(
            f"img2dataset ended with exit code {code} and {missing} of {total} shards missing in {images}. Its last words "
            f"({messages}):\n    "
            + "\n    ".join(last)
            + "\nThe same command again fetches only what is missing; with "
            f"distributor={how.distributor} see that {how.distributor} is installed beside img2dataset"
        )
    return images


def _program(how: Fetching) -> str:
    """Raises: InputError that says how to install it."""
    if how.program is not None:
        found = shutil.which(how.program)
    else:
        found = shutil.which(OWN_VENV) or shutil.which("img2dataset")
    if found is None:
        raise InputError(
            f"{how.program or 'img2dataset'} is not installed, it fetches the pictures. Install it into an environment "
            "of its own (its libraries are older than ours) with: make img2dataset\nor name an installed one with "
            "source.reader.fetching.program=PATH, or give what it has fetched elsewhere with from=DIR"
        )
    return found


def _arguments(given_links: Path, images: Path, how: Fetching) -> list[str]:
    size = {"disable_all_reencoding": True} if how.side is None else {
        "image_size": how.side, "resize_mode": "keep_ratio", "resize_only_if_bigger": True, "skip_reencode": True,
    }  # fmt: skip
    given = {
        "url_list": given_links.resolve(), "input_format": "parquet", "url_col": "url", "caption_col": "caption",
        "save_additional_columns": '["row"]', "output_folder": images.resolve(), "output_format": "webdataset",
        "number_sample_per_shard": links.A_SHARD, "incremental_mode": "incremental", "distributor": how.distributor,
        "processes_count": how.processes or os.cpu_count() or 1, "thread_count": how.threads,
        "timeout": how.timeout, "retries": how.retries, "user_agent_token": how.agent,
        "max_image_area": MOST_PIXELS, **size,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in given.items()]


def _run(command: list[str], told: IO[bytes], lock: IO[bytes], images: Path, total: int) -> int:
    environment = {
        **os.environ,
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(MOST_PIXELS),  # max_image_area alone decodes first
        "NO_ALBUMENTATIONS_UPDATE": "1",  # it would ask a server for its newest version
    }
    # A session of its own, so that all its processes can be stopped at once. It inherits the lock: if this process is
    # killed, img2dataset goes on, and the same command waits for it instead of fetching the same shards beside it.
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=told, stderr=told, start_new_session=True,
        pass_fds=[lock.fileno()],
    )  # fmt: skip
    lock.write(str(process.pid).encode())
    lock.flush()
    try:
        told_at, begun = time.monotonic(), _finished(images)
        while process.poll() is None:
            time.sleep(0.2)
            if time.monotonic() - told_at > TELL_EVERY:
                told_at, done = time.monotonic(), _finished(images)
                log.info("fetched %d of %d shards, %d of them now", done, total, done - begun)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode


def _finished(images: Path) -> int:
    return sum(1 for _ in images.glob(f"*{STATISTICS}"))
