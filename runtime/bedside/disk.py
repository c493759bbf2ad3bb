"""What an operating system says where something can't be written, as an error that says what to do.

FULL     what it says of a disk without room
reason   what it says, without the name of the file
trouble  the error, in words of what was written
told     the same for all that happens in a ``with`` block
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from bedside.errors import BedsideError, OutputError

__all__ = ["CACHE", "FULL", "OUTPUT", "Wording", "reason", "told", "trouble"]

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No space, no quota, and over the file size that the system or its limits allow."""


class Wording(NamedTuple):
    """How trouble with one kind of file is told."""

    trouble: str
    """What can't be done."""
    room: str
    """What to do where the disk is full."""
    otherwise: str
    """What to do in other cases."""
    code: str
    """Of the error in other cases."""


OUTPUT: Final = Wording(
    "the output can't be written",
    "free space or write elsewhere",
    "give a folder that exists and that you may write to",
    "output-not-writable",
)
CACHE: Final = Wording(
    "the cache can't be written",
    "free space, or give another folder with --cache",
    "give a folder that you may write to with --cache",
    "cache-not-writable",
)


def reason(error: OSError) -> str:
    """What the system says, in its words but without the name of the file, which may be a patient's."""
    return os.strerror(error.errno).lower() if error.errno else "an I/O error"


def trouble(error: OSError, wording: Wording = OUTPUT) -> OutputError:
    """What to raise for it."""
    if error.errno in FULL:
        return OutputError("disk-full", f"{wording.trouble} ({reason(error)}); {wording.room}")
    return OutputError(wording.code, f"{wording.trouble} ({reason(error)}); {wording.otherwise}")


@contextmanager
def told(wording: Wording = OUTPUT) -> Iterator[None]:
    """Turn an OSError of the block into the OutputError that says what to do, without the file's name.

    Raises:
        OutputError: ``disk-full``; the wording's code.
    """
    try:
        yield
    except BedsideError:
        raise
    except OSError as error:
        raise trouble(error, wording) from error
