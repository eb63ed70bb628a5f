"""The evaluation command: a model asked, saved predictions scored again, or models compared."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from vlm.benchmarks import benchmark_settings, prepared_benchmark
from vlm.build import Composed
from vlm.contracts.errors import InputError, Mismatch, RunError
from vlm.contracts.places import config_dir
from vlm.contracts.settings import EvaluateConfig
from vlm.contracts.vision import refuse_budget
from vlm.evaluation import records
from vlm.evaluation.compare import compared, folder_of
from vlm.evaluation.contamination import Training
from vlm.evaluation.fingerprint import weights_fingerprint
from vlm.evaluation.prepared import Prepared
from vlm.evaluation.runner import Asking, Task
from vlm.evaluation.tables import tables
from vlm.evaluation.text import table
from vlm.parallel import in_parts
from vlm.reporting.evaluation import write_results
from vlm.reporting.evaluation_compare import comparison_table
from vlm.reporting.evaluation_worst import MOST, worst
from vlm.training.log import WandbMirror
from vlm.training.stopping import STOPPED

if TYPE_CHECKING:
    from vlm.evaluation.recognised import Recognised
    from vlm.interop.harness_results import Prediction

log = logging.getLogger(__name__)
WAYS = ("model", "rescore", "compare")
NO_PROMPT = "this model's template shows no prompt (llm.template.prompt): it sees the pictures, and no question"
BELONGS: dict[str, tuple[Any, tuple[str, ...]]] = {  # key -> its default, and the ways that read it
    "benchmarks": (None, ("model",)),
    "change": ({}, ("model", "rescore")),
    "limit": (None, ("model", "rescore")),
    "decoding": (None, ("model",)),
    "ocr": ("none", ("model",)),
    "controls": (None, ("model",)),
    "missing": ("refuse", ("rescore",)),
    "token_budget": (None, ("model",)),
    "device": (None, ("model",)),
    "processes": (1, ("model",)),
    "part": (None, ("model",)),
    "out": (None, ("model", "compare")),
}


def evaluate(composed: Composed) -> None:
    """Carry out one evaluation; prints a table and the path of results.html.

    Raises: ConfigError, InputError before anything is answered; RunError with the answers kept; SystemExit(75) on
    request, with them kept too.
    """
    config = TypeAdapter(EvaluateConfig).validate_json(json.dumps(composed.config))
    _refuse_idle(config)
    if config.rescore is not None:
        _rescore(Path(config.rescore), config)
    elif config.compare is not None:
        _compare([Path(name) for name in config.compare], config)
    else:
        _model(composed, config)


def _refuse_idle(config: EvaluateConfig) -> None:
    """What is asked must be one thing, and nothing may be given that it does not read."""
    given = [name for name in WAYS if getattr(config, name) is not None]
    if len(given) != 1:
        raise InputError(
            f"{' and '.join(given) or 'nothing'} to work on; give one of model=RUN_OR_FOLDER, rescore=FILE, compare=[A,B]"
        )
    idle = [key for key, (default, ways) in BELONGS.items() if given[0] not in ways and getattr(config, key) != default]
    if idle:
        raise InputError(f"{', '.join(idle)} means nothing to {given[0]}=; leave it out")
    if config.suite.benchmarks and (config.benchmarks is not None or given[0] != "model"):
        raise InputError(
            f"suite: {'benchmarks are named too' if config.benchmarks else f'not read by {given[0]}='}; leave one out"
        )
    if config.part is not None and config.processes > 1:
        raise InputError("processes: a part is one process; leave part or processes out")


def _benchmarks(config: EvaluateConfig) -> list[Prepared]:
    names = config.benchmarks if config.benchmarks is not None else config.suite.benchmarks
    if not names:
        suites = ", ".join(sorted(path.stem for path in (config_dir() / "suite").glob("*.yaml") if path.stem != "none"))
        raise InputError(f"nothing is to be scored; give suite=NAME ({suites}) or benchmarks=[NAME,...]")
    if alien := sorted(set(config.change) - set(names)):
        raise InputError(f"change: {', '.join(alien)} is not scored here; scored are {', '.join(names)}")
    if len(set(names)) < len(names):
        raise InputError(f"benchmarks: {', '.join(names)}: name each once")
    changes: dict[str, Any] = {}
    if config.decoding is not None:
        changes["decoding"] = config.decoding
    if config.controls is not None:
        changes["controls"] = config.controls
    return [prepared_benchmark(name, {**changes, **config.change.get(name, {})}, config.paths.data) for name in names]


def _model(composed: Composed, config: EvaluateConfig) -> None:
    from vlm.training.weights import model_folder

    model = model_folder(str(config.model))
    out = Path(config.out) if config.out else _beside(model) / "evaluation"
    part, parts = _part(config.part)
    speaks, inline, note = _language(model)
    if not speaks and config.ocr != "none":
        raise InputError("ocr: text stands in a prompt, and this model reads none: it compares pictures with texts")
    asking = Asking(
        model=str(config.model),
        weights=weights_fingerprint(model),
        data=Path(config.paths.data),
        limit=config.limit or config.suite.limit,
        seed=config.seed,
        shifts=config.shifts,
        token_budget=config.token_budget,
        speaks=speaks,
        inline=inline,
        note=note,
        recognised=None if config.ocr == "none" else _recognised(config.ocr, out, part),
        part=part,
        parts=parts,
    )
    tasks = _tasks(_benchmarks(config), asking, out)
    _refuse_folder(out)
    device = _device(config)
    try:
        if config.processes > 1:
            in_parts(composed.overrides, config.processes)
        _answer(tasks, model, config, device)
        if config.part is not None:
            log.info("part %s is answered; the same command without part= scores them all", config.part)
            return
        entries = _scored(tasks, Training(model, Path(config.paths.data)), out, asking.weights)
    except KeyboardInterrupt:
        log.info("stopped; what was answered is kept in %s, and the same command goes on", out / "sheets")
        raise SystemExit(STOPPED) from None
    own = {task.sheet.id for task in tasks}
    _tell([entry for entry in entries if entry["settings"]["id"] in own], out / records.PREDICTIONS)
    names = [task.settings.name for task in tasks]
    identity = {"name": "evaluation", "model": str(config.model), "benchmarks": names}
    run = f"{model.resolve().parent.name}-{asking.weights}"
    mirror = WandbMirror(config.logging, out, run, "evaluation", names, identity)
    mirror.tables(tables(out, entries))
    mirror.finish(failed=False)


def _scored(tasks: Sequence[Task], training: Training, out: Path, weights: str) -> list[dict[str, Any]]:
    """Raises: RunError for whatever goes wrong once all is answered."""
    try:
        for task in tasks:
            log.info("scoring %s", task.settings.name)
            task.score(training)
            lines = records.read_lines(task.sheet.path / records.PREDICTIONS)
            task.keep_pictures(worst(lines, MOST, task.settings.split_by))
        return records.compose(out, weights)
    except InputError as error:
        raise RunError(
            f"everything is answered and kept, but cannot be scored: {error}; the same command goes on"
        ) from error


def _refuse_folder(out: Path) -> None:
    """Raises: InputError for a folder that cannot be written, before anything is asked."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(
            f"out: {out} cannot be written: {error.strerror or error}; name another folder with out=DIR"
        ) from error


