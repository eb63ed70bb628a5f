"""The language model says where to look next: what it made of one view becomes the query for the following one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from vlm.contracts.batch import PADDING, VISUAL, Batch
from vlm.contracts.errors import Mismatch
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.vision import Encoder, EncoderOutput, VisionSpec
from vlm.models.fusion.placeholder import filled
from vlm.models.hf_model import empty_cache
from vlm.models.mask import Spans

Mode = Literal["coarse_only", "coarse_fine", "autoregressive"]


class Foveated(nn.Module):
    """Each slot of a row is filled with the one token that its query finds in its view.

    mode: coarse_only asks every view with the static query. coarse_fine asks so first, lets the language model read
    these tokens alone, and asks each view again with what it made of the views before: all views at once, for training.
    autoregressive asks view by view, each with what the language model made of the final tokens before it. Text never
    steers: queries follow from the views of a conversation, in reading order, alone.
    Source: the nanoSmol project (fVLM); there one row is one clip in front of its text, here rows may hold several
    conversations, and branches go on from the views that they share.
    """

    modes = get_args(Mode)

    def __init__(self, source: VisionSpec, width: PositiveInt, mode: Mode) -> None:
        super().__init__()
        self.spec = self.describe(source, width, mode)
        self.mode = mode

    @staticmethod
    def describe(source: VisionSpec, width: int, mode: str) -> VisionSpec:
        if source.query_width is None:
            raise Mismatch("source", "asks with queries, and this connector takes none; choose connector=foveal")
        return source

    def forward(self, batch: Batch, encoder: Encoder, connector: Any, llm: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """-> embeds [R, L, W] and the encoder's aux terms.

        Raises: InputError if the rows leave another number of places than the slots fill.
        """
        seen = encoder(batch.views, batch.token_budget)
        embeds = llm.embed(batch.ids.clamp_min(0))
        if batch.slots.numel() == 0:
            unused = connector(seen).sum() + connector.next_query(embeds[:, :1]).sum() + connector.first.sum()
            return embeds + 0.0 * unused, seen.aux  # so that ranks without a view stay in step
        if self.mode == "autoregressive":
            tokens = _view_by_view(Paths.of(batch), seen, connector, llm)
        else:
            tokens = connector(seen)[batch.slots[:, 1]]
            if self.mode == "coarse_fine":
                tokens = _twice(tokens.squeeze(1), Paths.of(batch), seen, connector, llm)
        return filled(embeds, batch, tokens), seen.aux


@dataclass(frozen=True)
class Paths:
    """In which order the views of a batch are looked at; M slots in reading order.

    view [M]: of each slot.   before [M]: the slot that precedes it in its conversation, -1 for the first.
    position [M]: in its row.   segment [M], parent [S]: of the slots alone, as a language model's mask takes them.
    """

    view: Tensor
    before: Tensor
    position: Tensor
    segment: Tensor
    parent: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Paths:
        places = batch.ids == VISUAL
        segment, parents = batch.segment[places], batch.parent.tolist()
        last: dict[int, int] = {}  # segment -> its newest slot; those of a branch go on where its prefix ended
        above = [PADDING] * len(parents)
        before = []
        for slot, own in enumerate(segment.tolist()):
            if own not in last:
                ancestor = parents[own]
                while ancestor != PADDING and ancestor not in last:
                    ancestor = parents[ancestor]
                above[own] = ancestor
            before.append(last.get(own, last.get(above[own], -1)))
            last[own] = slot
        device = batch.ids.device
        return cls(
            view=batch.slots[:, 1],
            before=torch.tensor(before, device=device),
            position=batch.positions[places],
            segment=segment,
            parent=torch.tensor(above, device=device),
        )

    @property
    def seen(self) -> Spans:
        """Who sees whom among the slots."""
        return Spans.of(self.segment.unsqueeze(0), self.parent)

    def whole(self) -> Tensor:
        """[P, T]: every path from a first slot to one that no other follows, -1 behind its end."""
        before = self.before.tolist()
        paths = []
        for end in sorted(set(range(len(before))) - set(before)):
            path = [end]
            while before[path[-1]] >= 0:
                path.append(before[path[-1]])
            paths.append(torch.tensor(path[::-1]))
        return nn.utils.rnn.pad_sequence(paths, batch_first=True, padding_value=-1).to(self.before.device)


def _twice(coarse: Tensor, paths: Paths, seen: EncoderOutput, connector: Any, llm: Any) -> Tensor:
    """coarse [M, W] -> [M, 1, W]: what is found with the queries that follow from reading the coarse tokens."""
    hidden = llm(coarse.unsqueeze(0), paths.position.unsqueeze(0), paths.seen)[0]
    follows = (paths.before >= 0).unsqueeze(1)
    queries = torch.where(follows, connector.next_query(hidden)[paths.before], connector.first)
    # All queries of a view at once, so that its keys and values are never copied: [N, R, Q], R of the view asked most.
    rank = _rank(paths.view)
    asked = queries.new_zeros(len(seen.tokens), int(rank.max()) + 1, queries.shape[1])
    asked = asked.index_put((paths.view, rank), queries)
    return connector.glance(seen, asked)[paths.view, rank].unsqueeze(1)


def _view_by_view(paths: Paths, seen: EncoderOutput, connector: Any, llm: Any) -> Tensor:
    """[M, 1, W]; all paths of a batch go on together, a view at a time."""
    whole = paths.whole()
    cache = empty_cache()
    query = connector.first.expand(len(whole), -1)
    found = []
    for slots in whole.clamp_min(0).unbind(1):  # a path that has ended looks at the first slot, and nothing follows
        token = connector.glance(seen, query.unsqueeze(1), paths.view[slots])
        found.append(token.squeeze(1))
        if len(found) < whole.shape[1]:
            query = connector.next_query(llm(token, paths.position[slots].unsqueeze(1), None, cache)[:, -1])
    tokens = torch.stack(found, 1)
    inside = whole >= 0
    return tokens.new_zeros(len(paths.view), tokens.shape[-1]).index_put((whole[inside],), tokens[inside]).unsqueeze(1)


def _rank(view: Tensor) -> Tensor:
    """view [M] -> how many earlier slots show the same view."""
    order = view.argsort(stable=True)
    counts = view.bincount()
    starts = (counts.cumsum(0) - counts)[view[order]]
    rank = torch.empty_like(view)
    rank[order] = torch.arange(len(view), device=view.device) - starts
    return rank
