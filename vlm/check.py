"""The whole configuration against what it will build, all mistakes at once, before anything exists.

Plain nodes are compared with typed records, nodes with a `_target_` with the signature of what they name, and the
parts with each other.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlm.contracts.errors import InputError, Problem
from vlm.contracts.parts import ADAPTER, ATTACHED, PARTS
from vlm.contracts.settings import RunConfig
from vlm.data.plan import micro_batch_of
from vlm.origins import under
from vlm.phase_check import phase_problems
from vlm.shapes import chain
from vlm.signature import UNREADABLE, SignatureError, read
from vlm.wording import did_you_mean, field_types, join, members, shown, unknown, validate

# Arguments that the assembly gives to a part; no configuration holds them.
WIRED: Mapping[str, frozenset[str]] = {
    "encoder": frozenset({"views"}),
    "connector": frozenset({"source", "width"}),
    "fusion": frozenset({"source", "width"}),
    "phase": frozenset({"model", "seed"}),
}


def check(config: Mapping[str, Any], schema: type = RunConfig) -> list[Problem]:
    """Every mistake in a composed configuration; an empty list if it can be built.

    config: plain and resolved.   schema: the dataclass of the whole; a field `dict[str, Any]` is a node with a
    `_target_`. The problems name keys; which file wrote a key, only the composer knows.
    """
    problems = [Problem(key, message) for key, message in validate(schema, config)]
    for key, node in _nodes(schema, config):
        problems += _node(key, node)
    if schema is RunConfig:
        problems += _together(config, {problem.key for problem in problems})
    return problems


def _nodes(schema: Any, config: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every node that a schema leaves to the class behind its `_target_`."""
    for name, annotation in field_types(schema).items():
        value = config.get(name)
        if isinstance(value, dict) and dict[str, Any] in members(annotation):
            yield join(at, name), value
        elif isinstance(value, dict):
            for record in filter(dataclasses.is_dataclass, members(annotation)):
                yield from _nodes(record, value, join(at, name))


def _node(key: str, node: Mapping[str, Any]) -> Iterator[Problem]:
    """A node with a `_target_` against the constructor that it names."""
    target = node.get("_target_")
    if not isinstance(target, str):
        yield Problem(f"{key}._target_", "missing; it names the class that this node builds")
        return
    try:
        signature = read(target)
    except SignatureError as error:
        yield Problem(f"{key}._target_", str(error))
        return
    wired = frozenset({"config", *signature.nodes}) if key == "model" else WIRED.get(key, frozenset())
    if alien := sorted(wired - signature.parameters.keys()):
        yield Problem(f"{key}._target_", f"{target} does not take {', '.join(alien)}, so it is no {key}")
        return
    attached = ATTACHED.get(key, ())
    own = {
        name: entry
        for name, entry in signature.parameters.items()
        if name not in wired and entry.annotation is not UNREADABLE
    }
    for name in attached:
        if isinstance(node.get(name), dict):
            yield from _node(f"{key}.{name}", node[name])
        else:
            given = f"{shown(node[name])} is given, but it" if name in node else "missing; it"
            yield Problem(f"{key}.{name}", f"{given} must be a node with a `_target_`")
    for name, value in node.items():
        if name in own:
            yield from (Problem(*found) for found in validate(own[name].annotation, value, f"{key}.{name}"))
        elif name != "_target_" and name not in attached:
            yield Problem(f"{key}.{name}", unknown(name, [*own, *attached]))
    for name, entry in own.items():
        if entry.required and name not in node:
            yield Problem(f"{key}.{name}", f"missing; {target} needs it")


