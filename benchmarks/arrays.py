"""Arrays that numpy makes, counted as they are made, in whatever thread.

    with watch_arrays(1 << 20) as made:
        ...
    len(made), sum(made)

tracemalloc tells of what is held, and at its most; an array that is made, copied from and let go of before that shows
nowhere. numpy asks for the memory of each through functions that can be exchanged (NEP 49, "Data allocation
strategies"). Setting others holds for one thread, and decoders and writers have threads of their own; so those of the
standard set are exchanged in their place, and put back.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

__all__ = ["watch_arrays"]

_GET_HANDLER: Final = 305
"""Place of ``PyDataMem_GetHandler`` in numpy's table of functions, the same in numpy 1.22 and later, and in numpy 2."""
_CAPSULE: Final = b"mem_handler"
"""Name of what it gives, as NEP 49 has it."""

_size, _pointer = ctypes.c_size_t, ctypes.c_void_p
# ours take the interpreter's lock, numpy's own count on its being held
_Malloc = ctypes.CFUNCTYPE(_pointer, _pointer, _size)
_Calloc = ctypes.CFUNCTYPE(_pointer, _pointer, _size, _size)
_NumpyMalloc = ctypes.PYFUNCTYPE(_pointer, _pointer, _size)
_NumpyCalloc = ctypes.PYFUNCTYPE(_pointer, _pointer, _size, _size)


class _Allocator(ctypes.Structure):
    """``PyDataMemAllocator``."""

    _fields_ = (
        ("ctx", _pointer),
        ("malloc", _pointer),
        ("calloc", _pointer),
        ("realloc", _pointer),
        ("free", _pointer),
    )


class _Handler(ctypes.Structure):
    """``PyDataMem_Handler``."""

    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", _Allocator))


@contextmanager
def watch_arrays(least: int) -> Iterator[list[int]]:
    """Note the bytes of each array of at least so many that is made in the ``with`` block.

    Raises:
        RuntimeError: This numpy does not let itself be watched so.
    """
    made: list[int] = []
    allocator = _find_handler().allocator
    malloc, calloc = allocator.malloc, allocator.calloc
    numpy_malloc, numpy_calloc = _NumpyMalloc(malloc), _NumpyCalloc(calloc)

    def note_malloc(context: int | None, size: int) -> int | None:
        if size >= least:
            made.append(size)
        place: int | None = numpy_malloc(context, size)
        return place

    def note_calloc(context: int | None, count: int, size: int) -> int | None:
        if count * size >= least:
            made.append(count * size)
        place: int | None = numpy_calloc(context, count, size)
        return place

    kept = _Malloc(note_malloc), _Calloc(note_calloc)  # as long as numpy calls them
    allocator.malloc, allocator.calloc = (ctypes.cast(each, _pointer).value for each in kept)
    try:
        _try_out(made, least)
        yield made
    finally:
        allocator.malloc, allocator.calloc = malloc, calloc


def _find_handler() -> _Handler:
    umath = sys.modules.get("numpy._core._multiarray_umath") or sys.modules["numpy.core._multiarray_umath"]
    point = ctypes.pythonapi.PyCapsule_GetPointer
    point.restype, point.argtypes = _pointer, (ctypes.py_object, ctypes.c_char_p)
    table = ctypes.cast(point(umath._ARRAY_API, None), ctypes.POINTER(_pointer))  # noqa: SLF001 - numpy's C API
    capsule = ctypes.PYFUNCTYPE(ctypes.py_object)(table[_GET_HANDLER] or 0)()
    handler: _Handler = ctypes.cast(point(capsule, _CAPSULE), ctypes.POINTER(_Handler)).contents
    if handler.name != b"default_allocator":
        raise RuntimeError(f"numpy's memory is in other hands here: {handler.name!r}")
    return handler


def _try_out(made: list[int], least: int) -> None:
    """Make sure that it counts, and forget what that made."""
    np.empty(least, np.uint8)
    np.zeros(least, np.uint8)
    if made != [least, least]:
        raise RuntimeError(f"numpy {np.__version__} does not let its arrays be counted")
    made.clear()
