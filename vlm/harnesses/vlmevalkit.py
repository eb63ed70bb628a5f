"""A saved model of ours in VLMEvalKit (package `vlmeval`): `SavedModel`, a model class of that project.

The harness is told in Python, before its own command reads its table of models:

    from functools import partial
    from vlmeval.config import supported_VLM
    from vlm.harnesses.vlmevalkit import SavedModel
    supported_VLM["mine"] = partial(SavedModel, model_path="runs/x/model", max_new_tokens=16)

`vlmeval` is imported when `SavedModel` is asked for, and no earlier.
Source: vlmeval.vlm.base.BaseModel of ms-vlmeval 0.0.20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from vlm.contracts.errors import InputError

INSTALL = "pip install ms-vlmeval, or VLMEvalKit from its repository"


class Answering:
    """What a model class of VLMEvalKit does; `SavedModel` is this on top of the harness's own base class.

    model_path: a run folder, its model/ folder or an exported one.   device: None = a GPU if there is one.
    instructions: type of a data set as the harness names it (MCQ, Y/N, VQA) -> the text behind its questions, for
    example {"Y/N": "\\nAnswer the question using a single word or phrase."}; the question is then laid out by us (hint,
    question, options as `A. text`). Types that are not named keep the harness's own prompts.
    options: of `vlm.generate`, the same for every data set: decoding, token_budget, max_new_tokens, ...
    """

    INTERLEAVE = True  # messages come whole and in order; `prompt_and_pictures` says what becomes of them
    VIDEO_LLM = False  # of a clip the harness gives frames, as pictures
    allowed_types = ("text", "image")

    def __init__(
        self,
        model_path: str | Path,
        device: str | None = None,
        instructions: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        import torch

        import vlm

        self.model = vlm.load_model(model_path).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.instructions, self.options = dict(instructions or {}), options

    def generate_inner(self, message: Sequence[Mapping[str, Any]], dataset: str | None = None) -> str:
        """Raises: InputError for a message or picture that cannot be used."""
        import vlm

        prompt, pictures = prompt_and_pictures(message)
        return vlm.generate(self.model, prompt, pictures, **self.options)

    def use_custom_prompt(self, dataset: str) -> bool:
        return bool(self.instructions) and _type(dataset) in self.instructions

    def build_prompt(self, line: Mapping[str, Any], dataset: str) -> list[dict[str, str]]:
        """line: a row of the harness's table. Its pictures are written to disk by the harness."""
        pictures = self.dump_image(line, dataset)  # type: ignore[attr-defined]
        shown = [{"type": "image", "value": path} for path in ([pictures] if isinstance(pictures, str) else pictures)]
        return [*shown, {"type": "text", "value": question(line) + self.instructions[_type(dataset)]}]


def prompt_and_pictures(message: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """The harness's list of {"type", "value"} -> our prompt and the paths of its pictures.

    Our models take pictures in front. One that comes behind text leaves `<image k>` at its place, k counting all
    pictures from 1. Texts that follow each other are joined by a line feed, as the harness does it.
    Raises: InputError for another type, and for the beginning of an answer (role assistant).
    """
    prompt, pictures, after_text = "", [], False
    for item in message:
        kind, value = item.get("type"), item.get("value")
        if item.get("role") == "assistant":
            raise InputError(
                f"VLMEvalKit begins the answer with {value!r}; this model begins its answers by itself: leave out this "
                "data set, or give an instruction for its type (instructions=...)"
            )
        if kind == "image":
            pictures.append(str(value))
            prompt += f"<image {len(pictures)}>" if prompt else ""
            after_text = False
        elif kind == "text":
            prompt += f"\n{value}" if after_text else str(value)
            after_text = bool(prompt)
        else:
            raise InputError(f"VLMEvalKit gave an item of type {kind!r}; this model takes text and image")
    return prompt, pictures


def question(line: Mapping[str, Any]) -> str:
    """A row's hint, question and options, a line each; cells that are empty (NaN) are left out."""
    options = [f"{letter}. {line[letter]}" for letter in ascii_uppercase if _filled(line, letter)]
    hint = [f"Context: {line['hint']}"] if _filled(line, "hint") else []
    return "\n".join([*hint, str(line["question"]), *options])


def __getattr__(name: str) -> Any:
    if name == "SavedModel":
        return _saved_model()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _saved_model() -> type:
    try:
        from vlmeval.vlm.base import BaseModel  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(f"VLMEvalKit cannot be imported ({error}); {INSTALL}") from error
    return type("SavedModel", (Answering, BaseModel), {"__module__": __name__, "__doc__": Answering.__doc__})


def _type(dataset: str) -> str:
    from vlmeval.dataset import DATASET_TYPE  # type: ignore[import-not-found]

    return DATASET_TYPE(dataset)


def _filled(line: Mapping[str, Any], key: str) -> bool:
    return key in line and line[key] == line[key] and line[key] not in (None, "")
