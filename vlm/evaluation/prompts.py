"""A question as a model is asked it: its text laid out, its options lettered, its pictures in their places."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

from vlm.contracts.benchmark import Picture, Question
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Turn
from vlm.contracts.settings import BenchmarkSettings
from vlm.evaluation.ocr import with_text

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MARK = re.compile(r"<image (\d+)>")
RANKED, TOP = "zeroshot", 5  # the scorer that reads several answers, the likeliest first, and how many
CHOICES = ("options", "choices", "candidates")  # keys of gold data under which scorers keep the options


@dataclass(frozen=True)
class Search:
    """The picture looks for its texts among `texts`; or, without them, `text` looks for its picture among the pictures.

    right: places of what is to be found.
    """

    text: str
    texts: tuple[str, ...]
    right: tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """parts: of the user's turn, text or the index of a picture.   candidates: an answer's text and what it stands for,
    if answers are compared by their probability; () to let the model speak.   search: if something is looked for.
    ranked: how many of the candidates are told, the likeliest first."""

    id: str
    parts: tuple[str | int, ...]
    pictures: tuple[Picture, ...]
    max_new_tokens: int
    candidates: tuple[tuple[str, str], ...] = ()
    search: Search | None = None
    ranked: int = 1

    def said(self, scores: Sequence[float]) -> str:
        """What the likeliest candidates stand for, one a line. scores: of each candidate."""
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        return "\n".join(self.candidates[place][1] for place in order[: self.ranked])

    @property
    def turns(self) -> tuple[Turn, ...]:
        return (Turn("user", self.parts),)

    @property
    def prompt(self) -> str:
        """Exactly what is sent, pictures as <image N>; of a search what looks for what."""
        if self.search is not None:
            among = f"<image 1> to <image {len(self.pictures)}>"
            return (
                f"<image 1> among {len(self.search.texts)} texts"
                if self.search.texts
                else f"{self.search.text} among {among}"
            )
        return "".join(part if isinstance(part, str) else f"<image {part + 1}>" for part in self.parts)


def ask(
    question: Question,
    settings: BenchmarkSettings,
    recognised: str | None = None,
    lettered: bool = True,
    inline: bool = True,
) -> Asked:
    """recognised: text read in the pictures.

    lettered: whether options stand behind letters; without, each is a line of its own.
    inline: whether the model's template can place pictures inside a text; where it cannot, they stand in front, each
    once, and their marks stay in the text.
    Raises: InputError for a prompt that names unknown fields, more options than letters, or a missing picture.
    """
    if settings.decoding == "similarity":
        return _searched(question, settings)
    letters = LETTERS[: len(question.options)]
    if len(question.options) > len(LETTERS):
        raise InputError(f"{settings.name} {question.id}: {len(question.options)} options, there are only 26 letters")
    lines = [
        _filled(settings.option, {"letter": letter, "text": text}, settings, "option") if lettered else text
        for letter, text in zip(letters, question.options, strict=True)
    ]
    fields = {"question": question.text, "options": "\n".join(lines), **question.fields}
    text = _filled(question.prompt or settings.prompt, fields, settings, "prompt")
    text = with_text(text, recognised or "")
    candidates = _candidates(question, settings, letters) if settings.decoding == "likelihood" else ()
    parts = _with_pictures(question, text, settings.name, inline)
    longest = question.max_new_tokens or settings.max_new_tokens
    ranked = TOP if settings.scorer == RANKED else 1
    return Asked(question.id, parts, question.pictures, longest, candidates, ranked=ranked)


def _searched(question: Question, settings: BenchmarkSettings) -> Asked:
    """Raises: InputError for a question that is no search, and for a prompt, as a text is compared as it is."""
    gold = question.reference
    if not isinstance(gold, Mapping) or not gold.get("right") or not gold.get("direction"):
        raise InputError(
            f"{settings.name} {question.id}: decoding=similarity searches galleries, and this is no question of one; "
            "choose greedy or likelihood"
        )
    if settings.prompt != "{question}":
        raise InputError(
            f'{settings.name}: prompt: texts of a gallery are compared as they are; set it to "{{question}}"'
        )
    search = Search(question.text, question.options, tuple(gold["right"]))
    return Asked(question.id, (), question.pictures, settings.max_new_tokens, search=search)


def rotated(question: Question, shift: int) -> Question:
    """The same question with its options moved on by `shift` places, in its gold data too."""
    count = len(question.options)
    options = tuple(question.options[(place + shift) % count] for place in range(count))
    return replace(question, options=options, reference=rotated_gold(question.reference, shift))


def rotated_gold(reference: Mapping[str, Any], shift: int) -> dict[str, Any]:
    """Gold data of a choice after its options have moved on by `shift` places."""
    key = next(name for name in CHOICES if reference.get(name))
    held, texts = reference[key], _texts(reference[key])
    order = [(place + shift) % len(texts) for place in range(len(texts))]
    bare = [re.sub(rf"^{letter}\. ?", "", text) for letter, text in zip(LETTERS, texts, strict=False)]
    carries = all(text != own for text, own in zip(texts, bare, strict=True))  # one alone may begin so by chance
    moved = [(bare if carries else texts)[place] for place in order]
    if carries:
        moved = [f"{letter}. {text}" for letter, text in zip(LETTERS, moved, strict=False)]
    new = dict(zip(held, moved, strict=True)) if isinstance(held, Mapping) else moved
    return {**reference, key: new, "gold": LETTERS[order.index(LETTERS.index(reference["gold"]))]}


def options_of(reference: Any) -> list[str] | None:
    """The options in gold data, None if it holds none."""
    if not isinstance(reference, Mapping) or not isinstance(reference.get("gold"), str):
        return None
    held = next((reference[name] for name in CHOICES if reference.get(name)), None)
    return None if held is None else _texts(held)


def _texts(held: Mapping[str, str] | Sequence[str]) -> list[str]:
    return list(held.values()) if isinstance(held, Mapping) else list(held)


def _candidates(question: Question, settings: BenchmarkSettings, letters: str) -> tuple[tuple[str, str], ...]:
    wanted = settings.candidates
    if wanted is None:
        wanted = "letters" if question.options else None
    if wanted == "letters" and question.options:
        return tuple((letter, letter) for letter in letters)
    if wanted == "options" and question.options:
        return tuple(zip(question.options, letters, strict=True))
    if isinstance(wanted, list) and len(set(wanted)) < len(wanted):
        raise InputError(
            f"candidates: {', '.join(wanted)}: an answer stands there twice, and could never be the one chosen"
        )
    if isinstance(wanted, list) and wanted:
        return tuple((text, text) for text in wanted)
    raise InputError(
        f"{settings.name} {question.id}: decoding=likelihood compares given answers, and there are none; set "
        f"change.{settings.name}.candidates, or decoding=greedy"
    )


def _filled(form: str, fields: Mapping[str, str], settings: BenchmarkSettings, key: str) -> str:
    try:
        parsed = list(Formatter().parse(form))
    except ValueError as error:
        raise InputError(
            f"{key}: {form!r} cannot be read ({error}); write a brace that is meant as it is twice"
        ) from error
    if any(kind or more for _, _, more, kind in parsed):
        raise InputError(f"{key}: {form!r}: a field is its name in braces, and nothing more")
    named = [name for _, name, _, _ in parsed if name is not None]
    unknown = sorted({name for name in named if name not in fields})
    if unknown:
        raise InputError(f"{key} names {', '.join(unknown)}, but a question has {', '.join(sorted(fields))}")
    return form.format(**fields)


def _with_pictures(question: Question, text: str, name: str, inline: bool) -> tuple[str | int, ...]:
    if not (question.inline and inline):
        return (*range(len(question.pictures)), *([text] if text else []))
    parts: list[str | int] = []
    for number, piece in enumerate(MARK.split(text)):
        if number % 2 == 0:
            parts += [piece] if piece else []
        elif not 1 <= int(piece) <= len(question.pictures):
            raise InputError(f"{name} {question.id}: <image {piece}> is asked for, it has {len(question.pictures)}")
        else:
            parts.append(int(piece) - 1)
    return tuple(parts)
