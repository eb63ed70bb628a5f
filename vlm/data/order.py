"""Which row stands at which position: a pure function, so that resuming needs one integer and nothing else."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from struct import Struct

BLOCK = 256  # places, about; within a block, places are shuffled, and across blocks every source keeps its share
KEYS = Struct("<6Q")
MIXING, ROWS, REPLACING = range(3)  # what a number is drawn for, so that no two uses share a draw


def mixed(*numbers: int) -> int:
    """A 64-bit hash of integers, equal on every machine and in every process."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class Permutation:
    """A bijection of 0 .. n-1 in constant memory: a Feistel network with cycle walking.

    The product of a number's two halves makes each round nonlinear; with six rounds, single places and pairs of
    neighbours are evenly spread for small n too, where a plain multiplication leaves visible patterns.
    """

    def __init__(self, n: int, key: int) -> None:
        self.n = n
        self.bits = max(1, ((n - 1).bit_length() + 1) // 2)
        self.low = (1 << self.bits) - 1
        self.keys = KEYS.unpack(hashlib.blake2b(str(key).encode(), digest_size=KEYS.size).digest())

    def __call__(self, index: int) -> int:
        while True:
            left, right = index >> self.bits, index & self.low
            for key in self.keys:
                scrambled = (right * 0x9E3779B97F4A7C15 + key) & 0xFFFFFFFFFFFFFFFF
                left, right = right, left ^ ((scrambled * (scrambled >> 32) >> 24) & self.low)
            index = (left << self.bits) | right
            if index < self.n:
                return index


class Windows:
    """A bijection of 0 .. n-1 that reads near things together, for object stores and spinning disks.

    Blocks of block_rows consecutive rows are permuted, and then the rows inside each window of window_blocks blocks,
    so that a window's places need no more than window_blocks stretches of the files. The last block, which may be
    short, stands last in a window drawn by the key; that window ends so much earlier.
    """

    def __init__(self, n: int, block_rows: int, window_blocks: int, key: int) -> None:
        blocks = -(-n // block_rows)
        self.n, self.block_rows, self.window_blocks, self.key = n, block_rows, window_blocks, key
        self.window_rows = block_rows * window_blocks
        self.missing = blocks * block_rows - n
        self.short = mixed(key, 0) % -(-blocks // window_blocks)
        self.short_slot = min((self.short + 1) * window_blocks, blocks) - 1
        self.last_block = blocks - 1
        self._blocks = Permutation(max(1, blocks - 1), mixed(key, 1))
        self._rows: tuple[int, Permutation] | None = None

    def __call__(self, index: int) -> int:
        window = index // self.window_rows
        if index >= self._end(self.short):
            window = (index + self.missing) // self.window_rows
        begin = self._end(window - 1)
        if self._rows is None or self._rows[0] != window:
            self._rows = window, Permutation(self._end(window) - begin, mixed(self.key, 2, window))
        slot, row = divmod(self._rows[1](index - begin), self.block_rows)
        slot += window * self.window_blocks
        if slot == self.short_slot:
            block = self.last_block
        else:
            block = self._blocks(slot if slot < self.short_slot else slot - 1)
        return block * self.block_rows + row

    def _end(self, window: int) -> int:
        """Places before the end of a window."""
        return min((window + 1) * self.window_rows - (self.missing if window >= self.short else 0), self.n)


@dataclass(frozen=True)
class Source:
    """One set in a mix. rows: how many it has.   quota: places in an epoch.

    windows: (rows of a block, blocks of a window), to shuffle by `Windows`.   in_order: its rows are never shuffled
    further than within BLOCK places, because it can only be read from its beginning.
    """

    rows: int
    quota: int
    windows: tuple[int, int] | None = None
    in_order: bool = False


@dataclass(frozen=True)
class Place:
    """Row `row` of set number `source`, read for the `visit`-th time."""

    source: int
    row: int
    visit: int


@dataclass(frozen=True)
class Block:
    """Places begin .. end-1 of an epoch. ends: where each source's places would end if they stood one set after another;
    shift: what turns such a place into the source's item of the epoch; order: the places' arrangement.
    """

    epoch: int
    begin: int
    end: int
    ends: list[int]
    shift: list[int]
    order: Permutation | list[int]


class Mix:
    """Rows of several sets at global positions 0, 1, 2, ...; the same on any number of workers and ranks.

    An epoch holds each source's quota exactly, spread evenly: item k of a source with quota q has its time at
    (k + 1/2) / q of the epoch, and the epoch is cut into blocks of about BLOCK places, so that a block holds each
    source's share to within one place. With `shuffle`, places change within their block and rows within their set,
    otherwise rows come in file order. Source and row depend on (seed, position) only. A source with a quota below its
    rows goes on in the next epoch where it stopped; above, it repeats.

    interleave=False: one set after the other, for results that are listed by set.
    """

    def __init__(self, sources: Sequence[Source], seed: int, shuffle: bool = True, interleave: bool = True) -> None:
        self.sources, self.seed, self.shuffle, self.interleave = list(sources), seed, shuffle, interleave
        self.quota = [source.quota for source in self.sources]
        self.length = sum(self.quota)
        self.blocks = -(-self.length // BLOCK)
        self._ends = list(accumulate(self.quota))
        self._block: Block | None = None
        self._orders: dict[int, tuple[int, Permutation | Windows]] = {}

    def place(self, position: int) -> Place:
        """What stands at a position, counted over all epochs."""
        epoch, index = divmod(position, self.length)
        source, item = self._item(epoch, index)
        visit, row = divmod(epoch * self.quota[source] + item, self.sources[source].rows)
        if self.shuffle and not self.sources[source].in_order:
            row = self._order(source, visit)(row)
        return Place(source, row, visit)

    def replacement(self, position: int, attempt: int) -> Place:
        """What is read in place of a row that cannot be used, at the attempt-th try (from 1 on).

        It lies in the same epoch, and in the same block if a set can only be read in order.
        """
        epoch, index = divmod(position, self.length)
        begin, end = 0, self.length
        if any(source.in_order for source in self.sources):
            number = self._number(index)
            begin, end = self._begin(number), self._begin(number + 1)
        drawn = begin + mixed(self.seed, REPLACING, position, attempt) % (end - begin)
        return self.place(epoch * self.length + drawn)

    def shares(self) -> list[float]:
        """The share of all places that each source has, in the order of the sources."""
        return [quota / self.length for quota in self.quota]

    def _item(self, epoch: int, index: int) -> tuple[int, int]:
        """The source at a place of an epoch, and which of its items of that epoch it is."""
        if not self.interleave:
            source = bisect_right(self._ends, index)
            return source, index - self._ends[source] + self.quota[source]
        block = self._block
        if block is None or block.epoch != epoch or not block.begin <= index < block.end:
            block = self._block = self._cut(epoch, self._number(index))
        at = index - block.begin
        at = block.order[at] if isinstance(block.order, list) else block.order(at)
        source = bisect_right(block.ends, at)
        return source, at + block.shift[source]

    def _number(self, index: int) -> int:
        """The block that holds a place: borders are near equal steps, so the first guess is right or next to it."""
        number = index * self.blocks // self.length
        while self._begin(number) > index:
            number -= 1
        while self._begin(number + 1) <= index:
            number += 1
        return number

    def _begin(self, number: int) -> int:
        return sum(self._before(number)) if self.interleave else number * self.length // self.blocks

    def _before(self, number: int) -> list[int]:
        """Items of each source before a block: quota * number / blocks, rounded, in whole numbers."""
        twice = 2 * self.blocks
        return [(2 * quota * number + self.blocks) // twice for quota in self.quota]

    def _cut(self, epoch: int, number: int) -> Block:
        before, after = self._before(number), self._before(number + 1)
        ends = list(accumulate(stop - start for start, stop in zip(before, after, strict=True)))
        shift = [stop - end for stop, end in zip(after, ends, strict=True)]
        if self.shuffle:
            order: Permutation | list[int] = Permutation(ends[-1], mixed(self.seed, MIXING, epoch, number))
        else:
            times = [
                (2 * item + 1) / quota
                for start, stop, quota in zip(before, after, self.quota, strict=True)
                for item in range(start, stop)
            ]
            order = sorted(range(ends[-1]), key=times.__getitem__)
        begin = sum(before)
        return Block(epoch, begin, begin + ends[-1], ends, shift, order)

    def _order(self, source: int, visit: int) -> Permutation | Windows:
        """How the rows of a source are shuffled at a visit; the last one of each source is kept."""
        found = self._orders.get(source)
        if found is None or found[0] != visit:
            rows, windows = self.sources[source].rows, self.sources[source].windows
            key = mixed(self.seed, ROWS, source, visit)
            found = self._orders[source] = visit, Windows(rows, *windows, key) if windows else Permutation(rows, key)
        return found[1]


def quotas(rows: Sequence[int], weights: Sequence[float], shares: Sequence[float | None]) -> list[int]:
    """Places of each set in an epoch, at least one.

    A set with a share gets that part of all places; the others get weight * rows places and fill the rest. If all have
    shares, they are parts of their sum, and an epoch has as many places as the sets have rows.
    """
    asked = [share for share in shares if share is not None]
    if len(asked) == len(shares):
        marks = [round(mark * sum(rows) / sum(asked)) for mark in accumulate(asked, initial=0.0)]
        return [max(1, stop - start) for start, stop in pairwise(marks)]
    found = [max(1, round(count * weight)) for count, weight in zip(rows, weights, strict=True)]
    rest = sum(quota for quota, share in zip(found, shares, strict=True) if share is None)
    length = rest / (1 - sum(asked))
    return [
        quota if share is None else max(1, round(share * length)) for quota, share in zip(found, shares, strict=True)
    ]
