"""The files of an evaluation folder: predictions.jsonl and results.json out of its sheets, and back for rescoring."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from vlm.contracts.benchmark import Question, Reply
from vlm.contracts.errors import InputError, RunError
from vlm.contracts.writing import write_whole
from vlm.evaluation.conditions import SEEN
from vlm.evaluation.prepared import Prepared
from vlm.evaluation.prompts import Asked
from vlm.evaluation.results import MISSING, Answered, results
from vlm.evaluation.score import scorer
from vlm.evaluation.sheets import Sheet, read_replies

PREDICTIONS, RESULTS, QUESTIONS = "predictions.jsonl", "results.json", "questions.jsonl"
SCORED, PICTURES = "results.json", "pictures.json"  # of one sheet
RESCORED = "rescored.jsonl"  # a predictions file as it was read anew
SHOWN = "pictures.jsonl"  # of the folder: which errors have a picture
Subset = tuple[int | None, int]  # limit and seed
NEEDED = ("benchmark", "id", "prediction")  # of a line in a predictions file


def write_questions(sheet: Sheet, questions: Sequence[Question], asked: Sequence[Asked]) -> None:
    """What was asked, so that scoring and rescoring need neither the model nor the benchmark's files."""
    lines = (
        {"id": question.id, "group": question.group, "prompt": one.prompt, "reference": question.reference}
        for question, one in zip(questions, asked, strict=True)
    )
    write_lines(sheet.path / QUESTIONS, lines)


def answered(path: Path) -> Answered:
    """A sheet as it lies on the disk. Raises: InputError for files that are not of a sheet."""
    settings = _object(path / "settings.json")
    rows = list(read_lines(path / QUESTIONS))
    conditions = sorted({file.name.split(".")[0] for file in path.glob("*.*of*.jsonl")})
    return Answered(
        benchmark=settings["benchmark"]["name"],
        scorer=scorer(settings["benchmark"]["scorer"]),
        variants=settings["variants"],
        split_by=settings["split_by"],
        ids=[row["id"] for row in rows],
        groups=[row["group"] for row in rows],
        references=[row["reference"] for row in rows],
        replies={condition: read_replies(path, condition) for condition in conditions},
        settings=settings,
        pictured=frozenset(row["id"] for row in rows if "<image 1>" in row["prompt"]),
    )


def write_predictions(path: Path, found: Answered) -> None:
    """The sheet's lines of predictions.jsonl: as the headline's variant reads them."""
    write_lines(path / PREDICTIONS, _lines_of(found, [row["prompt"] for row in read_lines(path / QUESTIONS)]))


def _lines_of(found: Answered, prompts: Sequence[str]) -> Iterator[dict[str, Any]]:
    for row, prompt in zip(found.scored(found.variants[0]), prompts, strict=True):
        yield {
            "benchmark": found.benchmark,
            "settings": found.settings["id"],
            "variant": found.variants[0],
            "id": row.id,
            "group": row.group,
            "prompt": prompt,
            "prediction": row.prediction,
            "parsed": row.parsed,
            "reference": row.reference,
            "score": row.score,
            "truncated": row.truncated,
            "unparsable": row.unparsable,
            "fault": found.replies[SEEN][row.id].fault,
        }


def compose(folder: Path, weights: str) -> list[dict[str, Any]]:
    """predictions.jsonl and results.json of all sheets that are scored and belong to these weights; their entries."""
    sheets = sorted(file.parent for file in (folder / "sheets").glob(f"*/{SCORED}"))
    own = [path for path in sheets if _object(path / "settings.json")["weights"] == weights]
    write_lines(folder / PREDICTIONS, (line for path in own for line in read_lines(path / PREDICTIONS)))
    write_lines(folder / SHOWN, (line for path in own for line in _shown(path)))
    entries = [entry for path in own for entry in read_entries(path / SCORED)]
    write_json(folder / RESULTS, entries)
    return entries