def _together(config: Mapping[str, Any], wrong: set[str]) -> Iterator[Problem]:
    """What single keys cannot say: parts that meet, and settings that exclude or need each other.

    wrong: keys that have a problem already; a rule that needs one of them waits until it is mended.
    """

    def sound(*keys: str) -> bool:
        return all(_has(config, key) for key in keys) and not any(under(bad, keys) for bad in wrong)

    if not sound("model"):
        return
    model = read(config["model"]["_target_"])
    missing = [name for name in model.nodes if config.get(name) is None]
    yield from (Problem(name, f"missing, but the model asks for it; choose one with {name}=NAME") for name in missing)
    if missing:
        return
    nodes = [*model.nodes, *(f"{part}.{name}" for part in model.nodes for name in ATTACHED.get(part, ()))]
    found, unfit = chain(config, [node for node in nodes if not sound(node)])
    yield from unfit
    parts = _with_adapters(config, model.parts)
    if sound("name") and not re.fullmatch(r"\w[\w.-]*", str(config["name"]), re.ASCII):
        yield Problem("name", f"{config['name']!r} must be one plain folder name: letters, digits, dots, - and _")
    if sound("resume", "init_from") and config["resume"] and config["init_from"]:
        yield Problem("resume", "a run is gone on from (resume) or started from another's parts (init_from), not both")
    if sound("weights"):
        yield from _part_names("weights", config["weights"], parts)
    if sound("data.train") and not any(config["data"]["train"].values()):
        yield Problem("data.train", "no training set is left; name one, for example data=mnist")
    for use in ("train", "validate", "test"):
        if sound(f"data.{use}"):
            yield from _sets(f"data.{use}", config["data"][use], shares=use == "train")
    if sound("data.locality") and (near := config["data"]["locality"]) and near["window_mb"] < near["block_mb"]:
        message = f"{near['window_mb']} is smaller than block_mb ({near['block_mb']}); a window holds whole blocks"
        yield Problem("data.locality.window_mb", message)
    phase = config.get("phase")
    if not isinstance(phase, dict):
        return
    if sound("phase._target_"):
        needed = [name for name in read(phase["_target_"]).nodes if name not in model.nodes]
        for name in needed:
            message = f"it trains models with the part {name}, and this one has {', '.join(model.nodes)}"
            yield Problem("phase", f"{message}; choose another phase=NAME or model=NAME")
        given = {name for name in model.nodes if config["init_from"] or config["weights"].get(name)}
        for name in read(phase["_target_"]).begins:
            if name in model.nodes and name not in given and "path" not in config[name]:
                message = (
                    f"this phase starts from a tuned {name}, and nothing gives one; add init_from=RUN of an sft phase"
                )
                yield Problem("init_from", message)
        yield from phase_problems(config, read(phase["_target_"]), found, sound)
    if sound("phase.max_steps", "phase.epochs") and phase["max_steps"] is None and phase["epochs"] is None:
        yield Problem("phase.max_steps", "neither phase.max_steps nor phase.epochs is given; set one")
    if sound("phase.global_batch", "hardware"):
        yield from _hardware(phase["global_batch"], config["hardware"])
    if sound("phase.trainable", "llm") and (config["llm"] or {}).get("quantize") and phase["trainable"].get("llm"):
        message = "its weights are quantized and cannot train; set it to null, and train an adapter in its place"
        yield Problem("phase.trainable.llm", message)
    if sound("phase.trainable"):
        yield from _rates("phase.trainable", phase["trainable"], parts)
        if not any(_has_rate(branch) for branch in phase["trainable"].values()):
            yield Problem("phase.trainable", "nothing would train; give a part a rate, for example {connector: 1.0e-3}")
    if sound("phase.aux", *model.nodes):
        reported = [name for part in model.nodes for name in read(config[part]["_target_"]).reports]
        for name, weight in phase.get("aux", {}).items():
            if weight is not None and name not in reported:
                near = did_you_mean(name, reported)
                message = (
                    f"no part reports this term{near or ';'} reported: {', '.join(reported) or 'none'} (null = off)"
                )
                yield Problem(f"phase.aux.{name}", message)
    if sound("phase.optimizer.clip_each"):
        yield from _part_names("phase.optimizer.clip_each", phase["optimizer"]["clip_each"], parts)


