"""A benchmark before and after a model: questions, what was read from its answers, and scores as sums over rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Picture:
    """One picture or clip of a question, read when it is needed.

    id: equal for all questions about the same picture (a path, or file and row).   read: gives the encoded file;
    of a clip its path, as UTF-8 bytes.   type: "image" or "video".
    """

    id: str
    read: Callable[[], bytes]
    type: str = "image"


@dataclass(frozen=True)
class Question:
    """One question of a benchmark, before any model sees it.

    id: unique in the benchmark, as its files name it.   group: what makes questions dependent (picture, video,
    circular group); resampling draws it as a whole.   text: as the files have it, without any instruction.
    reference: gold data, a JSON value in the shape that the benchmark's scorer takes.   options: texts of the choices
    in order, without letters; () for open questions.   fields: further texts that a prompt may name (hint, ...).
    inline: <image 1>, <image 2> ... in text and options say where the pictures stand; otherwise they stand in front.
    prompt, max_new_tokens: of this question, where a benchmark has several kinds; None = those of the benchmark.
    """

    id: str
    group: str
    text: str
    reference: Any
    pictures: tuple[Picture, ...] = ()
    options: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    inline: bool = False
    prompt: str | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Reply:
    """id: of the question.   truncated: no end within the longest length.   fault: why the model could not be asked."""

    id: str
    prediction: str
    truncated: bool = False
    fault: str | None = None


class Reader(Protocol):
    """A benchmark's own files, in the form in which they are published.

    Constructor arguments are the keys of `reader` in conf/benchmark/*.yaml; `folder` is where the files lie.
    """

    @property
    def folder(self) -> str: ...

    def files(self) -> Sequence[str]:
        """Paths of the tables that are read, relative to the folder; their checksums are kept with the results."""
        ...

    def questions(self) -> Iterator[Question]:
        """In file order, those of one picture behind one another where the files allow it.

        Raises: InputError naming file and row for what is not of the published form, and for another number of rows.
        """
        ...


@dataclass(frozen=True)
class Scored:
    """One answer, read and scored.

    parsed: what the rule read, None if nothing.   score: 0..1.   unparsable: the rule found no answer, or several;
    it counts as wrong.   truncated: the answer hit the longest length without an end.
    """

    id: str
    group: str
    prediction: str
    reference: Any
    parsed: str | None
    score: float
    unparsable: bool = False
    truncated: bool = False


@dataclass(frozen=True)
class Measure:
    """A figure as a function of sums over rows, so that resampling rows is resampling sums.

    columns [n, K]: what each row adds.   combine: sums [..., K] -> the figure [...]; NaN where it is undefined.
    top: its greatest value (1 for a share, 2800 for MME's total).   is_mean: a plain mean of row scores.
    """

    name: str
    columns: np.ndarray
    combine: Callable[[np.ndarray], np.ndarray]
    top: float = 1.0
    is_mean: bool = False


Case = Callable[[Any, Any], dict[str, Any]]  # prediction, reference -> a record with "score"


@dataclass(frozen=True)
class Scorer:
    """How a benchmark reads and scores; pure, without a model.

    default: the variant of the headline.   cases: variant -> one answer and its gold data -> a record with `score`
    0..1 and what was read (`label` or `extracted`, None = unparsable).   totals: variant -> a list of answers scored
    together, as the public scorer prints them.
    unparsable: of an answer, its gold data and its record.   parsed: the text that was read, from the record.
    measures: of scored rows, the headline first.   constants: gold data of all rows -> name -> an answer for each row,
    the trivial answers that need no model (always yes, each letter, the most frequent answer, empty ...).
    listed: cases that take a list of answers to one question.   whole_groups: a group counts as a whole or not at all
    (pairs of MME, circles of MMBench), so a subset never cuts one.
    """

    default: str
    cases: Mapping[str, Case]
    measures: Callable[[Sequence[Scored]], list[Measure]]
    constants: Callable[[Sequence[Any]], dict[str, list[str]]]
    totals: Mapping[str, Callable[[Sequence[Any], Sequence[Any]], dict[str, Any]]] = field(default_factory=dict)
    unparsable: Callable[[Any, Any, Mapping[str, Any]], bool] = lambda prediction, reference, record: (
        not str(prediction).strip()
    )
    parsed: Callable[[Mapping[str, Any]], str | None] = lambda record: None
    listed: tuple[str, ...] = ()
    whole_groups: bool = False
