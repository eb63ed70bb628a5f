"""A picture and its caption, for a model that compares the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlm.contracts.batch import Batch
from vlm.contracts.errors import InputError
from vlm.contracts.example import Example
from vlm.contracts.sample import Sample, Turn
from vlm.data.processor import Processor


class CaptionProcessor(Processor):
    """Rows that hold the caption alone, the text of the last answer; the picture stands beside it."""

    def example(
        self,
        sample: Sample,
        all_text: bool = False,
        token_budget: int | None = None,
        seed: int | None = None,
        pair: bool = False,
    ) -> Example:
        """Raises: InputError("media_missing: ..."), ("media_many: ...") or ("text_empty: ...") for a sample that is no
        picture with its caption, and what `Processor.example` raises.
        """
        if not sample.media:
            raise InputError("media_missing: a caption without its picture; a pair is one picture and one caption")
        if len(sample.media) > 1:
            raise InputError(f"media_many: {len(sample.media)} pictures; a pair is one picture and one caption")
        answers = [turn for turn in sample.turns if turn.role == "assistant"]
        caption = "".join(part for part in answers[-1].parts if isinstance(part, str)) if answers else ""
        if not caption.strip():
            raise InputError("text_empty: no answer that could be the picture's caption; check the set's turns")
        turns = (Turn("user", (0,)), Turn("assistant", (caption,)))
        made = super().example(replace(sample, turns=turns, rejected=None, meta={}), False, token_budget, seed)
        if len(made.views) != 1:
            raise InputError(f"media_many: the picture becomes {len(made.views)} views; a pair has one: no tiles")
        return made

    def collate(self, examples: Sequence[Example], token_budget: int | None = None, pack: bool = False) -> Batch:
        """A row an example, padded on the right. Raises: InputError for pack, as every caption is a row of its own."""
        if pack:
            raise InputError("hardware.pack: captions are compared row by row and cannot share one; set it to false")
        return super().collate(examples, token_budget)
