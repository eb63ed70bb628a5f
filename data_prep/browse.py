"""A page of samples of prepared sets as a person reads them, with the tokens that carry loss marked.

python -m data_prep.browse dir=DIR [samples=24] [seed=0] [tokenizer=FOLDER] [out=FILE]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

from data_prep.command import run
from data_prep.verify import splits
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveInt, Seed

if TYPE_CHECKING:
    from data_prep.checking.sample_view import SampleView

ABOVE_ALL = "browse.html"  # the default name, in the folder of the set: not among the files of a split


@dataclass(frozen=True)
class BrowseSettings:
    """The keys of the command."""

    dir: Annotated[Path, "a split (<set>/<split>), a set, or a folder of sets"]
    samples: Annotated[PositiveInt, "of each split, drawn by the seed"] = 24
    seed: Annotated[Seed, "another one shows others"] = 0
    tokenizer: Annotated[Path | None, "folder of a model's tokenizer; null = one learned from the page"] = None
    out: Annotated[Path | None, "the page; null = browse.html in the set's folder"] = None


@dataclass(frozen=True)
class SplitView:
    """One split on the page."""

    manifest: dict[str, Any]
    samples: list[SampleView]


def main(settings: BrowseSettings) -> int:
    """Writes the page and prints its path. Raises: InputError for a folder or tokenizer that cannot be read."""
    from data_prep.checking.marked import folder_reader, learned_reader
    from data_prep.checking.sample_view import Drawn, show
    from vlm.data.shards import ShardSet
    from vlm.data.sources import Slice, texts

    drawn: list[tuple[ShardSet, list[Drawn]]] = []
    for directory in splits(settings.dir):
        shards = ShardSet(directory)
        drawn.append((shards, [Drawn(shards, row) for row in sorted(chosen(len(shards), settings))]))
    if settings.tokenizer is not None:
        reader = folder_reader(settings.tokenizer)
    else:
        rows = ((shards, one.row) for shards, members in drawn for one in members)
        reader = learned_reader(text for shards, row in rows for text in texts([Slice("", shards, row, row + 1)]))
    views = [SplitView(shards.manifest, [show(one, reader) for one in members]) for shards, members in drawn]
    out = settings.out or (settings.dir.parent if is_split(settings.dir) else settings.dir) / ABOVE_ALL
    write(page(views, settings, reader.name), out)
    print(out)
    return 0


def chosen(rows: int, settings: BrowseSettings) -> list[int]:
    """Rows of a split, the same ones for the same seed."""
    return Random(settings.seed).sample(range(rows), min(rows, settings.samples))


def is_split(directory: Path) -> bool:
    return (directory / "manifest.json").is_file()


def page(views: list[SplitView], settings: BrowseSettings, reader: str) -> str:
    """The whole page. reader: what laid out the text rows."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from data_prep.writing import overview

    environment = Environment(
        loader=PackageLoader("data_prep.checking", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(size=overview.size, percent=lambda value: f"{value:.3g} %")
    names = dict.fromkeys(view.manifest["set"] for view in views)
    return environment.get_template("browse.html.j2").render(
        title=", ".join(names), views=views, seed=settings.seed, reader=reader, overview=overview
    )


def write(text: str, out: Path) -> None:
    """The whole page or nothing. Raises: InputError if it cannot be written."""
    part = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, "utf-8", errors="replace")  # a manifest may hold what no encoding knows
        part.replace(out)
    except OSError as error:
        raise InputError(f"out: {out} cannot be written ({error.strerror}); name another file with out=FILE") from error


if __name__ == "__main__":
    sys.exit(run(__doc__, BrowseSettings, main, sys.argv[1:]))
