"""Label maps and results of several readers, written for ``bedside compare``, and what it makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bedside.nifti.writing import NiftiWriter
from bedside.scan import Grid
from command_line import invoke
from schemas import make_validator

Labels = npt.NDArray[np.uint8]

VALIDATOR = make_validator("comparison-1")

AFFINE = np.array([[0.0, 0, 2, -20], [0, 2, 0, -20], [5, 0, 0, -50], [0, 0, 0, 1]])
VOXEL_ML = 5 * 2 * 2 / 1000


def save(path: Path, labels: Labels, affine: npt.NDArray[np.float64] = AFFINE) -> Path:
    """Write a label map."""
    path.parent.mkdir(parents=True, exist_ok=True)
    slices, rows, columns = labels.shape
    with NiftiWriter(path, Grid((slices, rows, columns), affine), kind="labels") as writer:
        for index, plane in enumerate(labels):
            writer.write(index, plane)
    return path


def box(side: int, *, label: int = 1, moved: int = 0) -> Labels:
    """A box of ``4 x side x side`` voxels, ``moved`` columns to the left."""
    labels = np.zeros((6, 20, 20), np.uint8)
    labels[1:5, 2 : 2 + side, 2 + moved : 2 + side + moved] = label
    return labels


def in_lung(opacity: Labels, *, labels: tuple[int, int] = (1, 2)) -> Labels:
    """Lung all around, as label ``labels[0]``, with the opacity as ``labels[1]``."""
    whole = np.full_like(opacity, labels[0])
    whole[opacity > 0] = labels[1]
    whole[:, 0] = 0
    return whole


def result(
    source: str, labels: str | None, *, names: tuple[int, int] = (1, 2), **changed: Any
) -> dict[str, Any]:
    """What ``bedside segment`` writes, as far as it is read here."""
    region = {"lung_ml": 100.0, "opacity_ml": 10.0, "opacity_percent": 10.0}
    return {
        "schema": "bedside.opacification/1",
        "source": source,
        "status": "ok",
        "error": None,
        "volumes": {**region, "left": region, "right": region},
        "classes": [
            {"label": 0, "name": "background", "opacity": False, "lung": False},
            {"label": names[0], "name": "lung tissue", "opacity": False, "lung": True},
            {"label": names[1], "name": "ground glass", "opacity": True, "lung": True},
        ],
        "files": {} if labels is None else {"labels": labels},
        "read_share": 1.0,
        **changed,
    }


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    """Write results as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def compare(*arguments: str | Path, out: Path) -> dict[str, Any]:
    """The JSON of a comparison that goes well."""
    done = invoke("compare", *arguments, "--json", out / "comparison.json")
    assert done.exit_code == 0, done.output
    record: dict[str, Any] = json.loads((out / "comparison.json").read_text("utf-8"))
    VALIDATOR.validate(record)
    return record


def refusal(*arguments: str | Path) -> str:
    """What is told where it can't be compared."""
    done = invoke("compare", *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    return done.stderr


def three_readers(folder: Path) -> tuple[Path, Path, Path]:
    """Folders of three readers of five cases; in the last one the reference and the third see nothing."""
    for index, side in enumerate((4, 6, 8, 10)):
        save(folder / "expert" / f"case-{index}.nii.gz", box(side))
        save(folder / "network" / f"case-{index}.nii.gz", box(side, moved=1))
        save(folder / "resident" / f"case-{index}.nii.gz", box(side + 1))
    for reader, side in (("expert", 0), ("network", 2), ("resident", 0)):
        save(folder / reader / "case-4.nii.gz", box(side))
    return folder / "expert", folder / "network", folder / "resident"
