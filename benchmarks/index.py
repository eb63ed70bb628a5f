"""Reading a large index at random through a mix: seconds a place, and by how much the process grows.

python -m benchmarks.index [rows] [folder] [--growth]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vlm.data.canonical import BLOCK, FORMAT, INDEX_DTYPE
from vlm.data.order import Mix, Source
from vlm.data.shards import ShardSet, key_of

ROWS, DRAWN, SPAN, IN_SHARD = 10_000_000, 200_000, 50 * BLOCK, 10_000  # rows; places; bytes of a row; rows of a shard


def main(rows: int = ROWS, folder: str | None = None, only_growth: bool = False) -> None:
    """only_growth: print the growth in bytes and nothing else."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        directory = Path(home) / "large" / "train"
        make(directory, rows)
        shards = ShardSet(directory)
        mix = Mix([Source(rows, rows, windows=(320, 64))], seed=0)
        shards.costs(mix.place(0).row)
        before, begin = resident(), time.perf_counter()
        for position in range(0, rows, max(1, rows // DRAWN)):
            shards.costs(mix.place(position).row)
        seconds, grown = time.perf_counter() - begin, resident() - before
        del shards
    if only_growth:
        print(grown)
        return
    drawn = len(range(0, rows, max(1, rows // DRAWN)))
    before = resident()
    keys = [key_of("large", row) for row in range(rows)]
    listed = resident() - before
    print(f"{drawn:,} of {len(keys):,} rows: {seconds / drawn * 1e6:.1f} us a row for its place and its index entry")
    print(f"growth while reading {grown / 2**20:.1f} MiB; a list of as many keys {listed / 2**20:,.0f} MiB")


def make(directory: Path, rows: int) -> None:
    """An index of `rows` equal rows, and shards of the right size with nothing in them."""
    directory.mkdir(parents=True)
    index = np.lib.format.open_memmap(directory / "index.npy", mode="w+", dtype=INDEX_DTYPE, shape=(rows,))
    shards = []
    for begin in range(0, rows, IN_SHARD):
        count = min(IN_SHARD, rows - begin)
        part = index[begin : begin + count]
        part["shard"], part["offset"], part["span"] = len(shards), np.arange(count) * SPAN, SPAN
        part["json_off"], part["json_len"], part["media"], part["pixels"] = BLOCK, 400, 1, 224 * 224
        shards.append({"name": f"shard-{len(shards):06d}.tar", "bytes": count * SPAN + 2 * BLOCK})
        with (directory / shards[-1]["name"]).open("wb") as stream:
            stream.truncate(shards[-1]["bytes"])
    index.flush()
    manifest = {"format": FORMAT, "set": "large", "split": "train", "counts": {"samples_out": rows}, "shards": shards}
    manifest |= {"index": {"bytes": (directory / "index.npy").stat().st_size}, "license": {"counts": {"CC0-1.0": rows}}}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def resident() -> int:
    """Bytes of this process in memory now, mapped files included (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--growth"]
    main(int(words[0]) if words else ROWS, words[1] if len(words) > 1 else None, "--growth" in sys.argv)
