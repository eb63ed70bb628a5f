"""What a model is given: text rows, views, and which view stands in which slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IGNORE = -100  # label of a position that carries no loss
VISUAL = -1  # id of a position that a visual token will fill; no vocabulary has it
PADDING = -1  # segment of padding: it sees nothing and nothing sees it


@dataclass  # not frozen: Lightning's precision plugins set converted tensors on a copy
class Batch:
    """R text rows of length L, N views and M slots.

    ids [R, L]        token ids; VISUAL where a visual token stands.
    labels [R, L]     ids that carry loss, IGNORE elsewhere (aligned with ids, not shifted).
    positions [R, L]  position ids; a branch goes on where its prefix ends.
    segment [R, L]    segment of each position, counted over the batch; PADDING for padding.
    parent [S]        for each segment the segment it may see as a whole, -1 for none: packing is
                      segments without parent, a preference pair two branches of one prefix.
    sample [S]        for each segment the sample it belongs to, an index into keys.
    views [N, C, H, W]  encoder inputs, at least one (a text-only batch holds one blank view).
    slots [M, 2]      (row, view) for each run of VISUAL, in reading order; views may repeat.
    pictures [N]      identity of the picture that a view was cut from; -1 for the blank view.
    changed [R, L]    of pairs alone: which of an answer's tokens the other answer does not have.
    token_budget      visual tokens a view, if the encoder has a choice.
    keys              of the samples; several may share a packed row.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    segment: Tensor
    parent: Tensor
    sample: Tensor
    views: Tensor
    slots: Tensor
    pictures: Tensor
    changed: Tensor | None = None
    token_budget: int | None = None
    keys: tuple[str, ...] = ()

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with `change` applied to every tensor."""
        changed: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if hasattr(value, "dtype"):
                changed[entry.name] = change(value)
        return replace(self, **changed)

    @property
    def pairs(self) -> bool:
        """Whether every sample is a preference pair; its last two segments are the chosen and the rejected answer."""
        return self.changed is not None

    def by_segment(self, logp: Tensor) -> tuple[Tensor, Tensor]:
        """logp [R, L-1] of labels[:, 1:] -> its sum over the targets of each segment [S], and their number [S]."""
        targets = self.labels[:, 1:] != IGNORE
        segment = self.segment[:, 1:][targets]
        sums = logp.new_zeros(len(self.parent)).index_add(0, segment, logp[targets])
        return sums, self.parent.new_zeros(len(self.parent)).index_add(0, segment, segment.new_ones(len(segment)))

    def to(self, device: torch.device | str) -> Batch:
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))
