"""A decoder from a local Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig

from vlm.contracts.errors import InputError, Mismatch
from vlm.contracts.language import LanguageSpec
from vlm.contracts.recipe import LoraSettings
from vlm.contracts.settings import BaseSettings
from vlm.models.folder_config import read_config
from vlm.models.llms.base import Fingerprint
from vlm.models.llms.decoder import FAMILIES, NO_ADAPTERS, Decoder, check_adapters
from vlm.models.llms.quantize import shape_of

WINDOWED_ON_REQUEST = ("qwen2", "qwen3", "smollm3")  # a window counts only with use_sliding_window: true
FORM = "give a folder with config.json, model.safetensors (or model.safetensors.index.json) and tokenizer.json"


class HFCausal(Decoder):
    """embeds [R, L, W] + positions -> hidden [R, L, W] after the last norm; names of tensors are those of the folder.

    path: a folder in Hugging Face's form, relative to the working directory; `load_pretrained` takes the weights from
    it, until then there are none.   quantize: the decoder's linear layers in four bits; they cannot be trained then.
    adapters: a stack of low-rank adapters, lowest first.   base: where the weights came from, None if not from a folder.
    """

    base: BaseSettings | None = None

    def __init__(
        self,
        path: str,
        quantize: Literal["nf4"] | None = None,
        adapters: dict[str, LoraSettings] = NO_ADAPTERS,
    ) -> None:
        spec = self.describe(path, quantize, adapters)
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        super().__init__(config, quantize is not None, adapters)
        self.path, self.spec = path, spec
        assert self.lm_head.weight.shape == (self.spec.vocabulary, self.spec.width)

    @staticmethod
    def describe(path: str, quantize: str | None = None, adapters: Mapping[str, Any] = NO_ADAPTERS) -> LanguageSpec:
        """positions: not more than a sliding window, within which windowed and full attention are the same."""
        config = read_config(path, FORM)
        family = config.get("model_type")
        if family not in FAMILIES:
            raise Mismatch("path", f"{path}/config.json is of type {family!r}; supported: {', '.join(FAMILIES)}")
        check_adapters(family, adapters)
        if config.get("quantization_config"):
            raise Mismatch("path", f"{path} holds quantized weights; give the folder of the unquantized model")
        sizes = ("vocab_size", "hidden_size", "max_position_embeddings")
        missing = [name for name in sizes if not isinstance(config.get(name), int)]
        if missing:
            raise Mismatch("path", f"{path}/config.json does not say {', '.join(missing)}; {FORM}")
        vocabulary, width, positions = (config[name] for name in sizes)
        if config.get("sliding_window") and config.get("use_sliding_window", family not in WINDOWED_ON_REQUEST):
            positions = min(positions, config["sliding_window"])
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type"))
        if kind in ("longrope", "su") or (kind == "yarn" and family == "phi3"):  # phi3 calls longrope by three names
            # Beyond this length all frequencies of a call change, so that rows of one batch would not be independent.
            original = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
            positions = min(positions, original or positions)
        return LanguageSpec(vocabulary=vocabulary, width=width, positions=positions)

    def load_pretrained(self, folder: str | None = None) -> None:
        """Fill the weights from the safetensors of `path`, or of another folder of the same model; dtypes stay.

        Raises: InputError naming files or tensors that are missing, left over, or of another shape.
        """
        source = self.path if folder is None else folder
        state = self.weights()
        first = self._first_names(state)
        faults: list[str] = []
        given: dict[str, str] = {}  # first name of a weight -> the name under which it was read
        found = Fingerprint()
        for name, tensor in _tensors(Path(source)):
            if name.endswith("rotary_emb.inv_freq"):  # older files hold them; they follow from config.json
                continue
            wanted = state.get(name)
            if wanted is None:
                faults.append(f"{name} is not part of the model")
            elif shape_of(wanted) != tensor.shape:
                faults.append(f"{name} has shape {list(tensor.shape)}, the model needs {list(shape_of(wanted))}")
            elif not tensor.is_floating_point() or tensor.element_size() < 2:
                faults.append(f"{name} is {tensor.dtype}: quantized weights")
            elif first[name] not in given:
                self.put(name, tensor)
                found.add(first[name], tensor)
                given[first[name]] = name
            elif not torch.equal(kept := self.get_parameter(given[first[name]]), tensor.to(kept)):
                faults.append(f"{name} differs from the table that config.json ties it to (tie_word_embeddings)")
        faults += [f"{name} is missing" for name in state if first[name] not in given]
        if faults:
            more = f"; and {len(faults) - 8} more" if len(faults) > 8 else ""
            raise InputError(f"llm.path: the weights in {source} do not fit: {'; '.join(faults[:8])}{more}")
        self.base = BaseSettings(str(Path(source).resolve()), found.value)

    def unquantized(self) -> Iterator[tuple[str, Tensor]]:
        """Of a quantized model from the folder that it came from. Raises: InputError if that is gone or changed."""
        if not self.is_quantized:
            yield from super().unquantized()
            return
        if self.base is None:
            raise InputError("the language model has quantized weights only, and they came from no folder")
        first, found, done = self._first_names(self.weights()), Fingerprint(), set[str]()
        for name, tensor in _tensors(Path(self.base.path)):
            if name in first and first[name] not in done:
                done.add(first[name])
                found.add(first[name], tensor)
                yield first[name], tensor
        if found.value != self.base.fingerprint:
            raise InputError(
                f"{self.base.path} holds other weights than those that were quantized; put the old ones back"
            )

    @staticmethod
    def _first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
        """A shared table has several names."""
        first: dict[int, str] = {}
        return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the folder, one in memory at a time. Raises: InputError for a file that cannot be read."""
    for file in _files(folder):
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118  # no mapping
                    yield name, opened.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise InputError(f"llm.path: {file} cannot be read ({error}); copy it again") from error


def _files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        found = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
        raise InputError(
            f"llm.path: {folder} holds {found}, but neither {single.name} nor {index.name}; save the model with "
            "transformers' save_pretrained, which writes safetensors"
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"llm.path: {index} is damaged ({type(error).__name__}: {error}); copy it again") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"llm.path: {folder} lacks {', '.join(missing)}, which {index.name} names; copy them too")
    return [folder / name for name in names]