def _device(config: EvaluateConfig) -> str:
    import torch

    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda, but torch sees no CUDA device; leave device out")
    if device == "cuda" and config.part is not None:  # parts on one machine take its devices in turn
        return f"cuda:{_part(config.part)[0] % torch.cuda.device_count()}"
    return device


def _language(model: Path) -> tuple[bool, bool, str | None]:
    """Whether it speaks, whether its template can put a picture inside a text, and what is to be said of that.

    Of a model's configuration, without its weights.
    """
    from vlm.library import read_config

    config = read_config(model)
    if config.get("llm") is None:
        return False, False, None
    template = config["llm"]["template"]
    module, _, name = template["_target_"].rpartition(".")
    return True, getattr(import_module(module), name).inline, None if template.get("prompt", True) else NO_PROMPT


def _tasks(benchmarks: Sequence[Prepared], asking: Asking, out: Path) -> list[Task]:
    """Every benchmark with its files read. Raises: InputError naming all that cannot be, before anything starts."""
    tasks, faults = [], []
    for prepared in benchmarks:
        log.info("reading %s", prepared.settings.name)
        try:
            tasks.append(Task(prepared, asking, out))
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    return tasks


def _recognised(name: str, out: Path, part: int) -> Recognised:
    from vlm.evaluation.recognised import Recognised  # an engine is loaded only if it is asked for

    return Recognised(name, out / "sheets" / f"recognised-{part}.jsonl")


