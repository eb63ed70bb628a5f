"""A model of ours behind transformers' own calls: from_pretrained, forward, generate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from vlm.contracts.batch import IGNORE, PADDING, VISUAL, Batch
from vlm.models.hf_model import HFModel
from vlm.models.mask import attention_mask as spans_of

PASSED_ON = ("revision", "token", "cache_dir", "local_files_only", "force_download")  # to the hub's client
OWN = "model"  # the model's folder inside the exported one
# What auto classes hand over, and what has no meaning here because a model is always read in one piece.
HANDED = ("trust_remote_code", "code_revision", "adapter_kwargs", "low_cpu_mem_usage", "use_safetensors", "_from_auto")


class HubConfig(PretrainedConfig):
    """image_place: id of a place that a visual token fills; it lies beyond the vocabulary."""

    model_type = "vlm_exported"

    def __init__(self, vocab_size: int = 1, image_place: int = 1, hidden_size: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocab_size, self.image_place, self.hidden_size = vocab_size, image_place, hidden_size


class HubModel(PreTrainedModel, GenerationMixin):
    """input_ids and pixel_values of the folder's own processor -> logits, loss, or answers.

    model: the composite, with its processor (vlm.models.vlm.VLM).
    """

    config_class = HubConfig
    main_input_name = "input_ids"
    read: ClassVar[
        Callable[[Path], Any]
    ]  # a model folder -> the composite, in eval mode; given by the class in the folder

    def __init__(self, config: HubConfig, model: Any) -> None:
        super().__init__(config)
        self.model = model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: Any,
        *args: Any,
        config: HubConfig | None = None,
        dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        **kwargs: Any,
    ) -> HubModel:
        """A folder, or a repository of a hub. dtype: None or "auto" for that of the files.   device_map: one device.

        Raises: ValueError for an option that cannot be had.
        """
        folder = fetched(pretrained_model_name_or_path, kwargs)
        dtype = kwargs.pop("torch_dtype", None) or dtype
        if unknown := sorted(set(kwargs) - {*PASSED_ON, *HANDED}):
            raise ValueError(f"{', '.join(unknown)}: this model is read in one piece and has no such option")
        if isinstance(device_map, dict):
            device_map = device_map.get("", "several")
        if device_map in ("several", "balanced", "sequential"):
            raise ValueError("device_map: this model lies on one device; give its name")
        if device_map == "auto":
            device_map = "cuda" if torch.cuda.is_available() else "cpu"
        model = cls.read(folder / OWN)
        dtype = getattr(torch, dtype) if isinstance(dtype, str) and dtype != "auto" else dtype
        model = model.to(dtype) if isinstance(dtype, torch.dtype) else model
        config = config or cls.config_class.from_pretrained(folder)  # type: ignore[assignment]
        return cls(config, model if device_map is None else model.to(device_map)).eval()  # type: ignore[arg-type]

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("this model is a folder as it is; copy it")

    def get_input_embeddings(self) -> nn.Module:
        return self.model.llm

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_budget: int | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,  # what trainers hand to every model
    ) -> CausalLMOutputWithPast:
        """logits [R, L, V]; with labels (IGNORE = -100) also the mean loss over the tokens that they ask for."""
        batch = self._batch(input_ids, pixel_values, attention_mask, token_budget)
        embeds, _ = self.model.fusion(batch, self.model.encoder, self.model.connector, self.model.llm)
        logits = self.model.llm.logits(self.model.llm(embeds, batch.positions, spans_of(batch)))
        loss = None
        if labels is not None:
            scores = logits[:, :-1].flatten(0, 1)
            wanted = labels[:, 1:].masked_fill(labels[:, 1:] == self.config.image_place, IGNORE).flatten()
            loss = nn.functional.cross_entropy(scores, wanted, ignore_index=IGNORE)
        return CausalLMOutputWithPast(loss=loss, logits=logits)  # type: ignore[arg-type]

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_budget: int | None = None,
        **options: Any,
    ) -> Tensor:
        """[R, L + new]: the prompts as they were given and what follows them, padded on the right.

        options: transformers' generation options; without any, greedy up to the model's longest answer. Rows of one
        length are decoded together, so that no row depends on padding. Raises: ValueError for an option that asks for
        something else than ids.
        """
        if options.get("return_dict_in_generate") or options.get("streamer") is not None:
            raise ValueError("return_dict_in_generate, streamer: this model's generate gives ids alone")
        inside = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        views = self._views_of(input_ids, token_budget)
        alike: dict[int, list[int]] = defaultdict(list)
        for row, length in enumerate(inside.sum(1).tolist()):
            alike[length].append(row)
        found: dict[int, list[Tensor]] = {}
        for length, rows in alike.items():
            ids = torch.stack([input_ids[row][inside[row].bool()] for row in rows])
            shown = [view for row in rows for view in views[row]]
            some = pixel_values[shown] if pixel_values is not None and shown else None
            batch = self._batch(ids, some, None, token_budget)
            embeds, _ = self.model.fusion(batch, self.model.encoder, self.model.connector, self.model.llm)
            new = HFModel(self.model.llm).generate(  # type: ignore[operator]
                inputs_embeds=embeds, attention_mask=torch.ones_like(ids), **self._settings(length, options)
            )
            for row, answers in zip(rows, new.split(len(new) // len(rows)), strict=True):
                found[row] = [torch.cat([input_ids[row], answer]) for answer in answers]
        every = [answer for row in range(len(input_ids)) for answer in found[row]]
        return nn.utils.rnn.pad_sequence(every, batch_first=True, padding_value=self._stops()[0])

    def _stops(self) -> list[int]:
        template, tokenizer = self.model.processor.template, self.model.processor.tokenizer
        return [tokenizer.special(template.end), tokenizer.special(template.begin)]

    def _settings(self, length: int, options: dict[str, Any]) -> dict[str, Any]:
        room = self.model.llm.spec.positions - length + 1
        if room < 1:
            raise ValueError(f"the prompt takes {length} positions and the model has {self.model.llm.spec.positions}")
        stops = self._stops()
        given = options.get("generation_config")
        if given is not None and given.max_new_tokens is not None:
            options = {"max_new_tokens": given.max_new_tokens, **options}
        settings = {"eos_token_id": stops, "pad_token_id": stops[0], **options}
        if given is None:
            settings.setdefault("do_sample", False)
        if "max_length" not in settings:
            settings["max_new_tokens"] = min(
                settings.get("max_new_tokens", self.model.processor.template.max_tokens), room
            )
        return settings

    def _views_of(self, input_ids: Tensor, token_budget: int | None) -> list[list[int]]:
        """The views of each row: pictures come in reading order."""
        shape = self.model.processor.views.spec
        each = max(1, self.model.processor.spec.count(shape.height, shape.width, whole_budget(token_budget)))
        counts = (input_ids == self.config.image_place).sum(1).tolist()
        if wrong := [count for count in counts if count % each]:
            raise ValueError(
                f"{wrong[0]} places for visual tokens in a row are no multiple of the {each} of a picture; make inputs with "
                "this folder's processor, at the same token_budget"
            )
        found, first = [], 0
        for count in counts:
            found.append(list(range(first, first + count // each)))
            first += count // each
        return found

    def _batch(
        self, input_ids: Tensor, pixel_values: Tensor | None, attention_mask: Tensor | None, token_budget: int | None
    ) -> Batch:
        parameter = next(self.model.parameters())
        inside = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        views = self._views_of(input_ids, token_budget)
        slots = [[row, view] for row, shown in enumerate(views) for view in shown]
        if pixel_values is None:
            if slots:
                raise ValueError(f"pixel_values: {len(slots)} pictures stand in the rows, and none is given")
            shape = self.model.processor.views.spec
            pixel_values = torch.zeros(1, shape.channels, shape.height, shape.width)
        elif len(pixel_values) != len(slots):
            raise ValueError(f"pixel_values: {len(pixel_values)} pictures for {len(slots)} places in the rows")
        rows = torch.arange(len(input_ids), device=inside.device).unsqueeze(1)
        ids = torch.where(input_ids == self.config.image_place, VISUAL, input_ids)
        return Batch(
            ids=ids,
            labels=torch.full_like(ids, IGNORE),
            positions=(inside.cumsum(1) - 1).clamp_min(0),
            segment=torch.where(inside.bool(), rows, PADDING),
            parent=torch.full((len(ids),), -1),
            sample=torch.arange(len(ids)),
            views=pixel_values.to(parameter.dtype),
            slots=torch.tensor(slots, dtype=torch.long).reshape(-1, 2),
            pictures=torch.arange(len(pixel_values)),
            token_budget=token_budget,
        ).to(parameter.device)


def whole_budget(token_budget: Any) -> int | None:
    """A budget as it was given. Raises: ValueError for what is no whole number."""
    if token_budget is None or (isinstance(token_budget, Integral) and not isinstance(token_budget, bool)):
        return token_budget  # type: ignore[return-value]
    raise ValueError(
        f"token_budget: {token_budget!r} is no whole number; give the visual tokens of a picture, for example 64, or leave "
        "it out"
    )


def fetched(source: Any, options: dict[str, Any]) -> Path:
    """A folder on this machine; what is none is a repository's name."""
    if Path(source).is_dir():
        return Path(source)
    return Path(
        snapshot_download(str(source), **{key: options[key] for key in PASSED_ON if options.get(key) is not None})
    )
