"""A small foveated model with weights that need no random generator, and batches of frames for it.

The order of tensors, the weights and the inputs are those of the public reference from which the figures in
tests/models/test_foveated.py were computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from vlm.contracts.batch import IGNORE, PADDING, VISUAL, Batch
from vlm.contracts.vision import ViewSpec
from vlm.models.connectors.foveal import Foveal
from vlm.models.encoders.dinov2 import DINOv2
from vlm.models.fusion.foveated import Foveated, Mode
from vlm.models.llms.sized import Sized
from vlm.models.vlm import VLM

SIDE, WIDTH, VOCABULARY = 56, 48, 97
NORMS = ("norm", "norm1", "norm2", "input_layernorm", "post_attention_layernorm")


def foveal_model(mode: Mode) -> VLM:
    """float64, in eval mode."""
    encoder = DINOv2(ViewSpec(3, SIDE, SIDE), patch=14, width=WIDTH, layers=12, heads=6, mlp=192, grid=4, scale=1.0)
    llm = Sized("llama", VOCABULARY, 32, 2, 4, 4, 64, 128, 10_000.0, tie=True)
    for module in llm.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 1e-5
    connector = Foveal(encoder.spec, llm.spec.width, query_width=WIDTH, scale=0.14)
    model = VLM(encoder, connector, llm, Foveated(connector.spec, llm.spec.width, mode), config={}).double().eval()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(_in_order(model)):
            waves = (
                0.37 * (torch.arange(parameter.numel(), dtype=torch.float64) + 1) * (number + 1) + number + 1
            ).sin()
            parameter.copy_(_scaled(name, waves).view_as(parameter))
    return model


def _scaled(name: str, waves: Tensor) -> Tensor:
    if name in ("connector.static", "connector.first"):
        return 2**0.5 * waves
    owner, _, kind = name.rpartition(".")
    scales = kind in ("scale1", "scale2") or (kind == "weight" and owner.rpartition(".")[2] in NORMS)
    return 1 + 0.1 * waves if scales else 0.1 * waves


def _in_order(model: VLM) -> Iterator[tuple[str, nn.Parameter]]:
    named = dict(model.named_parameters())
    both = ("weight", "bias")
    names = ["connector.static", "connector.first", "encoder.cls", "encoder.mask", "encoder.positions"]
    names += [f"encoder.patches.{kind}" for kind in both]
    for layer in range(12):
        block = f"encoder.blocks.{layer}"
        names += [f"{block}.{part}.{kind}" for part in ("norm1", "q", "k", "v", "out") for kind in both]
        names += [f"{block}.scale1"]
        names += [f"{block}.{part}.{kind}" for part in ("norm2", "grow", "shrink") for kind in both]
        names += [f"{block}.scale2"]
    names += [f"encoder.norm.{kind}" for kind in both]
    names += ["connector.ask.weight", "connector.tell.weight", "connector.tell.bias", "llm.model.embed_tokens.weight"]
    for layer in range(2):
        block = f"llm.model.layers.{layer}"
        names += [f"{block}.self_attn.{part}_proj.weight" for part in "qkvo"]
        names += [f"{block}.mlp.{part}_proj.weight" for part in ("gate", "up", "down")]
        names += [f"{block}.{part}.weight" for part in ("input_layernorm", "post_attention_layernorm")]
    names += ["llm.model.norm.weight"]
    names += [f"connector.{part}.{kind}" for part in ("project", "steer") for kind in both]
    assert sorted(names) == sorted(named), sorted(set(names) ^ set(named))
    for name in names:
        yield name, named[name]


def clips(frames: int = 4, rows: int = 2) -> Tensor:
    """[rows * frames, 3, 56, 56]."""
    count = rows * frames * 3 * SIDE * SIDE
    return (0.013 * torch.arange(count, dtype=torch.float64)).sin().view(-1, 3, SIDE, SIDE)


def texts(shift: int = 0, rows: int = 2) -> Tensor:
    """[rows, 7]."""
    return ((13 * torch.arange(rows * 7) + shift) % VOCABULARY).view(rows, 7)


def clip_batch(views: Tensor, ids: Tensor, frames: int, first_label: int) -> Batch:
    """Rows of `frames` views each, then ids [R, S]; labels from position `first_label` of the text on."""
    rows, length = ids.shape
    front = torch.full((rows, frames), VISUAL)
    labels = ids.clone()
    labels[:, :first_label] = IGNORE
    return Batch(
        ids=torch.cat([front, ids], 1),
        labels=torch.cat([torch.full_like(front, IGNORE), labels], 1),
        positions=torch.arange(frames + length).expand(rows, -1),
        segment=torch.arange(rows).unsqueeze(1).expand(-1, frames + length),
        parent=torch.full((rows,), PADDING),
        sample=torch.arange(rows),
        views=views,
        slots=torch.tensor([[row, row * frames + frame] for row in range(rows) for frame in range(frames)]).view(-1, 2),
        pictures=torch.arange(len(views)),
        keys=tuple(map(str, range(rows))),
    )


def packed(views: Tensor, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Batch:
    """One row of several conversations: (numbers of its views, its ids) each; every id that follows something is learned."""
    ids, labels, positions, segment, slots = [], [], [], [], []
    for number, (shown, text) in enumerate(rows):
        ids += [VISUAL] * len(shown) + list(text)
        labels += [IGNORE] * max(1, len(shown)) + list(text if shown else text[1:])
        positions += range(len(shown) + len(text))
        segment += [number] * (len(shown) + len(text))
        slots += [[0, view] for view in shown]
    return Batch(
        ids=torch.tensor([ids]),
        labels=torch.tensor([labels]),
        positions=torch.tensor([positions]),
        segment=torch.tensor([segment]),
        parent=torch.full((len(rows),), PADDING),
        sample=torch.arange(len(rows)),
        views=views,
        slots=torch.tensor(slots, dtype=torch.long).reshape(-1, 2),
        pictures=torch.arange(len(views)),
        keys=tuple(map(str, range(len(rows)))),
    )