def _shown(path: Path) -> Iterator[dict[str, Any]]:
    settings = _object(path / "settings.json")
    for entry in read_entries(path / PICTURES):
        yield {"benchmark": settings["benchmark"]["name"], "settings": settings["id"], **entry}


def rescore(
    file: Path,
    missing_is_wrong: bool,
    prepared: Callable[[str], Prepared],
    subset: Subset = (None, 0),
    change: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Entries for a predictions file, scored anew; results.json and rescored.jsonl are written beside it.

    Beside a file of ours lie its sheets, which say which questions there are and what the controls answered. Of
    another file, lines that bring no reference are compared with the benchmark's own files. prepared: benchmark -> its
    settings and reader, changes applied.   subset: limit and seed of the questions that were asked.   change: of
    benchmarks; where a sheet says what was asked, only how answers are scored may change.
    Raises: InputError for duplicate, unknown and (unless they count as wrong) missing ids, and for lines that are none.
    """
    by_sheet: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for number, line in enumerate(read_lines(file), 1):
        absent = [key for key in NEEDED if not isinstance(line.get(key), str)]
        if absent:
            raise InputError(f"{file} line {number}: {', '.join(absent)} must be there, as text")
        by_sheet[line["benchmark"], str(line.get("settings", ""))].append(line)
    if not by_sheet:
        raise InputError(f"{file} holds no predictions")
    entries: list[dict[str, Any]] = []
    again: list[dict[str, Any]] = []
    for (benchmark, name), lines in by_sheet.items():
        place = file.parent / "sheets" / f"{benchmark}-{name}"
        if (place / QUESTIONS).is_file():
            base = _changed(answered(place), (change or {}).get(benchmark, {}), subset[0])
        else:
            base = _without_sheet(file, benchmark, lines, prepared, subset)
        replies = _replies(file, benchmark, lines, base.ids, missing_is_wrong)
        found = _results(file, replace(base, replies={**base.replies, SEEN: replies}))
        found[0]["details"]["trained_on"] = _trained_on(place, base, replies)
        entries += found
        base = replace(base, replies={SEEN: replies})
        prompts = {line["id"]: str(line.get("prompt", "")) for line in lines}
        again += _lines_of(base, [prompts.get(name, "") for name in base.ids])
    write_lines(file.parent / RESCORED, again)
    write_json(file.parent / RESULTS, entries)
    return entries


def _results(file: Path, base: Answered) -> list[dict[str, Any]]:
    """Raises: InputError for gold data that are not of the scorer's form; they come from outside."""
    try:
        return results(base)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file}: {base.benchmark}: a reference is not of the form that this benchmark's scorer takes "
            f"({type(error).__name__}: {error}); tests/fixtures/eval has examples of each"
        ) from error


def _changed(base: Answered, change: Mapping[str, Any], limit: int | None) -> Answered:
    """Raises: InputError for a change of what was asked: the answers are given already."""
    alien = sorted(set(change) - {"variants", "split_by"}) + (["limit"] if limit is not None else [])
    if alien:
        raise InputError(f"rescore: {base.benchmark}: {', '.join(alien)} cannot change once the questions are answered")
    return replace(base, **change)


def _trained_on(place: Path, base: Answered, replies: Mapping[str, Reply]) -> dict[str, Any] | None:
    """As it was told, as long as the answers are those that it was told of."""
    if not (place / SCORED).is_file():
        return None
    before = base.replies[SEEN]
    if any(before[name].prediction != reply.prediction for name, reply in replies.items()):
        return {"unknown": ["the answers have changed since the pictures were compared; evaluate the model again"]}
    return read_entries(place / SCORED)[0]["details"].get("trained_on")


