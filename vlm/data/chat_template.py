"""Turns laid out by the chat template that comes with a language model."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from jinja2 import TemplateError

from vlm.contracts.batch import IGNORE, VISUAL
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.sample import Turn
from vlm.data.chat_jinja import CLOSE, OPEN, read_template, render
from vlm.data.template import Row
from vlm.data.tokens import FolderTokenizer

# Noncharacters, which no text in interchange holds: they go through a template unchanged and say what came from where.
PICTURE, SPELLED, END = "\ufdd2", "\ufdd3", "\ufdd4"
RESERVED = re.compile(f"[{OPEN}{CLOSE}{PICTURE}{SPELLED}{END}]")
INSERTED = re.compile(f"{PICTURE}(\\d+){END}|{SPELLED}([^{END}]*){END}")
PROBE: list[Mapping[str, object]] = [
    {"role": role, "content": f"probe of {name}"}
    for role, name in (("user", "kite"), ("assistant", "loom"), ("user", "moss"), ("assistant", "reed"))
]
REMEDY = (
    "put a chat_template.jinja beside tokenizer.json that marks answers with {% generation %} … {% endgeneration %}"
)

Message = Mapping[str, object]


@dataclass
class _Tokens:
    """ids with the characters [begin, end) of the text that each stands for."""

    ids: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def put(self, ids: Sequence[int], places: Sequence[tuple[int, int]]) -> None:
        self.ids += ids
        self.begins += [begin for begin, _ in places]
        self.ends += [end for _, end in places]

    def within(self, begin: int, end: int) -> tuple[int, int]:
        """The tokens [first, behind the last) that stand for any of these characters."""
        return bisect_right(self.ends, begin), bisect_left(self.begins, end)


class ChatTemplate:
    """The template of the folder `path` (chat_template.jinja, else "chat_template" of tokenizer_config.json).

    ids are those of the whole rendered text, except that a special token's name inside a message stays text and that
    pictures take the places of their parts. Answers are what the template marks with {% generation %}; without that
    tag what it writes between its prompt for an answer and the end of the turn, up to and with the end token.
    max_tokens: text tokens a row; longer rows end with the answer that reaches it, cut and closed by `end`.
    pictures: inline = where they stand in their message; front = before all text, the system turn too (fVLM).
    date: year-month-day, told to templates that ask for today, so that a run reads the same on every day.
    end, begin: the special tokens that close an answer and open the next turn.
    """

    def __init__(
        self, path: str, max_tokens: PositiveInt, date: str, pictures: Literal["inline", "front"] = "inline"
    ) -> None:
        self.path, self.max_tokens, self.date, self.pictures = path, max_tokens, date, pictures
        self.inline = pictures == "inline"
        self.source = read_template(path)
        tokenizer = FolderTokenizer(path)
        self.names = tokenizer.names
        self.as_parts = not self._shows(PROBE[:2])
        if self.as_parts and not self._shows([_in_parts(message) for message in PROBE[:2]]):
            raise InputError(f"{path}: its chat template shows neither text nor parts of a message; {REMEDY}")
        probe = [_in_parts(message) if self.as_parts else message for message in PROBE]
        rendered = self._render(probe, False)
        self.is_tagged = OPEN in rendered
        if not self.is_tagged:
            try:
                list(self._answers_by_prefix(probe, rendered))
            except InputError as error:
                raise InputError(f"{path}: {str(error).partition(': ')[2]}") from error
        self.end, self.begin = self._borders(rendered, list(tokenizer.added.values()))

    def row(
        self,
        turns: Sequence[Turn],
        tokenizer: FolderTokenizer,
        visual: Sequence[int],
        all_text: bool = False,
        room: int | None = None,
    ) -> Row:
        """visual: number of visual tokens of each medium. all_text: every text token but the first carries loss.
        room: text tokens that the model has positions for, if fewer than max_tokens.

        A last user turn leaves the row open for an answer. Raises: InputError that begins with a reason of the data
        rules, for turns that the template refuses, an empty answer, or no room for one.
        """
        is_open = not turns or turns[-1].role != "assistant"
        front = ""
        if self.pictures == "front":
            front = "".join(f"{PICTURE}{part}{END}" for turn in turns for part in turn.parts if isinstance(part, int))
            turns = [replace(turn, parts=tuple(part for part in turn.parts if isinstance(part, str))) for turn in turns]
        messages = [self._message(turn, tokenizer) for turn in turns]
        rendered = self._render(messages, is_open)
        if self.is_tagged:
            text, answers = _without_tags(rendered)
        else:
            text, answers = rendered, [] if is_open else list(self._answers_by_prefix(messages, rendered))
        tokens = _tokenize(front + text, tokenizer, visual)
        places = [(len(front) + begin, len(front) + end) for begin, end in answers]
        spans = [self._closed(tokens.ids, tokenizer, *tokens.within(*place)) for place in places]
        asked = {n for first, behind in spans for n in range(first, behind)}
        if all_text:
            first = next((n for n, id in enumerate(tokens.ids) if id != VISUAL), 0)
            asked = set(range(first + 1, len(tokens.ids)))
        labels = [id if n in asked and id != VISUAL else IGNORE for n, id in enumerate(tokens.ids)]
        row = Row(tokens.ids, labels)
        most = min(self.max_tokens, room or self.max_tokens)
        return row if is_open else _fitted(row, spans, most, tokenizer.special(self.end))

    def _message(self, turn: Turn, tokenizer: FolderTokenizer) -> Message:
        text = "".join(part for part in turn.parts if isinstance(part, str))
        if RESERVED.search(text):
            raise InputError("row_malformed: a text holds Unicode noncharacters (U+FDD0 to U+FDD4); remove them")
        if turn.role == "assistant" and not text.strip():
            raise InputError("text_empty: an answer has no text")
        names = sorted(tokenizer.specials, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, names)) or "(?!)")
        content = "".join(
            f"{PICTURE}{part}{END}" if isinstance(part, int) else pattern.sub(f"{SPELLED}\\g<0>{END}", part)
            for part in turn.parts
        )
        message: Message = {"role": turn.role, "content": content}
        return _in_parts(message) if self.as_parts else message

    def _render(self, messages: Sequence[Message], prompt: bool) -> str:
        try:
            return render(self.source, self.date, messages=messages, add_generation_prompt=prompt, **self.names)
        except TemplateError as error:
            raise InputError(f"turns_bad: the chat template of {self.path} refuses these turns: {error}") from error

    def _shows(self, messages: Sequence[Message]) -> bool:
        """Whether the template writes the text of such messages, and only that."""
        try:
            text = render(self.source, self.date, messages=messages, add_generation_prompt=False, **self.names)
        except (TemplateError, TypeError):  # a template that wants parts indexes into a string
            return False
        return all(f"probe of {name}" in text for name in ("kite", "loom")) and "'type'" not in text

    def _answers_by_prefix(self, messages: Sequence[Message], full: str) -> Iterator[tuple[int, int]]:
        """Where each answer stands in `full`: between the prompt for it and the turn's end."""
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            asked = self._render(messages[:number], True)
            answered = full if number + 1 == len(messages) else self._render(messages[: number + 1], False)
            if not (answered.startswith(asked) and full.startswith(answered)):
                raise InputError(
                    "turns_bad: the chat template writes earlier turns otherwise once an answer or another turn "
                    f"follows, so that answers cannot be told from prompts; {REMEDY}"
                )
            yield len(asked), len(answered)

    def _borders(self, rendered: str, names: Sequence[str]) -> tuple[str, str]:
        """The tokens that close an answer and open the turn behind it, as the probe shows them."""
        first = rendered.index("probe of loom") + len("probe of loom")
        between = rendered[first : rendered.index("probe of moss", first)]
        inside = between.partition(CLOSE)[0] if self.is_tagged else between
        found = _occurrences(inside, names)
        if not found:
            where = " inside {% generation %}" if self.is_tagged else ""
            raise InputError(
                f"{self.path}: its chat template closes an answer with no special token{where}, so a model could not "
                "learn to stop; write eos_token right behind the content"
            )
        after = _occurrences(between[between.index(found[0]) + len(found[0]) :], names)
        return found[0], after[0] if after else found[0]

    def _closed(self, ids: Sequence[int], tokenizer: FolderTokenizer, first: int, behind: int) -> tuple[int, int]:
        """Without what a template writes behind the end token (a line end, mostly), where it marks no answers."""
        end = tokenizer.special(self.end)
        if self.is_tagged or end not in ids[first:behind]:
            return first, behind
        return first, max(n for n in range(first, behind) if ids[n] == end) + 1