def _answer(tasks: Sequence[Task], model: Path, config: EvaluateConfig, device: str) -> None:
    """Ask what has no answer yet; a model is loaded only if there is such a question."""
    left = [task for task in tasks if not task.is_answered]
    if not left:
        return
    import torch

    from vlm.evaluation.answerers import answerer
    from vlm.library import load_model

    torch.manual_seed(config.seed)
    loaded = load_model(model)
    _refuse_model(loaded, config.token_budget)
    loaded.to(device)
    for task in left:
        task.answer(answerer(loaded, task.settings, config.batch, config.token_budget, config.seed))


def _refuse_model(model: Any, token_budget: int | None) -> None:
    """Raises: InputError, for a budget that its encoder cannot have with the nearest ones that it can."""
    broken = [name for name, tensor in model.named_parameters() if not bool(tensor.isfinite().all())]
    if broken:
        raise InputError(
            f"model: {', '.join(broken[:5])}: weights that are not finite; its training has failed, or the file is damaged"
        )
    try:
        refuse_budget(model.encoder.spec.count, model.processor.views.spec, token_budget)
    except Mismatch as error:
        raise InputError(f"token_budget={token_budget}: {error}") from error


def _rescore(file: Path, config: EvaluateConfig) -> None:
    """results.json and results.html beside the predictions, which may be a file of another harness."""
    file = _as_ours(file)
    for name, change in config.change.items():
        benchmark_settings(name, change)

    def prepared(name: str) -> Prepared:
        return prepared_benchmark(name, config.change.get(name, {}), config.paths.data)

    asked = (config.limit, config.seed)
    entries = records.rescore(file, config.missing == "unparsable", prepared, asked, config.change)
    _tell(entries, file.parent / records.RESCORED)


def _compare(models: Sequence[Path], config: EvaluateConfig) -> None:
    """A table, and a page of both models' answers: compare.html in `out`, or in the evaluation folder of the last model."""
    found = compared(models)
    print(comparison_table(found))
    from vlm.beside import write_comparison  # the benchmarks' readers, which a table does without

    folder = Path(config.out) if config.out else folder_of(models[-1])
    print(write_comparison(found, Path(config.paths.data), folder / "compare.html"))


def _as_ours(file: Path) -> Path:
    """A predictions file of ours as it is; what another harness wrote becomes one, beside it."""
    if file.suffix == ".jsonl" and "_samples_" not in file.name:  # which lmms-eval calls its own
        return file
    from vlm.interop.harness_results import Figure, read_results

    found = read_results(file)
    answers = [entry for entry in found if not isinstance(entry, Figure)]
    alien = sorted({entry.origin.dataset for entry in answers if entry.origin.benchmark is None})
    if not answers or alien:
        what = f"{', '.join(alien)} is none of our benchmarks" if alien else "it holds figures, and no answers"
        raise InputError(f"rescore: {file}: {what}; nothing can be scored again")
    own = file.with_suffix(".predictions.jsonl")
    ids = [entry.question_id or entry.id for entry in answers]
    if len(set(ids)) < len(ids):  # lmms-eval's POPE counts anew in each of its three files
        ids = [entry.id for entry in answers]
    records.write_lines(own, (_line(entry, id) for entry, id in zip(answers, ids, strict=True)))
    log.info("%s: %d answers of %s, now in %s", file, len(answers), answers[0].origin.harness, own)
    return own


def _line(entry: Prediction, id: str) -> dict[str, Any]:
    origin = entry.origin
    line = {"benchmark": origin.benchmark, "id": id, "prediction": entry.prediction}
    line |= {
        "prompt": entry.prompt,
        "origin": {"harness": origin.harness, "model": origin.model, "dataset": origin.dataset},
    }
    line["origin"] |= {"differs": origin.data} if origin.data else {}
    return line if entry.reference is None else {**line, "reference": entry.reference}


def _tell(entries: Sequence[Mapping[str, Any]], predictions: Path) -> None:
    print(table(entries))
    for warning in _warnings(entries):
        print(warning, file=sys.stderr)
    print(write_results(predictions.parent, predictions))


def _warnings(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for entry in entries:
        if entry["headline"] and entry["split"] == "all":
            for warning in entry["details"]["warnings"]:
                yield f"{entry['benchmark']}: {warning}"


def _beside(model: Path) -> Path:
    """A run folder's model/ has its results beside it, any other model inside."""
    return model.parent if model.name == "model" and (model.parent / "status.json").exists() else model


def _part(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    numbers = text.split("/")
    if len(numbers) == 2 and all(number.isdecimal() for number in numbers) and int(numbers[0]) < int(numbers[1]):
        return int(numbers[0]), int(numbers[1])
    raise InputError(f"part={text}: write i/n with 0 <= i < n, for example part=0/2")
