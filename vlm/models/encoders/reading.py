"""How a vision transformer answers queries: they pass through its layers as a class token would, and are seen by nobody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from torch import Tensor, nn

from vlm.contracts.vision import EncoderOutput

Seen = tuple[Tensor, Tensor]  # keys and values of a layer, each [N, heads, tokens, channels of a head]


def encoded(states: Tensor, blocks: Iterable[nn.Module], norm: nn.Module, front: int = 0) -> EncoderOutput:
    """states [N, T, D] through blocks that give (states, Seen), with what every layer's queries attend to kept.

    front: tokens in front of those of the view; the first of them is `pooled`.
    A block is called as `block(states)`, or as `block(queries, seen)` to attend to what another call saw.
    Source: the nanoSmol project (fVLM).
    """
    blocks = list(blocks)
    state: list[Seen] = []
    for block in blocks:
        states, seen = block(states)
        state.append(seen)
    states = norm(states)
    return EncoderOutput(
        tokens=states[:, front:],
        pooled=states[:, 0] if front else None,
        state=state,
        read=partial(_read, blocks, norm, state),
    )


def _read(
    blocks: Sequence[nn.Module], norm: nn.Module, state: Sequence[Seen], queries: Tensor, views: Tensor | None = None
) -> Tensor:
    """queries [N, R, D], R of each view, or of those at `views` -> what they saw, after the last norm."""
    for block, (keys, values) in zip(blocks, state, strict=True):
        queries, _ = block(queries, (keys, values) if views is None else (keys[views], values[views]))
    return norm(queries)