def _in_parts(message: Message) -> Message:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _occurrences(text: str, names: Sequence[str]) -> list[str]:
    """The names in the order in which they stand in the text; of two at one place the longer."""
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"
    return re.findall(pattern, text)


def _without_tags(rendered: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without the marks of answers, and where they stood."""
    places, text = [], ""
    for piece in re.split(f"([{OPEN}{CLOSE}])", rendered):
        if piece in (OPEN, CLOSE):
            places.append(len(text))
        else:
            text += piece
    return text, list(zip(places[::2], places[1::2], strict=True))


def _tokenize(text: str, tokenizer: FolderTokenizer, visual: Sequence[int]) -> _Tokens:
    """The text between pictures and spelled names in one piece each."""
    tokens = _Tokens()
    done = 0
    for inserted in INSERTED.finditer(text):
        _put_markup(tokens, tokenizer, text, done, inserted.start())
        medium, name = inserted.groups()
        ids = [VISUAL] * visual[int(medium)] if medium is not None else _spelled(tokenizer, name, inserted.start() > 0)
        tokens.put(ids, [inserted.span()] * len(ids))
        done = inserted.end()
    _put_markup(tokens, tokenizer, text, done, len(text))
    return tokens


def _put_markup(tokens: _Tokens, tokenizer: FolderTokenizer, text: str, begin: int, end: int) -> None:
    piece, lead = text[begin:end], "\n" if begin else ""
    if not piece:
        return
    # Behind a line end a tokenizer adds no space of its own, as it may at the beginning of a text.
    found, skip = tokenizer.markup(lead + piece), tokenizer.markup(lead).ids
    if found.ids[: len(skip)] != skip:
        found, skip, lead = tokenizer.markup(piece), [], ""
    shift = begin - len(lead)
    places = [(shift + first, shift + last) for first, last in found.offsets[len(skip) :]]
    tokens.put(found.ids[len(skip) :], places)


def _spelled(tokenizer: FolderTokenizer, name: str, inside: bool) -> list[int]:
    ids, skip = tokenizer.encode(f"\n{name}" if inside else name), tokenizer.encode("\n") if inside else []
    ids = ids[len(skip) :] if ids[: len(skip)] == skip else tokenizer.encode(name)
    if not tokenizer.added.keys().isdisjoint(ids):
        raise InputError(f"row_malformed: a text holds {name}, which this tokenizer has no other way to write")
    return ids


def _fitted(row: Row, spans: Sequence[tuple[int, int]], most: int, end: int) -> Row:
    """The row, or its beginning up to the last answer of which at least one token and its end fit into `most`."""
    text = [n for n, id in enumerate(row.ids) if id != VISUAL]
    if len(text) <= most:
        return row
    limit = text[most]  # the first position that is too much
    fitting = [(first, behind) for first, behind in spans if first + 2 <= limit]
    if not fitting:
        before = sum(n < spans[0][0] for n in text) if spans else len(text)
        raise InputError(
            f"text_long: {before} tokens stand before the answer and only {most} fit (llm.template.max_tokens, and the "
            "model's positions)"
        )
    _, behind = fitting[-1]
    is_whole = behind <= limit
    kept = behind if is_whole else limit - 1
    if VISUAL in row.ids[kept:]:
        raise InputError(f"text_long: {len(text)} tokens, of which {most} fit, and a picture would be cut off")
    closing = [] if is_whole else [end]
    return Row(
        [*row.ids[:kept], *closing], [*row.labels[:kept], *closing], cut=not is_whole or len(fitting) < len(spans)
    )
