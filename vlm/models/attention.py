"""Attention over the segments of packed rows: each segment's queries meet the keys that they see, and no others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vlm.models.mask import Spans

# A part's own attention: q [n, H, Q, d], k and v [n, H', K, d], bool mask [n, 1, Q, K] -> [n, H, Q, d].
# Without a mask the last query stands at the last key, and each query sees the keys up to its own place.
Core = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def kept(rows: Tensor, keep: int | Tensor | None) -> Tensor:
    """rows [R, L, ...] -> the last `keep` positions, or those at `keep` [Q], or all."""
    if keep is None:
        return rows
    return rows[:, -keep:] if isinstance(keep, int) else rows[:, keep]


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | Spans | None, core: Core, keep: int | Tensor | None = None
) -> Tensor:
    """q [R, H, Q, d], k and v [R, H', L, d] -> [R, Q, H, d].

    mask: None for plain causal; bool [R, 1, L, L] (True = may see); or Spans, by which the work is the sum of the
    segments' own squares, and padding comes out as zeros.
    keep: the positions that q holds, as in `kept`; the last Q if it is not given.
    """
    keep = q.shape[2] if keep is None else keep
    if isinstance(mask, Spans):
        if q.device.type == "cpu":
            return _by_segment(q, k, v, mask, core, mask.asked(keep))
        mask = mask.dense()  # an accelerator would wait for every small call
    if mask is None and not isinstance(keep, int):
        mask = lower_right(k.shape[2], k.shape[2], q.device).expand(1, 1, -1, -1)
    if mask is not None:
        mask = mask[:, :, -keep:] if isinstance(keep, int) else mask[:, :, keep]
    return core(q, k, v, mask).transpose(1, 2)


def dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """The usual core: softmax(q.k * scale) v; scale defaults to 1 / sqrt(d)."""
    queries, keys = q.shape[2], k.shape[2]
    if mask is None and 1 < queries < keys:
        mask = lower_right(queries, keys, q.device)
    plain = mask is None and queries > 1
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=plain, scale=scale)


def lower_right(queries: int, keys: int, device: torch.device) -> Tensor:
    """bool [Q, K]: the queries are the last of the keys, and causal."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def _by_segment(q: Tensor, k: Tensor, v: Tensor, spans: Spans, core: Core, asked: list[int]) -> Tensor:
    """Segments of one size go through the core together. asked: queries of each run."""
    # Cut once: the gradient of a cut in n pieces is one concatenation, that of n slices n tensors of full size.
    queries = q.transpose(1, 2).flatten(0, 1).split(asked)
    keys, values = (rows.transpose(1, 2).flatten(0, 1).split(spans.sizes) for rows in (k, v))
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for run, seen in enumerate(spans.seen):
        if seen and asked[run]:
            alike[asked[run], sum(spans.sizes[other] for other in seen)].append(run)
    found = [query.new_zeros(query.shape[0], q.shape[1], v.shape[-1]) for query in queries]
    for runs in alike.values():
        seen = [other for run in runs for other in spans.seen[run]]
        answers = core(
            _stack(queries, runs, len(runs)), _stack(keys, seen, len(runs)), _stack(values, seen, len(runs)), None
        )
        for run, answer in zip(runs, answers.transpose(1, 2).unbind(), strict=True):
            found[run] = answer
    return torch.cat(found).unflatten(0, (q.shape[0], -1))


def _stack(pieces: Sequence[Tensor], chosen: Sequence[int], rows: int) -> Tensor:
    """pieces [length, H, d] -> the chosen ones, in turn, as [rows, H, length, d]."""
    joined = pieces[chosen[0]] if len(chosen) == 1 else torch.cat([pieces[piece] for piece in chosen])
    return joined.unflatten(0, (rows, -1)).transpose(1, 2)
