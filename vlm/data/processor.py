"""Pictures and text to batches, the same in training, evaluation and use."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from vlm.contracts.batch import IGNORE, PADDING, VISUAL, Batch
from vlm.contracts.errors import InputError
from vlm.contracts.example import Example
from vlm.contracts.sample import Medium, Sample, Turn
from vlm.contracts.vision import VisionSpec
from vlm.data.branches import conversations, join
from vlm.data.clips import Clip, frames_of
from vlm.data.order import mixed
from vlm.data.pairs import changed_tokens, last_answer, refuse_no_pair
from vlm.data.pictures import decode
from vlm.data.plan import Cost
from vlm.data.template import Row, Template
from vlm.data.tokens import TextTokenizer


class Processor:
    """views: a view maker.   spec: what the connector gives, so that places are counted without a model.

    positions: longest row that the language model takes.
    overflow: of a text that is too long, "cut" shortens its answer, "skip" leaves the sample out; a picture is never
    cut, so a sample whose pictures leave no room is left out in either case.
    """

    def __init__(
        self,
        views: Any,
        tokenizer: TextTokenizer,
        template: Template,
        spec: VisionSpec,
        positions: int,
        overflow: Literal["cut", "skip"] = "cut",
    ) -> None:
        self.views, self.tokenizer, self.template, self.spec = views, tokenizer, template, spec
        self.positions, self.overflow = positions, overflow

    @property
    def tokens_a_view(self) -> int:
        """Visual tokens of one view, 0 for a model without pictures."""
        return self._tokens_a_view(None)

    def example(
        self,
        sample: Sample,
        all_text: bool = False,
        token_budget: int | None = None,
        seed: int | None = None,
        pair: bool = False,
    ) -> Example:
        """seed: of the sample's augmentation, None for none.   pair: show chosen and rejected answer of a preference,
        as the last two segments; they alone carry loss, and both see the same views.

        Raises: InputError whose message begins with the reason, for a sample that cannot be used.
        """
        if pair:
            refuse_no_pair(sample, self.tokens_a_view > 0)
        self._room(sum(isinstance(part, int) for turn in sample.turns for part in turn.parts), token_budget)
        made = self._views(sample, seed)
        texts = conversations(sample, pair)
        shown = [len(views) for views in made]
        rows = [self.row(turns, shown, all_text and not pair, token_budget) for turns in texts]
        rows = [last_answer(row) for row in rows] if pair else rows
        if all(label == IGNORE for row in rows for label in row.labels):
            raise InputError("text_empty: no token of this sample carries loss; check its turns and llm.template")
        identities = [int(medium.sha256[:15], 16) for medium in sample.media]
        changed = changed_tokens(rows, self.tokenizer.decode) if pair else None
        return self._example(sample.key, rows, texts, made, identities, changed)

    def open_example(self, sample: Sample) -> Example:
        """A sample whose last turn is the user's: a row that waits for its answer, its views finished."""
        made = [self.finished(views) for views in self._views(sample, None)]
        return self.prompt(sample.turns, made, [int(medium.sha256[:15], 16) for medium in sample.media], key=sample.key)

    def question(self, text: str, pictures: Sequence[Any], token_budget: int | None = None) -> Example:
        """A prompt that waits for its answer, its views finished.

        pictures: PIL pictures, [C, H, W] views as the encoder takes them, or clips. Raises: InputError for other shapes.
        """
        made = [self._asked(picture) for picture in pictures]
        names = [_name(views) for views in made]
        key = f"{text} {names}"
        return self.prompt((Turn("user", (*range(len(made)), text)),), made, names, token_budget, key)

    def prompt(
        self,
        turns: Sequence[Turn],
        made: Sequence[Sequence[Tensor]],
        identities: Sequence[int],
        token_budget: int | None = None,
        key: str = "",
    ) -> Example:
        """Turns that wait for an answer. made, identities: finished views of each medium, and which picture it is.

        Raises: InputError("media_many: ...") for pictures that leave no room for text.
        """
        row = self.row(turns, [len(views) for views in made], False, token_budget)
        return self._example(key, [row], [turns], made, identities)

    def alternatives(
        self,
        texts: Sequence[Sequence[Turn]],
        made: Sequence[Sequence[Tensor]],
        identities: Sequence[int],
        token_budget: int | None = None,
    ) -> Example:
        """Several conversations about the same pictures, each ending in an answer: branches of what they share.

        The last len(texts) segments are theirs, in order.
        Raises: InputError("text_long: ...") for an answer that would be cut, ("media_many: ...") as `prompt`.
        """
        rows = [self.row(turns, [len(views) for views in made], False, token_budget) for turns in texts]
        if any(row.cut for row in rows):
            raise InputError(
                "text_long: an answer does not fit behind its question; it is never judged by its beginning"
            )
        return self._example("", rows, texts, made, identities)

    def finished(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Views of a view maker, as the encoder takes them; one that stands there several times does so afterwards."""
        different, places = _once(views)
        finished = list(self.views.finish(torch.stack(different)))
        return [finished[place] for place in places]

    def cost(self, text_tokens: float, media: int, frames: int) -> Cost:
        """Of a sample with so many media, which have so many frames together, before it is read."""
        spec = self.views.spec
        clips = min(frames, media * spec.frames) if frames > media else 0
        views, slots = (clips, clips) if clips else (media * spec.max_views, media * spec.max_views * spec.still)
        return Cost(round(text_tokens) + slots * self.tokens_a_view, views)

    def _views(self, sample: Sample, seed: int | None) -> list[list[Tensor]]:
        """Of each medium, in the order in which they stand in the text; views that are one tensor are encoded once."""
        return [
            self._shown(medium, sample.key, None if seed is None else mixed(seed, number))
            for number, medium in enumerate(sample.media)
        ]

    def _shown(self, medium: Medium, key: str, seed: int | None) -> list[Tensor]:
        most = self.views.spec.frames
        if medium.type == "image":
            return self._stood(self.views(decode(medium.data, key, least=self.views.least), seed))
        if not most:
            raise InputError(
                "media_unexpected: the sample shows a clip, and this model takes pictures only; set "
                "encoder.views.frames to how many of its frames are to be taken, or choose data without clips"
            )
        frames = frames_of(medium, key, most, least=self.views.least).frames
        return [view for frame in frames for view in self.views(frame, seed)]

    def _stood(self, views: Sequence[Tensor]) -> list[Tensor]:
        return list(views) * self.views.spec.still

    def _asked(self, picture: Any) -> list[Tensor]:
        if isinstance(picture, Clip):
            return self.finished([view for frame in picture.frames for view in self.views(frame)])
        return self._stood(
            [self._ready(picture)] if isinstance(picture, Tensor) else self.finished(self.views(picture))
        )

    def _ready(self, view: Tensor) -> Tensor:
        shape = self.views.spec
        if list(view.shape) != [shape.channels, shape.height, shape.width]:
            raise InputError(
                f"a ready view has shape {list(view.shape)}, but this model takes "
                f"[{shape.channels}, {shape.height}, {shape.width}]"
            )
        return view

    def row(self, turns: Sequence[Turn], views: Sequence[int], all_text: bool, token_budget: int | None) -> Row:
        """views: number of views of each medium.

        Raises: InputError("media_many: ...") or ("text_long: ...") for a row that the model has no positions for.
        """
        tokens = self._tokens_a_view(token_budget)
        shown = sum(views[part] for turn in turns for part in turn.parts if isinstance(part, int))
        room = self._room(shown, token_budget)
        row = self.template.row(turns, self.tokenizer, [count * tokens for count in views], all_text, room)
        if row.cut and self.overflow == "skip":
            raise InputError(f"text_long: the text has more than {room} tokens and data.overflow is skip")
        return row

    def _room(self, views: int, token_budget: int | None) -> int:
        """Text tokens that fit beside so many views."""
        visual = views * self._tokens_a_view(token_budget)
        room = min(self.template.max_tokens, self.positions - visual)
        if room < 2 and visual:
            raise InputError(
                f"media_many: {views} views of {visual // views} tokens leave no room for text in {self.positions} positions"
            )
        return room

    def _tokens_a_view(self, token_budget: int | None) -> int:
        shape = self.views.spec
        return self.spec.count(shape.height, shape.width, token_budget)

    def finish(self, batch: Batch, dtype: torch.dtype) -> Batch:
        """A batch of `example`s with its views as the encoder takes them, on the batch's device."""
        return replace(batch, views=self.views.finish(batch.views).to(dtype))

    def collate(self, examples: Sequence[Example], token_budget: int | None = None, pack: bool = False) -> Batch:
        """A row an example, padded on the right; with pack one row that holds all of them without padding.

        A batch without pictures gets one blank view; one of pairs says so.
        """
        views = [view for example in examples for view in example.views]
        slots, first = [], 0
        for number, example in enumerate(examples):
            slots.extend((0 if pack else number, first + slot) for slot in example.slots)
            first += len(example.views)
        pictures = [picture for example in examples for picture in example.pictures]
        if not views:
            shape = self.views.spec
            views, pictures = [torch.zeros(shape.channels, shape.height, shape.width)], [-1]
        begins = list(accumulate((len(example.parent) for example in examples), initial=0))
        parent = [begin + p if p >= 0 else -1 for begin, e in zip(begins, examples, strict=False) for p in e.parent]
        lengths = torch.tensor([len(example.ids) for example in examples])
        segments = torch.cat([example.segment for example in examples])
        segments += torch.tensor(begins[:-1]).repeat_interleave(lengths)
        inside = None if pack else torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        changed = [example.changed for example in examples if example.changed is not None]
        return Batch(
            ids=_laid(torch.cat([example.ids for example in examples]), inside, 0),
            labels=_laid(torch.cat([example.labels for example in examples]), inside, IGNORE),
            positions=_laid(torch.cat([example.positions for example in examples]), inside, 0),
            segment=_laid(segments, inside, PADDING),
            parent=torch.tensor(parent),
            sample=torch.tensor([number for number, example in enumerate(examples) for _ in example.parent]),
            views=torch.stack(views),
            slots=torch.tensor(slots, dtype=torch.long).reshape(-1, 2),
            pictures=torch.tensor(pictures),
            changed=_laid(torch.cat(changed), inside, False) if len(changed) == len(examples) else None,
            token_budget=token_budget,
            keys=tuple(example.key for example in examples),
        )

    def _example(
        self,
        key: str,
        rows: Sequence[Row],
        texts: Sequence[Sequence[Turn]],
        made: Sequence[Sequence[Tensor]],
        identities: Sequence[int],
        changed: Sequence[Sequence[bool]] | None = None,
    ) -> Example:
        """rows: of `texts`, in the same order.   made: views of each medium.   changed: for each row and position."""
        layout = join(rows)
        different = [_once(views) for views in made]
        firsts = accumulate((len(views) for views, _ in different), initial=0)
        taken = [[first + place for place in places] for first, (_, places) in zip(firsts, different, strict=False)]
        slots: list[int] = []
        for number, begin, end in layout.taken:
            media = [part for turn in texts[number] for part in turn.parts if isinstance(part, int)]
            shown = [view for medium in media for view in taken[medium]]
            places = [id == VISUAL for id in rows[number].ids]
            each = max(1, sum(places) // max(1, len(shown)))  # a picture lies in one segment as a whole
            slots.extend(shown[sum(places[:begin]) // each : sum(places[:end]) // each])
        return Example(
            key=key,
            ids=torch.tensor(layout.ids),
            labels=torch.tensor(layout.labels),
            positions=torch.tensor(layout.positions),
            segment=torch.tensor(layout.segment),
            parent=tuple(layout.parent),
            views=tuple(view for views, _ in different for view in views),
            slots=tuple(slots),
            pictures=tuple(name for name, (views, _) in zip(identities, different, strict=True) for _ in views),
            cut=any(row.cut for row in rows),
            changed=None
            if changed is None
            else torch.tensor([mark for row, begin, end in layout.taken for mark in changed[row][begin:end]]),
        )


def _once(views: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """The different tensors, and which one stands in each place."""
    places: dict[int, int] = {}
    different = []
    for view in views:
        if id(view) not in places:
            places[id(view)] = len(different)
            different.append(view)
    return different, [places[id(view)] for view in views]


def _name(views: Sequence[Tensor]) -> int:
    """Which picture it is, by what the encoder sees of it."""
    digest = hashlib.sha256()
    for view in views:
        digest.update(view.contiguous().cpu().numpy().tobytes())
    return int(digest.hexdigest()[:15], 16)


def _laid(flat: Tensor, inside: Tensor | None, padding: int | bool) -> Tensor:
    """flat [T], the rows one after another -> where `inside` [R, L] is true; None for one row of all."""
    if inside is None:
        return flat.unsqueeze(0)
    return flat.new_full(inside.shape, padding).masked_scatter_(inside, flat)
