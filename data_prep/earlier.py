"""What is prepared already, and whether it is what is asked for."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from data_prep.reading.archive import listing, sha256_of
from data_prep.settings import PrepareSettings
from data_prep.writing.journal import discard
from data_prep.writing.manifest import CONVERTER_VERSION, Identity
from vlm.contracts.errors import InputError, Mismatch
from vlm.data.manifest import read_manifest
from vlm.data.tokens import FolderTokenizer

log = logging.getLogger(__name__)


PLACES = ("from", "out", "paths", "workers", "part", "dry_run")  # keys that say where and how, not what


def identity_of(settings: PrepareSettings, overlap: list[dict[str, Any]], words: Sequence[str] = ()) -> Identity:
    """Of what these settings would write. words: of the command line."""
    tokenizer = {}
    if settings.tokenizer is not None:
        try:
            engine = FolderTokenizer(settings.tokenizer)
        except Mismatch as error:
            raise InputError(f"tokenizer: {error}") from error
        tokenizer = {"name": Path(settings.tokenizer).name, "sha256": engine.fingerprint}
    source = asdict(settings.source)
    del source["budget"], source["form"]  # neither changes a byte of what is written
    content = [CONVERTER_VERSION, source, settings.parts, settings.limit, settings.folder is None, tokenizer]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    what = [word for word in words if word.lstrip("+").split("=")[0].split(".")[0] not in PLACES]
    command = _command([*what, *(["from=DIR"] if settings.folder else [])])
    return Identity(digest, command, overlap, tokenizer, settings.limit is not None)


def already_prepared(
    root: Path, settings: PrepareSettings, identity: Identity, words: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The manifests of a complete earlier output of the same configuration, or [] if there is none.

    words: of the command line. Raises: InputError if there is output of another configuration, or if the user's files
    have changed since.
    """
    manifests, splits = {}, settings.source.expected
    elsewhere = [word for word in words if not word.startswith("out=")]
    hashed = cache(sha256_of)  # a large archive is an input of every split
    for path in root.glob("*/manifest.json"):
        manifest = read_manifest(path.parent)
        why = _difference(manifest, identity, settings.folder, hashed)
        if why:
            raise InputError(
                f"{root} was prepared {why}. To prepare it anew:\n  rm -r {root} && {_command(words)}\n"
                f"To keep both, name another folder:\n  {_command([*elsewhere, 'out=ANOTHER_FOLDER'])}"
            )
        manifests[manifest["split"]] = manifest
    written = {split for manifest in manifests.values() for split in manifest["splits"]}  # a try may lack some
    if not manifests or set(manifests) != written:
        return []
    discard(root)
    _tell_new_tables(root, manifests, identity)
    return [manifests[split] for split in splits if split in manifests]


def _tell_new_tables(root: Path, manifests: dict[str, Any], identity: Identity) -> None:
    compared = {table["sha256"] for manifest in manifests.values() for table in manifest["overlap"]["against"]}
    new = [table["name"] for table in identity.overlap if table["sha256"] not in compared]
    if new:
        splits = [split for split, manifest in manifests.items() if not manifest["evaluation"]]
        log.warning(
            "%s was never compared with the pictures of %s; see what they share with: %s",
            root.name, ", ".join(new), f"python -m data_prep.dedupe dir={root / splits[0]} against=[{','.join(new)}]",
        )  # fmt: skip


def _command(words: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "data_prep.prepare", *words])


def _difference(manifest: dict[str, Any], identity: Identity, folder: str | None, hashed: Callable[[Path], str]) -> str:
    if manifest.get("config_sha256") != identity.config_sha256:
        files = ", ".join(file["file"] for file in manifest.get("source", ())) or "unknown files"
        return f"with other settings (source, parts, limit, tokenizer, from) or by an earlier version, from {files}"
    if folder is not None and not Path(folder).is_dir():
        repo = folder.partition("@")[0]
        if not all(file["package"].startswith(f"hub {repo} ") for file in manifest.get("source", ())):
            return f"from another place than {repo} on the hub"
    elif folder is not None:
        for file in manifest.get("source", ()):
            path = Path(folder) / file["file"]
            if file["file"].endswith("/"):
                if not path.is_dir() or listing(path) != (file["bytes"], file["sha256"]):
                    return f"from other files in {path}"
                continue
            if not path.is_file() or path.stat().st_size != file["bytes"] or hashed(path) != file["sha256"]:
                return f"from another {path}"
    return ""
