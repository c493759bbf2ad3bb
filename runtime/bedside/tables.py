"""Results as text: a JSON object a line, and the cells of a table. No I/O. Not for clinical use."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["csv_cell", "csv_header", "csv_line", "csv_row", "json_line", "volumes_header", "volumes_row"]

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠")  # noqa: RUF001
"""A spreadsheet takes a cell that begins so for a formula (OWASP, CSV Injection; full-width forms too)."""

VOLUMES: Final = (
    "lung_ml",
    "opacity_ml",
    "opacity_ml_expected",
    "opacity_percent",
    "aerated_percent",
    "mean_hu",
)
"""What a CT's JSON tells of both lungs and of each."""


def json_line(record: Mapping[str, Any]) -> str:
    """A result as one line of ASCII JSON, without the line's end: what a journal and ``--json`` hold alike.

    Args:
        record: What `SeverityResult.to_json` or `OpacificationResult.to_json` gives.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON does not have.
    """
    return json.dumps(record, allow_nan=False)


def csv_header() -> tuple[str, ...]:
    """Names of the columns of `csv_row`."""
    return tuple(csv_row({}))


def csv_row(record: Mapping[str, Any]) -> dict[str, str]:
    """A result as the cells of a table, column -> text; empty where there is no value.

    Numbers are as in the JSON. ``extent_level`` is the level of ``extent_low`` and ``extent_high``, ``extent_factor``
    how many times as wide that interval is as on an ordinary picture, and ``extent_further`` holds those of other
    levels (``0.9=1.2 to 6.3``, separated by ``;``); so for opacity. In front of a text that a spreadsheet would take
    for a formula (`FORMULA_STARTS`) stands an apostrophe, which makes it text; the JSON has it unchanged.

    Args:
        record: What `SeverityResult.to_json` gives.
    """
    error, bundle, engine = (record.get(part) or {} for part in ("error", "bundle", "engine"))
    row = {
        "source": record.get("source"),
        "status": record.get("status"),
        "error_code": error.get("code"),
        "error_message": error.get("message"),
    }
    for name in ("extent", "opacity"):
        estimate = record.get(name) or {}
        low, high = estimate.get("scale", (None, None))
        row |= {
            name: estimate.get("value"),
            f"{name}_low": estimate.get("low"),
            f"{name}_high": estimate.get("high"),
        }
        row |= {f"{name}_scale_low": low, f"{name}_scale_high": high, f"{name}_level": estimate.get("level")}
        spans = estimate.get("intervals", ())
        row |= {
            f"{name}_factor": next((s["factor"] for s in spans if s["level"] == estimate["level"]), None),
            f"{name}_further": ";".join(
                f"{s['level']}={s['low']} to {s['high']}" for s in spans if s["level"] != estimate["level"]
            ),
        }
    row |= {
        "quality": ";".join(finding["code"] for finding in record.get("quality", ())),
        "forced": record.get("forced"),
        "pathologies": ";".join(f"{label}={value}" for label, value in record.get("pathologies", {}).items()),
        "bundle": bundle.get("name"),
        "bundle_version": bundle.get("version"),
        "bundle_digest": bundle.get("digest"),
        "backend": engine.get("backend"),
        "precision": engine.get("precision"),
        "device": engine.get("device"),
        "total_ms": record.get("timing_ms", {}).get("total"),
        "heatmap": record.get("files", {}).get("heatmap"),
        "notice": record.get("notice"),
    }
    return {column: csv_cell(value) for column, value in row.items()}


def volumes_header() -> tuple[str, ...]:
    """Names of the columns of `volumes_row`."""
    return tuple(volumes_row({}))


def volumes_row(record: Mapping[str, Any]) -> dict[str, str]:
    """A CT's result as the cells of a table, as `csv_row` does.

    Args:
        record: What `OpacificationResult.to_json` gives.
    """
    error, bundle, engine, volumes, files = (
        record.get(part) or {} for part in ("error", "bundle", "engine", "volumes", "files")
    )
    row = {
        "source": record.get("source"),
        "series": record.get("series"),
        "status": record.get("status"),
        "error_code": error.get("code"),
        "error_message": error.get("message"),
    }
    row |= {name: volumes.get(name) for name in VOLUMES}
    row |= {f"opacity_ml_{end}": volumes.get(f"opacity_ml_{end}") for end in ("low", "high")}
    row["interval_level"] = volumes.get("interval", {}).get("level")
    for side in ("left", "right"):
        row |= {f"{side}_{name}": volumes.get(side, {}).get(name) for name in VOLUMES}
    row |= {
        "classes_ml": ";".join(f"{tissue['name']}={tissue['ml']}" for tissue in record.get("classes", ())),
        "ledger": ";".join(f"{entry['finding']}={entry['decision']}" for entry in record.get("ledger", ())),
        "quality": ";".join(finding["code"] for finding in record.get("quality", ())),
        "read_share": record.get("read_share"),
        "peak_memory_mib": record.get("peak_memory_mib"),
        "bundle": bundle.get("name"),
        "bundle_version": bundle.get("version"),
        "bundle_digest": bundle.get("digest"),
        "backend": engine.get("backend"),
        "precision": engine.get("precision"),
        "device": engine.get("device"),
        "total_ms": record.get("timing_ms", {}).get("total"),
    }
    row |= {kind: files.get(kind) for kind in ("result", "labels", "report")}
    row["notice"] = record.get("notice")
    return {column: csv_cell(value) for column, value in row.items()}


def csv_line(cells: Iterable[str]) -> str:
    """Cells as one line of CSV (quoted as in RFC 4180), with its line feed."""
    text = io.StringIO()
    # with this end, Python 3.10 quotes a lone carriage return too
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def csv_cell(value: object) -> str:
    """A value as a cell: empty for None, and no text that a spreadsheet would take for a formula; see `csv_row`."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    # a file name that is not UTF-8 comes as lone surrogates, which no text file can hold
    text = value.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
