"""What hinders writing: a full disk, or a folder without permission; and the error that is told then."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bedside import OutputError

NOBODY = 65534


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow over ``size`` bytes, as a full disk does; the kernel says EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def without_privilege() -> Iterator[None]:
    """Be nobody for a while, where the tests run as root, whom no permission stops."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)


@contextmanager
def told(code: str, folder: Path) -> Iterator[None]:
    """Expect an OutputError of one line that names no file."""
    with pytest.raises(OutputError) as error:
        yield
    assert error.value.code == code
    assert "\n" not in error.value.message
    assert str(folder) not in error.value.message
