"""Models in Python: built from a configuration, loaded from a folder, imported, counted and asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlm.check import check
from vlm.contracts.batch import PADDING, VISUAL, Batch
from vlm.contracts.errors import InputError, Mismatch
from vlm.contracts.settings import ModelConfig
from vlm.data.clips import decode_clip
from vlm.data.pictures import decode
from vlm.making import make, make_saved
from vlm.models.generation import answers
from vlm.models.llms.quantize import shape_of
from vlm.models.vlm import VLM
from vlm.training.given import initialise
from vlm.training.trainable import Trainable
from vlm.training.weights import load_saved, model_folder, saved_dtype


def build_model(overrides: Sequence[str]) -> Any:
    """Random weights for a composed configuration, frozen and trainable as its phase says, in eval mode.

    Raises: ConfigError naming file, key and remedy.
    """
    from vlm.build import compose

    if isinstance(overrides, str):
        raise InputError(f'give a list of overrides, for example build_model(["{overrides}"])')
    config = compose(list(overrides)).config
    torch.manual_seed(config["seed"])
    model = make(config)
    initialise(model)
    Trainable(model, config["phase"]["trainable"])
    return model.eval()


def load_model(source: str | Path) -> Any:
    """A run folder, its model/ folder or an exported one, in eval mode.

    Raises: InputError if it is no model, or a tensor is missing, left over or of another shape.
    """
    folder = model_folder(source)
    config = read_config(folder)
    try:
        model = make_saved(config, folder).to(saved_dtype(folder))
    except Mismatch as error:
        raise InputError(f"{folder} is not complete: {error}") from error
    if not model.processor.tokenizer.ready:
        raise InputError(
            f"{folder} is not complete: its tokenizer was learned, and tokenizer.json is missing; copy it again"
        )
    load_saved(model, folder)
    return model.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """The nodes of a saved model. Raises: InputError for a file that is none of ours."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if isinstance(config, dict) and config.get("format") == 1:  # before there were models of other parts
        config = {"model": {"_target_": "vlm.models.vlm.VLM"}, **config, "format": 2}
    if not isinstance(config, dict) or config.get("format") != 2:
        raise InputError(
            f"{path} does not describe a model of this project (format 2 with model, encoder, ...); a published "
            "checkpoint is read with experiments.import_checkpoint"
        )
    problems = check(config, ModelConfig)
    if problems:
        listing = "; ".join(f"{problem.key}: {problem.message}" for problem in problems)
        raise InputError(f"{path} was changed or damaged: {listing}; save or import the model again")
    return config


def parameter_report(model: Any) -> dict[str, Any]:
    """Logical weights: `total` counts a shared table once, `untied` as often as it is used; buffers never count."""
    return {
        "total": _weights(model.parameters()),
        "untied": _weights(p for _, p in model.named_parameters(remove_duplicate=False)),
        "trainable": _weights(p for p in model.parameters() if p.requires_grad),
        "parts": {name: _weights(getattr(model, name).parameters()) for name in model.parts},
    }


