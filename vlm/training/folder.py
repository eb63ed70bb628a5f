"""The run folder: who works in it, in which state it is, and what it holds."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from vlm.contracts.errors import InputError
from vlm.contracts.writing import finite, write_whole

HARDWARE = ("memory_gb", "timeout_s")  # its keys that only end a run
NOT_IDENTITY = ("paths", "logging", "benchmarks")  # where a run lies and how it is watched do not change what it is
WATCHED = "by"  # key of phase.keep: which checkpoints stay, not what training does
ALLOWING = ("licence_policy", "allow_eval_split")  # keys of data
RECIPE = ("seed", "model", "encoder", "connector", "llm", "fusion", "text", "phase", "data", "weights", "init_from")
FREE = (  # how long a run is and how it is watched may change on the way
    "phase.max_steps", "phase.epochs", "phase.log_every", "phase.validate_every", "phase.save_every", "phase.samples",
    "phase.keep.last", "phase.keep.best", "phase.keep.every", "data.cache_gb", "data.skip_budget",
    "phase.guards.chosen_drift", "phase.guards.score", "phase.guards.score_drop",
)  # fmt: skip
EDGE = 2**16  # bytes of a model's file, at its beginning and its end, by which it is known
LIBRARIES = ("torch", "lightning", "transformers", "tokenizers", "hydra-core", "numpy", "pillow", "wandb")


def run_id(config: Mapping[str, Any]) -> str:
    """First 12 hex digits of a hash of what decides the result."""
    known = _by_identity(config)
    guarded = ((config.get("phase") or {}).get("guards") or {}).get("score")
    judge = {"guarded": (config.get("benchmarks") or {}).get(guarded.removeprefix("val/"))} if guarded else {}
    return _hash({**{key: value for key, value in known.items() if key not in NOT_IDENTITY}, **judge})


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run keeps when it goes on elsewhere: dotted key -> value."""
    known = _by_identity(config)
    return {key: value for key, value in _flat({key: known.get(key) for key in RECIPE}) if key not in FREE}


def recipe_id(config: Mapping[str, Any]) -> str:
    """Equal for two runs of one recipe, whatever their hardware, length and habits of logging."""
    return _hash(recipe(config))


def _by_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Other runs and models enter by what they are, not by their path; what only allows the run is no part of it."""
    config = {**config, **{part: _by_content(config.get(part)) for part in ("llm", "text") if config.get(part)}}
    if isinstance(hardware := config.get("hardware"), Mapping):
        config = {**config, "hardware": {key: value for key, value in hardware.items() if key not in HARDWARE}}
    if isinstance(phase := config.get("phase"), Mapping) and isinstance(keep := phase.get("keep"), Mapping):
        config = {**config, "phase": {**phase, "keep": {key: value for key, value in keep.items() if key != WATCHED}}}
    weights = {part: _identity(source) for part, source in (config.get("weights") or {}).items()}
    if isinstance(data := config.get("data"), Mapping):
        kept = {key: value for key, value in data.items() if key not in ALLOWING}
        if isinstance(uses := kept.get("train"), Mapping):
            kept["train"] = {name: _without_defaults(use) for name, use in uses.items()}
        config = {**config, "data": kept}
    return {**config, **{key: _identity(config.get(key)) for key in ("init_from", "resume")}, "weights": weights}


def _without_defaults(use: Any) -> Any:
    """A set's use without a key that says what is so anyway."""
    return {key: value for key, value in use.items() if (key, value) != ("augment", True)} if use else use


def _by_content(node: Any) -> Any:
    """A node whose folders (of a language model, its tokenizer, its template) are named by what lies in them."""
    if not isinstance(node, Mapping):
        return node
    return {
        key: folder_identity(Path(value)) if key == "path" and isinstance(value, str) else _by_content(value)
        for key, value in node.items()
    }


def folder_identity(folder: Path) -> str:
    """Of a model's files by names, sizes, beginnings and ends; the path itself where there are none."""
    digest = hashlib.sha256()
    files = sorted(file for pattern in ("*.json", "*.jinja", "*.safetensors") for file in folder.glob(pattern))
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as opened:
            digest.update(f"{file.name} {size} ".encode() + opened.read(EDGE))
            opened.seek(max(0, size - EDGE))
            digest.update(opened.read(EDGE))
    return digest.hexdigest()[:12] if files else str(folder)


def _flat(node: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _identity(source: str | None) -> str | None:
    if source is None:
        return None
    folder = Path(source)
    return folder.resolve().name if (folder / "status.json").exists() else str(source)


def write_json(path: Path, content: Any) -> None:
    """Replace the file in one step, so that a reader or a crash never sees half of it. NaN becomes null. Raises: RunError."""
    write_whole(path, [json.dumps(finite(content), indent=1, default=str)])


class RunFolder:
    """runs/<name>/<run_id>/. `status` is the last known state, `{}` for a new run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status: dict[str, Any] = read_status(path)
        self._lock = FileLock(path / ".lock")  # the system frees it if the process dies
        self._began, self._spent = time.monotonic(), 0.0

    @property
    def is_finished(self) -> bool:
        return self.status.get("state") == "finished"

    def open(self) -> None:
        """Create the folder and take it, once. Raises: InputError if another process has it, or it cannot be made."""
        if self._lock.is_locked:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{self.path}: another process works in this run folder; wait for it, or change seed or any key"
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.path}: the run folder cannot be made: {error.strerror}; set paths.runs to a folder you may "
                "write to"
            ) from error
        self.status = read_status(self.path)
        self._spent = self.status.get("seconds", 0.0)

    def close(self) -> None:
        self._lock.release()

    def describe(self, config: Mapping[str, Any], overrides: Sequence[str], data: Mapping[str, Any]) -> None:
        """Everything needed to know and repeat the run, before it starts."""
        write_json(self.path / "versions.json", versions())
        write_json(self.path / "data.json", data)
        (self.path / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))
        command = shlex.join(["python", "-m", "experiments.train", *overrides])
        (self.path / "command.txt").write_text(f"{command}\n")

    @property
    def seconds(self) -> float:
        """Seconds spent on this run, over all its starts."""
        return self._spent + time.monotonic() - self._began

    def update(self, **changes: Any) -> None:
        self.status = {**self.status, **changes, "seconds": round(self.seconds, 2)}
        write_json(self.path / "status.json", self.status)


def read_status(path: Path) -> dict[str, Any]:
    """{} if there is none. Raises: InputError for a file that is no JSON."""
    file = path / "status.json"
    if not file.exists():
        return {}
    return read_object(file)


def read_object(file: Path) -> dict[str, Any]:
    """Raises: InputError for a file that is no JSON object."""
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON ({error}); move the run folder away and start again") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} does not hold a JSON object; move the run folder away and start again")
    return content


def versions() -> dict[str, str]:
    """Of Python, the libraries that decide numbers, and the code itself (its commit, if it is a checkout)."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        found[name] = importlib.metadata.version(name)
    git = shutil.which("git")
    if git is None:
        return found
    asked = subprocess.run(
        [git, "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode == 0:
        found["commit"] = asked.stdout.strip()
    return found
