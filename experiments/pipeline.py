"""Phases in order, each an ordinary training run that is found again by its id, then their scores side by side.

python -m experiments.pipeline pipeline=keural_nano
python -m experiments.pipeline pipeline=keural hardware=rtx5090 until=sft
python -m experiments.pipeline pipeline=keural_nano change.sft.phase.max_steps=110 from=sft
python -m experiments.pipeline pipeline=keural_nano seed=0,1,2 -m
"""

from __future__ import annotations

import os
import shlex
import sys
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from experiments.command import entry
from experiments.steps import PYTHON, Failed, Steps, say
from experiments.sweep import GROUP
from vlm.build import Composed
from vlm.contracts.errors import ConfigError, InputError, RunError
from vlm.contracts.pipeline import PipelineConfig
from vlm.contracts.writing import write_whole
from vlm.training.ranks import PARENT
from vlm.training.stopping import STOPPED
from vlm.wording import typed

if TYPE_CHECKING:
    from vlm.lineage import Record
    from vlm.pipeline import Plan, PlannedPhase

SAVED = "stopped; what is finished is kept, a stopped phase with its state, and the same command goes on"


@entry("pipeline", PipelineConfig)
def main(composed: Composed) -> Any:
    from vlm.lineage import Record  # NumPy is loaded once the command itself has passed its check
    from vlm.readiness import refuse

    steps = Steps()
    planned = _planned(composed, steps)
    preparations = refuse(planned)
    record = Record(planned)
    if planned.settings.dry_run:
        return _tell_plan(planned, preparations)
    record.open()
    try:
        _carry_out(planned, preparations, record, steps)
    except KeyboardInterrupt:
        say(f"\n{steps.ledger}\n{SAVED}")
        raise SystemExit(STOPPED) from None
    except Failed as failure:
        say(f"\n{steps.ledger}")
        message = f"{failure}; phases that are finished are kept, and the same command goes on"
        is_refusal = failure.code == 2 and not record.trained_here
        raise (InputError if is_refusal else RunError)(message) from failure
    finally:
        record.write()
        record.close()
    say(f"\nSeconds of this call:\n{steps.ledger}")
    print("\n".join([f"{planned.title}, seed {planned.settings.seed}", *record.lines()]))
    print(record.path, flush=True)
    state = "finished" if all(phase.is_finished for phase in planned.phases) else f"until {planned.settings.end}"
    return {"run": str(record.path), "state": state, "metric": record.metric}


def _planned(composed: Composed, steps: Steps) -> Plan:
    """The plan; if nothing but a language model's folder is missing, with the preparation that makes it."""
    from vlm.pipeline import plan
    from vlm.readiness import language_models

    try:
        return plan(composed)
    except ConfigError as error:
        settings = typed(PipelineConfig, composed.config)
        first = language_models(settings, error.problems)
        if not first or settings.dry_run:
            raise
    try:
        for words in first:
            _prepare(words, settings.paths.data, steps)
    except Failed as failure:
        raise InputError(str(failure)) from failure
    return plan(composed)


def _carry_out(planned: Plan, preparations: list[list[str]], record: Record, steps: Steps) -> None:
    """Data, phases, scores. Raises: Failed, KeyboardInterrupt, ConfigError for data that are still not there."""
    from vlm.readiness import refuse

    for words in preparations:
        _prepare(words, planned.settings.paths.data, steps)
    if preparations:
        refuse(planned)  # with the sets that have just been made
    record.write()
    for number, phase in enumerate(planned.phases, 1):
        if phase.is_finished:
            say(f"{phase.name}: finished before, {phase.folder}")
        elif phase in planned.asked:
            _train(phase, f"{phase.name} ({number} of {len(planned.phases)})", planned, record, steps)
    if planned.evaluates:
        _evaluate(planned, record, steps)


def _prepare(words: list[str], data: str, steps: Steps) -> None:
    """A set, or what another command of data_prep writes."""
    from vlm.readiness import place

    if words[0].startswith("source="):
        module, words, title = "prepare", [*words, f"paths.data={data}"], place(words)
    else:
        out = [f"out={data}/{place(words)}"] if words[0] == "forms" else []  # the others know where under VLM_DATA
        module, words, title = words[0], [*words[1:], *out], words[0]
    steps.step(f"data: {title}", f"data_prep.{module}", *words, stdout=sys.stderr, environment={"VLM_DATA": data})


def _train(phase: PlannedPhase, title: str, planned: Plan, record: Record, steps: Steps) -> None:
    # A user, or a sweep around this pipeline, may have chosen a group.
    environment = {GROUP: os.environ.get(GROUP, planned.title), PARENT: str(os.getpid())}
    try:
        steps.step(title, "experiments.train", *phase.words, stdout=sys.stderr, environment=environment)
    finally:
        if phase.status:
            record.trained_here.add(phase.name)
    if not phase.is_finished:
        raise RunError(f"{title} ended well, but {phase.folder} is not finished; the next phase would have no weights")
    record.write()


def _evaluate(planned: Plan, record: Record, steps: Steps) -> None:
    from vlm.pipeline import word

    for name, words in planned.scored.items():
        steps.step(f"scores: {name}", "experiments.evaluate", *words)
    if len(planned.scored) > 1:
        folders = [str(phase.folder) for name in planned.scored for phase in planned.phases if phase.name == name]
        with TemporaryFile("w+", encoding="utf-8") as file:
            steps.step("scores compared", "experiments.evaluate", f"compare={word(folders)}", stdout=file)
            file.seek(0)
            table = file.read()
        write_whole(record.compared, [table])
        print(table, end="", flush=True)


def _tell_plan(planned: Plan, preparations: list[list[str]]) -> None:
    for words in preparations:
        print(f"data: {' '.join(words)}")
    for phase in planned.asked:
        state = "finished before" if phase.is_finished else "to train"
        print(
            f"{phase.name}: {state}, {phase.folder}\n  {shlex.join([PYTHON, '-m', 'experiments.train', *phase.words])}"
        )


if __name__ == "__main__":
    main()
