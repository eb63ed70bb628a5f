"""A text model from a local Hugging Face folder, as the tower that turns a caption into one vector."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as messages

from vlm.contracts.errors import InputError, Mismatch
from vlm.contracts.language import LanguageSpec
from vlm.models.folder_config import read_config

# Families that are tested: right padding behind a mask leaves their numbers alone.
FAMILIES = ("bert", "clip_text_model", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
COUNTING_FROM_PADDING = ("mpnet", "roberta", "xlm-roberta")  # their first position is behind that of the padding token
FORM = "give a folder with config.json, model.safetensors and tokenizer.json"


class HFText(nn.Module):
    """ids [R, L] -> [R, W]; names of tensors are those of the folder, below `model`.

    path: a folder in Hugging Face's form, relative to the working directory. The constructor gives random weights of
    its config.json; `load_pretrained` fills them.
    pooling: the last token's state (eos), the first one's, or the mean over tokens; a folder's own pooling layer is
    left out, as the joint projection follows.
    """

    def __init__(self, path: str, pooling: Literal["eos", "mean", "first"]) -> None:
        super().__init__()
        self.path, self.pooling = path, pooling
        self.spec = self.describe(path, pooling)
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        self.model = _without_pooler(AutoModel.from_config(config, dtype=torch.float32))

    @staticmethod
    def describe(path: str, pooling: str) -> LanguageSpec:
        config = read_config(path, FORM)
        family = config.get("model_type")
        if family not in FAMILIES:
            raise Mismatch("path", f"{path}/config.json is of type {family!r}; supported: {', '.join(FAMILIES)}")
        names = ("vocab_size", "dim" if family == "distilbert" else "hidden_size", "max_position_embeddings")
        missing = [name for name in names if not isinstance(config.get(name), int)]
        if missing:
            raise Mismatch("path", f"{path}/config.json does not say {', '.join(missing)}; {FORM}")
        vocabulary, width, positions = (config[name] for name in names)
        if family in COUNTING_FROM_PADDING:
            positions -= config.get("pad_token_id", 1) + 1
        return LanguageSpec(vocabulary=vocabulary, width=width, positions=positions)

    def load_pretrained(self) -> None:
        """Fill the weights from the folder's safetensors; the model's dtype stays.

        Raises: InputError naming what is missing or of another shape.
        """
        bar = messages.is_progress_bar_enabled()
        messages.disable_progress_bar()
        try:
            found, told = AutoModel.from_pretrained(
                self.path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"text.path: the weights in {self.path} cannot be read: {error}; {FORM}") from error
        finally:
            if bar:
                messages.enable_progress_bar()
        missing = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))
        if missing:
            raise InputError(f"text.path: the weights in {self.path} lack {', '.join(missing[:8])}; copy them again")
        self.model.load_state_dict(_without_pooler(found).state_dict())

    def forward(self, ids: Tensor, inside: Tensor) -> Tensor:
        """inside: bool [R, L], true for tokens, which stand in front of all padding."""
        states = self.model(input_ids=ids, attention_mask=inside.long()).last_hidden_state
        if self.pooling == "first":
            return states[:, 0]
        if self.pooling == "eos":
            return states[torch.arange(len(ids), device=ids.device), inside.sum(1) - 1]
        weight = inside.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1)


def _without_pooler(model: Any) -> Any:
    """Weights that nothing asks for would never have a gradient."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model
