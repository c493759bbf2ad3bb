"""A comparison as JSON, of schema ``bedside.comparison/1``."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from bedside.agreement import LEVEL, BlandAltman, Interval
from bedside.comparison.maps import CaseOverlap, PairOverlap, VoxelVotes
from bedside.comparison.quantities import PairAgreement, Quantity
from bedside.measure import Overlap, SurfaceDistance
from bedside.provenance import NOTICE

if TYPE_CHECKING:
    from bedside.comparison import Comparison, PartAgreement

__all__ = ["SCHEMA", "write_document"]

SCHEMA: Final = "bedside.comparison/1"
"""Version of the JSON; its schema is ``schemas/comparison-1.schema.json``."""
DIGITS: Final = 6
"""Decimals of every number: a nanolitre and a nanometre are under any voxel."""
EMPTY: Final = {"": None, "first": "reference", "second": "reader", "both": "both"}
"""`Overlap.empty` -> who has none of it."""


def write_document(comparison: Comparison) -> dict[str, Any]:
    """All of a comparison. What is not defined is null."""
    names = [reader.name for reader in comparison.readers]
    return {
        "schema": SCHEMA,
        "kind": comparison.kind,
        "level": LEVEL,
        "readers": [{"name": reader.name, "source": reader.source} for reader in comparison.readers],
        "cases": list(comparison.cases),
        "left_out": [{"case": case, "reason": why} for case, why in comparison.left_out.items()],
        "overlaps": [_case(case, names) for case in comparison.overlaps],
        "parts": [_part(part, names) for part in comparison.parts],
        "voxels": None if comparison.voxels is None else _voxels(comparison.voxels, names),
        "quantities": [_quantity(quantity, names) for quantity in comparison.quantities],
        "notice": NOTICE,
    }


def _case(case: CaseOverlap, names: list[str]) -> dict[str, Any]:
    return {
        "case": case.case,
        "pairs": [_pair(pair, part, names) for pair in case.pairs for part in pair.overlaps],
        "voxels": _voxels(case.voxels, names),
        "assumed_opacity_labels": list(case.assumed),
    }


def _pair(pair: PairOverlap, part: str, names: list[str]) -> dict[str, Any]:
    return {
        "reader": names[pair.reader],
        "part": part,
        **_overlap(pair.overlaps[part]),
        "surface": _surface(pair.surfaces[part]),
    }


def _overlap(overlap: Overlap) -> dict[str, Any]:
    return {
        "dice": _number(overlap.dice),
        "iou": _number(overlap.iou),
        "reference_ml": _number(overlap.first_ml),
        "reader_ml": _number(overlap.second_ml),
        "difference_ml": _number(overlap.difference_ml),
        "difference_percent": _number(overlap.difference_percent),
        "empty": EMPTY[overlap.empty],
    }


def _surface(distance: SurfaceDistance | None) -> dict[str, Any] | None:
    if distance is None:
        return None
    return {
        "mean_mm": _number(distance.mean_mm),
        "hausdorff_mm": _number(distance.hausdorff_mm),
        "hausdorff95_mm": _number(distance.hausdorff95_mm),
    }


def _part(part: PartAgreement, names: list[str]) -> dict[str, Any]:
    return {
        "reader": names[part.reader],
        "part": part.part,
        "cases_with_dice": part.defined,
        "dice_mean": _number(part.dice_mean),
        "iou_mean": _number(part.iou_mean),
        "pooled": _overlap(part.pooled),
        "cases_with_surface": part.surfaces,
        "surface_mean": _surface(part.surface_mean),
    }


def _voxels(voxels: VoxelVotes, names: list[str]) -> dict[str, Any]:
    return {
        "within": "lungs of any reader" if voxels.within_lung else "whole grid",
        "count": int(voxels.votes.sum()),
        "cohen_kappa": [
            {"reader": name, "kappa": _number(voxels.cohen(reader))}
            for reader, name in enumerate(names)
            if reader
        ],
        "fleiss_kappa": _number(voxels.fleiss),
    }


def _quantity(quantity: Quantity, names: list[str]) -> dict[str, Any]:
    return {
        "quantity": quantity.name,
        "unit": quantity.unit,
        "values": [
            {"case": case, "readers": [_number(value) for value in row]}
            for case, row in zip(quantity.cases, quantity.values.tolist(), strict=True)
        ],
        "pairs": [_agreement(pair, names) for pair in quantity.pairs],
        "icc": None
        if quantity.icc is None
        else {name: _interval(each) for name, each in quantity.icc.items()},
        "fleiss_kappa": _number(quantity.fleiss),
    }


def _agreement(pair: PairAgreement, names: list[str]) -> dict[str, Any]:
    return {
        "reader": names[pair.reader],
        "mean_absolute_difference": _number(pair.mean_absolute),
        "bland_altman": None if pair.bland_altman is None else _bland_altman(pair.bland_altman),
        "quadratic_kappa": None if pair.kappa is None else _interval(pair.kappa),
    }


def _bland_altman(found: BlandAltman) -> dict[str, Any]:
    return {
        "cases": found.count,
        "bias": _interval(found.bias),
        "sd": _number(found.sd),
        "lower_limit": _interval(found.lower),
        "upper_limit": _interval(found.upper),
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {"value": _number(interval.value), "low": _number(interval.low), "high": _number(interval.high)}


def _number(value: float | None) -> float | None:
    """Rounded; null for what is not defined and for minus infinity, which JSON does not have."""
    return round(value, DIGITS) if value is not None and isfinite(value) else None
