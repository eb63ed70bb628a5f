"""An encoder is looked at: where it puts its tokens at several budgets, and how long that takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from vlm.contracts.errors import InputError
from vlm.contracts.pages import TokensConfig
from vlm.contracts.vision import EncoderOutput, FixedCount
from vlm.data.pictures import decode
from vlm.evaluation.fingerprint import weights_fingerprint
from vlm.held_out import Found, given_pictures, held_out_pictures
from vlm.library import read_config
from vlm.models.assemble import create, part
from vlm.reporting.token_records import Cut, Looked, Seen
from vlm.reporting.token_scores import measured
from vlm.reporting.tokens import write_tokens
from vlm.stopwatch import machine, pass_times
from vlm.training.weights import load_part, model_folder, resolve_paths

USUAL = (16, 64, 256, 1024)  # budgets that are shown where none are named


def look(settings: Mapping[str, Any]) -> Path:
    """Writes the page and returns its path. settings: conf/tokens.yaml, checked.

    Raises: InputError for an encoder that does not tell where its tokens lie, for a budget that it cannot have, and for
    pictures that cannot be read; RunError if the page cannot be written.
    """
    config = TypeAdapter(TokensConfig).validate_json(json.dumps(settings))
    folder = model_folder(config.model)
    beside = folder.parent if folder.name == "model" and (folder.parent / "status.json").exists() else folder
    nodes = read_config(folder)
    device = _device(config.device)
    maker, own = _views(nodes, config.size), _views(nodes, None)
    encoder = _encoder(nodes, own, folder).to(device)
    budgets = _budgets(encoder, maker, config.budgets)
    if config.images is not None:
        found = given_pictures(config.images, config.pictures)
    else:
        found = held_out_pictures(beside, config.paths.data, config.pictures)
    seen, views = _seen(encoder, maker, found, budgets, device)
    times = pass_times(encoder, views[0].unsqueeze(0), budgets, config.repeats)
    reachable = [budget for budget in budgets if budget is not None and _is_legal(encoder, own, budget)]
    speaks = nodes.get("llm") is not None
    looked = Looked(
        model=config.model,
        encoder=type(encoder).__name__,
        side=(maker.spec.height, maker.spec.width),
        own_side=(own.spec.height, own.spec.width),
        own_budget=encoder.spec.count(own.spec.height, own.spec.width, None),
        pictures=seen,
        of=found.count,
        source=found.source,
        times={_tokens(encoder, maker, budget): spent for budget, spent in zip(budgets, times, strict=True)},
        machine=machine(device),
        on_cpu=device == "cpu",
        scores=measured(beside, weights_fingerprint(folder), encoder.spec.count(own.spec.height, own.spec.width, None)),
        reachable=reachable,
        benchmark="small_vqa" if speaks else "small_retrieval",
    )
    out = Path(config.out) if config.out else beside / "tokens.html"
    return write_tokens(looked, out)


def _views(nodes: Mapping[str, Any], size: int | None) -> Any:
    """The model's view maker, at another size if one is given."""
    node = nodes["encoder"]["views"]
    if size is None:
        return create(node)
    if "size" not in node:
        raise InputError(f"size: {node['_target_'].rpartition('.')[2]} makes views of one size; leave size out")
    return create({**node, "size": size})


def _encoder(nodes: dict[str, Any], views: Any, folder: Path) -> Any:
    """The encoder alone, with its weights. Raises: InputError for a file that is missing or does not fit."""
    resolve_paths(nodes, folder)
    encoder = create(part(nodes, "encoder"), views=views.spec)
    load_part(SimpleNamespace(encoder=encoder), "encoder", folder)
    return encoder.eval()


def _budgets(encoder: Any, maker: Any, asked: Sequence[int] | None) -> Sequence[int | None]:
    """As asked, or the usual ones that are legal; of an encoder without a choice [None].

    Raises: InputError for one that it cannot have, with the nearest that it can, or for a view that it cannot take.
    """
    count, views = encoder.spec.count, maker.spec
    if isinstance(count, FixedCount):
        if asked is not None:
            raise InputError(f"budgets: this encoder always gives {count.tokens} tokens; leave budgets out")
        return [None]
    if asked is None:
        return [budget for budget in USUAL if _is_legal(encoder, maker, budget)] or [
            count(views.height, views.width, None)
        ]
    for budget in asked:
        try:
            count(views.height, views.width, budget)
        except InputError as error:
            raise InputError(f"budgets: {budget}: {error}") from error
    return sorted(set(asked))


def _is_legal(encoder: Any, maker: Any, budget: int) -> bool:
    try:
        encoder.spec.count(maker.spec.height, maker.spec.width, budget)
    except InputError:
        return False
    return True


def _tokens(encoder: Any, maker: Any, budget: int | None) -> int:
    return encoder.spec.count(maker.spec.height, maker.spec.width, budget)


@torch.no_grad()
def _seen(
    encoder: Any, maker: Any, found: Found, budgets: Sequence[int | None], device: str
) -> tuple[list[Seen], list[Tensor]]:
    """Every view with its cut at each budget, and the finished views on the device."""
    seen, finished = [], []
    for name, data in found.pictures:
        made = maker(decode(data, name, least=maker.least))
        for number, (raw, view) in enumerate(zip(made, maker.finish(torch.stack(list(made))), strict=True), 1):
            title = name if len(made) == 1 else f"{name}, view {number} of {len(made)}"
            view = view.to(device)
            cuts = tuple(_cut(encoder, view, budget) for budget in budgets)
            seen.append(Seen(title, _pixels(raw), cuts))
            finished.append(view)
    return seen, finished


def _cut(encoder: Any, view: Tensor, budget: int | None) -> Cut:
    """Raises: InputError for an encoder that does not tell where its tokens lie."""
    output: EncoderOutput = encoder(view.unsqueeze(0), budget)
    if output.spatial_metadata is None:
        raise InputError(
            f"model: {type(encoder).__name__} does not tell where its tokens lie (no spatial_metadata), so no box can be "
            "drawn; take a model with encoder=keural_25m, keural_183m or a small form of them"
        )
    kept = slice(None) if output.mask is None else output.mask[0].bool()
    levels = output.level_ids
    saliency = output.saliency_scores
    boxes = _array(output.spatial_metadata[0][kept])
    return Cut(
        boxes=boxes,
        levels=np.zeros(len(boxes), dtype=int) if levels is None else _array(levels[0][kept]).astype(int),
        saliency=None if saliency is None else _array(saliency[0][kept]),
    )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


def _pixels(view: Tensor) -> np.ndarray:
    """A view before it is normalised -> uint8 [H, W, 3], or [H, W] of one channel. Fractions are of white."""
    plain = view if view.dtype == torch.uint8 else (view.clamp(0, 1) * 255).round().to(torch.uint8)
    return plain.permute(1, 2, 0).squeeze(-1).cpu().numpy()


def _device(asked: str | None) -> str:
    if asked == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda, but torch sees no CUDA device; leave device out")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")
