"""The contrastive composite: pictures and captions become unit rows of one space."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vlm.contracts.batch import PADDING, Batch
from vlm.contracts.errors import RunError
from vlm.contracts.fusion import Output
from vlm.contracts.ranges import PositiveFloat, PositiveInt
from vlm.contracts.vision import EncoderOutput


class TwoTower(nn.Module):
    """batch -> Output(image [B, E], text [B, E], aux): row b is sample b, its picture and its caption.

    width: E.   temperature: what similarities are divided by at the start; learned.   scale_limit: most that they are
    ever multiplied by.   bias: of the sigmoid loss at the start, learned; None for the softmax loss, which has none.
    processor: turns pictures and captions into batches (vlm.data.captions).
    config: the plain nodes from which the parts were assembled, saved with the model.
    """

    nodes: ClassVar = ("encoder", "text")
    parts: ClassVar = ("encoder", "text", "joint")

    def __init__(
        self,
        encoder: nn.Module,
        text: nn.Module,
        config: dict[str, Any],
        width: PositiveInt,
        temperature: PositiveFloat,
        scale_limit: PositiveFloat,
        bias: float | None,
    ) -> None:
        super().__init__()
        self.encoder, self.text = encoder, text
        self.joint = Joint(encoder.spec.width, text.spec.width, width, temperature, scale_limit, bias)  # type: ignore[union-attr, arg-type]
        self.config = config
        self.processor: Any = None

    def forward(self, batch: Batch) -> Output:
        if len(batch.views) != len(batch.ids):
            raise RunError(f"{len(batch.views)} views for {len(batch.ids)} captions: a pair has one view and one row")
        image, aux = self.image_rows(batch.views, batch.token_budget)
        return Output(image=image, text=self.text_rows(batch.ids, batch.segment != PADDING), aux=aux)

    def image_rows(self, views: Tensor, token_budget: int | None = None) -> tuple[Tensor, Any]:
        """views [B, C, H, W] -> unit rows [B, E], and the encoder's aux terms."""
        seen: EncoderOutput = self.encoder(views, token_budget)
        return _unit(self.joint.image(summary(seen))), seen.aux

    def text_rows(self, ids: Tensor, inside: Tensor) -> Tensor:
        """ids [B, L], inside bool [B, L] (true for tokens, padding on the right) -> unit rows [B, E]."""
        return _unit(self.joint.text(self.text(ids, inside)))


class Joint(nn.Module):
    """Both projections into the joint space, and the scale (and bias) of the similarities there.

    log_scale, bias [1]: not scalars, which cannot be sharded.
    """

    def __init__(
        self, image_width: int, text_width: int, width: int, temperature: float, scale_limit: float, bias: float | None
    ) -> None:
        super().__init__()
        self.limit = math.log(scale_limit)
        self.image = nn.Linear(image_width, width, bias=False)
        self.text = nn.Linear(text_width, width, bias=False)
        for projection in (self.image, self.text):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        self.log_scale = nn.Parameter(torch.full((1,), min(self.limit, -math.log(temperature))))
        self.bias = None if bias is None else nn.Parameter(torch.full((1,), float(bias)))

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the scale within its limit; called after every optimizer step.

        Inside forward a clamp would have no gradient beyond the limit: what the optimizer's momentum carried over it
        could not come back.
        """
        self.log_scale.clamp_(max=self.limit)


def summary(seen: EncoderOutput) -> Tensor:
    """One vector a view [N, D]: the encoder's own, or else the mean of its tokens."""
    if seen.pooled is not None:
        return seen.pooled
    if seen.mask is None:
        return seen.tokens.mean(1)
    inside = seen.mask.unsqueeze(-1).to(seen.tokens.dtype)
    return (seen.tokens * inside).sum(1) / inside.sum(1)


def _unit(rows: Tensor) -> Tensor:
    """In float32 at least, as the similarities are multiplied by up to `scale_limit`."""
    return nn.functional.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=-1)
