"""Pictures and text to what an exported model takes, behind transformers' own calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from vlm.contracts.batch import VISUAL
from vlm.contracts.example import Example
from vlm.contracts.sample import Turn
from vlm.interop.hub_model import OWN, fetched, whole_budget

ROLES = ("system", "user", "assistant")


class HubProcessor(ProcessorMixin):
    """processor: of the composite (vlm.data.processor.Processor).   tokenizer: the same one as transformers has it."""

    read: ClassVar[
        Callable[[Path], Any]
    ]  # a model folder -> processor and vocabulary; given by the class in the folder

    def __init__(self, processor: Any, tokenizer: Any, image_place: int) -> None:
        # Not the base class's constructor: what is inside is ours, and is not put together from auto classes.
        self.processor, self.tokenizer, self.image_place = processor, tokenizer, image_place
        self.chat_template = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> HubProcessor:  # type: ignore[override]
        folder = fetched(pretrained_model_name_or_path, kwargs)
        processor, vocabulary = cls.read(folder / OWN)
        return cls(processor, PreTrainedTokenizerFast.from_pretrained(folder), vocabulary)

    def __call__(  # type: ignore[override]
        self,
        images: Any = None,
        text: str | Sequence[str] = "",
        token_budget: int | None = None,
        **kwargs: Any,  # return_tensors and padding, which are always "pt" and to the longest row
    ) -> BatchFeature:
        """A question, or a list of them, and the pictures of each -> rows that wait for an answer.

        images: a picture or a list of them for one question, a list for each of several. Pictures are Pillow's, or
        paths; they stand in front of the question, in the layout that the model was trained with.
        Raises: ValueError for pictures of another number of questions, or a budget that is no whole number.
        """
        whole_budget(token_budget)
        texts = [text] if isinstance(text, str) else list(text)
        if images is None:
            shown: list[list[Any]] = [[] for _ in texts]
        elif isinstance(text, str):
            shown = [_listed(images)]
        else:
            shown = [_listed(some) for some in images]
        if len(shown) != len(texts):
            raise ValueError(f"images: those of {len(shown)} questions for {len(texts)}; give a list for each")
        examples = [
            self.processor.question(question, [_picture(one) for one in some], token_budget)
            for question, some in zip(texts, shown, strict=True)
        ]
        return self._rows(examples, token_budget)

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Sequence[Mapping[str, Any]],
        images: Sequence[Any] = (),
        token_budget: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Messages {"role", "content"} -> the row that waits for the next answer, as ids.

        content: text, or parts {"type": "text", "text"} and {"type": "image", "image"}; a part without "image" takes the
        next one of `images`. Raises: ValueError for tokenize=False, as pictures have no text, and for a budget that is no
        whole number.
        """
        whole_budget(token_budget)
        if kwargs.get("tokenize") is False:
            raise ValueError("tokenize=False: this processor gives ids; pictures have no text")
        waiting, made, turns = list(images), [], []
        for message in conversation:
            parts: list[str | int] = []
            content = message["content"]
            for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                if part["type"] == "text":
                    parts.append(part["text"])
                    continue
                picture = part.get("image", part.get("path", part.get("url")))
                parts.append(len(made))
                made.append(_picture(waiting.pop(0) if picture is None else picture))
            turns.append(Turn(message["role"], tuple(parts)))
        views = [self.processor.finished(self.processor.views(picture)) for picture in made]
        return self._rows([self.processor.prompt(turns, views, range(len(views)), token_budget)], token_budget)

    def decode(self, token_ids: Any, **kwargs: Any) -> str:  # type: ignore[override]
        """Without the places of visual tokens."""
        ids = torch.as_tensor(token_ids).flatten().tolist()
        return self.processor.tokenizer.decode([id for id in ids if 0 <= id < self.image_place])

    def batch_decode(self, sequences: Any, **kwargs: Any) -> list[str]:  # type: ignore[override]
        return [self.decode(row) for row in sequences]

    def _rows(self, examples: Sequence[Example], token_budget: int | None) -> BatchFeature:
        """Padded on the left, as transformers' own decoding wants rows."""
        longest = max(len(example.ids) for example in examples)
        ids = torch.full((len(examples), longest), self.processor.tokenizer.special(self.processor.template.end))
        inside = torch.zeros_like(ids)
        for row, example in enumerate(examples):
            ids[row, longest - len(example.ids) :] = example.ids
            inside[row, longest - len(example.ids) :] = 1
        found: dict[str, Any] = {
            "input_ids": torch.where(ids == VISUAL, self.image_place, ids),
            "attention_mask": inside,
        }
        if views := [example.views[slot] for example in examples for slot in example.slots]:
            found["pixel_values"] = torch.stack(views)
        if token_budget is not None:
            found["token_budget"] = token_budget
        return BatchFeature(found)


def _listed(images: Any) -> list[Any]:
    return list(images) if isinstance(images, list | tuple) else [images]


def _picture(image: Any) -> Any:
    if isinstance(image, str | Path):
        with Image.open(image) as opened:
            opened.load()
            return opened
    return image
