"""Opening an input file, with every failure told by its code."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from bedside.errors import BedsideError, InputError

__all__ = ["MAX_PIXELS", "check_dimensions", "open_input"]

MAX_PIXELS: Final = 1 << 26
"""Most pixels of a picture, 67 million: four times the largest flat-panel detectors (4,300 x 4,300)."""

MAX_SIDE: Final = 1 << 15
"""Most rows or columns of a picture."""


@contextmanager
def open_input(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """The file at ``path``, open for reading; I/O errors inside the ``with`` block get a code too.

    Raises:
        InputError: ``not-found``; ``not-readable`` (a folder, a device, a pipe, no permission, an I/O error);
            ``empty-file``.
    """
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError("not-found", "no such file; check the path") from error
    except OSError as error:
        raise _unreadable(error) from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError("not-readable", "this is a folder; give a file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not-readable", "this is not a regular file; give a file")
    if status.st_size == 0:
        raise InputError("empty-file", "the file has no bytes; export or copy it again")
    try:
        with Path(path).open("rb") as stream:
            yield stream
    except BedsideError:  # an OutputError of the block is an OSError too
        raise
    except OSError as error:
        raise _unreadable(error) from error


def check_dimensions(rows: int, columns: int) -> None:
    """Refuse a picture of no or absurd size, before anything of its size is allocated.

    Raises:
        InputError: ``bad-dimensions``.
    """
    if rows < 1 or columns < 1:
        raise InputError("bad-dimensions", f"{rows} rows x {columns} columns is no picture; export it again")
    if rows > MAX_SIDE or columns > MAX_SIDE or rows * columns > MAX_PIXELS:
        raise InputError(
            "bad-dimensions",
            f"{rows} rows x {columns} columns is over the limit of {MAX_SIDE} a side and {MAX_PIXELS} pixels; "
            "no X-ray detector is that large",
        )


def _unreadable(error: OSError) -> InputError:
    reason = os.strerror(error.errno).lower() if error.errno else "an I/O error"
    return InputError(
        "not-readable", f"the file can't be read ({reason}); check its permissions and the disk"
    )
