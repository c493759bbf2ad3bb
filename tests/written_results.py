"""What lies in a folder of results: its files, and the rows of its table."""

from __future__ import annotations

import csv
import io
from pathlib import Path


def names(folder: Path) -> list[str]:
    """Names of what lies there."""
    return sorted(path.name for path in folder.iterdir())


def rows_of(table: Path) -> list[dict[str, str]]:
    """Rows of a CSV file, by column."""
    return list(csv.DictReader(io.StringIO(table.read_bytes().decode("utf-8"), newline="")))
