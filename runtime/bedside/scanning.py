"""From a path to a scan, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bedside.dicom import list_series, read_series
from bedside.errors import BedsideError, InputError, RefusedError
from bedside.nifti.reading import read_nifti
from bedside.nifti.voxels import is_nifti
from bedside.scan import Scan

__all__ = ["choose_series", "open_scan"]

ALL: Final = "all"
"""Stands for every CT series of a path."""


def open_scan(
    path: str | Path,
    *,
    series: str | None = None,
    allow_missing: bool = False,
    orientation: str | None = None,
) -> Scan:
    """Open a CT.

    Args:
        path: A folder of DICOM, a zip of one, a DICOM file, or a NIfTI file.
        series: Series Instance UID, where there are several.
        allow_missing: Fill in slices that can't be read.
        orientation: Where the axes i, j, k of a NIfTI file point, e.g. ``RAS``, where the file does not say it.

    Returns:
        The scan, which the caller closes.

    Raises:
        InputError: It can't be read; ``bad-attribute`` for an improper orientation.
        RefusedError: It is no CT volume.
    """
    if Path(path).is_dir() or not is_nifti(path):
        return read_series(path, series=series, allow_missing=allow_missing)
    try:
        scan = read_nifti(path, orientation=orientation)
    except BedsideError:
        raise
    except ValueError as error:
        raise InputError(
            "bad-attribute", f"{orientation!r} is no orientation; give three letters such as RAS or LPS"
        ) from error
    if scan.grid.shape[0] < 2:
        scan.close()
        raise RefusedError("improper-geometry", "one slice has no volume; give the whole scan")
    return scan


def choose_series(path: str | Path, wanted: Sequence[str]) -> list[str | None]:
    """The series of a path that were asked for: ``all``, or their UIDs as they are.

    Raises:
        InputError: It can't be read.
        RefusedError: ``no-series`` where all are wanted and there is none.
    """
    if ALL not in wanted:
        return list(wanted)
    if not Path(path).is_dir() and is_nifti(path):
        return [None]
    found = [each.uid for each in list_series(path) if each.modality == "CT" and each.slices > 1]
    if not found:
        raise RefusedError("no-series", "there is no CT series; give a folder that holds one")
    return [uid or None for uid in found]
