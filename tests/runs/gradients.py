"""python -m tests.runs.gradients FILE OVERRIDE...: a training run that also keeps the gradients of its first step."""

from __future__ import annotations

import sys

import torch

from vlm import run
from vlm.build import compose
from vlm.phases import base
from vlm.training.ranks import rank
from vlm.training.weights import whole


def main(file: str, overrides: list[str]) -> None:
    clip, kept = base.clip, {}

    def keeping(model, settings):
        if not kept:
            kept.update({n: whole(p.grad).clone() for n, p in model.named_parameters() if p.grad is not None})
            if rank() == 0:
                torch.save(kept, file)
        return clip(model, settings)

    base.clip = keeping
    torch.set_num_threads(1)
    run.train(compose(overrides))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
