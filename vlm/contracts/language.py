"""What a language model is to the rest: embeddings in, hidden states out, log-probabilities on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LanguageSpec:
    """vocabulary: rows of the embedding table.   width: hidden channels.   positions: longest row."""

    vocabulary: int
    width: int
    positions: int


class LanguageModel(Protocol):
    """Embedding, decoder and head as separate steps, so that a fusion can work between them."""

    spec: LanguageSpec

    def embed(self, ids: Tensor) -> Tensor:
        """ids [R, L] -> [R, L, W]."""
        ...

    def __call__(
        self,
        embeds: Tensor,
        positions: Tensor,
        mask: Any = None,
        cache: Any = None,
        keep: int | Tensor | None = None,
    ) -> Tensor:
        """embeds [R, L, W] -> hidden [R, L, W].

        mask: None for plain causal; bool [R, 1, L, L'], True = may see; or how the segments of packed rows attend
        (vlm.models.mask.Spans, made from the batch once and taken by vlm.models.attention.attend).
        cache: a transformers Cache whose length is added to L for the keys.
        keep: only the last `keep` positions are asked for, or those at `keep` [Q], which are the last ones of each
        segment -> [R, Q, W]; the last block may leave out the others.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., W] -> [..., V]."""
        ...

    def logp(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of targets [R, L] under hidden [R, L, W]; 0 where targets is IGNORE."""
        ...
