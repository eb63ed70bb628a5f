"""A model of two towers answers a benchmark: each picture and each text becomes a vector once, and vectors are compared."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from vlm.contracts.benchmark import Picture, Question, Reply
from vlm.contracts.errors import InputError, RunError
from vlm.contracts.sample import Turn
from vlm.evaluation.prompts import Asked, Search
from vlm.evaluation.views import views_of
from vlm.models.generation import evaluating
from vlm.models.two_tower import TwoTower

Item = TypeVar("Item")


class Comparing:
    """Asks one model. batch: pictures, and texts, embedded together; token_budget: visual tokens a picture.

    Views of equal content share a vector, so that grey pictures of all sizes are one picture. Vectors are kept as long
    as this object: a control that shows the same pictures again encodes none.
    """

    def __init__(self, model: TwoTower, batch: int, token_budget: int | None = None) -> None:
        self.model, self.batch, self.token_budget = model, batch, token_budget
        self._pictures: dict[str, Tensor] = {}
        self._views: dict[bytes, Tensor] = {}  # by a hash of their content
        self._texts: dict[str, Tensor] = {}
        self._stacked: tuple[dict[str, Tensor], Sequence[str], Tensor] | None = None  # what was compared with last

    def __call__(self, questions: Sequence[Question], put: Callable[[Question], Asked]) -> Iterator[list[Reply]]:
        """Replies to all questions, some at a time, in order. put: how a question is asked.

        Raises: RunError for a picture that cannot be read; what was answered before has been given.
        """
        for part in _parts(questions, self.batch):
            asked = [put(question) for question in part]
            with torch.no_grad(), evaluating(self.model):
                self._see(picture for one in asked for picture in one.pictures)
                self._read(text for one in asked for text in _texts(one))
            yield [self._reply(one) for one in asked]

    def _see(self, pictures: Iterable[Picture]) -> None:
        new = {picture.id: picture for picture in pictures if picture.id not in self._pictures}
        for part in _parts(list(new.values()), self.batch):
            views = {picture.id: self._view(picture) for picture in part}
            hashes = {name: hashlib.sha256(view.numpy().tobytes()).digest() for name, view in views.items()}
            unseen = {number: views[name] for name, number in hashes.items() if number not in self._views}
            if unseen:
                parameter = next(self.model.parameters())
                stacked = torch.stack(list(unseen.values())).to(parameter.device, parameter.dtype)
                rows, _ = self.model.image_rows(stacked, self.token_budget)
                self._views |= zip(unseen, _kept(rows, "pictures"), strict=True)
            self._pictures |= {name: self._views[number] for name, number in hashes.items()}

    def _view(self, picture: Picture) -> Tensor:
        views = views_of(self.model.processor, picture)
        if len(views) != 1:
            raise InputError(f"{picture.id} becomes {len(views)} views; a vector stands for one: no tiles")
        return views[0]

    def _read(self, texts: Iterable[str]) -> None:
        """Texts of equal length together, so that none is padded and none depends on its neighbours."""
        alike: dict[int, dict[str, list[int]]] = defaultdict(dict)
        for text in dict.fromkeys(texts):
            if text not in self._texts:
                turns = (Turn("user", (0,)), Turn("assistant", (text,)))  # as in training
                ids = self.model.processor.row(turns, [1], False, None).ids
                alike[len(ids)][text] = ids
        for rows in alike.values():
            for part in _parts(list(rows.items()), self.batch):
                ids = torch.tensor([ids for _, ids in part], device=next(self.model.parameters()).device)
                found = self.model.text_rows(ids, torch.ones_like(ids, dtype=torch.bool))
                self._texts |= zip((text for text, _ in part), _kept(found, "texts"), strict=True)

    def _reply(self, asked: Asked) -> Reply:
        if asked.search is not None:
            return Reply(asked.id, str(self._rank(asked, asked.search)))
        texts = [text for text, _ in asked.candidates]
        scores = self._similar(self._pictures[asked.pictures[0].id], texts, self._texts)
        best = (scores == scores.max()).sum()
        if best > 1:
            return Reply(asked.id, "", fault=f"tied: {best} answers are equally similar")
        return Reply(asked.id, asked.said(scores.tolist()))

    def _rank(self, asked: Asked, search: Search) -> int:
        """Wrong items that score at least as high as the best right one."""
        if search.texts:
            scores = self._similar(self._pictures[asked.pictures[0].id], search.texts, self._texts)
        else:
            names = [picture.id for picture in asked.pictures]
            scores = self._similar(self._texts[search.text], names, self._pictures)
        right = torch.zeros(len(scores), dtype=torch.bool)
        right[list(search.right)] = True
        return int((scores[~right] >= scores[right].max()).sum())

    def _similar(self, row: Tensor, names: Sequence[str], known: dict[str, Tensor]) -> Tensor:
        """In float32, of products in float64: equal vectors score equally, whatever order a product adds in."""
        if self._stacked is None or self._stacked[0] is not known or self._stacked[1] != names:
            self._stacked = (known, names, torch.stack([known[name] for name in names]))
        return (self._stacked[2] @ row).float()


def _texts(asked: Asked) -> Iterator[str]:
    if asked.search is None:
        yield from (text for text, _ in asked.candidates)
    elif asked.search.texts:
        yield from asked.search.texts
    else:
        yield asked.search.text


def _parts(items: Sequence[Item], count: int) -> Iterator[Sequence[Item]]:
    for first in range(0, len(items), count):
        yield items[first : first + count]


def _kept(rows: Tensor, what: str) -> Tensor:
    """Raises: RunError for rows that are not finite, which cannot be compared."""
    if not bool(rows.isfinite().all()):
        raise RunError(
            f"the vectors of {what} hold nan or inf; the model's training has failed, so take an earlier one"
        )
    return rows.double().cpu()
