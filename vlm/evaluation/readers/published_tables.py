"""What benchmarks have in common that are published as parquet tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vlm.evaluation.readers.files import Files


@dataclass(frozen=True)
class PublishedTables:
    """tables: a pattern.   expected: counts by name, None = any.   checksums: table -> sha256."""

    folder: str
    tables: str = "data/test-*.parquet"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return Files(self.folder).matching(self.tables)

    def paths(self) -> list[Path]:
        """Of the tables, their checksums compared. Raises: InputError."""
        return Files(self.folder, self.checksums).tables(self.files())
