"""From a tally to volumes, sides, intervals and the curve along the body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.contract import Tissue
from bedside.ct.sampling import LEVEL, slice_weights
from bedside.ct.tally import BIN_COLUMNS, POSSIBLE, SURE, Tally
from bedside.manifest import Manifest
from bedside.opacification import Confusion, CurvePoint, Opacification, Range, Region, TissueVolume
from bedside.scan import Entry, Grid

__all__ = ["interpret"]

_Float64 = npt.NDArray[np.float64]


def interpret(tally: Tally, manifest: Manifest, ledger: Sequence[Entry] = ()) -> Opacification:
    """Volumes of a scan, or an estimate of them where some slices are missing in the tally.

    Args:
        tally: With all slices, or at least `bedside.sampling.FEWEST` of them.
        manifest: Of the bundle that segmented it.
        ledger: Of the scan; its bounds widen the interval.

    Returns:
        The answer; a region without lung has percentages of None.
    """
    grid, tissues = tally.grid, tally.tissues
    read = tally.read()
    weights = slice_weights(read, grid.shape[0]) * grid.voxel_ml
    opacity = np.array([tissue.opacity for tissue in tissues])
    lung = np.array([tissue.lung for tissue in tissues])
    sums = _Sums(
        *(
            np.tensordot(weights, each[read], 1)
            for each in (tally.voxels, tally.hu, tally.expected, tally.aerated)
        )
    )
    left, sides = _left(sums.ml, tissues, grid)
    both = np.ones_like(left)
    # sided tissues go whole to their side, the others by the plane
    share = np.stack([_of_side(tissue, left) for tissue in tissues])  # (K, bins)
    aerated_left = _aerated_left(sums, share, lung)
    areas = tally.voxels[read].sum(axis=2, dtype=np.float64) * (grid.pixel_mm2 / 100)  # (m, K), cm2
    lung_ml = float(sums.ml[lung].sum())
    found = Opacification(
        both=_region(sums, np.stack([both] * len(tissues)), sums.aerated.sum(), lung, opacity),
        left=_region(sums, share, aerated_left, lung, opacity),
        right=_region(sums, 1 - share, sums.aerated.sum() - aerated_left, lung, opacity),
        interval=Range(0, 0, None, ""),
        sampling=None,
        sides=sides,
        tissues=tuple(
            TissueVolume(
                label=label,
                name=tissue.name,
                opacity=tissue.opacity,
                lung=tissue.lung,
                ml=float(sums.ml[label].sum()),
                ml_expected=float(sums.expected[label].sum()),
                ml_left=float((sums.ml[label] * share[label]).sum()),
                ml_right=float((sums.ml[label] * (1 - share[label])).sum()),
                percent_of_lung=100 * float(sums.ml[label].sum()) / lung_ml
                if tissue.lung and lung_ml
                else None,
                mean_hu=_ratio(sums.hu[label].sum(), sums.ml[label].sum()) if label else None,
            )
            for label, tissue in enumerate(tissues)
        ),
        curve=tuple(
            CurvePoint(int(index), grid.z_mm(int(index)), float(area[lung].sum()), float(area[opacity].sum()))
            for index, area in zip(read, areas, strict=True)
        ),
        confusion=_confuse(sums, manifest),
        read_share=len(read) / grid.shape[0],
    )
    return _with_interval(found, tally, manifest, ledger)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Profiles over the whole scan."""

    ml: _Float64
    """``(K, bins)``, mL by the labels."""
    hu: _Float64
    """``(K, bins)``, HU times mL."""
    expected: _Float64
    """``(K, bins)``, mL by the probabilities."""
    aerated: _Float64
    """``(bins,)``, mL."""


def _region(
    sums: _Sums, share: _Float64, aerated: float, lung: npt.NDArray[np.bool_], opacity: npt.NDArray[np.bool_]
) -> Region:
    ml, expected = sums.ml * share, sums.expected * share
    lung_ml = float(ml[lung].sum())
    return Region(
        lung_ml=lung_ml,
        opacity_ml=float(ml[opacity].sum()),
        opacity_ml_expected=float(expected[opacity].sum()),
        aerated_ml=float(aerated),
        mean_hu=_ratio((sums.hu * share)[lung].sum(), lung_ml),
    )


def _ratio(value: float, ml: float) -> float | None:
    return float(value / ml) if ml > 0 else None


