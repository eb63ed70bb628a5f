"""Data sets of the Hugging Face hub, or of a mirror that speaks its protocol (HF_ENDPOINT), into the cache."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from data_prep.reading.archive import sha256_of
from data_prep.settings import Hub
from vlm.contracts.errors import InputError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo

log = logging.getLogger(__name__)
FORM = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT = 30.0  # seconds for an answer about a repository


def is_hub_id(text: str) -> bool:
    """Whether `from=` names a data set of the hub: owner/name or owner/name@revision, and no such folder exists."""
    return not Path(text).exists() and FORM.fullmatch(text) is not None


def hub(text: str, known: Hub | None, cache: Path) -> Path:
    """A data set as a folder, `<cache>/hub/<owner>--<name>/<commit>/`; what is there already is not fetched again.

    text: owner/name[@revision].   known: of the source; its `files` are what is fetched (None = all), and its
    revision is taken where the text gives none. A connection that breaks goes on where it broke; after an end of the
    process whole files are kept. A commit (40 hex digits) that is complete in the cache needs no network.
    Raises: InputError with the way out: no network, no such repository or revision, no access, no file that is needed.
    """
    found = FORM.fullmatch(text)
    assert found is not None, f"{text} is no hub id"
    repo, revision = found["repo"], found["revision"]
    if known is not None and known.repo == repo:
        revision = revision or known.revision
    elif known is not None:
        log.warning("%s is not where the set is published (%s); its files must have the same form", repo, known.repo)
    patterns = known.files if known is not None else None
    home = cache / "hub" / repo.replace("/", "--")
    if revision is not None and COMMIT.fullmatch(revision) and _is_complete(home / revision, patterns):
        return home / revision
    with _told(repo, revision, home):
        return _download(repo, revision, patterns, home)


def package_of(folder: Path) -> str:
    """What `SourceFile.package` says of a file in a folder that `hub` gave: "hub owner/name commit"; else ""."""
    if folder.parent.parent.name != "hub" or not COMMIT.fullmatch(folder.name):
        return ""
    return f"hub {folder.parent.name.replace('--', '/', 1)} {folder.name}"


def _download(repo: str, revision: str | None, patterns: list[str] | None, home: Path) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars, filter_repo_objects

    for client in ("httpx", "httpx2"):  # a line a request
        logging.getLogger(client).setLevel(logging.WARNING)
    info = HfApi().dataset_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
    assert info.sha is not None
    files = {entry.rfilename: entry.size or 0 for entry in info.siblings or ()}
    wanted = {name: files[name] for name in filter_repo_objects(files, allow_patterns=patterns)}
    if not wanted:
        raise InputError(
            f"from={repo}: no file there is {' or '.join(patterns or ['a file'])}; it holds {_some(files)}. "
            "Is it the set of this source?"
        )
    folder, size = home / info.sha, sum(wanted.values())
    license = _license(info)
    log.info("%s at revision %s: %d files, %.1f MB; licence by its card: %s", repo, info.sha, len(wanted), size / 1e6, license)  # fmt: skip
    _refuse_small_disk(home, size - sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    if not sys.stderr.isatty():
        disable_progress_bars()
    with FileLock(home / f"{info.sha}.lock"):
        for left in folder.glob(".cache/huggingface/download/**/*.incomplete"):
            left.unlink()  # of a process that was killed; nobody goes on with them
        snapshot_download(repo, repo_type="dataset", revision=info.sha, local_dir=folder, allow_patterns=patterns)
    for name, expected in wanted.items():
        held = (folder / name).stat().st_size if (folder / name).is_file() else None
        if held != expected:
            (folder / name).unlink(missing_ok=True)
            raise InputError(f"{folder / name} has {held} bytes, the hub says {expected}; give the same command again")
    for entry in info.siblings or ():
        if entry.rfilename in wanted and entry.lfs is not None:
            _refuse_other_bytes(folder / entry.rfilename, entry.lfs.sha256)
    content = {"repo": repo, "license": license, "patterns": patterns, "files": wanted}
    part = home / f"{info.sha}.part"
    part.write_text(json.dumps(content, indent=1), "utf-8")
    os.replace(part, _mark(folder))
    return folder


def _refuse_other_bytes(path: Path, sha256: str) -> None:
    if sha256_of(path) != sha256:
        path.unlink()
        raise InputError(f"{path} is not what the hub holds (sha256); it is removed, give the same command again")


def _mark(folder: Path) -> Path:
    """The file that says that a folder is complete, and what it holds."""
    return folder.with_name(f"{folder.name}.json")


def _is_complete(folder: Path, patterns: list[str] | None) -> bool:
    try:
        content: dict[str, Any] = json.loads(_mark(folder).read_text("utf-8"))
    except FileNotFoundError:
        return False
    paths = {folder / name: size for name, size in content["files"].items()}
    return content["patterns"] == patterns and all(p.is_file() and p.stat().st_size == s for p, s in paths.items())


def _license(info: DatasetInfo) -> str:
    """As the card states it; a publisher's word, which the source's own settings may correct."""
    stated = (info.card_data or {}).get("license") if info.card_data is not None else None
    return ", ".join(stated) if isinstance(stated, list) else str(stated or "not stated")


def _some(names: dict[str, int]) -> str:
    shown = ", ".join(sorted(names)[:8]) or "nothing"
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def _refuse_small_disk(home: Path, needed: int) -> None:
    home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home).free
    if needed > free:
        raise InputError(
            f"{home} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are still to be fetched; make room, or name "
            "another place with paths.data=DIR"
        )


@contextmanager
def _told(repo: str, revision: str | None, home: Path) -> Iterator[None]:
    """What can go wrong on the way, in words with a way out."""
    from huggingface_hub import errors

    own = "or download the files yourself and give from=DIR"
    at = f"from={repo}{f'@{revision}' if revision else ''}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise InputError(
            f"{at}: its owners let in whom they know; ask for access on its page, then hf auth login, {own}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{at}: there is no such revision; leave it out for the newest") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{at}: there is neither such a folder nor such a data set on the hub, or it is private; check the name, "
            f"hf auth login if it is yours, {own}"
        ) from error
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, errors.HTTPError) as error:  # fmt: skip
        here = sorted(path.stem for path in home.glob("*.json"))
        again = f"; complete in the cache: from={repo}@{here[-1]}" if here else ""
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{at}: the hub cannot be read ({first}); what was fetched is kept, so give the same command again, name a "
            f"mirror with HF_ENDPOINT, {own}{again}"
        ) from error
