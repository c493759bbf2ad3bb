"""What it costs to leave out tiles without a voxel of the body, in Dice and mL, on the phantom."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.backends import Backend, EngineInfo, open_backend
from bedside.backends.base import Arrays
from bedside.bundle import Bundle
from bedside.chest import chest_phantom
from bedside.scan import Grid
from bedside.segmentation import Segmentor
from bedside.tissue_counts import TissueCounts, count_tissues
from bedside_export.ct_golden import PIXEL_MM, SLICE_MM

__all__ = ["measure_skip"]

_FIELD_MM: Final = 500.0
"""Side of the picture: the widest that scanners reconstruct, with most air around the body."""
_HEIGHTS_MM: Final = (-32.0, 58.0)
"""Slices of the severe phantom."""


@dataclass(slots=True)
class _Counted:
    """An engine whose tiles are counted."""

    engine: Backend
    tiles: int = 0

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        self.tiles += sum(len(array) for array in inputs.values())
        return self.engine.run(inputs)

    def close(self) -> None:
        self.engine.close()


def measure_skip(bundle: Bundle) -> dict[str, Any]:
    """Segment slices of the phantom with and without tiles that hold nothing of the body.

    Args:
        bundle: Of 2-D tiles; its tile is cut of a field of `_FIELD_MM`.

    Returns:
        For the parity report: tiles left out, 1 - Dice of each tissue, differences in mL, and a line of ``text``.
    """
    manifest = bundle.manifest
    tiling = manifest.tiling
    if tiling is None:
        raise ValueError("the bundle has no tiling")
    pixel = manifest.input.spacing_mm or (PIXEL_MM, PIXEL_MM)
    rows, columns = (int(np.ceil(_FIELD_MM / mm)) for mm in pixel)
    channels = 2 * tiling.context + 1
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = SLICE_MM, *pixel, 1
    affine[:2, 3] = -pixel[1] * (columns - 1) / 2, 5 - pixel[0] * (rows - 1) / 2
    grid = Grid((channels, rows, columns), affine)
    phantom = chest_phantom("severe").phantom
    total: TissueCounts | None = None
    runs = [0, 0]
    with closing(open_backend("onnxruntime", bundle)) as engine:
        for middle in _HEIGHTS_MM:
            affine[2, 3] = middle - tiling.context * SLICE_MM
            hu = phantom.hu((channels, rows, columns), affine)
            answers = []
            for place, skip in enumerate(("constant", "body")):
                counted = _Counted(engine)
                rule = replace(manifest, tiling=replace(tiling, skip=skip))
                segmentor = Segmentor(rule, counted, grid, tiling.size)
                answers.append(segmentor.predict(segmentor.prepare(hu)[None])[0])  # (C, h, w) -> (1, C, h, w)
                runs[place] += counted.tiles
            whole, skipped = answers
            expected = whole.sum(axis=(1, 2), dtype=np.float64)
            counts = count_tissues(whole.argmax(axis=0).astype(np.uint8), expected, skipped)
            total = counts if total is None else total + counts
    if total is None:
        raise ValueError("there is no slice to measure on")
    return _report(total, bundle, runs, pixel[0] * pixel[1] * SLICE_MM / 1000)


def _report(counts: TissueCounts, bundle: Bundle, runs: list[int], voxel_ml: float) -> dict[str, Any]:
    tissues = bundle.manifest.tissues
    losses, absent = counts.dice_loss(), counts.absent()
    differences = (counts.given - counts.reference) * voxel_ml
    opacity = np.array([tissue.opacity for tissue in tissues])
    off = float(differences[opacity].sum())
    worst = float(losses[~absent].max())
    return {
        "rule": "body",
        "slices": len(_HEIGHTS_MM),
        "field_mm": _FIELD_MM,
        "tiles": runs[0],
        "tiles_left_out": runs[0] - runs[1],
        "tissues": {
            tissue.name: {
                "dice_loss": float(f"{losses[k]:.3g}"),
                "ml_difference": float(f"{differences[k]:.3g}"),
                "note": "absent" if absent[k] else "",
            }
            for k, tissue in enumerate(tissues)
        },
        "opacity_ml_difference": float(f"{off:.3g}"),
        "text": (
            f"{runs[0] - runs[1]} of {runs[0]} tiles left out on {len(_HEIGHTS_MM)} slices of {_FIELD_MM:g} mm; "
            f"Dice loss at most {worst:.2g}, opacity off by {off:.2g} mL"
        ),
    }
