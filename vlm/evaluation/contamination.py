"""Which pictures of an evaluation a model was trained on, and its score on the questions about all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from vlm.contracts.benchmark import Question, Scored
from vlm.evaluation.training_pictures import SIGNS, Seen, TrainingPictures
from vlm.evaluation.training_sets import training_splits

EXAMPLES = 10


class Training:
    """What a model was trained on, looked up when it is first asked for. model, data: as `training_splits`."""

    def __init__(self, model: Path, data: Path) -> None:
        self.sets = training_splits(model, data)

    @cached_property
    def pictures(self) -> TrainingPictures:
        return TrainingPictures(self.sets.splits)

    def report(
        self,
        questions: Sequence[Question],
        rows: Sequence[Scored],
        headline: Callable[[Sequence[Scored]], tuple[float, tuple[float, float]]],
    ) -> dict[str, Any]:
        """Of all questions of an evaluation, and their scored rows; clips are not looked for."""
        if not self.sets.splits:
            return {"unknown": list(self.sets.unknown)}
        known = {picture.id: picture for question in questions for picture in question.pictures}
        seen = {
            name: self.pictures.find(name, picture.read()) for name, picture in known.items() if picture.type == "image"
        }
        pictures_of = {question.id: [picture.id for picture in question.pictures] for question in questions}
        return report(seen, rows, pictures_of, headline, [*self.sets.unknown, *self.pictures.unknown])


def report(
    seen: Mapping[str, Seen | None],
    rows: Sequence[Scored],
    pictures_of: Mapping[str, Sequence[str]],
    headline: Callable[[Sequence[Scored]], tuple[float, tuple[float, float]]],
    unknown: Sequence[str] = (),
) -> dict[str, Any]:
    """What `trained_on` of results.json says.

    seen: picture -> what `find` gave; pictures that are not in it were not looked for.   pictures_of: question -> its
    pictures, of every row.   headline: of scored rows, the figure and its interval.   unknown: training sets and rows
    that nothing is known about; their pictures may be among the rest.
    Returns: pictures looked for, how many of them were trained on and by which sign, those not looked for (unchecked),
    questions that show one that was trained on, number, score and interval of the rest (questions all of whose pictures
    were looked for and not found; None without any), the first ten pictures with their training rows.
    """
    found = {picture: sign for picture, sign in seen.items() if sign is not None}
    asked = {picture for row in rows for picture in pictures_of[row.id]}
    rest = [row for row in rows if all(picture in seen and picture not in found for picture in pictures_of[row.id])]
    score, ends = headline(rest) if rest else (None, None)
    return {
        "pictures": len(seen),
        "trained_on": len(found),
        "by": {sign: sum(one.by == sign for one in found.values()) for sign in SIGNS},
        "unchecked": len(asked - seen.keys()),
        "questions": sum(any(picture in found for picture in pictures_of[row.id]) for row in rows),
        "rest_n": len(rest),
        "rest_score": score,
        "rest_interval": ends,
        "examples": [{"picture": picture, **asdict(found[picture])} for picture in list(found)[:EXAMPLES]],
        "unknown": list(unknown),
    }
