"""How views enter the text, and what a model and an objective return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from vlm.contracts.batch import Batch
from vlm.contracts.language import LanguageModel
from vlm.contracts.vision import Connector, Encoder

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Output:
    """What a model says about a batch.

    logp [R, L-1]: log-probability of labels[:, 1:], 0 where there is none.
    reference [R, L-1]: the same without the uppermost adapter and without gradient, if it was asked for.
    image, text [B, E]: unit rows of a contrastive model.   aux: named scalars for the loss.
    """

    logp: Tensor | None = None
    reference: Tensor | None = None
    image: Tensor | None = None
    text: Tensor | None = None
    aux: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass
class Loss:
    """An objective as a sum and what it is a mean over; logs: named scalars to report."""

    total: Tensor
    count: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


class Fusion(Protocol):
    """Puts views into text rows; it may run the encoder and the language model as often as its settings say."""

    def __call__(
        self, batch: Batch, encoder: Encoder, connector: Connector, llm: LanguageModel
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """-> embeds [R, L, W] and the encoder's aux terms."""
        ...
