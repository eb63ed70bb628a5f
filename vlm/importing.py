"""Published checkpoints as models of ours."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from vlm.contracts.errors import InputError
from vlm.interop.foreign import Foreign
from vlm.interop.formats import Beside, read_checkpoint
from vlm.library import make, read_config
from vlm.models.llms.adapters import adapter_tensors
from vlm.models.vlm import VLM
from vlm.training.tensors import differences, fill, in_short, own_tensors
from vlm.training.weights import load_part, model_folder

log = logging.getLogger(__name__)


def import_checkpoint(
    format: str,
    path: str | Path,
    dtype: torch.dtype | None = None,
    base: str | Path | None = None,
    encoder: str | Path | None = None,
    quantize: str | None = None,
) -> VLM:
    """A published checkpoint as a model of ours, in eval mode; the file's dtype is kept unless `dtype` is given.

    format: purevlm (.npz), supravl_nano or keural (folders), fvlm (checkpoint.pt, or its folder).
    base: of keural the folder of its language model, which the published folder only names; of fvlm that of its tokenizer
    and chat template, without which it takes ids alone.
    encoder, quantize: for keural. encoder: a run or model folder whose encoder takes the place of the published one.
    quantize: "nf4" keeps the language model in four bits, as it was while the adapters were trained.
    Raises: InputError naming the tensor that does not fit.
    """
    from vlm.build import compose

    own = None if encoder is None else model_folder(encoder)
    node = None if own is None else read_config(own)["encoder"]
    beside = Beside(None if base is None else str(base), quantize, node)
    found = read_checkpoint(format, Path(path), beside)
    model = make(compose(found.overrides).config).to(found.dtype)
    held = _held(found)
    for name in model.parts:
        part = getattr(model, name)
        if hasattr(part, "load_pretrained") and name not in held:
            part.load_pretrained()
            for parameter in part.weights().values():
                parameter.requires_grad_(False)  # it stays in its folder
        elif hasattr(part, "initialise"):
            part.initialise()
    if own is not None:
        load_part(model, "encoder", own, "encoder")
    _fill(model, found, path, without=[] if own is None else ["encoder"])
    for note in found.notes:
        log.warning(note)
    if found.tokenizer is not None:
        model.processor.tokenizer.load(found.tokenizer)
    return model.to(dtype or found.dtype).eval()


def _held(found: Foreign) -> set[str]:
    """The parts that the published files hold themselves."""
    return {name.partition(".")[0] for name in found.tensors}


def _fill(model: VLM, found: Foreign, path: str | Path, without: list[str]) -> None:
    held = _held(found)
    given = [
        name
        for name in model.parts
        if name not in without and (name in held or not hasattr(getattr(model, name), "load_pretrained"))
    ]
    wanted = {f"{part}.{name}": t for part in given for name, t in own_tensors(getattr(model, part)).items()}
    if found.check is not None:
        found.check(wanted)
    fill(wanted, found.tensors, str(path))
    for name, tensors in found.adapters.items():
        own = adapter_tensors(model.llm, name)
        if faults := differences(own, tensors):
            of = found.made_on.get(name)
            raise InputError(
                f"base: the adapter {name} was trained on {of or 'another language model'}, and base={model.llm.path} does not "
                f"fit it: {in_short(faults)}; name the folder of the one that it was trained on with base=DIR"
            )
        fill(own, tensors, str(path))
