"""Results as files of text: JSON and tables. Not for clinical use."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bedside.results.files import atomic, write_bytes
from bedside.tables import csv_line, csv_row

__all__ = ["write_csv", "write_result_json"]


def write_csv(
    path: str | os.PathLike[str],
    records: Iterable[Mapping[str, Any]],
    row: Callable[[Mapping[str, Any]], Mapping[str, str]] = csv_row,
) -> None:
    """Write a table of results with its header, UTF-8, as `atomic` does.

    Args:
        path: The file.
        records: What `SeverityResult.to_json` gives, or `Journal.records`; or `OpacificationResult.to_json`.
        row: Makes a record a row: `csv_row`, or `bedside.tables.volumes_row` for a CT's.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``.
    """
    with atomic(path) as stream:
        stream.write(csv_line(row({})).encode())
        for record in records:
            stream.write(csv_line(row(record).values()).encode())


def write_result_json(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Write one result as a JSON file for people and programs alike: indented ASCII, as `atomic` does.

    Args:
        path: The file.
        record: What `OpacificationResult.to_json` or `SeverityResult.to_json` gives.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``.
        ValueError: If a number is NaN or infinite, which JSON does not have; nothing is written.
    """
    write_bytes(path, f"{json.dumps(record, allow_nan=False, indent=2)}\n".encode("ascii"))
