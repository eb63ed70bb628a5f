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
from data_prep.reading.hub import COMMIT
from data_prep.settings import PrepareSettings
from data_prep.writing.journal import discard, removal
from data_prep.writing.manifest import CONVERTER_VERSION, Identity
from vlm.contracts.errors import InputError, Mismatch
from vlm.data.manifest import read_manifest
from vlm.data.tokens import FolderTokenizer

log = logging.getLogger(__name__)
COMMAND = ("python", "-m", "data_prep.prepare")
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
    if source["clips"] is None:  # a set without clips is the same as before there were any
        del source["clips"]
    content = [CONVERTER_VERSION, source, settings.parts, settings.limit, settings.folder is None, tokenizer]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    what = [word for word in words if word.lstrip("+").split("=")[0].split(".")[0] not in PLACES]
    command = [*COMMAND, *what, *(["from=DIR"] if settings.folder else [])]
    return Identity(digest, shlex.join(command), overlap, tokenizer, settings.limit is not None)


def already_prepared(
    root: Path, settings: PrepareSettings, identity: Identity, command: Sequence[str]
) -> list[dict[str, Any]]:
    """The manifests of a complete earlier output of the same configuration, or [] if there is none.

    command: the one that was given. Raises: InputError if there is output of another configuration, or if the user's files
    have changed since.
    """
    manifests, splits = {}, settings.source.expected
    elsewhere = [word for word in command if not word.lstrip("+").startswith("out=")]
    hashed = cache(sha256_of)  # a large archive is an input of every split
    for path in root.glob("*/manifest.json"):
        manifest = read_manifest(path.parent)
        why = _difference(manifest, identity, settings, hashed)
        if why:
            raise InputError(
                f"{root} was prepared {why}. To prepare it anew:\n  {removal(root, splits)} && {shlex.join(command)}\n"
                f"To keep both, name another folder:\n  {shlex.join([*elsewhere, 'out=ANOTHER_FOLDER'])}"
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
    splits = [split for split, manifest in manifests.items() if not manifest["evaluation"]]
    if new and splits:
        log.warning(
            "%s was never compared with the pictures of %s; see what they share with: %s",
            root.name, ", ".join(new), f"python -m data_prep.dedupe dir={root / splits[0]} against=[{','.join(new)}]",
        )  # fmt: skip


def _difference(
    manifest: dict[str, Any], identity: Identity, settings: PrepareSettings, hashed: Callable[[Path], str]
) -> str:
    """Why the earlier output is another one than is asked for; "" if it is not."""
    if manifest.get("config_sha256") != identity.config_sha256:
        files = ", ".join(file["file"] for file in manifest.get("source", ())) or "unknown files"
        return f"with other settings (source, parts, limit, tokenizer, from) or by an earlier version, from {files}"
    if settings.folder is None:
        return ""
    folder, (repo, _, revision) = Path(settings.folder), settings.folder.partition("@")
    wanted = f"hub {repo} {revision if COMMIT.fullmatch(revision) else ''}"
    for file in manifest.get("source", ()):
        path = folder / file["file"]
        if not folder.is_dir() and not path.is_absolute():
            if not file["package"].startswith(wanted):
                return f"from another place than {settings.folder} on the hub"
        elif file["file"].endswith("/"):
            if not path.is_dir() or listing(path, Path(settings.out)) != (file["bytes"], file["sha256"]):
                return f"from other files in {path}"
        elif not path.is_file() or path.stat().st_size != file["bytes"] or hashed(path) != file["sha256"]:
            return f"from another {path}"
    return ""
