"""How the parts of a model meet, found by plain arithmetic before any weight exists."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vlm.contracts.errors import ConfigError, Mismatch, Problem
from vlm.contracts.language import LanguageSpec
from vlm.contracts.parts import ATTACHED, READERS
from vlm.contracts.vision import ViewSpec, VisionSpec
from vlm.signature import SignatureError, read


@dataclass(frozen=True)
class Shapes:
    """What each part gives to the next; None of a part that the model does not have.

    visual_tokens: of one picture in the text, all its views together.   tokenizer_size: entries.
    """

    views: ViewSpec
    encoder: VisionSpec
    reader: LanguageSpec
    connector: VisionSpec | None
    fusion: VisionSpec | None
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
    """Views -> encoder -> connector -> fusion, and beside them what reads text, as far as they meet.

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

    nodes = read(config["model"]["_target_"]).nodes
    name = next(name for name in READERS if name in nodes)
    views = describe("encoder.views")
    encoder = describe("encoder", views=views)
    reader = describe(name)
    tokenizer = describe(f"{name}.tokenizer")
    width = reader.width if reader else None
    connector = describe("connector", source=encoder, width=width) if "connector" in nodes else None
    fusion = describe("fusion", source=connector, width=width) if "fusion" in nodes else None
    if reader is not None and tokenizer is not None and tokenizer > reader.vocabulary:
        message = f"{tokenizer} entries, but {name} embeds {reader.vocabulary}; choose one size for both"
        problems.append(Problem(f"{name}.tokenizer", message))
    if reader is None or tokenizer is None or encoder is None or ("fusion" in nodes and fusion is None):
        return None, problems
    if fusion is not None and fusion.width != reader.width:
        message = (
            f"gives tokens of width {fusion.width}, but llm is {reader.width} wide; choose another connector or llm"
        )
        problems.append(Problem("connector", message))
    visual = 0
    try:
        budget = config["encoder"].get("token_budget")
        visual = views.slots * fusion.count(views.height, views.width, budget) if fusion is not None else 0
        problems += _room(config, name, reader, visual, views, encoder)
    except Mismatch as error:
        problems.append(Problem(f"encoder.{error.argument}", str(error)))
    if problems:
        return None, problems
    return Shapes(views, encoder, reader, connector, fusion, visual, tokenizer), []


def _room(
    config: Mapping[str, Any], name: str, reader: LanguageSpec, visual: int, views: ViewSpec, encoder: VisionSpec
) -> Iterator[Problem]:
    """Whether pictures and text fit into the positions of what reads them."""
    text = config[name]["template"]["max_tokens"]
    if visual + text <= reader.positions:
        return
    room = reader.positions - visual
    shorter = f"{name}.template.max_tokens <= {room}" if room > 1 else "fewer visual tokens"
    fewer = list(_fewer(config, visual, reader.positions - text, views, encoder)) if visual else []
    message = (
        f"{visual} visual tokens + {text} text tokens = {visual + text}, but {name} has {reader.positions} positions; "
        f"choose {', '.join([shorter, *fewer])}, or {'an llm' if name == 'llm' else 'a text tower'} with at least "
        f"{visual + text} positions{f' ({name}.max_positions)' if 'max_positions' in config[name] else ''}"
    )
    yield Problem(f"{name}.template.max_tokens", message)


def _fewer(config: Mapping[str, Any], visual: int, room: int, views: ViewSpec, encoder: VisionSpec) -> Iterator[str]:
    """The keys of this configuration that decide how many visual tokens there are, with legal values that fit `room`."""
    repeat = config["connector"].get("repeat", 1)
    each = visual // repeat  # tokens before the connector repeats them
    if "repeat" in config["connector"] and each <= room:
        yield f"connector.repeat <= {room // each}"
    most = room // (repeat * views.slots)  # tokens of a view
    if "token_budget" in config["encoder"]:
        fitting = (budget for budget in range(most, 0, -1) if _is_legal(encoder, views, budget))
        yield from (f"encoder.token_budget={budget}" for budget in islice(fitting, 1))
    if "grid" in config["encoder"] and most > 0:
        yield f"encoder.grid <= {math.isqrt(most)}"
    if "patch" in config["encoder"]:
        sides = range(config["encoder"]["patch"] + 1, math.gcd(views.height, views.width) + 1)
        whole = (side for side in sides if views.height % side == views.width % side == 0)
        fitting = (side for side in whole if views.height * views.width <= most * side**2)
        yield from (f"encoder.patch={side}" for side in islice(fitting, 1))


def _is_legal(encoder: VisionSpec, views: ViewSpec, budget: int) -> bool:
    try:
        encoder.count(views.height, views.width, budget)
    except Mismatch:
        return False
    return True


def _describe(key: str, node: Mapping[str, Any], wired: Mapping[str, Any]) -> Any:
    """Call `describe` with the node's keys, the constructor's defaults and the wired arguments."""
    signature = read(node["_target_"])
    if signature.describe is None:
        raise SignatureError(f"{signature.target} has no static method `describe` that gives its shapes")
    defaults = {name: entry.default for name, entry in signature.parameters.items() if not entry.required}
    given = {name: value for name, value in node.items() if name != "_target_" and name not in ATTACHED.get(key, ())}
    return signature.describe(**{**defaults, **given, **wired})
