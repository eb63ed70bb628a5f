"""Visual tokens take the places that the template left for them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from vlm.contracts.batch import VISUAL, Batch
from vlm.contracts.errors import InputError
from vlm.contracts.language import LanguageModel
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.vision import Connector, Encoder, VisionSpec


class Placeholder(nn.Module):
    """Each slot of a row is filled with the tokens of its view, in reading order."""

    def __init__(self, source: VisionSpec, width: PositiveInt) -> None:
        super().__init__()
        self.spec = self.describe(source, width)

    @staticmethod
    def describe(source: VisionSpec, width: int) -> VisionSpec:
        return source

    def forward(
        self, batch: Batch, encoder: Encoder, connector: Connector, llm: LanguageModel
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """-> embeds [R, L, W] and the encoder's aux terms.

        Raises: InputError if the rows leave another number of places than the views fill.
        """
        seen = encoder(batch.views, batch.token_budget)
        tokens = connector(seen)
        embeds = llm.embed(batch.ids.clamp_min(0))
        if batch.slots.numel() == 0:
            # A text-only batch takes the same way through encoder and connector, so that ranks stay in step.
            return embeds + 0.0 * tokens.sum(), seen.aux
        return filled(embeds, batch, tokens[batch.slots[:, 1]]), seen.aux


def filled(embeds: Tensor, batch: Batch, tokens: Tensor) -> Tensor:
    """embeds [R, L, W] with tokens [M, T, W] in the places of the M slots.

    Raises: InputError if the rows leave another number of places.
    """
    places = (batch.ids == VISUAL).flatten().nonzero().squeeze(1)
    filling = tokens.flatten(0, 1).to(embeds.dtype)
    if len(places) != len(filling):
        raise InputError(
            f"the rows leave {len(places)} places for visual tokens, but {batch.slots.shape[0]} slots of "
            f"{tokens.shape[1]} tokens fill {len(filling)} (token_budget={batch.token_budget}); "
            "rows and model must use the same token budget, and no row may be cut inside a picture"
        )
    return embeds.flatten(0, 1).index_copy(0, places, filling).view_as(embeds)
