"""Pickle files of numpy arrays, read without running anything that is in them.

Unpickling a stranger's file runs code. Here a pickle may hold arrays of numbers, and lists, tuples, numbers and strings
around them; whatever name it refers to that numpy's arrays do not need is refused. Not even numpy's own functions are
called by the file: stand-ins note what it asks for, and the arrays are made afterwards, of their bytes.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from bedside_export.errors import ExportError

__all__ = ["MAX_FILE_BYTES", "read_pickled_arrays"]

MAX_FILE_BYTES: Final = 1 << 26
"""Largest file read, 64 MiB; a perceptron of 1,024 features and 1,000 hidden units has 8 MB."""
MAX_ITEMS: Final = 1000
"""Most arrays, numbers and strings in a file."""
_CODES: Final = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
"""Types of numbers that an array may hold; objects, above all, are none."""
_DAMAGED: Final = (
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
"""What pickle and the stand-ins raise on bytes that make no sense."""


class _RefusedError(pickle.UnpicklingError):
    """The file holds or refers to what no array needs."""


class _Dtype:
    """Stands in for ``numpy.dtype``: notes the code and the byte order."""

    def __init__(self, code: object, *_copying: object) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    def make(self) -> npt.DTypeLike:
        """The type of numbers, if it is one."""
        if self.code not in _CODES or self.order not in ("<", ">", "|", "="):
            raise _RefusedError(f"an array of it holds {self.code[:20]!r}, which are no numbers")
        return np.dtype(f"{self.order}{self.code}")


class _Array:
    """Stands in for an array: for ``_reconstruct`` of numpy, which is told the content afterwards."""

    def __init__(self, *_arguments: object) -> None:
        self.content: tuple[Any, Any, Any] | None = None
        self.order: Literal["C", "F"] = "C"
        self.axes: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.content = (shape, dtype, data)
        self.order = "F" if fortran else "C"

    def make(self) -> npt.NDArray[Any]:
        """The array, a copy."""
        if self.content is None:
            raise _RefusedError("an array of it has no content")
        shape, dtype, data = self.content
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
            raise _RefusedError("an array of it has no plain content")
        sides = tuple(int(side) for side in shape)
        array = np.frombuffer(data, dtype.make()).reshape(sides, order=self.order)
        return array.copy() if self.axes is None else array.transpose(tuple(self.axes)).copy()


class _Buffer(_Array):
    """Stands in for ``_frombuffer`` of numpy, which is told the content at once."""

    def __init__(
        self, data: object, dtype: object, shape: object, order: object, axes: object = None
    ) -> None:
        super().__init__()
        self.content = (shape, dtype, data)
        self.order = "F" if order == "F" else "C"
        self.axes = axes


class _Scalar(_Array):
    """Stands in for ``scalar`` of numpy."""

    def __init__(self, dtype: object, data: object) -> None:
        super().__init__()
        self.content = ((), dtype, data)


class _Latin:
    """Stands in for ``_codecs.encode``, by which older protocols write bytes."""

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding != "latin1":
            raise _RefusedError("its bytes are not written as numpy writes them")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        """Take no state: the class itself is within the file's reach."""


_STAND_INS: Final[Mapping[tuple[str, str], type]] = {
    ("_codecs", "encode"): _Latin,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")  # numpy 1 and 2
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _Scalar),
            ("numeric", "_frombuffer", _Buffer),
        )
    },
}
"""All that a file may refer to. Each has a ``__setstate__`` of its own, or a file could set attributes of the class."""


class _Unpickler(pickle.Unpickler):
    """Looks names up in `_STAND_INS`, or refuses them."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for ``module.name``."""
        if (module, name) not in _STAND_INS:
            raise _RefusedError(f"it refers to {f'{module}.{name}'[:80]!r}, which no array needs")
        return _STAND_INS[module, name]


def read_pickled_arrays(path: Path) -> Any:
    """What a pickle file holds: arrays, numbers and strings, in lists and tuples.

    Args:
        path: The file, of any protocol, by numpy 1 or 2.

    Returns:
        The same nesting of lists and tuples; each array new.

    Raises:
        ExportError: It can't be read, is over `MAX_FILE_BYTES`, is damaged, or holds or refers to anything else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) <= MAX_FILE_BYTES:
            return _Walk().make(_Unpickler(io.BytesIO(data)).load())
    except _RefusedError as error:
        raise ExportError(f"the pickle file is refused: {error}; do not use it") from error
    except OSError as error:
        raise ExportError(
            f"the pickle file can't be read ({error.strerror or error}); check its path"
        ) from error
    except _DAMAGED as error:
        raise ExportError("the pickle file is damaged or no pickle; get it again") from error
    raise ExportError(f"the pickle file is over {MAX_FILE_BYTES >> 20} MiB; give a head's file")


class _Walk:
    """Turns what was read into arrays and plain values, and counts them."""

    def __init__(self) -> None:
        self.items = 0

    def make(self, content: Any) -> Any:
        self.items += 1
        if self.items > MAX_ITEMS:
            raise _RefusedError(f"it holds over {MAX_ITEMS} items")
        if isinstance(content, _Array):
            return content.make()
        if type(content) in (list, tuple):
            return type(content)(self.make(item) for item in content)
        if content is None or type(content) in (bool, int, float, str):
            return content
        raise _RefusedError("it holds something other than arrays, lists, numbers and strings")
