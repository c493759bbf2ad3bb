"""Label maps and results under a path: files, folders, JSON and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

from bedside.errors import InputError
from bedside.files import open_input

__all__ = ["ENDINGS", "OPACIFICATION", "SEVERITY", "Item", "find_items", "kind_of", "read_records"]

OPACIFICATION: Final = "opacification"
SEVERITY: Final = "severity"
SCHEMAS: Final = {"bedside.opacification/1": OPACIFICATION, "bedside.severity/1": SEVERITY}
"""Schema of a result -> its kind."""
NIFTI: Final = (".nii.gz", ".nii")
"""Endings of a label map."""
RESULTS: Final = (".json", ".jsonl")
"""Endings of a file of results."""
ENDINGS: Final = (*NIFTI, *RESULTS, ".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".zip")
"""Endings that are left off a file's name to name its case."""
MAX_JSON_BYTES: Final = 1 << 28
"""Largest file of results, 256 MiB: a hundred thousand of them."""


@dataclass(frozen=True, slots=True)
class Item:
    """A case as it was found: a label map, a result, or both."""

    source: str
    """What its name is taken from: the file, or what the result says it is of."""
    labels: Path | None = None
    """NIfTI."""
    record: Mapping[str, Any] | None = None
    """A result's JSON."""


def find_items(path: Path) -> list[Item]:
    """What a path holds: at least one item, each of another source, in order of their names or as they were written.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``; ``not-results``.
    """
    if not path.is_dir():
        if _is_nifti(path):
            return [_find_map(path)]
        return _last_of_each(_read_results(path))
    files = _list_files(path)
    results = [item for file in files if file.suffix in RESULTS for item in _read_sidecar(file)]
    if results:
        return _last_of_each(results)
    maps = [Item(file.name, file) for file in files if _is_nifti(file)]
    if not maps:
        raise InputError(
            "not-results",
            "the folder holds neither label maps (.nii, .nii.gz) nor results of bedside (.json, .jsonl)",
        )
    return maps


def read_records(path: Path) -> list[Mapping[str, Any]]:
    """All results that a file holds, or the files of a folder, in order; none in a folder without any.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``; ``not-results``, of a file.
    """
    if path.is_dir():
        items = [item for file in _list_files(path) if file.suffix in RESULTS for item in _read_sidecar(file)]
    else:
        items = _read_results(path)
    return [item.record for item in items if item.record is not None]


def kind_of(record: Mapping[str, Any]) -> str:
    """`OPACIFICATION` or `SEVERITY`."""
    return SCHEMAS[record["schema"]]


def _find_map(path: Path) -> Item:
    with open_input(path):
        pass  # to have the reason told
    for file in _list_files(path.parent):
        if file.suffix in RESULTS:
            for item in reversed(_read_sidecar(file)):
                if item.labels is not None and item.labels.name == path.name:
                    return Item(path.name, path, item.record)
    return Item(path.name, path)


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(NIFTI)


def _list_files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    except OSError as error:
        raise InputError("not-readable", "the folder can't be listed; check its permissions") from error


def _read_results(path: Path) -> list[Item]:
    """Results in a file that was named: an object, a list of them, or one a line."""
    records = _parse(_read(path))
    if not records or not all(map(_is_result, records)):
        schemas = " or ".join(SCHEMAS)
        raise InputError("not-results", f"this holds no results of bedside: give JSON of schema {schemas}")
    return [_item(record, path) for record in records]


def _read_sidecar(path: Path) -> list[Item]:
    """Results in a file that lies in a folder, perhaps for something else."""
    if path.stat().st_size == 0:
        return []
    return [_item(record, path) for record in _parse(_read(path)) if _is_result(record)]


def _read(path: Path) -> bytes:
    with open_input(path) as stream:
        data = stream.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise InputError("not-results", f"the file is over {MAX_JSON_BYTES} bytes; no results are that long")
    return data


def _parse(data: bytes) -> list[Any]:
    """JSON values in a file; none where it is no JSON."""
    try:
        whole = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        return []
    except ValueError:
        return list(_parse_lines(data))
    return whole if isinstance(whole, list) else [whole]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _parse_lines(data: bytes) -> Iterator[Any]:
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return  # a killed run leaves its last line unfinished
        try:
            yield json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            yield None


def _is_result(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and record.get("schema") in SCHEMAS
        and isinstance(record.get("source"), str)
        and (
            record.get("status") in ("refused", "failed")
            or (record.get("status") == "ok" and _is_whole(record))
        )
    )


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Whether a result has all that is compared."""
    try:
        if kind_of(record) == SEVERITY:
            scores = [(*record[name]["scale"], record[name]["value"]) for name in ("extent", "opacity")]
            return all(len(score) == 3 and all(map(_is_number, score)) for score in scores)
        classes = [(each["label"], each["name"], each["opacity"], each["lung"]) for each in record["classes"]]
        return isinstance(record["volumes"], dict) and all(isinstance(label, int) for label, *_ in classes)
    except (LookupError, TypeError):
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _item(record: Mapping[str, Any], path: Path) -> Item:
    """A result, with the label map that it names if that lies beside it."""
    name = (record.get("files") or {}).get("labels")
    beside = isinstance(name, str) and PurePath(name).name == name and _is_nifti(path.with_name(name))
    labels = path.with_name(name) if isinstance(name, str) and beside else None
    return Item(record["source"], labels if labels is not None and labels.is_file() else None, record)


def _last_of_each(items: list[Item]) -> list[Item]:
    """One item a source: a case that was tried again counts as it went last."""
    return list({item.source: item for item in items}.values())
