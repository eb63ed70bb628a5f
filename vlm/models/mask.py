"""The one place where segments become a rule of who sees whom."""

from __future__ import annotations

import torch
from torch import Tensor

from vlm.contracts.batch import PADDING, Batch


class Spans:
    """How the segments of a batch attend, made once a batch: the same rule as `segment_mask`, without [L, L].

    The rows, one after another, are cut into runs of one segment (or of padding):
    sizes [run]   length of each run.   begins [run]   position in its row at which it begins.
    seen  [run]   the runs whose keys it sees, its ancestors as wholes and itself last; () for padding.
    """

    def __init__(
        self, segment: Tensor, parent: Tensor, sizes: list[int], begins: list[int], seen: list[tuple[int, ...]]
    ) -> None:
        self.segment, self.parent = segment, parent
        self.sizes, self.begins, self.seen = sizes, begins, seen
        self._dense: Tensor | None = None

    @classmethod
    def of(cls, segment: Tensor, parent: Tensor) -> Spans:
        """segment [R, L], parent [S].

        Raises: ValueError for a segment in several pieces, or a parent that is not in the same row or comes later
        in `parent` than its child.
        """
        above = parent.tolist()
        sizes, begins, seen = [], [], []
        place: dict[int, tuple[int, int]] = {}  # segment -> its row and run
        for row, line in enumerate(segment.cpu()):
            position = 0
            for number, size in zip(*(t.tolist() for t in line.unique_consecutive(return_counts=True)), strict=True):
                if number in place:
                    raise ValueError(
                        f"segment {number} of row {place[number][0]} comes again in row {row} at position {position}; "
                        "a segment is one run of positions: number the second piece anew"
                    )
                if number != PADDING:
                    place[number] = (row, len(sizes))
                sizes.append(size)
                begins.append(position)
                seen.append(() if number == PADDING else (len(sizes) - 1,))
                position += size
        for number in sorted(place):  # parents come first, so that theirs are known already
            row, run = place[number]
            if above[number] == PADDING:
                continue
            if above[number] >= number or place.get(above[number], (None,))[0] != row:
                raise ValueError(
                    f"segment {number} (row {row}) has parent {above[number]}; "
                    "a parent lies in the same row and has a lower number than its branches"
                )
            seen[run] = (*seen[place[above[number]][1]], run)
        return cls(segment, parent, sizes, begins, seen)

    def from_first(self, wanted: Tensor) -> Tensor:
        """wanted bool [L] of a single row -> [Q] positions: of each segment all from its first wanted one on."""
        sizes = torch.tensor(self.sizes, device=wanted.device)
        so_far = wanted.cumsum(0)
        before = (so_far - wanted.long())[sizes.cumsum(0) - sizes]  # wanted in earlier segments
        return (so_far > before.repeat_interleave(sizes)).nonzero().squeeze(1)

    def asked(self, keep: int | Tensor) -> list[int]:
        """How many of the positions of each run are kept: the last `keep` of a row, or those at `keep` [Q], ascending.

        Raises: ValueError unless those of a run are its last ones.
        """
        length = self.segment.shape[1]
        places = torch.arange(length - keep, length) if isinstance(keep, int) else keep.cpu()
        begins = torch.tensor(self.begins)
        ends = begins + torch.tensor(self.sizes)
        first, last = torch.searchsorted(places, begins), torch.searchsorted(places, ends)
        counts = last - first
        some = counts > 0
        if not torch.equal(places[first[some]], (ends - counts)[some]):
            raise ValueError("keep: the kept positions of a segment must be its last ones; make them with from_first")
        return counts.tolist()

    def dense(self) -> Tensor:
        """bool [R, 1, L, L], for devices on which one large kernel beats many small ones."""
        if self._dense is None:
            self._dense = segment_mask(self.segment, self.parent)
        return self._dense


def attention_mask(batch: Batch) -> Spans | None:
    """What a language model takes as `mask`; None where plain causal attention is the same.

    That is so where every row is one segment without parent, with padding on its right only.
    """
    left, right = batch.segment[:, :-1], batch.segment[:, 1:]
    if bool(((left == right) | (right == PADDING)).all() & (batch.parent == PADDING).all()):
        return None
    return Spans.of(batch.segment, batch.parent)


def segment_mask(segment: Tensor, parent: Tensor) -> Tensor:
    """segment [R, L], parent [S] -> bool [R, 1, L, L], True = may see.

    A segment sees itself causally and, where it has a parent, all of its ancestors; padding sees itself only,
    so that no row of the softmax is empty.
    """
    length = segment.shape[1]
    query, key = segment.unsqueeze(2), segment.unsqueeze(1)
    position = torch.arange(length, device=segment.device)
    causal = position.unsqueeze(1) >= position
    own = (query == key) & (query != PADDING)
    seen, ancestor = own & causal, query
    while (ancestor != PADDING).any():  # one turn a generation: packing 1, preference pairs 2
        ancestor = torch.where(ancestor == PADDING, PADDING, parent[ancestor.clamp_min(0)])
        seen = seen | ((ancestor == key) & (key != PADDING))
    return (seen | torch.eye(length, dtype=torch.bool, device=segment.device)).unsqueeze(1)
