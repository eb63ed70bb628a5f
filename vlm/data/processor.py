"""Pictures and text to batches, the same in training, evaluation and use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlm.contracts.batch import IGNORE, PADDING, Batch
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Sample, Turn
from vlm.contracts.vision import VisionSpec
from vlm.data.pictures import open_picture
from vlm.data.template import Row, Template
from vlm.data.tokens import TextTokenizer


@dataclass(frozen=True)
class Example:
    """One row ready to batch. ids, labels [L]; views: one tensor each; slots: the view of each slot.

    pictures: identity of each view's picture.   cut: whether its answer was shortened.
    """

    key: str
    ids: Tensor
    labels: Tensor
    views: tuple[Tensor, ...]
    slots: tuple[int, ...]
    pictures: tuple[int, ...]
    cut: bool = False

    @property
    def bytes(self) -> int:
        return sum(view.nbytes for view in self.views) + self.ids.nbytes + self.labels.nbytes


class Processor:
    """views: a view maker.   spec: what the connector gives, so that places are counted without a model."""

    def __init__(self, views: Any, tokenizer: TextTokenizer, template: Template, spec: VisionSpec) -> None:
        self.views, self.tokenizer, self.template, self.spec = views, tokenizer, template, spec

    def example(self, sample: Sample, all_text: bool = False, token_budget: int | None = None) -> Example:
        """Raises: InputError whose message begins with the reason, for a sample that cannot be used."""
        made = [self.views(open_picture(medium.data, sample.key)) for medium in sample.media]
        identities = [int(medium.sha256[:15], 16) for medium in sample.media]
        row = self.row(sample.turns, [len(views) for views in made], all_text, token_budget)
        if all(label == IGNORE for label in row.labels):
            raise InputError("text_empty: no token of this sample carries loss; check its turns and llm.template")
        return self._example(sample.key, row, made, identities)

    def open_example(self, sample: Sample) -> Example:
        """A sample whose last turn is the user's: a row that waits for its answer."""
        made = [self.views(open_picture(medium.data, sample.key)) for medium in sample.media]
        row = self.row(sample.turns, [len(views) for views in made], False, None)
        return self._example(sample.key, row, made, list(range(len(made))))

    def question(self, text: str, pictures: Sequence[Any], token_budget: int | None = None) -> Example:
        """A prompt that waits for its answer, its views finished.

        pictures: PIL pictures, or [C, H, W] views as the encoder takes them. Raises: InputError for other shapes.
        """
        made = [
            [self._ready(picture)]
            if isinstance(picture, Tensor)
            else list(self.views.finish(torch.stack(self.views(picture))))
            for picture in pictures
        ]
        turn = Turn("user", (*range(len(made)), text))
        row = self.row([turn], [len(views) for views in made], False, token_budget)
        return self._example("", row, made, list(range(len(made))))

    def _ready(self, view: Tensor) -> Tensor:
        shape = self.views.spec
        if list(view.shape) != [shape.channels, shape.height, shape.width]:
            raise InputError(
                f"a ready view has shape {list(view.shape)}, but this model takes "
                f"[{shape.channels}, {shape.height}, {shape.width}]"
            )
        return view

    def row(self, turns: Sequence[Turn], views: Sequence[int], all_text: bool, token_budget: int | None) -> Row:
        """views: number of views of each medium."""
        shape = self.views.spec
        tokens = self.spec.count(shape.height, shape.width, token_budget)
        return self.template.row(turns, self.tokenizer, [count * tokens for count in views], all_text)

    def finish(self, batch: Batch, dtype: torch.dtype) -> Batch:
        """A batch of `example`s with its views as the encoder takes them, on the batch's device."""
        return replace(batch, views=self.views.finish(batch.views).to(dtype))

    def collate(self, examples: Sequence[Example], token_budget: int | None = None) -> Batch:
        """Rows padded on the right; a batch without pictures gets one blank view."""
        views = [view for example in examples for view in example.views]
        slots, first = [], 0
        for number, example in enumerate(examples):
            slots.extend((number, first + slot) for slot in example.slots)
            first += len(example.views)
        pictures = [picture for example in examples for picture in example.pictures]
        if not views:
            shape = self.views.spec
            views, pictures = [torch.zeros(shape.channels, shape.height, shape.width)], [-1]
        ids = pad_sequence([example.ids for example in examples], batch_first=True, padding_value=0)
        labels = pad_sequence([example.labels for example in examples], batch_first=True, padding_value=IGNORE)
        lengths = torch.tensor([len(example.ids) for example in examples])
        place = torch.arange(ids.shape[1])
        rows = torch.arange(len(examples)).unsqueeze(1)
        return Batch(
            ids=ids,
            labels=labels,
            positions=place.expand_as(ids).clamp(max=int(lengths.max()) - 1),
            segment=torch.where(place < lengths.unsqueeze(1), rows, PADDING),
            parent=torch.full((len(examples),), -1),
            views=torch.stack(views),
            slots=torch.tensor(slots, dtype=torch.long).reshape(-1, 2),
            pictures=torch.tensor(pictures),
            token_budget=token_budget,
            keys=tuple(example.key for example in examples),
        )

    def _example(self, key: str, row: Row, made: Sequence[Sequence[Tensor]], identities: Sequence[int]) -> Example:
        views = tuple(view for views in made for view in views)
        return Example(
            key=key,
            ids=torch.tensor(row.ids),
            labels=torch.tensor(row.labels),
            views=views,
            slots=tuple(range(len(views))),
            pictures=tuple(identity for identity, views in zip(identities, made, strict=True) for _ in views),
            cut=row.cut,
        )
