"""Which row stands at which position: a pure function, so that resuming needs one integer and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


def mixed(*numbers: int) -> int:
    """A 64-bit hash of integers, equal on every machine and in every process."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class Permutation:
    """A bijection of 0 .. n-1 in constant memory: a four-round Feistel network with cycle walking."""

    def __init__(self, n: int, key: int) -> None:
        self.n = n
        self.bits = max(1, ((n - 1).bit_length() + 1) // 2)
        self.low = (1 << self.bits) - 1
        self.keys = [mixed(key, number) for number in range(4)]

    def __call__(self, index: int) -> int:
        while True:
            left, right = index >> self.bits, index & self.low
            for key in self.keys:
                scrambled = ((right ^ key) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
                left, right = right, left ^ ((scrambled >> 29) & self.low)
            index = (left << self.bits) | right
            if index < self.n:
                return index


@dataclass(frozen=True)
class Place:
    """Row `row` of set number `source`, read for the `visit`-th time."""

    source: int
    row: int
    visit: int


class Mix:
    """Rows of several sets at global positions 0, 1, 2, ...; the same on any number of workers and ranks.

    An epoch holds weight * rows places of each set, in an order that depends on (seed, epoch) only. A set with a
    weight below 1 goes on in the next epoch where it stopped; above 1 it repeats.
    """

    def __init__(self, rows: Sequence[int], weights: Sequence[float], seed: int, shuffle: bool) -> None:
        self.rows, self.seed, self.shuffle = list(rows), seed, shuffle
        self.quota = [max(1, round(count * weight)) for count, weight in zip(rows, weights, strict=True)]
        self.length = sum(self.quota)
        self._permutations: dict[tuple[int, int], Permutation] = {}

    def place(self, position: int) -> Place:
        epoch, index = divmod(position, self.length)
        if self.shuffle:
            index = self._permutation(-1, epoch, self.length)(index)
        source = 0
        while index >= self.quota[source]:
            index -= self.quota[source]
            source += 1
        visit, row = divmod(epoch * self.quota[source] + index, self.rows[source])
        if self.shuffle and self.quota[source] != self.rows[source]:
            row = self._permutation(source, visit, self.rows[source])(row)
        return Place(source, row, visit)

    def _permutation(self, source: int, turn: int, n: int) -> Permutation:
        found = self._permutations.get((source, turn))
        if found is None:
            self._permutations = {key: value for key, value in self._permutations.items() if key[1] >= turn - 1}
            found = self._permutations[source, turn] = Permutation(n, mixed(self.seed, source, turn))
        return found