def _sets(key: str, uses: Mapping[str, Any], shares: bool) -> Iterator[Problem]:
    """Where sets lie, and how much is read of each."""
    used = {join(key, name): use for name, use in uses.items() if use is not None}
    for at, use in used.items():
        if (use.get("split") is None) == (use.get("stream") is None):
            yield Problem(at, "give either `split` (of a prepared set) or `stream` (an address of shards)")
        if use.get("stream") is not None and use.get("rows") is None:
            yield Problem(f"{at}.rows", "a stream does not tell its length; give [first, end], for example [0, 100000]")
        if use.get("share") is not None and not shares:
            yield Problem(f"{at}.share", "only training sets are mixed; leave it out")
        if use.get("share") is not None and "weight" in use:
            yield Problem(f"{at}.share", "a set has a weight or a share of all rows, not both; leave one out")
    asked = [use["share"] for use in used.values() if use.get("share") is not None]
    if shares and asked and (sum(asked) >= 1 if len(asked) < len(used) else abs(sum(asked) - 1) > 1e-6):
        needed = "below 1, to leave room for the other sets" if len(asked) < len(used) else "1"
        yield Problem(key, f"the shares sum to {sum(asked):g}, but must sum to {needed}")


def _hardware(global_batch: int, hardware: Mapping[str, Any]) -> Iterator[Problem]:
    """A profile's keys among each other, and the step that its processes share."""
    world = hardware["devices"] * hardware["nodes"]
    if world > 1 and hardware["strategy"] == "single":
        yield Problem("hardware.strategy", f"single, but {world} processes are asked for; choose ddp or fsdp2")
    if world == 1 and hardware["strategy"] != "single":
        message = f"{hardware['strategy']} needs several processes; set hardware.devices, or choose single"
        yield Problem("hardware.strategy", message)
    if hardware.get("memory_gb") is not None and hardware["accelerator"] == "cpu":
        yield Problem("hardware.memory_gb", "bounds an accelerator's memory, and this profile has none; set it to null")
    if hardware["micro_tokens"] is not None and not hardware["pack"]:
        yield Problem("hardware.micro_tokens", "counts tokens without padding; set hardware.pack=true with it")
    try:
        micro_batch_of(global_batch, hardware["micro_batch"], world)
    except InputError as error:
        yield Problem("phase.global_batch", str(error))


def _has(config: Any, key: str) -> bool:
    for step in key.split("."):
        if not isinstance(config, Mapping) or step not in config:
            return False
        config = config[step]
    return True


def _with_adapters(config: Mapping[str, Any], parts: Sequence[str]) -> tuple[str, ...]:
    """The parts that rates and weights may be given for."""
    llm = config.get("llm")
    return (*parts, ADAPTER) if isinstance(llm, Mapping) and llm.get("adapters") else tuple(parts)


def _part_names(key: str, node: Mapping[str, Any], parts: Sequence[str]) -> Iterator[Problem]:
    """A null is a part's default taken back, also where the model does not have that part."""
    for name, value in node.items():
        if name == ADAPTER and name not in parts and value is not None:
            yield Problem(join(key, name), "this model has no adapters; choose them with adapter=NAME")
        elif name not in parts and not (value is None and name in (*PARTS, ADAPTER)):
            yield Problem(join(key, name), unknown(str(name), parts))


def _rates(key: str, tree: Mapping[Any, Any], parts: Sequence[str] | None = None) -> Iterator[Problem]:
    """A tree of rates: a part's name, then names of modules inside it; null freezes."""
    if parts is not None:
        yield from _part_names(key, tree, parts)
    for name, branch in tree.items():
        if isinstance(branch, Mapping):
            yield from _rates(join(key, name), branch)
        elif branch is not None and not _is_rate(branch):
            message = "it must be a rate > 0, null (frozen), or a mapping from names inside it to rates"
            yield Problem(join(key, name), f"{shown(branch)} is given, but {message}")


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and math.isfinite(value)


def _has_rate(branch: Any) -> bool:
    return any(map(_has_rate, branch.values())) if isinstance(branch, Mapping) else branch is not None
