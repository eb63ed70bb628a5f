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
        mask: Tensor | None = None,
        cache: Any = None,
        keep: int | None = None,
    ) -> Tensor:
        """embeds [R, L, W] -> hidden [R, L, W]; mask bool [R, 1, L, L'] (True = may see), None = plain causal.

        cache: a transformers Cache whose length is added to L for the keys.
        keep: only the last `keep` positions are asked for, [R, keep, W]; the last block may leave out the others.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., W] -> [..., V]."""
        ...

    def logp(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of targets [R, L] under hidden [R, L, W]; 0 where targets is IGNORE."""
        ...
