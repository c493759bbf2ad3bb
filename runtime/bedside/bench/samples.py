"""What is measured on: files that were given, or the computed phantom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bedside.errors import InputError
from bedside.inputs import Inputs
from bedside.sample import write_sample
from bedside.sample_ct import write_series

__all__ = ["MAX_SAMPLES", "choose_samples", "make_phantom"]

MAX_SAMPLES: Final = 64
"""Most samples: enough for every size, and each is done once before anything is timed."""


def choose_samples(paths: Sequence[Path], task: str) -> list[Path]:
    """The files or scans to be measured on; of very many, some, evenly.

    Args:
        paths: X-rays, or folders of them; for CT each is a scan.
        task: Of the bundle.

    Raises:
        InputError: ``not-found`` where a path leads nowhere or there is no picture, ``not-readable`` where no folder
            can be searched.
    """
    for number, path in enumerate(paths, 1):
        if not path.exists():
            raise InputError(
                "not-found", f"input {number} of {len(paths)}: no such file or folder; check the path"
            )
    if task == "ct-opacity":
        found = list(paths)
    else:
        inputs = Inputs(paths)
        inputs.require_any()
        found = [source.path for source in inputs]
    if len(found) <= MAX_SAMPLES:
        return found
    return [found[number * len(found) // MAX_SAMPLES] for number in range(MAX_SAMPLES)]


def make_phantom(task: str, scratch: Path) -> list[Path]:
    """Write the phantom; returns it as the one sample.

    Args:
        task: Of the bundle.
        scratch: Folder for it, which exists.

    Raises:
        OutputError: The folder can't be written.
    """
    if task == "ct-opacity":
        folder = scratch / "phantom"
        write_series(folder)
        return [folder]
    return [write_sample(scratch / "phantom.dcm")]
