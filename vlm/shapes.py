"""How the parts of a model meet, found by plain arithmetic before any weight exists."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlm.contracts.errors import ConfigError, Mismatch, Problem
from vlm.contracts.language import LanguageSpec
from vlm.contracts.parts import ATTACHED
from vlm.contracts.vision import ViewSpec, VisionSpec
from vlm.signature import SignatureError, read


@dataclass(frozen=True)
class Shapes:
    """What each part gives to the next.   visual_tokens: of one picture, all its views together."""

    views: ViewSpec
    encoder: VisionSpec
    connector: VisionSpec
    fusion: VisionSpec
    llm: LanguageSpec
    visual_tokens: int
    tokenizer_size: int


def shapes(config: Mapping[str, Any]) -> Shapes:
    """The specs of a checked configuration.

    Raises: ConfigError if the parts do not meet.
    """
    found, problems = chain(config)
    if found is None:
        raise ConfigError(problems)
    return found


def chain(config: Mapping[str, Any], unsound: Collection[str] = ()) -> tuple[Shapes | None, list[Problem]]:
    """Views -> encoder -> connector -> fusion, and the language model beside them, as far as they meet.

    unsound: nodes that did not pass the check against their signatures; what needs them is not looked at.
    """
    problems: list[Problem] = []

    def describe(key: str, **wired: Any) -> Any:
        if key in unsound or any(value is None for value in wired.values()):
            return None  # the part itself, or the one in front, has a problem that says why
        node = config
        for step in key.split("."):
            node = node[step]
        try:
            return _describe(key, node, wired)
        except Mismatch as error:
            own = error.argument in node
            problems.append(Problem(f"{key}.{error.argument}" if own else key, str(error)))
        except SignatureError as error:
            problems.append(Problem(f"{key}._target_", str(error)))
        return None

    views = describe("encoder.views")
    encoder = describe("encoder", views=views)
    llm = describe("llm")
    tokenizer = describe("llm.tokenizer")
    width = llm.width if llm else None
    connector = describe("connector", source=encoder, width=width)
    fusion = describe("fusion", source=connector, width=width)
    if llm is not None and tokenizer is not None and tokenizer > llm.vocabulary:
        message = f"{tokenizer} entries, but llm embeds {llm.vocabulary}; choose one size for both"
        problems.append(Problem("llm.tokenizer", message))
    if llm is None or tokenizer is None or fusion is None:
        return None, problems
    if fusion.width != llm.width:
        message = f"gives tokens of width {fusion.width}, but llm is {llm.width} wide; choose another connector or llm"
        problems.append(Problem("connector", message))
    budget = config["encoder"].get("token_budget")
    visual = views.max_views * fusion.count(views.height, views.width, budget)
    text = config["llm"]["template"]["max_tokens"]
    if visual + text > llm.positions:
        room = llm.positions - visual
        shorter = f"llm.template.max_tokens <= {room}" if room > 0 else "fewer visual tokens"
        fewer = list(_fewer(config, visual, llm.positions - text)) if text < llm.positions else []
        message = (
            f"{visual} visual tokens + {text} text tokens = {visual + text}, but llm has {llm.positions} positions; "
            f"choose {', '.join([shorter, *fewer])}, or an llm with at least {visual + text} positions"
            f"{' (llm.max_positions)' if 'max_positions' in config['llm'] else ''}"
        )
        problems.append(Problem("llm.template.max_tokens", message))
    if problems:
        return None, problems
    return Shapes(views, encoder, connector, fusion, llm, visual, tokenizer), []


def _fewer(config: Mapping[str, Any], visual: int, room: int) -> Iterator[str]:
    """The keys of this configuration that decide how many visual tokens there are, with the values that fit `room`."""
    repeat = config["connector"].get("repeat", 1)
    each = visual // repeat  # tokens before the connector repeats them
    if "repeat" in config["connector"] and each <= room:
        yield f"connector.repeat <= {room // each}"
    if "grid" in config["encoder"] and repeat <= room:
        yield f"encoder.grid <= {math.isqrt(room // repeat)}"
    if "patch" in config["encoder"] and repeat <= room:
        yield "a larger encoder.patch"


def _describe(key: str, node: Mapping[str, Any], wired: Mapping[str, Any]) -> Any:
    """Call `describe` with the node's keys, the constructor's defaults and the wired arguments."""
    signature = read(node["_target_"])
    if signature.describe is None:
        raise SignatureError(f"{signature.target} has no static method `describe` that gives its shapes")
    defaults = {name: entry.default for name, entry in signature.parameters.items() if not entry.required}
    given = {name: value for name, value in node.items() if name != "_target_" and name not in ATTACHED.get(key, ())}
    return signature.describe(**{**defaults, **given, **wired})
