"""Memory that two processes see, for arrays that cross between them without being sent."""

from __future__ import annotations

import io
import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.errors import BackendError

__all__ = ["ALIGNMENT", "SharedMemory"]

ALIGNMENT: Final = 64
"""Bytes at whose multiples arrays begin: a cache line, and the widest vector of the processors that we know."""
_MEMORY: Final = "/dev/shm"  # noqa: S108 - nothing there has a name


class SharedMemory:
    """One side's sight of shared memory. Either side may make it larger; nobody makes it smaller.

    Args:
        descriptor: Of the memory; closed with this.
    """

    def __init__(self, descriptor: int) -> None:
        self._file = io.FileIO(descriptor, "r+")
        self._map: mmap.mmap | None = None

    @classmethod
    def create(cls, name: str) -> SharedMemory:
        """Memory of no size yet. It has no place in the file system, and is freed when both sides are gone.

        Args:
            name: Shown by the system's tools.

        Raises:
            BackendError: ``engine-unsupported`` if there is none on this system.
        """
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create(name))
        # Python built for old systems lacks it, as uv's own did until July 2026; this file has no name either
        try:
            with tempfile.TemporaryFile(dir=_MEMORY) as file:
                return cls(os.dup(file.fileno()))
        except OSError as error:
            raise BackendError(
                "engine-unsupported",
                "an engine can't have a process of its own: there is no shared memory here; run it without a watchdog",
            ) from error

    @property
    def descriptor(self) -> int:
        """To be handed to the other side."""
        return self._file.fileno()

    def reserve(self, size: int) -> None:
        """Make it hold ``size`` bytes, all of them there: later no page is missing.

        Raises:
            MemoryError: The memory is not to be had.
        """
        if size > (0 if self._map is None else len(self._map)):
            try:
                os.posix_fallocate(self._file.fileno(), 0, size)
            except OSError as error:
                raise MemoryError(error.strerror) from error

    def view(self, shape: Sequence[int], dtype: str, offset: int = 0) -> npt.NDArray[Any]:
        """An array that lies in it, not a copy.

        Args:
            shape: Its shape.
            dtype: Its type, as `numpy.dtype` takes it.
            offset: Where it begins, in bytes.

        Raises:
            ValueError: It does not hold that much.
        """
        kind = np.dtype(dtype)
        if self._map is None or len(self._map) < offset + kind.itemsize * math.prod(shape):
            self._map = mmap.mmap(self._file.fileno(), 0)  # arrays in the old map keep it
        return np.ndarray(shape, kind, self._map, offset)

    def close(self) -> None:
        """Let go of it; arrays in it stay valid."""
        self._map = None
        self._file.close()
