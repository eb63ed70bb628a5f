"""Errors that a user can act on; every message says what, where, and what to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration.

    key: dotted path such as "encoder.grid".   message: what is wrong and what is allowed.
    file: where the value was written, "command line" for an override; None if unknown.
    """

    key: str
    message: str
    file: str | None = None

    def __str__(self) -> str:
        where = f"{self.file}: " if self.file else ""
        return f"{where}{self.key}: {self.message}"


class ConfigError(ValueError):
    """A configuration that was refused before anything was started; carries every problem found."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__(f"{len(problems)} {noun} in the configuration; nothing was started\n{lines}")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:  # an exception is pickled by its message alone
        return type(self), (self.problems,)


class Mismatch(ValueError):
    """A part refuses its arguments or its neighbour; raised by a part's `describe`.

    argument: the constructor argument to change; the caller turns it into a full key.
    """

    def __init__(self, argument: str, message: str) -> None:
        self.argument = argument
        super().__init__(message)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:  # an exception is pickled by its message alone
        return type(self), (self.argument, str(self))


class InputError(ValueError):
    """An input (folder, file, sample) that cannot be used; the message names it and the remedy."""


class RunError(RuntimeError):
    """A run that had to stop; the message names the step, what was kept, and the remedy."""


class BrokenStep(RunError):
    """An optimizer step that could not be taken because of what it worked on; its samples are worth a look."""
