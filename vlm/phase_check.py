"""What single keys of a phase cannot say: what it trains, what it draws, and what it holds a run to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vlm.contracts.errors import Mismatch, Problem
from vlm.contracts.parts import ADAPTER, paths
from vlm.contracts.vision import FixedCount
from vlm.shapes import Shapes
from vlm.signature import Signature
from vlm.wording import unknown


def phase_problems(
    config: Mapping[str, Any], signature: Signature, shapes: Shapes | None, sound: Callable[..., bool]
) -> Iterator[Problem]:
    """sound: whether keys are there and have no problem of their own.   shapes: None where the parts do not meet."""
    phase = config["phase"]
    stack: list[str] = list((config.get("llm") or {}).get("adapters") or ())
    if sound("phase.trainable", "llm.adapters") and stack:
        yield from _adapters(phase["trainable"], stack)
    if signature.pairs and phase.get("reference") == "adapter" and sound("phase.trainable") and stack:
        yield from _uppermost(phase["trainable"], stack[-1])
    if sound("phase.guards", "data.validate") and not any(config["data"]["validate"].values()):
        for name in ("chosen_drift", "score"):
            if phase["guards"].get(name) is not None:
                yield Problem(
                    f"phase.guards.{name}", "data.validate names no set to guard it on; name one, or set this to null"
                )
    if sound("phase.schedule", "phase.trainable"):
        yield from _ends(phase["schedule"], paths(phase["trainable"]))
    if sound("phase.loss"):
        yield from _loss(phase["loss"], config["model"])
        if phase["loss"]["name"] == "clip" and sound("phase.global_batch") and phase["global_batch"] < 2:
            yield Problem("phase.global_batch", "one pair has nothing to be compared with; give 2 or more")
    if sound("phase.budgets", "phase.budget_shares"):
        yield from _budgets(phase["budgets"], phase["budget_shares"], shapes)
    if (
        not any(name == "llm" for name in signature.nodes)
        and sound("data.test")
        and any(config["data"]["test"].values())
    ):
        yield Problem("data.test", "this phase reads no test set; score the finished model with experiments.evaluate")


def _adapters(tree: Mapping[str, Any], stack: list[str]) -> Iterator[Problem]:
    branch = tree.get(ADAPTER)
    for name in branch if isinstance(branch, Mapping) else ():
        if name not in stack:
            yield Problem(f"phase.trainable.{ADAPTER}.{name}", unknown(str(name), stack))


def _uppermost(tree: Mapping[str, Any], uppermost: str) -> Iterator[Problem]:
    """The reference is the model without its uppermost adapter, so nothing else may move."""
    remedy = f"set it to null, and give a rate to {ADAPTER}.{uppermost}"
    for part, branch in tree.items():
        if part != ADAPTER and branch is not None:
            yield Problem(f"phase.trainable.{part}", f"preference tuning trains the uppermost adapter alone; {remedy}")
        for name, rate in branch.items() if part == ADAPTER and isinstance(branch, Mapping) else ():
            if name != uppermost and rate is not None:
                yield Problem(f"phase.trainable.{part}.{name}", f"the reference is made of it; {remedy}")


def _ends(schedule: Mapping[str, Any], rates: Mapping[str, float | None]) -> Iterator[Problem]:
    for path, rate in paths(schedule.get("ends", {})).items():
        key = f"phase.schedule.ends.{path}"
        if not isinstance(rate, int | float) or rate < 0:
            yield Problem(key, f"{rate!r} is no rate; give a number from 0 on")
        elif rates.get(path) is None:
            trained = [name for name, value in rates.items() if value is not None]
            yield Problem(key, f"phase.trainable gives this path no rate; those with one are {', '.join(trained)}")
        elif schedule["name"] == "constant":
            yield Problem(key, "phase.schedule.name is constant, which ends where it begins; choose cosine or linear")


def _loss(loss: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[Problem]:
    if loss["name"] == "siglip" and model.get("bias") is None:
        yield Problem("model.bias", "null, but phase.loss.name is siglip, which learns one; set it to -10.0")
    if loss["name"] == "clip" and model.get("bias") is not None:
        yield Problem("model.bias", "is given, but phase.loss.name is clip, which has none; set it to null")
    if "changed_weight" in loss and (loss["name"] == "ddpo") != (loss["changed_weight"] is not None):
        message = "5.0 is RLHF-V's" if loss["name"] == "ddpo" else "it is of ddpo alone; set it to null"
        yield Problem("phase.loss.changed_weight", message)


def _budgets(budgets: list[int], shares: list[float], shapes: Shapes | None) -> Iterator[Problem]:
    if len(budgets) != len(shares):
        yield Problem("phase.budget_shares", f"{len(shares)} shares for {len(budgets)} budgets; give one for each")
    elif budgets and abs(sum(shares) - 1) > 1e-6:
        yield Problem("phase.budget_shares", f"they sum to {sum(shares):g}, but must sum to 1")
    if shapes is None or not budgets:
        return
    if isinstance(shapes.encoder.count, FixedCount):
        message = (
            f"this encoder always gives {shapes.encoder.count.tokens} tokens; leave budgets and budget_shares empty"
        )
        yield Problem("phase.budgets", message)
        return
    for budget in budgets:
        try:
            shapes.encoder.count(shapes.views.height, shapes.views.width, budget)
        except Mismatch as error:
            yield Problem("phase.budgets", str(error))
