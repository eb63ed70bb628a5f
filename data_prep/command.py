"""What the commands of this package share: key=value words, help, and one line and one exit code for every end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from vlm.contracts.errors import ConfigError, InputError, Problem, RunError

if TYPE_CHECKING:
    from pydantic import ValidationError

EXIT_CODES = """Exit codes:
  0   done
  1   failed
  2   configuration or input refused before anything was started
  75  stopped on request (Ctrl-C)"""
STOPPED = "stopped; the same command starts again"
Settings = TypeVar("Settings")


def run(
    doc: str | None, settings: type[Settings], task: Callable[[Settings], int], words: list[str], stopped: str = STOPPED
) -> int:
    """A whole command whose configuration is a few plain keys.

    doc: the module's docstring: a sentence on what it does, a blank line, how it is called.
    settings: a frozen dataclass, one field a key, `name: Annotated[type, "what the key means"] = default`; the types
    are text, numbers (also the ranges of vlm.contracts.ranges), booleans, Literal, lists of them, or None. A key that
    is a Python word is a field with _ behind it: `from_`.
    task: does the work with the checked settings and returns the exit code, 0 or 1. What it raises as InputError ends
    with 2, as RunError or OSError with 1, Ctrl-C with 75, each told in one line. Its imports should be as light as
    those of --help: heavy ones stand inside it.   stopped: what Ctrl-C leaves, for people.
    Returns: the exit code. A command is then no more than

        if __name__ == "__main__":
            sys.exit(run(__doc__, MergeSettings, merge, sys.argv[1:]))
    """

    def work() -> int:
        import logging  # a help page does not need it

        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        return task(parse(settings, words))

    return guard(words, lambda: help_text(doc, settings), work, stopped)


def guard(words: list[str], about: Callable[[], str], work: Callable[[], int], stopped: str = STOPPED) -> int:
    """Help if it is asked for, else the work, with every way in which it can end as an exit code.

    about: the text of --help.
    """
    if "-h" in words or "--help" in words:
        print(about())
        return 0
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # a shell's background jobs are deaf to the first, schedulers say the other
        signal.signal(number, signal.default_int_handler)
    try:
        return work()
    except (ConfigError, InputError) as error:
        print(error, file=sys.stderr)
        return 2
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.strerror or error}: {error.filename or 'standard output'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it is ending already
        print(stopped, file=sys.stderr)
        return 75


def parse(settings: type[Settings], words: Iterable[str]) -> Settings:
    """The words as typed settings. Raises: ConfigError with every mistake in them."""
    hints = get_type_hints(settings, include_extras=True)
    known = {_key(entry): entry for entry in _fields(settings)}
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or not key.isidentifier():
            problems.append(Problem(word, "cannot be read; give key=value"))
        elif key not in known:
            hint = did_you_mean(key, known)
            problems.append(Problem(key, f"unknown key{hint} keys: {', '.join(known)}"))
        elif known[key].name in values:
            problems.append(Problem(key, "is given twice"))
        else:
            values[known[key].name] = _plain(text)
            problems += [Problem(key, what) for what in _misfit(hints[known[key].name], values, known[key].name)]
    for key, entry in known.items():
        if entry.default is MISSING and entry.default_factory is MISSING and entry.name not in values:
            problems.append(Problem(key, f"missing; {_meaning(hints[entry.name])}"))
    if problems:
        raise ConfigError(problems)
    return settings(**values)


def help_text(doc: str | None, settings: type[Any]) -> str:
    """What a command does, its keys with defaults and meaning, and the exit codes."""
    hints = get_type_hints(settings, include_extras=True)
    shown = {_key(entry): (_default(entry), _meaning(hints[entry.name])) for entry in _fields(settings)}
    width = max(len(f"{key}={default}") for key, (default, _) in shown.items())
    keys = [f"  {f'{key}={default}':<{width}}  {meaning}" for key, (default, meaning) in shown.items()]
    return "\n".join([(doc or "").strip(), "", "Keys:", *keys, "", EXIT_CODES])


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest option, or `;` if none is near."""
    return "".join(f"; did you mean {near!r}?" for near in get_close_matches(word, list(options), n=1)) or ";"


def _plain(text: str) -> Any:
    """null, and [a,b] as a list of texts; other texts stay as they are."""
    if text == "null":
        return None
    if text.startswith("[") and text.endswith("]"):
        return [item.strip().strip("\"'") for item in text[1:-1].split(",") if item.strip()]
    return text


def _misfit(annotation: Any, values: dict[str, Any], name: str) -> list[str]:
    """What is wrong with a value; one that fits is converted in place."""
    from pydantic import TypeAdapter, ValidationError  # 0.1 s that a help page does not need

    try:
        values[name] = TypeAdapter(annotation).validate_python(values[name])
    except ValidationError as error:
        return [_phrase(error, values[name])]
    return []


def _phrase(error: ValidationError, value: Any) -> str:
    found = dict.fromkeys(fault["msg"].replace("Input should be", "must be") for fault in error.errors())
    return f"{value!r}: {', or '.join(found)}"


def _fields(settings: type[Any]) -> tuple[Field[Any], ...]:
    return fields(settings)


def _key(entry: Field[Any]) -> str:
    return entry.name.removesuffix("_")


def _default(entry: Field[Any]) -> str:
    if entry.default is MISSING:
        return "???" if entry.default_factory is MISSING else str(entry.default_factory()).replace("'", "")
    if entry.default is None or isinstance(entry.default, bool):
        return "null" if entry.default is None else str(entry.default).lower()
    return str(entry.default)


def _meaning(annotation: Any) -> str:
    return next((note for note in get_args(annotation)[1:] if isinstance(note, str)), "")
