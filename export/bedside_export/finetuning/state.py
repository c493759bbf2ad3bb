"""What a training keeps on the disk, so that a pulled plug costs a few steps."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import Any, Final

import torch

from bedside.results import write_bytes
from bedside_export.errors import ExportError

__all__ = ["STATE", "fingerprint", "load_state", "save_state", "save_weights"]

STATE: Final = "state.pt"
"""Is there until a training is done and its report is written."""


def fingerprint(what: Any) -> str:
    """SHA-256 of all that a training depends on: what `json` takes."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def save_state(folder: Path, content: dict[str, Any]) -> None:
    """Replace the state by a newer one: whole, or not at all.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``.
    """
    save_weights(folder / STATE, content)


def save_weights(path: Path, content: dict[str, Any]) -> None:
    """Write tensors as `torch.save` does, whole or not at all."""
    stream = io.BytesIO()
    torch.save(content, stream)
    write_bytes(path, stream.getvalue())


def load_state(folder: Path, wanted: str) -> dict[str, Any] | None:
    """The state of a training that was interrupted; None where there is none.

    Args:
        folder: Of the training.
        wanted: Its fingerprint.

    Raises:
        ExportError: It can't be read, or is of another training.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        theirs = state["fingerprint"]
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise ExportError(
            "the state of the earlier training can't be read; start anew with --restart"
        ) from error
    if theirs != wanted:
        raise ExportError(
            "the output folder holds a training with other options, weights or masks; finish that one, choose another "
            "folder, or start anew with --restart"
        )
    return state