def _left(ml: _Float64, tissues: Sequence[Tissue], grid: Grid) -> tuple[_Float64, str]:
    """Share of each bin in the patient's left half, ``(bins,)``, and how it was found."""
    bins = ml.shape[1]
    sided = {
        side: sum((ml[k] for k, t in enumerate(tissues) if t.side == side), np.zeros(bins)) for side in _SIDES
    }
    lung = sum((ml[k] for k, t in enumerate(tissues) if t.lung), np.zeros(bins))
    if sided["left"].sum() > 0 and sided["right"].sum() > 0:
        # what is left of the edge counts as left: as little as may be on the wrong side
        wrong = np.concatenate(([0.0], np.cumsum(sided["left"]))) + sided["right"].sum()
        wrong -= np.concatenate(([0.0], np.cumsum(sided["right"])))
        edge = _middle(np.flatnonzero(wrong <= wrong.min() + 1e-9))
    else:
        edge = _valley(lung)
    x_mm = grid.x_mm(edge * BIN_COLUMNS - 0.5)
    left = (np.arange(bins) >= edge).astype(np.float64)
    if all(tissue.side for tissue in tissues if tissue.lung):
        return left, "network"
    return left, f"sagittal plane at x = {x_mm:.1f} mm"


_SIDES: Final = ("left", "right")


def _valley(lung: _Float64) -> int:
    """Edge between bins where there is least lung, in the middle half of it by volume."""
    total = float(lung.sum())
    if total <= 0:
        return len(lung) // 2
    smooth = np.convolve(lung, np.ones(5) / 5, mode="same")  # 5 bins: 14 mm, under the mediastinum's width
    below = np.cumsum(lung) / total
    first, last = int(np.searchsorted(below, 0.25)), int(np.searchsorted(below, 0.75)) + 1
    lowest = np.flatnonzero(smooth[first:last] == smooth[first:last].min()) + first
    return _middle(np.append(lowest, lowest[-1] + 1))


def _middle(places: npt.NDArray[np.intp]) -> int:
    return int(places[len(places) // 2])


def _of_side(tissue: Tissue, left: _Float64) -> _Float64:
    if tissue.side == "left":
        return np.ones_like(left)
    return np.zeros_like(left) if tissue.side == "right" else left


def _aerated_left(sums: _Sums, share: _Float64, lung: npt.NDArray[np.bool_]) -> float:
    """Well-aerated lung on the left, mL: of each bin the share that its lung has there."""
    of_lung = sums.ml[lung].sum(axis=0)
    left = (sums.ml * share)[lung].sum(axis=0)
    return float((sums.aerated * np.divide(left, of_lung, out=np.zeros_like(left), where=of_lung > 0)).sum())


def _confuse(sums: _Sums, manifest: Manifest) -> tuple[Confusion, ...]:
    ml = sums.ml.sum(axis=1)
    return tuple(
        Confusion(
            tissue.name,
            float(ml[k]),
            {other.name: float(ml[k] * share) for other, share in zip(manifest.tissues, row, strict=True)},
        )
        for k, (tissue, row) in enumerate(zip(manifest.tissues, manifest.confusion, strict=False))
        if tissue.opacity
    )


def _with_interval(
    found: Opacification, tally: Tally, manifest: Manifest, ledger: Sequence[Entry]
) -> Opacification:
    """Put together what makes the volume uncertain: the network, the slices not read, and the geometry."""
    ml = found.both.opacity_ml
    measured = manifest.volume_interval
    if measured is not None:
        low, high, level = ml * measured.low, ml * measured.high, measured.level
        parts = [measured.method]
    else:
        read = tally.read()
        weights = slice_weights(read, tally.grid.shape[0]) * tally.grid.voxel_ml
        sure, possible = weights @ tally.range[read]
        low, high, level = min(sure, ml), max(possible, ml), None
        parts = [
            f"voxels with an opacity probability of at least {SURE} and {POSSIBLE}: not measured on patients"
        ]
    sampling = None
    estimate = tally.opacity_so_far()
    if found.read_share < 1 and estimate is not None:
        method = f"{len(found.curve)} of {tally.grid.shape[0]} slices"
        sampling = Range(estimate.low, estimate.high, LEVEL, method)
        low -= ml - estimate.low
        high += estimate.high - ml
        level = None
        parts.append(method)
    geometry = sum(entry.volume_error_percent for entry in ledger)
    if geometry > 0:
        low *= max(0.0, 1 - geometry / 100)
        high *= 1 + geometry / 100
        parts.append(f"geometry within {geometry:.2g} %")
    return replace(
        found, interval=Range(max(0.0, float(low)), float(high), level, "; ".join(parts)), sampling=sampling
    )