@torch.no_grad()
def logits(
    model: VLM,
    views: Tensor,
    ids: Tensor,
    token_budget: int | None = None,
    mode: str | None = None,
    visual: bool = False,
) -> Tensor:
    """[L, V], a row an id; with `visual` also the rows of the visual tokens in front.

    views [N, C, H, W] as the encoder takes them.   ids [L].   mode: of a foveated model; others have none.
    Raises: InputError for a mode that the model does not have, or for views and ids that do not fit it.
    """
    shape, language = model.processor.views.spec, model.llm.spec
    wanted = [shape.channels, shape.height, shape.width]
    if not isinstance(views, Tensor) or views.ndim != 4 or list(views.shape[1:]) != wanted:
        raise InputError(f"views: {_shape(views)}; this model takes [N, {', '.join(map(str, wanted))}]")
    if not isinstance(ids, Tensor) or ids.ndim != 1 or ids.is_floating_point() or not len(ids):
        raise InputError(f"ids: {_shape(ids)}; give one row of whole numbers, [L]")
    if int(ids.min()) < 0 or int(ids.max()) >= language.vocabulary:  # type: ignore[union-attr, operator]
        raise InputError(f"ids: {int(ids.min())} to {int(ids.max())}, but the vocabulary has {language.vocabulary}")  # type: ignore[union-attr]
    count = model.processor.spec.count(shape.height, shape.width, token_budget)
    front = count * views.shape[0]
    if front + len(ids) > language.positions:  # type: ignore[union-attr, operator]
        raise InputError(
            f"{front} visual tokens + {len(ids)} ids are more than the model's {language.positions} positions"  # type: ignore[union-attr]
        )
    row = torch.cat([torch.full((front,), VISUAL, dtype=torch.long), ids.long().cpu()]).unsqueeze(0)
    parameter = next(model.parameters())
    batch = Batch(
        ids=row,
        labels=row,
        positions=torch.arange(row.shape[1]).unsqueeze(0),
        segment=torch.zeros_like(row),
        parent=torch.full((1,), PADDING),
        sample=torch.zeros(1, dtype=torch.long),
        views=views.to(parameter.dtype),
        slots=torch.tensor([[0, view] for view in range(views.shape[0])], dtype=torch.long).reshape(-1, 2),
        pictures=torch.arange(views.shape[0]),
        token_budget=token_budget,
    ).to(parameter.device)
    with in_mode(model, mode):
        embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
    scores = model.llm.logits(model.llm(embeds, batch.positions))[0]  # type: ignore[operator]
    return scores if visual else scores[front:]


def generate(
    model: VLM,
    prompt: str = "",
    images: Sequence[Any] = (),
    video: Any = None,
    decoding: str = "greedy",
    token_budget: int | None = None,
    mode: str | None = None,
    **options: Any,
) -> str:
    """One answer. images: PIL pictures, paths, or ready [C, H, W] tensors.   video: a clip's file; it stands in front.

    mode: of a foveated model, None for its own; others have none.
    options: transformers' generation options (max_new_tokens, num_beams, top_k, temperature, ...).
    Raises: InputError for a picture, clip, mode, decoding or option that cannot be used.
    """
    if not isinstance(prompt, str):
        raise InputError(f"prompt: {prompt!r}; give text")
    if isinstance(images, str | Path | Image.Image | Tensor):
        raise InputError("images: give a list, also for a single picture")
    shown: list[Any] = [] if video is None else [_clip(video, model.processor.views)]
    shown += [_picture(image, model.processor.views.least) for image in images]
    example = model.processor.question(prompt, shown, token_budget)
    with in_mode(model, mode):
        return answers(model, [example], decoding, token_budget=token_budget, **options)[0].text  # type: ignore[arg-type]


@contextmanager
def in_mode(model: VLM, mode: str | None) -> Iterator[None]:
    """The model's fusion in another mode for a while; None leaves it. Raises: InputError for one that it does not have."""
    if mode is None:
        yield
        return
    modes = getattr(model.fusion, "modes", ())
    if mode not in modes:
        known = f"choose one of {', '.join(modes)}" if modes else "this model's fusion has no modes; leave mode out"
        raise InputError(f"mode={mode!r}: {known}")
    own, model.fusion.mode = model.fusion.mode, mode  # type: ignore[assignment]
    try:
        yield
    finally:
        model.fusion.mode = own  # type: ignore[assignment]


def _clip(video: Any, views: Any) -> Any:
    if not views.spec.frames:
        raise InputError("video: this model was not trained on clips; give pictures in images")
    if not isinstance(video, str | Path):
        raise InputError(f"video: {type(video).__name__}; give the path of a clip's file")
    return decode_clip(video, str(video), views.spec.frames, least=views.least)


def _picture(image: Any, least: tuple[int, int] | None) -> Any:
    if isinstance(image, Tensor | Image.Image):
        return image
    try:
        path = Path(image)
        return decode(path.read_bytes(), str(path), least=least)
    except OSError as error:
        raise InputError(f"{image}: the picture cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:  # a name that no file can have
        raise InputError(f"{image!r} is no picture: {error}") from error


def _shape(given: Any) -> str:
    return f"shape {list(given.shape)} of {given.dtype}" if isinstance(given, Tensor) else type(given).__name__


def _weights(parameters: Iterable[Tensor]) -> int:
    return sum(shape_of(parameter).numel() for parameter in parameters)
