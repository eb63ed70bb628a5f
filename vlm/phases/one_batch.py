"""A loss over all pairs of a step, cut into what each micro-batch of each rank has to do with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lightning
import torch
from torch import Tensor

from vlm.contracts.fusion import Output


@dataclass(frozen=True)
class Part:
    """A micro-batch's part of the loss of the whole batch: its share of the sum, and what the sum asks of it.

    total: the sum, times the micro-batch's share of the rows.   image, text [b, E]: the sum's gradients with respect
    to its rows.   scale: those with respect to the parameters that all rows share, times its share.
    """

    total: Tensor
    image: Tensor
    text: Tensor
    scale: tuple[Tensor, ...]

    def pulls(self, image: Tensor, text: Tensor, scale: Sequence[Tensor]) -> Tensor:
        """`total`, with the gradients of this part for rows and parameters that are computed again with a graph."""
        pulled = (image * self.image).sum() + (text * self.text).sum()
        for parameter, gradient in zip(scale, self.scale, strict=True):
            pulled = pulled + (parameter * gradient).sum()
        return self.total + pulled - pulled.detach()  # `pulled` has no meaning of its own but its gradient


def parts(
    trainer: lightning.Trainer,
    objective: Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], Tensor],
    outputs: Sequence[Output],
    captions: Sequence[Tensor],
    scale: Sequence[Tensor],
) -> list[Part]:
    """Of this rank's micro-batches; every rank computes the whole loss, so that rows are all that is exchanged.

    Added up over micro-batches and ranks, the parts have the total and the gradients of the loss in one piece.
    objective: (image [B, E], text [B, E], same [B, B], scale) -> sum.   outputs, captions (ids [b, L], as long
    everywhere): of each micro-batch, as many rows on every rank.   scale: parameters of the objective.
    """
    rows = [torch.cat([_rows(output)[side] for output in outputs]).detach() for side in (0, 1)]
    same = equal(torch.cat(_of_all_ranks(trainer, torch.cat(list(captions)))))
    leaves = [*rows, *(parameter.detach().clone() for parameter in scale)]
    with torch.enable_grad():
        for leaf in leaves:
            leaf.requires_grad_()
        image, text = (torch.cat(_of_all_ranks(trainer, leaf)) for leaf in leaves[:2])
        total = objective(image, text, same, leaves[2:])
        of_image, of_text, *of_scale = torch.autograd.grad(total, leaves)
    sizes = [len(ids) for ids in captions]
    shares = [size / len(same) for size in sizes]
    return [
        Part(total.detach() * share, of_rows, of_captions, tuple(gradient * share for gradient in of_scale))
        for of_rows, of_captions, share in zip(of_image.split(sizes), of_text.split(sizes), shares, strict=True)
    ]


def equal(captions: Tensor) -> Tensor:
    """ids [B, L] -> bool [B, B], which rows are equal."""
    _, number = captions.unique(dim=0, return_inverse=True)
    return number.unsqueeze(0) == number.unsqueeze(1)


def _rows(output: Output) -> tuple[Tensor, Tensor]:
    assert output.image is not None
    assert output.text is not None
    return output.image, output.text


def _of_all_ranks(trainer: lightning.Trainer, rows: Tensor) -> list[Tensor]:
    """Those of others without a graph."""
    if trainer.world_size == 1:
        return [rows]
    found = [torch.empty_like(rows) for _ in range(trainer.world_size)]
    torch.distributed.all_gather(found, rows.detach().contiguous())
    found[trainer.global_rank] = rows
    return found
