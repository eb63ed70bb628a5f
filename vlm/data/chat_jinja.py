"""Chat templates as language models bring them: Jinja in a sandbox, with the few names that they expect."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vlm.contracts.errors import InputError

OPEN, CLOSE = "\ufdd0", "\ufdd1"  # around what stands in {% generation %}: noncharacters, which no text holds


class Generation(Extension):
    """{% generation %} … {% endgeneration %}: the model's own words, between OPEN and CLOSE in the result."""

    tags = {"generation"}  # noqa: RUF012  # Jinja's own form

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("marked"), [], [], body).set_lineno(line)

    def marked(self, caller: Callable[[], str]) -> str:
        return f"{OPEN}{caller()}{CLOSE}"


def render(source: str, today: str, **variables: Any) -> str:
    """Raises: jinja2.TemplateError, also where the template itself refuses its input."""
    return _compiled(source, today).render(variables)


def read_template(path: str) -> str:
    """The source of a folder's template: chat_template.jinja, else what tokenizer_config.json holds.

    Raises: InputError if there is none, or none with the name "default" among several.
    """
    file, settings = Path(path) / "chat_template.jinja", Path(path) / "tokenizer_config.json"
    try:
        if file.is_file():
            return file.read_text(encoding="utf-8")
        found = json.loads(settings.read_text(encoding="utf-8")).get("chat_template") if settings.is_file() else None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"llm.template.path: the settings in {path} cannot be read ({error})") from error
    if isinstance(found, list):
        found = next((entry.get("template") for entry in found if entry.get("name") == "default"), None)
    if not isinstance(found, str):
        raise InputError(
            f"llm.template.path: {path} has no chat template (chat_template.jinja, or chat_template in "
            "tokenizer_config.json), as base models have none; write one into chat_template.jinja there"
        )
    return found


@cache
def _compiled(source: str, today: str) -> Template:
    try:
        day = date.fromisoformat(today)
    except ValueError as error:
        raise InputError(f"llm.template.date: {today!r} is no date; write it as 2025-01-31, in quotes") from error
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals |= {"raise_exception": _refuse, "strftime_now": day.strftime}
    environment.filters["tojson"] = _to_json
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise InputError(f"llm.template.path: the chat template is damaged, {error}") from error


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    """Unlike Jinja's own filter it escapes nothing for web pages."""
    return json.dumps(value, **{"ensure_ascii": False, **options})