def _replies(
    file: Path, benchmark: str, lines: Sequence[Mapping[str, Any]], ids: Sequence[str], missing_is_wrong: bool
) -> dict[str, Reply]:
    found: dict[str, Reply] = {}
    known = set(ids)
    unknown = [line["id"] for line in lines if line["id"] not in known]
    if unknown:
        raise InputError(f"{file}: {benchmark} has no question {_some(unknown)}; is it of another version or subset?")
    for line in lines:
        if not isinstance(line.get("truncated", False), bool) or not isinstance(line.get("group", ""), str):
            raise InputError(
                f"{file}: {benchmark} question {line['id']}: truncated must be true or false, group a text"
            )
        if line["id"] in found:
            raise InputError(f"{file}: {benchmark} question {line['id']} has several predictions; keep one")
        found[line["id"]] = Reply(line["id"], line["prediction"], bool(line.get("truncated", False)), line.get("fault"))
    missing = [name for name in ids if name not in found]
    if missing and not missing_is_wrong:
        raise InputError(
            f"{file}: {benchmark}: {len(missing)} of {len(ids)} questions have no prediction: {_some(missing)}; add them, "
            "give the limit and seed that were asked with, or count them as wrong with missing=unparsable"
        )
    return found | {name: Reply(name, "", fault=MISSING) for name in missing}


def _without_sheet(
    file: Path, benchmark: str, lines: Sequence[Mapping[str, Any]], prepared: Callable[[str], Prepared], subset: Subset
) -> Answered:
    """The questions of a file that came without its sheet: as its own lines have them, or else the benchmark's files."""
    found = prepared(benchmark)
    given = [line for line in lines if "reference" in line]
    if given and subset[0] is not None:
        raise InputError(f"rescore: {file} says by itself what was asked; leave limit out")
    if given and len(given) < len(lines):
        bare = [line["id"] for line in lines if "reference" not in line]
        raise InputError(
            f"{file}: {benchmark} {_some(bare)}: no reference, which other lines have; give it to all or none"
        )
    if given:
        first = {line["id"]: line for line in reversed(lines)}
        ids = list(dict.fromkeys(line["id"] for line in lines))
        groups = [str(first[name].get("group", name)) for name in ids]
        references = [first[name]["reference"] for name in ids]
        source = "unknown: the file came without its sheets, so nobody knows whether lines are missing"
    else:
        questions = found.questions(*subset)
        ids, groups = [question.id for question in questions], [question.group for question in questions]
        references = [question.reference for question in questions]
        source = "compared with the benchmark's own files"
    return Answered(
        benchmark=benchmark,
        scorer=found.scorer,
        variants=found.settings.variants,
        split_by=found.settings.split_by,
        ids=ids,
        groups=groups,
        references=references,
        replies={},
        settings={"id": "", "completeness": source, **_origin(file, benchmark, lines)},
    )


def _origin(file: Path, benchmark: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Where answers of another harness come from, and what of its data is not as ours."""
    origins = [dict(known) for known in {tuple(sorted((line.get("origin") or {}).items())) for line in lines}]
    if len(origins) > 1:
        told = "; ".join(str(origin) for origin in origins)
        raise InputError(f"{file}: {benchmark}: answers of several origins ({told}) make no one result; keep one")
    return origins[0]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Raises: InputError for a file that is not there, or a line that is no JSON object."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    found = json.loads(line, parse_constant=_no_number)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path} line {number} is no JSON: {error}") from error
                if not isinstance(found, dict):
                    raise InputError(f"{path} line {number} is no JSON object")
                yield found
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all. Raises: RunError if it cannot be written."""
    write_whole(path, [json.dumps(content, indent=1) + "\n"])


def write_picture(path: Path, picture: Image) -> None:
    """As PNG. Raises: RunError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}; free some space") from error


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines, whole or not at all. Raises: RunError if it cannot be written."""
    write_whole(path, (json.dumps(row) + "\n" for row in rows))


def _object(path: Path) -> dict[str, Any]:
    found = _loaded(path)
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object; remove its folder and evaluate again")
    return found


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Of a results.json or pictures.json. Raises: InputError if it cannot be read or holds no list."""
    found = _loaded(path)
    if not isinstance(found, list):
        raise InputError(f"{path} holds no list of results; remove it and evaluate again")
    return found


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove its folder and evaluate again") from error


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
