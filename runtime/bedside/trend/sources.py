"""What a person gives to be followed: results, or pictures to be scored first; and bundles at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bedside.bundle import Bundle, built_in
from bedside.comparison.sources import RESULTS, read_records
from bedside.manifest import Manifest
from bedside.provenance import BundleRef

__all__ = ["find_manifest", "sort_paths"]


def sort_paths(paths: Sequence[Path]) -> tuple[list[Mapping[str, Any]], list[Path]]:
    """Results under the paths that hold some, and the other paths.

    A path holds results if it is a ``.json`` or ``.jsonl`` file, or a folder with such a file that has some.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``, ``not-results``: of a JSON file.
    """
    records: list[Mapping[str, Any]] = []
    others = []
    for path in paths:
        found = read_records(path) if path.is_dir() or path.suffix.lower() in RESULTS else []
        records += found
        if not found:
            others.append(path)
    return records, others


def find_manifest(wanted: BundleRef, given: Bundle | None) -> Manifest | None:
    """The manifest of a bundle: of the one that was given, or of a built-in one; None if it is neither.

    Raises:
        BundleError: A built-in bundle is altered.
    """
    if given is not None and given.digest == wanted.digest:
        return given.manifest
    for name in built_in():
        bundle = Bundle.open(name)
        if bundle.digest == wanted.digest:
            return bundle.manifest
    return None
