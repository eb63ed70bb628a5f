"""64-bit hashes that differ in few bits, found among millions without comparing with each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # of 64 bits; two hashes with <= 4 other bits share a band


class NearHashes:
    """Hashes in memory, 28 bytes each with what finds them.

    hashes: uint64 [n], in the caller's order.
    """

    def __init__(self, hashes: np.ndarray) -> None:
        self.hashes = hashes
        self._members = np.empty((len(BANDS), len(hashes)), np.uint32)
        self._starts = []
        for number, (_, width) in enumerate(BANDS):
            values, self._members[number] = banded(hashes, number)
            self._starts.append(np.searchsorted(values, np.arange((1 << width) + 1)))

    def within(self, wanted: int, bits: int) -> np.ndarray:
        """Places of the hashes that differ from one in at most so many bits (up to 4), in order."""
        return close(self.hashes, self._sharing, wanted, bits)

    def _sharing(self, number: int, value: int) -> np.ndarray:
        first, last = self._starts[number][value : value + 2]
        return self._members[number, first:last]


def close(hashes: np.ndarray, sharing: Callable[[int, int], np.ndarray], wanted: int, bits: int) -> np.ndarray:
    """Places in `hashes` [n] that differ from `wanted` in at most so many bits (up to 4), in order, as int64.

    sharing: number of a band and its value -> places of the hashes with that value there.
    """
    hash = np.array([wanted], np.uint64)
    numbers = range(len(BANDS) if bits else 1)
    places = np.unique(np.concatenate([sharing(number, int(band(hash, number)[0])) for number in numbers]))
    return places[np.bitwise_count(hashes[places] ^ hash) <= bits].astype(np.int64)


def banded(hashes: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A part of each hash, sorted, as uint16 [n], and whose it is, as uint32 [n]."""
    values = band(hashes, number)
    members = np.argsort(values, kind="stable").astype(np.uint32)
    return values[members], members


def band(hashes: np.ndarray, number: int) -> np.ndarray:
    """A part of each 64-bit hash, as uint16."""
    start, width = BANDS[number]
    return ((hashes >> np.uint64(start)) & np.uint64((1 << width) - 1)).astype(np.uint16)
