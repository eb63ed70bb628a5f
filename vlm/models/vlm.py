"""The composite: encoder, connector, language model, and the fusion that joins them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vlm.contracts.batch import IGNORE, Batch
from vlm.contracts.fusion import Output
from vlm.models.attention import kept
from vlm.models.mask import Spans, attention_mask


class VLM(nn.Module):
    """batch -> Output(logp [R, L-1], aux).

    processor: turns pictures and text into batches, the same in training and use (vlm.data.processor).
    config: the plain nodes from which the parts were assembled, saved with the model.
    """

    nodes = parts = ("encoder", "connector", "llm", "fusion")  # of the configuration; what is saved of it

    def __init__(
        self, encoder: nn.Module, connector: nn.Module, llm: nn.Module, fusion: nn.Module, config: dict[str, Any]
    ) -> None:
        super().__init__()
        self.encoder, self.connector, self.llm, self.fusion = encoder, connector, llm, fusion
        self.config = config
        self.processor: Any = None

    def forward(self, batch: Batch, reference: bool = False) -> Output:
        """reference: say also what the model without its uppermost adapter says; views are encoded once for both."""
        embeds, aux = self.fusion(batch, self.encoder, self.connector, self.llm)
        mask = attention_mask(batch)
        following = nn.functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)  # what each position is to say
        keep = asked(following != IGNORE, mask)
        before = None
        if reference:
            with torch.no_grad(), self.llm.below():  # type: ignore[operator]
                before = self._logp(embeds, batch, mask, following, keep)
        return Output(logp=self._logp(embeds, batch, mask, following, keep), reference=before, aux=aux)

    def _logp(self, embeds: Tensor, batch: Batch, mask: Spans | None, following: Tensor, keep: int | Tensor) -> Tensor:
        """[R, L-1], 0 where nothing is asked for."""
        hidden = self.llm(embeds, batch.positions, mask, keep=keep)
        logp = self.llm.logp(hidden, kept(following, keep))  # type: ignore[operator]
        places = kept(torch.arange(following.shape[1], device=logp.device).unsqueeze(0), keep)[0]
        whole = logp.new_zeros(following.shape).index_copy(1, places, logp)
        return whole[:, :-1]


def asked(wanted: Tensor, mask: Spans | None) -> int | Tensor:
    """wanted bool [R, L] -> which positions the language model is asked for, in the form of its `keep`.

    What stands before the first wanted position, of all rows or of each segment of a packed row (pictures, mostly),
    is seen, but nothing is asked of it. At least one position is asked for.
    """
    if mask is not None and len(wanted) == 1 and bool(wanted.any()):
        return mask.from_first(wanted[0])
    first = int(wanted.any(0).int().argmax())
    return wanted.shape[1] - first if bool(wanted.any()) else 1
