"""Segmented scans made of the chest phantom, whose labels are true, for the tests of what is done with results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bedside.chest import Kind, Side, chest_phantom, select
from bedside.errors import BedsideError
from bedside.manifest import Tissue
from bedside.opacification import (
    Confusion,
    CurvePoint,
    Opacification,
    OpacificationResult,
    Picture,
    Range,
    Region,
    TissueVolume,
)
from bedside.radiograph import Finding
from bedside.scan import Entry, Grid
from made_results import BUNDLE, ENGINE

Hu = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

TISSUES = (
    Tissue("background"),
    Tissue("left lung", lung=True, side="left"),
    Tissue("right lung", lung=True, side="right"),
    Tissue("ground glass", opacity=True, lung=True),
    Tissue("consolidation", opacity=True, lung=True),
)
"""Of `phantom_scan`'s labels."""


@cache
def phantom_scan(
    case: str = "severe", slices: int = 24, pixels: int = 96, squeeze: float = 1.0
) -> tuple[Hu, Labels, Grid]:
    """HU, true labels and grid of the chest, 390 mm wide; rows are ``squeeze`` times as dense as columns."""
    phantom = chest_phantom(case).phantom
    column_mm, slice_mm = 390 / pixels, 340 / slices
    row_mm = column_mm / squeeze
    rows = round(290 / row_mm)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = slice_mm, row_mm, column_mm, 1
    affine[:3, 3] = (column_mm - 390) / 2, (row_mm - 290) / 2 + 5, slice_mm / 2 - 180
    grid = Grid((slices, rows, pixels), affine)

    def covers(side: Side, *kinds: Kind) -> npt.NDArray[np.bool_]:
        return phantom.coverage(select(side, *kinds), grid.shape, affine) > 0.5

    labels = np.zeros(grid.shape, np.uint8)
    sides: tuple[tuple[int, Side], ...] = ((1, "left lung"), (2, "right lung"))
    for label, side in sides:
        labels[covers(side)] = label
        labels[covers(side, "ground glass", "consolidation")] = 3
        labels[covers(side, "consolidation")] = 4
    return phantom.hu(grid.shape, affine), labels, grid


def segmented(
    case: str = "severe", *, pictures: int = 12, every: int = 1, squeeze: float = 1.0, **changed: Any
) -> OpacificationResult:
    """The phantom's result, with status ``ok``, measured on its true labels.

    Args:
        case: Of `bedside.chest.CASES`.
        pictures: How many slices are kept to be shown.
        every: Read only each ``every``-th slice.
        squeeze: As of `phantom_scan`.
        changed: Fields of the result that are to be others.
    """
    hu, labels, grid = phantom_scan(case, squeeze=squeeze)
    return replace(measured(hu, labels, grid, pictures=pictures, every=every), **changed)


def measured(
    hu: Hu,
    labels: Labels,
    grid: Grid,
    *,
    tissues: Sequence[Tissue] = TISSUES,
    pictures: int = 12,
    every: int = 1,
) -> OpacificationResult:
    """A result with status ``ok`` of any scan and any labels."""
    read = list(range(0, len(hu), every))
    share = len(read) / len(hu)
    hu, labels, ml = hu[read], labels[read], grid.voxel_ml / share
    lungs = np.isin(labels, [label for label, tissue in enumerate(tissues) if tissue.lung])
    opaque = np.isin(labels, [label for label, tissue in enumerate(tissues) if tissue.opacity])
    left = np.broadcast_to(np.arange(labels.shape[2]) >= labels.shape[2] // 2, labels.shape)

    def volume(tissue: Tissue, label: int) -> TissueVolume:
        here = labels == label
        return TissueVolume(
            label=label,
            name=tissue.name,
            opacity=tissue.opacity,
            lung=tissue.lung,
            ml=float(here.sum() * ml),
            ml_expected=float(here.sum() * ml * 1.02),
            ml_left=float((here & left).sum() * ml),
            ml_right=float((here & ~left).sum() * ml),
            percent_of_lung=float(100 * here.sum() / lungs.sum()) if tissue.lung and lungs.any() else None,
            mean_hu=float(hu[here].mean()) if here.any() else None,
        )

    def region(where: npt.NDArray[np.bool_]) -> Region:
        lung, opacity = lungs & where, float((opaque & where).sum() * ml)
        return Region(
            lung_ml=float(lung.sum() * ml),
            opacity_ml=opacity,
            opacity_ml_expected=opacity * 1.02,
            aerated_ml=float((lung & (hu >= -950) & (hu <= -700)).sum() * ml),
            mean_hu=float(hu[lung].mean()) if lung.any() else None,
        )

    both = region(np.ones_like(lungs))
    part = Range(0.9 * both.opacity_ml, 1.1 * both.opacity_ml, 0.9, "made up for tests")
    area = grid.pixel_mm2 / 100
    shown = sorted({round(place) for place in np.linspace(0, len(read) - 1, pictures)})
    return OpacificationResult(
        source="scan.nii.gz",
        bundle=BUNDLE,
        engine=ENGINE,
        series="1.2.3",
        opacification=Opacification(
            both=both,
            left=region(left),
            right=region(~left),
            interval=Range(0.8 * both.opacity_ml, 1.25 * both.opacity_ml, 0.8, "made up for tests"),
            sampling=None if every == 1 else part,
            sides="network",
            tissues=tuple(volume(tissue, label) for label, tissue in enumerate(tissues)),
            curve=tuple(
                CurvePoint(
                    index,
                    grid.z_mm(index),
                    float(lungs[place].sum() * area),
                    float(opaque[place].sum() * area),
                )
                for place, index in enumerate(read)
            ),
            confusion=(Confusion("ground glass", 100.0, {"consolidation": 20.0, "ground glass": 80.0}),),
            read_share=share,
        ),
        ledger=(Entry("uneven-spacing", "mended", "slices are unevenly spaced; resampled", 0.4, 3),),
        quality=(Finding("thick-slices", "slices are 14 mm thick; small opacities may be missed"),),
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        peak_memory_mib=512.25,
        predicted_memory_mib=600.0,
        timing_ms={"decode": 800.0, "inference": 2000.5, "total": 2500.125},
        pictures=tuple(
            Picture(read[place], grid.z_mm(read[place]), hu[place], labels[place], grid.spacing_mm[1:])
            for place in shown
        ),
    )


def unsegmented(source: str, error: BedsideError, ledger: Sequence[Entry] = ()) -> OpacificationResult:
    """A result without volumes: refused or failed, as the error is."""
    return OpacificationResult(
        source, BUNDLE, ENGINE, error=error, ledger=tuple(ledger), timing_ms={"total": 1.0}
    )
