"""Turns become ids and labels; the only place where text is laid out for a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlm.contracts.batch import IGNORE, VISUAL
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.sample import Turn
from vlm.data.tokens import TextTokenizer


@dataclass(frozen=True)
class Row:
    """ids and labels of one text row (not shifted); cut: whether an answer was shortened to fit."""

    ids: list[int]
    labels: list[int]
    cut: bool = False


class Template:
    """Pictures in front, then begin, then the turns; every answer is closed by `end`.

    prompt: whether user text is shown. max_tokens: text tokens a row, begin and end included; an answer that does
    not fit is cut and still closed by `end`. inline: whether pictures of the first turn may stand inside its text.
    """

    inline = False

    def __init__(self, begin: str, end: str, prompt: bool, max_tokens: PositiveInt) -> None:
        self.begin, self.end, self.prompt, self.max_tokens = begin, end, prompt, max_tokens

    def row(
        self,
        turns: Sequence[Turn],
        tokenizer: TextTokenizer,
        visual: Sequence[int],
        all_text: bool = False,
        room: int | None = None,
    ) -> Row:
        """visual: number of visual tokens of each medium. all_text: user text carries loss too.
        room: text tokens that the model has positions for, if fewer than max_tokens.

        A last user turn leaves the row open for an answer. Raises: InputError("text_empty: ...") if nothing would
        carry loss, InputError("text_long: ...") if the text before an answer leaves no room for it.
        """
        ids: list[int] = []
        labels: list[int] = []
        cut = False
        most = min(self.max_tokens, room or self.max_tokens)
        text = 0  # text tokens so far; visual tokens are not counted against max_tokens

        def put(new: Sequence[int], loss: bool) -> None:
            ids.extend(new)
            labels.extend(new if loss else [IGNORE] * len(new))

        opening = [part for part in turns[0].parts if isinstance(part, int)] if turns else []
        for medium in opening:
            put([VISUAL] * visual[medium], loss=False)
        put([tokenizer.special(self.begin)], loss=False)
        text += 1
        for number, turn in enumerate(turns):
            for part in turn.parts:
                if isinstance(part, int):
                    if number > 0:
                        put([VISUAL] * visual[part], loss=False)
                elif turn.role == "assistant":
                    answer = tokenizer.encode(part)
                    if not answer:
                        raise InputError("text_empty: an answer has no tokens")
                    left = most - text - 1
                    if left < 1:
                        raise InputError(
                            f"text_long: {text} tokens stand before the answer and only {most} fit "
                            f"(llm.template.max_tokens {self.max_tokens}, and the model's positions)"
                        )
                    cut = cut or len(answer) > left
                    answer = [*answer[:left], tokenizer.special(self.end)]
                    put(answer, loss=True)
                    text += len(answer)
                elif self.prompt:
                    question = tokenizer.encode(part)
                    put(question, loss=all_text)
                    text += len(question)
        return Row(ids, labels, cut)
