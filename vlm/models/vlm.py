"""The composite: encoder, connector, language model, and the fusion that joins them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vlm.contracts.batch import IGNORE, Batch
from vlm.contracts.fusion import Output
from vlm.models.mask import attention_mask


class VLM(nn.Module):
    """batch -> Output(logp [R, L-1], aux).

    processor: turns pictures and text into batches, the same in training and use (vlm.data.processor).
    config: the plain nodes from which the parts were assembled, saved with the model.
    """

    def __init__(
        self, encoder: nn.Module, connector: nn.Module, llm: nn.Module, fusion: nn.Module, config: dict[str, Any]
    ) -> None:
        super().__init__()
        self.encoder, self.connector, self.llm, self.fusion = encoder, connector, llm, fusion
        self.config = config
        self.processor: Any = None

    def forward(self, batch: Batch) -> Output:
        embeds, aux = self.fusion(batch, self.encoder, self.connector, self.llm)
        # Positions before the first target (a prefix of pictures, mostly) are seen, but nothing is asked of them.
        unasked = first_target(batch.labels) - 1
        keep = batch.labels.shape[1] - unasked
        hidden = self.llm(embeds, batch.positions, attention_mask(batch), keep=keep)
        logp = self.llm.logp(hidden[:, :-1], batch.labels[:, unasked + 1 :])  # type: ignore[operator]
        return Output(logp=nn.functional.pad(logp, (unasked, 0)), aux=aux)


def first_target(labels: Tensor) -> int:
    """First position in any row of labels [R, L] that carries loss, at least 1; L - 1 if there is none."""
    carries = (labels[:, 1:] != IGNORE).any(0)
    return int(carries.int().argmax()) + 1 if bool(carries.any()) else labels.shape[1] - 1
