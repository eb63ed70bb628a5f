"""Published files to verified shards, beside the bare work in them: reading, decoding and needed encoding alone.

python -m benchmarks.prepare [rows=4000] [workers=2]

A generated set in the published form of LLaVA-Pretrain (one JSON array, one zip of JPEG pictures; every twentieth is
larger than what is stored and has to be encoded anew) is prepared. In turn with as many processes: the same pictures
only read, decoded and encoded where needed, nothing checked and nothing written; and what a user would write instead, with
Pillow and webdataset's writer. Prints rows per second with start and end included, the ratios, and the largest memory of
any one process of ours.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from webdataset.writer import TarWriter

from benchmarks.paired import HEADING, of_rounds
from vlm.data.pictures import decode

DRAWN, SIDES, LARGE, EVERY, MAX_SIDE, ROUNDS, PACKAGE = 400, (480, 360), (1920, 1440), 20, 1536, 3, 64


def main(rows: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        size = generate(home / "raw", rows)
        print(f"{rows:,} rows, {size / 1e9:.2f} GB, {workers} worker processes")
        raw, largest = home / "raw", 0.0
        found: dict[str, list[tuple[float, float]]] = {"bare work": [], "Pillow, webdataset": []}
        for number in range(ROUNDS if rows < 50_000 else 1):
            ours = rows / seconds(partial(watched, ours_command(home, number, workers), note))
            found["bare work"].append((ours, rows / seconds(partial(bare, raw, workers))))
            found["Pillow, webdataset"].append(
                (ours, rows / seconds(partial(usual, raw, home / f"{number}.tar", workers)))
            )
            largest = max(largest, max(note))
            note.clear()
        print(" " * 20 + HEADING.replace("cpu s", "s"))
        for name, pairs in found.items():
            print(f"{name:20}{of_rounds(pairs)}")
        print(f"largest process: {largest / 1e9:.2f} GB")


note: list[int] = []  # bytes of the processes that were seen


def ours_command(home: Path, number: int, workers: int) -> list[str]:
    words = ["source=llava_pretrain_558k", f"from={home / 'raw'}", f"out={home / str(number)}", f"workers={workers}"]
    return [sys.executable, "-m", "data_prep.prepare", *words, f"paths.data={home}", "source.holdout.every=20"]


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def watched(command: list[str], sizes: list[int]) -> None:
    """Runs a command and notes the resident memory of it and its children, ten times a second."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch = threading.Thread(target=_note, args=(process, sizes))
    watch.start()
    _, told = process.communicate()
    watch.join()
    if process.returncode:
        raise SystemExit(told)


def _note(process: subprocess.Popen[str], sizes: list[int]) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    while process.poll() is None:
        for entry in Path("/proc").iterdir():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
            except OSError:  # it ended meanwhile
                continue
            if fields and (int(entry.name) == process.pid or int(fields[1]) == process.pid):
                sizes.append(int(fields[21]) * page)
        time.sleep(0.1)


def bare(raw: Path, workers: int) -> None:
    """Every picture out of the zip, decoded, and encoded anew where it is too large."""
    with zipfile.ZipFile(raw / "images.zip") as archive:
        names = archive.namelist()
    with ProcessPoolExecutor(workers, get_context("spawn"), _open, (raw / "images.zip",)) as pool:
        for _ in pool.map(_bare, _packages(names)):
            pass


def usual(raw: Path, target: Path, workers: int) -> None:
    """Pillow decodes and encodes in processes, webdataset writes what comes back."""
    table = {entry["image"]: entry["conversations"] for entry in json.loads((raw / FILE).read_text())}
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, _open, (raw / "images.zip",)) as pool, TarWriter(str(target)) as writer:
        for package in pool.map(_usual, _packages(list(table))):
            for name, data in package:
                key = name.replace("/", "-").removesuffix(".jpg")
                writer.write({"__key__": key, "json": {"caption": table[name][1]["value"]}, "jpg": data})


def _packages(names: list[str]) -> list[list[str]]:
    return [names[first : first + PACKAGE] for first in range(0, len(names), PACKAGE)]


_archive: zipfile.ZipFile | None = None  # of a worker process


def _open(path: Path) -> None:
    global _archive
    _archive = zipfile.ZipFile(path)


def _bare(names: list[str]) -> int:
    assert _archive is not None
    total = 0
    for name in names:
        pixels = decode(_archive.read(name), name)
        if max(pixels.shape) > MAX_SIDE:
            picture = Image.fromarray(pixels)
            picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
            picture.save(io.BytesIO(), "JPEG", quality=92)
        total += pixels.size
    return total


def _usual(names: list[str]) -> list[tuple[str, bytes]]:
    assert _archive is not None
    found = []
    for name in names:
        data = _archive.read(name)
        picture = Image.open(io.BytesIO(data)).convert("RGB")  # decodes it: what is cut short is found
        if max(picture.size) > MAX_SIDE:
            picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
            target = io.BytesIO()
            picture.save(target, "JPEG", quality=92)
            data = target.getvalue()
        found.append((name, data))
    return found


def generate(folder: Path, rows: int) -> int:
    """Files as the set is published. Every picture is another: each has a number in a comment and, drawn, its own noise
    up to the first few hundred. Returns: bytes."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    small = [_drawn(generator, SIDES) for _ in range(DRAWN)]
    large = [_drawn(generator, LARGE) for _ in range(8)]
    with zipfile.ZipFile(folder / "images.zip", "w") as archive, (folder / FILE).open("w") as table:
        for number in range(rows):
            data = large[number // EVERY % len(large)] if number % EVERY == 0 else small[number % DRAWN]
            name = f"{number // 1000:05d}/{number:09d}.jpg"
            archive.writestr(name, data[:2] + b"\xff\xfe\x00\x0a%08d" % number + data[2:])
            turns = [
                {"from": "human", "value": "Describe it.\n<image>"},
                {"from": "gpt", "value": f"a drawing number {number} of many colours in a frame"},
            ]
            entry = {"id": f"{number:09d}", "image": name, "conversations": turns}
            table.write(("[" if number == 0 else ",\n") + json.dumps(entry))
        table.write("]")
    return sum(path.stat().st_size for path in folder.iterdir())


FILE = "blip_laion_cc_sbu_558k.json"


def _drawn(generator: np.random.Generator, size: tuple[int, int]) -> bytes:
    coarse = Image.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse, dtype=np.int16) + generator.integers(-6, 7, (size[1], size[0], 3), dtype=np.int16)
    target = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=85)
    return target.getvalue()


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    main(int(given.get("rows", 4000)), int(given.get("workers", 2)))
