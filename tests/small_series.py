"""A small CT series of the chest, and what ``bedside segment`` answers on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bedside.sample_ct import datasets
from bedside.scan import Grid
from command_line import invoke
from schemas import make_validator

SIDE, SLICES = 96, 40
VALIDATOR = make_validator("opacification-1")


def small_grid(step_mm: float = 8.0) -> Grid:
    """Few voxels, which hold the chest."""
    pixel = 4.0
    edge = -pixel * (SIDE - 1) / 2
    return Grid(
        (SLICES, SIDE, SIDE),
        np.array([[0, 0, pixel, edge], [0, pixel, 0, edge + 5], [step_mm, 0, 0, -185.0], [0, 0, 0, 1]]),
    )


def make_slices() -> list[Any]:
    """Slices of the chest, as DICOM, that are not written yet."""
    return list(datasets(grid=small_grid()))


def write(folder: Path, slices: list[Any], name: str = "image") -> Path:
    """Write slices as files into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(slices):
        dataset.save_as(folder / f"{name}-{number:03d}.dcm")
    return folder


def answer(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    """The one JSON line of ``bedside segment``."""
    done = invoke("segment", *arguments, "--json")
    assert done.exit_code == code, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    VALIDATOR.validate(record)
    return record
