"""Which curves a system's runs get: those that are usual for what they train on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from vlm.reporting.curves import Curve, Kind, draw, group_curve, positive
from vlm.reporting.groups import Group

BUDGET = "val/retrieval_r1_"  # and a token budget


@dataclass(frozen=True)
class Line:
    """A metric of a figure. style: of the style sheet."""

    metric: str
    label: str
    style: int
    kind: Kind = ""


@dataclass(frozen=True)
class Plan:
    """A figure. lines: one, drawn for each group, or several, and then each group has a figure of its own.

    zero: the axis holds 0.   log: only what is above 0 is drawn, as the values span many powers of ten.   note: below it.
    limits: whether the guards of the run are drawn.
    """

    heading: str
    lines: tuple[Line, ...]
    zero: bool = False
    log: bool = False
    note: str = ""
    limits: bool = False


@dataclass(frozen=True)
class Figure:
    """A drawn figure. legend: what its lines are, where they are not groups."""

    heading: str
    drawing: Markup
    legend: tuple[Line, ...] = ()
    note: str = ""


def _both(metric: str, name: str = "", style: int = 0) -> tuple[Line, Line]:
    """Training and held-out values of one metric."""
    begin = f"{name}, " if name else ""
    return (
        Line(f"train/{metric}", f"{begin}training", style, "training"),
        Line(f"val/{metric}", f"{begin}held-out", style, "held-out"),
    )


LANGUAGE = (
    Plan("Training loss, nats a token", (Line("train/loss", "", 0),)),
    Plan("Validation loss, nats a token", (Line("val/loss", "", 0),)),
    Plan("Vision gain, nats a token", (Line("val/vision_gain", "", 0),), zero=True),
    Plan("Exact answers on validation pictures", (Line("val/exact_match", "", 0),)),
    Plan("Exact answers on test pictures", (Line("test/exact_match", "", 0),)),
)
PREFERENCE = (
    Plan(
        "Loss of a pair",
        _both("loss"),
        note="The preference loss and, where it has a weight, the weighted loss of the chosen answer alone.",
    ),
    Plan(
        "Reward accuracy",
        _both("reward_accuracy"),
        note="Pairs whose chosen answer gained more than the rejected one: none at step 0, where both models are equal.",
    ),
    Plan("Reward margin, nats times β", _both("reward_margin"), zero=True),
    Plan(
        "Drift from the reference, nats an answer",
        (*_both("chosen_drift", "chosen", 2), *_both("rejected_drift", "rejected", 1)),
        zero=True,
        limits=True,
    ),
    Plan(
        "KL from the reference, nats a token",
        _both("kl"),
        log=True,
        note="An estimate over the answers of the pairs, not over those of the model; exact zeros are left out.",
    ),
)
CONTRASTIVE_LOSS = Plan("Loss, nats a pair", _both("loss"))
TEMPERATURE = Plan("Temperature of the similarities", (Line("train/temperature", "", 0),))


def figures(system: str, groups: Sequence[Group]) -> Iterator[Figure]:
    """A figure for each plan of which something was logged."""
    names = {name for group in groups for run in group.counted for row in run.rows for name in row}
    for number, plan in enumerate([*_plans(names), *_watched(groups)]):
        identity = f"{system}-{number}".replace("/", "-").replace(" ", "-")
        if len(plan.lines) == 1:
            curves = [_curve(group, plan.lines[0], plan, style) for style, group in enumerate(groups)]
            yield from _drawn(system, plan, [curve for curve in curves if curve], identity)
            continue
        for place, group in enumerate(groups):
            own = plan if len(groups) == 1 else replace(plan, heading=f"{plan.heading} · {group.label}")
            curves = {line: _curve(group, line, plan, line.style) for line in plan.lines}
            drawn = [replace(curve, label=line.label) for line, curve in curves.items() if curve]
            legend = tuple(line for line, curve in curves.items() if curve)
            limits = _limits(group) if plan.limits else []
            yield from _drawn(system, own, drawn, f"{identity}-{place}", legend, limits)


def guards(groups: Sequence[Group]) -> list[str]:
    """In words: when the preference runs of these groups stop by themselves; one sentence a setting."""
    found = []
    for group in groups:
        settings = _guards(group)
        if settings is None:
            continue
        words = []
        if settings.get("chosen_drift") is not None:
            words.append(f"the held-out chosen answers lose more than {settings['chosen_drift']:g} nats each")
        if settings.get("score") is not None:
            words.append(f"{settings['score']} falls more than {settings.get('score_drop', 0):g} below its first value")
        found.append(f"Guards stop the run if {' or if '.join(words)}." if words else "No guard stops these runs.")
    return list(dict.fromkeys(found))


def _plans(names: set[str]) -> list[Plan]:
    """By what was logged, which a run without a readable configuration has, too."""
    if names & {"train/reward_margin", "val/reward_margin"}:
        return list(PREFERENCE)
    if names & {"val/retrieval_r1", "train/temperature"}:
        budgets = sorted(int(name.removeprefix(BUDGET)) for name in names if name.removeprefix(BUDGET).isdecimal())
        by_budget = [
            Line(f"{BUDGET}{budget}", f"{budget} tokens", style, "held-out") for style, budget in enumerate(budgets)
        ]
        lines = by_budget or [Line("val/retrieval_r1", "R@1", 0, "held-out")]
        chance = Line("val/chance_r1", "chance", 5, "training")
        note = "Held-out pairs in galleries of 64, both directions."
        return [CONTRASTIVE_LOSS, Plan("Retrieval, R@1", (*lines, chance), zero=True, note=note), TEMPERATURE]
    return list(LANGUAGE)


def _watched(groups: Sequence[Group]) -> list[Plan]:
    """Benchmarks that were scored at the validations."""
    named = [name for group in groups for name in group.runs[0].config.get("benchmarks") or ()]
    return [Plan(f"Held-out score, {name}", (Line(f"val/{name}", "", 0),)) for name in dict.fromkeys(named)]


def _curve(group: Group, line: Line, plan: Plan, style: int) -> Curve | None:
    found = group_curve(group, line.metric, style)
    if found is None:
        return None
    found = replace(found, kind=line.kind)
    return positive(found) if plan.log else found


def _drawn(
    system: str,
    plan: Plan,
    curves: Sequence[Curve],
    identity: str,
    legend: tuple[Line, ...] = (),
    limits: Sequence[tuple[float, str]] = (),
) -> Iterator[Figure]:
    if curves:
        # The drawing is XML built from escaped parts.
        drawing = Markup(draw(curves, f"{system}: {plan.heading.lower()}", identity, plan.zero, limits))
        yield Figure(plan.heading, drawing, legend, plan.note)


def _guards(group: Group) -> Mapping | None:
    phase = group.runs[0].config.get("phase")
    found = phase.get("guards") if isinstance(phase, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _limits(group: Group) -> list[tuple[float, str]]:
    limit = (_guards(group) or {}).get("chosen_drift")
    return [(-float(limit), "guard: chosen")] if isinstance(limit, int | float) else []
