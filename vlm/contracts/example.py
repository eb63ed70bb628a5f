"""One sample as a data worker hands it on: a text row and views, not yet in a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Example:
    """One sample ready to batch.

    ids, labels, positions, segment [L]; parent: for each of its segments, -1 for none (vlm.contracts.batch.Batch).
    views: one tensor each.   slots: the view of each slot, in reading order.   pictures: identity of each view's
    picture.   cut: whether an answer was shortened.   changed [L]: of a pair (vlm.contracts.batch.Batch.changed).
    """

    key: str
    ids: Tensor
    labels: Tensor
    positions: Tensor
    segment: Tensor
    parent: tuple[int, ...]
    views: tuple[Tensor, ...]
    slots: tuple[int, ...]
    pictures: tuple[int, ...]
    cut: bool = False
    changed: Tensor | None = None

    @property
    def bytes(self) -> int:
        return sum(view.nbytes for view in self.views) + 4 * self.ids.nbytes
