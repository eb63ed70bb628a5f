"""What a phase takes from the model of an earlier one, held against that model before either is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vlm.contracts.errors import Problem
from vlm.contracts.parts import ADAPTER, ATTACHED
from vlm.pipeline import PlannedPhase
from vlm.shapes import shapes
from vlm.signature import read
from vlm.wording import shown

if TYPE_CHECKING:
    from torch import Tensor

# Keys of a part that never decide its tensors' shapes: how it is loaded, what is put around it, a call's argument.
UNSHAPED = ("adapters", "quantize", "token_budget")
TOLD = 3  # tensors of a part that are named


def misfits(phase: PlannedPhase, phases: Mapping[str, PlannedPhase]) -> Iterator[Problem]:
    """Parts and adapters that an earlier phase's model will not fill.

    phases: of the pipeline by name. Weights that come from elsewhere are looked at when the phase starts. Only where two
    parts are described differently are they built, without memory, and compared: most keys decide no shape.
    """
    told = False
    for name in read(phase.config["model"]["_target_"]).parts:
        key, source = _source(phase, name, phases)
        if source is None:
            continue
        for problem in _part(phase, name, key, source, told):
            told = True
            yield problem
    yield from _adapters(phase, *_source(phase, ADAPTER, phases))


def _source(phase: PlannedPhase, name: str, phases: Mapping[str, PlannedPhase]) -> tuple[str, PlannedPhase | None]:
    """The key that gives a part, and the earlier phase that it names; None for another folder, or for nothing."""
    key = f"weights.{name}" if phase.config["weights"].get(name) is not None else "init_from"
    given = phase.given.get(key)
    return key, None if given is None else phases[given]


def _part(phase: PlannedPhase, name: str, key: str, source: PlannedPhase, told: bool) -> Iterator[Problem]:
    """told: whether an earlier part has a problem, of which this one's neighbours may be the echo."""
    where = f"{key}={source.name}"
    if name not in read(source.config["model"]["_target_"]).parts:
        if _tensors(phase.config, name):
            message = f"{where} gives no {name}, as its model has none; name the parts that it has, with weights.PART"
            yield Problem(f"phase {phase.name}: {name}", message)
        return
    ours, theirs = _description(phase.config, name), _description(source.config, name)
    differing = [entry for entry in (*ours, *(theirs.keys() - ours.keys())) if ours.get(entry) != theirs.get(entry)]
    own = [entry for entry in differing if entry in _keys(phase.config, name) | _keys(source.config, name)]
    if not differing or (told and not own):
        return
    faults = _faults(phase.config, source.config, name)
    if not faults:
        return
    listing = ", ".join(
        f"{entry} is {shown(ours.get(entry))} here and {shown(theirs.get(entry))} there" for entry in differing
    )
    first = (own or differing)[0]
    remedy = f", for example change.{phase.name}.{first}={shown(theirs[first])}" if own and first in theirs else ""
    message = (
        f"the {name} of phase {source.name}, with which this phase begins ({where}), has other shapes: {listing} "
        f"({'; '.join(faults)}); give both phases the same{remedy}"
    )
    yield Problem(f"phase {phase.name}: {first}", message)


def _keys(config: Mapping[str, Any], name: str) -> set[str]:
    """The keys of a part's own node by which it may be another one."""
    home = _home(config, name)
    return {f"{home}.{key}" for key in config[home] if key not in (*UNSHAPED, *ATTACHED.get(name, ()))}


def _home(config: Mapping[str, Any], name: str) -> str:
    """The node that a part is made from; what the model adds to them comes from its own."""
    return name if config.get(name) is not None else "model"


def _description(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a part's shapes can depend on: its own keys, and what it is told of its neighbours."""
    home, found = _home(config, name), shapes(config)
    described = {key: config[home][key.removeprefix(f"{home}.")] for key in sorted(_keys(config, name))}
    views = [found.views.channels, found.views.height, found.views.width]
    if name == "encoder":
        return described | {"encoder.views": views}
    if name in ("llm", "text"):
        return described
    return described | {
        "the width of the encoder's tokens": found.encoder.width,
        "the number of their levels": found.encoder.levels,
        "the width of what reads the text": found.reader.width,
    }


def _faults(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> list[str]:
    from vlm.training.tensors import differences  # torch is loaded only where descriptions differ

    wanted = _tensors(ours, name)
    found = differences(wanted, _tensors(theirs, name)) if wanted else []
    return [*found[:TOLD], *([f"and {len(found) - TOLD} more"] if len(found) > TOLD else [])]


def _tensors(config: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """A part's tensors as shapes alone."""
    import torch

    from vlm.models.assemble import assemble, create
    from vlm.training.tensors import own_tensors

    found = shapes(config)
    wired = {
        "encoder": {"views": found.views},
        "connector": {"source": found.encoder, "width": found.reader.width},
        "fusion": {"source": found.connector, "width": found.reader.width},
    }
    with torch.device("meta"):
        if _home(config, name) == "model":
            return own_tensors(getattr(assemble(config, found.views), name))
        left = ("adapters", "quantize", *ATTACHED.get(name, ()))
        node = {key: value for key, value in config[name].items() if key not in left}
        return own_tensors(create(node, **wired.get(name, {})))


def _adapters(phase: PlannedPhase, key: str, source: PlannedPhase | None) -> Iterator[Problem]:
    """Adapters go by their name: what a model brings must be there with the same sizes, the others must be trained."""
    if source is None:
        return
    ours, theirs = ((one.config.get("llm") or {}).get("adapters") or {} for one in (phase, source))
    where = f"{key}={source.name}"
    for name in theirs.keys() - ours.keys():
        message = (
            f"the model of {where} has this adapter, and here it would be lost; choose adapter=NAME that has it, too"
        )
        yield Problem(f"phase {phase.name}: llm.adapters.{name}", message)
    for name, settings in ours.items():
        at = f"phase {phase.name}: llm.adapters.{name}"
        if name not in theirs and not _trains(phase.config["phase"]["trainable"].get(ADAPTER), name):
            message = (
                f"the model of {where} has no such adapter, and this phase does not train it, so it would do nothing"
            )
            yield Problem(at, f"{message}; train it in phase {source.name}, or here with phase.trainable")
        for size in ("rank", "alpha", "targets") if name in theirs else ():
            mine, other = settings[size], theirs[name][size]
            if (set(mine) != set(other)) if size == "targets" else (mine != other):
                message = f"{shown(mine)} is given, but phase {source.name}, from which it comes ({where}), has {shown(other)}"
                yield Problem(f"{at}.{size}", f"{message}; give both phases the same")


def _trains(branch: Any, name: str) -> bool:
    """Whether a tree of rates trains an adapter, at least in part."""
    branch = branch.get(name) if isinstance(branch, Mapping) else branch
    return any(_trains(inner, name) for inner in branch.values()) if isinstance(branch, Mapping) else branch is not None
