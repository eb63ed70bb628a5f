"""A model answers a benchmark: pictures once for all their questions, rows batched by length, choices by probability."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

from torch import Tensor

from vlm.contracts.benchmark import Question, Reply
from vlm.contracts.errors import InputError
from vlm.contracts.example import Example
from vlm.contracts.sample import Turn
from vlm.evaluation.prompts import Asked
from vlm.evaluation.views import views_of
from vlm.models.generation import answers
from vlm.models.likelihood import log_probabilities
from vlm.models.vlm import VLM

WINDOW = 16  # batches of questions that are sorted by length together; more would read a file's pictures out of order
ROWS_A_PICTURE = 8  # mean over a batch; beyond it a batch holds fewer pictures
BRANCH_TOKENS = 1 << 14  # of answers that are compared in one forward pass


class Answering:
    """Asks one model. batch: rows decoded together; token_budget: visual tokens a picture.

    normalise: of answers that are compared, "none" takes the log-probability of the whole, "tokens" per token.
    temperature: draws what is spoken, by the seed and the question's id; None for the most probable token.
    """

    def __init__(
        self,
        model: VLM,
        batch: int,
        token_budget: int | None = None,
        normalise: Literal["none", "tokens"] = "none",
        temperature: float | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.batch, self.token_budget, self.normalise = model, batch, token_budget, normalise
        drawn = {"decoding": "sampled", "temperature": temperature, "seed": seed}
        self.decoding: dict[str, Any] = {"decoding": "greedy"} if temperature is None else drawn

    def __call__(self, questions: Sequence[Question], put: Callable[[Question], Asked]) -> Iterator[list[Reply]]:
        """Replies to all questions, some at a time, in an order of its own. put: how a question is asked.

        Raises: RunError for a picture that cannot be read; what was answered before has been given.
        """
        for part in self._parts(questions):
            yield self._replies([put(question) for question in part])

    def _parts(self, questions: Sequence[Question]) -> Iterator[list[Question]]:
        """Questions about the same pictures together, near ones sorted by length."""
        by_pictures: dict[tuple[str, ...], list[Question]] = defaultdict(list)
        for question in questions:
            names = tuple(picture.id for picture in question.pictures)
            by_pictures[names or (question.id,)].append(question)
        groups = iter(by_pictures.values())
        while window := list(_until(groups, WINDOW * self.batch)):
            window.sort(key=lambda group: (len(group[0].pictures), sum(len(q.text) for q in group) / len(group)))
            part: list[Question] = []
            pictures = 0
            for group in window:
                for piece in _cut(group, ROWS_A_PICTURE * self.batch):
                    shown = max(1, len(piece[0].pictures))
                    if part and (pictures + shown > self.batch or len(part) + len(piece) > ROWS_A_PICTURE * self.batch):
                        yield part
                        part, pictures = [], 0
                    part = part + piece
                    pictures += shown
            if part:
                yield part

    def _replies(self, asked: Sequence[Asked]) -> list[Reply]:
        known = {picture.id: picture for one in asked for picture in one.pictures}
        views = {name: views_of(self.model.processor, picture) for name, picture in known.items()}
        identities = {name: number for number, name in enumerate(known)}
        comparing = [one for one in asked if one.candidates]
        speaking = [one for one in asked if not one.candidates]
        return [*self._spoken(speaking, views, identities), *self._compared(comparing, views, identities)]

    def _spoken(
        self, asked: Sequence[Asked], views: dict[str, list[Tensor]], identities: dict[str, int]
    ) -> Iterator[Reply]:
        alike: dict[int, list[tuple[Asked, Example]]] = defaultdict(list)
        for one in asked:
            made = [views[picture.id] for picture in one.pictures]
            names = [identities[picture.id] for picture in one.pictures]
            try:
                example = self.model.processor.prompt(one.turns, made, names, self.token_budget, one.id)
            except InputError as error:
                yield Reply(one.id, "", fault=str(error))
                continue
            if len(example.ids) > self.model.llm.spec.positions:  # type: ignore[union-attr, operator]
                yield Reply(one.id, "", fault=f"text_long: the prompt takes {len(example.ids)} positions")
                continue
            alike[one.max_new_tokens].append((one, example))
        for longest, rows in alike.items():
            said = answers(
                self.model,
                [example for _, example in rows],
                together=self.batch,
                token_budget=self.token_budget,
                max_new_tokens=longest,
                **self.decoding,
            )
            for (one, _), reply in zip(rows, said, strict=True):
                yield Reply(one.id, reply.text, truncated=not reply.ended)

    def _compared(
        self, asked: Sequence[Asked], views: dict[str, list[Tensor]], identities: dict[str, int]
    ) -> Iterator[Reply]:
        """Answers to questions about the same pictures are branches of one row, as many as it may hold."""
        groups: list[list[Asked]] = []
        # Pictures -> the row that is being filled, and its tokens.
        begun: dict[tuple[str, ...], tuple[list[Asked], int]] = {}
        for one in asked:
            try:
                alone = self._alternatives([one], views, identities)
            except InputError as error:
                yield Reply(one.id, "", fault=str(error))
                continue
            # Beside another question it may share nothing, and each of its answers repeats picture and question.
            length = len(alone.ids) + (len(one.candidates) - 1) * int((alone.segment == 0).sum())
            pictures = tuple(picture.id for picture in one.pictures)
            group, tokens = begun.get(pictures, ([], BRANCH_TOKENS))
            if tokens + length > BRANCH_TOKENS:  # a picture that very many ask about, such as a grey one
                group, tokens = [], 0
                groups.append(group)
            group.append(one)
            begun[pictures] = group, tokens + length
        rows = [(group, self._alternatives(group, views, identities)) for group in groups]
        rows.sort(key=lambda row: len(row[1].ids))
        while rows:
            count = max(1, min(len(rows), self.batch, BRANCH_TOKENS // max(1, len(rows[-1][1].ids))))
            part, rows = rows[-count:], rows[:-count]
            yield from self._judged(part)

    def _alternatives(
        self, asked: Sequence[Asked], views: dict[str, list[Tensor]], identities: dict[str, int]
    ) -> Example:
        made = [views[picture.id] for picture in asked[0].pictures]
        names = [identities[picture.id] for picture in asked[0].pictures]
        texts = [(*one.turns, Turn("assistant", (text,))) for one in asked for text, _ in one.candidates]
        return self.model.processor.alternatives(texts, made, names, self.token_budget)

    def _judged(self, part: Sequence[tuple[list[Asked], Example]]) -> Iterator[Reply]:
        counts = [sum(len(one.candidates) for one in group) for group, _ in part]
        told = log_probabilities(self.model, [example for _, example in part], counts, self.token_budget)
        for (group, _), values in zip(part, told, strict=True):
            rest = iter(values)
            for one in group:
                yield self._best(one, list(islice(rest, len(one.candidates))))

    def _best(self, one: Asked, values: Sequence[tuple[float, int]]) -> Reply:
        """The most probable candidate; none where several are equally so: taking the first would be a guess."""
        scores = [total / tokens if self.normalise == "tokens" else total for total, tokens in values]
        best = [number for number, score in enumerate(scores) if score == max(scores)]
        if len(best) > 1:
            return Reply(one.id, "", fault=f"tied: {len(best)} answers are equally probable")
        return Reply(one.id, one.said(scores))


def _until(groups: Iterator[list[Question]], count: int) -> Iterator[list[Question]]:
    """Groups with at least `count` questions together, as far as there are."""
    taken = 0
    for group in groups:
        yield group
        taken += len(group)
        if taken >= count:
            return


def _cut(group: Iterable[Question], most: int) -> Iterator[list[Question]]:
    rest = iter(group)
    while piece := list(islice(rest, most)):
        yield piece
