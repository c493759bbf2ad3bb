"""What is sent to a destination: result files as they lie on the disk, known by their meta headers alone.

Not for clinical use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from bedside.node.failures import UntakenError
from bedside.results.dicom.folder import FILES

__all__ = ["Parcel", "find_files", "open_parcels", "read_pieces"]

_PREAMBLE: Final = 132
"""Bytes before the meta header (PS3.10, 7.1)."""
_GROUP_LENGTH: Final = 12
"""Bytes of the element that says how long the rest of the meta header is."""
_PIECE: Final = 1 << 18
"""Most bytes of a file in memory."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file to be sent."""

    path: Path
    """Where it lies."""
    size: int
    """Bytes of the whole file."""
    offset: int
    """Where the data set begins, after preamble and meta header."""
    sop_class: str
    """SOP Class UID."""
    sop: str
    """SOP Instance UID."""
    syntax: str
    """Transfer Syntax UID."""


def find_files(folder: Path) -> tuple[Path, ...]:
    """The DICOM objects of a result, in the order in which they were written: the report is the last.

    Returns:
        Files; none where the input was no DICOM, so that there is nothing to send.

    Raises:
        UntakenError: ``not-delivered``: the folder is gone, or has objects and no report, so that it is not whole.
    """
    if not folder.is_dir():
        raise UntakenError(
            "not-delivered",
            "the results are no longer in the spool; have the study run again: bedside queue retry",
        )
    files = tuple(path for end in FILES.values() for path in sorted(folder.glob("*" + end)))
    if files and not files[-1].name.endswith(FILES["report"]):
        raise UntakenError(
            "not-delivered",
            "the results in the spool have no report; have the study run again: bedside queue retry",
        )
    return files


def open_parcels(files: Sequence[Path]) -> list[Parcel]:
    """Look at the meta header of each file.

    Raises:
        UntakenError: ``not-delivered``: one can't be read, or is no DICOM file.
    """
    return [_open_parcel(path) for path in files]


def read_pieces(parcel: Parcel, start: int, most: int = _PIECE) -> Iterator[bytes]:
    """The file from byte ``start`` to its end, at most ``most`` bytes at a time.

    Raises:
        UntakenError: ``not-delivered``: it can't be read, or is no longer as long as it was.
    """
    left = parcel.size - start
    try:
        with parcel.path.open("rb") as stream:
            stream.seek(start)
            while left > 0:
                piece = stream.read(min(most, left))
                if not piece:
                    raise _unreadable("it became shorter")
                left -= len(piece)
                yield piece
    except OSError as error:
        raise _unreadable(_reason(error)) from None  # a traceback would name the file


def _open_parcel(path: Path) -> Parcel:
    try:
        meta = read_file_meta_info(path)
        parcel = Parcel(
            path=path,
            size=path.stat().st_size,
            offset=_PREAMBLE + _GROUP_LENGTH + int(meta.FileMetaInformationGroupLength),
            sop_class=str(meta.MediaStorageSOPClassUID),
            sop=str(meta.MediaStorageSOPInstanceUID),
            syntax=str(meta.TransferSyntaxUID),
        )
    except OSError as error:
        raise _unreadable(_reason(error)) from None
    except (InvalidDicomError, AttributeError, ValueError, TypeError, EOFError):
        raise _unreadable("it is no DICOM file with a whole meta header") from None
    if parcel.size <= parcel.offset:
        raise _unreadable("it has no data set")
    return parcel


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else "an I/O error"


def _unreadable(reason: str) -> UntakenError:
    return UntakenError(
        "not-delivered",
        f"a file of the results can't be read ({reason}); check the spool's disk, and have the study run again: "
        "bedside queue retry",
    )
