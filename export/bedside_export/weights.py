"""Checkpoint files, read without running anything that is in them.

PyTorch checkpoints are pickles, and unpickling a stranger's file runs code. torchxrayvision's are whole pickled
modules, which ``torch.load(weights_only=True)`` refuses. Here a pickle may call nothing but the functions that
rebuild tensors: every class of torch, torchvision and torchxrayvision is replaced by an inert stand-in that
only keeps its attributes, from which the tensors are then collected, and any other name is refused.
"""

from __future__ import annotations

import pickle
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
from torch import Tensor

from bedside_export.errors import ExportError

__all__ = ["read_weights"]

MAX_FILE_BYTES: Final = 1 << 30
"""Largest checkpoint read, 1 GiB; torchxrayvision's DenseNet-121 has 30 MB."""
_MAX_DEPTH: Final = 32
_DAMAGED: Final = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""What torch and pickle raise on bytes that make no sense."""
_MAGIC: Final = (b"PK\x03\x04", b"\x80")
"""First bytes of torch's zip format (from 1.6) and of its older format, a pickle."""

_REBUILDERS: Final[Mapping[tuple[str, str], Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,  # noqa: SLF001 - names inside the files
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,  # noqa: SLF001
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,  # noqa: SLF001
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
}
"""All that a pickle may call; what ``weights_only=True`` allows, and less."""
_INERT_PACKAGES: Final = (
    "torch",
    "torchvision",
    "torchxrayvision",
    "numpy",
    # what training checkpoints keep beside the weights: hyper-parameters, paths, callbacks' states
    "argparse",
    "collections",
    "functools",
    "lightning",
    "lightning_fabric",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "segmentation_models_pytorch",
    "typing",
)
_INERT_BUILTINS: Final = (
    "set",
    "frozenset",
    "list",
    "dict",
    "tuple",
    "slice",
    "object",
    "complex",
    "bytearray",
)


class _Inert:
    """Stands in for a class of the file: takes anything, does nothing, keeps its attributes."""

    dump_patches = False
    """Asked for by torch's older format."""

    def __init__(self, *_args: object, **_named: object) -> None:
        self.kept: Mapping[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.kept = state if isinstance(state, dict) else {}

    def __setitem__(self, _key: object, _value: object) -> None:
        """Drop what a subclass of dict holds."""

    def append(self, _value: object) -> None:
        """Drop what a subclass of list holds."""

    def extend(self, _values: object) -> None:
        """The same, several at once."""


class _Unpickler(pickle.Unpickler):
    """Looks names up in `_REBUILDERS`, or makes them inert, or refuses them.

    torch itself resolves the types of storages before it asks here.
    """

    def find_class(self, module: str, name: str) -> Any:
        """What stands for ``module.name`` in this process."""
        if (module, name) in _REBUILDERS:
            return _REBUILDERS[module, name]
        if module.partition(".")[0] in _INERT_PACKAGES:
            return type(name, (_Inert,), {})
        if module in ("builtins", "__builtin__") and name in _INERT_BUILTINS:
            return type(name, (_Inert,), {})
        raise pickle.UnpicklingError(f"it refers to {f'{module}.{name}'[:80]!r}, which no weights need")


def _load(file: BinaryIO, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_PICKLE: Final = types.ModuleType("restricted_pickle")
_PICKLE.Unpickler, _PICKLE.load = _Unpickler, _load  # type: ignore[attr-defined]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint: of a state dict, or of a whole pickled module.

    Args:
        path: A file that ``torch.save`` wrote, in its zip or its older format.

    Returns:
        State-dict key -> tensor on the CPU, with any prefix that all keys share (``module.``) taken off.

    Raises:
        ExportError: There is no such file, it is not a checkpoint, it is over `MAX_FILE_BYTES`, it refers to
            code that no weights need, or it holds no tensors.
    """
    try:
        _check_format(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's older format compares the source of pickled classes
            content = torch.load(path, map_location="cpu", pickle_module=_PICKLE, weights_only=False)
    except ExportError:
        raise
    except pickle.UnpicklingError as error:
        raise ExportError(f"the weights file is refused: {error}; do not use it") from error
    except OSError as error:
        raise ExportError(
            f"the weights file can't be read ({error.strerror or error}); check its path"
        ) from error
    except _DAMAGED as error:
        raise ExportError(
            "the weights file is damaged or not a torch checkpoint; download it again"
        ) from error
    tensors = dict(_module_tensors(content) if isinstance(content, _Inert) else _table_tensors(content))
    if not tensors:
        raise ExportError("the weights file holds no tensors; give a state dict or a pickled module")
    return _without_prefix(tensors)


def _check_format(path: Path) -> None:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ExportError(
            f"the weights file is over {MAX_FILE_BYTES >> 20} MiB; give the network's weights alone"
        )
    with path.open("rb") as file:
        if not file.read(4).startswith(_MAGIC):
            raise ExportError("the weights file was not written by torch.save; give a .pt or .pth checkpoint")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise ExportError("the weights file is a TorchScript program; give the network's state dict")


def _module_tensors(module: _Inert, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield (state-dict key, tensor) of what was a module."""
    if depth > _MAX_DEPTH:
        raise ExportError("the weights file nests modules too deep; give the network's state dict")
    for group in ("_parameters", "_buffers"):
        for name, value in _items(module.kept.get(group)):
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value.detach()
    for name, child in _items(module.kept.get("_modules")):
        if isinstance(child, _Inert):
            yield from _module_tensors(child, f"{prefix}{name}.", depth + 1)


def _table_tensors(content: object) -> Iterator[tuple[str, Tensor]]:
    """Yield (key, tensor) of a state dict, or of the one that a training checkpoint wraps."""
    table = dict(_items(content))
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(table.get(key), _Inert):
            yield from _module_tensors(table[key])
            return
        if isinstance(table.get(key), dict):
            table = dict(_items(table[key]))
    for name, value in table.items():
        if isinstance(value, Tensor):
            yield name, value.detach()


def _items(table: object) -> list[tuple[str, Any]]:
    return (
        [(key, value) for key, value in table.items() if isinstance(key, str)]
        if isinstance(table, dict)
        else []
    )


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in ("module.", "model."):
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key[len(prefix) :]: value for key, value in tensors.items()}
    return tensors
